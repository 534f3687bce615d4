//! What the schemas of types do not tell: how lists and maps merge, under apply and under strategic merge patches.
//!
//! The markers of the published API stand in a table, a line per type: its full name, then one word per fact.
//! `@atomic` says that the type is owned as a whole; `field=map:a,b` that a list's elements are told apart by these
//! keys, `field=set` that they are scalars each of which stands once, `field=atomic` that a field is owned as a whole;
//! `field~strategy:key` is the patch tag; `field!` stands even in an empty object; `field?value` is the default of a
//! field that is the key of a list.

use std::collections::HashMap;
use std::sync::LazyLock;

const TABLE: &str = include_str!("merging.txt");

/// How the elements of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Not at all: the list is one value. Also of maps and structs.
    Atomic,
    /// By the values of these fields.
    Map(Vec<&'static str>),
    /// By themselves.
    Set,
}

/// What OpenAPI says of a field for those who make strategic merge patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// `x-kubernetes-patch-strategy`.
    pub strategy: &'static str,
    /// `x-kubernetes-patch-merge-key`; none for lists of scalars and for maps.
    pub merge_key: Option<&'static str>,
}

/// What is known of a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldFacts {
    /// `x-kubernetes-list-type`, or `x-kubernetes-map-type: atomic`.
    pub list: Option<ListType>,
    /// The patch tag.
    pub patch: Option<Tag>,
    /// Whether the field stands even in an empty object.
    pub present: bool,
    /// The default of a key.
    pub default: Option<&'static str>,
}

/// What is known of a type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeFacts {
    /// Whether values of the type are owned as a whole.
    pub atomic: bool,
    fields: HashMap<&'static str, FieldFacts>,
}

impl TypeFacts {
    /// What is known of a field, if anything is.
    pub fn field(&self, name: &str) -> Option<&FieldFacts> {
        self.fields.get(name)
    }
}

/// What is known of a type by its full name, such as `io.k8s.api.core.v1.PodSpec`.
pub fn facts(type_name: &str) -> Option<&'static TypeFacts> {
    static FACTS: LazyLock<HashMap<&str, TypeFacts>> = LazyLock::new(|| TABLE.lines().map(line).collect());
    FACTS.get(type_name)
}

/// The patch tag of a field of a type.
pub fn tag(type_name: &str, field: &str) -> Option<Tag> {
    facts(type_name)?.field(field)?.patch
}

fn line(line: &'static str) -> (&'static str, TypeFacts) {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    let mut facts = TypeFacts::default();
    for word in words {
        let Some(at) = word.find(['=', '~', '!', '?']) else {
            facts.atomic |= word == "@atomic";
            continue;
        };
        let (field, value) = (&word[..at], &word[at + 1..]);
        let entry = facts.fields.entry(field).or_default();
        match word.as_bytes()[at] {
            b'=' => entry.list = Some(list_type(value)),
            b'~' => entry.patch = Some(patch_tag(value)),
            b'!' => entry.present = true,
            _ => entry.default = Some(value),
        }
    }
    (name, facts)
}

fn list_type(text: &'static str) -> ListType {
    match text.strip_prefix("map:") {
        Some(keys) => ListType::Map(keys.split(',').collect()),
        None if text == "set" => ListType::Set,
        None => ListType::Atomic,
    }
}

fn patch_tag(text: &'static str) -> Tag {
    match text.split_once(':') {
        Some((strategy, key)) => Tag { strategy, merge_key: Some(key) },
        None => Tag { strategy: text, merge_key: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::KINDS;
    use crate::schema::Definitions;

    #[test]
    fn every_fact_is_of_a_field_that_there_is() {
        let mut definitions = Definitions::new();
        for kind in KINDS {
            crate::schema::add(&mut definitions, &(kind.type_name)());
        }
        for (name, fields) in &definitions {
            let Some(facts) = facts(name) else { continue };
            for (field, facts) in &facts.fields {
                assert!(fields.contains_key(field), "{name} has no field {field}");
                assert_ne!(*facts, FieldFacts::default(), "{name}.{field}");
            }
        }
    }

    #[test]
    fn facts_are_read_from_their_lines() {
        let spec = facts("io.k8s.api.core.v1.PodSpec").unwrap();
        let volumes = spec.field("volumes").unwrap();
        assert_eq!(volumes.list, Some(ListType::Map(vec!["name"])));
        assert_eq!(volumes.patch, Some(Tag { strategy: "merge,retainKeys", merge_key: Some("name") }));
        assert!(spec.field("containers").unwrap().present && !volumes.present);
        assert_eq!(spec.field("nodeSelector").unwrap().list, Some(ListType::Atomic));
        assert!(facts("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector").unwrap().atomic);
        let port = facts("io.k8s.api.core.v1.ContainerPort").unwrap();
        assert_eq!(port.field("protocol").unwrap().default, Some("TCP"));
        let tag = tag("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers").unwrap();
        assert_eq!((tag.strategy, tag.merge_key), ("merge", None));
    }
}
