//! The schemas of types, as OpenAPI writes them.
//!
//! The build collects them, with their descriptions, into one compressed file that is part of the program; it is read
//! when a document is made. What the types do not tell (how lists merge) comes from the table of merge rules.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use api::Kind;
use api::schema::merging::{FieldFacts, ListType, facts};
use flate2::read::ZlibDecoder;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::custom;
use super::operations::Dialect;
use crate::custom::rules;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/schemas.json.z"));
/// What references between the collected schemas begin with.
pub const COLLECTED: &str = "#/$defs/";
/// What is part of every document beside the kinds' own types, since every kind's answers may be of these.
const COMMON: &[(&str, &str)] = &[
    ("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", "DeleteOptions"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Status", "Status"),
];

/// The collected schemas, as they were packed.
pub fn packed() -> &'static [u8] {
    PACKED
}

impl Dialect {
    /// What references begin with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        }
    }
}

/// The definitions that kinds are made of.
pub fn of<'a>(kinds: impl Iterator<Item = &'a Kind>, dialect: Dialect) -> Map<String, Value> {
    let mut text = Vec::new();
    ZlibDecoder::new(PACKED).read_to_end(&mut text).expect("the build packed it");
    let all: BTreeMap<&str, &RawValue> = serde_json::from_slice(&text).expect("the build wrote it as JSON");
    let collected = |name: &str| all.get(name).and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
    let mut kinds_of: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let (mut defined, mut model) = (BTreeMap::new(), None);
    for kind in kinds {
        let own = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        let Some(rules) = rules::of(kind) else {
            kinds_of.entry((kind.type_name)()).or_default().push(own);
            continue;
        };
        let model = model.get_or_insert_with(|| collected(custom::MODEL).unwrap_or_default());
        let list = json!({"group": kind.group, "version": kind.version, "kind": kind.list_kind});
        for ((name, schema), kind) in
            custom::definitions(kind, rules, model, dialect).into_iter().zip([own, list])
        {
            kinds_of.entry(name.clone()).or_default().push(kind);
            defined.insert(name, schema);
        }
    }
    for (name, kind) in COMMON {
        let own = json!({"group": "", "version": "v1", "kind": kind});
        kinds_of.entry((*name).to_owned()).or_default().push(own);
    }
    let mut schemas = Map::new();
    let mut open: Vec<String> = kinds_of.keys().cloned().collect();
    while let Some(name) = open.pop() {
        if schemas.contains_key(&name) {
            continue;
        }
        let mut references = BTreeSet::new();
        let mut schema = match defined.remove(&name) {
            Some(schema) => schema,
            None => {
                let collected = collected(&name).unwrap_or_else(|| json!({"type": "object"}));
                definition(&name, collected, dialect)
            }
        };
        adapt(&mut schema, dialect, &mut references);
        if let Some(kinds) = kinds_of.get(&name) {
            schema["x-kubernetes-group-version-kind"] = kinds.clone().into();
        }
        schemas.insert(name, schema);
        open.extend(references);
    }
    schemas
}

/// A type's schema with what the table says of its fields.
fn definition(name: &str, mut schema: Value, dialect: Dialect) -> Value {
    if let Some(special) = special(name, &schema, dialect) {
        return special;
    }
    let (own, nothing) = (facts(name), FieldFacts::default());
    if own.is_some_and(|f| f.atomic) {
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (field, property) in properties.into_iter().flatten() {
        extend(property, own.and_then(|f| f.field(field)).unwrap_or(&nothing));
    }
    schema
}

/// The types that are two things at once, each dialect in its own words.
fn special(name: &str, schema: &Value, dialect: Dialect) -> Option<Value> {
    let description = schema.get("description").cloned().unwrap_or_default();
    match (name, dialect) {
        ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", Dialect::V2) => {
            Some(json!({"description": description, "type": "string", "format": "int-or-string"}))
        }
        ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", Dialect::V3) => Some(json!({
            "description": description, "format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]
        })),
        ("io.k8s.apimachinery.pkg.api.resource.Quantity", Dialect::V2) => {
            Some(json!({"description": description, "type": "string"}))
        }
        ("io.k8s.apimachinery.pkg.api.resource.Quantity", Dialect::V3) => {
            Some(json!({"description": description, "oneOf": [{"type": "string"}, {"type": "number"}]}))
        }
        _ => None,
    }
}

/// The extensions of a field.
fn extend(property: &mut Value, facts: &FieldFacts) {
    let is_list = property["type"] == "array";
    match &facts.list {
        Some(ListType::Map(keys)) => {
            property["x-kubernetes-list-type"] = "map".into();
            property["x-kubernetes-list-map-keys"] = json!(keys);
        }
        Some(ListType::Set) => property["x-kubernetes-list-type"] = "set".into(),
        Some(ListType::Atomic) => {
            let extension = if is_list { "x-kubernetes-list-type" } else { "x-kubernetes-map-type" };
            property[extension] = "atomic".into();
        }
        None if is_list => property["x-kubernetes-list-type"] = "atomic".into(),
        None => {}
    }
    if let Some(tag) = facts.patch {
        property["x-kubernetes-patch-strategy"] = tag.strategy.into();
        if let Some(key) = tag.merge_key {
            property["x-kubernetes-patch-merge-key"] = key.into();
        }
    }
    if let Some(default) = facts.default {
        property["default"] = default.into();
    }
}

/// Rewrites references into a dialect's, and tells where they lead.
fn adapt(schema: &mut Value, dialect: Dialect, references: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            map.values_mut().for_each(|value| adapt(value, dialect, references));
            let target = match map.get("$ref") {
                Some(Value::String(target)) => target.strip_prefix(COLLECTED).map(str::to_owned),
                _ => None,
            };
            let Some(target) = target else { return };
            let reference = format!("{}{target}", dialect.prefix());
            references.insert(target);
            // In the third version nothing is read beside a reference, so it moves into a list of one.
            if dialect == Dialect::V3 && map.len() > 1 {
                map.remove("$ref");
                map.insert("allOf".into(), json!([{"$ref": reference}]));
            } else {
                map.insert("$ref".into(), reference.into());
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| adapt(value, dialect, references)),
        _ => {}
    }
}
