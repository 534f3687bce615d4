//! `kubectl proxy`: the API on a local port, for hosts and paths that are let through.

use std::convert::Infallible;
use std::sync::Arc;

use clap::Args;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kube::client::{Body, Client};
use regex::Regex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::output::{println, warn};
use crate::session::Session;

/// Run a proxy to the Kubernetes API server
#[derive(Args, Debug)]
pub struct Proxy {
    /// The port on which to run the proxy; 0 picks one
    #[arg(long, short = 'p', default_value_t = 8001)]
    pub port: u16,
    /// The IP address on which to serve on
    #[arg(long, default_value = "127.0.0.1")]
    pub address: String,
    /// Prefix to serve the proxied API under
    #[arg(long, default_value = "/")]
    pub api_prefix: String,
    /// Regular expressions for hosts that the proxy should accept
    #[arg(long, default_value = r"^localhost$,^127\.0\.0\.1$,^\[::1\]$")]
    pub accept_hosts: String,
    /// Regular expressions for paths that the proxy should accept
    #[arg(long, default_value = "^.*")]
    pub accept_paths: String,
    /// Regular expressions for paths that the proxy should reject
    #[arg(long, default_value = "^/api/.*/pods/.*/exec,^/api/.*/pods/.*/attach")]
    pub reject_paths: String,
    /// Regular expressions for HTTP methods that the proxy should reject
    #[arg(long, default_value = "^$")]
    pub reject_methods: String,
    /// Disable request filtering; dangerous
    #[arg(long)]
    pub disable_filter: bool,
}

/// What is let through.
#[derive(Debug)]
struct Filter {
    hosts: Vec<Regex>,
    paths: Vec<Regex>,
    rejected_paths: Vec<Regex>,
    rejected_methods: Vec<Regex>,
    prefix: String,
}

fn expressions(text: &str) -> Result<Vec<Regex>> {
    let parse = |part: &str| {
        Regex::new(part).map_err(|e| Error::message(format!("invalid regular expression {part:?}: {e}")))
    };
    text.split(',').filter(|p| !p.is_empty()).map(parse).collect()
}

fn any(expressions: &[Regex], text: &str) -> bool {
    expressions.iter().any(|e| e.is_match(text))
}

/// The host of a `Host` header, without its port.
fn host_of(header: &str) -> &str {
    match header.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(end) => &header[..end + 2],
        None => header.rsplit_once(':').map_or(header, |(host, _)| host),
    }
}

impl Filter {
    /// The path that is asked of the server, if this may pass.
    fn pass<'a>(&self, method: &str, host: &str, path: &'a str) -> Option<&'a str> {
        let inner = path.strip_prefix(self.prefix.as_str())?;
        if !self.prefix.is_empty() && !inner.starts_with('/') {
            return None;
        }
        let bare = inner.split('?').next().unwrap_or_default();
        let allowed = any(&self.hosts, host_of(host))
            && any(&self.paths, bare)
            && !any(&self.rejected_paths, bare)
            && !any(&self.rejected_methods, method);
        allowed.then_some(inner)
    }
}

type Answer = Response<UnsyncBoxBody<bytes::Bytes, kube::Error>>;

impl Proxy {
    /// Runs the command until it is interrupted.
    pub async fn run(self, session: &Session) -> Result<()> {
        let filter = Arc::new(self.filter()?);
        if self.disable_filter {
            warn("Request filter disabled, your proxy is vulnerable to XSRF attacks, please be cautious");
        }
        let client = session.client().await?.clone();
        let listener = TcpListener::bind((self.address.as_str(), self.port))
            .await
            .map_err(|e| Error::message(format!("listen tcp {}:{}: {e}", self.address, self.port)))?;
        println(format!("Starting to serve on {}", listener.local_addr()?))?;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted?;
                    connections.spawn(serve(stream, client.clone(), filter.clone()));
                }
                Some(_) = connections.join_next() => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    }

    fn filter(&self) -> Result<Filter> {
        let prefix = self.api_prefix.trim_end_matches('/').to_owned();
        if self.disable_filter {
            let all = || expressions("^.*");
            return Ok(Filter {
                hosts: all()?,
                paths: all()?,
                rejected_paths: vec![],
                rejected_methods: vec![],
                prefix,
            });
        }
        Ok(Filter {
            hosts: expressions(&self.accept_hosts)?,
            paths: expressions(&self.accept_paths)?,
            rejected_paths: expressions(&self.reject_paths)?,
            rejected_methods: expressions(&self.reject_methods)?,
            prefix,
        })
    }
}

