//! OpenAPI documents of the served kinds: the schemas of their types and the operations of their paths.
//!
//! The schemas tell names, types and how lists merge; descriptions, required fields and formats of texts are
//! not known to the types that they are derived from.

mod operations;
mod protobuf;
mod schemas;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use api::kinds::KINDS;
use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::discovery::Document;

/// Answers `/openapi/v2`, `/openapi/v3` and what is beneath it; nothing for any other path.
/// The request is authorized already.
pub fn serve(request: &Request<Body>) -> Option<Response> {
    if request.method() != Method::GET {
        return None;
    }
    let path = request.uri().path().trim_end_matches('/');
    let document = match path {
        "/openapi/v2" => &*V2,
        "/openapi/v3" => &V3.0,
        _ => V3.1.get(path.strip_prefix("/openapi/v3/")?)?,
    };
    match form(request) {
        Some(Form::Json) => Some(document.answer(request, "application/json")),
        Some(Form::Protobuf) if path == "/openapi/v2" => {
            Some(V2_PROTOBUF.answer(request, protobuf::MEDIA_TYPE))
        }
        _ => Some(not_acceptable()),
    }
}

/// How a document is encoded.
enum Form {
    Json,
    Protobuf,
}

/// The first form of those that a client accepts that there is.
fn form(request: &Request<Body>) -> Option<Form> {
    let mut clauses = request
        .headers()
        .get_all(ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|clause| clause.split(';').next().unwrap_or_default().trim())
        .peekable();
    if clauses.peek().is_none() {
        return Some(Form::Json);
    }
    clauses.find_map(|clause| match clause {
        "" | "application/json" | "application/*" | "*/*" => Some(Form::Json),
        asked => protobuf::ASKED.contains(&asked).then_some(Form::Protobuf),
    })
}

fn not_acceptable() -> Response {
    let mut response =
        Response::new(Body::from("only application/json is served, and protocol buffers of /openapi/v2\n"));
    *response.status_mut() = StatusCode::NOT_ACCEPTABLE;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The index, and the documents by group and version: `api/v1`, `apis/apps/v1`.
static V3: LazyLock<(Document, BTreeMap<String, Document>)> = LazyLock::new(|| {
    let versions: BTreeSet<(&str, &str)> = KINDS.iter().map(|k| (k.group, k.version)).collect();
    let documents: BTreeMap<String, Document> = versions
        .into_iter()
        .map(|(group, version)| (base(group, version), Document::new(&v3(group, version))))
        .collect();
    let paths: serde_json::Map<String, Value> = documents
        .iter()
        .map(|(path, document)| {
            let hash = document.tag.trim_matches('"');
            (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}))
        })
        .collect();
    (Document::new(&json!({"paths": paths})), documents)
});

static V2: LazyLock<Document> = LazyLock::new(|| Document::new(&v2()));
static V2_PROTOBUF: LazyLock<Document> = LazyLock::new(|| Document::of_bytes(protobuf::encode(&v2()).into()));

/// The document of the second version.
fn v2() -> Value {
    let mut paths = serde_json::Map::new();
    for kind in KINDS {
        paths.extend(operations::of(kind, operations::Dialect::V2));
    }
    let definitions = schemas::of(KINDS.iter(), "#/definitions/");
    json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions})
}

/// The path of a group and version without its first slash.
fn base(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.35.0"})
}

/// The document of one group and version.
pub fn v3(group: &str, version: &str) -> Value {
    let kinds = || KINDS.iter().filter(|k| k.group == group && k.version == version);
    let mut paths = serde_json::Map::new();
    for kind in kinds() {
        paths.extend(operations::of(kind, operations::Dialect::V3));
    }
    let components = json!({"schemas": schemas::of(kinds(), "#/components/schemas/")});
    json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": components})
}

#[cfg(test)]
mod tests;
