//! A connection: streams multiplexed over any byte stream, with bounded memory and half-close.
//!
//! [`Driver::run`] moves the bytes and is to be run as a task; [`Session`] opens streams,
//! [`Incoming`] hands out those that the peer opens. Dropping a stream that has not ended in both
//! directions resets it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::frame::{Frame, FrameError, MAX_DATA, reset};
use crate::headers::{HeaderError, Headers};

mod driver;
mod stream;
#[cfg(test)]
mod tests;

pub use driver::Driver;
pub use stream::{RecvStream, SendStream, Stream};

/// The window that every stream has until a setting or an update says otherwise.
const INITIAL_WINDOW: i64 = 64 * 1024;
/// Read bytes after which a stream's window is given back to the peer.
const WINDOW_STEP: u32 = 32 * 1024;
/// Frames of data that may wait for the byte stream to take them.
const DATA_QUEUE: usize = 8;
/// Control frames that may wait; a peer that causes more (by a flood of pings) is cut off.
const CONTROL_QUEUE: usize = 256;

/// Which side of the connection this is; a server's streams have even ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The side that asked for the upgrade.
    Client,
    /// The side that answered it.
    Server,
}

/// The limits of a connection.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which side this is.
    pub role: Role,
    /// Streams opened by the peer that may be open at one time; more are refused.
    pub max_streams: usize,
    /// Bytes received and not yet read, over all streams, above which nothing more is received.
    pub max_buffered: usize,
    /// How long one stream may hold up all others by not being read, before it is reset. None: for
    /// ever, which is right where one reader takes all streams.
    pub stall: Option<Duration>,
    /// How long a connection on which nothing moves is kept.
    pub idle: Duration,
}

/// Why a stream or a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The peer reset the stream, with the code of its RST_STREAM.
    #[error("stream reset with code {0}")]
    Reset(u32),
    /// The connection is gone.
    #[error("connection closed")]
    Closed,
    /// Nothing moved for the configured time.
    #[error("connection idle for {0:?}")]
    Idle(Duration),
    /// The byte stream broke.
    #[error("connection failed: {0}")]
    Io(String),
    /// The peer does not keep to the protocol.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// The peer's bytes are no SPDY.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Headers that are too large to send.
    #[error(transparent)]
    Headers(#[from] HeaderError),
}

/// One stream's bookkeeping, from SYN_STREAM until both its halves are dropped.
struct Entry {
    received: VecDeque<Bytes>,
    buffered: usize,
    /// The peer will send no more.
    fin_received: bool,
    /// We will send no more.
    fin_sent: bool,
    /// The code of the RST_STREAM that the peer sent.
    reset: Option<u32>,
    /// What we send may flow: SYN_REPLY has been sent or received.
    replied: bool,
    /// The reader is gone: what arrives is dropped.
    discard: bool,
    /// Bytes that the peer will take, if it keeps windows at all.
    window: i64,
    /// Bytes read and not yet given back to the peer's window.
    consumed: u32,
    /// Halves that are still held.
    halves: u8,
    readable: Arc<Notify>,
    writable: Arc<Notify>,
}

struct State {
    streams: HashMap<u32, Entry>,
    buffered: usize,
    next_id: u32,
    next_ping: u32,
    /// Who waits for the answer to which ping.
    pings: HashMap<u32, oneshot::Sender<()>>,
    /// The last stream that the peer opened.
    last_peer_id: u32,
    /// Whether the peer has announced the window that it keeps.
    windows: bool,
    /// Whether the peer has shown that it knows windows at all. Others are sent no updates: a peer
    /// that closes its socket with an update unread makes the kernel drop what it sent last.
    updates: bool,
    initial_window: i64,
    /// The peer takes no more streams, or we do not.
    going_away: bool,
    moved: Instant,
}

struct Shared {
    config: Config,
    state: Mutex<State>,
    data: mpsc::Sender<Frame>,
    control: mpsc::Sender<Frame>,
    /// Received bytes were read, or a stream went away.
    drained: Notify,
    closed: watch::Sender<Option<Error>>,
}

/// Opens streams. Cheap to clone; the connection ends when [`Session::close`] is called or the
/// driver is dropped, not when sessions are.
#[derive(Clone)]
pub struct Session(Arc<Shared>);

/// The streams that the peer opens.
pub struct Incoming {
    streams: mpsc::Receiver<Stream>,
}

