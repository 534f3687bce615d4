//! One version of an object in memory: its JSON, once, and where in it the parts stand that selectors ask for.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use api::Kind;
use bytes::Bytes;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::encoding;
use crate::registry::strategies::strategy;

/// A field that field selectors know, beside `metadata.name` and `metadata.namespace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDefinition {
    /// The name, such as `spec.nodeName`.
    pub name: Cow<'static, str>,
    /// What it is when the object does not say.
    pub default: String,
    /// Where it stands in the JSON; the first that is there and not empty counts.
    pub paths: Vec<Cow<'static, str>>,
}

/// Which parts of the objects of a kind are kept at hand.
#[derive(Debug)]
pub struct Layout {
    fields: Vec<FieldPlan>,
    root: Branch,
    slots: usize,
}

#[derive(Debug)]
struct FieldPlan {
    name: Cow<'static, str>,
    default: String,
    slots: Vec<usize>,
}

/// A member of the JSON on the way to something wanted.
#[derive(Debug, Default)]
struct Branch {
    children: Vec<(Box<str>, Branch)>,
    wanted: Option<Wanted>,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    Uid,
    Labels,
    Slot(usize),
}

impl Layout {
    /// What is kept of a kind of the table.
    pub fn of(kind: &Kind) -> Arc<Self> {
        Self::new(strategy(kind).field_definitions())
    }

    /// What is kept of objects with these selectable fields.
    pub fn new(definitions: Vec<FieldDefinition>) -> Arc<Self> {
        let mut layout = Self { fields: Vec::new(), root: Branch::default(), slots: 0 };
        *layout.root.at("metadata.uid") = Some(Wanted::Uid);
        *layout.root.at("metadata.labels") = Some(Wanted::Labels);
        for definition in definitions {
            let slots = definition.paths.iter().map(|path| layout.slot(path)).collect();
            layout.fields.push(FieldPlan { name: definition.name, default: definition.default, slots });
        }
        Arc::new(layout)
    }

    fn slot(&mut self, path: &str) -> usize {
        let wanted = self.root.at(path);
        if let Some(Wanted::Slot(slot)) = wanted {
            return *slot;
        }
        *wanted = Some(Wanted::Slot(self.slots));
        self.slots += 1;
        self.slots - 1
    }

    /// The position of a field among those of the kind.
    pub fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|f| f.name == name)
    }
}

impl Branch {
    fn at(&mut self, path: &str) -> &mut Option<Wanted> {
        let mut branch = self;
        for part in path.split('.') {
            let found = branch.children.iter().position(|(name, _)| **name == *part);
            let index = found.unwrap_or_else(|| {
                branch.children.push((part.into(), Self::default()));
                branch.children.len() - 1
            });
            branch = &mut branch.children[index].1;
        }
        &mut branch.wanted
    }
}

/// A piece of the JSON, or one of the few texts that stand there with escapes.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    len: u32,
}

/// The length that marks a text kept apart; `start` is then its index.
const APART: u32 = u32::MAX;
/// The span of what is not there.
const NOTHING: Span = Span { start: 0, len: 0 };

/// One version of an object.
pub struct Entry {
    /// `namespace/name`, or the name alone for cluster-scoped kinds.
    pub key: Box<str>,
    /// The resource version.
    pub revision: i64,
    /// The JSON that clients get, shared by everybody who gets it.
    pub json: Bytes,
    layout: Arc<Layout>,
    /// The uid, the fields, then the keys and values of the labels by turns.
    spans: Box<[Span]>,
    /// Texts that do not stand in the JSON as they are.
    apart: Box<[Box<str>]>,
}

/// The identity alone, so that no Secret reaches a log.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} @{}", self.key, self.revision)
    }
}

impl Entry {
    /// Reads a stored value. Nothing when it is no object, which only a foreign writer can cause.
    pub fn new(layout: &Arc<Layout>, key: &str, stored: &[u8], revision: i64) -> Option<Self> {
        Self::of_json(layout, key, encoding::stamp(stored, revision)?, revision)
    }

    /// An entry of JSON that bears its version already.
    pub fn of_json(layout: &Arc<Layout>, key: &str, json: Bytes, revision: i64) -> Option<Self> {
        let mut found = Found {
            json: &json,
            uid: NOTHING,
            slots: vec![NOTHING; layout.slots],
            labels: Vec::new(),
            apart: Vec::new(),
        };
        let mut parser = serde_json::Deserializer::from_slice(&json);
        Walk { branch: &layout.root, found: &mut found }.deserialize(&mut parser).ok()?;
        let mut spans = Vec::with_capacity(1 + layout.fields.len() + found.labels.len());
        spans.push(found.uid);
        for field in &layout.fields {
            let slot = field.slots.iter().map(|slot| found.slots[*slot]).find(|span| span.len > 0);
            spans.push(slot.unwrap_or(NOTHING));
        }
        spans.append(&mut found.labels);
        let apart = found.apart.into();
        Some(Self { key: key.into(), revision, layout: layout.clone(), spans: spans.into(), apart, json })
    }

