//! Services: defaults, what is refused, what a change of type does, how a row looks.

use serde_json::{Value, json};

use super::*;
use crate::registry::testing::{invalid, invalid_update, row, stored, updated, valid, with};

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

fn web() -> Value {
    service(json!({"ports": [{"port": 80}], "selector": {"app": "web"}}))
}

/// The Service as it is once an address was found for it.
fn allocated(type_: &str) -> Value {
    let spec = json!({"type": type_, "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"],
        "ports": [{"port": 80, "nodePort": if type_ == "ClusterIP" { 0 } else { 30001 }}]});
    service(spec)
}

#[test]
fn a_minimal_service_is_completed() {
    assert_eq!(
        stored(&ServiceStrategy, web())["spec"],
        json!({"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "selector": {"app": "web"},
            "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"})
    );
    let spec = &stored(
        &ServiceStrategy,
        with(&with(&web(), "/spec/type", json!("LoadBalancer")), "/spec/sessionAffinity", json!("ClientIP")),
    )["spec"];
    assert_eq!(spec["externalTrafficPolicy"], "Cluster");
    assert_eq!(spec["allocateLoadBalancerNodePorts"], true);
    assert_eq!(spec["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10800}}));
    let external =
        stored(&ServiceStrategy, service(json!({"type": "ExternalName", "externalName": "a.example"})));
    assert_eq!(
        external["spec"],
        json!({"type": "ExternalName", "externalName": "a.example", "sessionAffinity": "None"})
    );
}

#[test]
fn ports_are_required_but_for_headless_and_external_services() {
    invalid(&ServiceStrategy, service(json!({})), &["spec.ports: Required value"]);
    valid(&ServiceStrategy, service(json!({"clusterIP": "None"})));
    invalid(
        &ServiceStrategy,
        service(json!({"type": "ExternalName"})),
        &["spec.externalName: Required value"],
    );
}

#[test]
fn several_ports_have_names_and_differ() {
    invalid(
        &ServiceStrategy,
        service(
            json!({"ports": [{"port": 80}, {"name": "b", "port": 80}, {"name": "b", "port": 81, "protocol": "X", "targetPort": "UP"}]}),
        ),
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
            "spec.ports[2].name: Duplicate value: \"b\"",
            "spec.ports[2].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.ports[2].targetPort: Invalid value: \"UP\": must contain at least one letter (a-z)",
            "spec.ports[2].targetPort: Invalid value: \"UP\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ],
    );
    valid(
        &ServiceStrategy,
        service(json!({"ports": [{"name": "a", "port": 53, "protocol": "UDP"}, {"name": "b", "port": 53}]})),
    );
}

#[test]
fn node_ports_are_unique_and_of_services_that_have_them() {
    invalid(
        &ServiceStrategy,
        service(json!({"ports": [{"port": 80, "nodePort": 30001}]})),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
    invalid(
        &ServiceStrategy,
        service(
            json!({"type": "NodePort", "ports": [{"name": "a", "port": 80, "nodePort": 30001}, {"name": "b", "port": 81, "nodePort": 30001}]}),
        ),
        &["spec.ports[1].nodePort: Duplicate value: 30001"],
    );
}

#[test]
fn policies_fit_the_type() {
    let check = |pointer: &str, value: Value, expected: &[&str]| {
        invalid(&ServiceStrategy, with(&web(), pointer, value), expected);
    };
    check(
        "/spec/type",
        json!("Best"),
        &[
            "spec.type: Unsupported value: \"Best\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
    check(
        "/spec/externalTrafficPolicy",
        json!("Local"),
        &[
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ],
    );
    check(
        "/spec/internalTrafficPolicy",
        json!("Near"),
        &[
            "spec.internalTrafficPolicy: Unsupported value: \"Near\": supported values: \"Cluster\", \"Local\"",
        ],
    );
    check(
        "/spec/sessionAffinity",
        json!("Always"),
        &["spec.sessionAffinity: Unsupported value: \"Always\": supported values: \"ClientIP\", \"None\""],
    );
    check(
        "/spec/loadBalancerClass",
        json!("a/b"),
        &["spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"],
    );
    check(
        "/spec/healthCheckNodePort",
        json!(30001),
        &[
            "spec.healthCheckNodePort: Invalid value: 30001: may only be set when `type` is 'LoadBalancer' and \
           `externalTrafficPolicy` is 'Local'",
        ],
    );
    check(
        "/spec/clusterIP",
        json!("x"),
        &[
            "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ],
    );
    check(
        "/spec/externalIPs",
        json!(["127.0.0.1"]),
        &[
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ],
    );
    check(
        "/spec/ipFamilies",
        json!(["IPv4", "IPv4"]),
        &[
            "spec.ipFamilies[1]: Duplicate value: \"IPv4\"",
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be RequireDualStack or PreferDualStack when multiple \
             'ipFamilies' are specified",
        ],
    );
    invalid(
        &ServiceStrategy,
        service(json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]})),
        &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
    );
}

#[test]
fn names_of_services_begin_with_a_letter() {
    assert!(ServiceStrategy.validate_name("web").is_empty());
    assert!(!ServiceStrategy.validate_name("1web").is_empty());
}

#[test]
fn what_was_allocated_is_kept_when_it_is_not_repeated() {
    let (new, errors) = updated(
        &ServiceStrategy,
        allocated("NodePort"),
        service(json!({"type": "NodePort", "ports": [{"port": 80, "targetPort": 8080}]})),
    );
    assert_eq!(errors, Vec::<String>::new());
    let spec = new.spec.unwrap();
    assert_eq!(spec.cluster_ip.as_deref(), Some("10.96.1.1"));
    assert_eq!(spec.cluster_ips.as_deref(), Some(&["10.96.1.1".to_owned()][..]));
    assert_eq!(spec.ports.unwrap()[0].node_port, Some(30001));
}

#[test]
fn a_node_port_goes_when_the_type_does() {
    let (new, errors) = updated(
        &ServiceStrategy,
        allocated("NodePort"),
        with(&allocated("NodePort"), "/spec/type", json!("ClusterIP")),
    );
    assert_eq!(errors, Vec::<String>::new());
    let spec = new.spec.unwrap();
    assert_eq!(spec.ports.unwrap()[0].node_port, None);
    assert_eq!(spec.cluster_ip.as_deref(), Some("10.96.1.1"));
}

#[test]
fn a_cluster_ip_goes_when_the_service_becomes_a_name() {
    let named = with(
        &with(&allocated("ClusterIP"), "/spec/type", json!("ExternalName")),
        "/spec/externalName",
        json!("a.example"),
    );
    let (new, errors) = updated(&ServiceStrategy, allocated("ClusterIP"), named);
    assert_eq!(errors, Vec::<String>::new());
    let spec = new.spec.unwrap();
    assert_eq!((spec.cluster_ip, spec.cluster_ips, spec.ip_families), (None, None, None));
}

#[test]
fn a_cluster_ip_never_changes() {
    invalid_update(
        &ServiceStrategy,
        allocated("ClusterIP"),
        with(&allocated("ClusterIP"), "/spec/clusterIP", json!("10.96.1.2")),
        &["spec.clusterIPs[0]: Invalid value: [\"10.96.1.2\"]: may not change once set"],
    );
    invalid_update(
        &ServiceStrategy,
        service(json!({"clusterIP": "None", "ports": [{"port": 80}]})),
        service(json!({"clusterIP": "10.96.1.2", "ports": [{"port": 80}]})),
        &["spec.clusterIPs[0]: Invalid value: [\"10.96.1.2\"]: may not change once set"],
    );
}

#[test]
fn a_row_shows_addresses_and_ports() {
    row(
        &ServiceStrategy,
        with(
            &with(&allocated("NodePort"), "/metadata/creationTimestamp", json!("2025-12-29T21:10:00Z")),
            "/spec/selector",
            json!({"a": "b", "c": "d"}),
        ),
        &["web", "NodePort", "10.96.1.1", "<none>", "80:30001/TCP", "2d3h", "a=b,c=d"],
    );
    row(
        &ServiceStrategy,
        service(
            json!({"type": "LoadBalancer", "ports": [{"name": "a", "port": 53, "protocol": "UDP"}, {"name": "b", "port": 80}]}),
        ),
        &["web", "LoadBalancer", "<none>", "<pending>", "53/UDP,80/TCP", "<unknown>", "<none>"],
    );
    row(
        &ServiceStrategy,
        service(json!({"type": "ExternalName", "externalName": "a.example"})),
        &["web", "ExternalName", "<none>", "a.example", "<none>", "<unknown>", "<none>"],
    );
}
