//! What holds for the rules of every kind.

use api::{Kind, Object};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::strategy;
use crate::registry::strategy::UpdatePath;
use crate::registry::testing::now;

#[path = "tests/fixtures.rs"]
mod more;

/// The number of kinds.
const ALL: usize = 58;

/// A rich document of every kind.
fn fixtures() -> Vec<(&'static Kind, Value)> {
    let pod = json!({"nodeName": "n1", "restartPolicy": "Always", "hostNetwork": false,
        "initContainers": [{"name": "i", "image": "i:1", "restartPolicy": "Always"}],
        "containers": [{"name": "c", "image": "c:1", "command": ["a"], "ports": [{"name": "http", "containerPort": 80, "hostPort": 8080}],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
            "envFrom": [{"configMapRef": {"name": "m"}}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}], "livenessProbe": {"httpGet": {"port": "http"}},
            "readinessProbe": {"exec": {"command": ["a"]}}, "lifecycle": {"preStop": {"exec": {"command": ["b"]}}},
            "securityContext": {"runAsUser": 1}}],
        "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}, {"name": "w", "configMap": {"name": "m"}}],
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]}}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]});
    let mut template = pod.clone();
    template.as_object_mut().unwrap().remove("nodeName");
    let workload = json!({"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": template}});
    let others = more::rows(&workload);
    let rows = [
        ("", "Namespace", json!({"spec": {"finalizers": ["kubernetes"]}})),
        (
            "",
            "Node",
            json!({"spec": {"podCIDR": "10.244.0.0/24", "taints": [{"key": "a", "effect": "NoSchedule"}]},
            "status": {"capacity": {"cpu": "2"}, "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "True"}]}}),
        ),
        (
            "",
            "Pod",
            json!({"spec": pod, "status": {"phase": "Running", "containerStatuses": [{"name": "c", "image": "", "imageID": "",
            "ready": true, "restartCount": 1, "state": {"running": {}}}]}}),
        ),
        (
            "",
            "Service",
            json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "selector": {"a": "b"},
            "ports": [{"name": "a", "port": 80, "nodePort": 30001}, {"name": "b", "port": 81, "targetPort": "x"}]}}),
        ),
        ("", "Endpoints", json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]})),
        ("", "ConfigMap", json!({"data": {"a": "b"}, "binaryData": {"c": "AAE="}})),
        ("", "Secret", json!({"type": "kubernetes.io/basic-auth", "stringData": {"username": "a"}})),
        ("", "ServiceAccount", json!({"secrets": [{"name": "a"}]})),
        (
            "",
            "Event",
            json!({"involvedObject": {"kind": "Pod", "namespace": "default", "name": "a"}, "count": 1, "type": "Normal",
            "firstTimestamp": "2026-01-01T00:00:00Z", "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}}),
        ),
        (
            "events.k8s.io",
            "Event",
            json!({"regarding": {"kind": "Pod", "namespace": "default", "name": "a"}, "note": "x",
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "a", "reportingInstance": "b", "action": "c",
            "reason": "d", "type": "Normal"}),
        ),
        (
            "discovery.k8s.io",
            "EndpointSlice",
            json!({"addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "n1"}]}),
        ),
        ("coordination.k8s.io", "Lease", json!({"spec": {"holderIdentity": "a", "leaseDurationSeconds": 5}})),
        ("apps", "Deployment", json!({"spec": workload})),
        ("apps", "ReplicaSet", json!({"spec": workload})),
        ("apps", "ControllerRevision", json!({"revision": 1, "data": {"a": 1}})),
    ];
    rows.into_iter()
        .chain(others)
        .map(|(group, name, mut document)| {
            let kind = Kind::find(group, name).unwrap();
            document["apiVersion"] = kind.api_version.into();
            document["kind"] = kind.kind.into();
            document["metadata"] =
                json!({"name": name_of(kind), "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"});
            if kind.namespaced {
                document["metadata"]["namespace"] = "default".into();
            }
            (kind, document)
        })
        .collect()
}

/// A name, which a few kinds derive from the rest.
fn name_of(kind: &Kind) -> &'static str {
    match kind.kind {
        "CustomResourceDefinition" => "webs.example.com",
        "APIService" => "v1.example.com",
        "IPAddress" => "10.96.0.7",
        _ => "web",
    }
}

fn object(document: &Value) -> Object {
    Object::new(document.clone()).unwrap()
}

#[test]
fn every_kind_of_the_table_has_rules_and_a_fixture() {
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), ALL);
    let kept = api::kinds::KINDS
        .iter()
        .filter(|k| k.nature != api::kinds::Nature::Review)
        .filter(|k| !crate::registry::convert::is_view(k) || k.group == "events.k8s.io");
    for kind in kept {
        assert!(!strategy(kind).columns().is_empty(), "{}", kind.kind);
        assert!(fixtures.iter().any(|(k, _)| std::ptr::eq(*k, kind)), "{}", kind.kind);
    }
}