async fn serve(stream: tokio::net::TcpStream, client: Client, filter: Arc<Filter>) {
    let service = hyper::service::service_fn(move |request| {
        let (client, filter) = (client.clone(), filter.clone());
        async move { Ok::<_, Infallible>(handle(request, &client, &filter).await) }
    });
    // A client that breaks off its connection is no concern of the others.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn handle(request: Request<Incoming>, client: &Client, filter: &Filter) -> Answer {
    let host = request.headers().get("host").and_then(|h| h.to_str().ok()).unwrap_or_default();
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let Some(inner) = filter.pass(request.method().as_str(), host, path) else {
        return said(StatusCode::FORBIDDEN, "Forbidden");
    };
    let Ok(uri) = inner.parse::<http::Uri>() else { return said(StatusCode::BAD_REQUEST, "invalid path") };
    let (mut parts, body) = request.into_parts();
    parts.uri = uri;
    strip_hop_by_hop(&mut parts.headers);
    parts.headers.remove("host");
    // The proxy's own identity is used, never one that a page in a browser brings along.
    parts.headers.remove("authorization");
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) => return said(StatusCode::BAD_REQUEST, &format!("read the request: {e}")),
    };
    match client.send(Request::from_parts(parts, Body::from(body))).await {
        Ok(answer) => {
            let (mut parts, body) = answer.into_parts();
            strip_hop_by_hop(&mut parts.headers);
            Response::from_parts(parts, body.boxed_unsync())
        }
        Err(e) => said(StatusCode::BAD_GATEWAY, &crate::session::root_cause(&e)),
    }
}

fn strip_hop_by_hop(headers: &mut http::HeaderMap) {
    for name in
        ["connection", "keep-alive", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"]
    {
        headers.remove(name);
    }
}

fn said(code: StatusCode, text: &str) -> Answer {
    let body = Body::from(format!("{text}\n").into_bytes());
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = code;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        proxy: Proxy,
    }

    #[track_caller]
    fn check(args: &[&str], (method, host, path): (&str, &str, &str), want: Option<&str>) {
        let line = Line::try_parse_from(std::iter::once(&"proxy").chain(args)).unwrap();
        assert_eq!(line.proxy.filter().unwrap().pass(method, host, path), want);
    }

    #[test]
    fn only_local_hosts_and_harmless_paths_pass() {
        check(&[], ("GET", "localhost:8001", "/api/v1/pods?limit=1"), Some("/api/v1/pods?limit=1"));
        check(&[], ("GET", "127.0.0.1", "/version"), Some("/version"));
        check(&[], ("GET", "[::1]:8001", "/version"), Some("/version"));
        check(&[], ("GET", "evil.example:8001", "/version"), None);
        check(&[], ("GET", "localhost.evil.example", "/version"), None);
        check(&[], ("POST", "localhost", "/api/v1/namespaces/a/pods/b/exec?command=x"), None);
        check(&["--reject-methods=^POST$"], ("POST", "localhost", "/version"), None);
        check(&["--api-prefix=/k8s/"], ("GET", "localhost", "/k8s/version"), Some("/version"));
        check(&["--api-prefix=/k8s/"], ("GET", "localhost", "/version"), None);
        check(&["--disable-filter"], ("GET", "evil.example", "/version"), Some("/version"));
    }
}
