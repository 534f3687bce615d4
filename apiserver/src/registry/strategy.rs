//! What is particular to a kind: defaults, what a path may change, validation, selectable fields and
//! table columns. Everything else is the generic store's.

use std::borrow::Cow;

use api::decode::decode_json;
use api::kinds::DecodeError;
use api::object::Object;
use api::openapi::{Metadata, Resource};
use api::status::StatusError;
use api::validation::{FieldError, dns_subdomain};
use api::{Kind, Typed};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::printing;
use crate::storage::entry::FieldDefinition;

/// A column of a server-side table, as in `meta.k8s.io/v1` `TableColumnDefinition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The heading, such as `Ready`.
    pub name: &'static str,
    /// The OpenAPI type: `string`, `integer`, …
    pub type_: &'static str,
    /// The OpenAPI format: `name` for the primary column, otherwise usually empty.
    pub format: &'static str,
    /// What the column shows.
    pub description: &'static str,
    /// 0 is always shown; 1 only in wide output.
    pub priority: i32,
}

impl Column {
    /// A string column that is always shown.
    pub const fn string(name: &'static str, description: &'static str) -> Self {
        Self { name, type_: "string", format: "", description, priority: 0 }
    }

    /// An integer column that is always shown.
    pub const fn integer(name: &'static str, description: &'static str) -> Self {
        Self { name, type_: "integer", format: "", description, priority: 0 }
    }

    /// Shown only in wide output.
    pub const fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
}

/// The `Name` column that every table begins with.
pub const NAME: Column = Column {
    name: "Name",
    type_: "string",
    format: "name",
    description: "Name must be unique within a namespace. Is required when creating resources, although some \
                  resources may allow a client to request the generation of an appropriate name automatically.",
    priority: 0,
};

/// The `Age` column.
pub const AGE: Column = Column::string(
    "Age",
    "CreationTimestamp is the server time when this object was created, in RFC 3339 form.",
);

/// The columns of a kind that names none.
pub const DEFAULT: &[Column] = &[NAME, AGE];

/// The rules of a kind. All methods are pure: no clock but the one handed in, no I/O.
///
/// A create runs `default`, `prepare_for_create`, `validate_name`, `validate`; an update runs `default`,
/// `prepare_for_update` (or its status twin), `validate`, `validate_update` (or its status twin alone).
/// Metadata (labels, annotations, names, immutable uid, generation, …) is the generic store's.
pub trait Strategy: Send + Sync + 'static {
    /// The type whose rules these are.
    type K: Typed;

    /// Fills in what the client left out.
    fn default(&self, _object: &mut Self::K) {}
    /// Clears or sets what a creator may not choose, such as the status.
    fn prepare_for_create(&self, _object: &mut Self::K) {}
    /// Keeps what the main path may not change, such as the status.
    fn prepare_for_update(&self, _new: &mut Self::K, _old: &Self::K) {}
    /// Keeps what the status path may not change, such as the spec.
    fn prepare_for_status_update(&self, _new: &mut Self::K, _old: &Self::K) {}
    /// Every wrong field of an object, new or changed.
    fn validate(&self, _object: &Self::K) -> Vec<FieldError> {
        Vec::new()
    }
    /// What is wrong with a change, such as an immutable field; `validate(new)` runs as well.
    fn validate_update(&self, _new: &Self::K, _old: &Self::K) -> Vec<FieldError> {
        Vec::new()
    }
    /// What is wrong with a change of the status.
    fn validate_status_update(&self, _new: &Self::K, _old: &Self::K) -> Vec<FieldError> {
        Vec::new()
    }
    /// What is wrong with a name, one sentence per problem.
    fn validate_name(&self, name: &str) -> Vec<String> {
        dns_subdomain(name)
    }
    /// Fields that field selectors know, beside `metadata.name` and `metadata.namespace`. The names must be
    /// the same for every object; an unset field is the empty string.
    fn selectable_fields(&self, _object: &Self::K) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// Where a selectable field stands in the JSON; the first path that is there and not empty counts.
    fn field_paths(&self, field: &'static str) -> Vec<&'static str> {
        vec![field]
    }
    /// The columns of the server-side table.
    fn columns(&self) -> &'static [Column] {
        DEFAULT
    }
    /// One cell per column of [`Strategy::columns`].
    fn row(&self, object: &Self::K, now: Timestamp) -> Vec<Value> {
        let meta = object.metadata();
        vec![
            json!(meta.name.as_deref().unwrap_or_default()),
            json!(printing::age(meta.creation_timestamp.as_ref(), now)),
        ]
    }
    /// `Some(seconds)` when deletion must wait for somebody (a pod for its kubelet); `None` or `Some(0)` deletes
    /// at once. `requested` is `DeleteOptions.gracePeriodSeconds`.
    fn deletion_grace(&self, _object: &Self::K, _requested: Option<i64>) -> Option<i64> {
        None
    }
}

