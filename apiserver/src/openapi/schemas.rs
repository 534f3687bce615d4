//! The schemas of types, as OpenAPI writes them.

use api::Kind;
use api::patch::tag;
use api::schema::{Definitions, Shape};
use serde_json::{Map, Value, json};

/// The definitions that kinds are made of, with references beneath `prefix`.
pub fn of<'a>(kinds: impl Iterator<Item = &'a Kind>, prefix: &str) -> Map<String, Value> {
    let mut definitions = Definitions::new();
    let mut own = Vec::new();
    for kind in kinds {
        own.push(((kind.describe)(&mut definitions), kind));
    }
    let mut schemas: Map<String, Value> =
        definitions.iter().map(|(name, fields)| (name.clone(), object(name, fields, prefix))).collect();
    for (name, kind) in own {
        let gvk = json!([{"group": kind.group, "version": kind.version, "kind": kind.kind}]);
        if let Some(schema) = schemas.get_mut(&name) {
            schema["x-kubernetes-group-version-kind"] = gvk;
        }
    }
    schemas
}

fn object(name: &str, fields: &std::collections::BTreeMap<&'static str, Shape>, prefix: &str) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|(field, shape)| {
            let mut schema = schema(shape, prefix);
            if let Some(tag) = tag(name, field) {
                // Beside a reference nothing else is read, so the reference moves into a list of one.
                if let Some(reference) = schema.get("$ref").cloned() {
                    schema = json!({"allOf": [{"$ref": reference}]});
                }
                schema["x-kubernetes-patch-strategy"] = tag.strategy.into();
                if let Some(key) = tag.merge_key {
                    schema["x-kubernetes-patch-merge-key"] = key.into();
                }
            }
            ((*field).to_owned(), schema)
        })
        .collect();
    json!({"type": "object", "properties": properties})
}

fn schema(shape: &Shape, prefix: &str) -> Value {
    match shape {
        Shape::Any => json!({"type": "object"}),
        Shape::Boolean => json!({"type": "boolean"}),
        Shape::Int32 => json!({"type": "integer", "format": "int32"}),
        Shape::Int64 => json!({"type": "integer", "format": "int64"}),
        Shape::Number => json!({"type": "number", "format": "double"}),
        Shape::String => json!({"type": "string"}),
        Shape::Time | Shape::MicroTime => json!({"type": "string", "format": "date-time"}),
        Shape::Bytes => json!({"type": "string", "format": "byte"}),
        Shape::IntOrString => json!({"type": "string", "format": "int-or-string"}),
        Shape::Quantity => json!({"type": "string"}),
        Shape::List(of) => json!({"type": "array", "items": schema(of, prefix)}),
        Shape::Map(of) => json!({"type": "object", "additionalProperties": schema(of, prefix)}),
        Shape::Reference(name) => json!({"$ref": format!("{prefix}{name}")}),
    }
}
