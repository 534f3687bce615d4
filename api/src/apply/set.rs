//! Sets of fields, as `fieldsV1` writes them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of paths. A path's elements are written as `fieldsV1` does: `f:name`, `k:{"name":"web"}`, `v:"x"`, `i:0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(BTreeMap<Box<str>, Node>);

/// What a set says of a path and of those beneath it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Whether the path itself is in the set.
    pub(super) member: bool,
    /// The paths beneath it.
    pub(super) beneath: FieldSet,
}

/// How deep a set may nest that a client sends.
const MAX_DEPTH: usize = 128;

impl Node {
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.beneath.is_empty()
    }

    /// The path itself alone.
    pub(super) fn leaf() -> Self {
        Self { member: true, beneath: FieldSet::default() }
    }
}

impl FieldSet {
    /// Whether there is no path in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, element: &str) -> Option<&Node> {
        self.0.get(element)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(element, node)| (&**element, node))
    }

    /// Adds what is known of one element; an empty node adds nothing.
    pub(super) fn put(&mut self, element: impl Into<Box<str>>, node: Node) {
        if !node.is_empty() {
            self.0.insert(element.into(), node);
        }
    }

    /// Adds a path.
    pub fn insert(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.0.entry((*first).into()).or_default();
        if rest.is_empty() {
            node.member = true;
        } else {
            node.beneath.insert(rest);
        }
    }

    /// Takes a path and all beneath it away.
    pub fn strip(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        if rest.is_empty() {
            self.0.remove(*first);
        } else if let Some(node) = self.0.get_mut(*first) {
            node.beneath.strip(rest);
            if node.is_empty() {
                self.0.remove(*first);
            }
        }
    }

    /// Takes one path away, and leaves those beneath it.
    pub fn strip_only(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        if let Some(node) = self.0.get_mut(*first) {
            if rest.is_empty() {
                node.member = false;
            } else {
                node.beneath.strip_only(rest);
            }
            if node.is_empty() {
                self.0.remove(*first);
            }
        }
    }

    /// Adds everything of another set.
    pub fn unite(&mut self, other: &Self) {
        for (element, node) in &other.0 {
            let own = self.0.entry(element.clone()).or_default();
            own.member |= node.member;
            own.beneath.unite(&node.beneath);
        }
    }

    /// What is in either.
    pub fn union(mut self, other: &Self) -> Self {
        self.unite(other);
        self
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (element, node) in &self.0 {
            if let Some(theirs) = other.0.get(element) {
                let member = node.member && theirs.member;
                let beneath = node.beneath.intersection(&theirs.beneath);
                both.put(element.clone(), Node { member, beneath });
            }
        }
        both
    }

    /// What is in this one alone.
    pub fn difference(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        for (element, node) in &self.0 {
            let Some(theirs) = other.0.get(element) else {
                rest.0.insert(element.clone(), node.clone());
                continue;
            };
            let member = node.member && !theirs.member;
            rest.put(element.clone(), Node { member, beneath: node.beneath.difference(&theirs.beneath) });
        }
        rest
    }

    /// Whether a path is in it.
    pub fn contains(&self, path: &[&str]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        match self.0.get(*first) {
            Some(node) if rest.is_empty() => node.member,
            Some(node) => node.beneath.contains(rest),
            None => false,
        }
    }

    /// Every path, in order.
    pub fn paths(&self) -> Vec<Vec<&str>> {
        fn walk<'a>(set: &'a FieldSet, path: &mut Vec<&'a str>, paths: &mut Vec<Vec<&'a str>>) {
            for (element, node) in set.iter() {
                path.push(element);
                if node.member {
                    paths.push(path.clone());
                }
                walk(&node.beneath, path, paths);
                path.pop();
            }
        }
        let mut paths = Vec::new();
        walk(self, &mut Vec::new(), &mut paths);
        paths
    }

    /// `fieldsV1`.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (element, node) in &self.0 {
            let mut value = node.beneath.to_value();
            if node.member
                && !node.beneath.is_empty()
                && let Some(map) = value.as_object_mut()
            {
                map.insert(".".into(), Value::Object(Map::new()));
            }
            map.insert(element.to_string(), value);
        }
        Value::Object(map)
    }

    /// Reads `fieldsV1`; nothing for what is none.
    pub fn from_value(value: &Value) -> Option<Self> {
        Self::read(value, 0)
    }

    fn read(value: &Value, depth: usize) -> Option<Self> {
        let map = value.as_object().filter(|_| depth < MAX_DEPTH)?;
        let mut set = Self::default();
        for (element, value) in map {
            if element == "." {
                continue;
            }
            let inner = value.as_object()?;
            let member = inner.is_empty() || inner.contains_key(".");
            let beneath = Self::read(value, depth + 1)?;
            set.0.insert(canonical(element)?, Node { member, beneath });
        }
        Some(set)
    }
}

/// An element as we write it ourselves.
fn canonical(element: &str) -> Option<Box<str>> {
    let (sort, rest) = element.split_once(':')?;
    match sort {
        "f" => Some(element.into()),
        "i" => rest.parse::<i64>().ok().map(|_| element.into()),
        "k" | "v" => {
            let value: Value = serde_json::from_str(rest).ok()?;
            (sort == "v" || value.is_object()).then(|| format!("{sort}:{value}").into())
        }
        _ => None,
    }
}
