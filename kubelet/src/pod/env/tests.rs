use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn service(name: &str, namespace: &str, ip: &str) -> Arc<Service> {
    Arc::new(from(json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}})))
}

fn result(container: Value, pod: Value) -> Result<Vec<(String, String)>, EnvError> {
    let mut spec = json!({"containers": [container]});
    if let (Some(target), Some(extra)) = (spec.as_object_mut(), pod.as_object()) {
        target.extend(extra.clone());
    }
    let pod: Pod = from(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u", "labels": {"app": "x"}},
        "spec": spec}));
    let references = References {
        config_maps: [("cm".to_owned(), Arc::new(from(json!({"data": {"a": "1", "b=": "no"}}))))].into(),
        secrets: [("s".to_owned(), Arc::new(from(json!({"data": {"p": "c2VjcmV0"}}))))].into(),
    };
    let services = [
        service("my-db", "default", "10.96.0.9"),
        service("kubernetes", "default", "10.96.0.1"),
        service("other", "elsewhere", "10.96.0.8"),
    ];
    let facts = Facts {
        host_ips: vec!["192.0.2.1".into()],
        pod_ips: vec!["10.244.0.5".into()],
        allocatable: [("memory".to_owned(), Amount::units(1 << 30))].into(),
    };
    let container = &pod.spec.as_ref().unwrap().containers[0];
    environment(Input { pod: &pod, container, references: &references, services: &services, facts: &facts })
}

#[track_caller]
fn check(container: Value, expected: &[(&str, &str)]) {
    let env = result(container, json!({"enableServiceLinks": false})).unwrap();
    let env: Vec<_> = env.iter().filter(|(n, _)| !n.starts_with("KUBERNETES_")).collect();
    let expected: Vec<_> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(env, expected.iter().collect::<Vec<_>>());
}

#[test]
fn values_expand_what_was_defined_before() {
    check(
        json!({"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(C)-$$(A)"},
            {"name": "C", "value": "x"}]}),
        &[("A", "1"), ("B", "1-$(C)-$(A)"), ("C", "x")],
    );
}

#[test]
fn references_are_resolved() {
    check(
        json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "no", "optional": true}}],
            "env": [
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
            {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "z", "optional": true}}},
            {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}),
        &[("P_a", "1"), ("S", "secret"), ("N", "web"), ("L", "x"), ("IP", "10.244.0.5")],
    );
}

#[test]
fn resources_are_counted_in_units_of_the_divisor() {
    let resource = |name: &str, resource: &str, divisor: &str| json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}}});
    check(
        json!({"name": "c", "resources": {"limits": {"cpu": "1500m"}}, "env": [
            resource("CPU", "limits.cpu", "0"), resource("MILLI", "limits.cpu", "1m"),
            resource("MEM", "limits.memory", "1Mi")]}),
        &[("CPU", "2"), ("MILLI", "1500"), ("MEM", "1024")],
    );
}

#[test]
fn what_is_missing_is_named() {
    let error = |source: Value| {
        let container = json!({"name": "c", "env": [{"name": "A", "valueFrom": source}]});
        result(container, json!({})).unwrap_err().to_string()
    };
    assert_eq!(error(json!({"configMapKeyRef": {"name": "x", "key": "k"}})), "configmap \"x\" not found");
    assert_eq!(error(json!({"secretKeyRef": {"name": "x", "key": "k"}})), "secret \"x\" not found");
    let no_key = error(json!({"configMapKeyRef": {"name": "cm", "key": "k"}}));
    assert_eq!(no_key, "couldn't find key k in ConfigMap default/cm");
    assert_eq!(error(json!({"fieldRef": {"fieldPath": "x"}})), "unsupported fieldPath: x");
}

#[test]
fn services_of_the_namespace_and_the_api_are_told() {
    let env = result(json!({"name": "c"}), json!({})).unwrap();
    let get = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!(get("MY_DB_SERVICE_HOST"), Some("10.96.0.9"));
    assert_eq!(get("MY_DB_SERVICE_PORT_HTTP"), Some("80"));
    assert_eq!(get("MY_DB_PORT_80_TCP"), Some("tcp://10.96.0.9:80"));
    assert_eq!(get("KUBERNETES_SERVICE_HOST"), Some("10.96.0.1"));
    assert_eq!(get("OTHER_SERVICE_HOST"), None);
}

proptest! {
    #[test]
    fn expansion_never_panics_and_leaves_plain_text_alone(text in ".{0,40}", plain in "[a-z() ]{0,20}") {
        let _ = expand(&text, |_| Some("x"));
        prop_assert_eq!(expand(&plain, |_| None), plain);
    }
}
