//! JSON with a memory: which fields a document says twice. The last one counts.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The most duplicates that are told of one document.
const MAX: usize = 100;

/// Parses JSON. The paths of fields that stand twice are `spec.template.spec.containers[0].image`.
///
/// # Errors
/// With line and column.
pub fn parse(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let mut seen = Seen { path: String::new(), duplicates: Vec::new() };
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let value = Node(&mut seen).deserialize(&mut input)?;
    input.end()?;
    Ok((value, seen.duplicates))
}

struct Seen {
    path: String,
    duplicates: Vec<String>,
}

/// A value at the path that has been come to.
struct Node<'a>(&'a mut Seen);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let Self(seen) = self;
        let (length, mut values) = (seen.path.len(), Vec::new());
        loop {
            seen.path.push_str(&format!("[{}]", values.len()));
            let next = list.next_element_seed(Node(seen))?;
            seen.path.truncate(length);
            match next {
                Some(value) => values.push(value),
                None => return Ok(values.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let Self(seen) = self;
        let (length, mut map) = (seen.path.len(), Map::new());
        while let Some(key) = entries.next_key::<String>()? {
            if length > 0 {
                seen.path.push('.');
            }
            seen.path.push_str(&key);
            if map.contains_key(&key) && seen.duplicates.len() < MAX && !seen.duplicates.contains(&seen.path)
            {
                let path = seen.path.clone();
                seen.duplicates.push(path);
            }
            let value = entries.next_value_seed(Node(seen))?;
            map.insert(key, value);
            seen.path.truncate(length);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn fields_that_stand_twice_are_told_and_the_last_one_counts() {
        let text = r#"{"a": 1, "b": [{"c": 1, "c": 2}], "a": 2, "a": 3}"#;
        let (value, duplicates) = parse(text.as_bytes()).unwrap();
        assert_eq!(value, json!({"a": 3, "b": [{"c": 2}]}));
        assert_eq!(duplicates, ["b[0].c", "a"]);
        assert!(parse(b"{} {}").is_err() && parse(b"").is_err());
    }

    proptest! {
        #[test]
        fn values_are_those_of_the_plain_parser(text in r#"[\[\]{}:," a-c0-9.truefalsn-]{0,40}"#) {
            let plain = serde_json::from_slice::<Value>(text.as_bytes()).ok();
            prop_assert_eq!(parse(text.as_bytes()).ok().map(|(value, _)| value), plain);
        }
    }
}
