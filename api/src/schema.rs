//! Schemas of the typed objects.
//!
//! The types of [`k8s_openapi`] carry no schema at run time. A table has what their decoders ask for, a line per type:
//! its full name, then `field:shape` for each field. A test asks the decoders and keeps the table true, so that no
//! program needs the code of every type to know what they are made of.

use std::any::type_name;
use std::collections::BTreeMap;
use std::sync::{LazyLock, OnceLock};

pub mod conform;
pub mod merging;
#[cfg(test)]
mod recorder;

#[cfg(test)]
pub(crate) use recorder::record as record_decoder;

const TABLE: &str = include_str!("schema/types.txt");

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Shape {
    /// Any JSON.
    #[default]
    Any,
    /// `true` or `false`.
    Boolean,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A number with a fraction.
    Number,
    /// A text.
    String,
    /// A point in time, RFC 3339.
    Time,
    /// A point in time with microseconds, RFC 3339.
    MicroTime,
    /// Bytes, in base64.
    Bytes,
    /// An integer or a text.
    IntOrString,
    /// An amount such as `100m`.
    Quantity,
    /// A list.
    List(Box<Shape>),
    /// A map from texts.
    Map(Box<Shape>),
    /// A type with a definition of its own, by its full name.
    Reference(String),
}

/// The fields of a type, and what they hold.
pub type Fields = BTreeMap<&'static str, Shape>;

/// The definitions of struct types: full name, then field names and what they hold.
pub type Definitions = BTreeMap<String, Fields>;

/// The words of the table for shapes without parts.
const PLAIN: [(&str, Shape); 11] = [
    ("any", Shape::Any),
    ("bool", Shape::Boolean),
    ("int32", Shape::Int32),
    ("int64", Shape::Int64),
    ("number", Shape::Number),
    ("string", Shape::String),
    ("time", Shape::Time),
    ("microtime", Shape::MicroTime),
    ("bytes", Shape::Bytes),
    ("int-or-string", Shape::IntOrString),
    ("quantity", Shape::Quantity),
];

impl Shape {
    /// Reads a word of the table: `[…]` is a list, `{…}` a map, and what is no plain shape the name of a type.
    fn parse(word: &str) -> Self {
        let within = |open, close| word.strip_prefix(open)?.strip_suffix(close);
        if let Some(of) = within('[', ']') {
            return Self::List(Box::new(Self::parse(of)));
        }
        if let Some(of) = within('{', '}') {
            return Self::Map(Box::new(Self::parse(of)));
        }
        let plain = PLAIN.iter().find(|(known, _)| *known == word);
        plain.map_or_else(|| Self::Reference(word.to_owned()), |(_, shape)| shape.clone())
    }
}

/// A line of the table, read when it is first asked for.
struct Line {
    text: &'static str,
    fields: OnceLock<Fields>,
}

static LINES: LazyLock<BTreeMap<&'static str, Line>> = LazyLock::new(|| {
    let lines = TABLE.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, text)| (name, Line { text, fields: OnceLock::new() })).collect()
});

/// The fields of a type, by its full name; none for a name that is not known.
pub fn fields(name: &str) -> &'static Fields {
    static NONE: Fields = Fields::new();
    let Some(line) = LINES.get(name) else { return &NONE };
    line.fields.get_or_init(|| read(line.text).collect())
}

/// All types of the table: their full names, and their fields, read anew.
pub fn types() -> impl Iterator<Item = (&'static str, Vec<(&'static str, Shape)>)> {
    TABLE.lines().filter_map(|line| line.split_once(' ')).map(|(name, text)| (name, read(text).collect()))
}

/// The fields of a line of the table.
fn read(line: &'static str) -> impl Iterator<Item = (&'static str, Shape)> {
    let words = line.split(' ').filter_map(|word| word.split_once(':'));
    words.map(|(field, shape)| (field, Shape::parse(shape)))
}

/// Whether a field of a JSON schema holds a schema or something simpler.
pub(crate) fn schema_or(field: &str, of: &str) -> bool {
    of.ends_with(".JSONSchemaProps") && matches!(field, "additionalItems" | "additionalProperties" | "items")
}

/// Adds a type and all that it is made of.
#[cfg(test)]
pub(crate) fn add(definitions: &mut Definitions, name: &str) {
    if definitions.contains_key(name) || !LINES.contains_key(name) {
        return;
    }
    definitions.insert(name.to_owned(), fields(name).clone());
    for shape in fields(name).values() {
        let mut shape = shape;
        while let Shape::List(of) | Shape::Map(of) = shape {
            shape = of;
        }
        if let Shape::Reference(of) = shape {
            add(definitions, of);
        }
    }
}

/// `k8s_openapi::v1_35::api::core::v1::pod_spec::PodSpec` is `io.k8s.api.core.v1.PodSpec`.
pub fn full_name<T>() -> String {
    of_path(type_name::<T>())
}

fn of_path(path: &str) -> String {
    let mut parts: Vec<&str> = path.split("::").skip(2).collect();
    let name = parts.pop().unwrap_or(path);
    // The module of the file, which repeats the name of the type.
    parts.pop();
    let package = parts.join(".").replace("apiextensions_apiserver", "apiextensions-apiserver");
    format!("io.k8s.{}.{name}", package.replace("kube_aggregator", "kube-aggregator"))
}
