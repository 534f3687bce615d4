//! The node tunnel: kubelets dial in and are asked for logs, exec, attach and port-forward.
//!
//! A kubelet keeps a Listen stream open, on which it is sent requests; it answers each with a Serve
//! stream that begins with the request's id. [`Tunnels::open`] brings the two together.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use api::StatusError;
use api::decode::decode_json;
use bytes::Bytes;
use component::tasks::{Spawner, lock};
use futures::Stream;
use proto::node_frame::Frame;
use proto::node_tunnel_server::{NodeTunnel, NodeTunnelServer};
use proto::tunnel_request::Request as Asked;
use proto::{CancelRequest, ClientFrame, ListenRequest, NodeFrame, TunnelRequest, client_frame};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::{Request, Response, Status, Streaming};

use crate::auth::User;
use crate::server::Peer;

#[cfg(test)]
mod tests;

/// Requests that may wait for a node's connection to take them.
const REQUESTS: usize = 64;
/// Frames that may wait for a node's connection to take them.
const FRAMES: usize = 4;
/// The bytes of input that travel in one frame.
const CHUNK: usize = 32 * 1024;
/// How long a node may take to answer a request, and to say whether it has begun.
const ANSWER: Duration = Duration::from_secs(30);

/// How long a node may take for what was sent to it before whoever asked went.
const REST: Duration = Duration::from_secs(30);

/// The nodes that are connected, and the requests that wait for their answers.
pub struct Tunnels {
    state: Mutex<State>,
    shutdown: CancellationToken,
    tasks: Spawner,
}

#[derive(Default)]
struct State {
    nodes: HashMap<String, Listener>,
    pending: HashMap<String, Pending>,
    generation: u64,
}

struct Listener {
    generation: u64,
    requests: mpsc::Sender<Result<TunnelRequest, Status>>,
}

struct Pending {
    node: String,
    answer: oneshot::Sender<Tunnel>,
}

/// A request that a node serves: what it sends and what is sent to it. Dropping either half ends it.
#[derive(Debug)]
pub struct Tunnel {
    /// What the node sends.
    pub output: Output,
    /// What is sent to the node.
    pub input: Input,
}

/// Frames from the node.
#[derive(Debug)]
pub struct Output(Streaming<NodeFrame>, #[allow(dead_code, reason = "its drop is what matters")] Arc<Held>);

/// Frames to the node.
#[derive(Clone, Debug)]
pub struct Input(
    mpsc::Sender<Result<ClientFrame, Status>>,
    #[allow(dead_code, reason = "its drop is what matters")] Arc<Held>,
);

/// Held by both halves of a tunnel. When they are gone and the node does not take the rest of what was
/// sent, which the end of the stream stands behind, it is told on its Listen stream.
struct Held {
    tunnels: Weak<Tunnels>,
    node: String,
    id: String,
    /// Cancelled when the stream to the node has ended.
    ended: CancellationToken,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(tunnels) = self.tunnels.upgrade() else { return };
        let (node, id, ended) = (self.node.clone(), self.id.clone(), self.ended.clone());
        let tasks = tunnels.tasks.clone();
        tasks.spawn("tunnel end", async move {
            if tokio::time::timeout(REST, ended.cancelled()).await.is_err() {
                tunnels.cancel(&node, id).await;
            }
        });
    }
}

/// The stream of frames to the node; says when it has ended.
pub struct Replies {
    queue: ReceiverStream<Result<ClientFrame, Status>>,
    #[allow(dead_code, reason = "its drop is what matters")]
    ended: DropGuard,
}

impl Stream for Replies {
    type Item = Result<ClientFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.queue).poll_next(context)
    }
}

/// The node is gone, or has ended the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node ended the stream")]
pub struct Ended;

/// Forgets a request that is not waited for any more.
struct Waiting<'a> {
    tunnels: &'a Tunnels,
    id: String,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.tunnels.state).pending.remove(&self.id);
    }
}

