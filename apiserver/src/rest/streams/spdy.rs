//! SPDY/3.1 clients of exec and attach, and the upgrade to it.

use std::time::Duration;

use ::spdy::{Config, Incoming, RecvStream, Role, SendStream, Session, Stream};
use api::StatusError;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use component::tasks::Tasks;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use proto::client_frame::Frame as ToNode;
use proto::node_frame::Frame;
use tokio::io::{AsyncRead, AsyncWrite};

use super::activity::IDLE;
use super::remote::{self, Sizes, Wanted};
use super::websocket::KEEPALIVE;
use crate::server::App;
use crate::tunnel::{Input, Output, Tunnel};

const PROTOCOL_HEADER: &str = "x-stream-protocol-version";
/// The protocols of exec and attach, the best first.
pub(super) const EXEC: &[&str] =
    &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// Streams that a client of exec may open; it needs five.
const EXEC_STREAMS: usize = 8;
/// Received bytes that may wait for the node.
const EXEC_BUFFER: usize = 512 * 1024;
/// How long a client may take to open its streams.
const CREATION: Duration = Duration::from_secs(30);
/// How long a client may take to answer the end of a session.
const FAREWELL: Duration = Duration::from_secs(10);

/// Whether a client asks for SPDY.
fn requested(headers: &HeaderMap) -> bool {
    let upgrade = headers.get_all(header::UPGRADE).iter();
    upgrade.filter_map(|v| v.to_str().ok()).any(|v| v.trim().eq_ignore_ascii_case(::spdy::UPGRADE))
}

/// A request for SPDY whose protocol is settled.
pub(super) struct Upgrade {
    upgrade: OnUpgrade,
    protocol: &'static str,
    named: bool,
}

impl Upgrade {
    /// Settles the protocol; `supported` is in the order of preference.
    pub(super) fn of(mut request: Request, supported: &[&'static str]) -> Result<Self, StatusError> {
        if !requested(request.headers()) {
            return Err(StatusError::bad_request("Upgrade request required"));
        }
        let (protocol, named) = negotiate(request.headers(), supported)?;
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let upgrade =
            upgrade.ok_or_else(|| StatusError::bad_request("this connection cannot be upgraded"))?;
        Ok(Self { upgrade, protocol, named })
    }

    /// Answers the client and runs a session in a task of its own.
    pub(super) fn run<F, Fut>(
        self,
        app: &App,
        name: &'static str,
        limits: (usize, usize),
        session: F,
    ) -> Response
    where
        F: FnOnce(Session, Incoming) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(::spdy::UPGRADE));
        if self.named {
            headers.insert(PROTOCOL_HEADER, HeaderValue::from_static(self.protocol));
        }
        let shutdown = app.shutdown.clone();
        let upgrade = self.upgrade;
        app.tasks.spawn(name, async move {
            let io = match upgrade.await {
                Ok(upgraded) => TokioIo::new(upgraded),
                Err(error) => return tracing::debug!(%error, "upgrade failed"),
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = drive(io, limits, session) => {}
            }
        });
        response
    }

    /// Runs an exec or attach session.
    pub(super) fn exec(self, app: &App, wanted: Wanted, tunnel: Tunnel) -> Response {
        let protocol = self.protocol;
        let session =
            move |session, incoming| async move { exec(session, incoming, protocol, wanted, tunnel).await };
        self.run(app, "exec spdy", (EXEC_STREAMS, EXEC_BUFFER), session)
    }
}

