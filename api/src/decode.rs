//! The one decoder from documents to Rust types.
//!
//! Every deserializer that a program decodes a type with is another copy of that type's code in it, and most of an API
//! server's memory is its program. So whatever is decoded there, from a request, from the store or from a part of a
//! document, is read from a [`Value`] by [`decode`], which also tells where a wrong value stands.

use serde::de::value::{BorrowedStrDeserializer, MapAccessDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Number, Value};

use crate::kinds::DecodeError;

/// A document, or a part of one, as a Rust type. Texts are copied.
///
/// # Errors
/// The first value of a wrong type, with its path within `value`.
pub fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, DecodeError> {
    T::deserialize(Node::from(value)).map_err(Failure::into_error)
}

/// As [`decode`], of a map.
///
/// # Errors
/// As [`decode`].
pub fn decode_map<T: DeserializeOwned>(map: &Map<String, Value>) -> Result<T, DecodeError> {
    T::deserialize(Node::Map(map)).map_err(Failure::into_error)
}

/// As [`decode`], of JSON.
///
/// # Errors
/// What is no JSON (with line and column, at the path `.`), and wrong types.
pub fn decode_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, DecodeError> {
    let value = serde_json::from_slice::<Value>(json)
        .map_err(|error| DecodeError { path: ".".into(), message: error.to_string() })?;
    decode(&value)
}

/// A [`DecodeError`] under way, in one word, as it is part of every result.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
struct Failure(Box<DecodeError>);

impl Failure {
    #[cold]
    #[inline(never)]
    fn within(mut self, field: &str) -> Self {
        let path = &mut self.0.path;
        let separator = if path.is_empty() || path.starts_with('[') { "" } else { "." };
        *path = format!("{field}{separator}{path}");
        self
    }

    #[cold]
    #[inline(never)]
    fn at(self, index: usize) -> Self {
        self.within(&format!("[{index}]"))
    }

    fn into_error(mut self) -> DecodeError {
        if self.0.path.is_empty() {
            self.0.path.push('.');
        }
        *self.0
    }
}

impl Error for Failure {
    #[cold]
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(Box::new(DecodeError { path: String::new(), message: message.to_string() }))
    }

    #[cold]
    fn invalid_type(found: Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        match found {
            Unexpected::Unit => Self::custom(format_args!("invalid type: null, expected {expected}")),
            found => Self::custom(format_args!("invalid type: {found}, expected {expected}")),
        }
    }
}

/// A value of a document.
enum Node<'de> {
    Null,
    Bool(bool),
    Number(&'de Number),
    String(&'de str),
    List(&'de [Value]),
    Map(&'de Map<String, Value>),
}

impl<'de> From<&'de Value> for Node<'de> {
    fn from(value: &'de Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::String(text),
            Value::Array(items) => Self::List(items),
            Value::Object(map) => Self::Map(map),
        }
    }
}

impl<'de> Node<'de> {
    #[cold]
    #[inline(never)]
    fn unexpected(&self, expected: &dyn serde::de::Expected) -> Failure {
        let found = match *self {
            Self::Null => Unexpected::Unit,
            Self::Bool(flag) => Unexpected::Bool(flag),
            Self::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(n), _) => Unexpected::Unsigned(n),
                (_, Some(n)) => Unexpected::Signed(n),
                _ => Unexpected::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Self::String(text) => Unexpected::Str(text),
            Self::List(_) => Unexpected::Seq,
            Self::Map(_) => Unexpected::Map,
        };
        Failure::invalid_type(found, expected)
    }
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(flag) => visitor.visit_bool(flag),
            Self::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(n), _) => visitor.visit_u64(n),
                (_, Some(n)) => visitor.visit_i64(n),
                _ => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Self::String(text) => visitor.visit_borrowed_str(text),
            Self::List(items) => visitor.visit_seq(Items { rest: items.iter(), index: 0 }),
            Self::Map(map) => visitor.visit_map(Fields { rest: map.iter(), current: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self {
            Self::Null => visitor.visit_none(),
            some => visitor.visit_some(some),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    // The values of most types are maps alone: a shorter way than asking for anything.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self {
            Self::Map(map) => visitor.visit_map(Fields { rest: map.iter(), current: None }),
            other => Err(other.unexpected(&visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self {
            Self::List(items) => visitor.visit_seq(Items { rest: items.iter(), index: 0 }),
            other => Err(other.unexpected(&visitor)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self {
            Self::String(variant) => visitor.visit_enum(BorrowedStrDeserializer::new(variant)),
            Self::Map(map) if map.len() == 1 => {
                visitor.visit_enum(MapAccessDeserializer::new(Fields { rest: map.iter(), current: None }))
            }
            other => Err(other.unexpected(&visitor)),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        tuple tuple_struct identifier ignored_any
    }
}

struct Fields<'de> {
    rest: serde_json::map::Iter<'de>,
    current: Option<(&'de str, &'de Value)>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        self.current = self.rest.next().map(|(key, value)| (key.as_str(), value));
        match self.current {
            Some((key, _)) => seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let Some((key, value)) = self.current else { return Err(Failure::custom("a value without a key")) };
        seed.deserialize(Node::from(value)).map_err(|failure| failure.within(key))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Items<'de> {
    rest: std::slice::Iter<'de, Value>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some(item) = self.rest.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Node::from(item)).map(Some).map_err(|failure| failure.at(index))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn refused(document: Value) -> String {
        decode::<Pod>(&document).expect_err("a wrong type").to_string()
    }

    #[test]
    fn a_wrong_value_is_named_by_its_path() {
        let port = |port: Value| json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": port}]}]}});
        let at = "spec.containers[0].ports[0].containerPort";
        assert_eq!(refused(port(json!("x"))), format!("{at}: invalid type: string \"x\", expected i32"));
        assert_eq!(
            refused(port(json!(1.5))),
            format!("{at}: invalid type: floating point `1.5`, expected i32")
        );
        let cases = [
            (json!([]), ".: invalid type: sequence, expected Pod"),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "metadata.labels.a: invalid type: integer `1`, expected a string",
            ),
            (
                json!({"spec": {"containers": [null]}}),
                "spec.containers[0]: invalid type: null, expected Container",
            ),
        ];
        for (document, wanted) in cases {
            assert_eq!(refused(document), wanted);
        }
    }

    #[test]
    fn no_json_is_named_by_line_and_column() {
        let error = decode_json::<Pod>(b"{\n x").expect_err("no JSON");
        assert_eq!(error.to_string(), ".: key must be a string at line 2 column 2");
    }
}
