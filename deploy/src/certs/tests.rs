use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use component::tls::identity;

use super::*;
use crate::cluster::Ports;

fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster {
        name: "coxswain".into(),
        bin_dir: "/bin".into(),
        subnet: "172.30.0.0/24".parse().unwrap(),
        ports: Ports::DEFAULT,
        store: Default::default(),
        nodes: Vec::new(),
        egress: false,
        snapshotter: "overlayfs".into(),
        cni_bin_dir: "/usr/lib/cni".into(),
        dns_upstream: Vec::new(),
        extra_args: BTreeMap::new(),
    };
    cluster.grow(nodes);
    cluster
}

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn later(days: u32) -> Timestamp {
    now() + jiff::SignedDuration::from_hours(24 * i64::from(days))
}

struct Made {
    _dir: tempfile::TempDir,
    paths: Paths,
}

fn made(nodes: usize) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path(), "coxswain");
    ensure(&cluster(nodes), &paths, now()).unwrap();
    Made { _dir: dir, paths }
}

fn der(paths: &Paths, name: &str) -> rustls::pki_types::CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_file(paths.pki(&format!("{name}.crt"))).unwrap()
}

#[test]
fn everybody_is_who_the_api_server_expects() {
    let made = made(2);
    for (file, user, groups) in [
        ("admin", "kubernetes-admin", vec!["system:masters"]),
        ("scheduler", "system:kube-scheduler", vec![]),
        ("controller-manager", "system:kube-controller-manager", vec![]),
        ("kube-proxy", "system:kube-proxy", vec!["system:node-proxier"]),
        ("kubelet-node-1", "system:node:node-1", vec!["system:nodes"]),
        ("kubelet-node-2", "system:node:node-2", vec!["system:nodes"]),
    ] {
        let identity = identity(&der(&made.paths, file)).unwrap();
        assert_eq!(
            (identity.user.as_str(), identity.groups),
            (user, groups.iter().map(ToString::to_string).collect())
        );
    }
}

#[test]
fn the_api_server_answers_to_all_its_names() {
    let made = made(1);
    let der = der(&made.paths, "apiserver");
    let (_, cert) = x509_parser::parse_x509_certificate(&der).unwrap();
    let names = cert.subject_alternative_name().unwrap().unwrap();
    let found: Vec<_> = names.value.general_names.iter().filter_map(host).collect();
    let wanted = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "10.96.0.1",
        "172.30.0.1",
        "localhost",
        "127.0.0.1",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn keys_are_for_root_alone() {
    let made = made(1);
    for entry in fs::read_dir(made.paths.pki("")).unwrap() {
        let entry = entry.unwrap();
        if entry.path().extension().is_some_and(|e| e == "key") {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
    }
}

#[track_caller]
fn check_made_again(change: impl FnOnce(&Paths) -> (Cluster, Timestamp), expected: &[&str]) {
    let made = made(1);
    let (cluster, now) = change(&made.paths);
    assert_eq!(ensure(&cluster, &made.paths, now).unwrap(), expected);
    assert_eq!(ensure(&cluster, &made.paths, now).unwrap(), [""; 0], "the second time nothing is left to do");
}

#[test]
fn what_is_there_and_valid_is_used_again() {
    check_made_again(|_| (cluster(1), later(1)), &[]);
}

#[test]
fn a_new_node_gets_the_only_new_certificate() {
    check_made_again(|_| (cluster(2), now()), &["kubelet-node-2"]);
}

#[test]
fn another_bridge_needs_another_serving_certificate() {
    let moved = Cluster { subnet: "10.89.0.0/24".parse().unwrap(), ..cluster(1) };
    check_made_again(|_| (moved, now()), &["apiserver"]);
}

#[test]
fn a_lost_key_is_replaced_with_its_certificate() {
    let lose = |paths: &Paths| {
        fs::remove_file(paths.pki("scheduler.key")).unwrap();
        (cluster(1), now())
    };
    check_made_again(lose, &["scheduler"]);
}

#[test]
fn a_key_of_another_certificate_is_replaced() {
    let swap = |paths: &Paths| {
        fs::copy(paths.pki("admin.key"), paths.pki("scheduler.key")).unwrap();
        (cluster(1), now())
    };
    check_made_again(swap, &["scheduler"]);
}

#[test]
fn a_broken_file_is_replaced() {
    let spoil = |paths: &Paths| {
        fs::write(paths.pki("kube-proxy.crt"), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
        (cluster(1), now())
    };
    check_made_again(spoil, &["kube-proxy"]);
}

#[test]
fn certificates_are_renewed_before_they_expire() {
    let leaves: Vec<_> = subjects(&cluster(1)).into_iter().map(|s| s.name).collect();
    // Those of one authority after those of another.
    let (mut of_cluster, mut of_etcd, mut of_front_proxy) = (Vec::new(), Vec::new(), Vec::new());
    for name in &leaves {
        match name.as_str() {
            "front-proxy-client" => of_front_proxy.push(name.as_str()),
            name if name.contains("etcd") => of_etcd.push(name),
            name => of_cluster.push(name),
        }
    }
    check_made_again(|_| (cluster(1), later(300)), &[of_cluster, of_etcd, of_front_proxy].concat());
}

#[test]
fn a_lost_ca_takes_what_it_signed_along() {
    let lose = |paths: &Paths| {
        fs::remove_file(paths.pki("etcd-ca.key")).unwrap();
        (cluster(1), now())
    };
    check_made_again(lose, &["etcd-ca", "etcd", "apiserver-etcd-client"]);
}

#[tokio::test]
async fn a_nodes_certificate_does_not_open_etcd() {
    let made = made(1);
    let pki = |name: &str| made.paths.pki(name);
    let server = component::tls::server_config(&component::tls::ServerTls {
        cert: pki("etcd.crt"),
        key: pki("etcd.key"),
        client_ca: Some(pki("etcd-ca.crt")),
    })
    .unwrap();
    let mut accepted = Vec::new();
    for name in ["apiserver-etcd-client", "kubelet-node-1", "admin"] {
        let client = component::tls::client_config(&component::tls::ClientTls {
            ca: pki("etcd-ca.crt"),
            cert: pki(&format!("{name}.crt")),
            key: pki(&format!("{name}.key")),
        })
        .unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        let connect = tokio_rustls::TlsConnector::from(client).connect("localhost".try_into().unwrap(), near);
        let accept = tokio_rustls::TlsAcceptor::from(server.clone()).accept(far);
        let (_, accept) = tokio::join!(connect, accept);
        accepted.push(accept.is_ok());
    }
    assert_eq!(accepted, [true, false, false]);
}
