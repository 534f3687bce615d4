//! Connects to a port inside a pod's network namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpSocket, TcpStream};

const CONNECT: Duration = Duration::from_secs(30);

/// Connects to a port of an address, or of localhost, as seen in the namespace at `path`; in the kubelet's own for
/// none. The message of an error is for the user.
pub(super) async fn connect(
    path: Option<&str>,
    address: Option<IpAddr>,
    port: u16,
) -> Result<TcpStream, String> {
    if let Some(address) = address {
        let address = SocketAddr::new(address, port);
        return dial(path, address).await.map_err(|error| format!("dial tcp {address}: {error}"));
    }
    let v4 = match dial(path, SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    let v6 = match dial(path, SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    let place = path.unwrap_or("host");
    Err(format!("failed to connect to localhost:{port} inside namespace {place:?}, IPv4: {v4} IPv6: {v6}"))
}

async fn dial(path: Option<&str>, address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = match path {
        None => socket(family)?,
        Some(path) => socket_in(path.to_owned(), family).await?,
    };
    let socket = TcpSocket::from_std_stream(StdTcpStream::from(socket));
    match tokio::time::timeout(CONNECT, socket.connect(address)).await {
        Ok(connected) => {
            let stream = connected?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}

/// A socket belongs for ever to the namespace in which it was made. It is made on a thread of its
/// own, which enters the namespace and ends, so that no other work ever runs in there.
async fn socket_in(path: String, family: AddressFamily) -> io::Result<OwnedFd> {
    let (answer, made) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("netns".into()).spawn(move || {
        let make = || {
            let namespace = std::fs::File::open(&path)?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            socket(family)
        };
        // Whoever asked may be gone.
        let _ = answer.send(make());
    })?;
    made.await.map_err(io::Error::other)?
}
