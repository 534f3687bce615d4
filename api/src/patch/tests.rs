//! Patches against their documents, and the laws that hold for any patch.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn kind(name: &str) -> &'static crate::Kind {
    let group = if ["Deployment", "ReplicaSet"].contains(&name) { "apps" } else { "" };
    crate::Kind::find(group, name).unwrap()
}

#[track_caller]
fn check(name: &str, current: Value, patch: Value, expected: Value) {
    assert_eq!(strategic_merge(kind(name), &current, &patch), Ok(expected));
}

#[track_caller]
fn refused(name: &str, current: Value, patch: Value, message: &str) {
    let error = strategic_merge(kind(name), &current, &patch).unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

fn pod(spec: Value) -> Value {
    json!({"spec": spec})
}

#[test]
fn maps_merge_and_null_removes() {
    check(
        "ConfigMap",
        json!({"data": {"a": "1", "b": "2"}, "metadata": {"labels": {"x": "y"}}}),
        json!({"data": {"a": "3", "b": null, "zz": null}, "metadata": {"annotations": {"k": "v"}}}),
        json!({"data": {"a": "3"}, "metadata": {"labels": {"x": "y"}, "annotations": {"k": "v"}}}),
    );
}

#[test]
fn containers_merge_by_name_and_their_lists_by_their_keys() {
    check(
        "Pod",
        pod(json!({"containers": [
            {"name": "a", "image": "one", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80, "name": "http"}],
             "args": ["old"]},
            {"name": "b", "image": "two"}]})),
        pod(json!({"containers": [
            {"name": "a", "image": "new", "env": [{"name": "Y", "value": "2"}], "ports": [{"containerPort": 80, "protocol": "TCP"}],
             "args": ["new"]}]})),
        pod(json!({"containers": [
            {"name": "a", "image": "new", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}],
             "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}], "args": ["new"]},
            {"name": "b", "image": "two"}]})),
    );
}

#[test]
fn lists_without_a_key_are_replaced() {
    check(
        "Pod",
        pod(json!({"tolerations": [{"key": "a"}], "containers": []})),
        pod(json!({"tolerations": [{"key": "b"}]})),
        pod(json!({"tolerations": [{"key": "b"}], "containers": []})),
    );
    check(
        "Node",
        json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
        json!({"spec": {"taints": [{"key": "b", "effect": "NoExecute"}]}}),
        json!({"spec": {"taints": [{"key": "b", "effect": "NoExecute"}]}}),
    );
}

#[test]
fn patch_delete_removes_an_element_and_empties_a_map() {
    check(
        "Pod",
        pod(json!({"volumes": [{"name": "a"}, {"name": "b"}], "securityContext": {"runAsUser": 1}})),
        pod(json!({"volumes": [{"name": "a", "$patch": "delete"}], "securityContext": {"$patch": "delete"}})),
        pod(json!({"volumes": [{"name": "b"}], "securityContext": {}})),
    );
}

#[test]
fn patch_replace_replaces_a_map_or_a_whole_list() {
    check(
        "Deployment",
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            "template": {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}}}),
        json!({"spec": {"strategy": {"$patch": "replace", "type": "Recreate"},
            "template": {"spec": {"containers": [{"$patch": "replace"}, {"name": "c", "image": "x"}]}}}}),
        json!({"spec": {"strategy": {"type": "Recreate"},
            "template": {"spec": {"containers": [{"name": "c", "image": "x"}]}}}}),
    );
}

#[test]
fn retain_keys_drops_the_other_keys() {
    check(
        "Deployment",
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    refused(
        "Deployment",
        json!({}),
        json!({"spec": {"strategy": {"$retainKeys": ["rollingUpdate"], "type": "Recreate"}}}),
        "\"type\" is set but missing",
    );
}

#[test]
fn finalizers_are_a_set() {
    check(
        "Pod",
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"finalizers": ["c", "a"]}}),
        json!({"metadata": {"finalizers": ["c", "a", "b"]}}),
    );
    check(
        "Pod",
        json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["c", "a"]}}),
        json!({"metadata": {"finalizers": ["c", "a"]}}),
    );
}

