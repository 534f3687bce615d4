//! Random sequences of requests against a naive model, with restarts, compactions and defragmentations in between.

use std::collections::BTreeMap;
use std::path::Path;

use component::clock::Clock;
use component::metrics::Metrics;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::commit::{self, WriterConfig, Writes};
use crate::engine::Log;
use crate::metrics::StoreMetrics;
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8),
    Delete(u8, u8),
    /// Puts and then deletes, in one revision.
    Txn(Vec<(u8, u8)>, Vec<u8>),
    /// Back from the newest revision.
    Compact(u8),
    Defragment,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0u8..8;
    prop_oneof![
        8 => (key.clone(), any::<u8>()).prop_map(|(k, v)| Op::Put(k, v)),
        4 => (key.clone(), 0u8..9).prop_map(|(a, b)| Op::Delete(a, b)),
        3 => (prop::collection::btree_map(0u8..4, any::<u8>(), 0..3), prop::collection::vec(4u8..8, 0..3))
            .prop_map(|(puts, deletes)| Op::Txn(puts.into_iter().collect(), deletes)),
        2 => (0u8..10).prop_map(Op::Compact),
        1 => Just(Op::Defragment),
        1 => Just(Op::Reopen),
    ]
}

fn name(key: u8) -> Bytes {
    Bytes::from(format!("k{key}"))
}

/// Every key at every revision: create revision, mod revision, version, value.
#[derive(Default)]
struct Model {
    history: BTreeMap<i64, BTreeMap<Bytes, (i64, i64, i64, u8)>>,
    compacted: i64,
}

impl Model {
    fn revision(&self) -> i64 {
        self.history.last_key_value().map_or(1, |(revision, _)| *revision)
    }

    fn write(&mut self, puts: &[(u8, u8)], deletes: &[Bytes]) {
        let mut now = self.history.last_key_value().map(|(_, keys)| keys.clone()).unwrap_or_default();
        let (revision, before) = (self.revision() + 1, now.clone());
        for (key, value) in puts {
            let old = now.get(&name(*key)).copied();
            let (create, version) =
                old.map_or((revision, 1), |(create, _, version, _)| (create, version + 1));
            now.insert(name(*key), (create, revision, version, *value));
        }
        now.retain(|key, _| !deletes.contains(key));
        if !puts.is_empty() || now.len() != before.len() {
            self.history.insert(revision, now);
        }
    }

    fn range(&self, from: u8, to: u8) -> Vec<Bytes> {
        let now = self.history.last_key_value().map(|(_, keys)| keys.clone()).unwrap_or_default();
        now.into_keys().filter(|k| *k >= name(from) && *k < name(to)).collect()
    }
}

