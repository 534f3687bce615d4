//! Discovery documents: which groups, versions and resources are served.
//!
//! Plain functions over the table of kinds make the documents; [`Documents`] holds those of the whole table,
//! made anew when a definition adds a kind or takes one away.

mod aggregated;
mod plain;
pub mod verbs;

use std::collections::BTreeMap;

use api::Kind;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderValue, Method, Request, StatusCode};
use sha2::{Digest, Sha256};

use crate::aggregation::remote::Remote;

pub use aggregated::Version;

/// A document that does not change, with its entity tag.
pub struct Document {
    /// The content.
    pub bytes: Bytes,
    /// The tag: a digest of the content, in quotation marks.
    pub tag: String,
}

impl Document {
    /// Encodes a document and computes its tag.
    pub fn new(value: &serde_json::Value) -> Self {
        Self::of_bytes(serde_json::to_vec(value).expect("JSON values always encode").into())
    }

    /// Computes the tag of a document that is encoded already.
    pub fn of_bytes(bytes: Bytes) -> Self {
        let digest: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02X}")).collect();
        Self { bytes, tag: format!("\"{digest}\"") }
    }

    /// The answer: 304 without content when the client has this very document.
    pub fn answer(&self, request: &Request<Body>, content_type: &'static str) -> Response {
        let held = request.headers().get_all(IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
        let unchanged = held.flat_map(|v| v.split(',')).any(|tag| tag.trim() == self.tag);
        let body = if unchanged { Body::empty() } else { Body::from(self.bytes.clone()) };
        let mut response = Response::new(body);
        *response.status_mut() = if unchanged { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        if let Ok(tag) = HeaderValue::from_str(&self.tag) {
            headers.insert(ETAG, tag);
        }
        response
    }
}

/// The documents of a table of kinds.
pub struct Documents {
    plain: BTreeMap<String, Document>,
    aggregated: BTreeMap<(&'static str, Version), Document>,
}

impl Documents {
    /// Makes them.
    pub fn new(kinds: &[&'static Kind], remotes: &[std::sync::Arc<Remote>]) -> Self {
        let document = |(path, value): (String, serde_json::Value)| (path, Document::new(&value));
        let mut aggregated = BTreeMap::new();
        for version in [Version::V2, Version::V2Beta1] {
            for (path, core) in [("/api", true), ("/apis", false)] {
                aggregated
                    .insert((path, version), Document::new(&aggregated::list(kinds, remotes, core, version)));
            }
        }
        Self { plain: plain::documents(kinds, remotes).into_iter().map(document).collect(), aggregated }
    }

    /// Answers `/api`, `/api/v1`, `/apis`, `/apis/{group}` and `/apis/{group}/{version}`; nothing for any other
    /// path. The request is authorized already.
    pub fn serve(&self, request: &Request<Body>) -> Option<Response> {
        if request.method() != Method::GET {
            return None;
        }
        let path = request.uri().path().trim_end_matches('/');
        if let Some(version) = aggregated_form(request)
            && let Some(document) = self.aggregated.get(&(path, version))
        {
            return Some(document.answer(request, version.content_type()));
        }
        self.plain.get(path).map(|document| document.answer(request, "application/json"))
    }
}

/// The aggregated form, if the client accepts one, and before the plain one.
fn aggregated_form(request: &Request<Body>) -> Option<Version> {
    let accepted = request.headers().get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    for clause in accepted.flat_map(|v| v.split(',')) {
        let mut parts = clause.split(';').map(str::trim);
        if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
            continue;
        }
        let parameters: BTreeMap<&str, &str> = parts.filter_map(|p| p.split_once('=')).collect();
        let get = |name: &str| parameters.get(name).copied();
        match (get("as"), get("g"), get("v")) {
            (None, ..) => return None,
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                return Some(Version::V2);
            }
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
                return Some(Version::V2Beta1);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
