//! Moves frames between the byte stream and the streams.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Error, Frame, Role, Shared, Stream, reset};
use crate::frame::{Decoder, Encoder, INITIAL_WINDOW_SIZE};

/// The bytes that are read from the byte stream at once.
const READ: usize = 64 * 1024;
/// The bytes that are gathered before they are written.
const WRITE: usize = 64 * 1024;

/// How long a peer that takes nothing more is still listened to.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(5);

/// The part of a connection that does the work; see [`Driver::run`].
pub struct Driver<IO> {
    io: IO,
    shared: Arc<Shared>,
    data: mpsc::Receiver<Frame>,
    control: mpsc::Receiver<Frame>,
    accepted: mpsc::Sender<Stream>,
}

/// Ends the connection also when its driver is dropped.
struct Finish(Arc<Shared>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finish(Error::Closed);
    }
}

impl<IO> Driver<IO> {
    pub(super) fn new(
        io: IO,
        shared: Arc<Shared>,
        data: mpsc::Receiver<Frame>,
        control: mpsc::Receiver<Frame>,
        accepted: mpsc::Sender<Stream>,
    ) -> Self {
        Self { io, shared, data, control, accepted }
    }
}

impl<IO: AsyncRead + AsyncWrite + Send> Driver<IO> {
    /// Runs the connection to its end: the peer's, ours ([`super::Session::close`]), or an error.
    pub async fn run(self) -> Result<(), Error> {
        let Self { io, shared, data, control, accepted } = self;
        let _finish = Finish(shared.clone());
        let (read_half, mut write_half) = tokio::io::split(io);
        let outcome = {
            let read = read(read_half, &shared, accepted);
            let write = write(&mut write_half, &shared, data, control);
            let idle = idle(&shared);
            tokio::pin!(read, write, idle);
            tokio::select! {
                outcome = &mut read => outcome,
                outcome = &mut write => match outcome {
                    // A peer that reads no more may have said its last already.
                    Err(Error::Io(_)) => match tokio::time::timeout(LAST_WORDS, &mut read).await {
                        Ok(Ok(())) | Err(_) => outcome,
                        Ok(error) => error,
                    },
                    outcome => outcome,
                },
                error = &mut idle => Err(error),
            }
        };
        // The connection is over; a peer that does not take the farewell changes nothing.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), write_half.shutdown()).await;
        shared.finish(outcome.clone().err().unwrap_or(Error::Closed));
        outcome
    }
}

async fn idle(shared: &Shared) -> Error {
    loop {
        let deadline = shared.lock().moved + shared.config.idle;
        if Instant::now() >= deadline {
            return Error::Idle(shared.config.idle);
        }
        tokio::time::sleep_until(deadline).await;
    }
}

async fn read<R: AsyncRead>(
    io: R,
    shared: &Arc<Shared>,
    accepted: mpsc::Sender<Stream>,
) -> Result<(), Error> {
    tokio::pin!(io);
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::with_capacity(READ));
    loop {
        while let Some(frame) = decoder.decode(&mut buffer)? {
            handle(shared, &accepted, frame)?;
        }
        room(shared).await;
        buffer.reserve(READ);
        if io.read_buf(&mut buffer).await.map_err(|error| Error::Io(error.to_string()))? == 0 {
            return Ok(());
        }
        shared.lock().moved = Instant::now();
    }
}

/// Waits until the readers have taken enough of what was received.
async fn room(shared: &Shared) {
    let began = Instant::now();
    loop {
        if shared.lock().buffered <= shared.config.max_buffered {
            return;
        }
        let drained = shared.drained.notified();
        match shared.config.stall {
            None => drained.await,
            Some(stall) => {
                if tokio::time::timeout_at(began + stall, drained).await.is_err() {
                    give_up(shared);
                }
            }
        }
    }
}

/// Resets the stream that holds up all the others.
fn give_up(shared: &Shared) {
    let mut state = shared.lock();
    let Some(id) = state.fullest() else { return };
    let Some(entry) = state.streams.get_mut(&id) else { return };
    let freed = std::mem::take(&mut entry.buffered);
    entry.received.clear();
    entry.reset = Some(reset::CANCEL);
    entry.readable.notify_one();
    entry.writable.notify_one();
    state.buffered -= freed;
    drop(state);
    shared.reset(id, reset::CANCEL);
}

