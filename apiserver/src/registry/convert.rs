//! Kinds that are views of other kinds' objects: `events.k8s.io/v1` Event of core `v1` Event, and
//! `autoscaling/v1` HorizontalPodAutoscaler of that of `autoscaling/v2`.

mod autoscaling;

use api::{Kind, Object};
use bytes::Bytes;

use crate::custom::rules;
use crate::storage::layout::storage_kind;

/// (field of core v1, field of events.k8s.io/v1)
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// Whether objects of a kind are stored as another one.
pub fn is_view(kind: &'static Kind) -> bool {
    !std::ptr::eq(storage_kind(kind), kind)
}

/// From what a client speaks to what is stored.
pub fn to_stored(kind: &'static Kind, object: Object) -> Object {
    if let Some(rules) = rules::of(kind) {
        return with_version(object, rules.stored_version());
    }
    if !is_view(kind) {
        return object;
    }
    if is_autoscaler(kind) {
        return autoscaling::to_v2(object);
    }
    let mut object = rename(object, storage_kind(kind), |core, other| (other, core));
    // Core v1 demands the field, which the view leaves optional.
    object.as_map_mut().entry("involvedObject").or_insert_with(|| serde_json::json!({}));
    object
}

/// From what is stored to what a client speaks.
pub fn from_stored(kind: &'static Kind, object: Object) -> Object {
    if kind.custom.is_some() {
        return with_version(object, kind.api_version);
    }
    match is_view(kind) {
        false => object,
        true if is_autoscaler(kind) => autoscaling::to_v1(object),
        true => rename(object, kind, |core, other| (core, other)),
    }
}

/// The versions of a custom kind differ by their name alone.
fn with_version(mut object: Object, version: &str) -> Object {
    object.as_map_mut().insert("apiVersion".into(), version.into());
    object
}

fn is_autoscaler(kind: &Kind) -> bool {
    kind.group == "autoscaling"
}

/// [`from_stored`] for encoded objects; without a copy where there is nothing to convert.
pub fn json_from_stored(kind: &'static Kind, json: &Bytes) -> Bytes {
    if let Some(rules) = rules::of(kind) {
        return rules.read(json).map_or_else(|| json.clone(), Bytes::from);
    }
    if !is_view(kind) {
        return json.clone();
    }
    match Object::parse(json) {
        Ok(object) => from_stored(kind, object).to_vec().into(),
        Err(_) => json.clone(),
    }
}

/// The stored field that a field selector's name stands for.
pub fn field_name(kind: &'static Kind, field: &str) -> String {
    if !is_view(kind) || is_autoscaler(kind) {
        return field.to_owned();
    }
    match field.split_once('.') {
        Some(("regarding", rest)) => format!("involvedObject.{rest}"),
        None if field == "reportingController" => "reportingComponent".into(),
        _ => field.to_owned(),
    }
}

fn rename(
    mut object: Object,
    to: &Kind,
    direction: fn(&'static str, &'static str) -> (&'static str, &'static str),
) -> Object {
    let map = object.as_map_mut();
    for (core, other) in EVENT_FIELDS {
        let (from, to) = direction(core, other);
        if let Some(value) = map.remove(from) {
            map.insert(to.into(), value);
        }
    }
    map.insert("apiVersion".into(), to.api_version.into());
    map.insert("kind".into(), to.kind.into());
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_survives_the_way_there_and_back() {
        let view = Kind::find("events.k8s.io", "Event").expect("a kind");
        let event = Object::new(json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"},
            "regarding": {"kind": "Pod"}, "note": "n", "reportingController": "c", "deprecatedCount": 3,
        }))
        .expect("a map");
        let stored = to_stored(view, event.clone());
        assert_eq!(stored.str_at("/involvedObject/kind"), "Pod");
        assert_eq!((stored.api_version(), stored.str_at("/message")), ("v1", "n"));
        assert_eq!(from_stored(view, stored), event);
        assert_eq!(field_name(view, "regarding.name"), "involvedObject.name");
    }
}