#[test]
fn set_element_order_orders_and_keeps_what_the_server_added_in_place() {
    let names = |names: &[&str]| names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>();
    check(
        "Pod",
        pod(json!({"containers": names(&["a", "sidecar", "b"])})),
        pod(json!({"$setElementOrder/containers": names(&["b", "new", "a"]), "containers": names(&["new"])})),
        pod(json!({"containers": names(&["sidecar", "b", "new", "a"])})),
    );
    refused(
        "Pod",
        pod(json!({})),
        pod(json!({"$setElementOrder/containers": names(&["a", "b"]), "containers": names(&["b", "a"])})),
        "does not match setElementOrder",
    );
}

#[test]
fn service_ports_merge_by_port_and_conditions_by_type() {
    check(
        "Service",
        json!({"spec": {"ports": [{"port": 80, "nodePort": 30001}]}, "status": {"conditions": [{"type": "A", "status": "True"}]}}),
        json!({"spec": {"ports": [{"port": 80, "name": "http"}]}, "status": {"conditions": [{"type": "A", "status": "False"}]}}),
        json!({"spec": {"ports": [{"port": 80, "name": "http", "nodePort": 30001}]},
            "status": {"conditions": [{"type": "A", "status": "False"}]}}),
    );
}

#[test]
fn malformed_strategic_patches_are_refused() {
    refused("Pod", json!({}), json!([]), "must be a JSON object");
    refused(
        "Pod",
        json!({}),
        pod(json!({"containers": [{"image": "x"}]})),
        "does not contain declared merge key: name",
    );
    refused("Pod", json!({}), pod(json!({"containers": ["x"]})), "must be objects");
    refused("Pod", json!({}), json!({"$patch": "explode"}), "unknown patch type");
    refused("Pod", json!({}), json!({"$setElementOrder/x": 1}), "setElementOrder");
    refused("Pod", json!({}), json!({"$retainKeys": 1}), "retainKeys");
}

#[test]
fn json_patches_are_carried_out_whole_or_not_at_all() {
    let current = json!({"spec": {"replicas": 1, "list": [1, 2]}});
    let good = json!([
        {"op": "test", "path": "/spec/replicas", "value": 1},
        {"op": "replace", "path": "/spec/replicas", "value": 3},
        {"op": "add", "path": "/spec/list/-", "value": 3},
        {"op": "copy", "from": "/spec/list", "path": "/spec/copy"},
        {"op": "move", "from": "/spec/copy", "path": "/moved"},
        {"op": "remove", "path": "/spec/list/0"}]);
    assert_eq!(
        json_patch(&current, &good),
        Ok(json!({"spec": {"replicas": 3, "list": [2, 3]}, "moved": [1, 2, 3]}))
    );
    let refused = |patch: Value| json_patch(&current, &patch).unwrap_err();
    assert!(matches!(
        refused(json!([{"op": "test", "path": "/spec/replicas", "value": 2}])),
        PatchError::Rejected(_)
    ));
    assert!(matches!(refused(json!([{"op": "remove", "path": "/none"}])), PatchError::Rejected(_)));
    assert!(matches!(refused(json!([{"op": "replace", "path": "", "value": 1}])), PatchError::Rejected(_)));
    assert!(matches!(refused(json!({"op": "remove"})), PatchError::Malformed(_)));
    assert!(matches!(refused(json!([{"op": "fly", "path": "/"}])), PatchError::Malformed(_)));
}

