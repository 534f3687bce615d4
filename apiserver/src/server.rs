//! The one port: TLS, who the peer is, and which front answers (gRPC by its content type, REST otherwise).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use component::clock::Clock;
use component::health::Health;
use component::metrics::Metrics;
use component::tasks::{Spawner, Tasks};
use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::auth::{Authorizer, Gate, User};
use crate::metrics::RequestMetrics;
use crate::registry::Registry;

/// How long a peer may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Streams that one HTTP/2 connection may have open at once.
const MAX_STREAMS: u32 = 2000;

/// What every front needs.
pub struct App {
    /// The objects.
    pub registry: Arc<Registry>,
    /// The kinds.
    pub table: Arc<crate::custom::Table>,
    /// Who may do what.
    pub authorizer: Arc<Authorizer>,
    /// Who asks.
    pub gate: Arc<Gate>,
    /// Where the cluster reaches this server: host and port.
    pub address: String,
    /// The connections of the nodes.
    pub tunnels: Arc<crate::tunnel::Tunnels>,
    /// The schedulers, for those who ask why.
    pub decisions: Arc<crate::decisions::Decisions>,
    /// What `/readyz` shows.
    pub health: Health,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Counts and times of requests.
    pub requests: RequestMetrics,
    /// The clock.
    pub clock: Clock,
    /// Starts tasks that live at most as long as the server.
    pub tasks: Spawner,
    /// Reads that may be in progress at once.
    pub reads: Semaphore,
    /// Writes that may be in progress at once.
    pub writes: Semaphore,
    /// Cancelled when the server shuts down: watches and streams end.
    pub shutdown: CancellationToken,
}

impl App {
    /// Answers reviews.
    pub fn desk(&self) -> crate::auth::reviews::Desk<'_> {
        crate::auth::reviews::Desk { gate: &self.gate, authorizer: &self.authorizer }
    }
}

/// Who is at the other end of a connection; an extension of every request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Authenticated by certificate, or anonymous.
    pub user: User,
    /// Where from.
    pub address: SocketAddr,
}

/// Both fronts.
#[derive(Clone)]
pub struct Fronts {
    /// Answers everything but gRPC.
    pub rest: Router,
    /// Answers gRPC.
    pub grpc: Router,
    /// Tells who makes a request.
    pub gate: Arc<Gate>,
}

/// Accepts connections until the token is cancelled, then lets those that are open finish.
pub async fn serve(listener: TcpListener, acceptor: TlsAcceptor, fronts: Fronts, token: CancellationToken) {
    let connections = Tasks::new("connections");
    loop {
        let (stream, address) = tokio::select! {
            () = token.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Usually too many open files; those who are connected may close some.
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (acceptor, fronts, token) = (acceptor.clone(), fronts.clone(), token.clone());
        connections.spawn("connection", async move {
            if let Err(error) = connection(stream, address, acceptor, fronts, token).await {
                tracing::debug!(%address, error, "connection ended");
            }
        });
    }
    // Who comes now goes to another server, rather than to one that is about to end.
    drop(listener);
    if !connections.drain(Duration::from_secs(10)).await {
        tracing::warn!("some connections did not finish in time");
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    fronts: Fronts,
    token: CancellationToken,
) -> Result<(), String> {
    // Answers are written whole; waiting to fill packets would only delay them.
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
        .await
        .map_err(|_| "TLS handshake took too long".to_owned())?
        .map_err(|e| format!("TLS handshake: {e}"))?;
    let user = match stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()) {
        Some(certificate) => {
            let mut user =
                User::authenticated(component::tls::identity(certificate).map_err(|e| e.to_string())?);
            let digest: String = Sha256::digest(certificate).iter().map(|b| format!("{b:02x}")).collect();
            let credential = vec![format!("X509SHA256={digest}")];
            user.extra.insert("authentication.kubernetes.io/credential-id".into(), credential);
            user
        }
        None => User::anonymous(),
    };
    let peer = Peer { user, address };
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let (peer, fronts) = (peer.clone(), fronts.clone());
        async move {
            let grpc = is_grpc(request.headers().get(header::CONTENT_TYPE));
            match fronts.gate.admit(&peer.user, request.headers()).await {
                Ok(user) => request.extensions_mut().insert(Peer { user, ..peer }),
                Err(error) if grpc => {
                    return Ok(proto::errors::to_grpc(&error.0).into_http::<axum::body::Body>());
                }
                Err(error) => return Ok(crate::rest::respond::refusal(&error)),
            };
            let front = if grpc { fronts.grpc } else { fronts.rest };
            front.oneshot(request.map(axum::body::Body::new)).await
        }
    });
    let builder = builder();
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(|e| e.to_string()),
        () = token.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(|e| e.to_string())
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30))
        .max_headers(128)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(64 << 10)
        // A peer that vanished without a word is noticed, so that its watches end.
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        // Streams of a node tunnel that nobody reads must not hold up the others.
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(64 << 20);
    builder
}

fn is_grpc(content_type: Option<&HeaderValue>) -> bool {
    content_type.is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"))
}
