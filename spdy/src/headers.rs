//! Header blocks: name and value pairs, compressed with zlib and SPDY/3's dictionary.

use std::sync::LazyLock;

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// The most bytes that a header block may have when it is decompressed.
pub const MAX_BLOCK: usize = 64 * 1024;
/// The most headers that a block may have.
pub const MAX_HEADERS: usize = 128;

/// Why a header block is refused; the compression state is then lost, and the connection with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The zlib stream is broken.
    #[error("header block does not decompress")]
    Zlib,
    /// Larger than [`MAX_BLOCK`] or [`MAX_HEADERS`].
    #[error("header block is too large")]
    TooLarge,
    /// Lengths that do not add up.
    #[error("header block is truncated or has bytes left over")]
    Malformed,
    /// Names or values that are not text.
    #[error("header is not UTF-8")]
    NotText,
}

/// The headers of a stream, in order; names are lower case on the wire and compared without case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one header more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// The first value of a header; several values of one name are separated by NUL on the wire.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        value.split('\0').next()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.put_u32(u32::try_from(self.0.len()).unwrap_or(u32::MAX));
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            out.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
            out.put_slice(text.as_bytes());
        }
        out
    }

    fn decode(mut block: &[u8]) -> Result<Self, HeaderError> {
        let count = block.try_get_u32().map_err(|_| HeaderError::Malformed)? as usize;
        if count > MAX_HEADERS {
            return Err(HeaderError::TooLarge);
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let name = text(&mut block)?;
            let value = text(&mut block)?;
            headers.push((name.to_ascii_lowercase(), value));
        }
        if block.is_empty() { Ok(Self(headers)) } else { Err(HeaderError::Malformed) }
    }
}

fn text(block: &mut &[u8]) -> Result<String, HeaderError> {
    let length = block.try_get_u32().map_err(|_| HeaderError::Malformed)? as usize;
    let (head, rest) = block.split_at_checked(length).ok_or(HeaderError::Malformed)?;
    *block = rest;
    String::from_utf8(head.to_vec()).map_err(|_| HeaderError::NotText)
}

/// The compressing half of a connection's header state. One zlib stream lasts as long as the
/// connection, so blocks must be written in the order in which they were compressed.
pub struct Compressor(Compress);

impl Default for Compressor {
    fn default() -> Self {
        let mut zlib = Compress::new(Compression::fast(), true);
        // A fresh stream takes a dictionary; if it did not, blocks would merely compress less.
        let _ = zlib.set_dictionary(&DICTIONARY);
        Self(zlib)
    }
}

impl Compressor {
    /// The compressed block.
    pub fn compress(&mut self, headers: &Headers) -> Result<Vec<u8>, HeaderError> {
        let plain = headers.encode();
        if plain.len() > MAX_BLOCK || headers.0.len() > MAX_HEADERS {
            return Err(HeaderError::TooLarge);
        }
        let start = self.0.total_in();
        let mut out = Vec::with_capacity(plain.len() + 64);
        loop {
            let consumed = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            let input = plain.get(consumed..).unwrap_or_default();
            let flushed = self.0.compress_vec(input, &mut out, FlushCompress::Sync);
            match flushed {
                Err(_) | Ok(Status::StreamEnd) => return Err(HeaderError::Zlib),
                // The flush is complete once it leaves room in the output.
                Ok(_) if out.len() < out.capacity() => return Ok(out),
                Ok(_) => out.reserve(1024),
            }
        }
    }
}

/// The decompressing half of a connection's header state.
pub struct Decompressor(Decompress);

impl Default for Decompressor {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Decompressor {
    /// The headers of a compressed block; no block inflates beyond [`MAX_BLOCK`].
    pub fn decompress(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        let start = self.0.total_in();
        let mut plain = Vec::with_capacity(1024);
        loop {
            let consumed = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            let input = block.get(consumed..).unwrap_or_default();
            let before = (consumed, plain.len());
            match self.0.decompress_vec(input, &mut plain, FlushDecompress::Sync) {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| HeaderError::Zlib)?;
                    continue;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(HeaderError::Zlib),
                Ok(_) => {}
            }
            let consumed = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            if consumed >= block.len() && plain.len() < plain.capacity() {
                return Headers::decode(&plain);
            }
            if plain.len() > MAX_BLOCK {
                return Err(HeaderError::TooLarge);
            }
            if plain.len() == plain.capacity() {
                plain.reserve(4096);
            } else if before == (consumed, plain.len()) {
                return Err(HeaderError::Zlib);
            }
        }
    }
}

/// The words with which the dictionary of SPDY/3 begins, each behind its length.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host \
    if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// The text with which it ends.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
    403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
    publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::with_capacity(1423);
    for word in WORDS.split_whitespace() {
        dictionary.put_u32(word.len() as u32);
        dictionary.extend(word.bytes().map(|b| if b == b'_' { b' ' } else { b }));
    }
    dictionary.extend_from_slice(TAIL.as_bytes());
    dictionary
});

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_dictionary_is_that_of_the_protocol() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in DICTIONARY.iter() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!(DICTIONARY.len(), 1423);
        // The Adler-32 sum by which a zlib stream names it.
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
    }

    #[test]
    fn the_stream_names_its_dictionary() {
        let block = Compressor::default().compress(&Headers::new().with("streamType", "error")).unwrap();
        assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[test]
    fn names_are_compared_without_case() {
        let headers = Headers::new().with("streamType", "error");
        assert_eq!(headers.0[0].0, "streamtype");
        assert_eq!(headers.get("StreamType"), Some("error"));
        assert_eq!(headers.get("port"), None);
    }

    #[test]
    fn a_block_that_inflates_without_bound_is_refused() {
        let mut zlib = Compress::new(Compression::best(), true);
        zlib.set_dictionary(&DICTIONARY).unwrap();
        let mut bomb = Vec::with_capacity(1 << 20);
        zlib.compress_vec(&vec![0; 1 << 24], &mut bomb, FlushCompress::Sync).unwrap();
        assert_eq!(Decompressor::default().decompress(&bomb), Err(HeaderError::TooLarge));
    }

    proptest! {
        #[test]
        fn blocks_survive_the_journey(blocks in prop::collection::vec(
            prop::collection::vec(("[a-z-]{0,20}", "\\PC{0,300}"), 0..20), 1..8)) {
            let (mut compressor, mut decompressor) = (Compressor::default(), Decompressor::default());
            for block in blocks {
                let headers = Headers(block);
                let bytes = compressor.compress(&headers).unwrap();
                prop_assert_eq!(decompressor.decompress(&bytes).unwrap(), headers);
            }
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = Decompressor::default().decompress(&bytes);
            let _ = Headers::decode(&bytes);
        }
    }
}
