//! The binary encoding that typed clients speak, from and into the JSON that everything else works on.
//!
//! An object travels as four bytes `k8s\0` and a `runtime.Unknown` message, which carries the type's name and
//! the object's own message. Which number stands for which field is the wire format's and stands in a table;
//! what a field holds is known from [`crate::schema`].
//!
//! Clients in Go write the zero of a field that was never set; such zeros are left out, as they would be in
//! JSON, unless the field tells zero and nothing apart.

mod encode;

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Map, Value, json};

use crate::kinds::KINDS;
use crate::schema::{Shape, fields, full_name, schema_or};

use encode::{Places, places};
pub use encode::{encode, encode_event, encode_list, encode_status, knows};

/// What every body begins with.
pub const MAGIC: &[u8] = b"k8s\0";
/// How deep messages may nest.
const MAX_DEPTH: usize = 64;
/// A line per type: its full name, then `field=number`; `field=2.1` is field 1 of the message in field 2,
/// whose fields stand in JSON beside those of the type itself. The numbers are those of Kubernetes v1.35's
/// published messages.
const TABLE: &str = include_str!("protobuf/fields.txt");
/// The type of the schemas of custom resources.
const JSON_SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
/// Fields whose zero is not the same as none.
const ZERO_MATTERS: &[&str] = &[
    "activeDeadlineSeconds",
    "adminAccess",
    "allNodes",
    "allocateLoadBalancerNodePorts",
    "allowMultipleAllocations",
    "allowPrivilegeEscalation",
    "allowVolumeExpansion",
    "attachRequired",
    "automountServiceAccountToken",
    "averageUtilization",
    "backoffLimit",
    "backoffLimitPerIndex",
    "blockOwnerDeletion",
    "bool",
    "borrowingLimitPercent",
    "completions",
    "controller",
    "currentCPUUtilizationPercentage",
    "defaultMode",
    "deletionGracePeriodSeconds",
    "enableServiceLinks",
    "expirationSeconds",
    "failedJobsHistoryLimit",
    "fsGroup",
    "gracePeriodSeconds",
    "hostUsers",
    "immutable",
    "int",
    "intVal",
    "leaseDurationSeconds",
    "leaseTransitions",
    "lendablePercent",
    "manualSelector",
    "maxFailedIndexes",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minReplicas",
    "minimum",
    "mode",
    "multipleOf",
    "nodeAllocatableUpdatePeriodSeconds",
    "nominalConcurrencyShares",
    "optional",
    "optionalOldSelf",
    "orphanDependents",
    "parallelism",
    "partition",
    "podInfoOnMount",
    "priority",
    "privileged",
    "progressDeadlineSeconds",
    "readOnlyRootFilesystem",
    "ready",
    "replicas",
    "requiresRepublish",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "seLinuxMount",
    "serving",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "stabilizationWindowSeconds",
    "started",
    "startingDeadlineSeconds",
    "storageCapacity",
    "succeededCount",
    "successfulJobsHistoryLimit",
    "suspend",
    "targetCPUUtilizationPercentage",
    "terminating",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
    "ttlSecondsAfterFinished",
    "x-kubernetes-preserve-unknown-fields",
];

/// Bytes that are no object in this encoding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The first four bytes are others.
    #[error("the body does not begin with the magic number of the encoding")]
    Magic,
    /// The bytes end within a field, or a number has too many of them.
    #[error("the message is truncated or malformed")]
    Malformed,
    /// A field has another wire type than its own.
    #[error("field {0:?} has the wrong wire type")]
    WireType(String),
    /// A text is not in UTF-8.
    #[error("field {0:?} is not valid UTF-8")]
    Utf8(String),
    /// A part that is JSON within the message is none.
    #[error("field {0:?} is not valid JSON")]
    Json(String),
    /// Messages nest too deeply.
    #[error("messages nest deeper than {MAX_DEPTH} levels")]
    Depth,
    /// No such kind is known.
    #[error("no kind {1:?} is registered for version {0:?}")]
    Kind(String, String),
}

