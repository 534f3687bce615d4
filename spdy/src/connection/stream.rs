//! One stream: its two halves and what they wait for.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Entry, Error, Frame, Headers, MAX_DATA, Shared, State, VecDeque, WINDOW_STEP, reset};

/// A stream, opened by either side.
pub struct Stream {
    headers: Headers,
    recv: RecvStream,
    send: SendStream,
}

/// What the peer sends.
pub struct RecvStream(Half);

/// What is sent to the peer.
pub struct SendStream(Half);

struct Half {
    shared: Arc<Shared>,
    id: u32,
    readable: Arc<Notify>,
    writable: Arc<Notify>,
    reader: bool,
}

impl Stream {
    pub(super) fn new(shared: &Arc<Shared>, state: &mut State, id: u32, headers: Headers) -> Self {
        let (readable, writable) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let entry = Entry {
            received: VecDeque::new(),
            buffered: 0,
            fin_received: false,
            fin_sent: false,
            reset: None,
            replied: false,
            discard: false,
            window: state.initial_window,
            consumed: 0,
            halves: 2,
            readable: readable.clone(),
            writable: writable.clone(),
        };
        state.streams.insert(id, entry);
        let half = |reader| Half {
            shared: shared.clone(),
            id,
            readable: readable.clone(),
            writable: writable.clone(),
            reader,
        };
        Self { headers, recv: RecvStream(half(true)), send: SendStream(half(false)) }
    }

    /// The headers with which it was opened.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Its number in the connection.
    pub fn id(&self) -> u32 {
        self.recv.0.id
    }

    /// Accepts a stream that the peer opened.
    pub async fn reply(&mut self) -> Result<(), Error> {
        let half = &self.send.0;
        let frame = Frame::SynReply { id: half.id, fin: false, headers: Headers::new() };
        half.shared.data.send(frame).await.map_err(|_| half.shared.error())?;
        if let Some(entry) = half.shared.lock().streams.get_mut(&half.id) {
            entry.replied = true;
        }
        Ok(())
    }

    /// Waits until the peer has accepted a stream that we opened.
    pub(super) async fn replied(&mut self) -> Result<(), Error> {
        let half = &self.send.0;
        loop {
            {
                let state = half.shared.lock();
                match state.streams.get(&half.id) {
                    Some(Entry { reset: Some(code), .. }) => return Err(Error::Reset(*code)),
                    Some(Entry { replied: true, .. }) => return Ok(()),
                    Some(_) if half.shared.closed.borrow().is_none() => {}
                    _ => return Err(half.shared.error()),
                }
            }
            half.writable.notified().await;
        }
    }

    /// The two directions, to be used apart.
    pub fn split(self) -> (RecvStream, SendStream) {
        (self.recv, self.send)
    }
}

impl RecvStream {
    /// The next bytes; none when the peer has closed its direction. Bytes that came before a reset
    /// or the end of the connection are still handed out.
    pub async fn read(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(outcome) = self.0.take() {
                return outcome;
            }
            self.0.readable.notified().await;
        }
    }
}

impl SendStream {
    /// Sends bytes; waits while the peer or the byte stream takes no more.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            let permit = self.0.shared.data.reserve().await.map_err(|_| self.0.shared.error())?;
            match self.0.window(bytes.len())? {
                0 => {
                    drop(permit);
                    self.0.writable.notified().await;
                }
                size => {
                    let bytes = bytes.split_to(size);
                    permit.send(Frame::Data { id: self.0.id, fin: false, bytes });
                }
            }
        }
        Ok(())
    }

    /// Closes this direction; the other stays open.
    pub async fn finish(&mut self) -> Result<(), Error> {
        let permit = self.0.shared.data.reserve().await.map_err(|_| self.0.shared.error())?;
        let mut state = self.0.shared.lock();
        let Some(entry) = state.streams.get_mut(&self.0.id) else { return Err(Error::Closed) };
        if let Some(code) = entry.reset {
            return Err(Error::Reset(code));
        }
        if !std::mem::replace(&mut entry.fin_sent, true) {
            permit.send(Frame::Data { id: self.0.id, fin: true, bytes: Bytes::new() });
        }
        Ok(())
    }

    /// Waits until the peer has reset the stream or the connection has ended.
    pub async fn stopped(&mut self) -> Error {
        loop {
            if let Err(error) = self.0.window(0) {
                return error;
            }
            self.0.writable.notified().await;
        }
    }
}

impl Half {
    /// The next thing to read, if there is one.
    fn take(&self) -> Option<Result<Option<Bytes>, Error>> {
        let mut state = self.shared.lock();
        let updates = state.updates;
        let Some(entry) = state.streams.get_mut(&self.id) else { return Some(Err(self.shared.error())) };
        let Some(bytes) = entry.received.pop_front() else {
            return match (entry.fin_received, entry.reset) {
                (true, _) => Some(Ok(None)),
                (false, Some(code)) => Some(Err(Error::Reset(code))),
                (false, None) if self.shared.closed.borrow().is_some() => Some(Err(self.shared.error())),
                (false, None) => None,
            };
        };
        entry.buffered -= bytes.len();
        entry.consumed = entry.consumed.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        if updates && entry.consumed >= WINDOW_STEP && !entry.fin_received {
            let delta = entry.consumed & 0x7fff_ffff;
            let update = Frame::WindowUpdate { id: self.id, delta };
            // When the queue is full, the next read tries again.
            if self.shared.control(update).is_ok() {
                entry.consumed = 0;
            }
        }
        state.buffered -= bytes.len();
        drop(state);
        self.shared.drained.notify_one();
        Some(Ok(Some(bytes)))
    }

    /// How many of `wanted` bytes may be sent now; they are taken from the window.
    fn window(&self, wanted: usize) -> Result<usize, Error> {
        let mut state = self.shared.lock();
        let windows = state.windows;
        let Some(entry) = state.streams.get_mut(&self.id) else { return Err(self.shared.error()) };
        if let Some(code) = entry.reset {
            return Err(Error::Reset(code));
        }
        if self.shared.closed.borrow().is_some() {
            return Err(self.shared.error());
        }
        let open = if windows { usize::try_from(entry.window).unwrap_or(0) } else { usize::MAX };
        let size = wanted.min(MAX_DATA).min(open);
        entry.window = entry.window.saturating_sub(i64::try_from(size).unwrap_or(i64::MAX));
        Ok(size)
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let Some(entry) = state.streams.get_mut(&self.id) else { return };
        entry.halves -= 1;
        let last = entry.halves == 0;
        let ended = entry.reset.is_some() || (entry.fin_sent && entry.fin_received);
        let mut freed = 0;
        if self.reader {
            entry.discard = true;
            entry.received.clear();
            freed = std::mem::take(&mut entry.buffered);
        }
        let replied = entry.replied;
        state.buffered -= freed;
        if last {
            state.remove(self.id);
        }
        drop(state);
        if last && !ended {
            self.shared.reset(self.id, if replied { reset::CANCEL } else { reset::REFUSED_STREAM });
        }
        self.shared.drained.notify_one();
    }
}
