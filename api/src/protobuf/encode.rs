//! The binary encoding of objects that typed clients ask for.
//!
//! The inverse of decoding, over the same table. What JSON leaves out is left out here as well: decoders take it as zero.

use std::collections::{BTreeMap, HashMap};

use super::{Field, JSON_SCHEMA, MAGIC, Numbers, SCHEMA, STANDARD, Shape};
use base64::Engine;
use jiff::Timestamp;
use serde_json::{Map, Value};

/// Where a field of JSON stands in its message.
pub(super) struct Place {
    /// The numbers of the messages around it, and its own.
    path: Vec<u64>,
    held: Held,
}

pub(super) enum Held {
    Plain(Shape),
    SchemaOr,
}

/// The places of the fields of a type.
pub(super) type Places = HashMap<&'static str, Place>;

/// Where the fields are written whose numbers stand for them.
pub(super) fn places(numbers: &Numbers) -> Places {
    fn walk(numbers: &Numbers, outer: &[u64], places: &mut Places) {
        for (number, field) in numbers {
            let path = [outer, &[*number]].concat();
            match field {
                Field::Inline(inner) => walk(inner, &path, places),
                Field::Plain(name, shape) => {
                    places.insert(name, Place { path, held: Held::Plain(shape.clone()) });
                }
                Field::SchemaOr(name) => {
                    places.insert(name, Place { path, held: Held::SchemaOr });
                }
            }
        }
    }
    let mut places = Places::new();
    walk(numbers, &[], &mut places);
    places
}

/// Whether objects of a kind can be encoded.
pub fn knows(api_version: &str, kind: &str) -> bool {
    SCHEMA.roots.contains_key(&(api_version.to_owned(), kind.to_owned()))
}

/// Encodes an object as a body; nothing when its kind is not known here.
pub fn encode(object: &Value) -> Option<Vec<u8>> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let name = SCHEMA.roots.get(&(api_version.clone(), kind.clone()))?;
    Some(envelope(&api_version, &kind, &message(object.as_object()?, name)))
}

/// Encodes a list of objects of one kind. `meta` is the list's, `items` are objects in JSON.
pub fn encode_list<'a>(
    api_version: &str,
    kind: &str,
    list_kind: &str,
    meta: &Value,
    items: impl Iterator<Item = &'a Value>,
) -> Option<Vec<u8>> {
    let name = SCHEMA.roots.get(&(api_version.to_owned(), kind.to_owned()))?;
    let mut raw = Vec::new();
    bytes(&mut raw, 1, &list_meta(meta));
    for item in items {
        bytes(&mut raw, 2, &message(item.as_object()?, name));
    }
    Some(envelope(api_version, list_kind, &raw))
}

/// One event of a watch, with the length before it that frames it. `object` is a body.
pub fn encode_event(type_: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(object.len() + 8);
    bytes(&mut raw, 1, object);
    let mut event = Vec::with_capacity(raw.len() + 24);
    bytes(&mut event, 1, type_.as_bytes());
    bytes(&mut event, 2, &raw);
    let mut framed = Vec::with_capacity(event.len() + 4);
    framed.extend_from_slice(&u32::try_from(event.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&event);
    framed
}

/// A `Status`.
pub fn encode_status(status: &Value) -> Vec<u8> {
    let text = |of: &Value, field: &str| of.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut raw = Vec::new();
    bytes(&mut raw, 1, &list_meta(&status["metadata"]));
    for (number, field) in [(2, "status"), (3, "message"), (4, "reason")] {
        filled(&mut raw, number, &text(status, field));
    }
    if let Some(details) = status.get("details").filter(|d| d.is_object()) {
        let mut own = Vec::new();
        for (number, field) in [(1, "name"), (2, "group"), (3, "kind"), (6, "uid")] {
            filled(&mut own, number, &text(details, field));
        }
        for cause in details.get("causes").and_then(Value::as_array).into_iter().flatten() {
            let mut one = Vec::new();
            for (number, field) in [(1, "reason"), (2, "message"), (3, "field")] {
                filled(&mut one, number, &text(cause, field));
            }
            bytes(&mut own, 4, &one);
        }
        integer(&mut own, 5, details.get("retryAfterSeconds").and_then(Value::as_i64).unwrap_or(0));
        bytes(&mut raw, 5, &own);
    }
    integer(&mut raw, 6, status.get("code").and_then(Value::as_i64).unwrap_or(0));
    envelope("v1", "Status", &raw)
}

fn list_meta(meta: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, field) in [(2, "resourceVersion"), (3, "continue")] {
        filled(&mut out, number, meta.get(field).and_then(Value::as_str).unwrap_or_default());
    }
    if let Some(remaining) = meta.get("remainingItemCount").and_then(Value::as_i64) {
        integer(&mut out, 4, remaining);
    }
    out
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut type_meta = Vec::new();
    filled(&mut type_meta, 1, api_version);
    filled(&mut type_meta, 2, kind);
    let mut out = Vec::with_capacity(raw.len() + type_meta.len() + 16);
    out.extend_from_slice(MAGIC);
    bytes(&mut out, 1, &type_meta);
    bytes(&mut out, 2, raw);
    // The encoding and the media type of the content, which are the usual ones.
    bytes(&mut out, 3, b"");
    bytes(&mut out, 4, b"");
    out
}

