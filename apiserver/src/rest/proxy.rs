//! `pods/proxy`, `services/proxy` and `nodes/proxy`: HTTP to what an object stands for, through its node's tunnel.
//!
//! [`target`] decides where a request goes, [`dial`] brings a connection there, [`forward`] passes the request on.

use std::sync::Arc;

use api::{Object, StatusError};
use axum::body::Body;
use axum::response::Response;
use http::{Method, Request, StatusCode, header};
use rand::RngExt;

use super::path::ResourcePath;
use crate::registry::read::ListQuery;
use crate::server::{App, Peer};
use target::{Id, Place, Target};

pub mod dial;
pub mod forward;
pub mod target;

/// Upstream's verb for a method; proxies take them all.
pub fn verb(method: &Method) -> Option<&'static str> {
    match method.as_str() {
        "GET" | "HEAD" => Some("get"),
        "POST" => Some("create"),
        "PUT" => Some("update"),
        "PATCH" => Some("patch"),
        "DELETE" => Some("delete"),
        "OPTIONS" => Some("options"),
        _ => None,
    }
}

/// Passes a request on, which is authorized already.
///
/// # Errors
/// 404 for an object that does not exist, 400 for a name that makes no sense, 503 when nothing answers there.
pub async fn serve(
    app: &Arc<App>,
    peer: &Peer,
    path: &ResourcePath,
    request: Request<Body>,
) -> Result<Response, StatusError> {
    let target = find(app, path).await?;
    let upgrades = forward::upgrade(request.headers()).is_some();
    if path.tail.is_empty() && !upgrades && matches!(*request.method(), Method::GET | Method::HEAD) {
        // Relative links of a page work beneath its folder alone.
        return Ok(redirect(request.uri()));
    }
    let connection = dial::connect(app, &peer.user, &target).await?;
    let own = request.uri().path();
    let prefix = own.strip_suffix(path.tail.as_str()).unwrap_or(own).to_owned();
    let route = forward::Route {
        path: if path.tail.is_empty() { "/".to_owned() } else { path.tail.clone() },
        host: target.place.host(),
        prefix,
        client: peer.address.ip(),
        names_host: false,
        headers: http::HeaderMap::new(),
    };
    forward::forward(app, connection, route, request).await
}

fn redirect(uri: &http::Uri) -> Response {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = http::HeaderValue::try_from(format!("{}/{query}", uri.path())) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

async fn get(app: &App, path: &ResourcePath, name: &str) -> Result<Object, StatusError> {
    let entry = app.registry.get(path.kind, &path.namespace, name, "").await?;
    Object::parse(&entry.json).map_err(StatusError::internal)
}

async fn find(app: &App, path: &ResourcePath) -> Result<Target, StatusError> {
    let word = path.kind.singular();
    let id = Id::parse(&path.name)
        .ok_or_else(|| StatusError::bad_request(format!("invalid {word} request {:?}", path.name)))?;
    let object = get(app, path, id.name).await?;
    let place = match path.kind.kind {
        "Pod" => target::of_pod(&object, &id)?,
        "Service" => {
            let port = target::service_port(&object, &id)?;
            service(app, &path.namespace, &id, &port).await?
        }
        _ => target::of_node(id.name, &id)?,
    };
    // The kubelet's own endpoints are reached through its tunnel, which is encrypted as it is.
    let https = id.scheme == "https" && !matches!(place, Place::Kubelet { .. });
    Ok(Target { https, place })
}

/// An endpoint of a port, by its name, of a Service.
///
/// # Errors
/// 503 when there is none.
pub async fn service(app: &App, namespace: &str, id: &Id<'_>, port: &str) -> Result<Place, StatusError> {
    let kind = api::Kind::find("discovery.k8s.io", "EndpointSlice").ok_or_else(StatusError::no_such_path)?;
    let label_selector = format!("kubernetes.io/service-name={}", id.name);
    let query = ListQuery { label_selector, ..ListQuery::default() };
    let list = app.registry.list(kind, namespace, &query).await?;
    let slices: Result<Vec<_>, _> = list.entries.iter().map(|entry| Object::parse(&entry.json)).collect();
    let places = target::endpoints(&slices.map_err(StatusError::internal)?, port);
    if places.is_empty() {
        let name = if id.port.is_empty() { id.name } else { id.whole };
        let text = format!("no endpoints available for service {name:?}");
        return Err(StatusError::unavailable(text));
    }
    let chosen = rand::rng().random_range(0..places.len());
    places.into_iter().nth(chosen).ok_or_else(|| StatusError::internal("no endpoint was chosen"))?
}
