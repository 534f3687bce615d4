//! Whether a schema is structural, and can be compiled.

use api::validation::FieldError;
use kube_cel::cel::Program;
use serde_json::{Map, Value, json};

use crate::custom::schema::{Schema, default, prune, validate};
use crate::registry::fields::Errors;

/// How deep schemas may nest.
const MAX_DEPTH: usize = 64;
const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const LIST_TYPES: &[&str] = &["atomic", "map", "set"];
/// What OpenAPI knows and definitions may not use.
const UNSUPPORTED: &[&str] =
    &["$ref", "$schema", "additionalItems", "definitions", "dependencies", "id", "patternProperties"];

/// Checks a whole schema beneath `field`.
pub(super) fn check(errors: &mut Errors, field: &str, schema: &Value) {
    let type_ = format!("{field}.type");
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => {}
        None => errors.push(FieldError::required(type_, "must not be empty at the root")),
        Some(other) => errors.push(FieldError::invalid(type_, other, "must be object at the root")),
    }
    walk(errors, field, schema, true, 0);
    if let Err(error) = Schema::parse(schema) {
        let field = format!("{field}.{}", error.path);
        errors.push(FieldError { reason: "FieldValueInvalid", field, message: error.message });
    }
}

fn walk(errors: &mut Errors, field: &str, schema: &Value, root: bool, depth: usize) {
    if depth > MAX_DEPTH {
        errors.push(FieldError::forbidden(field, "the schema nests too deeply"));
        return;
    }
    let Some(map) = schema.as_object() else { return };
    let at = |name: &str| format!("{field}.{name}");
    types(errors, field, map, root);
    for name in UNSUPPORTED.iter().filter(|name| map.get(**name).is_some_and(|v| !v.is_null())) {
        errors.push(FieldError::forbidden(at(name), &format!("{name} is not supported")));
    }
    lists(errors, field, schema);
    rules(errors, field, schema);
    defaults(errors, field, schema);
    for (name, of) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if !(root && name == "metadata") {
            walk(errors, &format!("{field}.properties[{name}]"), of, false, depth + 1);
        }
    }
    match map.get("items") {
        Some(Value::Array(_)) => {
            let detail = "items must be a schema object and not an array";
            errors.push(FieldError::forbidden(at("items"), detail));
        }
        Some(of) => walk(errors, &at("items"), of, false, depth + 1),
        None => {}
    }
    if let Some(of) = map.get("additionalProperties").filter(|v| v.is_object()) {
        walk(errors, &at("additionalProperties"), of, false, depth + 1);
    }
    let int_or_string = flag(map, "x-kubernetes-int-or-string");
    for junctor in ["allOf", "anyOf", "oneOf"] {
        for (i, of) in map.get(junctor).and_then(Value::as_array).into_iter().flatten().enumerate() {
            value_only(errors, &format!("{field}.{junctor}[{i}]"), of, int_or_string, depth + 1);
        }
    }
    if let Some(of) = map.get("not") {
        value_only(errors, &at("not"), of, false, depth + 1);
    }
}

fn flag(map: &Map<String, Value>, name: &str) -> bool {
    map.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn types(errors: &mut Errors, field: &str, map: &Map<String, Value>, root: bool) {
    let at = |name: &str| format!("{field}.{name}");
    let int_or_string = flag(map, "x-kubernetes-int-or-string");
    let exempt = int_or_string || flag(map, "x-kubernetes-preserve-unknown-fields") || root;
    let type_ = map.get("type").and_then(Value::as_str).unwrap_or_default();
    match type_ {
        "" if exempt => {}
        "" => errors.push(FieldError::required(at("type"), "must not be empty for specified object fields")),
        other if !TYPES.contains(&other) => errors.push(FieldError::not_supported(at("type"), other, TYPES)),
        _ if int_or_string => {
            let detail = "must be empty if x-kubernetes-int-or-string is true";
            errors.push(FieldError::invalid(at("type"), type_, detail));
        }
        "array" if map.get("items").is_none_or(Value::is_null) => {
            errors.push(FieldError::required(at("items"), "must be specified"));
        }
        _ => {}
    }
    if flag(map, "x-kubernetes-embedded-resource") && type_ != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(FieldError::invalid(at("type"), type_, detail));
    }
    if flag(map, "uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(at("uniqueItems"), detail));
    }
    let others = map.get("additionalProperties").is_some_and(|v| *v != json!(false));
    if others && map.get("properties").and_then(Value::as_object).is_some_and(|p| !p.is_empty()) {
        let detail = "additionalProperties and properties are mutual exclusive";
        errors.push(FieldError::forbidden(at("additionalProperties"), detail));
    }
}

