//! Asks the decoders of the typed objects what they are made of, and keeps the table of types true.
//!
//! Each decoder asks for a struct with named fields, and for a type per field. A decoder of nothing writes these
//! questions down.

use std::any::type_name;
use std::fmt::Write;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

use super::{Definitions, Fields, PLAIN, Shape, TABLE, fields, full_name};
use crate::kinds::KINDS;

/// Adds a type and all that it is made of, with the `apiVersion` and `kind` that its decoder compares, if it does.
pub fn record<T: DeserializeOwned>(
    definitions: &mut Definitions,
    root: Option<(&'static str, &'static str)>,
) {
    let mut shape = Shape::Any;
    // The decoders accept what they are offered; one that would not leaves its definition empty.
    let _ = T::deserialize(Recorder { definitions, shape: &mut shape, root });
}

struct Recorder<'a> {
    definitions: &'a mut Definitions,
    shape: &'a mut Shape,
    /// `apiVersion` and `kind`, which the decoder of a kind compares.
    root: Option<(&'static str, &'static str)>,
}

/// The name at the end of a path.
fn last(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or_default()
}

/// Shapes of the types that ask for anything and are told apart by their names.
fn special(path: &str) -> Option<Shape> {
    path.starts_with("k8s_openapi::").then_some(())?;
    match last(path) {
        "IntOrString" => Some(Shape::IntOrString),
        "Quantity" => Some(Shape::Quantity),
        "Time" => Some(Shape::Time),
        "MicroTime" => Some(Shape::MicroTime),
        "ByteString" => Some(Shape::Bytes),
        _ => None,
    }
}

impl<'de> Deserializer<'de> for Recorder<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.shape = special(type_name::<V::Value>()).unwrap_or_default();
        match last(type_name::<V::Value>()) {
            // A schema or something else; upstream describes neither, and what is offered here the type takes.
            "JSONSchemaPropsOrBool" => visitor.visit_bool(false),
            "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray" => {
                let mut element = Shape::Any;
                visitor.visit_seq(Once { definitions: self.definitions, shape: &mut element, done: false })
            }
            _ => visitor.visit_i64(0),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.shape = Shape::Boolean;
        visitor.visit_bool(false)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.shape = Shape::Int32;
        visitor.visit_i32(0)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.shape = Shape::Int64;
        visitor.visit_i64(0)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.shape = Shape::Number;
        visitor.visit_f64(0.0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let time = type_name::<V::Value>().contains("Timestamp");
        let bytes = special(type_name::<V::Value>()) == Some(Shape::Bytes);
        *self.shape = match (time, bytes) {
            (true, _) => Shape::Time,
            (_, true) => Shape::Bytes,
            _ => Shape::String,
        };
        visitor.visit_str(if time { "1970-01-01T00:00:00Z" } else { "" })
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Recorder { definitions, shape, .. } = self;
        let result = visitor.visit_newtype_struct(Recorder { definitions, shape: &mut *shape, root: None });
        match name {
            "Time" => *shape = Shape::Time,
            "MicroTime" => *shape = Shape::MicroTime,
            "Quantity" => *shape = Shape::Quantity,
            "ByteString" => *shape = Shape::Bytes,
            _ => {}
        }
        result
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut element = Shape::Any;
        let access = Once { definitions: self.definitions, shape: &mut element, done: false };
        let result = visitor.visit_seq(access);
        *self.shape = Shape::List(Box::new(element));
        result
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut element = Shape::Any;
        let access = Once { definitions: self.definitions, shape: &mut element, done: false };
        let result = visitor.visit_map(access);
        *self.shape = Shape::Map(Box::new(element));
        result
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let name = full_name::<V::Value>();
        *self.shape = Shape::Reference(name.clone());
        let fields = match self.definitions.get(&name) {
            // Points in time alone have no default, and are asked for again wherever their type stands.
            Some(known) => fields
                .iter()
                .copied()
                .filter(|f| matches!(known.get(f), Some(Shape::Time | Shape::MicroTime)))
                .collect(),
            None => {
                self.definitions.insert(name.clone(), Fields::new());
                fields.to_vec()
            }
        };
        visitor.visit_map(FieldsOf {
            definitions: self.definitions,
            owner: &name,
            fields: fields.into_iter(),
            current: "",
            root: self.root,
        })
    }

    forward_to_deserialize_any! {
        i8 i16 u8 u16 u32 u64 f32 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
        ignored_any
    }
}

/// The fields of one struct.
struct FieldsOf<'a> {
    definitions: &'a mut Definitions,
    owner: &'a str,
    fields: std::vec::IntoIter<&'static str>,
    current: &'static str,
    root: Option<(&'static str, &'static str)>,
}

