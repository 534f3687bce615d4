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
    assert_eq!(log.pending_body(second).unwrap().as_deref(), Some(&lease(300).encode_to_vec()[..]));
    log.flush().unwrap();
    assert_eq!(log.pending_body(second).unwrap(), None);
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
fn heartbeats_are_differences_and_wait_for_what_does_not() {
    use crate::pb::mvccpb::KeyValue;
    let dir = written(0..0);
    let (mut log, segments, _) = open(dir.path()).unwrap();
    let record = |n: u8| KeyValue {
        key: b"k"[..].into(),
        mod_revision: i64::from(n),
        value: [vec![n], vec![0; 200]].concat().into(),
        ..KeyValue::default()
    };
    let mut places = vec![log.append(Kind::Put, 0, &record(1))];
    log.flush().unwrap();
    for n in 2..5 {
        places.push(log.append_heartbeat(0, &record(n), *places.last().unwrap()).unwrap());
        assert_eq!(log.pending_body(places[usize::from(n) - 1]).unwrap().unwrap(), record(n).encode_to_vec());
        assert!(log.may_wait());
        if n > 2 {
            log.flush().unwrap();
            assert!(log.is_unsynced());
        }
    }
    assert!(places[1..].iter().all(|place| place.delta && place.length < 20));
    log.append(Kind::Lease, 0, &lease(1));
    log.flush().unwrap();
    assert!(!log.is_unsynced());
    let longer = KeyValue { version: 1, ..record(5) };
    let whole = log.append_heartbeat(0, &longer, places[3]).unwrap();
    log.flush().unwrap();
    assert!(!whole.delta && log.is_unsynced(), "it has another length");
    log.hurry();
    log.flush().unwrap();
    assert!(!log.is_unsynced());
    log.roll().unwrap();
    let newest = log.append_heartbeat(0, &record(6), whole).unwrap();
    log.flush().unwrap();
    assert!(!newest.delta && log.is_unsynced(), "it is the first one in its segment");
    log.remove(&Segment::create(9, dir.path().join("none")).unwrap()).unwrap();
    assert!(!log.is_unsynced(), "what is removed may be needed until then");
    let read: Vec<_> = places.iter().map(|place| segments[&1].body(*place).unwrap()).collect();
    assert_eq!(read, (1..5).map(|n| record(n).encode_to_vec()).collect::<Vec<_>>());
    drop(log);
    let mut found = Vec::new();
    let entry = |entry: Found| {
        if entry.entry.kind == Kind::Put {
            found.push((entry.location, entry.entry.body));
        }
        Ok(())
    };
    Log::open(dir.path(), entry).unwrap();
    places.extend([whole, newest]);
    assert_eq!(found.iter().map(|(place, _)| *place).collect::<Vec<_>>(), places);
    assert_eq!(found[3].1, record(4).encode_to_vec());
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
