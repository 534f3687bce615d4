//! The runtime's streaming server, to which exec and attach are directed: SPDY/3.1 over HTTP/1.1.

use std::time::Duration;

use bytes::Bytes;
use component::tasks::{AbortOnDrop, Tasks};
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use spdy::{Config, Headers, Role, Session, Stream};
use tokio::net::TcpStream;

/// The only protocol that reports exit codes and half-closes standard input.
const PROTOCOL: &str = "v4.channel.k8s.io";
const PROTOCOL_HEADER: &str = "X-Stream-Protocol-Version";
const CONNECT: Duration = Duration::from_secs(10);
/// How long a session in which nothing moves is kept.
const IDLE: Duration = Duration::from_secs(4 * 60 * 60);
/// Output that may wait for the tunnel.
const BUFFER: usize = 512 * 1024;
/// The longest refusal that is read.
const MAX_REFUSAL: usize = 16 * 1024;

/// Why no session with the streaming server came about.
#[derive(Debug, thiserror::Error)]
pub(super) enum RemoteError {
    #[error("the runtime's streaming address {0:?} is no http URL")]
    Address(String),
    #[error("failed to reach the runtime's streaming server: {0}")]
    Connect(String),
    #[error("the runtime's streaming server answered {0}: {1}")]
    Refused(StatusCode, String),
    #[error(transparent)]
    Spdy(#[from] spdy::Error),
}

/// Which streams a session has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// A session: its streams, and the task that moves their bytes, which ends with it.
pub(super) struct Remote {
    pub session: Session,
    pub error: Stream,
    pub stdin: Option<Stream>,
    pub stdout: Option<Stream>,
    pub stderr: Option<Stream>,
    pub resize: Option<Stream>,
    pub driver: AbortOnDrop,
}

impl Remote {
    /// Opens a session at the address that the runtime gave.
    pub(super) async fn open(address: &str, wanted: Wanted, tasks: &Tasks) -> Result<Self, RemoteError> {
        let connecting = Self::connect(address, wanted, tasks);
        match tokio::time::timeout(CONNECT, connecting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RemoteError::Connect(format!("no answer within {CONNECT:?}"))),
        }
    }

    async fn connect(address: &str, wanted: Wanted, tasks: &Tasks) -> Result<Self, RemoteError> {
        let io = upgrade(address, tasks).await?;
        let config =
            Config { role: Role::Client, max_streams: 1, max_buffered: BUFFER, stall: None, idle: IDLE };
        let (session, _incoming, driver) = spdy::connection(io, config);
        let driver = AbortOnDrop(tasks.spawn("spdy", async move {
            if let Err(error) = driver.run().await {
                tracing::debug!(%error, "session with the runtime's streaming server ended");
            }
        }));
        let open = async |kind: &str| session.open(Headers::new().with("streamType", kind)).await;
        // In the order in which every client opens them: the server starts once it has them all.
        let error = open("error").await?;
        let stdin = if wanted.stdin { Some(open("stdin").await?) } else { None };
        let stdout = if wanted.stdout { Some(open("stdout").await?) } else { None };
        let stderr = if wanted.stderr && !wanted.tty { Some(open("stderr").await?) } else { None };
        let resize = if wanted.tty { Some(open("resize").await?) } else { None };
        Ok(Self { session, error, stdin, stdout, stderr, resize, driver })
    }
}

async fn upgrade(address: &str, tasks: &Tasks) -> Result<TokioIo<hyper::upgrade::Upgraded>, RemoteError> {
    let failed = |error: &dyn std::fmt::Display| RemoteError::Connect(error.to_string());
    let wrong = || RemoteError::Address(address.to_owned());
    let uri: Uri = address.parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream =
        TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await.map_err(|e| failed(&e))?;
    stream.set_nodelay(true).map_err(|e| failed(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    tasks.spawn("http", async move {
        // What breaks before the upgrade is reported by the request.
        let _ = connection.with_upgrades().await;
    });
    let request = Request::post(uri.path_and_query().map_or("/", |p| p.as_str()))
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, spdy::UPGRADE)
        .header(PROTOCOL_HEADER, PROTOCOL)
        .body(Empty::<Bytes>::new())
        .map_err(|e| failed(&e))?;
    let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
        let text = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).trim().to_owned()).unwrap_or_default();
        return Err(RemoteError::Refused(status, text));
    }
    Ok(TokioIo::new(hyper::upgrade::on(response).await.map_err(|e| failed(&e))?))
}