impl Tunnels {
    /// No node is connected yet. Nodes are let go when `shutdown` is cancelled.
    pub fn new(shutdown: CancellationToken, tasks: Spawner) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), shutdown, tasks })
    }

    /// The gRPC service for kubelets. Requests bear the [`Peer`] who sent them.
    pub fn service(self: &Arc<Self>) -> NodeTunnelServer<Service> {
        NodeTunnelServer::new(Service(self.clone()))
            .max_decoding_message_size(proto::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(proto::MAX_MESSAGE_BYTES)
    }

    /// Whether a node is connected to this server.
    pub fn connected(&self, node: &str) -> bool {
        lock(&self.state).nodes.contains_key(node)
    }

    /// Asks a node for something on a user's behalf; returns when the node has begun with it.
    ///
    /// # Errors
    /// The node's own refusal; 503 when it is not connected, 504 when it does not answer.
    pub async fn open(&self, node: &str, user: &User, asked: Asked) -> Result<Tunnel, StatusError> {
        let late = || StatusError::timeout(format!("the kubelet of node {node:?} did not answer in time"));
        let opening = async {
            let mut tunnel = self.request(node, user, asked).await?;
            tunnel.output.started(node).await?;
            Ok(tunnel)
        };
        tokio::time::timeout(ANSWER, opening).await.unwrap_or_else(|_| Err(late()))
    }

    async fn request(&self, node: &str, user: &User, asked: Asked) -> Result<Tunnel, StatusError> {
        let absent = || {
            StatusError::unavailable(format!(
                "the kubelet of node {node:?} is not connected to this API server"
            ))
        };
        let id = uuid::Uuid::new_v4().to_string();
        let (answer, answered) = oneshot::channel();
        let requests = {
            let mut state = lock(&self.state);
            let requests = state.nodes.get(node).ok_or_else(absent)?.requests.clone();
            state.pending.insert(id.clone(), Pending { node: node.to_owned(), answer });
            requests
        };
        let _waiting = Waiting { tunnels: self, id: id.clone() };
        let user =
            proto::User { name: user.name.clone(), uid: user.uid.clone(), groups: user.groups.clone() };
        let request = TunnelRequest { id, user: Some(user), request: Some(asked) };
        requests.send(Ok(request)).await.map_err(|_| absent())?;
        tokio::select! {
            tunnel = answered => tunnel.map_err(|_| absent()),
            // The node went away with the request unanswered.
            () = requests.closed() => Err(absent()),
        }
    }

    /// Tells a node that whoever asked is gone.
    async fn cancel(&self, node: &str, id: String) {
        let requests = lock(&self.state).nodes.get(node).map(|listener| listener.requests.clone());
        let request = TunnelRequest { id, user: None, request: Some(Asked::Cancel(CancelRequest {})) };
        if let Some(requests) = requests {
            // A node that is gone has ended everything.
            let _ = requests.send(Ok(request)).await;
        }
    }

    /// Makes a node known; a later connection takes the place of an earlier one.
    fn register(self: &Arc<Self>, node: String) -> Requests {
        let (requests, queue) = mpsc::channel(REQUESTS);
        let mut state = lock(&self.state);
        state.generation += 1;
        let generation = state.generation;
        let replaced = state.nodes.insert(node.clone(), Listener { generation, requests });
        drop(state);
        if let Some(replaced) = replaced {
            tracing::info!(node, "a later tunnel of the node takes the place of an earlier one");
            // If its queue is full, dropping the sender ends it all the same.
            let _ =
                replaced.requests.try_send(Err(Status::aborted("replaced by a later tunnel of this node")));
        } else {
            tracing::info!(node, "node tunnel open");
        }
        let shutdown = Box::pin(self.shutdown.clone().cancelled_owned());
        Requests {
            queue,
            shutdown,
            registration: Registration { tunnels: Arc::downgrade(self), node, generation },
        }
    }

    /// Gives a Serve stream to whoever waits for it.
    fn accept(&self, node: &str, id: &str, tunnel: Tunnel) -> Result<(), Status> {
        let unknown = || Status::not_found("no request of this id waits for this node");
        let mut state = lock(&self.state);
        if state.pending.get(id).is_none_or(|pending| pending.node != node) {
            return Err(unknown());
        }
        let pending = state.pending.remove(id).ok_or_else(unknown)?;
        drop(state);
        pending.answer.send(tunnel).map_err(|_| unknown())
    }
}

/// A node's place among the connected; it is given up when the Listen stream is dropped.
struct Registration {
    tunnels: Weak<Tunnels>,
    node: String,
    generation: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(tunnels) = self.tunnels.upgrade() else { return };
        let mut state = lock(&tunnels.state);
        if state.nodes.get(&self.node).is_some_and(|listener| listener.generation == self.generation) {
            state.nodes.remove(&self.node);
            tracing::info!(node = self.node, "node tunnel closed");
        }
    }
}

