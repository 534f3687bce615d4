//! Unknown fields: what a document says and its type does not know.

use serde_json::Value;

/// The most unknown fields that are told of one document.
const MAX: usize = 100;

/// The paths of fields of `input` that `normalized`, the same document after a round through its
/// type, does not have: `spec.template.spec.containers[0].imagee`.
///
/// A field that is `null` is as good as absent. `normalized` must not have been pruned of empty
/// values; what defaulting adds does no harm.
pub fn unknown_fields(input: &Value, normalized: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    compare(input, normalized, &mut String::new(), &mut unknown);
    unknown
}

/// How an unknown field is told of, in a warning or a strict decoding error: `unknown field "spec.foo"`.
pub fn unknown_field_message(path: &str) -> String {
    format!("unknown field {path:?}")
}

fn compare(input: &Value, normalized: &Value, path: &mut String, unknown: &mut Vec<String>) {
    let length = path.len();
    match (input, normalized) {
        (Value::Object(input), Value::Object(normalized)) => {
            for (key, value) in input.iter().filter(|(_, value)| !value.is_null()) {
                if unknown.len() >= MAX {
                    return;
                }
                if length > 0 {
                    path.push('.');
                }
                path.push_str(key);
                match normalized.get(key) {
                    Some(known) => compare(value, known, path, unknown),
                    None => unknown.push(path.clone()),
                }
                path.truncate(length);
            }
        }
        (Value::Array(input), Value::Array(normalized)) => {
            for (index, (value, known)) in input.iter().zip(normalized).enumerate() {
                path.push_str(&format!("[{index}]"));
                compare(value, known, path, unknown);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::unknown_fields;
    use crate::kinds::Kind;

    #[track_caller]
    fn check(kind: &str, group: &str, input: serde_json::Value, expected: &[&str]) {
        let kind = Kind::find(group, kind).unwrap();
        let normalized = (kind.normalize)(input.clone()).unwrap();
        assert_eq!(unknown_fields(&input, &normalized), expected);
    }

    #[test]
    fn only_fields_that_the_type_does_not_know_are_told() {
        check(
            "Deployment",
            "apps",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "creationTimestamp": null,
                "labels": {}, "annotations": {"x": ""}},
                "spec": {"replicas": 0, "paused": false, "foo": 1, "strategy": {}, "selector": {},
                    "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
                        {"name": "c", "imagee": "x", "args": [], "resources": {"limits": {"cpu": 1}}, "env": [{"name": "a", "value": ""}]}],
                        "nodeSelector": {}}}},
                "status": {}}),
            &["spec.foo", "spec.template.spec.containers[0].imagee"],
        );
        check(
            "ConfigMap",
            "",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"any": "x"}, "spec": {}}),
            &["spec"],
        );
    }
}
