use serde_json::{Value, json};

use super::*;

const NODE: &str = "node-1";

fn local() -> LocalNode {
    LocalNode { name: NODE.into(), zone: Some("zone-a".into()) }
}

fn slice(endpoints: Value) -> Arc<EndpointSlice> {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "namespace": "default", "labels": {SERVICE_NAME_LABEL: "web"}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    Arc::new(serde_json::from_value(slice).expect("the fixture is a slice"))
}

fn web(spec: Value) -> Service {
    let mut full = json!({"clusterIP": "10.96.7.1", "clusterIPs": ["10.96.7.1"],
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]});
    for (key, value) in spec.as_object().expect("a map") {
        full[key] = value.clone();
    }
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"}, "spec": full});
    serde_json::from_value(service).expect("the fixture is a Service")
}

/// The last octets of the endpoints that are chosen cluster-wide, and on this node.
#[track_caller]
fn check(endpoints: Value, cluster: &[u8], here: &[u8]) {
    let model = service(&web(json!({})), &[slice(endpoints)], &local()).expect("it is for this proxy");
    let octets = |list: Vec<&Endpoint>| list.iter().map(|e| e.ip.octets()[3]).collect::<Vec<_>>();
    assert_eq!(octets(model.ports[0].cluster_endpoints()), cluster, "cluster");
    assert_eq!(octets(model.ports[0].local_endpoints()), here, "local");
}

fn ep(last: u8, node: &str, ready: bool, serving: bool, terminating: bool) -> Value {
    json!({"addresses": [format!("10.244.0.{last}")], "nodeName": node,
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating}})
}

#[test]
fn ready_endpoints_alone_get_traffic() {
    let list = json!([
        ep(1, NODE, true, true, false),
        ep(2, "other", true, true, false),
        ep(3, NODE, false, false, false)
    ]);
    check(list, &[1, 2], &[1]);
    check(json!([{"addresses": ["10.244.0.1"]}]), &[1], &[]);
}

#[test]
fn terminating_endpoints_that_serve_are_the_last_resort() {
    let list = json!([ep(1, NODE, false, true, true), ep(2, "other", true, true, false)]);
    check(list, &[2], &[1]);
    let list = json!([ep(1, NODE, false, true, true), ep(2, "other", false, false, true)]);
    check(list, &[1], &[1]);
}

#[test]
fn hints_choose_the_near_ones_while_there_are_any() {
    let hinted = |last: u8, zone: &str| {
        let mut e = ep(last, "other", true, true, false);
        e["hints"] = json!({"forZones": [{"name": zone}]});
        e
    };
    check(json!([hinted(1, "zone-a"), hinted(2, "zone-b")]), &[1], &[]);
    check(json!([hinted(1, "zone-b"), hinted(2, "zone-c")]), &[1, 2], &[]);
}

#[test]
fn an_endpoint_that_moves_between_slices_counts_once() {
    let slices =
        [slice(json!([ep(1, NODE, false, false, false)])), slice(json!([ep(1, NODE, true, true, false)]))];
    let model = service(&web(json!({})), &slices, &local()).expect("it is for this proxy");
    assert_eq!(model.ports[0].endpoints.len(), 1);
    assert!(model.ports[0].endpoints[0].ready);
}

#[test]
fn addresses_that_no_pod_has_are_no_endpoints() {
    for bad in ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "nonsense"] {
        check(json!([{"addresses": [bad]}]), &[], &[]);
    }
}

#[test]
fn services_without_address_or_for_another_proxy_are_left_alone() {
    assert_eq!(service(&web(json!({"clusterIP": "", "clusterIPs": null})), &[], &local()), None);
    let mut other = web(json!({}));
    other.metadata.labels = Some([(PROXY_NAME_LABEL.to_owned(), "mesh".to_owned())].into());
    assert_eq!(service(&other, &[], &local()), None);
}

#[test]
fn headless_services_publish_their_ready_endpoints() {
    let mut named = ep(1, NODE, true, true, false);
    named["hostname"] = json!("web-0");
    let list = json!([named, ep(2, NODE, true, true, false), ep(3, NODE, false, true, true)]);
    let model = service(&web(json!({"clusterIP": "None", "clusterIPs": ["None"]})), &[slice(list)], &local());
    let Some(ServiceModel { kind: Kind::Headless { backends }, ports, .. }) = model else {
        panic!("{model:?}")
    };
    assert_eq!(ports, []);
    assert_eq!(backends.iter().map(|b| b.hostname.as_str()).collect::<Vec<_>>(), ["web-0", "10-244-0-2"]);
    assert_eq!(backends[0].ports, [("http".to_owned(), Protocol::Tcp, 8080)]);
}

#[test]
fn policies_affinity_and_external_addresses_are_read() {
    let spec = json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
        "sessionAffinity": "ClientIP", "externalIPs": ["192.0.2.1", "2001:db8::1"]});
    let model = service(&web(spec), &[], &local()).expect("it is for this proxy");
    assert!(model.internal_local && model.external_local);
    assert_eq!(model.affinity, Some(10_800));
    let Kind::Virtual { external_ips, .. } = model.kind else { panic!("a virtual Service") };
    assert_eq!(external_ips, ["192.0.2.1".parse::<Ipv4Addr>().expect("an address")]);
}
