//! Events end by themselves: they are attached to a lease of the store, which many of them share.

use std::sync::Mutex;
use std::time::Duration;

use api::Kind;
use api::status::StatusError;
use component::tasks::lock;
use tokio::time::Instant;

use crate::registry::errors::from_etcd;
use crate::storage::Etcd;

/// How long new events are attached to the same lease.
const SHARED: Duration = Duration::from_secs(300);

/// The lease that events are attached to at present.
pub(super) struct EventLease {
    ttl: Duration,
    current: Mutex<Option<(i64, Instant)>>,
}

impl EventLease {
    /// Events live for `ttl`, and up to five minutes longer; zero keeps them for ever.
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, current: Mutex::new(None) }
    }

    /// The lease for an object of a kind; 0 for kinds whose objects stay.
    pub(super) async fn lease(&self, etcd: &Etcd, kind: &Kind) -> Result<i64, StatusError> {
        if kind.kind != "Event" || self.ttl.is_zero() {
            return Ok(0);
        }
        if let Some((lease, until)) = *lock(&self.current)
            && Instant::now() < until
        {
            return Ok(lease);
        }
        let lease = etcd.grant(self.ttl + SHARED).await.map_err(|e| from_etcd(&e))?;
        *lock(&self.current) = Some((lease, Instant::now() + SHARED));
        Ok(lease)
    }

    /// The lease is gone, for example because the store was put back to an older state.
    pub(super) fn forget(&self, gone: i64) {
        let mut current = lock(&self.current);
        if current.is_some_and(|(lease, _)| lease == gone) {
            *current = None;
        }
    }
}
