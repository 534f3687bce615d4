//! JSON merge patches (RFC 7386).

use serde_json::{Map, Value};

/// The patch between two documents.
pub fn diff(before: &Value, after: &Value) -> Value {
    let (Some(before), Some(after)) = (before.as_object(), after.as_object()) else { return after.clone() };
    let mut patch = Map::new();
    for (key, value) in after {
        match before.get(key) {
            Some(old) if old == value => {}
            Some(old) if old.is_object() && value.is_object() => {
                patch.insert(key.clone(), diff(old, value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in before.keys().filter(|k| !after.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// What `modified` adds to `current` or changes in it, and what it left out since `original`.
pub fn three_way(original: &Value, modified: &Value, current: &Value) -> Value {
    Value::Object(maps(original.as_object(), modified.as_object(), current.as_object()))
}

fn maps(
    original: Option<&Map<String, Value>>,
    modified: Option<&Map<String, Value>>,
    current: Option<&Map<String, Value>>,
) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, value) in modified.into_iter().flatten() {
        let now = current.and_then(|c| c.get(key));
        let was = original.and_then(|o| o.get(key));
        match (value, now) {
            (Value::Object(value), Some(Value::Object(now))) => {
                let inner = maps(was.and_then(Value::as_object), Some(value), Some(now));
                if !inner.is_empty() {
                    patch.insert(key.clone(), Value::Object(inner));
                }
            }
            (value, Some(now)) if value == now => {}
            (Value::Null, None) => {}
            (value, _) => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in original.into_iter().flatten().map(|(k, _)| k) {
        let wanted = modified.is_some_and(|m| m.contains_key(key));
        if !wanted && current.is_some_and(|c| c.contains_key(key)) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_others_set_stays_and_what_we_dropped_goes() {
        let patch = three_way(
            &json!({"spec": {"a": 1, "gone": 2, "gone-too": {"x": 1}}}),
            &json!({"spec": {"a": 3, "list": [1]}}),
            &json!({"spec": {"a": 1, "gone": 2, "theirs": 5}, "status": {}}),
        );
        assert_eq!(patch, json!({"spec": {"a": 3, "gone": null, "list": [1]}}));
    }

    pub(crate) fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..3i32).prop_map(Value::from),
            "[ab]".prop_map(Value::from)
        ];
        let tree = leaf.prop_recursive(3, 20, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..3)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        });
        prop::collection::btree_map("[a-c]", tree, 0..4).prop_map(|m| Value::Object(m.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_diff_leads_from_one_document_to_the_other(before in documents(), after in documents()) {
            let patch = diff(&before, &after);
            prop_assert_eq!(api::patch::merge_patch(&before, &patch).unwrap(), after);
        }

        #[test]
        fn a_second_apply_changes_nothing(original in documents(), modified in documents(), current in documents()) {
            let patch = three_way(&original, &modified, &current);
            let merged = api::patch::merge_patch(&current, &patch).unwrap();
            prop_assert_eq!(three_way(&modified, &modified, &merged), json!({}));
        }
    }
}
