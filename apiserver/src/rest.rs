//! The REST front: from HTTP to the registry and back.

pub mod body;
mod compress;
mod duplicates;
mod health;
pub mod negotiate;
pub mod path;
pub mod proxy;
pub mod query;
pub mod render;
pub mod respond;
pub mod streams;
mod verbs;
mod watch;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use api::Subresource;
use api::kinds::Nature;
use api::status::StatusError;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use futures::FutureExt;
use http::{Method, Request, StatusCode};
use tokio::time::Instant;

use crate::admission::notes::Notes;
use crate::auth;
use crate::registry::errors::retry_after;
use crate::server::{App, Peer};
use path::ResourcePath;
use query::Parameters;

/// How long a request may take, watches and streams excepted.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The router of the front.
pub fn router(app: Arc<App>) -> Router {
    Router::new().fallback(answer).with_state(app)
}

/// What a request turned out to be, for metrics.
#[derive(Clone, Copy, Default)]
struct Seen {
    verb: &'static str,
    kind: Option<&'static api::Kind>,
}

async fn answer(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let began = Instant::now();
    let mut seen = Seen { verb: "other", kind: None };
    let notes = Notes::default();
    let outcome = AssertUnwindSafe(notes.keep(dispatch(&app, request, &mut seen))).catch_unwind().await;
    let mut response = match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            if error.code() >= 500 {
                tracing::warn!(verb = seen.verb, kind = seen.kind.map(|k| k.kind), %error, "request failed");
            }
            respond::refusal(&error)
        }
        Err(_) => {
            tracing::error!(
                verb = seen.verb,
                kind = seen.kind.map(|k| k.kind),
                "a request made the server panic"
            );
            respond::refusal(&StatusError::internal("the server panicked while it handled the request"))
        }
    };
    respond::warn(&mut response, &notes.take_warnings());
    app.requests.answered(seen.verb, seen.kind, response.status().as_u16(), began.elapsed());
    response
}

async fn dispatch(app: &Arc<App>, request: Request<Body>, seen: &mut Seen) -> Result<Response, StatusError> {
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        return Err(StatusError::unauthorized());
    };
    let method = request.method().clone();
    let Some(path) = path::parse(&app.table, request.uri().path()) else {
        if let Some(remote) = app.table.remote(request.uri().path()) {
            seen.verb = "aggregated";
            return crate::aggregation::serve(app, &peer, &remote, request).await;
        }
        return other_path(app, &peer, request).await;
    };
    seen.kind = Some(path.kind);
    if path.subresource == Some(Subresource::Proxy) {
        // Its query is for whoever is behind the proxy.
        let verb = proxy::verb(&method).ok_or_else(StatusError::method_not_allowed)?;
        seen.verb = verb;
        authorize(app, &peer, &path, &Parameters::default(), verb)?;
        return proxy::serve(app, &peer, &path, request).await;
    }
    let parameters = Parameters::parse(request.uri())?;
    let verb = verb(&method, &path, &parameters);
    seen.verb = verb.unwrap_or("other");
    authorize(app, &peer, &path, &parameters, verb.unwrap_or(lower(&method)))?;
    let Some(verb) = verb else { return Err(StatusError::method_not_allowed()) };
    match path.subresource {
        Some(Subresource::Log | Subresource::Exec | Subresource::Attach | Subresource::PortForward) => {
            return streams::serve(app, &peer, &path, request).await;
        }
        _ if verb == "watch" => return watch::serve(app, &path, &parameters, request).await,
        _ => {}
    }
    let slots = if matches!(verb, "get" | "list") { &app.reads } else { &app.writes };
    let Ok(_slot) = slots.try_acquire() else {
        let error = StatusError::new(
            429,
            "TooManyRequests",
            "The server has received too many requests and has asked us to try again later",
        );
        return Err(retry_after(error));
    };
    let call = verbs::Call {
        app,
        peer: &peer,
        path: &path,
        parameters: &parameters,
        agent: String::new(),
        gzip: false,
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, call.run(verb, request)).await {
        Ok(result) => result,
        Err(_) => Err(StatusError::timeout("Timeout: request did not complete within the allotted timeout")),
    }
}