/// A message, and the messages in it whose fields stand beside its own in JSON.
#[derive(Default)]
struct Message {
    own: Vec<u8>,
    inner: BTreeMap<u64, Message>,
}

impl Message {
    fn at(&mut self, path: &[u64]) -> &mut Vec<u8> {
        match path.split_first() {
            Some((first, rest)) => self.inner.entry(*first).or_default().at(rest),
            None => &mut self.own,
        }
    }

    fn finish(mut self) -> Vec<u8> {
        for (number, inner) in self.inner {
            bytes(&mut self.own, number, &inner.finish());
        }
        self.own
    }
}

fn message(map: &Map<String, Value>, name: &str) -> Vec<u8> {
    let mut message = Message::default();
    let Some(places) = SCHEMA.places(name) else { return Vec::new() };
    for (field, value) in map.iter().filter(|(_, value)| !value.is_null()) {
        let Some(Place { path, held }) = places.get(field.as_str()) else { continue };
        let Some((number, outer)) = path.split_last() else { continue };
        let out = message.at(outer);
        match held {
            Held::Plain(shape) => put(out, *number, shape, value),
            Held::SchemaOr => bytes(out, *number, &schema_or(field, value)),
        }
    }
    message.finish()
}

/// One field, as often as it occurs.
fn put(out: &mut Vec<u8>, number: u64, shape: &Shape, value: &Value) {
    match (shape, value) {
        (Shape::Boolean, Value::Bool(set)) => integer(out, number, i64::from(*set)),
        (Shape::Int32 | Shape::Int64, Value::Number(n)) => {
            integer(out, number, n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)).unwrap_or(0));
        }
        (Shape::Number, Value::Number(n)) => {
            varint(out, number << 3 | 1);
            out.extend_from_slice(&n.as_f64().unwrap_or(0.0).to_le_bytes());
        }
        (Shape::String, Value::String(text)) => bytes(out, number, text.as_bytes()),
        (Shape::Bytes, Value::String(text)) => bytes(out, number, &STANDARD.decode(text).unwrap_or_default()),
        (Shape::Time | Shape::MicroTime, Value::String(text)) => bytes(out, number, &time(text)),
        (Shape::Quantity, value) => {
            let mut inner = Vec::new();
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            bytes(&mut inner, 1, text.as_bytes());
            bytes(out, number, &inner);
        }
        (Shape::IntOrString, value) => bytes(out, number, &int_or_string(value)),
        (Shape::Any, value) => {
            let mut inner = Vec::new();
            bytes(&mut inner, 1, value.to_string().as_bytes());
            bytes(out, number, &inner);
        }
        (Shape::List(of), Value::Array(list)) => list.iter().for_each(|item| put(out, number, of, item)),
        (Shape::Map(of), Value::Object(map)) => {
            for (key, value) in map {
                let mut entry = Vec::new();
                bytes(&mut entry, 1, key.as_bytes());
                if let Shape::List(of) = &**of {
                    // A list within a map is a message with one field.
                    let mut list = Vec::new();
                    value.as_array().into_iter().flatten().for_each(|item| put(&mut list, 1, of, item));
                    bytes(&mut entry, 2, &list);
                } else {
                    put(&mut entry, 2, of, value);
                }
                bytes(out, number, &entry);
            }
        }
        (Shape::Reference(name), Value::Object(map)) => bytes(out, number, &message(map, name)),
        _ => {}
    }
}

/// A schema, a list of schemas, or whether anything is allowed: `items` numbers them otherwise than its siblings.
fn schema_or(field: &str, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::Bool(allows) => integer(&mut out, 1, i64::from(*allows)),
        Value::Array(list) => {
            for schema in list.iter().filter_map(Value::as_object) {
                bytes(&mut out, 2, &message(schema, JSON_SCHEMA));
            }
        }
        Value::Object(schema) if field == "items" => bytes(&mut out, 1, &message(schema, JSON_SCHEMA)),
        Value::Object(schema) => {
            integer(&mut out, 1, 1);
            bytes(&mut out, 2, &message(schema, JSON_SCHEMA));
        }
        _ => {}
    }
    out
}

fn time(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    if let Ok(time) = text.parse::<Timestamp>() {
        // Seconds go down and fractions up, so that the fraction is never negative.
        let nanos = time.as_nanosecond();
        let seconds = nanos.div_euclid(1_000_000_000);
        integer(&mut out, 1, i64::try_from(seconds).unwrap_or(0));
        integer(&mut out, 2, i64::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0));
    }
    out
}

fn int_or_string(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::String(text) => {
            integer(&mut out, 1, 1);
            bytes(&mut out, 3, text.as_bytes());
        }
        other => {
            integer(&mut out, 1, 0);
            integer(&mut out, 2, other.as_i64().unwrap_or(0));
        }
    }
    out
}

/// A text, where there is one.
fn filled(out: &mut Vec<u8>, number: u64, text: &str) {
    if !text.is_empty() {
        bytes(out, number, text.as_bytes());
    }
}

fn bytes(out: &mut Vec<u8>, number: u64, held: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, held.len() as u64);
    out.extend_from_slice(held);
}

fn integer(out: &mut Vec<u8>, number: u64, value: i64) {
    varint(out, number << 3);
    varint(out, value.cast_unsigned());
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
