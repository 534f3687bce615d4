//! What clients send: JSON and YAML, with bounds on size, nesting and aliases.

use api::status::StatusError;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;

use super::duplicates;

/// The largest body.
pub const MAX_BODY: usize = 3 * 1024 * 1024;
/// How much of a body that is too large is read before the connection is given up.
const MAX_DISCARDED: usize = 32 * 1024 * 1024;
/// How deep YAML may nest; JSON is bounded by its parser at 128. A level costs up to 20 KiB of stack in a build
/// without optimisation.
const MAX_DEPTH: usize = 64;

/// Reads a body.
///
/// One that is too large is read to its end, without keeping it, as long as that is bounded: a client that is
/// still sending would otherwise see a broken connection rather than the answer.
///
/// # Errors
/// 413 for one that is too large, 400 when the client goes away.
pub async fn read(headers: &HeaderMap, mut body: Body) -> Result<Bytes, StatusError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|n| n > MAX_DISCARDED) {
        return Err(StatusError::too_large(MAX_BODY));
    }
    let mut kept = BytesMut::with_capacity(announced.unwrap_or(0).min(MAX_BODY));
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| StatusError::bad_request(format!("could not read the body: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        total += data.len();
        if total > MAX_DISCARDED {
            break;
        }
        if total <= MAX_BODY {
            kept.extend_from_slice(&data);
        } else {
            kept = BytesMut::new();
        }
    }
    if total > MAX_BODY { Err(StatusError::too_large(MAX_BODY)) } else { Ok(kept.freeze()) }
}

/// The media type of a body, without its parameters; empty when there is none.
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A document, and what is to be said of fields that stand twice in it.
pub type Checked = (Value, Vec<String>);

/// Parses a document by its media type.
///
/// # Errors
/// 400 with line and column for a malformed one, 415 for another type.
pub fn document(media_type: &str, bytes: &[u8]) -> Result<Value, StatusError> {
    checked(media_type, bytes).map(|(value, _)| value)
}

/// Parses a document by its media type, and tells which fields it says twice.
///
/// # Errors
/// 400 with line and column for a malformed one, 415 for another type.
pub fn checked(media_type: &str, bytes: &[u8]) -> Result<Checked, StatusError> {
    match media_type {
        "" | "application/json" | "text/json" | "*/*" => checked_json(bytes),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml(bytes),
        "application/vnd.kubernetes.protobuf" => api::protobuf::decode(bytes)
            .map(|value| (value, Vec::new()))
            .map_err(|e| StatusError::bad_request(format!("couldn't decode the request body: {e}"))),
        // What HTTP clients say about a body when nobody told them.
        "application/x-www-form-urlencoded" | "application/octet-stream" | "text/plain" => {
            checked_json(bytes)
        }
        other => Err(StatusError::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml, application/vnd.kubernetes.protobuf (got {other:?})"
        ))),
    }
}

/// Parses JSON.
///
/// # Errors
/// 400 with line and column.
pub fn json(bytes: &[u8]) -> Result<Value, StatusError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(StatusError::bad_request("the request body is empty"));
    }
    serde_json::from_slice(bytes)
        .map_err(|e| StatusError::bad_request(format!("couldn't parse the request body as JSON: {e}")))
}

/// Parses JSON, and tells which fields it says twice.
///
/// # Errors
/// 400 with line and column.
pub fn checked_json(bytes: &[u8]) -> Result<Checked, StatusError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(StatusError::bad_request("the request body is empty"));
    }
    let (value, twice) = duplicates::parse(bytes)
        .map_err(|e| StatusError::bad_request(format!("couldn't parse the request body as JSON: {e}")))?;
    Ok((value, twice.iter().map(|path| format!("duplicate field {path:?}")).collect()))
}