/// The stream of requests to one node.
pub struct Requests {
    queue: mpsc::Receiver<Result<TunnelRequest, Status>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    #[allow(dead_code, reason = "its drop is what matters")]
    registration: Registration,
}

impl Stream for Requests {
    type Item = Result<TunnelRequest, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.shutdown.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => self.queue.poll_recv(context),
        }
    }
}

/// The gRPC service.
pub struct Service(Arc<Tunnels>);

/// The node whose kubelet sends a request.
fn node<T>(request: &Request<T>) -> Result<String, Status> {
    let peer = request.extensions().get::<Peer>();
    let node = peer.and_then(|peer| peer.user.node());
    node.map(str::to_owned).ok_or_else(|| Status::permission_denied("the node tunnel is for kubelets"))
}

#[tonic::async_trait]
impl NodeTunnel for Service {
    type ListenStream = Requests;
    type ServeStream = Replies;

    async fn listen(&self, request: Request<ListenRequest>) -> Result<Response<Requests>, Status> {
        let node = node(&request)?;
        let asked = request.into_inner().node;
        if asked != node {
            return Err(Status::permission_denied(format!(
                "the kubelet of {node:?} cannot listen for {asked:?}"
            )));
        }
        Ok(Response::new(self.0.register(node)))
    }

    async fn serve(
        &self,
        request: Request<Streaming<NodeFrame>>,
    ) -> Result<Response<Self::ServeStream>, Status> {
        let node = node(&request)?;
        let mut frames = request.into_inner();
        let first = tokio::time::timeout(ANSWER, frames.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no frame accepts a request"))??;
        let Some(NodeFrame { frame: Some(Frame::Accept(id)) }) = first else {
            return Err(Status::invalid_argument("the first frame must accept a request"));
        };
        let (input, queue) = mpsc::channel(FRAMES);
        let ended = CancellationToken::new();
        let replies = Replies { queue: ReceiverStream::new(queue), ended: ended.clone().drop_guard() };
        let (tunnels, held_node, held_id) = (Arc::downgrade(&self.0), node.clone(), id.clone());
        let held = Arc::new(Held { tunnels, node: held_node, id: held_id, ended });
        let tunnel = Tunnel { output: Output(frames, held.clone()), input: Input(input, held) };
        self.0.accept(&node, &id, tunnel)?;
        Ok(Response::new(replies))
    }
}

impl Output {
    /// The next frame; none when the node is gone without a status.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.0.message().await {
                Ok(Some(NodeFrame { frame: Some(frame) })) => return Some(frame),
                // A frame of a later version.
                Ok(Some(NodeFrame { frame: None })) => {}
                Ok(None) => return None,
                Err(error) => {
                    tracing::debug!(%error, "a stream of the node tunnel broke");
                    return None;
                }
            }
        }
    }

    async fn started(&mut self, node: &str) -> Result<(), StatusError> {
        match self.next().await {
            Some(Frame::Started(_)) => Ok(()),
            Some(Frame::Status(json)) => Err(refusal(&json)),
            Some(_) => {
                Err(StatusError::internal(format!("node {node:?} does not keep to the tunnel's protocol")))
            }
            None => Err(StatusError::internal(format!("node {node:?} ended the request without an answer"))),
        }
    }
}

/// The refusal in a status frame.
fn refusal(json: &[u8]) -> StatusError {
    match decode_json(json) {
        Ok(status) => StatusError(Box::new(status)),
        Err(error) => StatusError::internal(format!("the node's status is not readable: {error}")),
    }
}

impl Input {
    /// Sends standard input or data; waits while the node takes no more.
    ///
    /// # Errors
    /// When the node has ended the stream.
    pub async fn data(&self, mut bytes: Bytes) -> Result<(), Ended> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK));
            self.send(client_frame::Frame::Stdin(chunk)).await?;
        }
        Ok(())
    }

    /// Sends a frame; waits while the node takes no more.
    ///
    /// # Errors
    /// When the node has ended the stream.
    pub async fn send(&self, frame: client_frame::Frame) -> Result<(), Ended> {
        self.0.send(Ok(ClientFrame { frame: Some(frame) })).await.map_err(|_| Ended)
    }
}
