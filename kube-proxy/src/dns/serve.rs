//! The sockets of the name server, over UDP and TCP, with bounded concurrency.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use component::tasks::Spawner;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Names;
use super::answer::{Reply, Transport, encode, failure, respond};
use super::forward;

/// Queries that wait for an upstream resolver at one time; more are told to come again (SERVFAIL).
const FORWARDS: usize = 512;
/// TCP connections at one time; more wait in the listen queue.
const CONNECTIONS: usize = 128;
/// For how long a TCP connection may say nothing.
const IDLE: Duration = Duration::from_secs(10);
const REBIND: Duration = Duration::from_millis(500);

/// Where to answer, and whom to ask.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address that is answered on, and from.
    pub bind: SocketAddr,
    /// Upstream resolvers in order of preference; none, and every other name does not exist.
    pub upstreams: Vec<SocketAddr>,
}

/// Counts what happens, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests that were answered from the zone.
    pub answered: AtomicUsize,
    /// Requests that an upstream resolver was asked for.
    pub forwarded: AtomicUsize,
}

struct Server {
    names: Names,
    upstreams: Vec<SocketAddr>,
    counts: Arc<Counts>,
    turn: AtomicUsize,
    forwards: Arc<Semaphore>,
    tasks: Spawner,
}

/// Serves until the tasks' token is cancelled. Waits for an address that is not there yet or still
/// in use by a predecessor.
pub fn serve(config: Config, names: Names, counts: Arc<Counts>, tasks: &Spawner) {
    let server = Arc::new(Server {
        names,
        upstreams: config.upstreams,
        counts,
        turn: AtomicUsize::new(0),
        forwards: Arc::new(Semaphore::new(FORWARDS)),
        tasks: tasks.clone(),
    });
    let (udp, tcp, bind) = (server.clone(), server, config.bind);
    let token = tasks.token();
    tasks.spawn("dns-udp", async move {
        let opened = bound("udp", bind, || UdpSocket::bind(bind));
        let Some(socket) = token.run_until_cancelled(opened).await else { return };
        tracing::info!(%bind, "DNS is answered over UDP");
        udp.udp(Arc::new(socket)).await;
    });
    let token = tasks.token();
    tasks.spawn("dns-tcp", async move {
        let opened = bound("tcp", bind, || TcpListener::bind(bind));
        let Some(listener) = token.run_until_cancelled(opened).await else { return };
        tcp.tcp(listener).await;
    });
}

async fn bound<T, F: Future<Output = io::Result<T>>>(
    what: &str,
    bind: SocketAddr,
    open: impl Fn() -> F,
) -> T {
    let mut said = false;
    loop {
        match open().await {
            Ok(socket) => return socket,
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%bind, %error, "DNS address cannot be bound over {what} yet");
                }
                tokio::time::sleep(REBIND).await;
            }
        }
    }
}

impl Server {
    fn respond(&self, request: &[u8], transport: Transport) -> Reply {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let reply = respond(request, &self.names.read(), transport, !self.upstreams.is_empty(), turn);
        let counter = match &reply {
            Reply::Ignore => return reply,
            Reply::Send(_) => &self.counts.answered,
            Reply::Forward(_) | Reply::Chase { .. } => &self.counts.forwarded,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        reply
    }

    async fn udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let token = self.tasks.token();
        let mut buffer = vec![0; 4096];
        loop {
            let received = tokio::select! {
                () = token.cancelled() => return,
                received = socket.recv_from(&mut buffer) => received,
            };
            let (length, client) = match received {
                Ok(received) => received,
                // An ICMP error for an earlier answer; the socket is fine.
                Err(error) => {
                    tracing::debug!(%error, "DNS request cannot be received");
                    continue;
                }
            };
            match self.respond(&buffer[..length], Transport::Udp) {
                Reply::Ignore => {}
                Reply::Send(bytes) => send(&socket, &bytes, client).await,
                Reply::Forward(request) => match self.forwards.clone().try_acquire_owned() {
                    Ok(permit) => {
                        let (server, socket) = (self.clone(), socket.clone());
                        self.tasks.spawn("dns-forward", async move {
                            let bytes = server.forward(&request, Transport::Udp).await;
                            send(&socket, &bytes, client).await;
                            drop(permit);
                        });
                    }
                    Err(_) => send(&socket, &failure(&request, ResponseCode::ServFail), client).await,
                },
                Reply::Chase { answer, target, query_type, limit } => {
                    let Ok(permit) = self.forwards.clone().try_acquire_owned() else {
                        send(&socket, &encode(&answer, limit), client).await;
                        continue;
                    };
                    let (server, socket) = (self.clone(), socket.clone());
                    self.tasks.spawn("dns-forward", async move {
                        let bytes = server.chase(*answer, target, query_type, limit).await;
                        send(&socket, &bytes, client).await;
                        drop(permit);
                    });
                }
            }
        }
    }

    async fn tcp(self: Arc<Self>, listener: TcpListener) {
        let token = self.tasks.token();
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = connections.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = token.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, client)) => {
                    let (server, token) = (self.clone(), token.clone());
                    self.tasks.spawn("dns-connection", async move {
                        let ended = token.run_until_cancelled(server.connection(stream)).await;
                        if let Some(Err(error)) = ended {
                            tracing::debug!(%client, %error, "DNS connection ended");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "DNS connection cannot be accepted");
                    tokio::time::sleep(REBIND).await;
                }
            }
        }
    }

    async fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let mut length = [0; 2];
            match timeout(IDLE, stream.read_exact(&mut length)).await? {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            };
            let mut request = vec![0; usize::from(u16::from_be_bytes(length))];
            timeout(IDLE, stream.read_exact(&mut request)).await??;
            let bytes = match self.respond(&request, Transport::Tcp) {
                Reply::Ignore => return Ok(()),
                Reply::Send(bytes) => bytes,
                Reply::Forward(request) => self.forward(&request, Transport::Tcp).await,
                Reply::Chase { answer, target, query_type, limit } => {
                    self.chase(*answer, target, query_type, limit).await
                }
            };
            let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
            timeout(IDLE, stream.write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat())).await??;
        }
    }

    async fn forward(&self, request: &Message, transport: Transport) -> Vec<u8> {
        match forward::ask(request, &self.upstreams, transport).await {
            Ok(answer) => answer.to_vec().unwrap_or_else(|_| failure(request, ResponseCode::ServFail)),
            Err(error) => {
                tracing::debug!(%error, "no upstream resolver answered");
                failure(request, ResponseCode::ServFail)
            }
        }
    }

    async fn chase(&self, mut answer: Message, target: Name, kind: RecordType, limit: usize) -> Vec<u8> {
        match forward::ask(&forward::query(target, kind), &self.upstreams, Transport::Udp).await {
            Ok(found) => {
                answer.metadata.response_code = found.metadata.response_code;
                answer.answers.extend(found.answers);
                answer.authorities.extend(found.authorities);
            }
            Err(error) => {
                tracing::debug!(%error, "no upstream resolver answered");
                answer.metadata.response_code = ResponseCode::ServFail;
            }
        }
        encode(&answer, limit)
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, client).await {
        tracing::debug!(%client, %error, "DNS answer cannot be sent");
    }
}