/// Runs a session over a byte stream that speaks SPDY from now on.
pub(super) async fn drive<IO, F, Fut>(io: IO, (max_streams, max_buffered): (usize, usize), session: F)
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
    F: FnOnce(Session, Incoming) -> Fut,
    Fut: Future<Output = ()>,
{
    let stall = (max_streams > EXEC_STREAMS).then_some(Duration::from_secs(30));
    let config = Config { role: Role::Server, max_streams, max_buffered, stall, idle: IDLE };
    let (handle, incoming, driver) = ::spdy::connection(io, config);
    let tasks = Tasks::new("spdy");
    let driver = tasks.spawn("driver", async move {
        if let Err(error) = driver.run().await {
            tracing::debug!(%error, "SPDY connection ended");
        }
    });
    tokio::select! {
        () = session(handle.clone(), incoming) => {}
        () = keepalive(&handle) => {}
    }
    // The farewell is written before the connection is dropped, unless the client takes nothing any more.
    let farewell = async {
        handle.close().await;
        driver.finished().await;
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
}

/// Pings the client. One that is gone while its input waits for the node is noticed by that.
async fn keepalive(session: &Session) {
    loop {
        tokio::time::sleep(KEEPALIVE).await;
        // A client that is busy may be late; one that is gone ends the connection, and the session with it.
        let _ = tokio::time::timeout(KEEPALIVE, session.ping()).await;
    }
}

/// The first protocol of ours that the client names. One that names none speaks the oldest.
fn negotiate(headers: &HeaderMap, supported: &[&'static str]) -> Result<(&'static str, bool), StatusError> {
    let named: Vec<&str> = headers
        .get_all(PROTOCOL_HEADER)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .filter(|v| !v.is_empty())
        .collect();
    if named.is_empty() {
        return Ok((supported.last().copied().unwrap_or_default(), false));
    }
    // The order of the client decides, as it does upstream.
    let found = named.iter().find_map(|name| supported.iter().find(|s| *s == name));
    found.map(|protocol| (*protocol, true)).ok_or_else(|| {
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            named.join(" "),
            supported.join(" ")
        );
        StatusError::new(403, "Forbidden", message)
    })
}

/// The streams of one exec session.
#[derive(Default)]
struct Streams {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Streams {
    /// Waits until the client has opened what it asked for.
    async fn collect(incoming: &mut Incoming, wanted: Wanted, protocol: &str) -> Option<Self> {
        let resize = wanted.tty && matches!(protocol, "v4.channel.k8s.io" | "v3.channel.k8s.io");
        let mut streams = Self::default();
        while !streams.complete(wanted, resize) {
            let mut stream = incoming.accept().await?;
            let slot = match stream.headers().get("streamType").unwrap_or_default() {
                "error" => &mut streams.error,
                "stdin" => &mut streams.stdin,
                "stdout" => &mut streams.stdout,
                "stderr" => &mut streams.stderr,
                "resize" => &mut streams.resize,
                other => {
                    tracing::debug!(other, "unexpected stream type");
                    continue;
                }
            };
            if slot.is_none() && stream.reply().await.is_ok() {
                *slot = Some(stream);
            }
        }
        Some(streams)
    }

    fn complete(&self, wanted: Wanted, resize: bool) -> bool {
        self.error.is_some()
            && (!wanted.stdin || self.stdin.is_some())
            && (!wanted.stdout || self.stdout.is_some())
            && (!wanted.stderr || self.stderr.is_some())
            && (!resize || self.resize.is_some())
    }
}

async fn exec(
    session: Session,
    mut incoming: Incoming,
    protocol: &'static str,
    wanted: Wanted,
    tunnel: Tunnel,
) {
    let collecting = Streams::collect(&mut incoming, wanted, protocol);
    let Ok(Some(streams)) = tokio::time::timeout(CREATION, collecting).await else {
        return tracing::debug!("the client did not open its streams in time");
    };
    let Tunnel { mut output, input } = tunnel;
    let (stdin, _stdin_send) = streams.stdin.map(Stream::split).unzip();
    let (resize, _resize_send) = streams.resize.map(Stream::split).unzip();
    let (_error_recv, error) = streams.error.map(Stream::split).unzip();
    let (_stdout_recv, stdout) = streams.stdout.map(Stream::split).unzip();
    let (_stderr_recv, stderr) = streams.stderr.map(Stream::split).unzip();
    let sinks = [stdout, stderr, error];
    let ended = tokio::select! {
        outcome = down(&mut output, sinks, protocol) => outcome.ok(),
        () = up(&session, stdin, resize, &input) => None,
    };
    if ended.is_some() {
        // The client closes the connection when it has read everything; closing it here could
        // overtake what is still on its way.
        let _ = tokio::time::timeout(FAREWELL, session.closed()).await;
    }
}

/// Passes output on until the process has ended. The streams are returned, since dropping them at
/// once would reset what the client has not closed.
async fn down(
    output: &mut Output,
    sinks: [Option<SendStream>; 3],
    protocol: &str,
) -> Result<[Option<SendStream>; 3], ::spdy::Error> {
    let [mut stdout, mut stderr, mut error] = sinks;
    let status = loop {
        let (sink, bytes) = match output.next().await {
            Some(Frame::Stdout(bytes)) => (&mut stdout, bytes),
            Some(Frame::Stderr(bytes)) => (&mut stderr, bytes),
            Some(Frame::Status(json)) => break json,
            Some(_) => continue,
            None => break remote::broken(),
        };
        if let Some(sink) = sink {
            sink.write(bytes).await?;
        }
    };
    for sink in [&mut stdout, &mut stderr].into_iter().flatten() {
        sink.finish().await?;
    }
    if let Some(error) = &mut error {
        let text = if protocol == "v4.channel.k8s.io" {
            Some(status)
        } else {
            remote::plain(&status).map(Bytes::from)
        };
        if let Some(text) = text {
            error.write(text).await?;
        }
        error.finish().await?;
    }
    Ok([stdout, stderr, error])
}

/// Passes input on until the client is gone.
async fn up(session: &Session, stdin: Option<RecvStream>, resize: Option<RecvStream>, input: &Input) {
    let copies = async {
        tokio::join!(copy_stdin(stdin, input), copy_sizes(resize, input));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = session.closed() => {}
        () = copies => {}
    }
}

async fn copy_stdin(stdin: Option<RecvStream>, input: &Input) {
    let Some(mut stdin) = stdin else { return };
    // A stream that is reset has ended too.
    while let Ok(Some(bytes)) = stdin.read().await {
        if input.data(bytes).await.is_err() {
            return;
        }
    }
    // A node that is gone needs not be told.
    let _ = input.send(ToNode::StdinClosed(true)).await;
}

async fn copy_sizes(resize: Option<RecvStream>, input: &Input) {
    let Some(mut resize) = resize else { return };
    let mut sizes = Sizes::default();
    while let Ok(Some(bytes)) = resize.read().await {
        if let Some(size) = sizes.push(&bytes)
            && input.send(ToNode::Resize(size)).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(named: &[&str], expected: Result<(&str, bool), u16>) {
        let mut headers = HeaderMap::new();
        for name in named {
            headers.append(PROTOCOL_HEADER, HeaderValue::from_str(name).unwrap());
        }
        assert_eq!(negotiate(&headers, EXEC).map_err(|e| e.code()), expected);
    }

    #[test]
    fn the_first_protocol_that_both_speak_is_taken() {
        check(&["v4.channel.k8s.io", "channel.k8s.io"], Ok(("v4.channel.k8s.io", true)));
        check(&["v9.channel.k8s.io", "v2.channel.k8s.io"], Ok(("v2.channel.k8s.io", true)));
        check(&["v9.channel.k8s.io, v3.channel.k8s.io"], Ok(("v3.channel.k8s.io", true)));
        check(&["v9.channel.k8s.io"], Err(403));
        check(&[], Ok(("channel.k8s.io", false)));
    }
}