/// Which part of an object an update may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdatePath {
    /// The object's own path.
    Main,
    /// `/status`.
    Status,
}

/// A [`Strategy`] whose type is known only at run time.
pub trait ErasedStrategy: Send + Sync {
    /// Decodes, defaults, prepares and validates a new object. 400 for wrong types, 422 for wrong values, which
    /// tells all of them at once: those that were `found` already, and those of the kind.
    fn for_create(&self, object: Object, found: Vec<FieldError>) -> Result<Object, StatusError>;
    /// Decodes, defaults, prepares and validates a changed object.
    fn for_update(
        &self,
        new: Object,
        old: &Object,
        path: UpdatePath,
        found: Vec<FieldError>,
    ) -> Result<Object, StatusError>;
    /// The object with what was left out filled in, as webhooks see it. 400 for wrong types.
    fn defaulted(&self, object: Object) -> Result<Object, StatusError>;
    /// What is wrong with a name.
    fn validate_name(&self, name: &str) -> Vec<String>;
    /// The names of the selectable fields, beside `metadata.name` and `metadata.namespace`.
    fn field_names(&self) -> Vec<&'static str>;
    /// The selectable fields, what they are by default and where they stand in the JSON: what the copy of the store
    /// reads of every object.
    fn field_definitions(&self) -> Vec<FieldDefinition>;
    /// The selectable fields of stored JSON.
    fn selectable_fields(&self, json: &[u8]) -> Vec<(&'static str, String)>;
    /// The columns of the server-side table.
    fn columns(&self) -> &'static [Column];
    /// The cells of an object given as JSON. Empty strings where the JSON is not of the kind.
    fn row(&self, json: &[u8], now: Timestamp) -> Vec<Value>;
    /// See [`Strategy::deletion_grace`].
    fn deletion_grace(&self, object: &Object, requested: Option<i64>) -> Option<i64>;
}

/// Makes any [`Strategy`] an [`ErasedStrategy`].
pub struct Erased<S>(pub S);

/// Decodes a client's document; a wrong type answers 400 with the path of the field.
pub fn decode<K: Typed>(kind: &Kind, object: &Object) -> Result<K, StatusError> {
    object.to_typed().map_err(|error| wrong_type(kind, &error))
}

/// 400 for a document that is not of its kind.
pub fn wrong_type(kind: &Kind, error: &DecodeError) -> StatusError {
    let Kind { kind, version, .. } = kind;
    StatusError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}"))
}

fn decode_stored<K: Typed>(kind: &Kind, object: &Object) -> Result<K, StatusError> {
    object
        .to_typed()
        .map_err(|e| StatusError::internal(format!("stored {} {:?}: {e}", kind.kind, object.key())))
}

fn refuse(kind: &Kind, name: &str, errors: &[FieldError]) -> Result<(), StatusError> {
    if errors.is_empty() { Ok(()) } else { Err(StatusError::invalid(kind, name, errors)) }
}

impl<S: Strategy> ErasedStrategy for Erased<S> {
    fn for_create(&self, object: Object, found: Vec<FieldError>) -> Result<Object, StatusError> {
        let kind = S::K::kind();
        let name = object.name().to_owned();
        let mut typed: S::K = decode(kind, &object)?;
        self.0.default(&mut typed);
        self.0.prepare_for_create(&mut typed);
        let errors = [found, self.0.validate(&typed)].concat();
        refuse(kind, &name, &errors)?;
        Ok(Object::from_typed(&typed))
    }

