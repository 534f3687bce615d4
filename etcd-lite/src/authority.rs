//! Lets in clients that send a URL where HTTP/2 wants an authority.
//!
//! etcd's Go client, up to 3.4 at least, names some connections `http://HOST:PORT` and sends that as `:authority`; Go's
//! servers take it, ours would refuse the stream. No service looks at the authority, so that every literal one in the
//! client's header blocks is replaced by a short valid one before the HTTP stack reads it. The replacement is shorter than
//! what a peer can have sent, hence our table of headers never forgets what the peer's still holds.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
/// The largest frame that is looked into; the HTTP stack allows no larger one anyway.
const LARGEST: usize = 1 << 20;
/// A string of one character.
const VALUE: &[u8] = &[1, b'e'];

/// The type of a frame with headers.
const HEADERS: u8 = 1;
/// Flags of such a frame.
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// A connection whose client may send URLs as authorities.
pub(crate) struct Lenient<S> {
    inner: S,
    filter: Filter,
    /// Bytes as the HTTP stack is to read them, and how many it has read.
    ready: Vec<u8>,
    read: usize,
    buffer: Box<[u8]>,
}

impl<S> Lenient<S> {
    pub(crate) fn new(inner: S) -> Self {
        let buffer = vec![0; 8 << 10].into_boxed_slice();
        Self { inner, filter: Filter::default(), ready: Vec::new(), read: 0, buffer }
    }
}

/// Goes through what a client sends, in whichever pieces it comes.
#[derive(Default)]
struct Filter {
    state: State,
    /// What cannot be passed on before more of it has come.
    held: Vec<u8>,
}

#[derive(Default)]
enum State {
    /// It is not known yet whether this is HTTP/2.
    #[default]
    Start,
    /// At the beginning of a frame, or within its header.
    Frame,
    /// Within a frame that is passed on as it is; this much is to come.
    Pass(usize),
    /// Everything is passed on as it is.
    Blind,
}

impl Filter {
    /// Takes what has come, and appends what may be passed on.
    fn take(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while !input.is_empty() {
            match self.state {
                State::Blind => {
                    out.extend_from_slice(input);
                    return;
                }
                State::Pass(left) => {
                    let now = left.min(input.len());
                    out.extend_from_slice(&input[..now]);
                    input = &input[now..];
                    self.state = if now == left { State::Frame } else { State::Pass(left - now) };
                }
                State::Start => {
                    self.hold(&mut input, PREFACE.len());
                    if !PREFACE.starts_with(&self.held) {
                        self.state = State::Blind;
                        out.append(&mut self.held);
                    } else if self.held.len() == PREFACE.len() {
                        self.state = State::Frame;
                        out.append(&mut self.held);
                    }
                }
                State::Frame => self.frame(&mut input, out),
            }
        }
    }

    fn hold(&mut self, input: &mut &[u8], until: usize) {
        let now = until.saturating_sub(self.held.len()).min(input.len());
        self.held.extend_from_slice(&input[..now]);
        *input = &input[now..];
    }

    fn frame(&mut self, input: &mut &[u8], out: &mut Vec<u8>) {
        self.hold(input, FRAME_HEADER);
        if self.held.len() < FRAME_HEADER {
            return;
        }
        let (kind, flags) = (self.held[3], self.held[4]);
        let length = u32::from_be_bytes([0, self.held[0], self.held[1], self.held[2]]) as usize;
        // A block that goes on in further frames is larger than any such client's.
        let headers = kind == HEADERS && flags & END_HEADERS != 0 && length <= LARGEST;
        if !headers {
            out.append(&mut self.held);
            self.state = if length == 0 { State::Frame } else { State::Pass(length) };
            return;
        }
        self.hold(input, FRAME_HEADER + length);
        if self.held.len() == FRAME_HEADER + length {
            let frame = std::mem::take(&mut self.held);
            out.extend(rewritten(&frame, flags).unwrap_or(frame));
        }
    }
}

