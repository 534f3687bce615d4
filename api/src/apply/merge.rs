//! Merging what a manager wants into what there is, and taking fields away.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::compare::element;
use super::paths;
use super::set::FieldSet;
use super::types::{Type, TypeRef};

/// What there is, with what is wanted put over it: fields merge, elements of lists merge by what tells them apart.
pub fn merge(of: TypeRef<'_>, present: &Value, wanted: &Value) -> Value {
    match (of.get(), present, wanted) {
        (
            Type::Untyped | Type::Struct { .. } | Type::Map(_),
            Value::Object(present),
            Value::Object(wanted),
        ) => {
            let mut merged = present.clone();
            for (name, wanted) in wanted {
                let value = match present.get(name) {
                    Some(present) => merge(of.field(name), present, wanted),
                    None => wanted.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Type::Set | Type::Keyed { .. }, Value::Array(present), Value::Array(wanted)) => {
            Value::Array(merge_lists(of, present, wanted))
        }
        _ => wanted.clone(),
    }
}

/// The wanted elements in their order; those that nobody asked for keep their places among those that were there.
fn merge_lists(of: TypeRef<'_>, present: &[Value], wanted: &[Value]) -> Vec<Value> {
    let keys = |list: &[Value]| -> Vec<String> {
        list.iter().enumerate().map(|(place, value)| element(of, place, value)).collect()
    };
    let (present_keys, wanted_keys) = (keys(present), keys(wanted));
    let asked: HashSet<&str> = wanted_keys.iter().map(String::as_str).collect();
    let mut there: HashMap<&str, &Value> = HashMap::new();
    for (key, value) in present_keys.iter().zip(present) {
        there.entry(key).or_insert(value);
    }
    let mut merged = Vec::with_capacity(present.len().max(wanted.len()));
    let mut done: HashSet<&str> = HashSet::new();
    let mut left = present_keys.iter().zip(present).peekable();
    for (key, value) in wanted_keys.iter().zip(wanted) {
        while let Some((other, present)) =
            left.next_if(|(k, _)| !asked.contains(k.as_str()) || done.contains(k.as_str()))
        {
            if !asked.contains(other.as_str()) {
                merged.push(present.clone());
            }
        }
        if done.insert(key) {
            merged.push(
                there.get(key.as_str()).map_or_else(|| value.clone(), |p| merge(of.element(), p, value)),
            );
        }
    }
    merged.extend(left.filter(|(key, _)| !asked.contains(key.as_str())).map(|(_, value)| value.clone()));
    merged
}

/// The document without the fields of a set. A field that is left without content still stands: a struct as an empty
/// map, anything else as `null`.
pub fn remove(of: TypeRef<'_>, document: &Value, gone: &FieldSet) -> Value {
    without(of, document, gone).unwrap_or_else(|| Value::Object(Map::new()))
}

fn without(of: TypeRef<'_>, value: &Value, gone: &FieldSet) -> Option<Value> {
    if gone.is_empty() {
        return Some(value.clone());
    }
    match (of.get(), value) {
        (Type::Untyped | Type::Struct { .. } | Type::Map(_), Value::Object(map)) => {
            let mut left = Map::new();
            for (name, value) in map {
                let kept = match gone.get(&paths::field(name)) {
                    Some(node) if node.member => continue,
                    Some(node) => without(of.field(name), value, &node.beneath),
                    None => Some(value.clone()),
                };
                let emptied = || match of.field(name).get() {
                    Type::Struct { .. } => Value::Object(Map::new()),
                    _ => Value::Null,
                };
                left.insert(name.clone(), kept.unwrap_or_else(emptied));
            }
            (!left.is_empty()).then_some(Value::Object(left))
        }
        (Type::Set | Type::Keyed { .. }, Value::Array(list)) => {
            let mut left = Vec::with_capacity(list.len());
            for (place, value) in list.iter().enumerate() {
                match gone.get(&element(of, place, value)) {
                    Some(node) if node.member => {}
                    Some(node) => left.extend(without(of.element(), value, &node.beneath)),
                    None => left.push(value.clone()),
                }
            }
            (!left.is_empty()).then_some(Value::Array(left))
        }
        _ => Some(value.clone()),
    }
}
