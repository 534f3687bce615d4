//! Validation of custom resources against their schemas, in upstream's words.

use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Additional, Checks, ListType, Schema, Type, join};

/// Everything that is wrong with an object. What did not change from `old` is not looked at again (KEP-4008).
pub fn validate(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    value(schema, object, old, "", true, &mut errors);
    errors
}

fn value(
    schema: &Schema,
    at: &Value,
    old: Option<&Value>,
    path: &str,
    root: bool,
    errors: &mut Vec<FieldError>,
) {
    if old == Some(at) {
        return;
    }
    if at.is_null() && schema.nullable {
        return;
    }
    if !type_fits(schema, at) {
        errors.push(wrong_type(path, at, wanted_type(schema)));
        return;
    }
    let before = errors.len();
    bounds(&schema.checks, schema, at, path, errors);
    match at {
        Value::Object(map) => fields(schema, map, old, path, root, errors),
        Value::Array(list) => elements(schema, list, old, path, errors),
        _ => {}
    }
    combined(&schema.checks, at, path, root, errors, before);
}

fn fields(
    schema: &Schema,
    map: &Map<String, Value>,
    old: Option<&Value>,
    path: &str,
    root: bool,
    errors: &mut Vec<FieldError>,
) {
    for name in &schema.checks.required {
        if !map.contains_key(name) {
            errors.push(FieldError::required(join(path, name), ""));
        }
    }
    if schema.embedded && !root {
        embedded(map, path, errors);
    }
    for (name, held) in map {
        let of = match (schema.properties.get(name), &schema.additional) {
            (Some(of), _) => of,
            (None, Additional::Of(of)) => of,
            (None, Additional::Any | Additional::None) => continue,
        };
        // The metadata of an object is the generic store's, whatever the schema says of it beyond its name.
        if root && matches!(name.as_str(), "apiVersion" | "kind") {
            continue;
        }
        value(of, held, old.and_then(|o| o.get(name)), &join(path, name), false, errors);
    }
}

fn embedded(map: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    for name in ["apiVersion", "kind"] {
        match map.get(name) {
            Some(Value::String(text)) if !text.is_empty() => {}
            _ => errors.push(FieldError::required(join(path, name), "must not be empty")),
        }
    }
}

fn elements(schema: &Schema, list: &[Value], old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let olds = old.and_then(Value::as_array);
    let key = |element: &Value| -> Option<Value> {
        match &schema.list_type {
            ListType::Atomic => None,
            ListType::Set => Some(element.clone()),
            ListType::Map(keys) => {
                let held = keys.iter().map(|k| (k.clone(), element.get(k).cloned().unwrap_or_default()));
                Some(Value::Object(held.filter(|(_, v)| !v.is_null()).collect()))
            }
        }
    };
    if let Some(items) = &schema.items {
        for (i, element) in list.iter().enumerate() {
            // Only elements that can be told apart have a past.
            let past = key(element).and_then(|k| olds?.iter().find(|o| key(o).as_ref() == Some(&k)));
            value(items, element, past, &format!("{path}[{i}]"), false, errors);
        }
    }
    let mut seen: Vec<Value> = Vec::new();
    for (i, element) in list.iter().enumerate() {
        let Some(key) = key(element) else { break };
        if seen.contains(&key) {
            errors.push(FieldError::duplicate(format!("{path}[{i}]"), key));
        } else {
            seen.push(key);
        }
    }
}

fn type_fits(schema: &Schema, at: &Value) -> bool {
    if schema.int_or_string {
        return at.is_string() || is_integer(at);
    }
    match schema.type_ {
        None => !at.is_null() || schema.preserve_unknown,
        Some(Type::Object) => at.is_object(),
        Some(Type::Array) => at.is_array(),
        Some(Type::String) => at.is_string(),
        Some(Type::Integer) => is_integer(at),
        Some(Type::Number) => at.is_number(),
        Some(Type::Boolean) => at.is_boolean(),
    }
}

fn is_integer(at: &Value) -> bool {
    at.is_i64() || at.is_u64() || at.as_f64().is_some_and(|n| n.fract() == 0.0)
}

fn wanted_type(schema: &Schema) -> &'static str {
    if schema.int_or_string { "integer,string" } else { schema.type_.map_or("object", Type::name) }
}

