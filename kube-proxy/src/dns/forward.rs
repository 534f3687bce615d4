//! Asks upstream resolvers for names that are none of ours.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::answer::Transport;

/// For how long one upstream resolver is waited for; half of what a client usually waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why no upstream resolver answered.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// It did not answer in time.
    #[error("upstream {0} did not answer in time")]
    Timeout(SocketAddr),
    /// It cannot be reached.
    #[error("upstream {0} cannot be asked")]
    Io(SocketAddr, #[source] io::Error),
    /// The request cannot be encoded.
    #[error("the request cannot be encoded")]
    Encode(#[source] hickory_proto::ProtoError),
    /// There is none.
    #[error("there is no upstream resolver")]
    None,
}

/// Asks one after the other until one answers; the answer bears the request's own id.
pub async fn ask(
    request: &Message,
    upstreams: &[SocketAddr],
    transport: Transport,
) -> Result<Message, ForwardError> {
    let mut last = ForwardError::None;
    for upstream in upstreams {
        // A fresh id and port for every upstream, so that answers are hard to forge.
        let mut query = request.clone();
        query.metadata.id = rand::random();
        let bytes = query.to_vec().map_err(ForwardError::Encode)?;
        let asked = async {
            match transport {
                Transport::Udp => over_udp(&query, &bytes, *upstream).await,
                Transport::Tcp => over_tcp(&query, &bytes, *upstream).await,
            }
        };
        match timeout(PATIENCE, asked).await {
            Ok(Ok(mut answer)) => {
                answer.metadata.id = request.metadata.id;
                return Ok(answer);
            }
            Ok(Err(error)) => last = ForwardError::Io(*upstream, error),
            Err(_) => last = ForwardError::Timeout(*upstream),
        }
        tracing::debug!(error = %last, "upstream resolver failed");
    }
    Err(last)
}

/// A query for one name.
pub fn query(name: hickory_proto::rr::Name, kind: hickory_proto::rr::RecordType) -> Message {
    let mut query = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name, kind));
    query
}

async fn over_udp(query: &Message, bytes: &[u8], upstream: SocketAddr) -> io::Result<Message> {
    let any: IpAddr =
        if upstream.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..length]) {
            Ok(answer) if answers(&answer, query) => return Ok(answer),
            // Another's answer, or a forged one: the true one may still come.
            _ => {}
        }
    }
}

async fn over_tcp(query: &Message, bytes: &[u8], upstream: SocketAddr) -> io::Result<Message> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    let answer = Message::from_vec(&buffer).map_err(io::Error::other)?;
    if answers(&answer, query) {
        Ok(answer)
    } else {
        Err(io::Error::other("the answer is for another question"))
    }
}

fn answers(answer: &Message, query: &Message) -> bool {
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == query.metadata.id
        && answer.queries == query.queries
}
