//! `pods/NAME/portforward`.
//!
//! Over SPDY (as such, or tunnelled through a WebSocket) each connection is a pair of streams, one for
//! data and one for an error. What breaks one connection leaves the session and the others alone.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::spdy::{Incoming, RecvStream, SendStream, Session, Stream};
use api::StatusError;
use axum::extract::Request;
use axum::response::Response;
use component::tasks::{Tasks, lock};
use http::Method;
use proto::client_frame::Frame as ToNode;
use proto::node_frame::Frame;
use proto::tunnel_request::Request as Ask;
use proto::{PodRef, PortForwardRequest};
use tokio::time::Instant;

use super::pipe::Pipe;
use super::{Asked, spdy, websocket};
use crate::auth::User;
use crate::rest::query::Parameters;
use crate::tunnel::{Input, Output, Tunnel, Tunnels};

mod channels;

/// The protocol over SPDY.
const PROTOCOL: &str = "portforward.k8s.io";
/// The same within a WebSocket.
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";
/// Streams of one session; two for each connection.
const STREAMS: usize = 2048;
/// Received bytes of a session that may wait for the node.
const BUFFER: usize = 4 * 1024 * 1024;
/// How long the second stream of a pair may be in coming.
const CREATION: Duration = Duration::from_secs(30);

/// Where connections of a session go.
#[derive(Clone)]
struct Target {
    tunnels: Arc<Tunnels>,
    user: User,
    node: String,
    pod: PodRef,
}

impl Target {
    async fn open(&self, port: u16) -> Result<Tunnel, StatusError> {
        let request =
            PortForwardRequest { pod: Some(self.pod.clone()), port: port.into(), address: String::new() };
        self.tunnels.open(&self.node, &self.user, Ask::PortForward(request)).await
    }
}

pub(super) async fn serve(asked: &Asked<'_>, request: Request) -> Result<Response, StatusError> {
    asked.has_node()?;
    if request.method() != Method::GET && request.method() != Method::POST {
        return Err(StatusError::method_not_allowed());
    }
    let target = Target {
        tunnels: asked.app.tunnels.clone(),
        user: asked.user.clone(),
        node: asked.node.to_owned(),
        pod: asked.pod_ref(),
    };
    if !websocket::requested(request.headers()) {
        let upgrade = spdy::Upgrade::of(request, &[PROTOCOL])?;
        let session = move |session, incoming| sessions(session, incoming, target);
        return Ok(upgrade.run(asked.app, "port-forward spdy", (STREAMS, BUFFER), session));
    }
    let parameters = Parameters::parse(request.uri())?;
    let supported: Vec<&'static str> =
        [TUNNELLED].into_iter().chain(channels::PROTOCOLS.iter().copied()).collect();
    let upgrade = websocket::Upgrade::of(request, &supported).await?;
    if upgrade.protocol == TUNNELLED {
        return Ok(upgrade.run(asked.app, "port-forward tunnel", move |socket| {
            let session = move |session, incoming| sessions(session, incoming, target);
            spdy::drive(Pipe::new(socket), (STREAMS, BUFFER), session)
        }));
    }
    let ports = channels::ports(&parameters)?;
    let protocol = super::channels::Protocol::named(&upgrade.protocol);
    Ok(upgrade.run(asked.app, "port-forward channels", move |socket| {
        channels::session(socket, protocol, ports, target)
    }))
}

/// The streams of a connection that has not got both yet.
struct Half {
    error: Option<Stream>,
    data: Option<Stream>,
    port: u16,
    deadline: Instant,
}

/// Serves the connections of one session until the client ends it.
async fn sessions(_session: Session, mut incoming: Incoming, target: Target) {
    let mut halves: HashMap<String, Half> = HashMap::new();
    // Tasks of their own: polled from here, they could hold places in the connection's queue that the
    // acceptance of the next stream waits for.
    let connections = Tasks::new("forwarded connections");
    let answered = Answered::default();
    loop {
        let deadline = halves.values().map(|half| half.deadline).min();
        tokio::select! {
            stream = incoming.accept() => {
                let Some(stream) = stream else { return };
                if let Some((port, data, error)) = pair(&mut halves, stream).await {
                    connections.spawn("connection", forward(target.clone(), answered.clone(), port, data, error));
                }
            }
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                // Dropped streams are reset.
                let now = Instant::now();
                halves.retain(|_, half| half.deadline > now);
            }
        }
    }
}

