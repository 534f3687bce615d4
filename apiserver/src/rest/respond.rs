//! How answers are written: JSON, with `Status` for refusals.

use api::openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusDetails};
use api::status::StatusError;
use api::{Kind, Object};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// An answer in JSON.
pub fn json(code: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// An answer in the binary encoding.
pub fn protobuf(code: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = json(code, body);
    let media = HeaderValue::from_static("application/vnd.kubernetes.protobuf");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}

/// An answer from a JSON value.
pub fn value(code: StatusCode, value: &Value, pretty: bool) -> Response {
    json(code, encode(value, pretty))
}

/// Encodes a value, for people when they ask for it.
pub fn encode(value: &Value, pretty: bool) -> Bytes {
    let encoded = if pretty { serde_json::to_vec_pretty(value) } else { serde_json::to_vec(value) };
    let mut bytes = encoded.expect("JSON values always encode");
    bytes.push(b'\n');
    bytes.into()
}

/// A refusal.
pub fn refusal(error: &StatusError) -> Response {
    let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = value(code, &error.to_value(), false);
    let retry = error.0.details.as_ref().and_then(|d| d.retry_after_seconds);
    if let Some(seconds) = retry {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// `Status` of a success, as it is returned where there is no object to return.
pub fn success(kind: &Kind, name: &str, uid: &str) -> Value {
    let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
    let status = Status {
        status: Some("Success".into()),
        details: Some(StatusDetails {
            name: text(name),
            group: text(kind.group),
            kind: Some(kind.plural.into()),
            uid: text(uid),
            ..StatusDetails::default()
        }),
        ..Status::default()
    };
    let mut value = serde_json::to_value(status).unwrap_or_else(|_| json!({}));
    if let Some(map) = value.as_object_mut() {
        map.entry("metadata").or_insert_with(|| json!({}));
    }
    value
}

/// `Status` of a deletion that is done.
pub fn deleted(kind: &Kind, object: &[u8]) -> Value {
    let object = Object::parse(object).unwrap_or_default();
    success(kind, object.name(), object.uid())
}

/// Adds `Warning` headers.
pub fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings.iter().take(20) {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