/// Beneath a junctor stands what validates a value, and nothing that shapes it.
fn value_only(errors: &mut Errors, field: &str, schema: &Value, int_or_string: bool, depth: usize) {
    let Some(map) = schema.as_object().filter(|_| depth <= MAX_DEPTH) else { return };
    for name in ["additionalProperties", "default", "description", "nullable", "title", "type"] {
        let set = map.get(name).is_some_and(|v| !v.is_null() && *v != json!(false) && *v != json!(""));
        if set && !(name == "type" && int_or_string) {
            errors.push(FieldError::forbidden(format!("{field}.{name}"), "must be empty to be structural"));
        }
    }
    for (name, of) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
        value_only(errors, &format!("{field}.properties[{name}]"), of, false, depth + 1);
    }
    for junctor in ["allOf", "anyOf", "oneOf"] {
        for (i, of) in map.get(junctor).and_then(Value::as_array).into_iter().flatten().enumerate() {
            value_only(errors, &format!("{field}.{junctor}[{i}]"), of, int_or_string, depth + 1);
        }
    }
}

fn lists(errors: &mut Errors, field: &str, schema: &Value) {
    let text = |name: &str| schema.get(name).and_then(Value::as_str);
    let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).filter(|k| !k.is_empty());
    let at = |name: &str| format!("{field}.x-kubernetes-list-{name}");
    let Some(list_type) = text("x-kubernetes-list-type") else {
        if keys.is_some() {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            errors.push(FieldError::required(at("type"), detail));
        }
        return;
    };
    if !LIST_TYPES.contains(&list_type) {
        errors.push(FieldError::not_supported(at("type"), list_type, LIST_TYPES));
        return;
    }
    if text("type") != Some("array") {
        let detail = "must be array if x-kubernetes-list-type is specified";
        errors.push(FieldError::invalid(format!("{field}.type"), text("type").unwrap_or_default(), detail));
    }
    if list_type == "map" && keys.is_none() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(at("map-keys"), detail));
    }
    for (i, key) in keys.into_iter().flatten().enumerate().filter(|_| list_type == "map") {
        let name = key.as_str().unwrap_or_default();
        if schema.pointer("/items/properties").and_then(|p| p.get(name)).is_none() {
            let detail = "entries must all be names of item properties";
            errors.push(FieldError::invalid(format!("{}[{i}]", at("map-keys")), name, detail));
        }
    }
}

fn rules(errors: &mut Errors, field: &str, schema: &Value) {
    let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
    for (i, rule) in rules.enumerate() {
        for (name, needed) in [("rule", true), ("messageExpression", false)] {
            let at = format!("{field}.x-kubernetes-validations[{i}].{name}");
            let text = rule.get(name).and_then(Value::as_str).unwrap_or_default();
            if text.trim().is_empty() {
                if needed {
                    errors.push(FieldError::required(at, "rule is not specified"));
                }
                continue;
            }
            if let Err(error) = Program::compile(text) {
                errors.push(FieldError::invalid(at, text, &format!("compilation failed: {error}")));
            }
        }
    }
}

fn defaults(errors: &mut Errors, field: &str, schema: &Value) {
    let Some(value) = schema.get("default") else { return };
    let at = format!("{field}.default");
    let Ok(wrapped) = Schema::parse(&json!({"type": "object", "properties": {"default": schema}})) else {
        return;
    };
    let mut held = json!({"default": value});
    if !prune::prune(&wrapped, &mut held).is_empty() {
        errors.push(FieldError::invalid(&at, value.clone(), "must not have unknown fields"));
    }
    default::apply(&wrapped, &mut held);
    let found = validate::validate(&wrapped, &held, None);
    errors.extend(found.into_iter().map(|e| FieldError { field: format!("{field}.{}", e.field), ..e }));
}