    fn for_update(
        &self,
        new: Object,
        old: &Object,
        path: UpdatePath,
        found: Vec<FieldError>,
    ) -> Result<Object, StatusError> {
        let kind = S::K::kind();
        let name = old.name().to_owned();
        let mut new: S::K = decode(kind, &new)?;
        let old: S::K = decode_stored(kind, old)?;
        self.0.default(&mut new);
        let errors = match path {
            UpdatePath::Main => {
                self.0.prepare_for_update(&mut new, &old);
                let mut errors = self.0.validate(&new);
                errors.extend(self.0.validate_update(&new, &old));
                errors
            }
            UpdatePath::Status => {
                self.0.prepare_for_status_update(&mut new, &old);
                self.0.validate_status_update(&new, &old)
            }
        };
        refuse(kind, &name, &[found, errors].concat())?;
        Ok(Object::from_typed(&new))
    }

    fn defaulted(&self, object: Object) -> Result<Object, StatusError> {
        let mut typed: S::K = decode(S::K::kind(), &object)?;
        self.0.default(&mut typed);
        Ok(Object::from_typed(&typed))
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        self.0.validate_name(name)
    }

    fn field_names(&self) -> Vec<&'static str> {
        self.0.selectable_fields(&S::K::default()).into_iter().map(|(name, _)| name).collect()
    }

    fn field_definitions(&self) -> Vec<FieldDefinition> {
        let fields = self.0.selectable_fields(&S::K::default()).into_iter();
        let define = |(name, default)| FieldDefinition {
            name: Cow::Borrowed(name),
            default,
            paths: self.0.field_paths(name).into_iter().map(Cow::Borrowed).collect(),
        };
        fields.map(define).collect()
    }

    fn selectable_fields(&self, json: &[u8]) -> Vec<(&'static str, String)> {
        match decode_json::<S::K>(json) {
            Ok(typed) => self.0.selectable_fields(&typed),
            Err(error) => {
                tracing::warn!(kind = S::K::KIND, %error, "a stored object is not of its kind");
                Vec::new()
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        self.0.columns()
    }

    fn row(&self, json: &[u8], now: Timestamp) -> Vec<Value> {
        match decode_json::<S::K>(json) {
            Ok(typed) => self.0.row(&typed, now),
            Err(_) => vec![json!(""); self.0.columns().len()],
        }
    }

    fn deletion_grace(&self, object: &Object, requested: Option<i64>) -> Option<i64> {
        self.0.deletion_grace(&object.to_typed().ok()?, requested)
    }
}

/// Rules that are read off the document, for kinds whose rules are few: the code of a type weighs more than they do.
#[derive(Clone, Copy)]
pub struct DocumentRules {
    /// Fills in what the client left out.
    pub default: fn(&mut Value),
    /// Every wrong field.
    pub validate: fn(&Value) -> Vec<FieldError>,
}

/// The rules of a kind without a type of its own here: what every kind's type and metadata demand, and what is read
/// off its documents.
pub struct Plain(
    /// The row of the kind.
    pub &'static Kind,
    /// What is read off the documents.
    pub Option<DocumentRules>,
);

impl ErasedStrategy for Plain {
    fn for_create(&self, object: Object, found: Vec<FieldError>) -> Result<Object, StatusError> {
        let kind = self.0;
        let object = self.defaulted(object)?;
        let own = self.1.map(|rules| (rules.validate)(&object.to_value())).unwrap_or_default();
        refuse(kind, object.name(), &[found, own].concat())?;
        Ok(object)
    }

    fn for_update(
        &self,
        new: Object,
        _old: &Object,
        _path: UpdatePath,
        found: Vec<FieldError>,
    ) -> Result<Object, StatusError> {
        self.for_create(new, found)
    }

    fn defaulted(&self, object: Object) -> Result<Object, StatusError> {
        let kind = self.0;
        let mut document = (kind.normalize)(object.into_value()).map_err(|error| wrong_type(kind, &error))?;
        if let Some(rules) = self.1 {
            (rules.default)(&mut document);
        }
        Object::new(document).map_err(StatusError::internal)
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        dns_subdomain(name)
    }

    fn field_names(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn field_definitions(&self) -> Vec<FieldDefinition> {
        Vec::new()
    }

    fn selectable_fields(&self, _json: &[u8]) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn columns(&self) -> &'static [Column] {
        DEFAULT
    }

    fn row(&self, json: &[u8], now: Timestamp) -> Vec<Value> {
        match Object::parse(json) {
            Ok(object) => vec![
                json!(object.name()),
                json!(printing::age(object.typed_meta().creation_timestamp.as_ref(), now)),
            ],
            Err(_) => vec![json!(""); DEFAULT.len()],
        }
    }

    fn deletion_grace(&self, _object: &Object, _requested: Option<i64>) -> Option<i64> {
        None
    }
}
