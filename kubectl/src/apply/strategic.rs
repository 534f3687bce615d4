//! Creates strategic merge patches.

use serde_json::{Map, Value, json};

use super::schema::{Rule, Type};

type Object = Map<String, Value>;

/// What `modified` adds to `current` or changes in it, and what it left out since `original`.
pub fn three_way(of: Type, original: &Value, modified: &Value, current: &Value) -> Value {
    let empty = Object::new();
    let map = |value: &'_ Value| value.as_object().cloned().unwrap_or_else(|| empty.clone());
    Value::Object(maps(of, &map(original), &map(modified), &map(current)))
}

fn maps(of: Type, original: &Object, modified: &Object, current: &Object) -> Object {
    let mut patch = Object::new();
    for (key, wanted) in modified {
        let (rule, inner) = of.field(key);
        let was = original.get(key).unwrap_or(&Value::Null);
        let Some(now) = current.get(key).filter(|v| !v.is_null()) else {
            if !wanted.is_null() {
                patch.insert(key.clone(), wanted.clone());
            }
            continue;
        };
        field(&mut patch, key, (rule, inner), was, wanted, now);
    }
    for (key, was) in original {
        if !modified.contains_key(key) && current.contains_key(key) {
            drop_field(&mut patch, key, of.field(key), was);
        }
    }
    patch
}

/// A field that the manifest named last time and names no more.
fn drop_field(patch: &mut Object, key: &str, (rule, _): (Rule, Type), was: &Value) {
    let by_key = match rule {
        Rule::Keyed(merge_key) | Rule::KeyedRetain(merge_key) => Some(merge_key),
        _ => None,
    };
    match (rule, was) {
        // Elements that others put into the list stay.
        (_, Value::Array(was)) if by_key.is_some() => {
            let merge_key = by_key.unwrap_or_default();
            let gone: Vec<Value> = was.iter().filter_map(|item| deletion(item, merge_key)).collect();
            if !gone.is_empty() {
                patch.insert(key.to_owned(), Value::Array(gone));
            }
        }
        (Rule::Set, Value::Array(was)) => {
            patch.insert(format!("$deleteFromPrimitiveList/{key}"), Value::Array(was.clone()));
        }
        _ => {
            patch.insert(key.to_owned(), Value::Null);
        }
    }
}

fn deletion(item: &Value, merge_key: &str) -> Option<Value> {
    let id = item.get(merge_key)?;
    Some(json!({"$patch": "delete", merge_key: id}))
}

/// A field that is both wanted and there.
fn field(patch: &mut Object, key: &str, (rule, of): (Rule, Type), was: &Value, wanted: &Value, now: &Value) {
    let nothing = Object::new();
    match (rule, wanted, now) {
        (Rule::Replace, Value::Object(wanted), now) => {
            if Value::Object(wanted.clone()) != *now {
                let mut whole = wanted.clone();
                whole.insert("$patch".into(), json!("replace"));
                patch.insert(key.to_owned(), Value::Object(whole));
            }
        }
        (_, Value::Object(wanted), Value::Object(now)) => {
            let mut inner = maps(of, was.as_object().unwrap_or(&nothing), wanted, now);
            if rule == Rule::Retain && !inner.is_empty() {
                inner.insert("$retainKeys".into(), retained(wanted));
            }
            if !inner.is_empty() {
                patch.insert(key.to_owned(), Value::Object(inner));
            }
        }
        (Rule::Keyed(merge_key), Value::Array(wanted), Value::Array(now)) => {
            keyed(patch, key, (merge_key, of, false), elements(was), wanted, now);
        }
        (Rule::KeyedRetain(merge_key), Value::Array(wanted), Value::Array(now)) => {
            keyed(patch, key, (merge_key, of, true), elements(was), wanted, now);
        }
        (Rule::Set, Value::Array(wanted), Value::Array(now)) => set(patch, key, elements(was), wanted, now),
        (_, wanted, now) => {
            if wanted != now {
                patch.insert(key.to_owned(), wanted.clone());
            }
        }
    }
}

fn elements(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn retained(wanted: &Object) -> Value {
    let mut keys: Vec<&String> = wanted.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k).collect();
    keys.sort();
    json!(keys)
}

fn by<'a>(list: &'a [Value], merge_key: &str, id: &Value) -> Option<&'a Value> {
    list.iter().find(|item| &item[merge_key] == id)
}

fn keyed(
    patch: &mut Object,
    key: &str,
    (merge_key, of, retain): (&'static str, Type, bool),
    was: &[Value],
    wanted: &[Value],
    now: &[Value],
) {
    // Elements that cannot be told apart cannot be merged either: the list is replaced.
    if !distinct(wanted, merge_key) || !distinct(now, merge_key) {
        if wanted != now {
            let mut whole = wanted.to_vec();
            whole.push(json!({"$patch": "replace"}));
            patch.insert(key.to_owned(), Value::Array(whole));
        }
        return;
    }
    let nothing = Object::new();
    let mut changes = Vec::new();
    for item in wanted {
        let id = &item[merge_key];
        let (Some(item), Some(present)) =
            (item.as_object(), by(now, merge_key, id).and_then(Value::as_object))
        else {
            changes.push(item.clone());
            continue;
        };
        let before = by(was, merge_key, id).and_then(Value::as_object).unwrap_or(&nothing);
        let mut change = maps(of, before, item, present);
        if change.is_empty() {
            continue;
        }
        change.insert(merge_key.to_owned(), id.clone());
        if retain {
            change.insert("$retainKeys".into(), retained(item));
        }
        changes.push(Value::Object(change));
    }
    let ids: Vec<&Value> = wanted.iter().map(|item| &item[merge_key]).collect();
    for item in was {
        let id = &item[merge_key];
        if !ids.contains(&id) && by(now, merge_key, id).is_some() {
            changes.extend(deletion(item, merge_key));
        }
    }
    let present: Vec<&Value> =
        now.iter().map(|item| &item[merge_key]).filter(|id| ids.contains(id)).collect();
    let stay: Vec<&Value> = ids.iter().copied().filter(|id| present.contains(id)).collect();
    if changes.is_empty() && present == stay {
        return;
    }
    let order: Vec<Value> = ids.into_iter().map(|id| json!({ merge_key: id })).collect();
    patch.insert(format!("$setElementOrder/{key}"), Value::Array(order));
    if !changes.is_empty() {
        patch.insert(key.to_owned(), Value::Array(changes));
    }
}

fn distinct(list: &[Value], merge_key: &str) -> bool {
    list.iter().enumerate().all(|(i, item)| {
        item.get(merge_key).is_some_and(|id| !id.is_null())
            && list[..i].iter().all(|other| other[merge_key] != item[merge_key])
    })
}

fn set(patch: &mut Object, key: &str, was: &[Value], wanted: &[Value], now: &[Value]) {
    let added: Vec<&Value> = wanted.iter().filter(|v| !now.contains(v)).collect();
    let gone: Vec<&Value> = was.iter().filter(|v| !wanted.contains(v) && now.contains(v)).collect();
    if added.is_empty() && gone.is_empty() {
        return;
    }
    if !gone.is_empty() {
        patch.insert(format!("$deleteFromPrimitiveList/{key}"), json!(gone));
    }
    patch.insert(format!("$setElementOrder/{key}"), json!(wanted));
    if !added.is_empty() {
        patch.insert(key.to_owned(), json!(added));
    }
}

#[cfg(test)]
mod tests;