/// Accepts a stream; gives the connection that it completes. A stream that makes no sense is refused.
async fn pair(halves: &mut HashMap<String, Half>, mut stream: Stream) -> Option<(u16, Stream, Stream)> {
    let headers = stream.headers();
    let port = headers.get("port").and_then(|port| port.parse().ok()).filter(|port| *port != 0)?;
    let is_data = match headers.get("streamType")? {
        "data" => true,
        "error" => false,
        _ => return None,
    };
    // Clients that send no id open the data stream right after the error stream.
    let id = match headers.get("requestID") {
        Some(id) => id.to_owned(),
        None => (if is_data { stream.id().saturating_sub(2) } else { stream.id() }).to_string(),
    };
    stream.reply().await.ok()?;
    let half = halves.entry(id.clone()).or_insert_with(|| Half {
        error: None,
        data: None,
        port,
        deadline: Instant::now() + CREATION,
    });
    // Of two streams with one role the earlier is reset.
    *(if is_data { &mut half.data } else { &mut half.error }) = Some(stream);
    if half.data.is_none() || half.error.is_none() {
        return None;
    }
    let half = halves.remove(&id)?;
    Some((half.port, half.data?, half.error?))
}

/// The ports that have answered in this session.
#[derive(Clone, Default)]
struct Answered(Arc<Mutex<HashSet<u16>>>);

impl Answered {
    fn note(&self, port: u16) {
        lock(&self.0).insert(port);
    }

    /// Whether a refusal is told to the client. kubectl ends its session on any message, so a port that
    /// has answered before and does not just now, since its server restarts, only breaks the connection.
    fn tell(&self, port: u16, refused: &StatusError) -> bool {
        let passing = matches!(refused.code(), 503 | 504);
        !(passing && lock(&self.0).contains(&port))
    }
}

/// Serves one connection.
async fn forward(target: Target, answered: Answered, port: u16, data: Stream, error: Stream) {
    let (_error_recv, mut error) = error.split();
    let (recv, mut send) = data.split();
    match target.open(port).await {
        Ok(tunnel) => {
            answered.note(port);
            let whole = copy(tunnel, recv, &mut send).await;
            if !whole {
                tracing::debug!(port, "a forwarded connection broke");
            }
        }
        Err(refused) if answered.tell(port, &refused) => {
            let text = refused.0.message.clone().unwrap_or_default();
            let text = text.strip_prefix("Internal error occurred: ").unwrap_or(&text).to_owned();
            // A client that is gone needs no message.
            let _ = error.write(text.into()).await;
            let _ = send.finish().await;
        }
        Err(refused) => tracing::debug!(port, %refused, "a port that answered before does not now"),
    }
    // Without a message the client takes the connection as ended, and the session lives on.
    let _ = error.finish().await;
}

/// Copies both ways until both are closed; false if the connection broke. The data stream, if it is
/// not closed then, is reset by being dropped.
async fn copy(tunnel: Tunnel, mut recv: RecvStream, send: &mut SendStream) -> bool {
    let Tunnel { mut output, input } = tunnel;
    let up = up(&mut recv, &input);
    let down = down(&mut output, send);
    tokio::pin!(up, down);
    tokio::select! {
        sent = &mut up => if sent { down.await } else { false },
        received = &mut down => if received { up.await } else { false },
    }
}

async fn up(recv: &mut RecvStream, input: &Input) -> bool {
    loop {
        match recv.read().await {
            Ok(Some(bytes)) => {
                if input.data(bytes).await.is_err() {
                    return false;
                }
            }
            Ok(None) => return input.send(ToNode::StdinClosed(true)).await.is_ok(),
            Err(_) => return false,
        }
    }
}

async fn down(output: &mut Output, send: &mut SendStream) -> bool {
    loop {
        match output.next().await {
            Some(Frame::Stdout(bytes)) => {
                if send.write(bytes).await.is_err() {
                    return false;
                }
            }
            Some(Frame::StdoutClosed(_)) => return send.finish().await.is_ok(),
            Some(Frame::Status(_)) | None => return false,
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_answered_before_may_be_away_for_a_moment() {
        let answered = Answered::default();
        let away = StatusError::unavailable("connection refused");
        assert!(answered.tell(80, &away));
        answered.note(80);
        assert!(!answered.tell(80, &away));
        assert!(answered.tell(81, &away));
        assert!(answered.tell(80, &StatusError::internal("the pod is gone")));
    }
}
