//! Frames: their encoding and an incremental decoder.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::headers::{Compressor, Decompressor, HeaderError, Headers};

/// The most bytes that a control frame may have.
pub const MAX_CONTROL: usize = 64 * 1024;
/// The most bytes of data that are written in one frame.
pub const MAX_DATA: usize = 32 * 1024;
/// The most bytes that are handed on at once of a data frame that is larger.
const PIECE: usize = 64 * 1024;

const VERSION: u16 = 3;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Codes of RST_STREAM.
pub mod reset {
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: u32 = 1;
    /// The stream is not known.
    pub const INVALID_STREAM: u32 = 2;
    /// The stream was refused before anything was done with it.
    pub const REFUSED_STREAM: u32 = 3;
    /// The stream is not wanted any more.
    pub const CANCEL: u32 = 5;
    /// What the stream stands for broke.
    pub const INTERNAL_ERROR: u32 = 6;
}

/// The setting that gives the initial window of every stream.
pub const INITIAL_WINDOW_SIZE: u32 = 7;

/// Why bytes are no SPDY/3.1. The connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not version 3.
    #[error("SPDY version {0} is not spoken")]
    Version(u16),
    /// Larger than [`MAX_CONTROL`].
    #[error("control frame of {0} bytes is too large")]
    TooLarge(usize),
    /// Too short for its type, or with bytes left over.
    #[error("control frame of type {0} is malformed")]
    Malformed(u16),
    /// A frame of stream 0.
    #[error("stream id is zero")]
    ZeroStream,
    /// A bad header block.
    #[error(transparent)]
    Headers(#[from] HeaderError),
}

/// One setting of a SETTINGS frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Whether and by whom it is to be kept.
    pub flags: u8,
    /// Which setting, 24 bits.
    pub id: u32,
    /// Its value.
    pub value: u32,
}

/// A frame of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the protocol")]
pub enum Frame {
    SynStream { id: u32, associated: u32, priority: u8, fin: bool, unidirectional: bool, headers: Headers },
    SynReply { id: u32, fin: bool, headers: Headers },
    RstStream { id: u32, code: u32 },
    Settings { clear: bool, settings: Vec<Setting> },
    Ping { id: u32 },
    GoAway { last: u32, code: u32 },
    Headers { id: u32, fin: bool, headers: Headers },
    WindowUpdate { id: u32, delta: u32 },
    Data { id: u32, fin: bool, bytes: Bytes },
}

/// Writes frames; keeps the compression state of one connection's outgoing headers.
#[derive(Default)]
pub struct Encoder {
    headers: Compressor,
}

impl Encoder {
    /// Appends a frame to `out`. Data are to be at most 16 MiB; [`MAX_DATA`] is a good size.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), HeaderError> {
        match frame {
            Frame::Data { id, fin, bytes } => {
                out.reserve(8 + bytes.len());
                out.put_u32(id & 0x7fff_ffff);
                put_length(out, u8::from(*fin) * FIN, bytes.len());
                out.put_slice(bytes);
            }
            Frame::SynStream { id, associated, priority, fin, unidirectional, headers } => {
                let block = self.headers.compress(headers)?;
                let flags = (u8::from(*fin) * FIN) | (u8::from(*unidirectional) * UNIDIRECTIONAL);
                control(out, SYN_STREAM, flags, 10 + block.len());
                out.put_u32(id & 0x7fff_ffff);
                out.put_u32(associated & 0x7fff_ffff);
                out.put_u8((priority & 7) << 5);
                out.put_u8(0);
                out.put_slice(&block);
            }
            Frame::SynReply { id, fin, headers } => self.with_headers(out, SYN_REPLY, *id, *fin, headers)?,
            Frame::Headers { id, fin, headers } => self.with_headers(out, HEADERS, *id, *fin, headers)?,
            Frame::RstStream { id, code } => two_words(out, RST_STREAM, id & 0x7fff_ffff, *code),
            Frame::GoAway { last, code } => two_words(out, GOAWAY, last & 0x7fff_ffff, *code),
            Frame::WindowUpdate { id, delta } => {
                two_words(out, WINDOW_UPDATE, id & 0x7fff_ffff, delta & 0x7fff_ffff);
            }
            Frame::Ping { id } => {
                control(out, PING, 0, 4);
                out.put_u32(*id);
            }
            Frame::Settings { clear, settings } => {
                control(out, SETTINGS, u8::from(*clear), 4 + 8 * settings.len());
                out.put_u32(settings.len() as u32);
                for setting in settings {
                    out.put_u32(u32::from(setting.flags) << 24 | setting.id & 0x00ff_ffff);
                    out.put_u32(setting.value);
                }
            }
        }
        Ok(())
    }

    fn with_headers(
        &mut self,
        out: &mut BytesMut,
        kind: u16,
        id: u32,
        fin: bool,
        headers: &Headers,
    ) -> Result<(), HeaderError> {
        let block = self.headers.compress(headers)?;
        control(out, kind, u8::from(fin) * FIN, 4 + block.len());
        out.put_u32(id & 0x7fff_ffff);
        out.put_slice(&block);
        Ok(())
    }
}

