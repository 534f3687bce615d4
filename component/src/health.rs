//! Health endpoints in upstream's form, and the small server that components show them on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::tasks::{Tasks, lock};
use crate::tls::{self, Identity};

/// The checks that decide whether a process is ready. Cheap to clone.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>);

/// One named check of a [`Health`].
#[derive(Clone)]
pub struct Check {
    health: Health,
    name: &'static str,
}

impl Health {
    /// No checks: alive and ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check, which fails until it is told otherwise.
    pub fn check(&self, name: &'static str) -> Check {
        lock(&self.0).insert(name, Err("not started".into()));
        Check { health: self.clone(), name }
    }

    /// Whether every check passes.
    pub fn is_ready(&self) -> bool {
        lock(&self.0).values().all(Result::is_ok)
    }

    /// Every check with its name, in the order of names.
    pub fn checks(&self) -> Vec<(String, Result<(), String>)> {
        lock(&self.0).iter().map(|(name, result)| ((*name).to_owned(), result.clone())).collect()
    }

    /// Upstream's answer: `ok`, or the list of checks when one fails or `verbose` is asked for.
    pub fn report(&self, endpoint: &str, verbose: bool) -> (StatusCode, String) {
        let checks = lock(&self.0).clone();
        let ready = checks.values().all(Result::is_ok);
        if ready && !verbose {
            return (StatusCode::OK, "ok".into());
        }
        let mut text = String::from("[+]ping ok\n");
        for (name, result) in &checks {
            text += &match result {
                Ok(()) => format!("[+]{name} ok\n"),
                Err(why) => format!("[-]{name} failed: {why}\n"),
            };
        }
        text += &format!("{endpoint} check {}\n", if ready { "passed" } else { "failed" });
        (if ready { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }, text)
    }
}

impl Check {
    /// The check passes from now on.
    pub fn ok(&self) {
        lock(&self.health.0).insert(self.name, Ok(()));
    }

    /// The check fails from now on.
    pub fn failed(&self, why: impl Into<String>) {
        lock(&self.health.0).insert(self.name, Err(why.into()));
    }
}

#[derive(Clone)]
struct Shown {
    health: Health,
    metrics: Metrics,
}

/// `/healthz`, `/livez` (the process answers), `/readyz` (all checks pass; `?verbose`) and `/metrics`.
pub fn router(health: Health, metrics: Metrics) -> Router {
    async fn readyz(State(shown): State<Shown>, RawQuery(query): RawQuery) -> Response {
        let verbose = query.is_some_and(|q| q.split('&').any(|p| p.starts_with("verbose")));
        shown.health.report("readyz", verbose).into_response()
    }
    async fn metrics_text(State(shown): State<Shown>) -> Response {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], shown.metrics.encode()).into_response()
    }
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(Shown { health, metrics })
}

/// Serves a router over HTTP/1.1 and HTTP/2 until the token is cancelled, over TLS if it is given.
///
/// # Errors
/// When the address cannot be bound. Errors of single connections are logged and end them alone.
pub async fn serve(
    addr: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    token: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    let acceptor = tls.map(TlsAcceptor::from);
    let connections = Tasks::new("health server");
    loop {
        let stream = tokio::select! {
            () = token.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (router, acceptor) = (router.clone(), acceptor.clone());
        connections.spawn("connection", async move {
            if let Err(error) = connection(stream, acceptor, router).await {
                tracing::debug!(error, "connection ended");
            }
        });
    }
}

/// Serves a router over HTTP/1.1 and HTTP/2 on one connection that somebody else has accepted, until it ends.
///
/// # Errors
/// What broke the connection.
pub async fn serve_stream<S>(stream: S, router: Router) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.layer(axum::Extension(Peer::Plain)));
    let server = auto::Builder::new(TokioExecutor::new());
    server.serve_connection(TokioIo::new(stream), service).await.map_err(|e| e.to_string())
}

/// Who is at the other end of a connection; an extension of every request that [`serve`] hands on.
#[derive(Clone, Debug)]
pub enum Peer {
    /// The connection is not encrypted: whoever reaches the address.
    Plain,
    /// TLS without a client certificate.
    Anonymous,
    /// TLS with a certificate that was verified.
    Known(Identity),
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, router: Router) -> Result<(), String> {
    let server = auto::Builder::new(TokioExecutor::new());
    let service = |peer: Peer| TowerToHyperService::new(router.layer(axum::Extension(peer)));
    let served = match acceptor {
        None => server.serve_connection(TokioIo::new(stream), service(Peer::Plain)).await,
        Some(acceptor) => {
            let stream = acceptor.accept(stream).await.map_err(|e| e.to_string())?;
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let peer = match certificate.map(tls::identity) {
                None => Peer::Anonymous,
                Some(identity) => Peer::Known(identity.map_err(|e| e.to_string())?),
            };
            server.serve_connection(TokioIo::new(stream), service(peer)).await
        }
    };
    served.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_fails_until_it_is_told_otherwise() {
        let health = Health::new();
        assert_eq!(health.report("readyz", false), (StatusCode::OK, "ok".into()));
        let etcd = health.check("etcd");
        let (code, text) = health.report("readyz", false);
        assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(text, "[+]ping ok\n[-]etcd failed: not started\nreadyz check failed\n");
        etcd.ok();
        assert!(health.is_ready());
        assert!(health.report("readyz", true).1.contains("[+]etcd ok\n"));
        etcd.failed("gone");
        assert!(!health.is_ready());
    }
}
