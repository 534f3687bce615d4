//! Large answers, compressed for clients that take them so.

use std::io::Write;

use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, header};

/// Answers from this size on are compressed, as upstream does.
pub(super) const THRESHOLD: usize = 128 << 10;

/// Whether a client takes compressed answers.
pub(super) fn accepted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        let gzip = matches!(parts.next(), Some("gzip" | "*"));
        gzip && !parts.any(|p| p.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0)))
    })
}

/// Says that an answer is compressed.
pub(super) fn mark(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// Compresses a whole answer, quickly rather than well.
pub(super) fn whole(bytes: &[u8]) -> Bytes {
    pieces(std::iter::once(Bytes::copy_from_slice(bytes))).flatten().collect::<Vec<u8>>().into()
}

/// Compresses an answer piece by piece.
pub(super) fn pieces(from: impl Iterator<Item = Bytes> + Send) -> impl Iterator<Item = Bytes> + Send {
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut from = from;
    std::iter::from_fn(move || {
        let open = encoder.as_mut()?;
        for piece in from.by_ref() {
            open.write_all(&piece).expect("memory can be written to");
            if open.get_ref().len() >= THRESHOLD / 8 {
                return Some(std::mem::take(open.get_mut()).into());
            }
        }
        let last = encoder.take()?.finish().expect("memory can be written to");
        Some(last.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_is_compressed_is_read_again() {
        let parts: Vec<Bytes> = (0..200u32).map(|i| Bytes::from(format!("{i:01000}"))).collect();
        let wanted: Vec<u8> = parts.concat();
        let packed: Vec<u8> = pieces(parts.into_iter()).flatten().collect();
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut text).unwrap();
        assert!(text == wanted && packed.len() < wanted.len() / 4);
    }

    #[test]
    fn clients_say_what_they_take() {
        let check = |value: &str, wanted: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            assert_eq!(accepted(&headers), wanted, "{value}");
        };
        check("gzip", true);
        check("deflate, gzip;q=0.5", true);
        check("gzip;q=0", false);
        check("identity", false);
        assert!(!accepted(&HeaderMap::new()));
    }
}