fn put_length(out: &mut BytesMut, flags: u8, length: usize) {
    out.put_u32(u32::from(flags) << 24 | length as u32 & 0x00ff_ffff);
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.reserve(8 + length);
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_length(out, flags, length);
}

fn two_words(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    control(out, kind, 0, 8);
    out.put_u32(first);
    out.put_u32(second);
}

/// Reads frames from bytes as they arrive; keeps the state of one connection's incoming side.
#[derive(Default)]
pub struct Decoder {
    headers: Decompressor,
    /// The data frame that has begun and whose bytes are not all here: stream, fin, bytes to come.
    open: Option<(u32, bool, usize)>,
}

impl Decoder {
    /// Takes the next frame off the front of `bytes`; none if more bytes are needed first.
    ///
    /// A large data frame is handed on in pieces, so that `bytes` needs never to hold it whole.
    pub fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(piece) = self.piece(bytes) {
                return Ok(Some(piece));
            }
            if self.open.is_some() || bytes.len() < 8 {
                return Ok(None);
            }
            let first = (&bytes[..4]).get_u32();
            let (flags, length) = (bytes[4], (&bytes[4..8]).get_u32() as usize & 0x00ff_ffff);
            if first & 0x8000_0000 == 0 {
                if first == 0 {
                    return Err(FrameError::ZeroStream);
                }
                bytes.advance(8);
                self.open = Some((first, flags & FIN != 0, length));
                continue;
            }
            let version = (first >> 16) as u16 & 0x7fff;
            if version != VERSION {
                return Err(FrameError::Version(version));
            }
            if length > MAX_CONTROL {
                return Err(FrameError::TooLarge(length));
            }
            if bytes.len() < 8 + length {
                bytes.reserve(8 + length - bytes.len());
                return Ok(None);
            }
            bytes.advance(8);
            let body = bytes.split_to(length);
            if let Some(frame) = self.control(first as u16, flags, &body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn piece(&mut self, bytes: &mut BytesMut) -> Option<Frame> {
        let (id, fin, remaining) = self.open?;
        if remaining > 0 && bytes.is_empty() {
            return None;
        }
        let taken = remaining.min(bytes.len()).min(PIECE);
        let last = taken == remaining;
        self.open = (!last).then_some((id, fin, remaining - taken));
        Some(Frame::Data { id, fin: fin && last, bytes: bytes.split_to(taken).freeze() })
    }

    /// None for a type that is not known, which is to be passed over.
    fn control(&mut self, kind: u16, flags: u8, mut body: &[u8]) -> Result<Option<Frame>, FrameError> {
        let short = |_| FrameError::Malformed(kind);
        let fin = flags & FIN != 0;
        let frame = match kind {
            SYN_STREAM => {
                let id = stream(&mut body, kind)?;
                let associated = body.try_get_u32().map_err(short)? & 0x7fff_ffff;
                let priority = body.try_get_u16().map_err(short)? >> 13;
                let headers = self.headers.decompress(body)?;
                let unidirectional = flags & UNIDIRECTIONAL != 0;
                Frame::SynStream { id, associated, priority: priority as u8, fin, unidirectional, headers }
            }
            SYN_REPLY => {
                let id = stream(&mut body, kind)?;
                Frame::SynReply { id, fin, headers: self.headers.decompress(body)? }
            }
            HEADERS => {
                let id = stream(&mut body, kind)?;
                Frame::Headers { id, fin, headers: self.headers.decompress(body)? }
            }
            RST_STREAM => {
                Frame::RstStream { id: stream(&mut body, kind)?, code: body.try_get_u32().map_err(short)? }
            }
            WINDOW_UPDATE => {
                let id = body.try_get_u32().map_err(short)? & 0x7fff_ffff;
                Frame::WindowUpdate { id, delta: body.try_get_u32().map_err(short)? & 0x7fff_ffff }
            }
            GOAWAY => {
                let last = body.try_get_u32().map_err(short)? & 0x7fff_ffff;
                Frame::GoAway { last, code: body.try_get_u32().map_err(short)? }
            }
            PING => Frame::Ping { id: body.try_get_u32().map_err(short)? },
            SETTINGS => settings(body, flags)?,
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }
}

fn stream(body: &mut &[u8], kind: u16) -> Result<u32, FrameError> {
    match body.try_get_u32().map_err(|_| FrameError::Malformed(kind))? & 0x7fff_ffff {
        0 => Err(FrameError::ZeroStream),
        id => Ok(id),
    }
}

fn settings(mut body: &[u8], flags: u8) -> Result<Frame, FrameError> {
    let count = body.try_get_u32().map_err(|_| FrameError::Malformed(SETTINGS))? as usize;
    if body.len() / 8 != count || !body.len().is_multiple_of(8) {
        return Err(FrameError::Malformed(SETTINGS));
    }
    let settings = body
        .chunks_exact(8)
        .map(|mut entry| {
            let word = entry.get_u32();
            Setting { flags: (word >> 24) as u8, id: word & 0x00ff_ffff, value: entry.get_u32() }
        })
        .collect();
    Ok(Frame::Settings { clear: flags & 1 != 0, settings })
}

#[cfg(test)]
mod tests;
