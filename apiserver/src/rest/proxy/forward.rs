//! Passes one HTTP request on over a connection, and its answer back.

use std::net::IpAddr;

use api::StatusError;
use axum::body::Body;
use axum::response::Response;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::dial::{Connection, unreachable};
use crate::server::App;

/// Headers that are about one connection.
const HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// How a request appears on the other side.
pub struct Route {
    /// Its path there, as it is written in a request, without the query.
    pub path: String,
    /// Who is asked, as a URL there names the host.
    pub host: String,
    /// What stands before the path on this side.
    pub prefix: String,
    /// Who asks.
    pub client: IpAddr,
    /// Whether the request names `host`, rather than the one that the client named.
    pub names_host: bool,
    /// What is said beside what the client says.
    pub headers: HeaderMap,
}

/// The protocol that a message asks to upgrade to.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let tokens = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    let asked = tokens.flat_map(|v| v.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asked).cloned()
}

/// Passes a request on and waits for the head of the answer; bodies, or what follows an upgrade, are streamed.
///
/// # Errors
/// 503 when there is no answer.
pub async fn forward(
    app: &App,
    connection: Connection,
    route: Route,
    mut request: Request<Body>,
) -> Result<Response, StatusError> {
    let asked = upgrade(request.headers());
    let here = asked.as_ref().and_then(|_| request.extensions_mut().remove::<OnUpgrade>());
    // HTTP/2 names the host beside the headers.
    let host = request.headers().get(header::HOST).filter(|_| !route.names_host).cloned();
    let authority = || {
        request
            .uri()
            .authority()
            .filter(|_| !route.names_host)
            .and_then(|a| HeaderValue::try_from(a.as_str()).ok())
    };
    let host = host.or_else(authority).or_else(|| HeaderValue::try_from(&route.host).ok());
    let request_host = host.as_ref().and_then(|h| h.to_str().ok()).unwrap_or_default().to_owned();
    let (mut parts, body) = request.into_parts();
    strip(&mut parts.headers);
    credentials(&mut parts.headers);
    if let Some(host) = host {
        parts.headers.insert(header::HOST, host);
    }
    if let (Some(protocol), Some(_)) = (asked, &here) {
        parts.headers.insert(header::UPGRADE, protocol);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    forwarded(&mut parts.headers, &route, parts.uri.path());
    for (name, value) in &route.headers {
        parts.headers.append(name, value.clone());
    }
    parts.uri = uri(&route.path, parts.uri.query())?;
    parts.version = Version::HTTP_11;
    parts.extensions = http::Extensions::default();
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(connection));
    let (mut sender, running) = handshake.await.map_err(unreachable)?;
    let shutdown = app.shutdown.clone();
    app.tasks.spawn("proxied request", async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            ended = running.with_upgrades() => if let Err(error) = ended {
                tracing::debug!(%error, "a proxied connection broke");
            }
        }
    });
    let answer = sender.send_request(Request::from_parts(parts, body)).await.map_err(unreachable)?;
    let (mut parts, body) = answer.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        let Some((here, there)) = here.zip(parts.extensions.remove::<OnUpgrade>()) else {
            return Err(unreachable("an upgrade that nobody asked for"));
        };
        let shutdown = app.shutdown.clone();
        app.tasks.spawn("proxied upgrade", async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = join(here, there) => {}
            }
        });
        parts.extensions = http::Extensions::default();
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    strip(&mut parts.headers);
    let cors = |name: &HeaderName| name.as_str().starts_with("access-control-");
    let remove: Vec<_> = parts.headers.keys().filter(|name| cors(name)).cloned().collect();
    for name in remove {
        // Who may see this server's answers is not for others to say.
        parts.headers.remove(name);
    }
    if let Some(location) = parts.headers.get(header::LOCATION).and_then(|v| v.to_str().ok()) {
        let rewritten = relocate(location, &route, &request_host);
        if let Ok(value) = HeaderValue::try_from(rewritten) {
            parts.headers.insert(header::LOCATION, value);
        }
    }
    parts.version = Version::HTTP_11;
    Ok(Response::from_parts(parts, Body::new(body)))
}

fn uri(path: &str, query: Option<&str>) -> Result<Uri, StatusError> {
    let whole = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let path = PathAndQuery::try_from(whole).map_err(|e| StatusError::bad_request(e.to_string()))?;
    Ok(Uri::from(path))
}

