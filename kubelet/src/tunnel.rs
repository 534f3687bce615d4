//! The node's end of the tunnel: what users ask of a node comes through a connection that the
//! kubelet keeps to each API server.
//!
//! [`run`] keeps one Listen stream open per server. Each request that arrives on it is served on a
//! Serve stream of its own, which ends when whoever asked is gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::StatusError;
use bytes::Bytes;
use client::Client;
use component::clock::Clock;
use component::tasks::{Spawner, lock};
use k8s_openapi::api::core::v1::Pod;
use proto::node_frame::Frame;
use proto::tunnel_request::Request;
use proto::{ClientFrame, ListenRequest, NodeFrame, PodRef, TunnelRequest, User, client_frame};
use rand::RngExt;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::runtime::Runtime;

mod exec;
mod http;
mod leftover;
mod log;
mod netns;
mod port_forward;
mod remote;
mod sink;

/// Frames that may wait for the connection to take them.
const QUEUE: usize = 4;
/// The bytes of output that travel in one frame.
const CHUNK: usize = 32 * 1024;
/// Requests that are served at one time; more wait for their turn.
const MAX_SESSIONS: usize = 1024;
/// How long whoever asked is waited for before the request is forgotten.
const ACCEPT: Duration = Duration::from_secs(30);
/// The first and the longest wait between attempts to reach a server.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// What serving requests needs of the kubelet.
#[derive(Clone)]
pub struct Node {
    /// The node's name.
    pub name: String,
    /// Where containers run.
    pub runtime: Runtime,
    /// The kubelet's present view of a pod of this node, by `namespace/name`; its status says why a
    /// container has no log.
    pub pods: Arc<dyn Fn(&str) -> Option<Arc<Pod>> + Send + Sync>,
    /// Tells since when `sinceSeconds` is.
    pub clock: Clock,
    /// The kubelet's own endpoints.
    pub http: axum::Router,
}

/// Keeps the tunnel to every API server open until the owner of `tasks` ends.
pub fn run(client: &Client, node: Node, tasks: &Spawner) {
    let sessions = Arc::new(Semaphore::new(MAX_SESSIONS));
    for server in client.per_server() {
        let session = Session {
            node: node.clone(),
            client: server,
            tasks: tasks.clone(),
            sessions: sessions.clone(),
            running: Arc::default(),
        };
        tasks.spawn("tunnel", session.keep());
    }
}

/// The tunnel to one server.
#[derive(Clone)]
struct Session {
    node: Node,
    client: Client,
    tasks: Spawner,
    sessions: Arc<Semaphore>,
    /// The requests of this server that are served now.
    running: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

/// A request among those that are served.
struct Running {
    session: Session,
    id: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.session.running).remove(&self.id);
    }
}

impl Session {
    async fn keep(self) {
        let token = self.tasks.token();
        let mut wait = BACKOFF.0;
        while !token.is_cancelled() {
            let outcome = tokio::select! {
                () = token.cancelled() => return,
                outcome = self.listen() => outcome,
            };
            // Only a tunnel that stood is a reason to try again at once.
            let stood = matches!(outcome, Ok(()));
            match outcome {
                Ok(()) => {
                    tracing::info!(server = ?self.client.servers(), "node tunnel closed; opening it again")
                }
                Err(error) => {
                    tracing::warn!(server = ?self.client.servers(), %error, "node tunnel failed; trying again");
                }
            }
            wait = if stood { BACKOFF.0 } else { (wait * 2).min(BACKOFF.1) };
            let jittered = wait.mul_f64(rand::rng().random_range(0.5..1.0));
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(jittered) => {}
            }
        }
    }

    /// Listens until the server ends it.
    async fn listen(&self) -> Result<(), tonic::Status> {
        let request = ListenRequest { node: self.node.name.clone() };
        let mut requests = self.client.tunnel().listen(request).await?.into_inner();
        tracing::info!(server = ?self.client.servers(), "node tunnel open");
        loop {
            match requests.message().await {
                Ok(Some(request)) => self.begin(request),
                Ok(None) => return Ok(()),
                Err(error) if error.code() == tonic::Code::Aborted => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "node tunnel broke");
                    return Ok(());
                }
            }
        }
    }

    /// Starts to serve a request, or ends one.
    fn begin(&self, request: TunnelRequest) {
        let id = request.id.clone();
        if let Some(Request::Cancel(_)) = request.request {
            if let Some(cancelled) = lock(&self.running).get(&id) {
                cancelled.cancel();
            }
            return;
        }
        let cancelled = CancellationToken::new();
        lock(&self.running).insert(id.clone(), cancelled.clone());
        let (session, running) = (self.clone(), Running { session: self.clone(), id });
        self.tasks.spawn("tunnel session", async move {
            let _running = running;
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = session.serve(request) => {}
            }
        });
    }

    /// Serves one request from its acceptance to its end.
    async fn serve(self, request: TunnelRequest) {
        let Ok(_permit) = self.sessions.clone().acquire_owned().await else { return };
        let user = request.user.unwrap_or_default();
        let Some(asked) = request.request else {
            tracing::warn!("a tunnel request asks for nothing that is known here");
            return;
        };
        announce(&user, &asked);
        let (frames, queue) = mpsc::channel(QUEUE);
        let accept = NodeFrame { frame: Some(Frame::Accept(request.id)) };
        if frames.try_send(accept).is_err() {
            return;
        }
        let mut tunnel = self.client.tunnel();
        let opening = tunnel.serve(ReceiverStream::new(queue));
        let inbound = match tokio::time::timeout(ACCEPT, opening).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(error)) => {
                tracing::warn!(%error, "could not answer a request of the tunnel");
                return;
            }
            Err(_) => {
                tracing::warn!("a request of the tunnel was not waited for");
                return;
            }
        };
        let (mut inbound, output) = (Inbound(inbound), Output(frames));
        match asked {
            Request::Log(log) => self::log::serve(&self.node, log, &mut inbound, output).await,
            Request::Exec(exec) => exec::exec(&self.node, exec, &mut inbound, output).await,
            Request::Attach(attach) => exec::attach(&self.node, attach, &mut inbound, output).await,
            Request::PortForward(forward) => {
                port_forward::serve(&self.node, forward, &mut inbound, output).await
            }
            Request::KubeletHttp(_) => self::http::serve(&self.node, &mut inbound, output).await,
            // Ended before it was begun.
            Request::Cancel(_) => {}
        }
        // Dropped now, the stream would be reset, and what is still on its way on it lost.
        inbound.gone().await;
    }
}

