//! Concurrent clients: what they were told must be what one sequence of requests, in an order that agrees with time, would
//! have told them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use component::tasks::Tasks;
use etcd_client::{Client, Compare, CompareOp, GetOptions, Txn, TxnOp, TxnOpResponse};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;

use crate::support::{Server, block_on};

const CLIENTS: u64 = 8;
const REQUESTS: usize = 150;
const KEYS: u32 = 5;

/// What a client asked and was told.
#[derive(Debug)]
enum Told {
    /// Key, value before, value written.
    Put(String, Option<String>, String),
    /// Key, value before.
    Deleted(String, Option<String>),
    /// Key and the mod revision that was expected; the value written; whether it was.
    Swapped(String, i64, String, bool),
    /// All keys with mod revision and value.
    Read(Vec<(String, i64, String)>),
}

#[derive(Debug)]
struct Call {
    began: i64,
    ended: i64,
    revision: i64,
    /// Whether it made its revision, rather than seeing it.
    wrote: bool,
    told: Told,
}

async fn one_call(client: &mut Client, random: &mut StdRng, value: String) -> (i64, bool, Told) {
    let key = format!("k{}", random.random_range(0..KEYS));
    let text = |kv: &etcd_client::KeyValue| kv.value_str().unwrap().to_owned();
    match random.random_range(0..4) {
        0 => {
            let options = etcd_client::PutOptions::new().with_prev_key();
            let response = client.put(key.as_str(), value.as_str(), Some(options)).await.unwrap();
            let revision = response.header().unwrap().revision();
            (revision, true, Told::Put(key, response.prev_key().map(text), value))
        }
        1 => {
            let options = etcd_client::DeleteOptions::new().with_prev_key();
            let response = client.delete(key.as_str(), Some(options)).await.unwrap();
            let revision = response.header().unwrap().revision();
            (revision, response.deleted() > 0, Told::Deleted(key, response.prev_kvs().first().map(text)))
        }
        2 => {
            let known = client.get(key.as_str(), None).await.unwrap();
            let expected = known.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision);
            let txn = Txn::new()
                .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, expected)])
                .and_then([TxnOp::put(key.as_str(), value.as_str(), None)])
                .or_else([TxnOp::get(key.as_str(), None)]);
            let response = client.txn(txn).await.unwrap();
            if let [TxnOpResponse::Get(get)] = response.op_responses().as_slice() {
                assert_ne!(get.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision), expected);
            }
            let revision = response.header().unwrap().revision();
            let done = response.succeeded();
            (revision, done, Told::Swapped(key, expected, value, done))
        }
        _ => {
            let response = client.get("k", Some(GetOptions::new().with_prefix())).await.unwrap();
            let of = |kv: &etcd_client::KeyValue| {
                (kv.key_str().unwrap().to_owned(), kv.mod_revision(), kv.value_str().unwrap().to_owned())
            };
            let revision = response.header().unwrap().revision();
            (revision, false, Told::Read(response.kvs().iter().map(of).collect()))
        }
    }
}

/// A history is right if the writes, in the order of their revisions, tell every client what it was told, and no call sees a
/// revision that is older than one whose call had ended before it began.
fn check(mut calls: Vec<Call>) {
    calls.sort_by_key(|call| (call.revision, !call.wrote));
    let mut keys: BTreeMap<String, (i64, String)> = BTreeMap::new();
    let mut revision = 1;
    for call in &calls {
        if call.wrote {
            assert_eq!(call.revision, revision + 1, "every revision is given once: {call:?}");
            revision = call.revision;
        }
        assert_eq!(call.revision, revision, "{call:?}");
        let value = |key: &str, keys: &BTreeMap<String, (i64, String)>| keys.get(key).map(|(_, v)| v.clone());
        match &call.told {
            Told::Put(key, before, after) => {
                assert_eq!(value(key, &keys), *before, "{call:?}");
                keys.insert(key.clone(), (revision, after.clone()));
            }
            Told::Deleted(key, before) => {
                assert_eq!(value(key, &keys), *before, "{call:?}");
                keys.remove(key);
            }
            Told::Swapped(key, expected, after, done) => {
                let now = keys.get(key).map_or(0, |(revision, _)| *revision);
                assert_eq!(now == *expected, *done, "{call:?}");
                if *done {
                    keys.insert(key.clone(), (revision, after.clone()));
                }
            }
            Told::Read(seen) => {
                let now: Vec<_> = keys.iter().map(|(k, (r, v))| (k.clone(), *r, v.clone())).collect();
                assert_eq!(now, *seen, "{call:?}");
            }
        }
    }
    in_time(calls);
}

fn in_time(mut calls: Vec<Call>) {
    calls.sort_by_key(|call| call.ended);
    let mut ends: BTreeMap<i64, i64> = BTreeMap::new();
    let mut newest = 0;
    for call in &calls {
        newest = newest.max(call.revision);
        ends.insert(call.ended, newest);
    }
    for call in &calls {
        let known = ends.range(..call.began).next_back().map_or(0, |(_, revision)| *revision);
        let least = known + i64::from(call.wrote);
        assert!(call.revision >= least, "{known} was known before this began: {call:?}");
    }
}

#[test]
fn concurrent_clients_see_one_history() {
    block_on(async {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let server = Server::start().await;
        let (tasks, time) = (Tasks::new("clients"), Arc::new(AtomicI64::new(0)));
        let (send, mut calls) = mpsc::unbounded_channel();
        for number in 0..CLIENTS {
            let (mut client, time, send) = (server.client().await, time.clone(), send.clone());
            let mut random = StdRng::seed_from_u64(seed.wrapping_add(number));
            tasks.spawn("client", async move {
                for request in 0..REQUESTS {
                    let value = format!("{number}-{request}");
                    let began = time.fetch_add(1, Ordering::SeqCst);
                    let (revision, wrote, told) = one_call(&mut client, &mut random, value).await;
                    let ended = time.fetch_add(1, Ordering::SeqCst);
                    send.send(Call { began, ended, revision, wrote, told }).unwrap();
                }
            });
        }
        drop(send);
        let mut all = Vec::new();
        while let Some(call) = calls.recv().await {
            all.push(call);
        }
        assert_eq!(all.len() as u64, CLIENTS * REQUESTS as u64, "no client failed");
        check(all);
    });
}