#[test]
fn what_was_created_is_updated_to_itself() {
    for (kind, document) in fixtures() {
        let rules = strategy(kind);
        let created =
            rules.for_create(object(&document), vec![]).unwrap_or_else(|e| panic!("{}: {e}", kind.kind));
        for path in [UpdatePath::Main, UpdatePath::Status] {
            let updated = rules.for_update(created.clone(), &created, path, vec![]);
            let updated = updated.unwrap_or_else(|e| panic!("{} {path:?}: {e}", kind.kind));
            assert_eq!(updated.to_value(), created.to_value(), "{} {path:?}", kind.kind);
        }
    }
}

#[test]
fn rows_have_a_cell_per_column_and_fields_their_names() {
    for (kind, document) in fixtures() {
        let rules = strategy(kind);
        let json = object(&document).to_vec();
        let row = rules.row(&json, now());
        assert_eq!(row.len(), rules.columns().len(), "{}", kind.kind);
        assert!(row.iter().all(|cell| !cell.is_null()), "{}: {row:?}", kind.kind);
        let names: Vec<_> = rules.selectable_fields(&json).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, rules.field_names(), "{}", kind.kind);
    }
}

#[test]
fn what_was_found_before_is_told_with_the_rest() {
    let (kind, mut document) = fixtures().remove(2);
    document["spec"]["containers"][0]["image"] = "".into();
    let found = vec![api::validation::FieldError::required("metadata.name", "")];
    let error = strategy(kind).for_create(object(&document), found).unwrap_err();
    let fields: Vec<_> =
        error.0.details.unwrap().causes.unwrap().into_iter().filter_map(|c| c.field).collect();
    assert_eq!(fields, ["metadata.name", "spec.containers[0].image"]);
}

/// The pointers of all values within a document.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                out.push(at.clone());
                pointers(value, &at, out);
            }
        }
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                out.push(format!("{at}/{i}"));
                pointers(value, &format!("{at}/{i}"), out);
            }
        }
        _ => {}
    }
}

fn anything() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!([])),
        Just(json!([{}])),
        Just(json!({"a": "b"})),
        Just(json!("")),
        Just(json!("None")),
        Just(json!("é\u{0}/..%")),
        Just(json!("-1")),
        Just(json!("99999999999999999999999Ei")),
        Just(json!("x".repeat(300))),
        any::<i64>().prop_map(Value::from),
        (-2i64..70_000).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_object_is_refused_in_kubernetes_terms_or_accepted(
        which in 0usize..ALL,
        changes in prop::collection::vec((any::<prop::sample::Index>(), anything()), 1..4),
    ) {
        let (kind, original) = fixtures().swap_remove(which);
        let rules = strategy(kind);
        let created = rules.for_create(object(&original), vec![]).unwrap();
        let mut mutated = created.to_value();
        for (place, value) in changes {
            let mut all = Vec::new();
            pointers(&mutated, "", &mut all);
            let pointer = place.get(&all).clone();
            if !["/apiVersion", "/kind", "/metadata"].contains(&pointer.as_str()) {
                *mutated.pointer_mut(&pointer).unwrap() = value;
            }
        }
        let outcomes = [
            rules.for_create(object(&mutated), vec![]),
            rules.for_update(object(&mutated), &created, UpdatePath::Main, vec![]),
            rules.for_update(object(&mutated), &created, UpdatePath::Status, vec![]),
        ];
        for outcome in outcomes {
            match outcome {
                Err(error) => prop_assert!([400, 422].contains(&error.code()), "{}", error),
                Ok(accepted) => {
                    let json = accepted.to_vec();
                    prop_assert_eq!(rules.row(&json, now()).len(), rules.columns().len());
                    rules.selectable_fields(&json);
                    rules.deletion_grace(&accepted, None);
                }
            }
        }
    }

    #[test]
    fn defaulting_twice_is_defaulting_once(
        which in 0usize..ALL,
        changes in prop::collection::vec((any::<prop::sample::Index>(), anything()), 0..3),
    ) {
        let (kind, mut document) = fixtures().swap_remove(which);
        for (place, value) in changes {
            let mut all = Vec::new();
            pointers(&document, "", &mut all);
            let pointer = place.get(&all).clone();
            if !["/apiVersion", "/kind", "/metadata"].contains(&pointer.as_str()) {
                *document.pointer_mut(&pointer).unwrap() = value;
            }
        }
        let rules = strategy(kind);
        if let Ok(once) = rules.for_create(object(&document), vec![]) {
            let twice = rules.for_create(once.clone(), vec![]);
            prop_assert_eq!(twice.map(Object::into_value).map_err(|e| e.to_string()), Ok(once.into_value()));
        }
    }
}
