//! Opening: the store as the log tells it.
//!
//! When the machine has died, heartbeats that were acknowledged may be lost, and with them their revisions. No revision may
//! mean two things, so the store goes on beyond the ceiling of those that were given out, and forgets all before: whoever
//! followed it begins anew.

use std::path::Path;
use std::sync::Arc;

use component::clock::Clock;
use prost::Message;
use tokio::time::Instant;

use super::index::Version;
use super::{Data, Key, decode};
use crate::engine::{EngineError, Found, Kind, Log};
use crate::pb::log;

/// What a store is opened with.
pub(crate) struct Opening<'a> {
    pub clock: &'a Clock,
    /// Those of the cluster and the member, for a new store.
    pub ids: (u64, u64),
    /// Tells this boot of the machine from every other one.
    pub boot: &'a str,
}

/// What tells this boot of the machine from every other one; empty where the system does not say.
pub(crate) fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(
        |error| {
            tracing::warn!(%error, "the system does not tell its boots apart");
            String::new()
        },
        |id| id.trim().to_owned(),
    )
}

impl Data {
    /// Opens the log in a folder and learns from it what is there. Blocks.
    pub(crate) fn open(dir: &Path, opening: &Opening<'_>) -> Result<(Self, Log), EngineError> {
        let (now, wall) = (Instant::now(), opening.clock.now().as_millisecond());
        let (cluster_id, member_id) = opening.ids;
        // The boot is that of the last ceiling until the log is read.
        let mut data = Self { cluster_id, member_id, ..Self::default() };
        // The revision of an empty store is 1, as etcd's is.
        data.revision = 1;
        let (mut log, segments) = Log::open(dir, |found| data.recover(&found, now, wall))?;
        for (id, segment) in &segments {
            data.uses.entry(*id).or_default().total = segment.length()?;
        }
        data.segments = Arc::new(segments);
        let same_boot = !opening.boot.is_empty() && data.boot == opening.boot;
        let lost = data.ceiling > 0 && (!same_boot || log.was_torn());
        data.boot = opening.boot.to_owned();
        if lost {
            tracing::warn!(
                revision = data.revision,
                ceiling = data.ceiling,
                "the machine has died: going on beyond all revisions that were given out"
            );
            data.revision = data.revision.max(data.ceiling);
            data.compacted = data.revision;
            data.ceiling = 0;
        }
        for version in data.index.recovered(data.compacted) {
            data.dead(version.location);
        }
        data.attach_all();
        if log.written() == 0 || lost {
            log.append(Kind::State, 0, &data.state());
            let written = log.flush()?;
            data.uses.entry(log.active()).or_default().total += written;
        }
        Ok((data, log))
    }

    fn recover(&mut self, found: &Found, now: Instant, wall: i64) -> Result<(), EngineError> {
        let body = found.entry.body.clone();
        match found.entry.kind {
            Kind::Put | Kind::Delete => {
                let kv = decode(body)?;
                let version = Version {
                    revision: kv.mod_revision,
                    order: found.entry.order,
                    location: found.location,
                    create: kv.create_revision,
                    version: kv.version,
                    lease: kv.lease,
                };
                self.revision = self.revision.max(kv.mod_revision);
                self.live(found.location);
                if let Some(replaced) = self.index.recover(&kv.key, version) {
                    self.dead(replaced.location);
                }
            }
            Kind::Lease => {
                let record = log::Lease::decode(body)?;
                if let Some(replaced) = self.leases.get(record.id).map(|l| l.location) {
                    self.dead(replaced);
                }
                self.live(found.location);
                self.leases.recover(record, found.location, now, wall);
            }
            Kind::LeaseEnd => {
                if let Some(lease) = self.leases.end(log::Lease::decode(body)?.id) {
                    self.dead(lease.location);
                }
            }
            Kind::State => {
                let state = log::State::decode(body)?;
                self.cluster_id = state.cluster_id;
                self.member_id = state.member_id;
                self.revision = self.revision.max(state.revision);
                self.compacted = self.compacted.max(state.compacted);
                self.alarms = state.alarms.into_iter().collect();
                self.ceiling = state.ceiling;
                self.boot = state.boot;
            }
            // Whoever reads the log is told whole records.
            Kind::Delta => return Err(EngineError::Difference),
        }
        Ok(())
    }

    /// Attaches every key to the lease that its newest version names.
    fn attach_all(&mut self) {
        let newest = |versions: &[Version]| versions.last().map_or(0, |v| v.lease);
        let attached: Vec<(Key, i64)> = self
            .index
            .keys()
            .map(|(key, versions)| (key.clone(), newest(versions)))
            .filter(|(_, lease)| *lease != 0)
            .collect();
        for (key, lease) in attached {
            self.leases.attach(&key, 0, lease);
        }
    }
}
