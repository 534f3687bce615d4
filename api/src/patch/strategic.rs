//! Strategic merge patch: maps merge, keyed lists merge element by element, directives do the rest.
//!
//! A field that the document lacks is treated as an empty one, so that what a patch adds is subject
//! to the same rules as what it changes, and applying a patch twice is applying it once.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::schema::{ListRule, field};
use super::{PatchError, a_map, shallow_enough};
use crate::apply::{DocumentType, TypeRef};
use crate::kinds::Kind;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Carries out a strategic merge patch on a document of a kind.
///
/// # Errors
/// `Malformed` when a directive has the wrong form, an element of a keyed list lacks its merge key, or
/// the patch nests too deeply.
pub fn strategic_merge(kind: &'static Kind, current: &Value, patch: &Value) -> Result<Value, PatchError> {
    shallow_enough(patch)?;
    let Value::Object(patch) = patch else {
        return Err(malformed("a strategic merge patch must be a JSON object"));
    };
    let current = current.as_object().cloned().unwrap_or_default();
    a_map(Value::Object(merge_map(current, patch, DocumentType::of(kind).root())?))
}

fn malformed(message: impl Into<String>) -> PatchError {
    PatchError::Malformed(message.into())
}

/// What `$patch` asks for.
#[derive(Clone, Copy, PartialEq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(patch: &Map<String, Value>) -> Result<Option<Directive>, PatchError> {
    match patch.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(text)) if text == "merge" => Ok(Some(Directive::Merge)),
        Some(Value::String(text)) if text == "replace" => Ok(Some(Directive::Replace)),
        Some(Value::String(text)) if text == "delete" => Ok(Some(Directive::Delete)),
        Some(other) => Err(malformed(format!("unknown patch type: {other} in map"))),
    }
}

fn is_order_or_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM)
}

fn merge_map(
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
    of: TypeRef<'_>,
) -> Result<Map<String, Value>, PatchError> {
    match directive(patch)? {
        Some(Directive::Delete) => return Ok(Map::new()),
        Some(Directive::Replace) => original.clear(),
        Some(Directive::Merge) | None => {}
    }
    retain_keys(&mut original, patch)?;
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            delete_from_set(&mut original, field, value)?;
        }
    }
    for (key, order) in patch {
        if let Some(field) = key.strip_prefix(SET_ORDER)
            && !patch.contains_key(field)
        {
            reorder(&mut original, field, order, of)?;
        }
    }
    for (key, value) in patch {
        if is_order_or_directive(key) {
            continue;
        }
        let order = patch.get(&format!("{SET_ORDER}{key}"));
        match merge_field(original.get(key), value, order, field(of, key))? {
            Some(merged) => _ = original.insert(key.clone(), merged),
            None => _ = original.remove(key),
        }
    }
    Ok(original)
}

/// The new value of a field, or `None` if it goes or stays away.
fn merge_field(
    present: Option<&Value>,
    patch: &Value,
    order: Option<&Value>,
    (rule, of): (ListRule, TypeRef<'_>),
) -> Result<Option<Value>, PatchError> {
    Ok(match (patch, present) {
        (Value::Null, _) => None,
        (Value::Object(patch), Some(Value::Object(present))) => {
            Some(Value::Object(merge_map(present.clone(), patch, of)?))
        }
        (Value::Object(patch), _) if directive(patch)? == Some(Directive::Delete) => None,
        (Value::Object(patch), _) => Some(Value::Object(merge_map(Map::new(), patch, of)?)),
        (Value::Array(patch), present) => {
            let present = present.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let order = order.map(|o| order_list(o)).transpose()?;
            Some(Value::Array(merge_list(present, patch, order, rule, of)?))
        }
        (scalar, _) => Some(scalar.clone()),
    })
}

/// `$retainKeys`: what the document has beside these keys goes.
fn retain_keys(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), PatchError> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let keys: Option<HashSet<&str>> =
        keys.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
    let keys = keys.ok_or_else(|| malformed("invalid patch format of retainKeys"))?;
    let stray = patch
        .iter()
        .find(|(key, value)| !is_order_or_directive(key) && !value.is_null() && !keys.contains(key.as_str()));
    if let Some((key, _)) = stray {
        return Err(malformed(format!(
            "patch format is invalid: field {key:?} is set but missing in the {RETAIN_KEYS} list"
        )));
    }
    original.retain(|key, _| keys.contains(key.as_str()));
    Ok(())
}

/// `$deleteFromPrimitiveList/<field>`: these scalars leave the list.
fn delete_from_set(original: &mut Map<String, Value>, field: &str, gone: &Value) -> Result<(), PatchError> {
    let gone = gone.as_array().ok_or_else(|| malformed("invalid patch format of primitive list"))?;
    let gone: HashSet<String> = gone.iter().map(Value::to_string).collect();
    if let Some(Value::Array(list)) = original.get_mut(field) {
        list.retain(|item| !gone.contains(&item.to_string()));
    }
    Ok(())
}

fn order_list(order: &Value) -> Result<&[Value], PatchError> {
    order
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| malformed("invalid patch format of setElementOrder list"))
}

/// `$setElementOrder/<field>` without a patch of the field: the elements change places only.
fn reorder(
    original: &mut Map<String, Value>,
    field: &str,
    order: &Value,
    of: TypeRef<'_>,
) -> Result<(), PatchError> {
    let order = order_list(order)?;
    let (rule, _) = super::schema::field(of, field);
    if let Some(Value::Array(list)) = original.get_mut(field)
        && rule != ListRule::Atomic
    {
        let before = list.clone();
        *list = in_order(std::mem::take(list), order, &before, rule);
    }
    Ok(())
}

