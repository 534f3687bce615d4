//! Schemas of the typed objects, learnt by watching how their decoders ask for fields.
//!
//! The types of [`k8s_openapi`] carry no schema at run time, but each of their decoders asks for a struct
//! with named fields, and for a type per field. A decoder of nothing writes these questions down.

use std::any::type_name;
use std::collections::BTreeMap;

use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

use crate::kinds::Typed;

pub mod merging;

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

/// The definitions of struct types: full name, then field names and what they hold.
pub type Definitions = BTreeMap<String, BTreeMap<&'static str, Shape>>;

/// Adds a kind and all types that it is made of; gives the full name of the kind's own, such as
/// `io.k8s.api.apps.v1.Deployment`.
pub fn describe<K: Typed>(definitions: &mut Definitions) -> String {
    record::<K>(definitions, Some((K::API_VERSION, K::KIND)))
}

/// As [`describe`], for a type that is no object of its own, such as `Eviction`: with the `apiVersion` and
/// `kind` that its decoder compares, if it does.
pub fn record<T: DeserializeOwned>(
    definitions: &mut Definitions,
    root: Option<(&'static str, &'static str)>,
) -> String {
    let mut shape = Shape::Any;
    // The decoders accept what they are offered; one that would not leaves its definition empty.
    let _ = T::deserialize(Recorder { definitions, shape: &mut shape, root });
    full_name(type_name::<T>())
}

/// `k8s_openapi::v1_35::api::core::v1::pod_spec::PodSpec` is `io.k8s.api.core.v1.PodSpec`.
fn full_name(path: &str) -> String {
    let mut parts: Vec<&str> = path.split("::").skip(2).collect();
    let name = parts.pop().unwrap_or(path);
    // The module of the file, which repeats the name of the type.
    parts.pop();
    let package = parts.join(".").replace("apiextensions_apiserver", "apiextensions-apiserver");
    format!("io.k8s.{}.{name}", package.replace("kube_aggregator", "kube-aggregator"))
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
        "Time" | "MicroTime" => Some(Shape::Time),
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
            "Time" | "MicroTime" => *shape = Shape::Time,
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
        let name = full_name(type_name::<V::Value>());
        *self.shape = Shape::Reference(name.clone());
        let fields = match self.definitions.get(&name) {
            // Points in time alone have no default, and are asked for again wherever their type stands.
            Some(known) => fields.iter().copied().filter(|f| known.get(f) == Some(&Shape::Time)).collect(),
            None => {
                self.definitions.insert(name.clone(), BTreeMap::new());
                fields.to_vec()
            }
        };
        visitor.visit_map(Fields {
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
struct Fields<'a> {
    definitions: &'a mut Definitions,
    owner: &'a str,
    fields: std::vec::IntoIter<&'static str>,
    current: &'static str,
    root: Option<(&'static str, &'static str)>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
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

#[cfg(test)]
mod tests {
    use super::{Definitions, Shape};
    use crate::kinds::KINDS;

    fn all() -> Definitions {
        let mut definitions = Definitions::new();
        for kind in KINDS {
            let name = (kind.describe)(&mut definitions);
            assert!(name.ends_with(&format!(".{}", kind.kind)), "{name}");
        }
        definitions
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
        check(d, "io.k8s.api.coordination.v1.LeaseSpec", "renewTime", Shape::Time);
        check(d, "io.k8s.api.apps.v1.ControllerRevision", "data", Shape::Any);
        check(d, "io.k8s.api.events.v1.Event", "regarding", reference("io.k8s.api.core.v1.ObjectReference"));
    }
}