/// Decodes a body.
///
/// # Errors
/// When the bytes are no object of a kind that is known here. Fields that are not known are skipped.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let body = body.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut type_meta, mut raw) = (&[][..], &[][..]);
    for field in Fields(body) {
        match field? {
            (1, Wire::Bytes(bytes)) => type_meta = bytes,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    for field in Fields(type_meta) {
        match field? {
            (1, Wire::Bytes(bytes)) => api_version = text("apiVersion", bytes)?,
            (2, Wire::Bytes(bytes)) => kind = text("kind", bytes)?,
            _ => {}
        }
    }
    let schema = &*SCHEMA;
    let name = schema
        .roots
        .get(&(api_version.clone(), kind.clone()))
        .or_else(|| schema.any_version.get(&kind))
        .ok_or_else(|| ProtobufError::Kind(api_version.clone(), kind.clone()))?;
    let mut object = Map::new();
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    message(&mut object, raw, schema.numbers(name), 0)?;
    Ok(Value::Object(object))
}

/// What a field number stands for.
enum Field {
    Plain(&'static str, Shape),
    /// A message whose fields stand beside the others.
    Inline(Numbers),
    /// A schema, a list of schemas, or whether anything is allowed.
    SchemaOr(&'static str),
}

type Numbers = HashMap<u64, Field>;

/// What stands for what in the messages of a type, worked out when it is first asked for.
struct Layout {
    text: &'static str,
    numbers: OnceLock<Numbers>,
    places: OnceLock<Places>,
}

struct Schema {
    types: HashMap<&'static str, Layout>,
    /// `apiVersion` and `kind` to the type's full name.
    roots: HashMap<(String, String), String>,
    /// Kinds that every group and version has.
    any_version: HashMap<String, String>,
}

impl Schema {
    /// What the field numbers of a type stand for.
    fn numbers(&self, name: &str) -> &Numbers {
        static NOTHING: LazyLock<Numbers> = LazyLock::new(Numbers::new);
        let Some((name, layout)) = self.types.get_key_value(name) else { return &NOTHING };
        layout.numbers.get_or_init(|| numbers(name, layout.text))
    }

    /// Where the fields of a type are written; nothing for a type that is not known.
    fn places(&self, name: &str) -> Option<&Places> {
        let layout = self.types.get(name)?;
        Some(layout.places.get_or_init(|| places(self.numbers(name))))
    }
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let mut roots = HashMap::new();
    for kind in KINDS {
        roots.insert((kind.api_version.to_owned(), kind.kind.to_owned()), (kind.type_name)());
    }
    let mut root = |api_version: &'static str, kind: &'static str, name: String| {
        roots.insert((api_version.to_owned(), kind.to_owned()), name);
    };
    root("autoscaling/v1", "Scale", full_name::<Scale>());
    root("authentication.k8s.io/v1", "TokenRequest", full_name::<TokenRequest>());
    root("policy/v1", "Eviction", full_name::<Eviction>());
    let lines = TABLE.lines().filter_map(|line| line.split_once(' '));
    let layout = |text| Layout { text, numbers: OnceLock::new(), places: OnceLock::new() };
    Schema {
        types: lines.map(|(name, text)| (name, layout(text))).collect(),
        roots,
        any_version: HashMap::from([("DeleteOptions".to_owned(), full_name::<DeleteOptions>())]),
    }
});

fn numbers(of: &str, line: &'static str) -> Numbers {
    let shapes = fields(of);
    let mut numbers = Numbers::new();
    for field in line.split(' ') {
        let Some((name, path)) = field.split_once('=') else { continue };
        let shape = shapes.get(name).cloned().unwrap_or_default();
        let path: Vec<u64> = path.split('.').filter_map(|number| number.parse().ok()).collect();
        let Some((last, outer)) = path.split_last() else { continue };
        let holder = outer.iter().try_fold(&mut numbers, |at, number| {
            match at.entry(*number).or_insert_with(|| Field::Inline(Numbers::new())) {
                Field::Inline(inner) => Some(inner),
                Field::Plain(..) | Field::SchemaOr(_) => None,
            }
        });
        if let Some(holder) = holder {
            holder.insert(
                *last,
                if schema_or(name, of) { Field::SchemaOr(name) } else { Field::Plain(name, shape) },
            );
        }
    }
    numbers
}

fn message(
    into: &mut Map<String, Value>,
    bytes: &[u8],
    numbers: &Numbers,
    depth: usize,
) -> Result<(), ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::Depth);
    }
    for field in Fields(bytes) {
        let (number, wire) = field?;
        match numbers.get(&number) {
            None => {}
            Some(Field::Inline(inner)) => match wire {
                Wire::Bytes(bytes) => message(into, bytes, inner, depth + 1)?,
                _ => return Err(ProtobufError::Malformed),
            },
            Some(Field::Plain(name, shape)) => add(into, name, shape, wire, depth)?,
            Some(Field::SchemaOr(name)) => {
                let Wire::Bytes(bytes) = wire else { return Err(ProtobufError::WireType((*name).into())) };
                into.insert((*name).into(), schema_or_else(name, bytes, depth + 1)?);
            }
        }
    }
    Ok(())
}

