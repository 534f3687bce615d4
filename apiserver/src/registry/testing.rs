//! How the rules of a kind are tested: documents in, sentences out.

use api::Typed;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::Strategy;

/// Ten minutes after the year began, when fixtures were created.
pub fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().expect("a literal time")
}

/// A typed object of a document, which need not name its kind.
#[track_caller]
pub fn object<K: Typed>(mut document: Value) -> K {
    let map = document.as_object_mut().expect("a map");
    map.insert("apiVersion".into(), K::API_VERSION.into());
    map.insert("kind".into(), K::KIND.into());
    map.entry("metadata").or_insert_with(|| json!({"name": "web", "namespace": "default"}));
    serde_json::from_value(document).expect("a document of its kind")
}

/// A document as it is stored after its creation.
#[track_caller]
pub fn created<S: Strategy>(strategy: &S, document: Value) -> S::K {
    let mut object = object::<S::K>(document);
    strategy.default(&mut object);
    strategy.prepare_for_create(&mut object);
    object
}

/// A stored object as JSON.
#[track_caller]
pub fn stored<S: Strategy>(strategy: &S, document: Value) -> Value {
    serde_json::to_value(created(strategy, document)).expect("a typed object encodes")
}

fn sentences(errors: &[api::validation::FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// The document is accepted.
#[track_caller]
pub fn valid<S: Strategy>(strategy: &S, document: Value) {
    invalid(strategy, document, &[]);
}

/// The document is refused with these sentences, in any order.
#[track_caller]
pub fn invalid<S: Strategy>(strategy: &S, document: Value, expected: &[&str]) {
    let mut errors = sentences(&strategy.validate(&created(strategy, document)));
    errors.sort();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(errors, expected);
}

/// What an update of `old` by `new` makes of it.
#[track_caller]
pub fn updated<S: Strategy>(strategy: &S, old: Value, new: Value) -> (S::K, Vec<String>) {
    let old = created(strategy, old);
    let mut new = object::<S::K>(new);
    strategy.default(&mut new);
    strategy.prepare_for_update(&mut new, &old);
    let mut errors = strategy.validate(&new);
    errors.extend(strategy.validate_update(&new, &old));
    (new, sentences(&errors))
}

/// The change is refused with these sentences.
#[track_caller]
pub fn invalid_update<S: Strategy>(strategy: &S, old: Value, new: Value, expected: &[&str]) {
    assert_eq!(updated(strategy, old, new).1, expected);
}

/// The cells of a stored document, in wide output.
#[track_caller]
pub fn row<S: Strategy>(strategy: &S, document: Value, expected: &[&str]) {
    let cells = strategy.row(&object::<S::K>(document), now());
    assert_eq!(cells.len(), strategy.columns().len());
    let texts: Vec<String> =
        cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect();
    assert_eq!(texts, expected);
}

/// A copy of a document with one JSON pointer set to another value; `null` removes.
#[track_caller]
pub fn with(document: &Value, pointer: &str, value: Value) -> Value {
    let mut document = document.clone();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    match document.pointer_mut(parent).expect("the parent exists") {
        Value::Object(map) if value.is_null() => _ = map.remove(key),
        Value::Object(map) => _ = map.insert(key.to_owned(), value),
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => list[key.parse::<usize>().expect("an index")] = value,
        other => panic!("{other} has no fields"),
    }
    document
}
