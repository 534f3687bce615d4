//! The form of the log: frames that are there whole or not at all, made of entries.
//!
//! A frame is its payload's length and CRC-32 (little-endian, four bytes each) and the payload. A payload is one entry
//! after another: kind (one byte), order within its revision (four bytes), length of the body (four bytes), body.

use bytes::{Buf, Bytes};

/// Bytes before a frame's payload.
pub const FRAME_HEADER: usize = 8;
/// Bytes before an entry's body.
pub const ENTRY_HEADER: usize = 9;

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A key's value at a revision: an encoded `mvccpb.KeyValue`.
    Put = 1,
    /// The end of a key at a revision: an encoded `mvccpb.KeyValue` of key and mod revision.
    Delete = 2,
    /// A lease that was granted: an encoded `Lease`.
    Lease = 3,
    /// The end of a lease: an encoded `Lease` of its id.
    LeaseEnd = 4,
    /// The store as a whole: an encoded `State`.
    State = 5,
    /// A key's value at a revision: an encoded `Delta` of the `mvccpb.KeyValue` that [`Kind::Put`] has.
    Delta = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Put, Self::Delete, Self::Lease, Self::LeaseEnd, Self::State, Self::Delta]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// An entry as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it holds.
    pub kind: Kind,
    /// Its place among the changes of its revision.
    pub order: u32,
    /// Where its body begins, from the beginning of the payload.
    pub offset: usize,
    /// The body.
    pub body: Bytes,
}

/// Begins a frame at the end of a buffer.
pub fn begin(buffer: &mut Vec<u8>) {
    buffer.extend([0; FRAME_HEADER]);
}

/// Appends an entry to the frame at the end of a buffer; returns where its body begins in the buffer.
pub fn push(buffer: &mut Vec<u8>, kind: Kind, order: u32, message: &impl prost::Message) -> (usize, usize) {
    let length = message.encoded_len();
    buffer.reserve(ENTRY_HEADER + length);
    buffer.push(kind as u8);
    buffer.extend(order.to_le_bytes());
    buffer.extend(u32::try_from(length).expect("requests are far smaller").to_le_bytes());
    let at = buffer.len();
    message.encode(buffer).expect("a vector grows");
    (at, length)
}

/// Completes the frame that begins at `start`.
pub fn finish(buffer: &mut [u8], start: usize) {
    let (header, payload) = buffer[start..].split_at_mut(FRAME_HEADER);
    let length = u32::try_from(payload.len()).expect("batches are far smaller");
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
}

/// The length of the payload and its checksum.
pub fn parse_header(header: [u8; FRAME_HEADER]) -> (usize, u32) {
    let [a, b, c, d, e, f, g, h] = header;
    (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]))
}

/// The entries of a payload whose checksum is right; `None` when it is no sequence of entries all the same.
pub fn entries(payload: &Bytes) -> Option<Vec<Entry>> {
    let mut rest = payload.clone();
    let mut entries = Vec::new();
    while rest.has_remaining() {
        if rest.remaining() < ENTRY_HEADER {
            return None;
        }
        let kind = Kind::from_byte(rest.get_u8())?;
        let order = rest.get_u32_le();
        let length = rest.get_u32_le() as usize;
        if rest.remaining() < length {
            return None;
        }
        let offset = payload.len() - rest.remaining();
        entries.push(Entry { kind, order, offset, body: rest.split_to(length) });
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::log::Lease;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_pushed_is_read(ids in proptest::collection::vec(any::<i64>(), 0..20), order in any::<u32>()) {
            let mut buffer = vec![9, 9];
            begin(&mut buffer);
            let mut places = Vec::new();
            for id in &ids {
                places.push(push(&mut buffer, Kind::Lease, order, &Lease { id: *id, ..Lease::default() }));
            }
            finish(&mut buffer, 2);
            let (length, crc) = parse_header(buffer[2..10].try_into().unwrap());
            let payload = Bytes::copy_from_slice(&buffer[10..]);
            prop_assert_eq!((length, crc), (payload.len(), crc32fast::hash(&payload)));
            let read = entries(&payload).unwrap();
            prop_assert_eq!(read.len(), ids.len());
            for (entry, (at, length)) in read.iter().zip(places) {
                prop_assert_eq!((entry.offset + 10, entry.body.len(), entry.order), (at, length, order));
            }
        }

        #[test]
        fn no_payload_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = entries(&Bytes::from(bytes));
        }
    }
}