/// Adds one occurrence of a field.
fn add(
    into: &mut Map<String, Value>,
    name: &'static str,
    shape: &Shape,
    wire: Wire<'_>,
    depth: usize,
) -> Result<(), ProtobufError> {
    match shape {
        Shape::List(of) => {
            let list = into.entry(name).or_insert_with(|| json!([]));
            let list = list.as_array_mut().ok_or(ProtobufError::Malformed)?;
            match (&**of, wire) {
                // Numbers may stand one after the other in one field.
                (Shape::Int32 | Shape::Int64 | Shape::Boolean, Wire::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        let number = varint(&mut packed)?;
                        list.extend(value(name, of, Wire::Varint(number), depth)?);
                    }
                }
                (of, wire) => list.push(value(name, of, wire, depth)?.unwrap_or_default()),
            }
        }
        Shape::Map(of) => {
            let Wire::Bytes(entry) = wire else { return Err(ProtobufError::WireType(name.into())) };
            let map = into.entry(name).or_insert_with(|| json!({}));
            let map = map.as_object_mut().ok_or(ProtobufError::Malformed)?;
            let (mut key, mut held) = (String::new(), None);
            for field in Fields(entry) {
                match field? {
                    (1, Wire::Bytes(bytes)) => key = text(name, bytes)?,
                    (2, wire) => held = value(name, of, wire, depth)?,
                    _ => {}
                }
            }
            let empty = || if matches!(**of, Shape::String | Shape::Bytes) { json!("") } else { Value::Null };
            map.insert(key, held.unwrap_or_else(empty));
        }
        shape => {
            if let Some(value) = value(name, shape, wire, depth)?
                && (!is_zero(&value) || ZERO_MATTERS.contains(&name))
            {
                into.insert(name.into(), value);
            }
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(set) => !set,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}

/// One value; nothing for a time that was never set.
fn value(name: &str, shape: &Shape, wire: Wire<'_>, depth: usize) -> Result<Option<Value>, ProtobufError> {
    Ok(match (shape, wire) {
        (Shape::Boolean, Wire::Varint(number)) => Some((number != 0).into()),
        // Negative numbers are written in 64 bits, whatever their type.
        (Shape::Int32 | Shape::Int64, Wire::Varint(number)) => Some(number.cast_signed().into()),
        (Shape::Number, Wire::Fixed64(bits)) => Some(json!(f64::from_bits(bits))),
        (Shape::String, Wire::Bytes(bytes)) => Some(text(name, bytes)?.into()),
        (Shape::Bytes, Wire::Bytes(bytes)) => Some(STANDARD.encode(bytes).into()),
        (Shape::Time | Shape::MicroTime, Wire::Bytes(bytes)) => time(bytes)?,
        (Shape::Quantity, Wire::Bytes(bytes)) => Some(first_text(name, bytes)?.into()),
        (Shape::IntOrString, Wire::Bytes(bytes)) => Some(int_or_string(name, bytes)?),
        (Shape::Any, Wire::Bytes(bytes)) => Some(embedded(name, bytes)?),
        // A list within a map is a message with one field.
        (Shape::List(of), Wire::Bytes(bytes)) => {
            let mut list = Vec::new();
            for field in Fields(bytes) {
                if let (1, wire) = field? {
                    list.push(value(name, of, wire, depth + 1)?.unwrap_or_default());
                }
            }
            Some(list.into())
        }
        (Shape::Reference(of), Wire::Bytes(bytes)) => {
            let mut map = Map::new();
            message(&mut map, bytes, SCHEMA.numbers(of), depth + 1)?;
            Some(Value::Object(map))
        }
        _ => return Err(ProtobufError::WireType(name.into())),
    })
}

/// A schema where something simpler may stand instead: `items` and the `additional…` of a schema.
fn schema_or_else(name: &str, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let schema = |bytes: &[u8]| {
        let mut map = Map::new();
        message(&mut map, bytes, SCHEMA.numbers(JSON_SCHEMA), depth + 1)?;
        Ok::<_, ProtobufError>(Value::Object(map))
    };
    let (mut found, mut list) = (json!(false), Vec::new());
    for field in Fields(bytes) {
        match (name, field?) {
            ("items", (2, Wire::Bytes(bytes))) => list.push(schema(bytes)?),
            ("items", (1, Wire::Bytes(bytes))) | (_, (2, Wire::Bytes(bytes))) => found = schema(bytes)?,
            (_, (1, Wire::Varint(allows))) if !found.is_object() => found = (allows != 0).into(),
            _ => {}
        }
    }
    Ok(if list.is_empty() { found } else { list.into() })
}

fn text(name: &str, bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Utf8(name.into()))
}

