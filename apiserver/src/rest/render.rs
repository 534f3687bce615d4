//! The forms in which objects are shown: themselves, table rows, metadata alone.

use api::Kind;
use api::status::StatusError;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::negotiate::Form;
use crate::registry::strategies::strategy;
use crate::registry::strategy::Column;
use crate::registry::{convert, scale};

/// What a table carries of each row's object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// Reads the query parameter `includeObject`.
    ///
    /// # Errors
    /// 400 for an unknown value.
    pub fn parse(text: &str) -> Result<Self, StatusError> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => Err(StatusError::bad_request(format!(
                "includeObject: Unsupported value: {other:?}: supported values: \"Metadata\", \"None\", \"Object\""
            ))),
        }
    }
}

/// How a client wants to see the objects of a kind.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The kind that it asked for.
    pub kind: &'static Kind,
    /// The form.
    pub form: Form,
    /// For tables.
    pub include: Include,
    /// For ages in tables.
    pub now: Timestamp,
}

/// Metadata of a list.
#[derive(Clone, Debug, Default)]
pub struct ListMeta {
    /// The version.
    pub revision: i64,
    /// Where the next page begins.
    pub continue_token: String,
    /// Objects behind this page.
    pub remaining: Option<i64>,
}

impl ListMeta {
    fn to_value(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        if !self.continue_token.is_empty() {
            meta["continue"] = self.continue_token.clone().into();
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = remaining.into();
        }
        meta
    }
}

impl View {
    /// One object. The JSON is as it is stored.
    pub fn object(&self, stored: &Bytes) -> Bytes {
        match self.form {
            Form::Objects | Form::Protobuf => convert::json_from_stored(self.kind, stored),
            Form::Metadata => encode(&metadata_of(stored)),
            Form::Table => encode(&self.table(&object_meta(stored), std::iter::once(stored), true)),
        }
    }

    /// A Scale, which is no object of the kind.
    pub fn scale(&self, json: &Bytes) -> Bytes {
        match self.form {
            Form::Objects | Form::Protobuf => json.clone(),
            Form::Metadata => encode(&metadata_of(json)),
            Form::Table => {
                let rows = std::iter::once(json).map(|scale| (scale::row(scale, self.now), scale.clone()));
                encode(&self.rows(&object_meta(json), scale::COLUMNS, rows))
            }
        }
    }

    /// One object within a watch: tables show their columns in the first event alone.
    pub fn event_object(&self, stored: &Bytes, first: bool) -> Bytes {
        match self.form {
            Form::Table => encode(&self.table(&object_meta(stored), std::iter::once(stored), first)),
            Form::Objects | Form::Protobuf | Form::Metadata => self.object(stored),
        }
    }

    /// The object of a bookmark: a version, and whether the initial events are over.
    pub fn bookmark(&self, revision: i64, initial_end: bool, first: bool) -> Bytes {
        let mut meta = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.form {
            Form::Objects | Form::Protobuf => encode(
                &json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version, "metadata": meta}),
            ),
            Form::Metadata => encode(
                &json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}),
            ),
            Form::Table => encode(&self.table(&meta, std::iter::empty(), first)),
        }
    }

    /// What stands before, between and after the objects of a list, where they are shown one after the other;
    /// a table or the like is one piece.
    pub fn list_envelope(&self, meta: &ListMeta) -> Option<(String, &'static str)> {
        let (api_version, kind) = match self.form {
            Form::Objects | Form::Protobuf => (self.kind.api_version, self.kind.list_kind),
            Form::Metadata => ("meta.k8s.io/v1", "PartialObjectMetadataList"),
            Form::Table => return None,
        };
        let head = format!(
            "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{},\"items\":[",
            Value::from(kind),
            Value::from(api_version),
            meta.to_value()
        );
        Some((head, "]}\n"))
    }

    /// A list in the binary encoding.
    pub fn protobuf_list<'a>(&self, meta: &ListMeta, objects: impl Iterator<Item = &'a Bytes>) -> Bytes {
        let objects: Vec<Value> =
            objects.filter_map(|stored| serde_json::from_slice(&self.object(stored)).ok()).collect();
        let Kind { api_version, kind, list_kind, .. } = self.kind;
        let body = api::protobuf::encode_list(api_version, kind, list_kind, &meta.to_value(), objects.iter());
        body.unwrap_or_default().into()
    }

    /// A whole table.
    pub fn list_table<'a>(&self, meta: &ListMeta, objects: impl Iterator<Item = &'a Bytes>) -> Bytes {
        encode(&self.table(&meta.to_value(), objects, true))
    }

    fn table<'a>(&self, meta: &Value, objects: impl Iterator<Item = &'a Bytes>, columns: bool) -> Value {
        let strategy = strategy(self.kind);
        let definitions = if columns { strategy.columns() } else { &[] };
        let rows = objects.map(|stored| {
            let shown = convert::json_from_stored(self.kind, stored);
            (strategy.row(&shown, self.now), shown)
        });
        self.rows(meta, definitions, rows)
    }

    /// A table of rows, each with the object that it is about.
    fn rows(
        &self,
        meta: &Value,
        columns: &[Column],
        rows: impl Iterator<Item = (Vec<Value>, Bytes)>,
    ) -> Value {
        let rows: Vec<_> = rows
            .map(|(cells, shown)| {
                let mut row = json!({"cells": cells});
                match self.include {
                    Include::None => {}
                    Include::Metadata => row["object"] = metadata_of(&shown),
                    Include::Object => row["object"] = serde_json::from_slice(&shown).unwrap_or_default(),
                }
                row
            })
            .collect();
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": meta,
            "columnDefinitions": columns.iter().map(column).collect::<Vec<_>>(),
            "rows": rows,
        })
    }
}

fn column(column: &Column) -> Value {
    json!({
        "name": column.name,
        "type": column.type_,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    })
}

#[derive(serde::Deserialize)]
struct MetadataOnly<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

fn metadata_of(stored: &[u8]) -> Value {
    let metadata = serde_json::from_slice::<MetadataOnly<'_>>(stored)
        .ok()
        .and_then(|m| serde_json::from_str::<Value>(m.metadata.get()).ok())
        .unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

/// The list metadata of a table of one object.
fn object_meta(stored: &[u8]) -> Value {
    let version = crate::storage::encoding::head(stored).map(|h| h.resource_version.into_owned());
    json!({"resourceVersion": version.unwrap_or_default()})
}

fn encode(value: &Value) -> Bytes {
    serde_json::to_vec(value).expect("JSON values always encode").into()
}
