use super::*;
use crate::model::ServicePort;

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub(crate) fn zone() -> Zone {
    let ranges = ["10.96.0.0/12", "10.244.0.0/16"].map(|r| r.parse().unwrap());
    let mut zone = Zone::new("Cluster.Local.", ranges.into());
    let port = |name: &str, protocol, port| ServicePort {
        name: name.into(),
        protocol,
        port,
        node_port: None,
        endpoints: vec![],
    };
    let service = |name: &str, kind, ports| ServiceModel {
        namespace: "default".into(),
        name: name.into(),
        kind,
        ports,
        internal_local: false,
        external_local: false,
        affinity: None,
    };
    let backend = |address: &str, hostname: &str| Backend {
        ip: ip(address),
        hostname: hostname.into(),
        ports: vec![("peer".into(), Protocol::Tcp, 2380)],
    };
    let cluster_ips = vec![ip("10.96.7.1")];
    let models = [
        service(
            "web",
            Kind::Virtual { cluster_ips, external_ips: vec![] },
            vec![port("http", Protocol::Tcp, 80), port("dns", Protocol::Udp, 53)],
        ),
        service(
            "db",
            Kind::Headless {
                backends: vec![backend("10.244.0.5", "db-0"), backend("10.244.1.6", "10-244-1-6")],
            },
            vec![],
        ),
        service("empty", Kind::Headless { backends: vec![] }, vec![]),
        service("far", Kind::ExternalName("Example.COM.".into()), vec![]),
        service("alias", Kind::ExternalName("web.default.svc.cluster.local".into()), vec![]),
        service("loop", Kind::ExternalName("loop.default.svc.cluster.local".into()), vec![]),
    ];
    for model in models {
        zone.set(&model.key(), Some(Arc::new(model)));
    }
    zone.set_ready();
    zone
}

#[track_caller]
fn check(name: &str, expected: &str) {
    let shown = match zone().lookup(name) {
        Lookup::Missing => "missing".into(),
        Lookup::Elsewhere => "elsewhere".into(),
        Lookup::Exists(data) => {
            let show = |d: Data| match d {
                Data::A(ip) => ip.to_string(),
                Data::Srv { port, target, addresses } => format!("{port} {target} {addresses:?}"),
                Data::Cname(n) | Data::Ptr(n) | Data::Txt(n) | Data::Ns(n) => n,
            };
            data.into_iter().map(show).collect::<Vec<_>>().join("; ")
        }
    };
    assert_eq!(shown, expected, "{name}");
}

#[test]
fn names_of_services() {
    check("web.default.svc.cluster.local", "10.96.7.1");
    check("db.default.svc.cluster.local", "10.244.0.5; 10.244.1.6");
    check("empty.default.svc.cluster.local", "");
    check("far.default.svc.cluster.local", "example.com");
    check("none.default.svc.cluster.local", "missing");
    check("web.other.svc.cluster.local", "missing");
    check("web.default.svc.cluster.local.default.svc.cluster.local", "missing");
}

#[test]
fn names_of_ports() {
    check("_http._tcp.web.default.svc.cluster.local", "80 web.default.svc.cluster.local [10.96.7.1]");
    check("_http._udp.web.default.svc.cluster.local", "missing");
    check(
        "_peer._tcp.db.default.svc.cluster.local",
        "2380 db-0.db.default.svc.cluster.local [10.244.0.5]; \
         2380 10-244-1-6.db.default.svc.cluster.local [10.244.1.6]",
    );
    check("_tcp.web.default.svc.cluster.local", "");
    check("_sctp.web.default.svc.cluster.local", "missing");
}

#[test]
fn names_of_endpoints_and_pods() {
    check("db-0.db.default.svc.cluster.local", "10.244.0.5");
    check("10-244-1-6.db.default.svc.cluster.local", "10.244.1.6");
    check("db-1.db.default.svc.cluster.local", "missing");
    check("x.web.default.svc.cluster.local", "missing");
    check("10-244-0-5.default.pod.cluster.local", "10.244.0.5");
    check("10-244-0.default.pod.cluster.local", "missing");
    check("web.default.pod.cluster.local", "missing");
}

#[test]
fn names_of_addresses() {
    check("1.7.96.10.in-addr.arpa", "web.default.svc.cluster.local");
    check("5.0.244.10.in-addr.arpa", "db-0.db.default.svc.cluster.local");
    check("9.9.96.10.in-addr.arpa", "missing");
    check("8.8.8.8.in-addr.arpa", "elsewhere");
    check("96.10.in-addr.arpa", "elsewhere");
}

#[test]
fn the_zone_itself() {
    check("cluster.local", "ns.dns.cluster.local");
    check("dns-version.cluster.local", "1.1.0");
    check("svc.cluster.local", "");
    check("default.svc.cluster.local", "");
    check("kube-system.svc.cluster.local", "missing");
    check("notcluster.local", "elsewhere");
    check("example.com", "elsewhere");
    check("", "elsewhere");
}

#[test]
fn what_is_removed_leaves_nothing() {
    let mut zone = zone();
    for name in ["web", "db", "empty", "far", "alias", "loop"] {
        zone.set(&format!("default/{name}"), None);
    }
    assert!(zone.services.is_empty() && zone.addresses.is_empty() && zone.namespaces.is_empty());
    assert_eq!(zone.lookup("default.svc.cluster.local"), Lookup::Missing);
}
