//! ReplicaSets: what is refused, what may change, how a row looks.

use serde_json::{Value, json};

use super::*;
use crate::registry::testing::{invalid, invalid_update, object, row, stored, with};

fn replica_set() -> Value {
    json!({"metadata": {"name": "web-1", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "nginx:1"}]}}}})
}

#[test]
fn a_template_is_required_and_selected() {
    assert_eq!(stored(&ReplicaSetStrategy, replica_set())["spec"]["replicas"], 1);
    invalid(
        &ReplicaSetStrategy,
        with(&replica_set(), "/spec/template", json!(null)),
        &["spec.template: Required value"],
    );
    invalid(
        &ReplicaSetStrategy,
        with(&with(&replica_set(), "/spec/replicas", json!(-1)), "/spec/template/metadata/labels", json!({})),
        &[
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.template.metadata.labels: Invalid value: {}: `selector` does not match template `labels`",
        ],
    );
}

#[test]
fn the_selector_is_immutable() {
    let wider = with(
        &replica_set(),
        "/spec/selector",
        json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}),
    );
    invalid_update(
        &ReplicaSetStrategy,
        replica_set(),
        wider,
        &[
            "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"app\",\"operator\":\"Exists\"}]}: field is immutable",
        ],
    );
}

#[test]
fn replicas_are_selectable_and_shown() {
    let full = with(
        &stored(&ReplicaSetStrategy, replica_set()),
        "/status",
        json!({"replicas": 2, "readyReplicas": 1}),
    );
    assert_eq!(
        ReplicaSetStrategy.selectable_fields(&object(full.clone())),
        [("status.replicas", "2".to_owned())]
    );
    row(&ReplicaSetStrategy, full, &["web-1", "1", "2", "1", "<unknown>", "web", "nginx:1", "app=web"]);
}
