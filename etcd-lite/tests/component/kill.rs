//! Kills the server under load, again and again: no acknowledged write is lost, none is invented.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use component::tasks::Tasks;
use etcd_client::{Client, CompactionOptions, GetOptions, Txn, TxnOp};
use rand::RngExt;
use tempfile::TempDir;

use crate::support::{Process, block_on, soon};

const WRITERS: usize = 6;
/// Heartbeats within transactions and heartbeats alone: both outlive the process.
const FLAGS: [&str; 1] = ["--heartbeat-prefixes=h,a0,a2,a4"];

/// What one writer has tried and what it was told, by number of the attempt.
#[derive(Default)]
struct Record {
    tried: AtomicU64,
    /// The last attempt that was acknowledged, and its revision.
    acknowledged: AtomicU64,
    revision: AtomicU64,
    /// The last heartbeat that was acknowledged.
    beat: AtomicU64,
}

/// Writes two keys in one transaction, and a value of some size beside them, with numbers that only grow.
async fn write(url: String, writer: usize, record: Arc<Record>) {
    let Ok(mut client) = Client::connect([url], None).await else { return };
    loop {
        let number = record.tried.fetch_add(1, Ordering::SeqCst) + 1;
        let text = number.to_string();
        let large = text.clone() + &"-".repeat((number % 7) as usize * 300);
        let mut ops = vec![
            TxnOp::put(format!("a{writer}"), text.as_str(), None),
            TxnOp::put(format!("b{writer}"), large, None),
        ];
        if number.is_multiple_of(5) {
            ops.push(TxnOp::delete(format!("c{writer}"), None));
        } else {
            ops.push(TxnOp::put(format!("c{writer}"), text.as_str(), None));
        }
        let Ok(response) = client.txn(Txn::new().and_then(ops)).await else { return };
        let revision = response.header().unwrap().revision();
        record.acknowledged.store(number, Ordering::SeqCst);
        record.revision.store(revision as u64, Ordering::SeqCst);
        let beat = format!("{number:010}{}", "-".repeat(200));
        let Ok(_) = client.put(format!("h{writer}"), beat, None).await else { return };
        record.beat.store(number, Ordering::SeqCst);
    }
}

/// Compacts and defragments all the time, so that the log is moved while it is killed.
async fn tidy(url: String) {
    let Ok(mut client) = Client::connect([url], None).await else { return };
    loop {
        let Ok(now) = client.get("a0", None).await else { return };
        let revision = now.header().unwrap().revision();
        // Too few revisions may have come since the last time.
        let _ = client.compact(revision - 20, Some(CompactionOptions::new().with_physical())).await;
        if client.maintenance_client().defragment().await.is_err() {
            return;
        }
    }
}

async fn check(url: &str, records: &[Arc<Record>], round: usize) {
    let mut client = Client::connect([url], None).await.unwrap();
    let response = client.get("", Some(GetOptions::new().with_all_keys())).await.unwrap();
    let revision = response.header().unwrap().revision();
    let mut found: BTreeMap<String, (u64, i64)> = BTreeMap::new();
    for kv in response.kvs() {
        let value = kv.value_str().unwrap().trim_end_matches('-').parse().unwrap();
        found.insert(kv.key_str().unwrap().to_owned(), (value, kv.mod_revision()));
    }
    for (writer, record) in records.iter().enumerate() {
        let (tried, known) =
            (record.tried.load(Ordering::SeqCst), record.acknowledged.load(Ordering::SeqCst));
        let at = record.revision.load(Ordering::SeqCst) as i64;
        let (a, modified) = found.remove(&format!("a{writer}")).unwrap_or_default();
        let case = format!(
            "round {round}, writer {writer}: {a} at {modified}; {known} at {at} was told, {tried} tried"
        );
        assert!(a >= known, "an acknowledged write is lost: {case}");
        assert!(a <= tried, "a write is invented: {case}");
        assert!(a > known || modified == at, "the revision changed: {case}");
        assert!(modified <= revision, "{case}");
        let (beat, _) = found.remove(&format!("h{writer}")).unwrap_or_default();
        let told = record.beat.load(Ordering::SeqCst);
        assert!(
            told <= beat && beat <= tried,
            "a heartbeat is lost or invented: {beat}, {told} was told: {case}"
        );
        let b = found.remove(&format!("b{writer}")).unwrap_or_default();
        assert_eq!(b, (a, modified), "half of a transaction: {case}");
        let c = found.remove(&format!("c{writer}")).unwrap_or_default();
        assert_eq!(
            c,
            if a.is_multiple_of(5) { (0, 0) } else { (a, modified) },
            "half of a transaction: {case}"
        );
    }
    assert!(found.is_empty(), "what nobody wrote: {found:?}");
}

fn kill_under_load(rounds: usize) {
    block_on(async {
        let dir = TempDir::new().unwrap();
        let records: Vec<Arc<Record>> = (0..WRITERS).map(|_| Arc::default()).collect();
        let mut total = 0;
        for round in 0..rounds {
            let path = dir.path().to_owned();
            let server = tokio::task::spawn_blocking(move || Process::start(&path, &FLAGS)).await.unwrap();
            soon("a check", check(&server.url, &records, round)).await;
            let tasks = Tasks::new("load");
            for (writer, record) in records.iter().enumerate() {
                tasks.spawn("writer", write(server.url.clone(), writer, record.clone()));
            }
            tasks.spawn("tidy", tidy(server.url.clone()));
            let before: u64 = records.iter().map(|r| r.acknowledged.load(Ordering::SeqCst)).sum();
            let acknowledged = || records.iter().map(|r| r.acknowledged.load(Ordering::SeqCst)).sum::<u64>();
            // At least one write of this round, and then any moment.
            soon("a write", async {
                while acknowledged() == before {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
            .await;
            let wait = rand::rng().random_range(0..80);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            server.kill();
            assert!(tasks.drain(Duration::from_secs(30)).await, "clients notice");
            total = acknowledged();
        }
        println!("{total} writes were acknowledged in {rounds} rounds");
    });
}

#[test]
fn a_killed_server_loses_no_acknowledged_write() {
    kill_under_load(20);
}

/// `cargo nextest run -p etcd-lite --run-ignored only a_thousand_times`
#[test]
#[ignore = "takes several minutes"]
fn a_server_that_is_killed_a_thousand_times_loses_no_acknowledged_write() {
    kill_under_load(1000);
}