#[test]
fn json_patches_cannot_grow_without_bound() {
    let doubling: Vec<_> =
        (0..64).map(|i| json!({"op": "copy", "from": "", "path": format!("/x{i}")})).collect();
    assert!(json_patch(&json!({"a": "x".repeat(100)}), &Value::Array(doubling)).is_err());
    let nesting: Vec<_> = (0..5000)
        .flat_map(|_| {
            [
                json!({"op": "add", "path": "/b", "value": {"c": {"c": {"c": {}}}}}),
                json!({"op": "move", "from": "/a", "path": "/b/c/c/c/c"}),
                json!({"op": "move", "from": "/b", "path": "/a"}),
            ]
        })
        .collect();
    assert!(json_patch(&json!({"a": {}}), &Value::Array(nesting)).is_err());
    let many = vec![json!({"op": "test", "path": "/a", "value": 1}); 10_001];
    assert!(matches!(json_patch(&json!({"a": 1}), &Value::Array(many)), Err(PatchError::Malformed(_))));
}

#[test]
fn merge_patches_follow_their_rfc() {
    let current = json!({"a": "b", "c": {"d": "e", "f": "g"}, "l": [1]});
    let patch = json!({"a": "z", "c": {"f": null}, "l": [2, 3]});
    assert_eq!(merge_patch(&current, &patch), Ok(json!({"a": "z", "c": {"d": "e"}, "l": [2, 3]})));
    assert!(merge_patch(&current, &json!("x")).is_err());
}

/// Documents and patches made of the names that mean something, directives among them.
fn tree(directives: bool) -> impl Strategy<Value = Value> {
    let keys = prop::sample::select(vec![
        "metadata",
        "spec",
        "template",
        "containers",
        "volumes",
        "ports",
        "env",
        "finalizers",
        "name",
        "image",
        "containerPort",
        "args",
        "labels",
        "status",
        "conditions",
        "type",
    ]);
    let special = prop::sample::select(vec![
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers",
        "$setElementOrder/finalizers",
    ]);
    let key = if directives { prop_oneof![12 => keys, 1 => special].boxed() } else { keys.boxed() };
    let words = prop::sample::select(vec!["a", "b", "delete", "replace", "merge"]);
    let leaf = prop_oneof![
        words.prop_map(Value::from),
        (0..3i64).prop_map(Value::from),
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
    ];
    let inner = leaf.prop_recursive(6, 60, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((key.clone(), inner), 0..5)
                .prop_map(|fields| fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    });
    prop::collection::vec((prop::sample::select(vec!["metadata", "spec", "status"]), inner), 0..4)
        .prop_map(|fields| fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

proptest! {
    #[test]
    fn an_empty_patch_changes_nothing(current in tree(false)) {
        prop_assert_eq!(strategic_merge(kind("Pod"), &current, &json!({})), Ok(current.clone()));
        prop_assert_eq!(merge_patch(&current, &json!({})), Ok(current.clone()));
        prop_assert_eq!(json_patch(&current, &json!([])), Ok(current));
    }

    #[test]
    fn applying_a_strategic_patch_twice_is_applying_it_once(
        current in tree(false), patch in tree(true), name in prop::sample::select(vec!["Pod", "Deployment", "Service"]),
    ) {
        if let Ok(once) = strategic_merge(kind(name), &current, &patch) {
            prop_assert_eq!(strategic_merge(kind(name), &once, &patch), Ok(once));
        }
    }

    #[test]
    fn applying_a_merge_patch_twice_is_applying_it_once(current in tree(false), patch in tree(false)) {
        if let Ok(once) = merge_patch(&current, &patch) {
            prop_assert_eq!(merge_patch(&once, &patch), Ok(once));
        }
    }

    #[test]
    fn no_directive_survives_a_strategic_patch(current in tree(false), patch in tree(true)) {
        if let Ok(merged) = strategic_merge(kind("Pod"), &current, &patch) {
            prop_assert!(!merged.to_string().contains("\"$"), "{}", merged);
        }
    }

    #[test]
    fn patching_with_anything_never_panics(current in tree(true), patch in tree(true)) {
        let _ = json_patch(&current, &patch);
        let _ = strategic_merge(kind("Pod"), &current, &patch);
    }
}
