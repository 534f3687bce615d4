//! Structural schemas: what the fields of a custom resource hold.
//!
//! See the documentation of CustomResourceDefinitions, "Specifying a structural schema".

pub mod default;
pub mod prune;
pub mod validate;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

/// How deep a schema may nest.
const MAX_DEPTH: usize = 64;

/// A type of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A map.
    Object,
    /// A list.
    Array,
    /// A text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// True or false.
    Boolean,
}

impl Type {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// As schemas name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// What a list's elements are to each other: `x-kubernetes-list-type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// The list is one value.
    #[default]
    Atomic,
    /// Every element stands once.
    Set,
    /// Every element is told apart by these fields.
    Map(Vec<String>),
}

/// What may stand in a map beside its named fields.
#[derive(Debug, Default)]
pub enum Additional {
    /// Nothing: what stands there is pruned.
    #[default]
    None,
    /// Anything.
    Any,
    /// Values of a schema.
    Of(Box<Schema>),
}

/// The schema of one value. What only validates stands in [`Checks`].
#[derive(Debug, Default)]
pub struct Schema {
    /// `type`.
    pub type_: Option<Type>,
    /// `nullable`.
    pub nullable: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    /// `properties`.
    pub properties: BTreeMap<String, Schema>,
    /// `additionalProperties`.
    pub additional: Additional,
    /// `items`.
    pub items: Option<Box<Schema>>,
    /// `default`.
    pub default: Option<Value>,
    /// `x-kubernetes-list-type` and its keys.
    pub list_type: ListType,
    /// Everything that validates.
    pub checks: Checks,
}

/// Bounds of a value, and schemas that it must or must not satisfy.
#[derive(Debug, Default)]
pub struct Checks {
    format: String,
    pattern: Option<Regex>,
    choices: Vec<Value>,
    required: Vec<String>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    exclusive_minimum: bool,
    exclusive_maximum: bool,
    multiple_of: Option<f64>,
    min_length: Option<u64>,
    max_length: Option<u64>,
    min_items: Option<u64>,
    max_items: Option<u64>,
    min_properties: Option<u64>,
    max_properties: Option<u64>,
    unique_items: bool,
    all_of: Vec<Schema>,
    any_of: Vec<Schema>,
    one_of: Vec<Schema>,
    not: Option<Box<Schema>>,
}

/// Why a schema cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct SchemaError {
    /// Where, beneath the schema's own path: `properties[spec].pattern`.
    pub path: String,
    /// What.
    pub message: String,
}

impl Schema {
    /// Reads an `openAPIV3Schema`.
    ///
    /// # Errors
    /// For patterns that do not compile and for nesting beyond measure.
    pub fn parse(value: &Value) -> Result<Self, SchemaError> {
        Self::at(value, "", 0)
    }

    fn at(value: &Value, path: &str, depth: usize) -> Result<Self, SchemaError> {
        let error = |field: &str, message: String| SchemaError { path: join(path, field), message };
        if depth > MAX_DEPTH {
            return Err(error("", format!("schemas nest deeper than {MAX_DEPTH} levels")));
        }
        let empty = Map::new();
        let map = value.as_object().unwrap_or(&empty);
        let flag = |field: &str| map.get(field).and_then(Value::as_bool).unwrap_or(false);
        let text = |field: &str| map.get(field).and_then(Value::as_str).unwrap_or_default();
        let mut properties = BTreeMap::new();
        for (name, schema) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let at = join(path, &format!("properties[{name}]"));
            properties.insert(name.clone(), Self::at(schema, &at, depth + 1)?);
        }
        let additional = match map.get("additionalProperties") {
            None | Some(Value::Bool(false)) => Additional::None,
            Some(Value::Bool(true)) => Additional::Any,
            Some(schema) => {
                let at = join(path, "additionalProperties");
                Additional::Of(Box::new(Self::at(schema, &at, depth + 1)?))
            }
        };
        let items = match map.get("items") {
            None => None,
            Some(schema) => Some(Box::new(Self::at(schema, &join(path, "items"), depth + 1)?)),
        };
        let keys = || strings(map.get("x-kubernetes-list-map-keys"));
        Ok(Self {
            type_: Type::parse(text("type")),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            properties,
            additional,
            items,
            default: map.get("default").cloned(),
            list_type: match text("x-kubernetes-list-type") {
                "set" => ListType::Set,
                "map" => ListType::Map(keys()),
                _ => ListType::Atomic,
            },
            checks: Checks::at(map, path, depth)?,
        })
    }

    /// Whether a default stands anywhere in the schema.
    pub fn has_defaults(&self) -> bool {
        let beneath = match &self.additional {
            Additional::Of(schema) => schema.has_defaults(),
            Additional::None | Additional::Any => false,
        };
        self.default.is_some()
            || beneath
            || self.properties.values().any(Self::has_defaults)
            || self.items.as_ref().is_some_and(|s| s.has_defaults())
    }
}

impl Checks {
    fn at(map: &Map<String, Value>, path: &str, depth: usize) -> Result<Self, SchemaError> {
        let flag = |field: &str| map.get(field).and_then(Value::as_bool).unwrap_or(false);
        let number = |field: &str| map.get(field).and_then(Value::as_f64);
        let count = |field: &str| map.get(field).and_then(Value::as_u64);
        let text = |field: &str| map.get(field).and_then(Value::as_str).unwrap_or_default();
        let pattern = match text("pattern") {
            "" => None,
            pattern => Some(Regex::new(pattern).map_err(|_| SchemaError {
                path: join(path, "pattern"),
                message: format!("Invalid value: {pattern:?}: must be a valid regular expression"),
            })?),
        };
        let list = |field: &str| -> Result<Vec<Schema>, SchemaError> {
            let schemas = map.get(field).and_then(Value::as_array).into_iter().flatten().enumerate();
            schemas.map(|(i, s)| Schema::at(s, &join(path, &format!("{field}[{i}]")), depth + 1)).collect()
        };
        let not = match map.get("not") {
            None => None,
            Some(schema) => Some(Box::new(Schema::at(schema, &join(path, "not"), depth + 1)?)),
        };
        Ok(Self {
            format: text("format").to_owned(),
            pattern,
            choices: map.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            required: strings(map.get("required")),
            minimum: number("minimum"),
            maximum: number("maximum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            unique_items: flag("uniqueItems"),
            all_of: list("allOf")?,
            any_of: list("anyOf")?,
            one_of: list("oneOf")?,
            not,
        })
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// `a` and `b` as `a.b`.
pub fn join(path: &str, field: &str) -> String {
    match (path, field) {
        ("", field) => field.to_owned(),
        (path, "") => path.to_owned(),
        (path, field) => format!("{path}.{field}"),
    }
}