    fn text(&self, span: Span) -> &str {
        if span.len == APART {
            return self.apart.get(span.start as usize).map_or("", |text| text);
        }
        let range = span.start as usize..span.start as usize + span.len as usize;
        self.json.get(range).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// The namespace, empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        api::meta::split_key(&self.key).0
    }

    /// The name.
    pub fn name(&self) -> &str {
        api::meta::split_key(&self.key).1
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.text(self.spans[0])
    }

    /// The selectable field at a position of the layout.
    pub fn field_at(&self, index: usize) -> &str {
        let span = self.spans[1 + index];
        if span.len == 0 { &self.layout.fields[index].default } else { self.text(span) }
    }

    /// A selectable field, `metadata.name` and `metadata.namespace` included.
    pub fn field(&self, name: &str) -> Option<&str> {
        match name {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            name => self.layout.field(name).map(|index| self.field_at(index)),
        }
    }

    fn label_spans(&self) -> impl Iterator<Item = (&str, &str)> {
        self.spans[1 + self.layout.fields.len()..]
            .chunks_exact(2)
            .map(|pair| (self.text(pair[0]), self.text(pair[1])))
    }

    /// A label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.label_spans().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// Every label, in the order of the JSON.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.label_spans()
    }

    /// The same object with another resource version: what a watcher is told when the object goes.
    pub fn at(&self, revision: i64) -> Option<Self> {
        Self::new(&self.layout, &self.key, &self.json, revision)
    }

    /// Bytes of memory, about.
    pub fn size(&self) -> usize {
        self.json.len() + self.key.len() + self.spans.len() * size_of::<Span>() + size_of::<Self>() + 64
    }
}

/// What a walk through the JSON has found.
struct Found<'j> {
    json: &'j [u8],
    uid: Span,
    slots: Vec<Span>,
    labels: Vec<Span>,
    apart: Vec<Box<str>>,
}

impl Found<'_> {
    fn span(&mut self, text: &str) -> Span {
        let offset = (text.as_ptr() as usize).wrapping_sub(self.json.as_ptr() as usize);
        match (u32::try_from(offset), u32::try_from(text.len())) {
            (Ok(start), Ok(len)) if offset + text.len() <= self.json.len() => Span { start, len },
            _ => self.keep(text.into()),
        }
    }

    fn keep(&mut self, text: Box<str>) -> Span {
        self.apart.push(text);
        Span { start: u32::try_from(self.apart.len() - 1).unwrap_or(APART), len: APART }
    }

    fn string(&mut self, text: Cow<'_, str>) -> Span {
        match text {
            Cow::Borrowed(text) => self.span(text),
            Cow::Owned(text) => self.keep(text.into()),
        }
    }

    /// A scalar as selectors write it: strings without their quotes, numbers and truth values as they stand.
    fn scalar(&mut self, raw: &RawValue) -> Span {
        let text = raw.get();
        match text.as_bytes().first() {
            Some(b'"') if !text.contains('\\') => self.span(&text[1..text.len() - 1]),
            Some(b'"') => serde_json::from_str(text).map_or(NOTHING, |text: Box<str>| self.keep(text)),
            Some(b't' | b'f' | b'-' | b'0'..=b'9') => self.span(text),
            _ => NOTHING,
        }
    }
}

/// Walks through JSON and skips what leads nowhere.
struct Walk<'l, 'f, 'j> {
    branch: &'l Branch,
    found: &'f mut Found<'j>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.branch.wanted {
            None => deserializer.deserialize_any(self),
            Some(Wanted::Labels) => deserializer.deserialize_any(self),
            Some(wanted) => {
                let raw = <&RawValue as serde::Deserialize>::deserialize(deserializer)?;
                let span = self.found.scalar(raw);
                match wanted {
                    Wanted::Uid => self.found.uid = span,
                    Wanted::Slot(slot) => self.found.slots[slot] = span,
                    Wanted::Labels => {}
                }
                Ok(())
            }
        }
    }
}