/// Logs on whose behalf something is done.
fn announce(user: &User, request: &Request) {
    let (verb, pod, container) = match request {
        Request::Log(r) => ("log", r.pod.as_ref(), r.container.as_str()),
        Request::Exec(r) => ("exec", r.pod.as_ref(), r.container.as_str()),
        Request::Attach(r) => ("attach", r.pod.as_ref(), r.container.as_str()),
        Request::PortForward(r) => ("portforward", r.pod.as_ref(), ""),
        Request::KubeletHttp(_) => ("proxy", None, ""),
        Request::Cancel(_) => ("cancel", None, ""),
    };
    let pod = pod.map(|p| format!("{}/{}", p.namespace, p.name)).unwrap_or_default();
    tracing::info!(verb, user = user.name, groups = ?user.groups, %pod, container, "serving a user's request");
}

/// Frames from whoever asked.
#[derive(Debug)]
struct Inbound(Streaming<ClientFrame>);

impl Inbound {
    /// The next frame; none when whoever asked is gone.
    async fn next(&mut self) -> Option<client_frame::Frame> {
        loop {
            match self.0.message().await {
                Ok(Some(ClientFrame { frame: Some(frame) })) => return Some(frame),
                // A frame of a later version.
                Ok(Some(ClientFrame { frame: None })) => {}
                Ok(None) => return None,
                Err(error) => {
                    tracing::debug!(%error, "whoever asked is gone");
                    return None;
                }
            }
        }
    }

    /// Resolves when whoever asked is gone; what it still sends is of no use.
    async fn gone(&mut self) {
        while self.next().await.is_some() {}
    }
}

/// Frames to whoever asked. Dropping it ends the Serve stream.
#[derive(Clone)]
struct Output(mpsc::Sender<NodeFrame>);

/// Whoever asked is gone.
#[derive(Debug, thiserror::Error)]
#[error("the client is gone")]
struct Gone;

impl Output {
    async fn send(&self, frame: Frame) -> Result<(), Gone> {
        self.0.send(NodeFrame { frame: Some(frame) }).await.map_err(|_| Gone)
    }

    /// Resolves when whoever asked is gone, also while nothing is read of what it sent.
    async fn gone(&self) {
        self.0.closed().await;
    }

    async fn started(&self) -> Result<(), Gone> {
        self.send(Frame::Started(true)).await
    }

    async fn stdout(&self, bytes: Bytes) -> Result<(), Gone> {
        self.chunks(bytes, Frame::Stdout).await
    }

    async fn chunks(&self, mut bytes: Bytes, frame: fn(Bytes) -> Frame) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK));
            self.send(frame(chunk)).await?;
        }
        Ok(())
    }

    /// Ends the session with a refusal or a failure.
    async fn fail(&self, error: &StatusError) {
        tracing::info!(%error, "a user's request failed");
        let json = serde_json::to_vec(&error.to_value()).unwrap_or_default();
        // Whoever is gone needs no answer.
        let _ = self.send(Frame::Status(json.into())).await;
    }

    /// Ends the session well.
    async fn succeed(&self) {
        let _ = self.send(Frame::Status(Bytes::from_static(SUCCESS))).await;
    }
}

const SUCCESS: &[u8] = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}"#;

/// The pod that a request is about; the protocol always names it.
fn pod(pod: Option<PodRef>) -> Result<PodRef, StatusError> {
    pod.ok_or_else(|| StatusError::bad_request("the request names no pod"))
}
