//! Two connections, back to back.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::frame::{Decoder, Encoder};

fn config(role: Role) -> Config {
    Config { role, max_streams: 8, max_buffered: 256 * 1024, stall: None, idle: Duration::from_secs(3600) }
}

#[allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]
fn start<IO>(io: IO, config: Config) -> (Session, Incoming)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
{
    let (session, incoming, driver) = connection(io, config);
    tokio::spawn(driver.run());
    (session, incoming)
}

fn pair() -> ((Session, Incoming), (Session, Incoming)) {
    let (a, b) = tokio::io::duplex(16 * 1024);
    (start(a, config(Role::Client)), start(b, config(Role::Server)))
}

async fn open(client: &Session, server: &mut Incoming) -> (Stream, Stream) {
    let accept = async {
        let mut stream = server.accept().await.unwrap();
        stream.reply().await.unwrap();
        stream
    };
    let (ours, theirs) = tokio::join!(client.open(Headers::new().with("streamType", "data")), accept);
    (ours.unwrap(), theirs)
}

async fn read_all(recv: &mut RecvStream) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while let Some(bytes) = recv.read().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

#[tokio::test]
async fn a_large_transfer_is_exact_in_both_directions_at_once() {
    let ((client, _i), (_s, mut server)) = pair();
    let (ours, theirs) = open(&client, &mut server).await;
    assert_eq!(theirs.headers().get("streamType"), Some("data"));
    let data: Bytes =
        (0..5_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>().into();
    let (mut our_recv, mut our_send) = ours.split();
    let (mut their_recv, mut their_send) = theirs.split();
    let send = async {
        our_send.write(data.clone()).await.unwrap();
        our_send.finish().await.unwrap();
    };
    let echo = async {
        while let Some(bytes) = their_recv.read().await.unwrap() {
            their_send.write(bytes).await.unwrap();
        }
        their_send.finish().await.unwrap();
    };
    let (_, _, back) = tokio::join!(send, echo, read_all(&mut our_recv));
    assert!(back.unwrap() == data);
}

#[tokio::test]
async fn one_direction_may_close_before_the_other() {
    let ((client, _i), (_s, mut server)) = pair();
    let (ours, theirs) = open(&client, &mut server).await;
    let (mut our_recv, mut our_send) = ours.split();
    let (mut their_recv, mut their_send) = theirs.split();
    our_send.write(Bytes::from_static(b"question")).await.unwrap();
    our_send.finish().await.unwrap();
    assert_eq!(read_all(&mut their_recv).await.unwrap(), b"question");
    their_send.write(Bytes::from_static(b"answer")).await.unwrap();
    their_send.finish().await.unwrap();
    assert_eq!(read_all(&mut our_recv).await.unwrap(), b"answer");
}

#[tokio::test]
async fn a_dropped_stream_is_reset_and_the_others_live_on() {
    let ((client, _i), (_s, mut server)) = pair();
    let (first, first_theirs) = open(&client, &mut server).await;
    let (second, second_theirs) = open(&client, &mut server).await;
    drop(first);
    let (mut recv, mut send) = first_theirs.split();
    assert_eq!(recv.read().await, Err(Error::Reset(reset::CANCEL)));
    assert_eq!(send.write(Bytes::from_static(b"x")).await, Err(Error::Reset(reset::CANCEL)));
    let (_, mut send) = second.split();
    send.write(Bytes::from_static(b"alive")).await.unwrap();
    assert_eq!(second_theirs.split().0.read().await.unwrap().unwrap(), "alive");
}

#[tokio::test]
async fn a_stream_that_nobody_accepts_is_refused() {
    let ((client, _i), (_s, server)) = pair();
    drop(server);
    assert_eq!(client.open(Headers::new()).await.err(), Some(Error::Reset(reset::REFUSED_STREAM)));
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let ((client, _i), (_s, mut server)) = pair();
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(open(&client, &mut server).await);
    }
    assert_eq!(client.open(Headers::new()).await.err(), Some(Error::Reset(reset::REFUSED_STREAM)));
    held.pop();
    // The peer has to see the reset of the dropped stream first.
    tokio::task::yield_now().await;
    open(&client, &mut server).await;
}

