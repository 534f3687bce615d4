//! The schemas of custom kinds, as OpenAPI writes them.

use api::Kind;
use serde_json::{Map, Value, json};

use super::operations::Dialect;
use super::schemas::COLLECTED;
use crate::custom::rules::Rules;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
/// A type whose fields `apiVersion` and `kind` are described as those of every object are.
pub const MODEL: &str = "io.k8s.api.core.v1.ConfigMap";

/// The name of a custom kind's type, as upstream makes it from the group: `org.example.v1.Widget`.
pub fn name(kind: &Kind) -> String {
    let mut group: Vec<&str> = kind.group.split('.').collect();
    group.reverse();
    format!("{}.{}.{}", group.join("."), kind.version, kind.kind)
}

/// The definitions of a custom kind and of its lists. `model` is the schema of [`MODEL`].
pub fn definitions(kind: &Kind, rules: &Rules, model: &Value, dialect: Dialect) -> [(String, Value); 2] {
    let own = name(kind);
    let mut object = rules.source();
    if dialect == Dialect::V2 {
        simplify(&mut object);
    }
    complete(&mut object, model);
    let list = json!({
        "description": format!("{} is a list of {}", kind.list_kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": model["properties"]["apiVersion"],
            "kind": model["properties"]["kind"],
            "metadata": reference(LIST_META),
            "items": {"type": "array", "items": reference(&own)},
        },
    });
    let listed = format!("{own}List");
    [(own, object), (listed, list)]
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("{COLLECTED}{name}")})
}

/// Adds what every object has, to the root and to objects within objects.
fn complete(schema: &mut Value, model: &Value) {
    let Some(map) = schema.as_object_mut() else {
        *schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        return complete(schema, model);
    };
    map.entry("type").or_insert_with(|| "object".into());
    let properties = map.entry("properties").or_insert_with(|| json!({}));
    let Some(properties) = properties.as_object_mut() else { return };
    for field in ["apiVersion", "kind"] {
        properties.insert(field.into(), model["properties"][field].clone());
    }
    let mut metadata = reference(OBJECT_META);
    if let Some(text) = model.pointer("/properties/metadata/description") {
        metadata["description"] = text.clone();
    }
    properties.insert("metadata".into(), metadata);
    each(properties, &mut |schema| {
        if schema.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
            complete(schema, model);
        }
    });
}

/// Calls a function with every schema beneath, those of the innermost first.
fn each(properties: &mut Map<String, Value>, visit: &mut dyn FnMut(&mut Value)) {
    for schema in properties.values_mut() {
        within(schema, visit);
    }
}

fn within(schema: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    let Some(map) = schema.as_object_mut() else { return };
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        each(properties, visit);
    }
    for part in ["items", "additionalProperties"] {
        if let Some(part) = map.get_mut(part) {
            within(part, visit);
        }
    }
    visit(schema);
}

/// Leaves out what the second version has no word for, and what makes its readers refuse a document.
fn simplify(schema: &mut Value) {
    within(schema, &mut |schema| {
        let Some(map) = schema.as_object_mut() else { return };
        for word in ["allOf", "anyOf", "oneOf", "not"] {
            map.remove(word);
        }
        let is = |map: &Map<String, Value>, word: &str| map.get(word) == Some(&Value::Bool(true));
        let nullable = is(map, "nullable");
        map.remove("nullable");
        if nullable {
            // What may be null has no type that a client could hold it against.
            map.remove("type");
        }
        if nullable || is(map, "x-kubernetes-preserve-unknown-fields") {
            for word in ["items", "properties", "additionalProperties"] {
                map.remove(word);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_says_less() {
        let mut schema = json!({"type": "object", "properties": {
            "a": {"type": "object", "nullable": true, "properties": {"x": {"type": "string"}}},
            "b": {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true},
            "c": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"y": {"type": "string"}}}},
        }});
        simplify(&mut schema);
        assert_eq!(
            schema,
            json!({"type": "object", "properties": {
                "a": {},
                "b": {"x-kubernetes-int-or-string": true},
                "c": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }})
        );
    }

    #[test]
    fn objects_have_what_every_object_has() {
        let model = json!({"properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}});
        let mut schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "template": {"type": "object", "x-kubernetes-embedded-resource": true}}}}});
        complete(&mut schema, &model);
        let meta = json!({"$ref": format!("{COLLECTED}{OBJECT_META}")});
        assert_eq!(schema["properties"]["metadata"], meta);
        let template = &schema["properties"]["spec"]["properties"]["template"]["properties"];
        assert_eq!((&template["metadata"], &template["kind"]["type"]), (&meta, &json!("string")));
        let mut none = Value::Null;
        complete(&mut none, &model);
        assert_eq!(none["x-kubernetes-preserve-unknown-fields"], true);
    }
}