/// Upstream's verb for a method on a path; nothing when the method is not allowed there.
fn verb(method: &Method, path: &ResourcePath, parameters: &Parameters) -> Option<&'static str> {
    use Subresource as Sub;
    let collection = path.name.is_empty();
    let watch = path.watch || parameters.flag("watch");
    // A write to a collection names its namespace.
    let placed = !path.kind.namespaced || !path.namespace.is_empty();
    let served = match path.kind.nature {
        Nature::Stored => true,
        Nature::Review => method == Method::POST,
        Nature::Computed => method == Method::GET && !watch,
    };
    match (method.as_str(), path.subresource) {
        _ if !served => None,
        ("GET", None) if watch => Some("watch"),
        ("GET", None) if collection => Some("list"),
        ("GET", None | Some(Sub::Status | Sub::Scale | Sub::Log | Sub::Approval)) => Some("get"),
        ("POST", None) if collection && placed && !path.watch => Some("create"),
        ("POST", Some(Sub::Binding | Sub::Eviction | Sub::Token)) => Some("create"),
        ("GET", Some(Sub::Exec | Sub::Attach | Sub::PortForward)) => Some("get"),
        ("POST", Some(Sub::Exec | Sub::Attach | Sub::PortForward)) => Some("create"),
        ("PUT", None | Some(Sub::Status | Sub::Scale | Sub::Finalize | Sub::Approval)) if !collection => {
            Some("update")
        }
        ("PATCH", None | Some(Sub::Status | Sub::Scale | Sub::Approval)) if !collection => Some("patch"),
        ("DELETE", None) if !collection => Some("delete"),
        ("DELETE", None) if placed => Some("deletecollection"),
        _ => None,
    }
}

fn lower(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "other",
    }
}

fn authorize(
    app: &App,
    peer: &Peer,
    path: &ResourcePath,
    parameters: &Parameters,
    verb: &'static str,
) -> Result<(), StatusError> {
    let selector = parameters.get("fieldSelector");
    let resource = auth::Resource::of(path.kind, &path.namespace, &path.name, path.subresource, selector);
    app.authorizer.authorize(&peer.user, &auth::Request::Resource(verb, resource))?;
    let stream =
        matches!(path.subresource, Some(Subresource::Exec | Subresource::Attach | Subresource::PortForward));
    if stream && verb == "get" {
        // A WebSocket begins with GET; what it does is no reading (KEP-4006).
        return app.authorizer.authorize(&peer.user, &auth::Request::Resource("create", resource));
    }
    Ok(())
}

/// Health, version, metrics and discovery.
async fn other_path(app: &Arc<App>, peer: &Peer, request: Request<Body>) -> Result<Response, StatusError> {
    let path = request.uri().path().to_owned();
    app.authorizer.authorize(&peer.user, &auth::Request::Path(lower(request.method()), &path))?;
    if let Some(response) = app.table.discovery().serve(&request) {
        return Ok(response);
    }
    if request.method() == Method::GET
        && let Some((media, document)) =
            auth::token::options::discovery(app.gate.tokens().config(), &path, &app.address)
    {
        let mut response = respond::value(StatusCode::OK, &document, false);
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(media));
        let keep = http::HeaderValue::from_static("public, max-age=3600");
        headers.insert(http::header::CACHE_CONTROL, keep);
        return Ok(response);
    }
    if let Some(response) = crate::openapi::serve(&request, &app.table.custom()) {
        return Ok(response);
    }
    let parameters = Parameters::parse(request.uri())?;
    // The server of HTTP leaves the content of an answer to HEAD out.
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let known = ["/version", "/metrics"].contains(&path.trim_end_matches('/'))
            || health::answer(&app.health, &path, &parameters).is_some();
        return Err(if known { StatusError::method_not_allowed() } else { StatusError::no_such_path() });
    }
    if let Some((namespace, name)) = path.strip_prefix("/debug/decisions/").and_then(|p| p.split_once('/')) {
        let json = app.decisions.about(namespace, name.trim_end_matches('/')).await?;
        let kind = [(http::header::CONTENT_TYPE, "application/json")];
        return Ok(axum::response::IntoResponse::into_response((kind, json)));
    }
    if let Some(response) = health::answer(&app.health, &path, &parameters) {
        return Ok(response);
    }
    let text = |code: StatusCode, text: String| {
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = code;
        let kind = http::HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        response
    };
    match path.trim_end_matches('/') {
        "/version" => Ok(respond::value(StatusCode::OK, &version(), true)),
        "/metrics" => {
            let mut response = text(StatusCode::OK, app.metrics.encode());
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
            Ok(response)
        }
        _ => Err(StatusError::no_such_path()),
    }
}

/// The answer of `/version`: the Kubernetes version whose API is served.
pub fn version() -> serde_json::Value {
    serde_json::json!({
        "major": "1",
        "minor": "35",
        "gitVersion": concat!("v1.35.0+coxswain.", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
