//! Frames: that they survive the journey, and that no bytes break the decoder.

use proptest::prelude::*;

use super::*;

fn headers() -> impl Strategy<Value = Headers> {
    prop::collection::vec(("[a-z]{1,12}", "[ -~]{0,60}"), 0..6).prop_map(Headers)
}

fn frame() -> impl Strategy<Value = Frame> {
    let id = 1u32..0x7fff_ffff;
    prop_oneof![
        (id.clone(), 0u32..9, 0u8..8, any::<bool>(), any::<bool>(), headers()).prop_map(
            |(id, associated, priority, fin, unidirectional, headers)| Frame::SynStream {
                id,
                associated,
                priority,
                fin,
                unidirectional,
                headers
            }
        ),
        (id.clone(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::SynReply {
            id,
            fin,
            headers
        }),
        (id.clone(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::Headers {
            id,
            fin,
            headers
        }),
        (id.clone(), any::<u32>()).prop_map(|(id, code)| Frame::RstStream { id, code }),
        (id.clone(), any::<u32>()).prop_map(|(last, code)| Frame::GoAway { last, code }),
        (id.clone(), 0u32..0x7fff_ffff).prop_map(|(id, delta)| Frame::WindowUpdate { id, delta }),
        any::<u32>().prop_map(|id| Frame::Ping { id }),
        (any::<bool>(), prop::collection::vec((any::<u8>(), 0u32..0x00ff_ffff, any::<u32>()), 0..5))
            .prop_map(|(clear, list)| {
                let settings =
                    list.into_iter().map(|(flags, id, value)| Setting { flags, id, value }).collect();
                Frame::Settings { clear, settings }
            }),
        (id, any::<bool>(), prop::collection::vec(any::<u8>(), 0..500))
            .prop_map(|(id, fin, bytes)| Frame::Data { id, fin, bytes: bytes.into() }),
    ]
}

/// What the decoder makes of bytes that arrive in steps of `step`, with pieces of data joined.
fn decode(bytes: &[u8], step: usize) -> Result<Vec<Frame>, FrameError> {
    let (mut decoder, mut buffer, mut frames) = (Decoder::default(), BytesMut::new(), Vec::new());
    let mut pieces: Vec<u8> = Vec::new();
    for chunk in bytes.chunks(step) {
        buffer.extend_from_slice(chunk);
        while let Some(frame) = decoder.decode(&mut buffer)? {
            match frame {
                Frame::Data { bytes, .. } if decoder.open.is_some() => pieces.extend_from_slice(&bytes),
                Frame::Data { id, fin, bytes } => {
                    pieces.extend_from_slice(&bytes);
                    frames.push(Frame::Data { id, fin, bytes: std::mem::take(&mut pieces).into() });
                }
                other => frames.push(other),
            }
        }
    }
    Ok(frames)
}

proptest! {
    #[test]
    fn frames_survive_the_journey_however_they_are_cut(frames in prop::collection::vec(frame(), 1..10), step in 1usize..200) {
        let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
        for frame in &frames {
            encoder.encode(frame, &mut bytes).unwrap();
        }
        prop_assert_eq!(decode(&bytes, step).unwrap(), frames);
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..3000), step in 1usize..100) {
        let _ = decode(&bytes, step);
    }

    #[test]
    fn any_control_frame_is_refused_or_read(kind in 0u16..12, flags in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = BytesMut::new();
        control(&mut bytes, kind, flags, body.len());
        bytes.put_slice(&body);
        let _ = decode(&bytes, bytes.len());
    }

    #[test]
    fn a_broken_frame_is_refused_or_read(frame in frame(), at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = BytesMut::new();
        Encoder::default().encode(&frame, &mut bytes).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = decode(&bytes, 7);
    }
}

#[track_caller]
fn check(bytes: &[u8], expected: Result<usize, FrameError>) {
    assert_eq!(decode(bytes, 3).map(|frames| frames.len()), expected);
}

#[test]
fn what_is_no_spdy_is_refused() {
    check(b"GET / HTTP/1.1\r\n", Ok(0));
    check(&[0, 0, 0, 0, 0, 0, 0, 0], Err(FrameError::ZeroStream));
    check(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1], Err(FrameError::Version(2)));
    check(&[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0], Err(FrameError::Malformed(PING)));
    check(&[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff], Err(FrameError::Malformed(SETTINGS)));
    check(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], Err(FrameError::TooLarge(0xff_ffff)));
    check(&[0x80, 3, 0, 99, 0, 0, 0, 1, 7, 0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1], Ok(1));
}

#[test]
fn a_large_data_frame_is_handed_on_in_pieces() {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
    buffer.put_u32(5);
    put_length(&mut buffer, FIN, 200_000);
    buffer.put_bytes(7, 200_000);
    let mut sizes = Vec::new();
    while let Some(Frame::Data { id, fin, bytes }) = decoder.decode(&mut buffer).unwrap() {
        assert_eq!(id, 5);
        sizes.push((bytes.len(), fin));
    }
    assert_eq!(sizes, [(65536, false), (65536, false), (65536, false), (3392, true)]);
}