fn type_name(at: &Value) -> &'static str {
    match at {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn wrong_type(path: &str, at: &Value, wanted: &str) -> FieldError {
    let found = type_name(at);
    FieldError::type_invalid(
        path,
        found,
        &format!("{} in body must be of type {wanted}: {found:?}", shown(path)),
    )
}

/// How messages name the whole object.
fn shown(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

fn bounds(checks: &Checks, schema: &Schema, at: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let invalid =
        |detail: String| FieldError::invalid(path, at.clone(), &format!("{} in body {detail}", shown(path)));
    if !checks.choices.is_empty() && !checks.choices.contains(at) {
        let texts: Vec<String> = checks.choices.iter().map(plain).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        errors.push(FieldError::not_supported(path, at.clone(), &texts));
    }
    match at {
        Value::String(text) => {
            let length = text.chars().count() as u64;
            if let Some(most) = checks.max_length.filter(|most| length > *most) {
                errors.push(FieldError::too_long(path, usize::try_from(most).unwrap_or(usize::MAX)));
            }
            if let Some(least) = checks.min_length.filter(|least| length < *least) {
                errors.push(invalid(format!("should be at least {least} chars long")));
            }
            if let Some(pattern) = checks.pattern.as_ref().filter(|p| !p.is_match(text)) {
                errors.push(invalid(format!("should match '{pattern}'")));
            }
            if !schema.int_or_string && !format_fits(&checks.format, text) {
                let detail = format!("{} in body must be of type {}: {text:?}", shown(path), checks.format);
                errors.push(FieldError::invalid(path, text.as_str(), &detail));
            }
        }
        Value::Number(number) => numbers(checks, number.as_f64().unwrap_or(0.0), &invalid, errors),
        Value::Array(list) => {
            let count = list.len() as u64;
            if let Some(most) = checks.max_items.filter(|most| count > *most) {
                errors.push(FieldError::too_many(path, count, most));
            }
            if let Some(least) = checks.min_items.filter(|least| count < *least) {
                errors.push(invalid(format!("should have at least {least} items")));
            }
            if checks.unique_items && list.iter().enumerate().any(|(i, e)| list[..i].contains(e)) {
                errors.push(invalid("shouldn't contain duplicates".into()));
            }
        }
        Value::Object(map) => {
            let count = map.len() as u64;
            if let Some(most) = checks.max_properties.filter(|most| count > *most) {
                errors.push(FieldError::too_many(path, count, most));
            }
            if let Some(least) = checks.min_properties.filter(|least| count < *least) {
                errors.push(invalid(format!("should have at least {least} properties")));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn numbers(checks: &Checks, n: f64, invalid: &dyn Fn(String) -> FieldError, errors: &mut Vec<FieldError>) {
    if let Some(most) = checks.maximum {
        if checks.exclusive_maximum && n >= most {
            errors.push(invalid(format!("should be less than {most}")));
        } else if n > most {
            errors.push(invalid(format!("should be less than or equal to {most}")));
        }
    }
    if let Some(least) = checks.minimum {
        if checks.exclusive_minimum && n <= least {
            errors.push(invalid(format!("should be greater than {least}")));
        } else if n < least {
            errors.push(invalid(format!("should be greater than or equal to {least}")));
        }
    }
    if let Some(factor) = checks.multiple_of.filter(|f| *f > 0.0) {
        let quotient = n / factor;
        if (quotient - quotient.round()).abs() > 1e-9 {
            errors.push(invalid(format!("should be a multiple of {factor}")));
        }
    }
}

fn combined(
    checks: &Checks,
    at: &Value,
    path: &str,
    root: bool,
    errors: &mut Vec<FieldError>,
    before: usize,
) {
    let valid = |schema: &Schema| {
        let mut found = Vec::new();
        // Alternatives say nothing of types, which stand in the schema itself.
        junctor(schema, at, path, root, &mut found);
        found
    };
    let invalid = |detail: &str| FieldError::invalid(path, json!(""), &format!("{:?} {detail}", shown(path)));
    for schema in &checks.all_of {
        errors.extend(valid(schema));
    }
    if !checks.all_of.is_empty()
        && errors.len() > before
        && checks.all_of.iter().any(|s| !valid(s).is_empty())
    {
        errors.push(invalid("must validate all the schemas (allOf)"));
    }
    if !checks.any_of.is_empty() && !checks.any_of.iter().any(|s| valid(s).is_empty()) {
        errors.push(invalid("must validate at least one schema (anyOf)"));
        errors.extend(checks.any_of.first().into_iter().flat_map(&valid));
    }
    if !checks.one_of.is_empty() {
        let count = checks.one_of.iter().filter(|s| valid(s).is_empty()).count();
        if count != 1 {
            let found = if count == 0 { "none valid".into() } else { format!("{count} valid alternatives") };
            let detail = format!("must validate one and only one schema (oneOf). Found {found}");
            errors.push(invalid(&detail));
        }
    }
    if checks.not.as_ref().is_some_and(|s| valid(s).is_empty()) {
        errors.push(invalid("must not validate the schema (not)"));
    }
}

/// A schema within `allOf` and its like: it may leave out the type.
fn junctor(schema: &Schema, at: &Value, path: &str, root: bool, errors: &mut Vec<FieldError>) {
    if schema.type_.is_some() || schema.int_or_string {
        return value(schema, at, None, path, root, errors);
    }
    let before = errors.len();
    bounds(&schema.checks, schema, at, path, errors);
    if let Value::Object(map) = at {
        for name in schema.checks.required.iter().filter(|name| !map.contains_key(*name)) {
            errors.push(FieldError::required(join(path, name), ""));
        }
        for (name, of) in &schema.properties {
            if let Some(held) = map.get(name) {
                junctor(of, held, &join(path, name), false, errors);
            }
        }
    }
    if let (Value::Array(list), Some(of)) = (at, &schema.items) {
        for (i, element) in list.iter().enumerate() {
            junctor(of, element, &format!("{path}[{i}]"), false, errors);
        }
    }
    combined(&schema.checks, at, path, root, errors, before);
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether a text has a format; formats that are not known are not checked, as documented.
fn format_fits(format: &str, text: &str) -> bool {
    match format {
        "date-time" => text.parse::<Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => crate::registry::fields::is_cidr(text),
        "uuid" | "uuid4" => uuid::Uuid::try_parse(text).is_ok(),
        "byte" => {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.decode(text).is_ok()
        }
        "email" => text.split_once('@').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()),
        "hostname" => api::validation::dns_subdomain(&text.to_lowercase()).is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schema: Value, at: Value, wanted: &[&str]) {
        let schema =
            Schema::parse(&json!({"type": "object", "properties": {"f": schema}})).expect("a schema");
        let errors = validate(&schema, &json!({"f": at}), None);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn wrong_values_are_told_in_upstreams_words() {
        let wrong = "f: Invalid value: \"string\": f in body must be of type integer: \"string\"";
        check(json!({"type": "integer"}), json!("a"), &[wrong]);
        check(json!({"type": "integer"}), json!(3), &[]);
        let null = "f: Invalid value: \"null\": f in body must be of type string: \"null\"";
        check(json!({"type": "string"}), json!(null), &[null]);
        check(json!({"type": "string", "nullable": true}), json!(null), &[]);
        let small = "f: Invalid value: -1: f in body should be greater than or equal to 0";
        check(json!({"type": "integer", "minimum": 0}), json!(-1), &[small]);
        let few = "f: Unsupported value: \"c\": supported values: \"a\", \"b\"";
        check(json!({"type": "string", "enum": ["a", "b"]}), json!("c"), &[few]);
        let odd = "f: Invalid value: \"x\": f in body should match '^[0-9]+$'";
        check(json!({"type": "string", "pattern": "^[0-9]+$"}), json!("x"), &[odd]);
        let many = "f: Too many: 2: must have at most 1 items";
        check(json!({"type": "array", "maxItems": 1, "items": {"type": "integer"}}), json!([1, 2]), &[many]);
        let missing = "f.a: Required value";
        check(json!({"type": "object", "required": ["a"]}), json!({}), &[missing]);
        let twice = "f[1]: Duplicate value: {\"n\":\"a\"}";
        let keyed = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
            "items": {"type": "object", "properties": {"n": {"type": "string"}}}});
        check(keyed, json!([{"n": "a"}, {"n": "a"}]), &[twice]);
        check(json!({"x-kubernetes-int-or-string": true}), json!("50%"), &[]);
        let one =
            "f: Invalid value: \"\": \"f\" must validate one and only one schema (oneOf). Found none valid";
        let either = json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
        check(either.clone(), json!({}), &[one]);
        check(either, json!({"a": 1}), &[]);
        let time = json!({"type": "string", "format": "date-time"});
        check(time.clone(), json!("2026-01-01T00:00:00Z"), &[]);
        let format = "f: Invalid value: \"soon\": f in body must be of type date-time: \"soon\"";
        check(time, json!("soon"), &[format]);
    }

    #[test]
    fn what_did_not_change_may_stay_wrong() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1}}});
        let schema = Schema::parse(&schema).expect("a schema");
        let errors = validate(&schema, &json!({"a": "xx", "b": "yy"}), Some(&json!({"a": "xx", "b": "y"})));
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].field, "b");
    }
}