struct Opened {
    store: Arc<Store>,
    writes: Option<Writes>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Opened {
    fn new(dir: &Path) -> Self {
        let (data, log) = open(dir, "this").unwrap();
        let store = Arc::new(Store::new(data));
        let metrics = StoreMetrics::new(&Metrics::new("test"));
        let heartbeats = (0..4).map(name).collect();
        let config = WriterConfig { quota: u64::MAX, heartbeats, clock: Clock::system(), metrics };
        let (writes, _, thread) =
            commit::start(store.clone(), log, config, CancellationToken::new()).unwrap();
        Self { store, writes: Some(writes), thread: Some(thread) }
    }

    fn close(&mut self) {
        self.writes = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    fn writes(&self) -> &Writes {
        self.writes.as_ref().unwrap()
    }
}

/// Opens a log in one boot of the machine.
fn open(dir: &Path, boot: &str) -> Result<(Data, Log), EngineError> {
    Data::open(dir, &Opening { clock: &Clock::system(), ids: (1, 2), boot })
}

fn put(key: u8, value: u8) -> PutRequest {
    // Heartbeats, small updates, and large ones.
    let mut bytes = vec![7; if key < 6 { 100 } else { 3000 }];
    bytes[0] = value;
    PutRequest { key: name(key), value: bytes.into(), ..PutRequest::default() }
}

fn delete(key: Bytes, end: Bytes) -> DeleteRangeRequest {
    DeleteRangeRequest { key, range_end: end, prev_kv: false }
}

async fn carry_out(op: &Op, model: &mut Model, opened: &mut Opened, dir: &Path) {
    match op {
        Op::Put(key, value) => {
            opened.writes().put(put(*key, *value)).await.unwrap();
            model.write(&[(*key, *value)], &[]);
        }
        Op::Delete(from, to) => {
            let keys = model.range(*from, *to);
            let response = opened.writes().delete(delete(name(*from), name(*to))).await.unwrap();
            assert_eq!(response.deleted, keys.len() as i64);
            model.write(&[], &keys);
        }
        Op::Txn(puts, deletes) => {
            let puts_ops = puts.iter().map(|(k, v)| Request::RequestPut(put(*k, *v)));
            let deletes_ops =
                deletes.iter().map(|k| Request::RequestDeleteRange(delete(name(*k), Bytes::new())));
            let success = puts_ops.chain(deletes_ops).map(|r| RequestOp { request: Some(r) }).collect();
            let txn = TxnRequest { success, ..TxnRequest::default() };
            check_txn(&txn).unwrap();
            assert!(opened.writes().txn(txn).await.unwrap().succeeded);
            let deletes: Vec<_> = deletes.iter().map(|k| name(*k)).collect();
            model.write(puts, &deletes);
        }
        Op::Compact(back) => {
            let revision = model.revision() - i64::from(*back);
            let result = opened.writes().compact(revision, true).await;
            assert_eq!(result.is_ok(), revision > model.compacted, "{result:?}");
            model.compacted = model.compacted.max(revision);
        }
        Op::Defragment => opened.writes().defragment().await.unwrap(),
        Op::Reopen => {
            opened.close();
            *opened = Opened::new(dir);
        }
    }
}

#[track_caller]
fn check(model: &Model, store: &Store) {
    assert_eq!(store.revision(), model.revision());
    for (revision, keys) in &model.history {
        let request = RangeRequest {
            key: Bytes::from_static(&[0]),
            range_end: Bytes::from_static(&[0]),
            revision: *revision,
            ..RangeRequest::default()
        };
        let found = store.range(&request);
        if *revision < model.compacted {
            assert!(matches!(found, Err(Error::Compacted)), "{found:?}");
            continue;
        }
        let found = found.unwrap();
        let of = |kv: KeyValue| {
            assert!(kv.value.len() >= 100 && kv.value[1..].iter().all(|byte| *byte == 7));
            (kv.key, (kv.create_revision, kv.mod_revision, kv.version, kv.value[0]))
        };
        let found: BTreeMap<_, _> = found.kvs.into_iter().map(of).collect();
        assert_eq!(&found, keys, "at {revision}");
    }
    changes(model, store);
}

/// The changes since the compacted revision, as watches read them, lead from one state to the next.
#[track_caller]
fn changes(model: &Model, store: &Store) {
    let from = model.compacted.max(1) + 1;
    let all = KeyRange::From(Bytes::new());
    let (changes, reached) = store.changes(&all, from, model.revision(), usize::MAX).unwrap();
    assert_eq!(reached, model.revision());
    let mut keys = model.history.range(..from).next_back().map(|(_, k)| k.clone()).unwrap_or_default();
    let mut changes = changes.into_iter().peekable();
    for (revision, expected) in model.history.range(from..) {
        while let Some((version, kv)) = changes.next_if(|(v, _)| v.revision == *revision) {
            if version.is_deletion() {
                assert!(keys.remove(&kv.key).is_some(), "{kv:?} was not there");
            } else {
                keys.insert(kv.key, (kv.create_revision, kv.mod_revision, kv.version, kv.value[0]));
            }
        }
        assert_eq!(&keys, expected, "at {revision}");
    }
    assert!(changes.next().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_retained_revision_is_exact(ops in prop::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = TempDir::new().unwrap();
        runtime.block_on(async {
            let (mut model, mut opened) = (Model::default(), Opened::new(dir.path()));
            for op in &ops {
                carry_out(op, &mut model, &mut opened, dir.path()).await;
                check(&model, &opened.store);
            }
            opened.close();
            let reopened = open(dir.path(), "another").unwrap().0;
            let live = opened.store.read().size().live;
            prop_assert_eq!(reopened.size().live, live, "what is needed is counted the same after opening");
            prop_assert_eq!((reopened.cluster_id, reopened.member_id), (1, 2));
            Ok(())
        })?;
    }
}

/// What a machine that died left of a log: some of its bytes.
fn left_over(log: &Path, bytes: usize) -> TempDir {
    let dir = TempDir::new().unwrap();
    let all = std::fs::read(log.join("00000001.log")).unwrap();
    std::fs::write(dir.path().join("00000001.log"), &all[..bytes]).unwrap();
    dir
}

#[test]
fn a_machine_that_dies_gives_no_revision_out_twice() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = TempDir::new().unwrap();
    runtime.block_on(async {
        let (mut model, mut opened) = (Model::default(), Opened::new(dir.path()));
        let size = || std::fs::metadata(dir.path().join("00000001.log")).unwrap().len() as usize;
        // The first heartbeat is durable, since it comes with a ceiling.
        for value in 0..2 {
            carry_out(&Op::Put(0, value), &mut model, &mut opened, dir.path()).await;
        }
        let durable = size();
        for value in 2..10 {
            carry_out(&Op::Put(0, value), &mut model, &mut opened, dir.path()).await;
        }
        let (written, given) = (size(), model.revision());
        assert!(written - durable < 8 * 60, "heartbeats are small: {} bytes", written - durable);

        let (data, log) = open(left_over(dir.path(), written).path(), "this").unwrap();
        assert_eq!((data.revision, data.compacted), (given, 0), "nothing is lost with a process");
        check(&model, &Store::new(data));
        drop(log);
        for left in durable..=written {
            let dir = left_over(dir.path(), left);
            let (data, log) = open(dir.path(), "another").unwrap();
            assert!(data.revision > given && data.compacted == data.revision, "{left} bytes are left");
            let revision = data.revision;
            drop(log);
            let (data, _log) = open(dir.path(), "another").unwrap();
            assert_eq!(data.revision, revision, "it does so once");
            let kept = Store::new(data).get_at(&name(0), i64::MAX).unwrap().unwrap();
            assert!((1..10).contains(&kept.value[0]) && kept.mod_revision == i64::from(kept.value[0]) + 2);
        }
        // The process may have been killed while it wrote, or the disk has failed: nobody knows.
        let torn = open(left_over(dir.path(), written - 1).path(), "this").unwrap().0;
        assert!(torn.revision > given);

        opened.close();
        let (data, _log) = open(dir.path(), "another").unwrap();
        assert_eq!((data.revision, data.compacted), (given, 0), "nothing is lost with a process that ends");
    });
}
