//! Documents against the types of their kinds: wrong types are refused, unknown fields and nulls fall away.
//!
//! One walk over a table serves every kind. Decoding into a Rust type and encoding again would say the same, at the
//! price of two more copies of every type's code in the program, and of its pages in memory.

use jiff::Timestamp;
use jiff::fmt::strtime;
use serde_json::{Map, Value};

use super::{Shape, fields, schema_or};
use crate::kinds::DecodeError;

/// A document as the type `name` knows it: fields that it has, points in time in UTC, amounts as texts.
///
/// `fixed` are the `apiVersion` and `kind` that the document must have if it says any, and has afterwards.
///
/// # Errors
/// The first value of a wrong type.
pub fn conform(name: &str, fixed: (&str, &str), value: Value) -> Result<Value, DecodeError> {
    let mut walk = Walk { path: String::new() };
    let Value::Object(mut document) = value else { return Err(walk.unexpected(&value, short(name))) };
    for (field, wanted) in [("apiVersion", fixed.0), ("kind", fixed.1)] {
        match document.remove(field) {
            None | Some(Value::Null) => {}
            Some(Value::String(found)) if found == wanted => {}
            Some(Value::String(found)) => {
                let message = format!("invalid value: string {found:?}, expected {wanted}");
                return Err(walk.at(field, |walk| walk.error(message)));
            }
            Some(other) => return Err(walk.at(field, |walk| walk.unexpected(&other, "a string"))),
        }
    }
    let mut conformed = walk.fields(name, document)?;
    conformed.insert("apiVersion".into(), fixed.0.into());
    conformed.insert("kind".into(), fixed.1.into());
    if fields(name).contains_key("metadata") {
        conformed.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    }
    Ok(Value::Object(conformed))
}

/// The name without its package.
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

struct Walk {
    /// Where we are, in Kubernetes' notation.
    path: String,
}

impl Walk {
    fn error(&self, message: String) -> DecodeError {
        DecodeError { path: if self.path.is_empty() { ".".into() } else { self.path.clone() }, message }
    }

    fn unexpected(&self, found: &Value, expected: &str) -> DecodeError {
        let found = match found {
            Value::Null => "null".to_owned(),
            Value::Bool(flag) => format!("boolean `{flag}`"),
            Value::Number(number) if number.is_f64() => format!("floating point `{number}`"),
            Value::Number(number) => format!("integer `{number}`"),
            Value::String(text) => format!("string {text:?}"),
            Value::Array(_) => "sequence".to_owned(),
            Value::Object(_) => "map".to_owned(),
        };
        self.error(format!("invalid type: {found}, expected {expected}"))
    }

    /// Does something one field further down.
    fn at<T>(&mut self, field: &str, what: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(field);
        let result = what(self);
        self.path.truncate(length);
        result
    }

    fn fields(&mut self, of: &str, document: Map<String, Value>) -> Result<Map<String, Value>, DecodeError> {
        let known = fields(of);
        let mut kept = Map::new();
        for (field, value) in document {
            let Some(shape) = known.get(field.as_str()) else { continue };
            if !value.is_null() {
                let value = self.at(&field, |walk| match shape {
                    Shape::Any if schema_or(&field, of) => walk.schema_or(of, value),
                    _ => walk.value(shape, value),
                })?;
                kept.insert(field, value);
            }
        }
        Ok(kept)
    }