/// The text in field 1.
fn first_text(name: &str, bytes: &[u8]) -> Result<String, ProtobufError> {
    let mut found = String::new();
    for field in Fields(bytes) {
        if let (1, Wire::Bytes(bytes)) = field? {
            found = text(name, bytes)?;
        }
    }
    Ok(found)
}

fn int_or_string(name: &str, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut string) = (false, 0, String::new());
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Varint(which)) => is_text = which == 1,
            (2, Wire::Varint(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(bytes)) => string = text(name, bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { string.into() } else { number.into() })
}

/// Seconds and nanoseconds since 1970, both zero when there is no time.
fn time(bytes: &[u8]) -> Result<Option<Value>, ProtobufError> {
    let (mut seconds, mut nanos) = (0i64, 0i32);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Varint(value)) => seconds = value.cast_signed(),
            (2, Wire::Varint(value)) => nanos = i32::try_from(value).map_err(|_| ProtobufError::Malformed)?,
            _ => {}
        }
    }
    if seconds == 0 && nanos == 0 {
        return Ok(None);
    }
    let time = Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Malformed)?;
    Ok(Some(time.to_string().into()))
}

/// JSON in field 1.
fn embedded(name: &str, bytes: &[u8]) -> Result<Value, ProtobufError> {
    for field in Fields(bytes) {
        if let (1, Wire::Bytes(json)) = field?
            && !json.is_empty()
        {
            return serde_json::from_slice(json).map_err(|_| ProtobufError::Json(name.into()));
        }
    }
    Ok(Value::Null)
}

/// A field's content as it is written.
#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order in which they stand.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Wire<'a>), ProtobufError> {
        let tag = varint(&mut self.0)?;
        let wire = match tag & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => {
                let bytes = self.take(8)?.try_into().map_err(|_| ProtobufError::Malformed)?;
                Wire::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).map_err(|_| ProtobufError::Malformed)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            _ => return Err(ProtobufError::Malformed),
        };
        Ok((tag >> 3, wire))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ProtobufError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut number = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(ProtobufError::Malformed)?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        number |= part.checked_shl(shift).ok_or(ProtobufError::Malformed)?;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(ProtobufError::Malformed)
}

#[cfg(test)]
mod tests;