impl<'de> MapAccess<'de> for FieldsOf<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some(field) = self.fields.next() else { return Ok(None) };
        self.current = field;
        let key: StrDeserializer<'_, Error> = field.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let fixed = match (self.root, self.current) {
            (Some((api_version, _)), "apiVersion") => Some(api_version),
            (Some((_, kind)), "kind") => Some(kind),
            _ => None,
        };
        let mut shape = Shape::String;
        let result = match fixed {
            Some(text) => {
                let value: StrDeserializer<'_, Error> = text.into_deserializer();
                seed.deserialize(value)
            }
            None => {
                seed.deserialize(Recorder { definitions: self.definitions, shape: &mut shape, root: None })
            }
        };
        if let Some(definition) = self.definitions.get_mut(self.owner) {
            definition.insert(self.current, shape);
        }
        result
    }
}

/// One element of a list, or one entry of a map.
struct Once<'a> {
    definitions: &'a mut Definitions,
    shape: &'a mut Shape,
    done: bool,
}

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let recorder = Recorder { definitions: self.definitions, shape: self.shape, root: None };
        seed.deserialize(recorder).map(Some)
    }
}

impl<'de> MapAccess<'de> for Once<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let key: StrDeserializer<'_, Error> = "key".into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(Recorder { definitions: self.definitions, shape: self.shape, root: None })
    }
}

fn word(shape: &Shape) -> String {
    match shape {
        Shape::List(of) => format!("[{}]", word(of)),
        Shape::Map(of) => format!("{{{}}}", word(of)),
        Shape::Reference(name) => name.clone(),
        plain => PLAIN.iter().find(|(_, known)| known == plain).expect("a plain shape").0.to_owned(),
    }
}

fn line(name: &str, fields: &Fields) -> String {
    fields.iter().fold(name.to_owned(), |mut line, (field, shape)| {
        write!(line, " {field}:{}", word(shape)).expect("a string takes any text");
        line
    })
}

fn all() -> Definitions {
    let mut definitions = Definitions::new();
    for kind in KINDS {
        (kind.record)(&mut definitions);
    }
    record::<Scale>(&mut definitions, Some(("autoscaling/v1", "Scale")));
    record::<TokenRequest>(&mut definitions, Some(("authentication.k8s.io/v1", "TokenRequest")));
    record::<Eviction>(&mut definitions, Some(("policy/v1", "Eviction")));
    record::<DeleteOptions>(&mut definitions, None);
    definitions
}

/// `UPDATE_TYPES=1` writes the table anew, after a kind or a version of the API has come in.
#[test]
fn the_table_has_what_the_decoders_ask_for() {
    let definitions = all();
    let lines: Vec<String> = definitions.iter().map(|(name, fields)| line(name, fields)).collect();
    let text = lines.join("\n") + "\n";
    if std::env::var_os("UPDATE_TYPES").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/schema/types.txt"), &text).unwrap();
        return;
    }
    assert!(text == TABLE, "the table of types is old: run this test with UPDATE_TYPES=1");
    for (name, known) in &definitions {
        assert_eq!(fields(name), known, "{name}");
    }
}

#[test]
fn every_type_of_every_kind_is_described() {
    let definitions = all();
    let empty: Vec<_> = definitions.iter().filter(|(_, fields)| fields.is_empty()).collect();
    // Types without fields, and those whose recursion ends at themselves.
    assert!(empty.is_empty(), "{empty:?}");
    for (name, fields) in &definitions {
        for shape in fields.values() {
            let mut shape = shape;
            while let Shape::List(inner) | Shape::Map(inner) = shape {
                shape = inner;
            }
            if let Shape::Reference(target) = shape {
                assert!(definitions.contains_key(target), "{name} refers to {target}");
            }
        }
    }
}

#[test]
fn fields_have_their_shapes() {
    let definitions = all();
    #[track_caller]
    fn check(definitions: &Definitions, name: &str, field: &str, shape: Shape) {
        assert_eq!(definitions[name].get(field), Some(&shape), "{name}.{field}");
    }
    let reference = |name: &str| Shape::Reference(name.into());
    let list = |shape| Shape::List(Box::new(shape));
    let map = |shape| Shape::Map(Box::new(shape));
    let d = &definitions;
    check(d, "io.k8s.api.apps.v1.Deployment", "spec", reference("io.k8s.api.apps.v1.DeploymentSpec"));
    check(d, "io.k8s.api.apps.v1.Deployment", "kind", Shape::String);
    check(d, "io.k8s.api.apps.v1.DeploymentSpec", "replicas", Shape::Int32);
    check(d, "io.k8s.api.core.v1.PodSpec", "containers", list(reference("io.k8s.api.core.v1.Container")));
    check(d, "io.k8s.api.core.v1.PodSpec", "hostNetwork", Shape::Boolean);
    check(d, "io.k8s.api.core.v1.PodSpec", "terminationGracePeriodSeconds", Shape::Int64);
    check(d, "io.k8s.api.core.v1.PodSpec", "nodeSelector", map(Shape::String));
    check(d, "io.k8s.api.core.v1.ResourceRequirements", "limits", map(Shape::Quantity));
    check(d, "io.k8s.api.core.v1.HTTPGetAction", "port", Shape::IntOrString);
    check(d, "io.k8s.api.core.v1.Secret", "data", map(Shape::Bytes));
    check(d, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "creationTimestamp", Shape::Time);
    check(d, "io.k8s.api.coordination.v1.LeaseSpec", "renewTime", Shape::MicroTime);
    check(d, "io.k8s.api.apps.v1.ControllerRevision", "data", Shape::Any);
    check(d, "io.k8s.api.events.v1.Event", "regarding", reference("io.k8s.api.core.v1.ObjectReference"));
}

