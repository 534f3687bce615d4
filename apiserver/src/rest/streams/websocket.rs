//! WebSocket clients of exec, attach, port-forward and watches.

use std::time::Duration;

use api::StatusError;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, Request};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, Stream, StreamExt};
use http::{HeaderMap, header};
use proto::client_frame::Frame as ToNode;
use proto::node_frame::Frame;
use tokio::time::Instant;

use super::activity::Activity;
use super::channels::{ERROR, Event, Protocol, RESIZE, STDERR, STDIN, STDOUT};
use super::remote::{self, Sizes, Wanted};
use crate::server::App;
use crate::tunnel::{Input, Output, Tunnel};

/// The longest message that a client may send.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// How long a client may take to answer the end of a session.
const FAREWELL: Duration = Duration::from_secs(5);

/// How often a client is pinged. One that is gone while its input waits for the node is noticed by that.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(15);

/// Whether a client asks for a WebSocket.
pub(in crate::rest) fn requested(headers: &HeaderMap) -> bool {
    let upgrade = headers.get_all(header::UPGRADE).iter();
    upgrade.filter_map(|v| v.to_str().ok()).any(|v| v.trim().eq_ignore_ascii_case("websocket"))
}

/// A request for a WebSocket whose subprotocol is settled.
pub(in crate::rest) struct Upgrade {
    upgrade: WebSocketUpgrade,
    /// The subprotocol; empty if the client named none.
    pub protocol: String,
}

impl Upgrade {
    /// Settles the subprotocol; `supported` is in the order of preference.
    pub(in crate::rest) async fn of(
        request: Request,
        supported: &[&'static str],
    ) -> Result<Self, StatusError> {
        let (mut parts, _body) = request.into_parts();
        let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
        let upgrade = upgrade.map_err(|rejection| StatusError::bad_request(rejection.body_text()))?;
        let named: Vec<String> = parts
            .headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .map(|v| v.trim().to_owned())
            .collect();
        let upgrade = upgrade.protocols(supported.iter().copied()).max_message_size(MAX_MESSAGE);
        let upgrade = upgrade.max_frame_size(MAX_MESSAGE);
        let protocol =
            upgrade.selected_protocol().and_then(|p| p.to_str().ok()).unwrap_or_default().to_owned();
        if protocol.is_empty() && !named.is_empty() {
            return Err(StatusError::bad_request(format!(
                "unable to upgrade: requested protocol(s) are not supported: [{}]; supports [{}]",
                named.join(" "),
                supported.join(" ")
            )));
        }
        Ok(Self { upgrade, protocol })
    }

    /// Answers the client and runs a session in a task of its own.
    pub(in crate::rest) fn run<F, Fut>(self, app: &App, name: &'static str, session: F) -> Response
    where
        F: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (hand_over, handed_over) = tokio::sync::oneshot::channel();
        let response = self.upgrade.on_upgrade(move |socket| async move {
            // If the session is gone, so is the server.
            let _ = hand_over.send(socket);
        });
        let shutdown = app.shutdown.clone();
        app.tasks.spawn(name, async move {
            let Ok(socket) = handed_over.await else { return };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = session(socket) => {}
            }
        });
        response
    }

    /// Runs an exec or attach session.
    pub(super) fn exec(self, app: &App, wanted: Wanted, tunnel: Tunnel) -> Response {
        let protocol = Protocol::named(&self.protocol);
        self.run(app, "exec websocket", move |socket| exec(socket, protocol, wanted, tunnel))
    }
}

/// Sends lines, each as a message of its own without its end, until they end or the client goes.
pub(in crate::rest) async fn lines(socket: WebSocket, lines: impl Stream<Item = Bytes> + Send) {
    let (mut sink, mut stream) = socket.split();
    let send = async {
        let mut lines = std::pin::pin!(lines);
        let mut ping = tokio::time::interval(KEEPALIVE);
        loop {
            let batch = tokio::select! {
                batch = lines.next() => batch,
                _ = ping.tick() => {
                    sink.send(Message::Ping(Bytes::new())).await?;
                    continue;
                }
            };
            let Some(batch) = batch else { return sink.close().await };
            for line in batch.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                if let Ok(text) = Utf8Bytes::try_from(batch.slice_ref(line)) {
                    sink.feed(Message::Text(text)).await?;
                }
            }
            sink.flush().await?;
        }
    };
    // What a client says beside its farewell means nothing here.
    let listen = async {
        while let Some(Ok(message)) = stream.next().await
            && !matches!(message, Message::Close(_))
        {}
    };
    tokio::select! {
        // It ends with an error when the client is gone, which is an end too.
        _ = send => {}
        () = listen => {}
    }
}

