//! OpenAPI documents of the served kinds: the schemas of their types and the operations of their paths.
//!
//! A document is made when it is first asked for and kept compressed, since most clients never ask for most of them.

mod custom;
mod operations;
mod protobuf;
mod schemas;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::sync::{Arc, LazyLock, Mutex};

use api::Kind;
use api::kinds::KINDS;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use component::tasks::lock;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH,
    LOCATION, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::custom::rules;

/// A document, compressed, and the hash of what it is made of.
struct Packed {
    gzip: Bytes,
    hash: String,
}

/// What is asked for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    V2,
    V2Protobuf,
    Index,
    V3(String),
}

/// Answers `/openapi/v2`, `/openapi/v3` and what is beneath it; nothing for any other path.
/// `custom` are the kinds that definitions have added. The request is authorized already.
pub fn serve(request: &Request<Body>, custom: &[&'static Kind]) -> Option<Response> {
    if request.method() != Method::GET {
        return None;
    }
    let path = request.uri().path().trim_end_matches('/');
    let kinds: Vec<&'static Kind> = KINDS.iter().chain(custom.iter().copied()).collect();
    let mut wanted = match path {
        "/openapi/v2" => Wanted::V2,
        "/openapi/v3" => Wanted::Index,
        _ => Wanted::V3(path.strip_prefix("/openapi/v3/")?.to_owned()),
    };
    let hash = hash_of(&kinds, &wanted)?;
    let content_type = match (form(request), &wanted) {
        (Some(Form::Json), _) => "application/json",
        (Some(Form::Protobuf), Wanted::V2) => {
            wanted = Wanted::V2Protobuf;
            protobuf::MEDIA_TYPE
        }
        _ => return Some(not_acceptable()),
    };
    let asked = request.uri().query().and_then(|q| q.split('&').find_map(|p| p.strip_prefix("hash=")));
    if let Some(asked) = asked
        && asked != hash
        && matches!(wanted, Wanted::V3(_))
    {
        return Some(moved(path, &hash));
    }
    Some(answer(request.headers(), &document(&kinds, wanted, hash), content_type, asked.is_some()))
}

/// The document that a client asks for by an old hash is elsewhere.
fn moved(path: &str, hash: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(place) = HeaderValue::from_str(&format!("{path}?hash={hash}")) {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}

/// 304 when the client has it, compressed where it takes that. What was asked for by its hash never changes.
fn answer(headers: &HeaderMap, document: &Packed, content_type: &'static str, by_hash: bool) -> Response {
    let values = |name| {
        headers.get_all(name).iter().filter_map(|v: &HeaderValue| v.to_str().ok()).flat_map(|v| v.split(','))
    };
    let tag = format!("\"{}\"", document.hash);
    let unchanged = values(IF_NONE_MATCH).any(|held| held.trim() == tag);
    let takes_gzip = values(ACCEPT_ENCODING).any(|v| v.split(';').next().is_some_and(|v| v.trim() == "gzip"));
    let mut response = Response::new(match (unchanged, takes_gzip) {
        (true, _) => Body::empty(),
        (false, true) => Body::from(document.gzip.clone()),
        (false, false) => Body::from(unpack(&document.gzip)),
    });
    let set = response.headers_mut();
    set.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    set.insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    if takes_gzip && !unchanged {
        set.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        set.insert(ETAG, tag);
    }
    let cache = if by_hash { "public, immutable" } else { "no-cache, private" };
    set.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    if by_hash {
        // As far away as a date of HTTP can be understood everywhere.
        set.insert(EXPIRES, HeaderValue::from_static("Thu, 31 Dec 2037 23:55:55 GMT"));
    }
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    response
}

fn pack(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 6), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory can be written to").into()
}

fn unpack(gzip: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(gzip.len() * 6);
    GzDecoder::new(gzip).read_to_end(&mut bytes).expect("it was packed here");
    bytes.into()
}

/// Makes a document, or finds it made.
fn document(kinds: &[&'static Kind], wanted: Wanted, hash: String) -> Arc<Packed> {
    static MADE: LazyLock<Mutex<BTreeMap<Wanted, Arc<Packed>>>> = LazyLock::new(Mutex::default);
    if let Some(found) = lock(&MADE).get(&wanted)
        && found.hash == hash
    {
        return found.clone();
    }
    let json = |value: &Value| serde_json::to_vec(value).expect("JSON values always encode");
    let bytes = match &wanted {
        Wanted::V2 => json(&v2(kinds)),
        Wanted::V2Protobuf => protobuf::encode(&v2(kinds)),
        Wanted::Index => json(&index(kinds)),
        Wanted::V3(path) => json(&v3(kinds, path)),
    };
    let made = Arc::new(Packed { gzip: pack(&bytes), hash });
    lock(&MADE).insert(wanted, made.clone());
    made
}

/// The hash of what a document is made of; nothing when there is no such document.
fn hash_of(kinds: &[&'static Kind], wanted: &Wanted) -> Option<String> {
    static SCHEMAS: LazyLock<Vec<u8>> = LazyLock::new(|| Sha256::digest(schemas::packed()).to_vec());
    let mut digest = Sha256::new();
    digest.update(env!("CARGO_PKG_VERSION"));
    digest.update(&*SCHEMAS);
    let mut empty = true;
    for kind in kinds {
        let own = base(kind);
        if !matches!(wanted, Wanted::V3(path) if *path != own) {
            digest.update(format!("{own} {} {:?};", kind.kind, kind.subresources));
            if let Some(rules) = rules::of(kind) {
                digest.update(rules.digest());
            }
            empty = false;
        }
    }
    (!empty).then(|| digest.finalize().iter().map(|b| format!("{b:02X}")).collect())
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
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The documents by group and version: `api/v1`, `apis/apps/v1`.
fn index(kinds: &[&'static Kind]) -> Value {
    let bases: BTreeSet<String> = kinds.iter().map(|kind| base(kind)).collect();
    let paths: serde_json::Map<String, Value> = bases
        .into_iter()
        .map(|path| {
            let hash = hash_of(kinds, &Wanted::V3(path.clone())).unwrap_or_default();
            let url = format!("/openapi/v3/{path}?hash={hash}");
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// The document of the second version.
fn v2(kinds: &[&'static Kind]) -> Value {
    let mut paths = serde_json::Map::new();
    for kind in kinds {
        paths.extend(operations::of(kind, operations::Dialect::V2));
    }
    let definitions = schemas::of(kinds.iter().copied(), operations::Dialect::V2);
    json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions})
}

/// The path of a kind's group and version without its first slash.
fn base(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.35.0"})
}

/// The document of one group and version, by its path.
fn v3(kinds: &[&'static Kind], path: &str) -> Value {
    let kinds = || kinds.iter().copied().filter(|kind| base(kind) == path);
    let mut paths = serde_json::Map::new();
    for kind in kinds() {
        paths.extend(operations::of(kind, operations::Dialect::V3));
    }
    let components = json!({"schemas": schemas::of(kinds(), operations::Dialect::V3)});
    json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": components})
}

#[cfg(test)]
mod tests;
