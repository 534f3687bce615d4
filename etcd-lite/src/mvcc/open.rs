//! Opening: the store as the log tells it.

use std::path::Path;
use std::sync::Arc;

use component::clock::Clock;
use prost::Message;
use tokio::time::Instant;

use super::index::Version;
use super::{Data, Key, decode};
use crate::engine::{EngineError, Found, Kind, Log};
use crate::pb::log;

impl Data {
    /// Opens the log in a folder and learns from it what is there. `ids` are those of a new store. Blocks.
    pub(crate) fn open(dir: &Path, clock: &Clock, ids: (u64, u64)) -> Result<(Self, Log), EngineError> {
        let (now, wall) = (Instant::now(), clock.now().as_millisecond());
        let mut data = Self { cluster_id: ids.0, member_id: ids.1, ..Self::default() };
        // The revision of an empty store is 1, as etcd's is.
        data.revision = 1;
        let (mut log, segments) = Log::open(dir, |found| data.recover(&found, now, wall))?;
        for (id, segment) in &segments {
            data.uses.entry(*id).or_default().total = segment.length()?;
        }
        data.segments = Arc::new(segments);
        for version in data.index.recovered(data.compacted) {
            data.dead(version.location);
        }
        data.attach_all();
        if log.written() == 0 {
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
            }
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