async fn exec(socket: WebSocket, protocol: Protocol, wanted: Wanted, tunnel: Tunnel) {
    let (mut sink, mut stream) = socket.split();
    let Tunnel { mut output, input } = tunnel;
    let activity = Activity::new();
    let done = tokio::select! {
        outcome = down(&mut sink, protocol, wanted, &mut output, &activity) => outcome.is_ok(),
        () = up(&mut stream, protocol, &input, &activity) => false,
        () = activity.idle() => false,
    };
    if done {
        farewell(sink, stream).await;
    }
}

/// Ends a WebSocket so that nothing that was sent gets lost.
pub(super) async fn farewell(mut sink: SplitSink<WebSocket, Message>, mut stream: SplitStream<WebSocket>) {
    let end = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    let goodbye = async {
        if sink.send(Message::Close(Some(end))).await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    // A client that does not answer is not waited for any longer.
    let _ = tokio::time::timeout(FAREWELL, goodbye).await;
}

/// Passes output on until the process has ended.
async fn down(
    sink: &mut SplitSink<WebSocket, Message>,
    protocol: Protocol,
    wanted: Wanted,
    output: &mut Output,
    activity: &Activity,
) -> Result<(), axum::Error> {
    // An empty message tells the client that the session has begun.
    let first = if wanted.stdout {
        STDOUT
    } else if wanted.stderr {
        STDERR
    } else {
        ERROR
    };
    sink.send(protocol.message(first, &[])).await?;
    let mut keepalive = tokio::time::interval_at(Instant::now() + KEEPALIVE, KEEPALIVE);
    loop {
        let frame = tokio::select! {
            frame = output.next() => frame,
            _ = keepalive.tick() => {
                sink.send(Message::Ping(Bytes::new())).await?;
                continue;
            }
        };
        activity.touch();
        match frame {
            Some(Frame::Stdout(bytes)) => sink.send(protocol.message(STDOUT, &bytes)).await?,
            Some(Frame::Stderr(bytes)) => sink.send(protocol.message(STDERR, &bytes)).await?,
            Some(Frame::Status(json)) => return status(sink, protocol, &json).await,
            Some(_) => {}
            None => return status(sink, protocol, &remote::broken()).await,
        }
    }
}

async fn status(
    sink: &mut SplitSink<WebSocket, Message>,
    protocol: Protocol,
    json: &Bytes,
) -> Result<(), axum::Error> {
    if protocol.version >= 4 {
        return sink.send(protocol.message(ERROR, json)).await;
    }
    match remote::plain(json) {
        Some(text) => sink.send(protocol.message(ERROR, text.as_bytes())).await,
        None => Ok(()),
    }
}

/// Passes input on until the client is gone.
async fn up(stream: &mut SplitStream<WebSocket>, protocol: Protocol, input: &Input, activity: &Activity) {
    let mut sizes = Sizes::default();
    while let Some(Ok(message)) = stream.next().await {
        activity.touch();
        let sent = match protocol.read(message) {
            Event::Data(STDIN, bytes) => input.data(bytes).await,
            Event::Data(RESIZE, bytes) => match sizes.push(&bytes) {
                Some(size) => input.send(ToNode::Resize(size)).await,
                None => Ok(()),
            },
            Event::Closed(STDIN) => input.send(ToNode::StdinClosed(true)).await,
            Event::Gone => return,
            Event::Data(..) | Event::Closed(_) | Event::Nothing => Ok(()),
        };
        if sent.is_err() {
            // The node has ended the request; what it said last is still on its way to the client.
            break;
        }
    }
    if stream.next().await.is_some() {
        while let Some(Ok(_)) = stream.next().await {}
    }
}
