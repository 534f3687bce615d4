//! Which fields a document has, and which differ between two of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::paths;
use super::set::{FieldSet, Node};
use super::types::{Type, TypeRef};

/// How a document differs from an earlier one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// What the earlier one lacks.
    pub added: FieldSet,
    /// What both have, with other values.
    pub modified: FieldSet,
    /// What the earlier one alone has.
    pub removed: FieldSet,
}

impl Comparison {
    /// Whether there is no difference.
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

/// The three sorts of difference beneath one path, and of itself.
#[derive(Default)]
struct Difference {
    added: Node,
    modified: Node,
    removed: Node,
}

impl Difference {
    /// A value that is compared as a whole.
    fn leaf(before: Option<&Value>, after: Option<&Value>) -> Self {
        let mut difference = Self::default();
        match (before, after) {
            (None, Some(_)) => difference.added.member = true,
            (Some(_), None) => difference.removed.member = true,
            (before, after) => difference.modified.member = before != after,
        }
        difference
    }

    /// Takes up the differences beneath an element.
    fn take(&mut self, element: impl FnOnce() -> String, beneath: Self) {
        if beneath.added.is_empty() && beneath.modified.is_empty() && beneath.removed.is_empty() {
            return;
        }
        let element: Box<str> = element().into();
        self.added.beneath.put(element.clone(), beneath.added);
        self.modified.beneath.put(element.clone(), beneath.modified);
        self.removed.beneath.put(element, beneath.removed);
    }
}

/// Compares two documents of a type.
pub fn compare(of: TypeRef<'_>, before: &Value, after: &Value) -> Comparison {
    let difference = walk(of, Some(before), Some(after));
    Comparison {
        added: difference.added.beneath,
        modified: difference.modified.beneath,
        removed: difference.removed.beneath,
    }
}

fn walk(of: TypeRef<'_>, before: Option<&Value>, after: Option<&Value>) -> Difference {
    if before == after {
        return Difference::default();
    }
    let mut difference = match (maps(of, before, after), lists(of, before, after)) {
        (Some((before, after)), _) => fields(of, before, after),
        (_, Some((before, after))) => items(of, before, after),
        (None, None) => return Difference::leaf(before, after),
    };
    // A map or list that came or went is itself a difference, beside what it holds.
    difference.added.member |= before.is_none();
    difference.removed.member |= after.is_none();
    difference
}

/// Both sides as maps, where the type has fields and they are not both empty.
fn maps<'a>(
    of: TypeRef<'_>,
    before: Option<&'a Value>,
    after: Option<&'a Value>,
) -> Option<(Option<&'a Map<String, Value>>, Option<&'a Map<String, Value>>)> {
    if !matches!(of.get(), Type::Untyped | Type::Struct { .. } | Type::Map(_)) {
        return None;
    }
    let side = |value: Option<&'a Value>| match value {
        None | Some(Value::Null) => Some(None),
        Some(Value::Object(map)) => Some(Some(map)),
        Some(_) => None,
    };
    let (before, after) = (side(before)?, side(after)?);
    let empty = before.is_none_or(Map::is_empty) && after.is_none_or(Map::is_empty);
    (!empty).then_some((before, after))
}

/// Both sides as lists, where the type tells elements apart and they are not both empty.
fn lists<'a>(
    of: TypeRef<'_>,
    before: Option<&'a Value>,
    after: Option<&'a Value>,
) -> Option<(&'a [Value], &'a [Value])> {
    if !matches!(of.get(), Type::Set | Type::Keyed { .. }) {
        return None;
    }
    let side = |value: Option<&'a Value>| match value {
        None | Some(Value::Null) => Some(&[][..]),
        Some(Value::Array(list)) => Some(list.as_slice()),
        Some(_) => None,
    };
    let (before, after) = (side(before)?, side(after)?);
    (!before.is_empty() || !after.is_empty()).then_some((before, after))
}

fn fields(
    of: TypeRef<'_>,
    before: Option<&Map<String, Value>>,
    after: Option<&Map<String, Value>>,
) -> Difference {
    let mut difference = Difference::default();
    for (name, after) in after.into_iter().flatten() {
        let before = before.and_then(|b| b.get(name));
        difference.take(|| paths::field(name), walk(of.field(name), before, Some(after)));
    }
    for (name, before) in before.into_iter().flatten() {
        if !after.is_some_and(|a| a.contains_key(name)) {
            difference.take(|| paths::field(name), walk(of.field(name), Some(before), None));
        }
    }
    difference
}

fn items(of: TypeRef<'_>, before: &[Value], after: &[Value]) -> Difference {
    let mut difference = Difference::default();
    let (before, after) = (indexed(of, before), indexed(of, after));
    let elements = before.keys().chain(after.keys().filter(|e| !before.contains_key(*e)));
    for element in elements {
        let (before, after) = (before.get(element), after.get(element));
        let single = |items: Option<&Vec<&Value>>| items.is_none_or(|i| i.len() == 1);
        let found = if single(before) && single(after) {
            walk(of.element(), before.map(|b| b[0]), after.map(|a| a[0]))
        } else {
            // Elements that cannot be told apart are one value.
            let whole = |items: Option<&Vec<&Value>>| {
                items.map(|items| Value::Array(items.iter().map(|v| (*v).clone()).collect()))
            };
            Difference::leaf(whole(before).as_ref(), whole(after).as_ref())
        };
        difference.take(|| element.clone(), found);
    }
    difference
}

/// The elements of a list by what tells them apart; by their place where that is missing.
pub(super) fn indexed<'a>(of: TypeRef<'_>, list: &'a [Value]) -> BTreeMap<String, Vec<&'a Value>> {
    let mut elements: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for (place, value) in list.iter().enumerate() {
        elements.entry(element(of, place, value)).or_default().push(value);
    }
    elements
}

/// The path element of an element of a list.
pub(super) fn element(of: TypeRef<'_>, place: usize, value: &Value) -> String {
    paths::item(of, value).unwrap_or_else(|_| format!("i:{place}"))
}

/// Every field of a document, as far as the type tells them apart.
pub fn field_set(of: TypeRef<'_>, document: &Value) -> FieldSet {
    all(of, document).beneath
}

fn all(of: TypeRef<'_>, value: &Value) -> Node {
    let mut node = Node::default();
    match (of.get(), value) {
        (Type::Untyped | Type::Struct { .. } | Type::Map(_), Value::Object(map)) => {
            for (name, value) in map {
                let mut beneath = all(of.field(name), value);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                beneath.member |= empty || !of.names(name);
                node.beneath.put(paths::field(name), beneath);
            }
        }
        (Type::Set | Type::Keyed { .. }, Value::Array(list)) => {
            for (element, values) in indexed(of, list) {
                let mut beneath = if let [one] = values[..] { all(of.element(), one) } else { Node::leaf() };
                beneath.member = true;
                node.beneath.put(element, beneath);
            }
        }
        (Type::Struct { .. } | Type::Map(_) | Type::Set | Type::Keyed { .. }, Value::Null) => {}
        _ => node.member = true,
    }
    node
}

/// The set with every field that the types name and that has members beneath it.
pub(super) fn with_named_fields(of: TypeRef<'_>, set: &FieldSet) -> FieldSet {
    let mut named = FieldSet::default();
    for (element, node) in set.iter() {
        let (member, beneath) = match paths::field_name(element) {
            Some(name) => (of.names(name), of.field(name)),
            None => (false, of.element()),
        };
        let member = node.member || (member && !node.beneath.is_empty());
        named.put(element, Node { member, beneath: with_named_fields(beneath, &node.beneath) });
    }
    named
}