fn handle(shared: &Arc<Shared>, accepted: &mpsc::Sender<Stream>, frame: Frame) -> Result<(), Error> {
    match frame {
        Frame::SynStream { .. } => return opened(shared, accepted, frame),
        Frame::SynReply { id, fin, .. } => {
            if let Some(entry) = shared.lock().streams.get_mut(&id) {
                entry.replied = true;
                entry.fin_received |= fin;
                entry.writable.notify_one();
                entry.readable.notify_one();
            }
        }
        // Nothing in these protocols travels in later headers.
        Frame::Headers { id, fin, .. } => {
            if let Some(entry) = shared.lock().streams.get_mut(&id) {
                entry.fin_received |= fin;
                entry.readable.notify_one();
            }
        }
        Frame::Data { id, fin, bytes } => {
            let mut state = shared.lock();
            // A stream that we dropped may be sent to until the peer has seen the reset.
            let Some(entry) = state.streams.get_mut(&id) else { return Ok(()) };
            if entry.fin_received || entry.reset.is_some() {
                return Ok(());
            }
            entry.fin_received = fin;
            let mut kept = 0;
            if !entry.discard && !bytes.is_empty() {
                kept = bytes.len();
                entry.buffered += kept;
                entry.received.push_back(bytes);
            }
            entry.readable.notify_one();
            state.buffered += kept;
        }
        Frame::RstStream { id, code } => {
            if let Some(entry) = shared.lock().streams.get_mut(&id) {
                entry.reset.get_or_insert(code);
                entry.readable.notify_one();
                entry.writable.notify_one();
            }
        }
        Frame::WindowUpdate { id, delta } => {
            let mut state = shared.lock();
            state.updates = true;
            if let Some(entry) = state.streams.get_mut(&id) {
                entry.window = entry.window.saturating_add(i64::from(delta));
                entry.writable.notify_one();
            }
        }
        Frame::Settings { settings, .. } => {
            for setting in settings.iter().filter(|setting| setting.id == INITIAL_WINDOW_SIZE) {
                resize(shared, i64::from(setting.value & 0x7fff_ffff));
            }
        }
        Frame::Ping { id } => {
            let ours = if shared.config.role == Role::Client { 1 } else { 0 };
            if id % 2 != ours {
                shared.control(Frame::Ping { id })?;
            } else if let Some(answered) = shared.lock().pings.remove(&id) {
                // Whoever asked may have lost patience.
                let _ = answered.send(());
            }
        }
        Frame::GoAway { .. } => shared.lock().going_away = true,
    }
    Ok(())
}

/// The peer's initial window applies to the streams that are open too.
///
/// Only this setting makes us obey windows. Updates alone do not: who has sent beyond a window before
/// it learned of it, and then waits for updates, can deadlock with a peer that does the same.
fn resize(shared: &Shared, window: i64) {
    let mut state = shared.lock();
    let change = window - state.initial_window;
    state.windows = true;
    state.updates = true;
    state.initial_window = window;
    for entry in state.streams.values_mut() {
        entry.window = entry.window.saturating_add(change);
        entry.writable.notify_one();
    }
}

fn opened(shared: &Arc<Shared>, accepted: &mpsc::Sender<Stream>, frame: Frame) -> Result<(), Error> {
    let Frame::SynStream { id, fin, unidirectional, headers, .. } = frame else { return Ok(()) };
    let role = shared.config.role;
    let mut state = shared.lock();
    let parity = if role == Role::Client { 0 } else { 1 };
    if id % 2 != parity || id <= state.last_peer_id {
        return Err(Error::Protocol("stream id out of order"));
    }
    state.last_peer_id = id;
    if state.going_away || state.peer_streams(role) >= shared.config.max_streams {
        drop(state);
        shared.reset(id, reset::REFUSED_STREAM);
        return Ok(());
    }
    let stream = Stream::new(shared, &mut state, id, headers);
    if let Some(entry) = state.streams.get_mut(&id) {
        entry.fin_received = fin;
        entry.fin_sent = unidirectional;
    }
    drop(state);
    // The queue has room for as many as are admitted; if nobody accepts, the stream is refused.
    drop(accepted.try_send(stream));
    Ok(())
}

async fn write<W: AsyncWrite + Unpin>(
    io: &mut W,
    shared: &Shared,
    mut data: mpsc::Receiver<Frame>,
    mut control: mpsc::Receiver<Frame>,
) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::Io(error.to_string());
    let (mut encoder, mut buffer) = (Encoder::default(), BytesMut::with_capacity(WRITE));
    loop {
        let mut next = tokio::select! {
            biased;
            frame = control.recv() => frame,
            frame = data.recv() => frame,
        };
        let mut last = false;
        while let Some(frame) = next {
            last |= matches!(frame, Frame::GoAway { .. });
            encode(shared, &mut encoder, &frame, &mut buffer)?;
            if last || buffer.len() >= WRITE {
                break;
            }
            next = control.try_recv().or_else(|_| data.try_recv()).ok();
        }
        io.write_all_buf(&mut buffer).await.map_err(failed)?;
        io.flush().await.map_err(failed)?;
        shared.lock().moved = Instant::now();
        if last {
            return Ok(());
        }
    }
}

fn encode(shared: &Shared, encoder: &mut Encoder, frame: &Frame, buffer: &mut BytesMut) -> Result<(), Error> {
    match frame {
        // A stream that has ended is not written to.
        Frame::Data { id, .. } if !writable(shared, *id) => Ok(()),
        // A header block must not be left out, since those after it build upon it; one that is too
        // large fails before it has changed anything.
        frame => encoder.encode(frame, buffer).map_err(Error::from),
    }
}

fn writable(shared: &Shared, id: u32) -> bool {
    shared.lock().streams.get(&id).is_none_or(|entry| entry.reset.is_none())
}
