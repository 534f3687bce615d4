//! Listening: TCP and Unix sockets, with TLS or without, for gRPC and for `/health`, `/metrics` and `/version`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::authority::Lenient;
use axum::Router;
use component::tasks::Tasks;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How long a peer may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long connections may take to end when the server does.
const GOODBYE: Duration = Duration::from_secs(5);

/// Where to listen, as flags name it: `http://127.0.0.1:2379`, `https://…`, `unix:///run/etcd.sock`, `unixs://…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Where.
    pub address: Address,
}

/// A socket's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Host and port.
    Tcp(SocketAddr),
    /// A path.
    Unix(PathBuf),
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, self.tls) {
            (Address::Tcp(address), false) => write!(f, "http://{address}"),
            (Address::Tcp(address), true) => write!(f, "https://{address}"),
            (Address::Unix(path), false) => write!(f, "unix://{}", path.display()),
            (Address::Unix(path), true) => write!(f, "unixs://{}", path.display()),
        }
    }
}

impl FromStr for ListenUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("{text:?} is no URL"))?;
        let (unix, tls) = match scheme {
            "http" => (false, false),
            "https" => (false, true),
            "unix" => (true, false),
            "unixs" => (true, true),
            _ => return Err(format!("{text:?}: the scheme must be http, https, unix or unixs")),
        };
        if unix {
            return if rest.is_empty() {
                Err(format!("{text:?} names no path"))
            } else {
                Ok(Self { tls, address: Address::Unix(rest.into()) })
            };
        }
        let rest = rest.trim_end_matches('/').replace("localhost", "127.0.0.1");
        let address =
            rest.parse().map_err(|_| format!("{text:?}: the host must be an IP address with a port"))?;
        Ok(Self { tls, address: Address::Tcp(address) })
    }
}

/// How connections are taken.
#[derive(Clone)]
pub(crate) struct Front {
    pub router: Router,
    pub tls: Option<TlsAcceptor>,
    /// Whether a peer without a certificate is sent away.
    pub need_client_cert: bool,
}

/// A listening socket.
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// Where it listens.
    pub fn address(&self) -> Option<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(Address::Tcp),
            Self::Unix(listener) => {
                listener.local_addr().ok()?.as_pathname().map(|path| Address::Unix(path.to_owned()))
            }
        }
    }
}

/// Opens a listening socket. The file of a Unix socket that nobody listens on any more is replaced.
///
/// # Errors
/// When the address is taken, or not this machine's.
pub async fn listen(address: &Address) -> std::io::Result<Listener> {
    match address {
        Address::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
        Address::Unix(path) => {
            if UnixStream::connect(path).await.is_err() && path.exists() {
                std::fs::remove_file(path)?;
            }
            UnixListener::bind(path).map(Listener::Unix)
        }
    }
}

/// Accepts connections until the token is cancelled, then lets those that are open finish.
pub(crate) async fn serve(listener: Listener, front: Front, token: CancellationToken) {
    let connections = Tasks::new("connections");
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => break,
            accepted = accept(&listener) => accepted,
        };
        let (front, token) = (front.clone(), token.clone());
        let spawned = match accepted {
            Ok(Stream::Tcp(stream)) => connections.spawn("connection", log(secure(stream, front, token))),
            Ok(Stream::Unix(stream)) => connections.spawn("connection", log(secure(stream, front, token))),
            Err(error) => {
                // Usually too many open files; those who are connected may close some.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        drop(spawned);
    }
    if !connections.drain(GOODBYE).await {
        tracing::debug!("some connections did not finish in time");
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

async fn accept(listener: &Listener) -> std::io::Result<Stream> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            // Answers are written whole; waiting to fill packets would only delay them.
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
        Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
    }
}

async fn log(connection: impl Future<Output = Result<(), String>>) {
    if let Err(error) = connection.await {
        tracing::debug!(error, "connection ended");
    }
}

async fn secure<S>(stream: S, front: Front, token: CancellationToken) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Some(acceptor) = front.tls else { return connection(stream, front.router, token).await };
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
        .await
        .map_err(|_| "TLS handshake took too long".to_owned())?
        .map_err(|e| format!("TLS handshake: {e}"))?;
    if front.need_client_cert && stream.get_ref().1.peer_certificates().is_none_or(|c| c.is_empty()) {
        return Err("the client has no certificate".into());
    }
    connection(stream, front.router, token).await
}

async fn connection<S>(stream: S, router: Router, token: CancellationToken) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30))
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(10_000)
        // A peer that vanished without a word is noticed, so that its watches end.
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20);
    let connection =
        builder.serve_connection(TokioIo::new(Lenient::new(stream)), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(|e| e.to_string()),
        () = token.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(|e| e.to_string())
}

/// The TLS side of the flags.
pub(crate) fn acceptor(config: Arc<rustls::ServerConfig>) -> TlsAcceptor {
    TlsAcceptor::from(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where_to_listen() {
        for text in ["http://127.0.0.1:2379", "https://[::1]:1", "unix:///run/e.sock", "unixs://e.sock"] {
            assert_eq!(text.parse::<ListenUrl>().map(|url| url.to_string()).as_deref(), Ok(text));
        }
        assert_eq!(
            "http://localhost:2379/".parse::<ListenUrl>().map(|u| u.to_string()).as_deref(),
            Ok("http://127.0.0.1:2379")
        );
        for text in ["127.0.0.1:2379", "ftp://127.0.0.1:1", "http://name:1", "http://127.0.0.1", "unix://"] {
            assert!(text.parse::<ListenUrl>().is_err(), "{text}");
        }
    }
}
