//! ServiceAccount: a pod that names no service account runs as `default`.

use api::Object;
use serde_json::Value;

/// Sets `spec.serviceAccountName` where the client left it out.
pub fn mutate(pod: &mut Object) {
    let Some(spec) = pod.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
    let empty = |value: Option<&Value>| value.is_none_or(|v| v.is_null() || v.as_str() == Some(""));
    if empty(spec.get("serviceAccountName")) && empty(spec.get("serviceAccount")) {
        spec.insert("serviceAccountName".into(), "default".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(spec: Value, wanted: &str) {
        let mut pod = Object::new(json!({"spec": spec})).expect("a map");
        mutate(&mut pod);
        assert_eq!(pod.str_at("/spec/serviceAccountName"), wanted);
    }

    #[test]
    fn a_pod_runs_as_default_unless_it_says_otherwise() {
        check(json!({}), "default");
        check(json!({"serviceAccountName": ""}), "default");
        check(json!({"serviceAccountName": "own"}), "own");
        check(json!({"serviceAccount": "old"}), "");
        check(json!("nonsense"), "");
    }
}
