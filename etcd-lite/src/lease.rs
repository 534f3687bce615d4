//! Leases: how long each still lives, and the keys that end with it. Pure: it is told the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::Location;
use crate::mvcc::Key;
use crate::pb::log;

/// The longest life of a lease, in seconds, as etcd has it.
pub const MAX_TTL: i64 = 9_000_000_000;

/// A lease.
#[derive(Debug)]
pub struct Lease {
    /// Its life after it was granted or kept alive, in seconds.
    pub ttl: i64,
    /// When it ends.
    pub deadline: Instant,
    /// As it stands in the log.
    pub record: log::Lease,
    /// Where that is.
    pub location: Location,
    /// The keys that end with it.
    pub keys: BTreeSet<Key>,
}

impl Lease {
    /// What remains of its life, in whole seconds.
    pub fn remaining(&self, now: Instant) -> i64 {
        let left = self.deadline.saturating_duration_since(now);
        i64::try_from(left.as_secs()).unwrap_or(i64::MAX)
    }
}

/// All leases.
#[derive(Debug, Default)]
pub struct Leases {
    by_id: BTreeMap<i64, Lease>,
    by_deadline: BTreeSet<(Instant, i64)>,
}

/// When a lease with this life ends. Lives beyond a century are as good as one.
fn deadline(now: Instant, ttl: Duration) -> Instant {
    now + ttl.min(Duration::from_secs(100 * 365 * 24 * 3600))
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

impl Leases {
    /// Adds a lease that ends after its time to live.
    pub fn grant(&mut self, record: log::Lease, location: Location, now: Instant) {
        let ends = deadline(now, seconds(record.ttl));
        self.add(record, location, ends);
    }

    /// Adds a lease that was found in the log. One that was never kept alive ends when it was granted to end, so that a
    /// restart prolongs nothing; of the others only their owners know, who get the whole time once more.
    pub fn recover(&mut self, record: log::Lease, location: Location, now: Instant, wall_millis: i64) {
        let whole = seconds(record.ttl);
        let left =
            Duration::from_millis(u64::try_from(record.expires.saturating_sub(wall_millis)).unwrap_or(0));
        let left = if record.renewed { whole } else { left.min(whole) };
        self.end(record.id);
        self.add(record, location, deadline(now, left));
    }

    fn add(&mut self, record: log::Lease, location: Location, deadline: Instant) {
        self.by_deadline.insert((deadline, record.id));
        let lease = Lease { ttl: record.ttl, deadline, record, location, keys: BTreeSet::new() };
        self.by_id.insert(lease.record.id, lease);
    }

    /// Removes a lease; its keys are the caller's to delete.
    pub fn end(&mut self, id: i64) -> Option<Lease> {
        let lease = self.by_id.remove(&id)?;
        self.by_deadline.remove(&(lease.deadline, id));
        Some(lease)
    }

    /// A lease.
    pub fn get(&self, id: i64) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    /// All leases, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&i64, &Lease)> {
        self.by_id.iter()
    }

    /// Begins the life of a lease anew, unless it is over; returns its time to live in seconds.
    pub fn keep_alive(&mut self, id: i64, now: Instant) -> Option<i64> {
        let lease = self.by_id.get_mut(&id).filter(|l| l.deadline > now)?;
        self.by_deadline.remove(&(lease.deadline, id));
        lease.deadline = deadline(now, seconds(lease.ttl));
        self.by_deadline.insert((lease.deadline, id));
        Some(lease.ttl)
    }

    /// The record of a lease was written anew.
    pub fn rewritten(&mut self, record: log::Lease, location: Location) -> Option<Location> {
        let lease = self.by_id.get_mut(&record.id)?;
        lease.record = record;
        Some(std::mem::replace(&mut lease.location, location))
    }

    /// A key moves from one lease (or 0) to another (or 0).
    pub fn attach(&mut self, key: &Key, from: i64, to: i64) {
        if from == to {
            return;
        }
        if let Some(lease) = self.by_id.get_mut(&from) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.by_id.get_mut(&to) {
            lease.keys.insert(key.clone());
        }
    }

    /// When the next lease ends.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// The leases that are over, the longest first, at most `limit` of them.
    pub fn expired(&self, now: Instant, limit: usize) -> Vec<i64> {
        self.by_deadline.iter().take_while(|(d, _)| *d <= now).map(|(_, id)| *id).take(limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Location = Location { segment: 1, offset: 0, length: 0, delta: false };

    fn record(id: i64, expires: i64, renewed: bool) -> log::Lease {
        log::Lease { id, ttl: 60, expires, renewed }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_unless_it_is_kept_alive() {
        let mut leases = Leases::default();
        let start = Instant::now();
        leases.grant(record(1, 0, false), PLACE, start);
        leases.grant(record(2, 0, false), PLACE, start);
        let later = start + Duration::from_secs(40);
        assert_eq!(leases.keep_alive(2, later), Some(60));
        assert_eq!(leases.keep_alive(3, later), None);
        assert_eq!(leases.get(1).map(|l| l.remaining(later)), Some(20));
        assert_eq!(leases.expired(start + Duration::from_secs(60), 10), [1]);
        assert_eq!(leases.keep_alive(1, start + Duration::from_secs(60)), None, "over is over");
        leases.end(1);
        assert_eq!(leases.next_deadline(), Some(later + Duration::from_secs(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_prolongs_only_what_was_kept_alive() {
        let now = Instant::now();
        // (kept alive before, milliseconds until the granted end, seconds left after the restart)
        let cases = [(false, 10_000, 10), (false, -5, 0), (true, -5, 60), (false, 999_000, 60)];
        for (renewed, left, expected) in cases {
            let mut leases = Leases::default();
            leases.recover(record(1, 1_000_000 + left, renewed), PLACE, now, 1_000_000);
            assert_eq!(leases.get(1).map(|l| l.remaining(now)), Some(expected), "{renewed} {left}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_belongs_to_one_lease() {
        let mut leases = Leases::default();
        for id in [1, 2] {
            leases.grant(record(id, 0, false), PLACE, Instant::now());
        }
        let key: Key = b"k"[..].into();
        leases.attach(&key, 0, 1);
        leases.attach(&key, 1, 2);
        assert!(leases.get(1).is_some_and(|l| l.keys.is_empty()));
        assert!(leases.get(2).is_some_and(|l| l.keys.contains(&key)));
        leases.attach(&key, 2, 0);
        assert!(leases.get(2).is_some_and(|l| l.keys.is_empty()));
    }
}
