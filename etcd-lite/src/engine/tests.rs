use std::fs;

use tempfile::TempDir;

use super::*;
use crate::pb::log::Lease;

fn lease(id: i64) -> Lease {
    Lease { id, ..Lease::default() }
}

/// Opens a log; also the ids of the leases that it holds, in order.
fn open(dir: &Path) -> Result<(Log, Segments, Vec<i64>), EngineError> {
    let mut ids = Vec::new();
    let (log, segments) = Log::open(dir, |found| {
        ids.push(Lease::decode(found.entry.body)?.id);
        Ok(())
    })?;
    Ok((log, segments, ids))
}

/// A log with one frame for every id.
fn written(ids: std::ops::Range<i64>) -> TempDir {
    let dir = TempDir::new().unwrap();
    let (mut log, ..) = open(dir.path()).unwrap();
    for id in ids {
        log.append(Kind::Lease, 0, &lease(id));
        log.flush().unwrap();
    }
    dir
}

#[test]
fn what_was_flushed_is_found_and_can_be_read_by_its_location() {
    let dir = written(0..0);
    let (mut log, segments, _) = open(dir.path()).unwrap();
    let first = log.append(Kind::Lease, 0, &lease(1));
    let second = log.append(Kind::Lease, 7, &lease(300));
    assert_eq!(log.pending_body(second).map(<[u8]>::to_vec), Some(lease(300).encode_to_vec()));
    log.flush().unwrap();
    assert_eq!(log.pending_body(second), None);
    let read =
        |at: Location| Lease::decode(segments[&at.segment].read(at.offset, at.length).unwrap()).unwrap();
    assert_eq!((read(first).id, read(second).id), (1, 300));
    drop(log);
    assert_eq!(open(dir.path()).unwrap().2, [1, 300]);
}

#[test]
fn a_frame_that_was_not_written_to_its_end_is_cut_off() {
    let dir = written(1..4);
    let path = dir.path().join("00000001.log");
    let whole = fs::read(&path).unwrap();
    // Each frame has the same size; the last one is torn at every place.
    let frame = whole.len() / 3;
    for cut in 1..frame {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let (mut log, _, ids) = open(dir.path()).unwrap();
        assert_eq!(ids, [1, 2], "cut by {cut}");
        log.append(Kind::Lease, 0, &lease(9));
        log.flush().unwrap();
        drop(log);
        assert_eq!(open(dir.path()).unwrap().2, [1, 2, 9], "cut by {cut}");
    }
    let mut garbled = whole.clone();
    let last = garbled.len() - 1;
    garbled[last] ^= 1;
    fs::write(&path, &garbled).unwrap();
    assert_eq!(open(dir.path()).unwrap().2, [1, 2]);
}

#[test]
fn damage_in_an_older_segment_is_no_end() {
    let dir = written(1..4);
    let (mut log, ..) = open(dir.path()).unwrap();
    log.roll().unwrap();
    log.append(Kind::Lease, 0, &lease(4));
    log.flush().unwrap();
    drop(log);
    assert_eq!(open(dir.path()).unwrap().2, [1, 2, 3, 4]);
    let path = dir.path().join("00000001.log");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(open(dir.path()), Err(EngineError::Damaged { .. })));
}

#[test]
fn a_store_is_opened_once() {
    let dir = written(1..2);
    let held = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(EngineError::Locked(_))));
    drop(held);
    open(dir.path()).unwrap();
}
