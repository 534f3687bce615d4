//! Defaulting: what a client left out and the schema fills in.

use serde_json::Value;

use super::{Additional, Schema};

/// Fills in defaults. A null where none is allowed counts as left out when there is a default.
pub fn apply(schema: &Schema, at: &mut Value) {
    match at {
        Value::Object(map) => {
            for (name, of) in &schema.properties {
                let Some(default) = &of.default else { continue };
                let missing = match map.get(name) {
                    None => true,
                    Some(Value::Null) => !of.nullable,
                    Some(_) => false,
                };
                if missing {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, held) in map.iter_mut() {
                match (schema.properties.get(name), &schema.additional) {
                    (Some(of), _) => apply(of, held),
                    (None, Additional::Of(of)) => {
                        if held.is_null()
                            && !of.nullable
                            && let Some(default) = &of.default
                        {
                            *held = default.clone();
                        }
                        apply(of, held);
                    }
                    (None, Additional::Any | Additional::None) => {}
                }
            }
        }
        Value::Array(list) => {
            let Some(of) = &schema.items else { return };
            for held in list {
                if held.is_null()
                    && !of.nullable
                    && let Some(default) = &of.default
                {
                    *held = default.clone();
                }
                apply(of, held);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_fill_in_and_nest() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "default": {}, "properties": {
            "size": {"type": "integer", "default": 1},
            "maybe": {"type": "string", "default": "x", "nullable": true},
            "list": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
        }}}}))
        .expect("a schema");
        let check = |mut object: Value, wanted: Value| {
            apply(&schema, &mut object);
            assert_eq!(object, wanted);
        };
        check(json!({}), json!({"spec": {"size": 1, "maybe": "x"}}));
        check(json!({"spec": {"size": null, "maybe": null}}), json!({"spec": {"size": 1, "maybe": null}}));
        check(
            json!({"spec": {"size": 3, "maybe": "y", "list": [{}]}}),
            json!({"spec": {"size": 3, "maybe": "y", "list": [{"p": "TCP"}]}}),
        );
    }
}
