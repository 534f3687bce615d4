//! Connections to pods and nodes through the node tunnel, and to everything else as it is.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use api::StatusError;
use component::tls::{Trust, outgoing};
use proto::client_frame::Frame as ToNode;
use proto::node_frame::Frame;
use proto::tunnel_request::Request as Ask;
use proto::{KubeletHttpRequest, PortForwardRequest};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::target::{Place, Target};
use crate::auth::User;
use crate::server::App;
use crate::tunnel::Tunnel;

/// Bytes of a connection that may wait in either direction.
const BUFFER: usize = 64 * 1024;
/// How long whoever is called may take to answer.
const CONNECT: Duration = Duration::from_secs(30);

/// A connection, of whatever nature.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection whose nature does not matter any more.
pub type Connection = Box<dyn Io>;

/// 503, as upstream says it.
pub fn unreachable(why: impl std::fmt::Display) -> StatusError {
    StatusError::unavailable(format!("error trying to reach service: {why}"))
}

/// Connects to where a request goes. A certificate over there is not verified: it is there for encryption alone.
///
/// # Errors
/// 503 when nothing answers.
pub async fn connect(app: &App, user: &User, target: &Target) -> Result<Connection, StatusError> {
    let plain = place(app, user, &target.place).await?;
    if !target.https {
        return Ok(plain);
    }
    let name = match &target.place {
        Place::Pod { address, .. } | Place::Address(address) => ServerName::IpAddress(address.ip().into()),
        Place::Node { node, .. } | Place::Kubelet { node } => {
            ServerName::try_from(node.clone()).map_err(unreachable)?
        }
    };
    tls(plain, unverified()?, name).await
}

/// Speaks TLS on a connection.
///
/// # Errors
/// 503 when the other side does not.
pub async fn tls(
    plain: Connection,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Connection, StatusError> {
    let handshake = TlsConnector::from(config).connect(name, plain);
    match tokio::time::timeout(CONNECT, handshake).await {
        Ok(stream) => Ok(Box::new(stream.map_err(unreachable)?)),
        Err(_) => Err(unreachable("net/http: TLS handshake timeout")),
    }
}

/// Connects without encryption of its own.
///
/// # Errors
/// 503 when nothing answers.
pub async fn place(app: &App, user: &User, place: &Place) -> Result<Connection, StatusError> {
    let (node, ask) = match place {
        Place::Address(address) => return direct(*address).await,
        Place::Kubelet { node } => (node, Ask::KubeletHttp(KubeletHttpRequest {})),
        Place::Node { node, port } => {
            (node, Ask::PortForward(PortForwardRequest { port: (*port).into(), ..Default::default() }))
        }
        Place::Pod { node, pod, address } => {
            let (pod, port) = (Some(pod.clone()), address.port().into());
            (node, Ask::PortForward(PortForwardRequest { pod, port, address: address.ip().to_string() }))
        }
    };
    let tunnel = app.tunnels.open(node, user, ask).await;
    let tunnel = tunnel.map_err(|error| unreachable(error.0.message.as_deref().unwrap_or_default()))?;
    let (near, far) = tokio::io::duplex(BUFFER);
    let open = CancellationToken::new();
    let (dropped, shutdown) = (open.clone(), app.shutdown.clone());
    app.tasks.spawn("proxied connection", async move {
        tokio::select! {
            () = dropped.cancelled() => {}
            () = shutdown.cancelled() => {}
            () = pump(tunnel, far) => {}
        }
    });
    Ok(Box::new(Tunnelled { io: near, _open: open.drop_guard() }))
}

async fn direct(address: SocketAddr) -> Result<Connection, StatusError> {
    match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            stream.set_nodelay(true).map_err(unreachable)?;
            Ok(Box::new(stream))
        }
        Ok(Err(error)) => Err(unreachable(format!("dial tcp {address}: {error}"))),
        Err(_) => Err(unreachable(format!("dial tcp {address}: i/o timeout"))),
    }
}

/// The end of a connection through a tunnel. Dropping it ends the other end, too, whatever waits there.
struct Tunnelled {
    io: DuplexStream,
    _open: DropGuard,
}

impl AsyncRead for Tunnelled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tunnelled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Copies both ways until the node ends it; either direction may end on its own before.
async fn pump(tunnel: Tunnel, far: DuplexStream) {
    let Tunnel { mut output, input } = tunnel;
    let (mut read, mut write) = tokio::io::split(far);
    let up = async {
        let mut buffer = bytes::BytesMut::with_capacity(BUFFER);
        loop {
            buffer.reserve(BUFFER / 2);
            let sent = match read.read_buf(&mut buffer).await {
                Ok(1..) => input.data(buffer.split().freeze()).await,
                _ => break input.send(ToNode::StdinClosed(true)).await,
            };
            sent?;
        }
    };
    let down = async {
        loop {
            let done = match output.next().await {
                Some(Frame::Stdout(bytes)) => write.write_all(&bytes).await,
                Some(Frame::StdoutClosed(_)) => write.shutdown().await,
                Some(Frame::Status(_)) | None => return,
                Some(_) => Ok(()),
            };
            if done.is_err() {
                return;
            }
        }
    };
    tokio::pin!(up, down);
    tokio::select! {
        () = &mut down => {}
        sent = &mut up => if sent.is_ok() { down.await },
    }
}

fn unverified() -> Result<Arc<ClientConfig>, StatusError> {
    static CONFIG: LazyLock<Result<Arc<ClientConfig>, String>> =
        LazyLock::new(|| outgoing(Trust::Anybody, None).map_err(|e| e.to_string()));
    CONFIG.clone().map_err(StatusError::internal)
}