/// Removes what is about the connection alone.
fn strip(headers: &mut HeaderMap) {
    let tokens = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    let named: Vec<_> =
        tokens.flat_map(|v| v.split(',')).filter_map(|t| HeaderName::try_from(t.trim()).ok()).collect();
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
}

/// Removes what proves or changes who asks: that is for this server alone.
fn credentials(headers: &mut HeaderMap) {
    let secret = |name: &HeaderName| {
        let name = name.as_str();
        name == "authorization" || name.starts_with("impersonate-") || name.starts_with("x-remote-")
    };
    let remove: Vec<_> = headers.keys().filter(|name| secret(name)).cloned().collect();
    for name in remove {
        headers.remove(name);
    }
}

fn forwarded(headers: &mut HeaderMap, route: &Route, path: &str) {
    const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    let earlier: Vec<_> = headers.get_all(FOR).iter().filter_map(|v| v.to_str().ok()).collect();
    let mut chain = earlier.join(", ");
    if !chain.is_empty() {
        chain.push_str(", ");
    }
    chain.push_str(&route.client.to_string());
    for (name, value) in [(FOR, chain.as_str()), (HeaderName::from_static("x-forwarded-uri"), path)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

/// A redirection as the client can follow it: within what is proxied, it leads through this server.
fn relocate(location: &str, route: &Route, request_host: &str) -> String {
    let absolute = location.split_once("://").filter(|(scheme, _)| {
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    let (host, path) = match (absolute, location.strip_prefix("//")) {
        (Some((_, rest)), _) | (None, Some(rest)) => {
            rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
        }
        (None, None) => ("", location),
    };
    let elsewhere = !host.is_empty() && host != route.host && host != request_host;
    if elsewhere || !path.starts_with('/') {
        return location.to_owned();
    }
    let within =
        path.strip_prefix(&route.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if within { path.to_owned() } else { format!("{}{path}", route.prefix) }
}

/// Copies both ways between two upgraded connections until both are closed.
async fn join(here: OnUpgrade, there: OnUpgrade) {
    let (here, there) = match tokio::try_join!(here, there) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "a proxied connection was not upgraded"),
    };
    let (mut here, mut there) = (TokioIo::new(here), TokioIo::new(there));
    if let Err(error) = tokio::io::copy_bidirectional(&mut here, &mut there).await {
        tracing::debug!(%error, "a proxied connection broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        Route {
            path: "/x".into(),
            host: "10.0.0.1:8080".into(),
            prefix: "/api/v1/namespaces/d/pods/p/proxy".into(),
            client: IpAddr::from([10, 0, 0, 9]),
            names_host: false,
            headers: HeaderMap::new(),
        }
    }

    #[test]
    fn redirections_lead_through_the_proxy() {
        let check = |location: &str, wanted: &str| {
            let wanted = wanted.replace('~', "/api/v1/namespaces/d/pods/p/proxy");
            assert_eq!(relocate(location, &route(), "api:6443"), wanted, "{location}");
        };
        check("/login?next=/a#b", "~/login?next=/a#b");
        check("http://10.0.0.1:8080/login/", "~/login/");
        check("https://api:6443/login", "~/login");
        check("//10.0.0.1:8080/login", "~/login");
        check("https://example.org/login", "https://example.org/login");
        check("login", "login");
        check("../up", "../up");
        check("~/login".replace('~', &route().prefix).as_str(), "~/login");
        check("/api/v1/namespaces/d/pods/p/proxyother", "~/api/v1/namespaces/d/pods/p/proxyother");
    }

    #[test]
    fn what_is_for_this_server_alone_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        let all = [
            ("connection", "keep-alive, x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("authorization", "Bearer secret"),
            ("impersonate-user", "root"),
            ("x-remote-user", "root"),
            ("accept", "text/html"),
            ("cookie", "a=b"),
        ];
        for (name, value) in all {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        credentials(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "cookie"]);
        forwarded(&mut headers, &route(), "/a");
        forwarded(&mut headers, &route(), "/a");
        assert_eq!(headers["x-forwarded-for"], "10.0.0.9, 10.0.0.9");
    }

    #[test]
    fn an_upgrade_is_asked_for_by_two_headers() {
        let headers = |connection: &'static str| {
            let pairs = [(header::CONNECTION, connection), (header::UPGRADE, "websocket")];
            pairs.into_iter().map(|(n, v)| (n, HeaderValue::from_static(v))).collect::<HeaderMap>()
        };
        assert_eq!(upgrade(&headers("keep-alive, Upgrade")).expect("one"), "websocket");
        assert_eq!(upgrade(&headers("close")), None);
    }
}
