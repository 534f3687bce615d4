//! `metadata.managedFields`: which manager owns which fields.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::set::FieldSet;

/// The sort of write by which a manager came to its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// An apply, which states all that its manager wants.
    Apply,
    /// Any other write.
    Update,
}

impl Operation {
    const fn text(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Tells managers apart. An applier has one entry whatever version it speaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) operation: Operation,
    pub(super) manager: String,
    pub(super) subresource: String,
    /// Empty for appliers.
    pub(super) api_version: String,
}

/// What a manager owns.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Owned {
    pub(super) fields: FieldSet,
    pub(super) api_version: String,
    /// RFC 3339 in whole seconds, or empty.
    pub(super) time: String,
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managed(pub(super) BTreeMap<Key, Owned>);

impl Managed {
    /// Whether nobody manages anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads `metadata.managedFields`; nothing when it is malformed.
    pub fn decode(value: &Value) -> Option<Self> {
        let mut managed = BTreeMap::new();
        for entry in value.as_array()? {
            let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            let operation = match text("operation").as_str() {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            };
            if text("fieldsType") != "FieldsV1" {
                return None;
            }
            let fields = match entry.get("fieldsV1") {
                None | Some(Value::Null) => FieldSet::default(),
                Some(fields) => FieldSet::from_value(fields)?,
            };
            let api_version = text("apiVersion");
            let key = Key {
                operation,
                manager: text("manager"),
                subresource: text("subresource"),
                api_version: if operation == Operation::Apply { String::new() } else { api_version.clone() },
            };
            managed.insert(key, Owned { fields, api_version, time: text("time") });
        }
        Some(Self(managed))
    }

    /// Whether a client asks to forget all managers: one entry without content.
    pub fn is_reset(value: &Value) -> bool {
        let blank = |value: &Value| match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        matches!(value.as_array().map(Vec::as_slice), Some([Value::Object(only)]) if only.values().all(blank))
    }

    /// The managers to begin with: those that the request states, else those of the object.
    pub fn of_request(requested: Option<&Value>, present: Option<&Value>) -> Self {
        if requested.is_some_and(Self::is_reset) {
            return Self::default();
        }
        let stated = requested.and_then(Self::decode).filter(|managed| !managed.is_empty());
        stated.or_else(|| present.and_then(Self::decode)).unwrap_or_default()
    }

    /// `metadata.managedFields`, in the documented order: appliers first, then by time and name.
    pub fn encode(&self) -> Option<Value> {
        let mut entries: Vec<(&Key, &Owned)> = self.0.iter().collect();
        entries.sort_by_key(|(key, owned)| {
            (key.operation, &owned.time, &key.manager, &owned.api_version, &key.subresource)
        });
        let entries: Vec<Value> = entries.into_iter().map(|(key, owned)| entry(key, owned)).collect();
        (!entries.is_empty()).then_some(Value::Array(entries))
    }

    /// What all of them own together.
    pub(super) fn everything(&self) -> FieldSet {
        let mut all = FieldSet::default();
        for owned in self.0.values() {
            all.unite(&owned.fields);
        }
        all
    }

    /// Forgets those who own nothing.
    pub(super) fn drop_empty(&mut self) {
        self.0.retain(|_, owned| !owned.fields.is_empty());
    }

    /// Whether another state differs in nothing but the times.
    pub fn same_but_times(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .zip(&other.0)
                .all(|((a, x), (b, y))| a == b && x.fields == y.fields && x.api_version == y.api_version)
    }
}

fn entry(key: &Key, owned: &Owned) -> Value {
    let mut entry = Map::new();
    entry.insert("apiVersion".into(), owned.api_version.clone().into());
    entry.insert("fieldsType".into(), "FieldsV1".into());
    entry.insert("fieldsV1".into(), owned.fields.to_value());
    if !key.manager.is_empty() {
        entry.insert("manager".into(), key.manager.clone().into());
    }
    entry.insert("operation".into(), key.operation.text().into());
    if !key.subresource.is_empty() {
        entry.insert("subresource".into(), key.subresource.clone().into());
    }
    if !owned.time.is_empty() {
        entry.insert("time".into(), json!(owned.time));
    }
    Value::Object(entry)
}