/// A member's name, borrowed where it stands without escapes.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if matches!(self.branch.wanted, Some(Wanted::Labels)) {
            self.found.labels.clear();
            while let Some(key) = map.next_key_seed(Text)? {
                let value = map.next_value_seed(Text)?;
                let pair = [self.found.string(key), self.found.string(value)];
                self.found.labels.extend(pair);
            }
            return Ok(());
        }
        while let Some(key) = map.next_key_seed(Text)? {
            match self.branch.children.iter().find(|(name, _)| **name == *key) {
                Some((_, branch)) => map.next_value_seed(Walk { branch, found: self.found })?,
                None => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }

    // A document of another shape has nothing to show.
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn layout() -> Arc<Layout> {
        let field = |name: &'static str, default: &str, paths: &[&'static str]| FieldDefinition {
            name: name.into(),
            default: default.into(),
            paths: paths.iter().map(|p| (*p).into()).collect(),
        };
        Layout::new(vec![
            field("spec.nodeName", "", &["spec.nodeName"]),
            field("spec.hostNetwork", "false", &["spec.hostNetwork"]),
            field("status.replicas", "0", &["status.replicas"]),
            field("source", "", &["source.component", "reporter"]),
        ])
    }

    #[track_caller]
    fn check(document: serde_json::Value, wanted: &str) {
        let entry = Entry::new(&layout(), "n/a", document.to_string().as_bytes(), 5).expect("an object");
        let fields: Vec<_> = (0..4).map(|i| entry.field_at(i)).collect();
        let labels: Vec<_> = entry.labels().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(format!("{} [{}] [{}]", entry.uid(), fields.join(" "), labels.join(",")), wanted);
    }

    #[test]
    fn what_selectors_ask_for_is_found_in_the_json() {
        check(json!({"metadata": {}}), " [ false 0 ] []");
        check(
            json!({
                "metadata": {"uid": "u", "labels": {"a": "1", "b": ""}},
                "spec": {"nodeName": "n1", "hostNetwork": true, "other": {"nodeName": "x"}},
                "status": {"replicas": 3}, "reporter": "r", "source": {"component": "c"},
            }),
            "u [n1 true 3 c] [a=1,b=]",
        );
        check(json!({"metadata": {}, "source": {"component": ""}, "reporter": "r"}), " [ false 0 r] []");
        check(json!({"metadata": {"labels": null}, "spec": [], "status": "x"}), " [ false 0 ] []");
        check(
            json!({"metadata": {"uid": "a\"b", "labels": {"k\"": "v\n"}}, "spec": {"nodeName": "\\"}}),
            "a\"b [\\ false 0 ] [k\"=v\n]",
        );
    }

    #[test]
    fn the_fields_of_every_kind_stand_where_the_rules_of_the_kind_find_them() {
        let mut compared = 0;
        for kind in api::kinds::KINDS
            .iter()
            .filter(|kind| kind.nature != api::kinds::Nature::Review)
            .filter(|kind| super::super::layout::storage_kind(kind).kind == kind.kind)
        {
            let (strategy, layout) = (strategy(kind), Layout::of(kind));
            for path in strategy.field_definitions().into_iter().flat_map(|definition| definition.paths) {
                let mut fitting = 0;
                for value in [json!("x"), json!(true), json!(7)] {
                    let document = path.rsplit('.').fold(value, |value, part| json!({part: value}));
                    let mut document = document;
                    for (field, value) in [
                        ("apiVersion", json!(kind.api_version)),
                        ("kind", json!(kind.kind)),
                        ("metadata", json!({})),
                    ] {
                        document[field] = value;
                    }
                    let Ok(document) = (kind.normalize)(document) else { continue };
                    fitting += 1;
                    let json = document.to_string();
                    let entry = Entry::new(&layout, "a", json.as_bytes(), 1).expect("an object");
                    for (name, wanted) in strategy.selectable_fields(json.as_bytes()) {
                        assert_eq!(entry.field(name), Some(wanted.as_str()), "{} {name}: {json}", kind.kind);
                        compared += 1;
                    }
                }
                assert!(fitting > 0, "{}: nothing fits {path}", kind.kind);
            }
        }
        assert!(compared > 50);
    }

    #[test]
    fn a_later_version_of_the_same_object_shows_the_same() {
        let text =
            json!({"metadata": {"uid": "u", "labels": {"a": "1"}}, "spec": {"nodeName": "n1"}}).to_string();
        let entry = Entry::new(&layout(), "n/a", text.as_bytes(), 5).expect("an object");
        let later = entry.at(70000).expect("an object");
        assert_eq!(
            (later.uid(), later.label("a"), later.field("spec.nodeName")),
            ("u", Some("1"), Some("n1"))
        );
        assert_eq!(encoding::head(&later.json).expect("JSON").resource_version, "70000");
    }
}
