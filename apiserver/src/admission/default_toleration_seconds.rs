//! DefaultTolerationSeconds: a pod stays for 300 seconds on a node that is not ready or unreachable, unless it
//! says otherwise.

use api::Object;
use serde_json::{Value, json};

const TAINTS: &[&str] = &["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

/// Adds the tolerations that the pod does not have in any form.
pub fn mutate(pod: &mut Object) {
    let Some(spec) = pod.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    if tolerations.is_null() {
        *tolerations = json!([]);
    }
    // A field of another type is refused when the document is decoded.
    let Some(list) = tolerations.as_array_mut() else { return };
    for taint in TAINTS {
        if !list.iter().any(|t| tolerates(t, taint)) {
            list.push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
        }
    }
}

fn tolerates(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or_default();
    matches!(text("key"), "") && text("operator") == "Exists" && matches!(text("effect"), "" | "NoExecute")
        || text("key") == taint && matches!(text("effect"), "" | "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tolerations: Value, wanted: usize) {
        let mut pod = Object::new(json!({"spec": {"tolerations": tolerations}})).expect("a map");
        mutate(&mut pod);
        assert_eq!(pod.pointer("/spec/tolerations").and_then(Value::as_array).map(Vec::len), Some(wanted));
    }

    #[test]
    fn missing_tolerations_are_added() {
        check(json!(null), 2);
        check(json!([]), 2);
        check(json!([{"operator": "Exists"}]), 1);
        check(
            json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]),
            2,
        );
        check(
            json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule"}]),
            3,
        );
    }
}
