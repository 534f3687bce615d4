//! Pruning: what a schema does not name is not kept.

use serde_json::{Map, Value};

use super::{Additional, Schema, join};

/// The most pruned fields that are told of one document.
const MAX: usize = 100;
/// Fields that every object has.
const OBJECT: &[&str] = &["apiVersion", "kind", "metadata"];

/// Removes what the schema does not name from an object, and gives the paths of what was removed.
pub fn prune(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut pruned = Vec::new();
    value(schema, object, "", true, &mut pruned);
    pruned
}

fn value(schema: &Schema, at: &mut Value, path: &str, is_object: bool, pruned: &mut Vec<String>) {
    match at {
        Value::Object(map) => fields(schema, map, path, is_object || schema.embedded, pruned),
        Value::Array(list) => {
            for (i, element) in list.iter_mut().enumerate() {
                match &schema.items {
                    Some(items) => value(items, element, &format!("{path}[{i}]"), false, pruned),
                    None if schema.preserve_unknown => {}
                    None => value(&Schema::default(), element, &format!("{path}[{i}]"), false, pruned),
                }
            }
        }
        _ => {}
    }
}

fn fields(
    schema: &Schema,
    map: &mut Map<String, Value>,
    path: &str,
    is_object: bool,
    pruned: &mut Vec<String>,
) {
    map.retain(|name, held| {
        if is_object && OBJECT.contains(&name.as_str()) {
            return true;
        }
        let field = join(path, name);
        match (schema.properties.get(name), &schema.additional) {
            (Some(of), _) => value(of, held, &field, false, pruned),
            (None, Additional::Of(of)) => value(of, held, &field, false, pruned),
            (None, Additional::Any) => {}
            (None, Additional::None) if schema.preserve_unknown => {}
            (None, Additional::None) => {
                if pruned.len() < MAX {
                    pruned.push(field);
                }
                return false;
            }
        }
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_schema_does_not_name_goes() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a": {"type": "string"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                    "known": {"type": "object", "properties": {"b": {"type": "string"}}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"c": {"type": "string"}}}},
                "list": {"type": "array", "items": {"type": "object", "properties": {"d": {"type": "string"}}}},
                "inner": {"type": "object", "x-kubernetes-embedded-resource": true},
            }}}})).expect("a schema");
        let mut object = json!({"apiVersion": "a", "kind": "b", "metadata": {"name": "n"}, "odd": 1, "spec": {
            "a": "x", "odd": 2, "free": {"any": {"x": 1}, "known": {"b": "1", "odd": 3}}, "map": {"k": {"c": "1", "odd": 4}},
            "list": [{"d": "1", "odd": 5}], "inner": {"apiVersion": "v1", "kind": "X", "metadata": {}, "odd": 6}}});
        let pruned = prune(&schema, &mut object);
        assert_eq!(
            pruned,
            [
                "odd",
                "spec.free.known.odd",
                "spec.inner.odd",
                "spec.list[0].odd",
                "spec.map.k.odd",
                "spec.odd"
            ]
        );
        assert_eq!(
            object,
            json!({"apiVersion": "a", "kind": "b", "metadata": {"name": "n"}, "spec": {
                "a": "x", "free": {"any": {"x": 1}, "known": {"b": "1"}}, "map": {"k": {"c": "1"}},
                "list": [{"d": "1"}], "inner": {"apiVersion": "v1", "kind": "X", "metadata": {}}}})
        );
    }
}