/// A connection over a byte stream that has been upgraded already.
pub fn connection<IO>(io: IO, config: Config) -> (Session, Incoming, Driver<IO>) {
    let (data, data_queue) = mpsc::channel(DATA_QUEUE);
    let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
    let (accepted, streams) = mpsc::channel(config.max_streams.max(1));
    let next_id = if config.role == Role::Client { 1 } else { 2 };
    let state = State {
        streams: HashMap::new(),
        buffered: 0,
        next_id,
        next_ping: next_id,
        pings: HashMap::new(),
        last_peer_id: 0,
        windows: false,
        updates: false,
        initial_window: INITIAL_WINDOW,
        going_away: false,
        moved: Instant::now(),
    };
    let shared = Arc::new(Shared {
        config,
        state: Mutex::new(state),
        data,
        control,
        drained: Notify::new(),
        closed: watch::channel(None).0,
    });
    let driver = Driver::new(io, shared.clone(), data_queue, control_queue, accepted);
    (Session(shared), Incoming { streams }, driver)
}

impl Session {
    /// Opens a stream and waits until the peer has accepted it.
    pub async fn open(&self, headers: Headers) -> Result<Stream, Error> {
        let mut stream = {
            let permit = self.0.data.reserve().await.map_err(|_| self.0.error())?;
            let mut state = self.0.lock();
            if state.going_away || self.0.closed.borrow().is_some() {
                return Err(Error::Closed);
            }
            let id = state.next_id;
            state.next_id += 2;
            let stream = Stream::new(&self.0, &mut state, id, headers.clone());
            // Sent under the lock, so that ids reach the wire in order.
            permit.send(Frame::SynStream {
                id,
                associated: 0,
                priority: 0,
                fin: false,
                unidirectional: false,
                headers,
            });
            stream
        };
        stream.replied().await?;
        Ok(stream)
    }

    /// Waits until the peer has answered a ping, which is sent behind what was written before: then the
    /// peer has taken all of that off the byte stream.
    pub async fn ping(&self) -> Result<(), Error> {
        let answer = {
            let permit = self.0.data.reserve().await.map_err(|_| self.0.error())?;
            let mut state = self.0.lock();
            let id = state.next_ping;
            state.next_ping = id.wrapping_add(2);
            let (answered, answer) = oneshot::channel();
            state.pings.insert(id, answered);
            permit.send(Frame::Ping { id });
            answer
        };
        tokio::select! {
            answered = answer => answered.map_err(|_| self.0.error()),
            error = self.0.closed() => Err(error),
        }
    }

    /// Says goodbye, once everything that was written before has been sent.
    pub async fn close(&self) {
        let last = {
            let mut state = self.0.lock();
            state.going_away = true;
            state.last_peer_id
        };
        // If the queue is gone, so is the connection.
        let _ = self.0.data.send(Frame::GoAway { last, code: 0 }).await;
    }

    /// Resolves when the connection has ended.
    pub async fn closed(&self) -> Error {
        self.0.closed().await
    }
}

impl Incoming {
    /// The next stream that the peer opens; none once the connection has ended. It is to be
    /// accepted with [`Stream::reply`], or refused by being dropped.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self) -> Error {
        self.closed.borrow().clone().unwrap_or(Error::Closed)
    }

    async fn closed(&self) -> Error {
        let mut closed = self.closed.subscribe();
        let outcome = closed.wait_for(Option::is_some).await;
        outcome.ok().and_then(|error| error.clone()).unwrap_or(Error::Closed)
    }

    /// Ends the connection for everybody who waits on it.
    fn finish(&self, error: Error) {
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert(error);
            first
        });
        let state = self.lock();
        for entry in state.streams.values() {
            entry.readable.notify_one();
            entry.writable.notify_one();
        }
    }

    /// Sends a control frame without waiting.
    fn control(&self, frame: Frame) -> Result<(), Error> {
        self.control.try_send(frame).map_err(|_| Error::Protocol("too many control frames"))
    }

    /// Ends a stream from our side.
    fn reset(&self, id: u32, code: u32) {
        // A queue that is full belongs to a connection that is about to end.
        let _ = self.control(Frame::RstStream { id, code });
    }
}

impl State {
    fn remove(&mut self, id: u32) -> Option<Entry> {
        let entry = self.streams.remove(&id)?;
        self.buffered -= entry.buffered;
        Some(entry)
    }

    /// The stream that has most unread bytes.
    fn fullest(&self) -> Option<u32> {
        let fullest = self.streams.iter().max_by_key(|(_, entry)| entry.buffered)?;
        (fullest.1.buffered > 0).then_some(*fullest.0)
    }

    fn peer_streams(&self, role: Role) -> usize {
        let parity = if role == Role::Client { 0 } else { 1 };
        self.streams.keys().filter(|id| *id % 2 == parity).count()
    }
}
