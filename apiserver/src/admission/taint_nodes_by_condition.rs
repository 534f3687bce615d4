//! TaintNodesByCondition: a new node takes no pods before it has said that it is ready.

use api::Object;
use serde_json::{Value, json};

const TAINT: &str = "node.kubernetes.io/not-ready";

/// Adds the taint that the node lifecycle controller takes away.
pub fn mutate(node: &mut Object) {
    let spec = node.as_map_mut().entry("spec").or_insert_with(|| json!({}));
    // What is of another type is refused when the document is decoded.
    let Some(spec) = spec.as_object_mut() else { return };
    let taints = spec.entry("taints").or_insert_with(|| json!([]));
    if taints.is_null() {
        *taints = json!([]);
    }
    let Some(taints) = taints.as_array_mut() else { return };
    let is_there = |t: &Value| {
        t.get("key").and_then(Value::as_str) == Some(TAINT)
            && t.get("effect").and_then(Value::as_str) == Some("NoSchedule")
    };
    if !taints.iter().any(is_there) {
        taints.push(json!({"key": TAINT, "effect": "NoSchedule"}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_node_is_not_ready() {
        for spec in [json!({}), json!({"spec": {"taints": null}})] {
            let mut node = Object::new(spec).expect("a map");
            mutate(&mut node);
            mutate(&mut node);
            assert_eq!(node.pointer("/spec/taints"), Some(&json!([{"key": TAINT, "effect": "NoSchedule"}])));
        }
    }
}