#[tokio::test]
async fn close_sends_what_was_written_and_then_ends_both_sides() {
    let ((client, _i), (server_session, mut server)) = pair();
    let (ours, theirs) = open(&client, &mut server).await;
    let (_recv, mut send) = ours.split();
    send.write(Bytes::from(vec![7; 100_000])).await.unwrap();
    send.finish().await.unwrap();
    client.close().await;
    assert_eq!(read_all(&mut theirs.split().0).await.unwrap().len(), 100_000);
    assert_eq!(server_session.closed().await, Error::Closed);
    assert!(server.accept().await.is_none());
    assert_eq!(client.open(Headers::new()).await.err(), Some(Error::Closed));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends() {
    let (a, _b) = tokio::io::duplex(1024);
    let (session, _incoming) = start(a, Config { idle: Duration::from_secs(60), ..config(Role::Client) });
    assert_eq!(session.closed().await, Error::Idle(Duration::from_secs(60)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_reads_does_not_hold_up_the_others_for_ever() {
    let (a, b) = tokio::io::duplex(16 * 1024);
    let (client, _i) = start(a, config(Role::Client));
    let stall = Some(Duration::from_secs(30));
    let (_s, mut server) = start(b, Config { stall, ..config(Role::Server) });
    let (stuck, _stuck_theirs) = open(&client, &mut server).await;
    let (other, other_theirs) = open(&client, &mut server).await;
    let (_r1, mut stuck_send) = stuck.split();
    let (_r2, mut other_send) = other.split();
    let flood = async { stuck_send.write(Bytes::from(vec![0; 4_000_000])).await };
    let speak = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        other_send.write(Bytes::from_static(b"alive")).await.unwrap();
        other_theirs.split().0.read().await
    };
    let (flooded, spoken) = tokio::join!(flood, speak);
    assert_eq!(flooded, Err(Error::Reset(reset::CANCEL)));
    assert_eq!(spoken.unwrap().unwrap(), "alive");
}

/// The other side of a connection, frame by frame.
struct Peer {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
    buffer: bytes::BytesMut,
}

impl Peer {
    fn new(io: DuplexStream) -> Self {
        Self { io, encoder: Encoder::default(), decoder: Decoder::default(), buffer: bytes::BytesMut::new() }
    }

    async fn send(&mut self, frame: Frame) {
        let mut out = bytes::BytesMut::new();
        self.encoder.encode(&frame, &mut out).unwrap();
        self.io.write_all(&out).await.unwrap();
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            self.buffer.reserve(64 * 1024);
            if self.io.read_buf(&mut self.buffer).await.unwrap() == 0 {
                return None;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_window_of_a_peer_that_keeps_one_is_obeyed() {
    let (a, b) = tokio::io::duplex(1 << 20);
    let (client, _i) = start(a, config(Role::Client));
    let mut peer = Peer::new(b);
    let window = crate::frame::Setting { flags: 0, id: crate::frame::INITIAL_WINDOW_SIZE, value: 1000 };
    peer.send(Frame::Settings { clear: false, settings: vec![window] }).await;
    let opening = client.open(Headers::new());
    let answer = async {
        assert!(matches!(peer.next().await, Some(Frame::SynStream { id: 1, .. })));
        peer.send(Frame::SynReply { id: 1, fin: false, headers: Headers::new() }).await;
    };
    let (stream, ()) = tokio::join!(opening, answer);
    let (_recv, mut send) = stream.unwrap().split();
    let write = send.write(Bytes::from(vec![1; 1500]));
    let watch = async {
        assert!(matches!(peer.next().await, Some(Frame::Data { bytes, .. }) if bytes.len() == 1000));
        let more = tokio::time::timeout(Duration::from_secs(5), peer.next()).await;
        assert!(more.is_err(), "sent beyond the window");
        peer.send(Frame::WindowUpdate { id: 1, delta: 4000 }).await;
        assert!(matches!(peer.next().await, Some(Frame::Data { bytes, .. }) if bytes.len() == 500));
    };
    let (written, ()) = tokio::join!(write, watch);
    written.unwrap();
}

#[tokio::test]
async fn pings_of_the_peer_are_answered_and_answers_are_not() {
    let (a, b) = tokio::io::duplex(1 << 20);
    let (_client, _i) = start(a, config(Role::Server));
    let mut peer = Peer::new(b);
    peer.send(Frame::Ping { id: 2 }).await;
    peer.send(Frame::Ping { id: 7 }).await;
    assert_eq!(peer.next().await, Some(Frame::Ping { id: 7 }));
}

#[tokio::test]
async fn a_ping_is_answered_behind_what_was_written_before() {
    let ((client, _i), (_s, mut server)) = pair();
    let (ours, theirs) = open(&client, &mut server).await;
    let (_recv, mut send) = ours.split();
    send.write(Bytes::from(vec![1; 100_000])).await.unwrap();
    client.ping().await.unwrap();
    let mut recv = theirs.split().0;
    let mut received = 0;
    while received < 100_000 {
        // Everything is here already: nothing has to be waited for.
        let bytes = futures_now(recv.read()).unwrap().unwrap().unwrap();
        received += bytes.len();
    }
    client.close().await;
    client.closed().await;
    assert!(client.ping().await.is_err());
}

/// The outcome of a future that needs not wait.
fn futures_now<F: Future>(future: F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_stream_id_out_of_order_ends_the_connection() {
    let (a, b) = tokio::io::duplex(1 << 20);
    let (session, _i) = start(a, config(Role::Server));
    let mut peer = Peer::new(b);
    let syn = |id| Frame::SynStream {
        id,
        associated: 0,
        priority: 0,
        fin: false,
        unidirectional: false,
        headers: Headers::new(),
    };
    peer.send(syn(3)).await;
    peer.send(syn(1)).await;
    assert_eq!(session.closed().await, Error::Protocol("stream id out of order"));
}
