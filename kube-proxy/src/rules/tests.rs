use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::{Endpoint, Kind, Protocol, ServiceModel, ServicePort};

fn params() -> Params {
    Params {
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        service_range: "10.96.0.0/12".parse().unwrap(),
        cluster_dns: Some("10.96.0.10".parse().unwrap()),
    }
}

fn endpoint(last: u8, local: bool) -> Endpoint {
    Endpoint {
        ip: Ipv4Addr::new(10, 244, u8::from(!local), last),
        port: 8080,
        ready: true,
        serving: true,
        terminating: false,
        local,
        maybe_local: local,
        hinted: true,
    }
}

fn web(endpoints: Vec<Endpoint>) -> ServiceModel {
    ServiceModel {
        namespace: "default".into(),
        name: "web".into(),
        kind: Kind::Virtual { cluster_ips: vec!["10.96.7.1".parse().unwrap()], external_ips: vec![] },
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30080),
            endpoints,
        }],
        internal_local: false,
        external_local: false,
        affinity: None,
    }
}

/// The rules of a Service, with chains shown by their prefix and place in the list.
fn text(model: &ServiceModel) -> String {
    let rules = service(model, &params());
    let mut out = String::new();
    let mut names = BTreeMap::new();
    for (i, chain) in rules.chains.iter().enumerate() {
        let short = chain.name.split('-').next().unwrap();
        names.insert(chain.name.clone(), format!("{short}{i}"));
    }
    for (i, set) in rules.sets.iter().enumerate() {
        names.insert(set.name.clone(), format!("aff{i}"));
    }
    for chain in &rules.chains {
        out += &format!("{}: {}\n", chain.name, chain.rules.join("; "));
    }
    for ((slot, key), value) in &rules.elements {
        out += &format!("{}[{key}] {value}\n", slot.name());
    }
    for (name, short) in names {
        out = out.replace(&name, &short);
    }
    out
}

#[track_caller]
fn check(model: &ServiceModel, expected: &[&str]) {
    assert_eq!(text(model).lines().map(str::trim_end).collect::<Vec<_>>(), expected);
}

#[test]
fn every_endpoint_has_its_share_and_outsiders_are_masqueraded() {
    check(
        &web(vec![endpoint(1, true), endpoint(2, false)]),
        &[
            "svc0: meta l4proto tcp numgen random mod 2 0 dnat to 10.244.0.1:8080; \
             meta l4proto tcp dnat to 10.244.1.2:8080",
            "ext1: jump mark-for-masquerade; goto svc0",
            "services[10.96.7.1 . tcp . 80] goto svc0",
            "nodeports[tcp . 30080] goto ext1",
            "hairpin[10.244.0.1 . 10.244.0.1]",
        ],
    );
}

#[test]
fn many_endpoints_share_one_lookup() {
    let model = web((1..=9).map(|i| endpoint(i, false)).collect());
    let rules = service(&model, &params());
    assert_eq!(rules.chains[0].rules.len(), 1);
    assert!(rules.chains[0].rules[0].contains("numgen random mod 9 map { 0 : 10.244.1.1 . 8080, "));
}

#[test]
fn a_service_without_endpoints_is_rejected() {
    check(&web(vec![]), &["no-endpoint-nodeports[tcp . 30080] goto reject-packet"]);
    let mut outside = web(vec![]);
    outside.kind = Kind::Virtual {
        cluster_ips: vec!["192.0.2.1".parse().unwrap()],
        external_ips: vec!["192.0.2.2".parse().unwrap()],
    };
    check(
        &outside,
        &[
            "no-endpoint-services[192.0.2.1 . tcp . 80] goto reject-packet",
            "no-endpoint-services[192.0.2.2 . tcp . 80] goto reject-packet",
            "no-endpoint-nodeports[tcp . 30080] goto reject-packet",
        ],
    );
}

#[test]
fn an_external_policy_of_local_keeps_clients_addresses_and_drops_where_nothing_serves() {
    let mut model = web(vec![endpoint(1, true), endpoint(2, false)]);
    model.external_local = true;
    check(
        &model,
        &[
            "svc0: meta l4proto tcp numgen random mod 2 0 dnat to 10.244.0.1:8080; \
             meta l4proto tcp dnat to 10.244.1.2:8080",
            "svc1: meta l4proto tcp dnat to 10.244.0.1:8080",
            "ext2: ip saddr 10.244.0.0/16 jump mark-for-masquerade; ip saddr 10.244.0.0/16 goto svc0; \
             fib saddr type local jump mark-for-masquerade; fib saddr type local goto svc0; goto svc1",
            "services[10.96.7.1 . tcp . 80] goto svc0",
            "nodeports[tcp . 30080] goto ext2",
            "hairpin[10.244.0.1 . 10.244.0.1]",
        ],
    );
    model.ports[0].endpoints = vec![endpoint(2, false)];
    assert!(text(&model).contains("no-endpoint-nodeports[tcp . 30080] drop\n"));
}

#[test]
fn an_internal_policy_of_local_leaves_other_nodes_out() {
    let mut model = web(vec![endpoint(1, true), endpoint(2, false)]);
    model.internal_local = true;
    let shown = text(&model);
    assert!(shown.starts_with("svc0: meta l4proto tcp dnat to 10.244.0.1:8080\n"), "{shown}");
    model.ports[0].endpoints = vec![endpoint(2, false)];
    assert!(!text(&model).contains("services["));
}