/// The frame with its authority replaced; nothing when it has no literal one, or is malformed.
fn rewritten(frame: &[u8], flags: u8) -> Option<Vec<u8>> {
    let (header, payload) = frame.split_at(FRAME_HEADER);
    let (mut start, mut end) = (0, payload.len());
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*payload.first()?))?;
        start += 1;
    }
    if flags & PRIORITY != 0 {
        start += 5;
    }
    let block = payload.get(start..end)?;
    let value = authority(block)?;
    let mut new = header.to_vec();
    new.extend_from_slice(&payload[..start]);
    new.extend_from_slice(&block[..value.start]);
    new.extend_from_slice(VALUE);
    new.extend_from_slice(&block[value.end..]);
    new.extend_from_slice(&payload[end..]);
    let length = u32::try_from(new.len() - FRAME_HEADER).ok()?.to_be_bytes();
    new[..3].copy_from_slice(&length[1..]);
    Some(new)
}

/// Where the value of a literal `:authority` stands in a header block (RFC 7541, section 6).
fn authority(block: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut at = 0;
    while at < block.len() {
        // How many bits the index has, and whether a literal follows it.
        let (bits, literal) = match block[at] {
            0x80.. => (7, false),
            0x40..0x80 => (6, true),
            0x20..0x40 => (5, false),
            0x00..0x20 => (4, true),
        };
        let (index, next) = integer(block, at, bits)?;
        at = next;
        if !literal {
            continue;
        }
        if index == 0 {
            at = string(block, at)?;
        }
        let end = string(block, at)?;
        if index == 1 {
            return Some(at..end);
        }
        at = end;
    }
    None
}

/// An integer whose first byte has so many bits of it; and where what follows begins.
fn integer(block: &[u8], at: usize, bits: u32) -> Option<(usize, usize)> {
    let most = (1usize << bits) - 1;
    let mut value = usize::from(*block.get(at)?) & most;
    let mut at = at + 1;
    if value < most {
        return Some((value, at));
    }
    for shift in (0..28).step_by(7) {
        let byte = *block.get(at)?;
        at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

/// Where a string ends that begins at `at`.
fn string(block: &[u8], at: usize) -> Option<usize> {
    let (length, start) = integer(block, at, 7)?;
    start.checked_add(length).filter(|end| *end <= block.len())
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.read == this.ready.len() {
            this.ready.clear();
            this.read = 0;
            let mut buffer = ReadBuf::new(&mut this.buffer);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.filter.take(buffer.filled(), &mut this.ready);
        }
        let now = (this.ready.len() - this.read).min(out.remaining());
        out.put_slice(&this.ready[this.read..this.read + now]);
        this.read += now;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// `:method: POST`, a new header, an authority of three letters, `:path` by name.
    const BLOCK: &[u8] = b"\x83\x40\x01a\x01b\x41\x03x:/\x04\x02/p";
    const REWRITTEN: &[u8] = b"\x83\x40\x01a\x01b\x41\x01e\x04\x02/p";

    fn through(input: &[u8], piece: usize) -> Vec<u8> {
        let (mut filter, mut out) = (Filter::default(), Vec::new());
        input.chunks(piece).for_each(|piece| filter.take(piece, &mut out));
        out
    }

    proptest! {
        #[test]
        fn authorities_are_replaced_in_whichever_pieces_they_come(piece in 1usize..80) {
            let padded = [&[2][..], &[0; 5], BLOCK, &[0, 0]].concat();
            let padded_after = [&[2][..], &[0; 5], REWRITTEN, &[0, 0]].concat();
            let all = |block: &[u8], padded: &[u8]| {
                let data = frame(0, 0, BLOCK);
                [PREFACE, &frame(4, 0, b""), &frame(1, 4, block), &data, &frame(1, 0x2c, padded)].concat()
            };
            prop_assert_eq!(through(&all(BLOCK, &padded), piece), all(REWRITTEN, &padded_after));
        }

        #[test]
        fn other_protocols_pass(bytes in proptest::collection::vec(any::<u8>(), 0..100), piece in 1usize..50) {
            let input = [b"GET / HTTP/1.1\r\n", bytes.as_slice()].concat();
            prop_assert_eq!(through(&input, piece), input);
        }

        #[test]
        fn no_input_makes_the_filter_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            through(&[PREFACE, &bytes].concat(), 7);
            through(&[PREFACE, &frame(1, 0x2c, &bytes)].concat(), 300);
        }
    }
}
