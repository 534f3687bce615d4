//! Groups of the API that others serve: APIServices lead requests for them to Services of the cluster.
//!
//! [`controller`] keeps the APIServices of what this server serves itself, and finds out which of the others are
//! available; what it knows of those is in the table of kinds, from which discovery is made and [`serve`] finds its way.

pub mod controller;
pub mod front_proxy;
mod local;
pub mod remote;
pub mod request;

use std::sync::Arc;

use api::StatusError;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use crate::auth::{self, User};
use crate::rest::proxy::forward;
use crate::rest::query::Parameters;
use crate::server::{App, Peer};
use remote::Remote;
use request::Named;

/// Passes a request on to whoever serves its group.
///
/// # Errors
/// 403 for what the user may not do, 503 when nobody answers.
pub async fn serve(
    app: &Arc<App>,
    peer: &Peer,
    remote: &Remote,
    request: Request<Body>,
) -> Result<Response, StatusError> {
    let path = request.uri().path().to_owned();
    let named = Named::parse(&path).filter(|named| !named.resource.is_empty());
    let allowed = match &named {
        Some(named) => {
            // A query that is not understood here may be over there.
            let parameters = Parameters::parse(request.uri()).unwrap_or_default();
            let verb = named.verb(request.method(), parameters.flag("watch"));
            app.authorizer.authorize(&peer.user, &auth::Request::Resource(verb, named.resource()))
        }
        None => {
            let verb = request.method().as_str().to_lowercase();
            app.authorizer.authorize(&peer.user, &auth::Request::Path(&verb, &path))
        }
    };
    allowed?;
    if !remote.available {
        return Err(StatusError::unavailable("service unavailable"));
    }
    let connection = remote.connect(app, &peer.user).await?;
    let route = forward::Route {
        path,
        host: remote.host(),
        names_host: true,
        prefix: String::new(),
        client: peer.address.ip(),
        headers: identity(&peer.user),
    };
    forward::forward(app, connection, route, request).await
}

/// The headers that say who asks.
pub fn identity(user: &User) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    };
    add("x-remote-user", &user.name);
    if !user.uid.is_empty() {
        add("x-remote-uid", &user.uid);
    }
    for group in &user.groups {
        add("x-remote-group", group);
    }
    for (key, values) in &user.extra {
        for value in values {
            add(&format!("x-remote-extra-{}", escape(key)), value);
        }
    }
    headers
}

/// What cannot stand in the name of a header is written as in a URL.
fn escape(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.to_lowercase().bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_who_asks() {
        let mut user = User::of("anna", &["a", "b"]);
        user.extra.insert("Acme.com/Project".into(), vec!["x".into()]);
        let headers = identity(&user);
        assert_eq!(headers["x-remote-user"], "anna");
        let groups: Vec<_> = headers.get_all("x-remote-group").iter().collect();
        assert_eq!(groups, ["a", "b"]);
        assert_eq!(headers["x-remote-extra-acme.com%2fproject"], "x");
        assert!(headers.get("x-remote-uid").is_none());
    }
}