#[test]
fn clients_come_back_to_their_endpoint() {
    let mut model = web(vec![endpoint(1, true), endpoint(2, false)]);
    model.affinity = Some(600);
    let shown = text(&model);
    let expected = [
        "ep0: update @aff0 { ip saddr }; meta l4proto tcp dnat to 10.244.0.1:8080",
        "ep1: update @aff1 { ip saddr }; meta l4proto tcp dnat to 10.244.1.2:8080",
        "svc2: ip saddr @aff0 goto ep0; ip saddr @aff1 goto ep1; numgen random mod 2 0 goto ep0; goto ep1",
    ];
    assert_eq!(shown.lines().take(3).collect::<Vec<_>>(), expected);
    let before = service(&model, &params());
    model.ports[0].endpoints.remove(1);
    let after = service(&model, &params());
    assert_eq!(before.sets[0], after.sets[0], "the remaining endpoint keeps its clients");
}

#[test]
fn names_are_within_the_limit_of_nft() {
    let mut model = web(vec![endpoint(1, true)]);
    (model.namespace, model.name) = ("n".repeat(63), "s".repeat(63));
    assert!(service(&model, &params()).chains.iter().all(|c| c.name.len() < 128));
}

#[test]
fn one_endpoint_of_one_service_is_a_few_lines_however_many_there_are() {
    let mut desired = Desired::default();
    let all = (0..200u8).map(|i| {
        let mut model = web(vec![endpoint(i, false)]);
        model.name = format!("web-{i}");
        model.kind = Kind::Virtual { cluster_ips: vec![Ipv4Addr::new(10, 96, 8, i)], external_ips: vec![] };
        model.ports[0].node_port = None;
        (model.key(), Some(service(&model, &params())))
    });
    desired.change(all.collect());
    let mut model = web(vec![endpoint(7, false), endpoint(8, false)]);
    model.name = "web-7".into();
    model.kind = Kind::Virtual { cluster_ips: vec![Ipv4Addr::new(10, 96, 8, 7)], external_ips: vec![] };
    model.ports[0].node_port = None;
    let change = |m: &ServiceModel| BTreeMap::from([(m.key(), Some(service(m, &params())))]);
    let script = desired.change(change(&model)).0.script();
    assert_eq!(script.lines().count(), 7, "{script}");
    assert_eq!(desired.change(change(&model)).0, Transaction::default());
}

#[test]
fn ended_udp_flows_are_those_whose_endpoint_left_the_service() {
    let mut model = web(vec![endpoint(1, false), endpoint(2, false)]);
    model.ports[0].protocol = Protocol::Udp;
    let mut desired = Desired::default();
    let key = model.key();
    desired.change(BTreeMap::from([(key.clone(), Some(service(&model, &params())))]));
    model.ports[0].endpoints.remove(0);
    let (_, ended) = desired.change(BTreeMap::from([(key, Some(service(&model, &params())))]));
    let endpoint = "10.244.1.1".parse().unwrap();
    let by_ip = UdpFlow { address: "10.96.7.1".parse().ok(), port: 80, endpoint };
    assert_eq!(ended, [UdpFlow { address: None, port: 30080, endpoint }, by_ip]);
}

/// A small world of Services that share addresses and NodePorts on purpose.
fn any_service() -> impl Strategy<Value = ServiceModel> {
    let endpoints = proptest::collection::vec((0u8..6, any::<bool>(), any::<bool>(), any::<bool>()), 0..12);
    let port = (0u16..3, prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)], 0u16..3, endpoints);
    let policies = (any::<bool>(), any::<bool>(), any::<bool>(), 0u8..4);
    (0u8..3, 0u8..3, proptest::collection::vec(port, 1..3), policies).prop_map(|(ns, ip, ports, policies)| {
        let port = |(port, protocol, node_port, endpoints): (u16, _, u16, Vec<(u8, bool, bool, bool)>)| {
            let make = |(last, local, ready, terminating): (u8, bool, bool, bool)| Endpoint {
                ready,
                terminating,
                serving: ready || terminating,
                ..endpoint(last, local)
            };
            let unique: BTreeMap<_, _> =
                endpoints.into_iter().map(make).map(|e| ((e.ip, e.port), e)).collect();
            ServicePort {
                name: format!("p{port}"),
                protocol,
                port: 80 + port,
                node_port: (node_port > 0).then_some(30000 + node_port),
                endpoints: unique.into_values().collect(),
            }
        };
        ServiceModel {
            namespace: format!("ns{ns}"),
            name: "web".into(),
            kind: Kind::Virtual {
                cluster_ips: vec![Ipv4Addr::new(10, 96, 7, ip)],
                external_ips: if policies.3 == 0 { vec![Ipv4Addr::new(192, 0, 2, ip)] } else { vec![] },
            },
            ports: ports.into_iter().map(port).collect(),
            internal_local: policies.0,
            external_local: policies.1,
            affinity: policies.2.then_some(60),
        }
    })
}

fn any_changes() -> impl Strategy<Value = BTreeMap<String, Option<ServiceRules>>> {
    let change = (any_service(), any::<bool>()).prop_map(|(model, keep)| {
        let rules = keep.then(|| service(&model, &params()));
        (model.key(), rules)
    });
    proptest::collection::vec(change, 1..4).prop_map(|changes| changes.into_iter().collect())
}

proptest! {
    #[test]
    fn deltas_lead_to_the_desired_state(batches in proptest::collection::vec(any_changes(), 1..12)) {
        let mut desired = Desired::default();
        let mut kernel = State::default();
        for batch in batches {
            let before = desired.clone();
            let (transaction, _) = desired.change(batch);
            transaction.apply(&mut kernel).unwrap();
            prop_assert_eq!(&kernel, &desired.state());
            let mut jumped = before.state();
            diff(&before, &desired).apply(&mut jumped).unwrap();
            prop_assert_eq!(&jumped, &desired.state());
            prop_assert!(desired.from_state(&kernel).is_empty());
        }
    }
}
