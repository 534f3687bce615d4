//! What `/metrics` shows, under etcd's names where etcd has one.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use component::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::mvcc::Store;

/// Figures of the writer.
#[derive(Clone)]
pub struct StoreMetrics {
    syncs: Histogram,
    written: Counter,
    requests: Counter,
    revision: Gauge,
    size: Gauge,
    in_use: Gauge,
    keys: Gauge<i64, std::sync::atomic::AtomicI64>,
    /// Kept for the histogram of group sizes.
    batches: Counter<u64, AtomicU64>,
}

impl StoreMetrics {
    /// Registers all of them.
    pub fn new(metrics: &Metrics) -> Self {
        let new = Self {
            syncs: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            written: Counter::default(),
            requests: Counter::default(),
            revision: Gauge::default(),
            size: Gauge::default(),
            in_use: Gauge::default(),
            keys: Gauge::default(),
            batches: Counter::default(),
        };
        let leader: Gauge = Gauge::default();
        leader.set(1);
        metrics.register("etcd_server_has_leader", "Whether or not a leader exists", leader);
        metrics.register(
            "etcd_disk_wal_fsync_duration_seconds",
            "The time that a write to the log and its sync take",
            new.syncs.clone(),
        );
        metrics.register("etcd_disk_wal_write_bytes", "Bytes written to the log", new.written.clone());
        metrics.register(
            "etcd_server_proposals_committed",
            "Requests that the writer has answered",
            new.requests.clone(),
        );
        metrics.register("etcd_lite_batches", "Batches that the writer has committed", new.batches.clone());
        metrics.register(
            "etcd_debugging_mvcc_current_revision",
            "The current revision of the store",
            new.revision.clone(),
        );
        metrics.register(
            "etcd_mvcc_db_total_size_in_bytes",
            "Total size of the log on the disk",
            new.size.clone(),
        );
        metrics.register(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Bytes of the log that are still needed",
            new.in_use.clone(),
        );
        metrics.register("etcd_debugging_mvcc_keys_total", "Keys in the index", new.keys.clone());
        new
    }

    pub(crate) fn written(&self, bytes: u64) {
        self.written.inc_by(bytes);
    }

    pub(crate) fn synced(&self, took: Duration) {
        self.syncs.observe(took.as_secs_f64());
    }

    pub(crate) fn committed(&self, revision: i64, requests: usize) {
        self.revision.set(revision);
        self.requests.inc_by(requests as u64);
        self.batches.inc();
    }

    /// Reads the figures that are looked at only when somebody asks.
    pub fn refresh(&self, store: &Arc<Store>) {
        let data = store.read();
        let size = data.size();
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.size.set(signed(size.total));
        self.in_use.set(signed(size.live));
        self.keys.set(signed(data.index.keys_len() as u64));
        drop(data);
        self.revision.set(store.revision());
    }
}
