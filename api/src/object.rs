//! An object of any kind, as JSON, with typed access to the metadata that generic code needs.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::decode::{decode, decode_map};
use crate::kinds::{DecodeError, Kind, Typed};

/// A Kubernetes object whose kind is known only at run time. The JSON is always a map.
///
/// `Debug` shows the identity alone, so that a Secret's values never reach a log.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Object(Map<String, Value>);

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{} @{}", self.kind(), self.namespace(), self.name(), self.resource_version())
    }
}

/// What [`Object`] could not be made from.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The document is a list, a string, … rather than a map.
    #[error("the document is not a JSON object")]
    NotAMap,
    /// The bytes are no JSON; the source tells line and column.
    #[error("the document is not valid JSON")]
    Json(#[source] serde_json::Error),
}

impl Object {
    /// Takes a JSON value, which must be a map.
    pub fn new(value: Value) -> Result<Self, ObjectError> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            _ => Err(ObjectError::NotAMap),
        }
    }

    /// Parses JSON bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ObjectError> {
        Self::new(serde_json::from_slice(bytes).map_err(ObjectError::Json)?)
    }

    /// An object without content, of a kind and name; `namespace` is empty for cluster-scoped kinds.
    pub fn named(kind: &Kind, namespace: &str, name: &str) -> Self {
        let mut object = Self(Map::new());
        object.0.insert("apiVersion".into(), kind.api_version.into());
        object.0.insert("kind".into(), kind.kind.into());
        object.meta_mut().insert("name".into(), name.into());
        if !namespace.is_empty() {
            object.meta_mut().insert("namespace".into(), namespace.into());
        }
        object
    }

    /// Encodes a typed object. `apiVersion` and `kind` are included.
    pub fn from_typed<K: Typed>(typed: &K) -> Self {
        match serde_json::to_value(typed) {
            Ok(Value::Object(map)) => Self(map),
            _ => unreachable!("a k8s-openapi type always encodes as a map"),
        }
    }

    /// Decodes into a typed object.
    pub fn to_typed<K: Typed>(&self) -> Result<K, DecodeError> {
        decode_map(&self.0)
    }

    /// The JSON bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).expect("a JSON map has string keys and always encodes")
    }

    /// The whole document.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The whole document, to change.
    pub fn as_map_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.0
    }

    /// Gives the document away.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// A copy of the document as a value.
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// The value at a JSON pointer, such as `/spec/replicas`.
    pub fn pointer(&self, pointer: &str) -> Option<&Value> {
        let mut parts = pointer.split('/').skip(1);
        let mut value = self.0.get(parts.next()?)?;
        for part in parts {
            value = match value {
                Value::Object(map) => map.get(&part.replace("~1", "/").replace("~0", "~"))?,
                Value::Array(list) => list.get(part.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(value)
    }

    /// The string at a JSON pointer, or the empty string.
    pub fn str_at(&self, pointer: &str) -> &str {
        self.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The integer at a JSON pointer.
    pub fn int_at(&self, pointer: &str) -> Option<i64> {
        self.pointer(pointer).and_then(Value::as_i64)
    }

    /// `apiVersion`, or the empty string.
    pub fn api_version(&self) -> &str {
        self.0.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
    }

    /// `kind`, or the empty string.
    pub fn kind(&self) -> &str {
        self.0.get("kind").and_then(Value::as_str).unwrap_or_default()
    }

    /// `metadata`, if it is a map.
    pub fn meta(&self) -> Option<&Map<String, Value>> {
        self.0.get("metadata").and_then(Value::as_object)
    }

    /// `metadata`, made if it is missing or no map.
    pub fn meta_mut(&mut self) -> &mut Map<String, Value> {
        let meta = self.0.entry("metadata").or_insert_with(|| json!({}));
        if !meta.is_object() {
            *meta = json!({});
        }
        meta.as_object_mut().expect("it was just made a map")
    }

    /// `metadata` in its typed form; a metadata of wrong types reads as empty.
    pub fn typed_meta(&self) -> ObjectMeta {
        self.0.get("metadata").and_then(|m| decode(m).ok()).unwrap_or_default()
    }

    fn meta_str(&self, field: &str) -> &str {
        self.meta().and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
    }

    /// Sets a string in `metadata`; an empty one removes the field.
    pub fn set_meta_str(&mut self, field: &str, value: &str) {
        if value.is_empty() {
            self.meta_mut().remove(field);
        } else {
            self.meta_mut().insert(field.into(), value.into());
        }
    }

    /// `metadata.name`, or the empty string.
    pub fn name(&self) -> &str {
        self.meta_str("name")
    }

    /// `metadata.namespace`, or the empty string.
    pub fn namespace(&self) -> &str {
        self.meta_str("namespace")
    }

    /// `metadata.uid`, or the empty string.
    pub fn uid(&self) -> &str {
        self.meta_str("uid")
    }

    /// `metadata.resourceVersion`, or the empty string.
    pub fn resource_version(&self) -> &str {
        self.meta_str("resourceVersion")
    }

    /// Sets `metadata.resourceVersion`.
    pub fn set_resource_version(&mut self, version: &str) {
        self.set_meta_str("resourceVersion", version);
    }

    /// `metadata.generation`, or 0.
    pub fn generation(&self) -> i64 {
        self.meta().and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or(0)
    }

    /// `metadata.deletionTimestamp`, if the object is being deleted.
    pub fn deletion_timestamp(&self) -> Option<&str> {
        self.meta().and_then(|m| m.get("deletionTimestamp")).and_then(Value::as_str)
    }

    /// `metadata.finalizers`.
    pub fn finalizers(&self) -> Vec<String> {
        let list = self.meta().and_then(|m| m.get("finalizers")).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    }

    /// Sets `metadata.finalizers`; an empty list removes the field.
    pub fn set_finalizers(&mut self, finalizers: &[String]) {
        if finalizers.is_empty() {
            self.meta_mut().remove("finalizers");
        } else {
            self.meta_mut().insert("finalizers".into(), json!(finalizers));
        }
    }

    /// `metadata.labels`.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.string_map("labels")
    }

    /// `metadata.annotations`.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.string_map("annotations")
    }

    fn string_map(&self, field: &str) -> BTreeMap<String, String> {
        let map = self.meta().and_then(|m| m.get(field)).and_then(Value::as_object);
        map.into_iter().flatten().filter_map(|(k, v)| v.as_str().map(|v| (k.clone(), v.to_owned()))).collect()
    }

    /// `metadata.ownerReferences`.
    pub fn owner_references(&self) -> Vec<OwnerReference> {
        let list = self.meta().and_then(|m| m.get("ownerReferences"));
        list.and_then(|v| decode(v).ok()).unwrap_or_default()
    }

    /// `namespace/name`, or the name alone for cluster-scoped objects.
    pub fn key(&self) -> String {
        match self.namespace() {
            "" => self.name().to_owned(),
            namespace => format!("{namespace}/{}", self.name()),
        }
    }
}

/// What a client can send and receive: every [`Typed`] and [`Object`] itself.
pub trait Document: Clone + Send + Sync + 'static {
    /// The JSON bytes, `apiVersion` and `kind` included.
    fn encode(&self) -> Vec<u8>;

    /// Reads JSON bytes.
    ///
    /// # Errors
    /// When the bytes are no JSON or of wrong types.
    fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error>;

    /// `namespace/name`, or the name alone for cluster-scoped objects.
    fn document_key(&self) -> String;

    /// `metadata.namespace`, or the empty string.
    fn document_namespace(&self) -> &str;

    /// `metadata.name`, or the empty string.
    fn document_name(&self) -> &str;

    /// `metadata.resourceVersion`, or the empty string.
    fn document_version(&self) -> &str;
}

impl<K: Typed> Document for K {
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a k8s-openapi type has string keys and always encodes")
    }
    fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
    fn document_key(&self) -> String {
        crate::meta::key(self)
    }
    fn document_namespace(&self) -> &str {
        self.metadata().namespace.as_deref().unwrap_or_default()
    }
    fn document_name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }
    fn document_version(&self) -> &str {
        self.metadata().resource_version.as_deref().unwrap_or_default()
    }
}

impl Document for Object {
    fn encode(&self) -> Vec<u8> {
        self.to_vec()
    }
    fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
    fn document_key(&self) -> String {
        self.key()
    }
    fn document_namespace(&self) -> &str {
        self.namespace()
    }
    fn document_name(&self) -> &str {
        self.name()
    }
    fn document_version(&self) -> &str {
        self.resource_version()
    }
}