    fn value(&mut self, shape: &Shape, value: Value) -> Result<Value, DecodeError> {
        match (shape, value) {
            (Shape::Any, value) => Ok(value),
            (Shape::Boolean, value @ Value::Bool(_)) => Ok(value),
            (Shape::Boolean, other) => Err(self.unexpected(&other, "a boolean")),
            (Shape::Int32, value) => self.integer(value, "i32", |n| i32::try_from(n).is_ok()),
            (Shape::Int64, value) => self.integer(value, "i64", |_| true),
            (Shape::Number, value @ Value::Number(_)) => Ok(value),
            (Shape::Number, other) => Err(self.unexpected(&other, "f64")),
            (Shape::String, value @ Value::String(_)) => Ok(value),
            (Shape::String, other) => Err(self.unexpected(&other, "a string")),
            (Shape::Time, value) => self.time(value, "%Y-%m-%dT%H:%M:%SZ"),
            (Shape::MicroTime, value) => self.time(value, "%Y-%m-%dT%H:%M:%S%.6fZ"),
            (Shape::Bytes, value) => self.bytes(value),
            (Shape::IntOrString, value @ Value::String(_)) => Ok(value),
            (Shape::IntOrString, value @ Value::Number(_)) => {
                self.integer(value, "i32", |n| i32::try_from(n).is_ok())
            }
            (Shape::IntOrString, other) => Err(self.unexpected(&other, "int or string")),
            (Shape::Quantity, value @ Value::String(_)) => Ok(value),
            (Shape::Quantity, Value::Number(number)) => Ok(number.to_string().into()),
            (Shape::Quantity, other) => Err(self.unexpected(&other, "Quantity")),
            (Shape::List(of), Value::Array(list)) => {
                let each = list.into_iter().enumerate();
                each.map(|(index, item)| self.element(index, of, item))
                    .collect::<Result<_, _>>()
                    .map(Value::Array)
            }
            (Shape::List(_), other) => Err(self.unexpected(&other, "a sequence")),
            (Shape::Map(of), Value::Object(map)) => {
                let each = map.into_iter();
                let each = each.map(|(key, value)| {
                    let value = self.at(&key, |walk| walk.value(of, value))?;
                    Ok((key, value))
                });
                each.collect::<Result<_, _>>().map(Value::Object)
            }
            (Shape::Map(_), other) => Err(self.unexpected(&other, "a map")),
            (Shape::Reference(name), Value::Object(map)) => self.fields(name, map).map(Value::Object),
            (Shape::Reference(name), other) => Err(self.unexpected(&other, short(name))),
        }
    }

    /// A schema within a schema, or the simpler things that may stand for it: a flag, names, a list or a map of them.
    fn schema_or(&mut self, of: &str, value: Value) -> Result<Value, DecodeError> {
        let schema = Shape::Reference(of.to_owned());
        match value {
            Value::Object(_) => self.value(&schema, value),
            Value::Array(list) => {
                let each = list.into_iter().enumerate();
                each.map(|(index, item)| match item {
                    Value::Object(_) => self.element(index, &schema, item),
                    simple => Ok(simple),
                })
                .collect::<Result<_, _>>()
                .map(Value::Array)
            }
            simple => Ok(simple),
        }
    }

    fn element(&mut self, index: usize, of: &Shape, item: Value) -> Result<Value, DecodeError> {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        let result = self.value(of, item);
        self.path.truncate(length);
        result
    }

    fn integer(
        &self,
        value: Value,
        expected: &str,
        fits: impl Fn(i64) -> bool,
    ) -> Result<Value, DecodeError> {
        match &value {
            Value::Number(number) if !number.is_f64() => match number.as_i64() {
                Some(integer) if fits(integer) => Ok(value),
                _ => Err(self.error(format!("invalid value: integer `{number}`, expected {expected}"))),
            },
            other => Err(self.unexpected(other, expected)),
        }
    }

    fn time(&self, value: Value, format: &str) -> Result<Value, DecodeError> {
        let Value::String(text) = &value else { return Err(self.unexpected(&value, "an RFC 3339 time")) };
        let time: Timestamp = text.parse().map_err(|error| self.error(format!("{error}")))?;
        strtime::format(format, time).map(Value::String).map_err(|error| self.error(format!("{error}")))
    }

    fn bytes(&self, value: Value) -> Result<Value, DecodeError> {
        use base64::Engine;
        let Value::String(text) = &value else {
            return Err(self.unexpected(&value, "a base64-encoded string"));
        };
        match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(_) => Ok(value),
            Err(error) => Err(self.error(error.to_string())),
        }
    }
}
