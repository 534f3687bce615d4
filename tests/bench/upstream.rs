//! Upstream's binaries in the place of ours, with the flags that its documentation gives.

use std::path::Path;

use coxswain::cluster::{Cluster, Paths};
use coxswain::components::Spec;

/// More requests in a second than either side answers: what is measured is the work, not a client's own limit.
const QPS: &str = "10000";

/// Makes a process of the launcher the one that upstream would start in its place. Certificates, ports, logs and
/// data stay the same.
pub fn replace(spec: &mut Spec, cluster: &Cluster, paths: &Paths, bin_dir: &Path) {
    let program = bin_dir.join(&spec.id);
    match spec.id.as_str() {
        // Debian's, unless one lies beside the others.
        "etcd" if !program.exists() => return,
        "etcd" => {}
        "kube-apiserver" => spec.args = apiserver(cluster, paths, std::mem::take(&mut spec.args)),
        "kube-scheduler" => spec.args.extend(with_api(paths, "scheduler")),
        "kube-controller-manager" => {
            spec.args.extend(with_api(paths, "controller-manager"));
            spec.args.extend([
                format!("--root-ca-file={}", paths.pki("ca.crt").display()),
                format!("--service-account-private-key-file={}", paths.pki("apiserver.key").display()),
                "--use-service-account-credentials=true".into(),
            ]);
        }
        _ => {}
    }
    spec.program = program;
}

fn apiserver(cluster: &Cluster, paths: &Paths, ours: Vec<String>) -> Vec<String> {
    let shared = ours.into_iter().filter(|flag| {
        ["--etcd-", "--tls-", "--client-ca-file", "--secure-port", "--advertise-address", "--service-"]
            .iter()
            .any(|start| flag.starts_with(start))
    });
    // A private key serves as its public half too; it signs tokens that nobody in a benchmark presents.
    let key = paths.pki("apiserver.key").display().to_string();
    let own = [
        "--bind-address=127.0.0.1".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        format!("--service-account-issuer=https://kubernetes.default.svc.{}", cluster.name),
        format!("--service-account-signing-key-file={key}"),
        format!("--service-account-key-file={key}"),
    ];
    shared.filter(|flag| !flag.starts_with("--etcd-compaction")).chain(own).collect()
}

fn with_api(paths: &Paths, who: &str) -> Vec<String> {
    let kubeconfig = paths.kubeconfig(who).display().to_string();
    vec![
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--kube-api-qps={QPS}"),
        format!("--kube-api-burst={QPS}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use coxswain::cluster::Ports;
    use coxswain::components::{Store, specs};

    #[test]
    fn upstream_gets_the_same_certificates_ports_and_data() {
        let cluster = Cluster {
            name: "t".into(),
            bin_dir: "/opt/bin".into(),
            subnet: "172.30.0.0/24".parse().unwrap(),
            ports: Ports::DEFAULT,
            store: Store::Etcd,
            nodes: Vec::new(),
            egress: false,
            snapshotter: "overlayfs".into(),
            cni_bin_dir: "/usr/lib/cni".into(),
            dns_upstream: Vec::new(),
            extra_args: Default::default(),
        };
        let paths = Paths::new(Path::new("/var/lib/coxswain"), "t");
        for mut spec in specs(&cluster, &paths) {
            let before = spec.clone();
            replace(&mut spec, &cluster, &paths, Path::new("/opt/upstream"));
            if spec.id == "etcd" {
                assert_eq!(spec, before);
                continue;
            }
            assert_eq!(spec.program, Path::new("/opt/upstream").join(&spec.id));
            for flag in ["--secure-port", "--tls-cert-file", "--tls-private-key-file", "--client-ca-file"] {
                let find = |spec: &Spec| spec.args.iter().find(|a| a.starts_with(flag)).cloned();
                assert!(find(&spec).is_some() && find(&spec) == find(&before), "{} {flag}", spec.id);
            }
            assert_eq!(spec.probe, before.probe);
        }
    }
}