/// Parses one YAML document, or JSON, which is YAML too, and tells which field it says twice.
///
/// # Errors
/// 400 with line and column.
pub fn yaml(bytes: &[u8]) -> Result<Checked, StatusError> {
    let bad = |e: String| StatusError::bad_request(format!("couldn't parse the request body as YAML: {e}"));
    let text = std::str::from_utf8(bytes).map_err(|e| bad(e.to_string()))?;
    if text.trim_start().starts_with('{') {
        return checked_json(bytes);
    }
    match parse_yaml(text, DuplicateKeyPolicy::Error) {
        Ok(value) => full(value).map(|value| (value, Vec::new())),
        Err(serde_saphyr::Error::DuplicateMappingKey { key, location }) => {
            let key = key.unwrap_or_default();
            let message = format!("line {}: key {key:?} already set in map", location.line());
            let value = parse_yaml(text, DuplicateKeyPolicy::LastWins).map_err(|e| bad(e.to_string()))?;
            Ok((full(value)?, vec![message]))
        }
        Err(error) => Err(bad(error.to_string())),
    }
}

fn full(value: Value) -> Result<Value, StatusError> {
    if value.is_null() { Err(StatusError::bad_request("the request body is empty")) } else { Ok(value) }
}

fn parse_yaml(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_documents: 1,
            max_aliases: 1000,
            max_anchors: 1000,
            max_nodes: 250_000,
            max_total_scalar_bytes: MAX_BODY,
            max_recorded_anchor_bytes: MAX_BODY,
            max_recorded_anchor_events: 100_000
        },
        duplicate_keys: duplicate_keys,
        with_snippet: false
    };
    serde_saphyr::from_str_with_options(text, options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn refused(media: &str, body: &str, code: u16, words: &[&str]) {
        let error = document(media, body.as_bytes()).expect_err("it must be refused");
        assert_eq!(error.code(), code, "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "{word:?} is not in {error}");
        }
    }

    #[test]
    fn malformed_documents_are_refused_with_line_and_column() {
        refused("application/json", "{\"a\":\n  nope}", 400, &["line 2", "column"]);
        refused("application/yaml", "a: b\n  c: [d", 400, &["line 2", "column"]);
        refused("application/yaml", "a: b\n---\nc: d\n", 400, &[]);
        refused("application/json", "", 400, &["empty"]);
        refused("application/yaml", "\n", 400, &["empty"]);
        refused("application/xml", "<a/>", 415, &["application/json"]);
        refused("application/vnd.kubernetes.protobuf", "x", 400, &["magic number"]);
        refused("application/json", &"[".repeat(100_000), 400, &["recursion limit"]);
        refused("application/yaml", &"[".repeat(100_000), 400, &[]);
        let deep: String = (0..500).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        refused("application/yaml", &deep, 400, &[]);
    }

    #[test]
    fn an_alias_bomb_is_refused_quickly() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let before = format!("*a{}", i - 1);
            bomb += &format!("a{i}: &a{i} [{}]\n", vec![before; 9].join(","));
        }
        let began = std::time::Instant::now();
        refused("application/yaml", &bomb, 400, &[]);
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    }

    #[test]
    fn yaml_reads_as_kubernetes_reads_it() {
        let (value, twice) = yaml(b"a: 1\nb: \"1\"\nc: true\nd: ~\ne: 1.5\nf: x\n").expect("YAML");
        assert_eq!(value, serde_json::json!({"a": 1, "b": "1", "c": true, "d": null, "e": 1.5, "f": "x"}));
        assert!(twice.is_empty());
        let (value, twice) = yaml(b"a: 1\nb:\n  c: 1\n  c: 2\n").expect("YAML");
        assert_eq!(value, serde_json::json!({"a": 1, "b": {"c": 2}}));
        assert_eq!(twice, ["line 4: key \"c\" already set in map"]);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[a-z{}\\[\\]:&*!|>\\- \n\"'#%,0-9]{0,60}") {
            let _ = yaml(text.as_bytes());
            let _ = json(text.as_bytes());
        }
    }
}