fn merge_list(
    original: &[Value],
    patch: &[Value],
    order: Option<&[Value]>,
    rule: ListRule,
    of: TypeRef<'_>,
) -> Result<Vec<Value>, PatchError> {
    let merged = match rule {
        ListRule::Atomic => return patch.iter().filter_map(|v| without_directives(v).transpose()).collect(),
        ListRule::Set => {
            if let Some(item) = patch.iter().find(|item| item.is_object() || item.is_array()) {
                return Err(malformed(format!(
                    "elements of a list that merges as a set must be scalars, got {item}"
                )));
            }
            let mut seen = HashSet::new();
            original.iter().chain(patch).filter(|v| seen.insert(v.to_string())).cloned().collect()
        }
        ListRule::Keyed(key) => merge_keyed(original, patch, key, of)?,
    };
    if let Some(order) = order {
        agree(patch, order, rule)?;
    }
    Ok(in_order(merged, order.unwrap_or(patch), original, rule))
}

/// An element of an atomic list, as it would be without anything to merge with.
fn without_directives(value: &Value) -> Result<Option<Value>, PatchError> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => {
            directive(map)?;
            Ok(None)
        }
        Value::Null => Ok(Some(Value::Null)),
        other => merge_field(None, other, None, (ListRule::Atomic, TypeRef::untyped())),
    }
}

fn merge_keyed(
    original: &[Value],
    patch: &[Value],
    key: &'static str,
    of: TypeRef<'_>,
) -> Result<Vec<Value>, PatchError> {
    let mut elements = Vec::with_capacity(patch.len());
    let mut deleted = HashSet::new();
    let mut replace = false;
    for item in patch {
        let Value::Object(map) = item else {
            return Err(malformed(format!(
                "elements of a list that merges by {key:?} must be objects, got {item}"
            )));
        };
        let asked = directive(map)?;
        if asked == Some(Directive::Replace) {
            replace = true;
            continue;
        }
        let id = identity(item, ListRule::Keyed(key))
            .ok_or_else(|| malformed(format!("map: {item} does not contain declared merge key: {key}")))?;
        match asked {
            Some(Directive::Delete) => _ = deleted.insert(id),
            _ => elements.push((id, map)),
        }
    }
    let mut merged: Vec<Value> = if replace { Vec::new() } else { original.to_vec() };
    let rule = ListRule::Keyed(key);
    merged.retain(|item| identity(item, rule).is_none_or(|id| !deleted.contains(&id)));
    let mut places: HashMap<String, usize> = HashMap::new();
    for (place, item) in merged.iter().enumerate() {
        identity(item, rule).map(|id| *places.entry(id).or_insert(place));
    }
    for (id, map) in elements {
        match places.get(&id) {
            Some(&place) => {
                let present = merged[place].as_object().cloned().unwrap_or_default();
                merged[place] = Value::Object(merge_map(present, map, of)?);
            }
            None => {
                places.insert(id, merged.len());
                merged.push(Value::Object(merge_map(Map::new(), map, of)?));
            }
        }
    }
    Ok(merged)
}

/// What two elements have in common when they are the same one.
fn identity(item: &Value, rule: ListRule) -> Option<String> {
    match rule {
        ListRule::Keyed(key) => item.get(key).filter(|v| !v.is_null()).map(Value::to_string),
        ListRule::Set | ListRule::Atomic => Some(item.to_string()),
    }
}

/// A patch's elements must stand in the order that its `$setElementOrder` declares.
fn agree(patch: &[Value], order: &[Value], rule: ListRule) -> Result<(), PatchError> {
    let mut declared = order.iter().map(|item| identity(item, rule));
    let ordinary = patch.iter().filter(|item| item.get(DIRECTIVE).is_none());
    for item in ordinary {
        let id = identity(item, rule);
        if !declared.any(|d| d == id) {
            return Err(malformed(format!(
                "The order in patch list does not match setElementOrder list: {item} is out of place"
            )));
        }
    }
    Ok(())
}

/// Puts the elements that `order` names into its order, and keeps the others where they were in
/// `before`, relative to those.
fn in_order(merged: Vec<Value>, order: &[Value], before: &[Value], rule: ListRule) -> Vec<Value> {
    let places = |list: &[Value]| -> HashMap<String, usize> {
        let ids = list.iter().enumerate().filter_map(|(place, item)| Some((identity(item, rule)?, place)));
        ids.fold(HashMap::new(), |mut all, (id, place)| {
            all.entry(id).or_insert(place);
            all
        })
    };
    let (ordered, earlier) = (places(order), places(before));
    let place =
        |of: &HashMap<String, usize>, item: &Value| identity(item, rule).and_then(|id| of.get(&id).copied());
    let (mut named, mut others): (Vec<_>, Vec<_>) =
        merged.into_iter().partition(|item| place(&ordered, item).is_some());
    named.sort_by_key(|item| place(&ordered, item));
    others.sort_by_key(|item| place(&earlier, item).unwrap_or(usize::MAX));
    let mut result = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (named.peek(), others.peek()) {
            (None, None) => return result,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (Some(n), Some(o)) => {
                matches!((place(&earlier, o), place(&earlier, n)), (Some(o), Some(n)) if o < n)
            }
        };
        result.extend(if other_first { others.next() } else { named.next() });
    }
}
