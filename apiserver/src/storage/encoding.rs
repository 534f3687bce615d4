//! How an object stands in etcd: JSON whose first members are `apiVersion`, `kind` and `metadata`, without
//! its resource version, which is etcd's and is spliced in when the value is read.

use api::Object;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

const METADATA: &[u8] = b",\"metadata\":{";
const VERSION: &[u8] = b"\"resourceVersion\":\"";

/// The JSON that is stored. The object's resource version is left out.
pub fn encode(object: &Object) -> Bytes {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"{\"apiVersion\":");
    json_into(&mut out, &Value::String(object.api_version().to_owned()));
    out.extend_from_slice(b",\"kind\":");
    json_into(&mut out, &Value::String(object.kind().to_owned()));
    out.extend_from_slice(METADATA);
    let meta = object.meta().into_iter().flatten().filter(|(k, _)| *k != "resourceVersion");
    members_into(&mut out, meta);
    out.push(b'}');
    let rest =
        object.as_map().iter().filter(|(k, _)| !matches!(k.as_str(), "apiVersion" | "kind" | "metadata"));
    for (key, value) in rest {
        out.push(b',');
        members_into(&mut out, std::iter::once((key, value)));
    }
    out.push(b'}');
    out.into()
}

fn members_into<'a>(out: &mut Vec<u8>, members: impl Iterator<Item = (&'a String, &'a Value)>) {
    for (i, (key, value)) in members.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json_into(out, key);
        out.push(b':');
        json_into(out, value);
    }
}

fn json_into(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("JSON values with string keys always encode into memory");
}

/// The stored JSON with `metadata.resourceVersion`; replaces one that [`stamp`] put there before.
///
/// Returns nothing when the bytes are no JSON object.
pub fn stamp(stored: &[u8], revision: i64) -> Option<Bytes> {
    match splice(stored, revision) {
        Some(spliced) => Some(spliced),
        None => {
            // Written by somebody else, with its members in another order.
            let mut object = Object::parse(stored).ok()?;
            object.set_resource_version("");
            splice(&encode(&object), revision)
        }
    }
}

fn splice(stored: &[u8], revision: i64) -> Option<Bytes> {
    // `{"apiVersion":"a","kind":"b","metadata":{`: no string before it holds a quote or a backslash.
    let head = stored.strip_prefix(b"{\"apiVersion\":\"")?;
    let head = &head[head.iter().position(|b| *b == b'"')?..];
    let head = head.strip_prefix(b"\",\"kind\":\"")?;
    let head = &head[head.iter().position(|b| *b == b'"')? + 1..];
    let rest = head.strip_prefix(METADATA)?;
    let before = &stored[..stored.len() - rest.len()];
    let rest = match rest.strip_prefix(VERSION) {
        Some(old) => &old[old.iter().position(|b| *b == b'"')? + 1..],
        None if rest.first() == Some(&b'}') => rest,
        None => return join(before, revision, b",", rest),
    };
    join(before, revision, b"", rest)
}

fn join(before: &[u8], revision: i64, comma: &[u8], rest: &[u8]) -> Option<Bytes> {
    let mut out = BytesMut::with_capacity(before.len() + rest.len() + 44);
    out.put_slice(before);
    out.put_slice(VERSION);
    out.put_slice(revision.to_string().as_bytes());
    out.put_u8(b'"');
    out.put_slice(comma);
    out.put_slice(rest);
    Some(out.freeze())
}

/// The part of the metadata that selectors and envelopes need.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head<'a> {
    /// `metadata.name`.
    #[serde(borrow, default)]
    pub name: Cow<'a, str>,
    /// `metadata.namespace`.
    #[serde(borrow, default)]
    pub namespace: Cow<'a, str>,
    /// `metadata.uid`.
    #[serde(borrow, default)]
    pub uid: Cow<'a, str>,
    /// `metadata.resourceVersion`.
    #[serde(borrow, default)]
    pub resource_version: Cow<'a, str>,
    /// `metadata.labels`.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Reads the head of an object's JSON.
pub fn head(json: &[u8]) -> Result<Head<'_>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Document<'a> {
        #[serde(borrow, default)]
        metadata: Head<'a>,
    }
    Ok(serde_json::from_slice::<Document<'_>>(json)?.metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        Object::new(value).expect("a map")
    }

    #[test]
    fn a_version_is_spliced_in_and_replaced() {
        let o = object(json!({
            "data": {"a": "metadata\":{"}, "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "x", "resourceVersion": "3", "labels": {"a": "b"}}
        }));
        let stored = encode(&o);
        assert!(!String::from_utf8_lossy(&stored).contains("resourceVersion"));
        let mut wanted = o.clone();
        wanted.set_resource_version("17");
        let stamped = stamp(&stored, 17).expect("an object");
        assert_eq!(Object::parse(&stamped).expect("JSON"), wanted);
        wanted.set_resource_version("170");
        assert_eq!(Object::parse(&stamp(&stamped, 170).expect("an object")).expect("JSON"), wanted);
        assert_eq!(head(&stamped).expect("JSON").labels.expect("labels")["a"], "b");
    }

    #[test]
    fn what_others_wrote_is_stamped_too() {
        for text in [
            r#"{"metadata":{"name":"x"},"kind":"ConfigMap","apiVersion":"v1"}"#,
            r#"{"kind":"ConfigMap","apiVersion":"v1"}"#,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{}}"#,
            r#"{ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion":"1","name":"x"}}"#,
        ] {
            let stamped = Object::parse(&stamp(text.as_bytes(), 5).expect("an object")).expect("JSON");
            assert_eq!(stamped.resource_version(), "5", "{text}");
        }
        assert!(stamp(b"nonsense", 5).is_none() && stamp(b"[]", 5).is_none());
    }
}