/// The typed decoders are the second opinion on what documents are.
mod second_opinion {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::schema::conform::conform;

    /// A value of a shape, from a sequence of choices; sometimes one of another type.
    fn value(shape: &Shape, depth: usize, choose: &mut impl FnMut(usize) -> usize) -> Value {
        if choose(60) == 0 {
            return [json!(true), json!("text"), json!(3), json!(1.5), json!([1]), json!({"a": "b"})]
                [choose(6)]
            .clone();
        }
        match shape {
            Shape::Any => json!({"any": [1, "x"]}),
            Shape::Boolean => json!(choose(2) == 0),
            Shape::Int32 => json!([0, -1, 2_147_483_647_i64, 2_147_483_648_i64][choose(4)]),
            Shape::Int64 => json!([0, -1, i64::MAX][choose(3)]),
            Shape::Number => json!(2.5),
            Shape::String => json!(["", "a", "a b"][choose(3)]),
            Shape::Time | Shape::MicroTime => {
                json!(["2020-01-02T03:04:05Z", "2020-01-02T03:04:05.678+02:00", "yesterday"][choose(3)])
            }
            Shape::Bytes => json!(["", "YQ==", "YQ", "%"][choose(4)]),
            Shape::IntOrString => {
                [json!(80), json!("http"), json!("10%"), json!(3_000_000_000_u64)][choose(4)].clone()
            }
            Shape::Quantity => [json!("1Gi"), json!("100m"), json!(2)][choose(3)].clone(),
            Shape::List(of) => (0..choose(3)).map(|_| value(of, depth + 1, choose)).collect(),
            Shape::Map(of) => {
                let entries = (0..choose(3)).map(|i| (format!("key{i}"), value(of, depth + 1, choose)));
                Value::Object(entries.collect())
            }
            Shape::Reference(name) => document(name, depth + 1, choose),
        }
    }

    fn document(name: &str, depth: usize, choose: &mut impl FnMut(usize) -> usize) -> Value {
        let mut map = Map::new();
        for (field, shape) in fields(name) {
            let within = depth > 0 && is_own(field) && fields(name).contains_key("metadata");
            if !within && choose(3 + depth * 2) == 0 {
                map.insert(
                    (*field).to_owned(),
                    if choose(9) == 0 { Value::Null } else { value(shape, depth, choose) },
                );
            }
        }
        if choose(4) == 0 {
            map.insert("unheardOf".into(), json!({"a": 1}));
        }
        Value::Object(map)
    }

    /// Whether two documents say the same: what the typed decoders add because Rust's types have no way to leave it
    /// out is empty.
    fn agree(ours: &Value, typed: &Value) -> bool {
        match (ours, typed) {
            (Value::Object(ours), Value::Object(typed)) => {
                ours.iter().all(|(k, v)| typed.get(k).is_some_and(|t| agree(v, t)))
                    && typed.iter().all(|(k, v)| ours.contains_key(k) || empty(v) || is_own(k))
            }
            (Value::Array(ours), Value::Array(typed)) => {
                ours.len() == typed.len() && ours.iter().zip(typed).all(|(o, t)| agree(o, t))
            }
            (Value::Number(ours), Value::Number(typed)) => ours.as_f64() == typed.as_f64(),
            _ => ours == typed,
        }
    }

    /// What an object within an object says of its type; a typed decoder takes nothing else there.
    fn is_own(field: &str) -> bool {
        matches!(field, "apiVersion" | "kind")
    }

    fn empty(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Bool(flag) => !flag,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.values().all(empty),
        }
    }

    proptest! {
        #[test]
        fn documents_conform_where_they_decode(row in 0..KINDS.len(), choices in prop::collection::vec(any::<u16>(), 600)) {
            let kind = &KINDS[row];
            let name = (kind.type_name)();
            let mut choices = choices.into_iter().cycle();
            let mut choose = |of: usize| usize::from(choices.next().unwrap()) % of;
            let mut document = document(&name, 0, &mut choose);
            document["apiVersion"] = kind.api_version.into();
            document["kind"] = kind.kind.into();
            let ours = conform(&name, (kind.api_version, kind.kind), document.clone());
            match ((kind.round)(document.clone()), ours) {
                (Ok(typed), Ok(ours)) => prop_assert!(agree(&ours, &typed), "{document}\n{ours}\n{typed}"),
                (Err(_), Err(_)) => {}
                // Some points in time have no way to be left out in Rust; in the API every field has one.
                (Err(typed), Ok(_)) if typed.message.starts_with("missing field") => {}
                (typed, ours) => prop_assert!(false, "{document}\nours: {ours:?}\ntyped: {typed:?}"),
            }
        }
    }
}
