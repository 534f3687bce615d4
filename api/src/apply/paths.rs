//! The elements of paths: how they are made of what lists hold, and how people read them.

use serde_json::{Map, Value};

use super::types::{Name, Type, TypeRef};

/// The element of a field.
pub(super) fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The name of a field's element.
pub(super) fn field_name(element: &str) -> Option<&str> {
    element.strip_prefix("f:")
}

/// The element of an item of a list. `Err` names the key that it lacks.
pub(super) fn item(of: TypeRef<'_>, value: &Value) -> Result<String, String> {
    match of.get() {
        Type::Set if !value.is_object() && !value.is_array() => Ok(format!("v:{value}")),
        Type::Keyed { keys, .. } => keyed(keys, value),
        _ => Err("associative list may not have an element of this type".into()),
    }
}

fn keyed(keys: &[(Name, Option<Value>)], value: &Value) -> Result<String, String> {
    let Value::Object(map) = value else {
        return Err("associative list with keys may not have non-map elements".into());
    };
    let mut own = Map::new();
    for (key, default) in keys {
        let value = map.get(&**key).filter(|v| !v.is_null()).or(default.as_ref());
        let value = value.ok_or_else(|| {
            format!(
                "associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
            )
        })?;
        own.insert(key.to_string(), value.clone());
    }
    Ok(format!("k:{}", Value::Object(own)))
}

/// A path as messages write it: `.spec.template.spec.containers[name="web"].image`.
pub(super) fn display(path: &[&str]) -> String {
    path.iter().map(|element| one(element)).collect()
}

fn one(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<_> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        Some((_, index)) => format!("[{index}]"),
        None => element.to_owned(),
    }
}
