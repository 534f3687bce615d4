//! What the writer does between batches, in bounded steps: dropping what a compaction forgets, and emptying the oldest
//! segments of the log so that their room is given back.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Answer, Writer};
use crate::engine::{EngineError, Found, Kind, Location, SEGMENT_BYTES, Segment};
use crate::mvcc::{Key, Version, decode, read_body};
use crate::pb::log;

/// Changes that one step of a compaction looks at.
const COMPACTION_STEP: usize = 2000;

/// What is to be done, and how far it is.
#[derive(Default)]
pub(super) struct Chores {
    /// The compacted revision, and how many changes were looked at.
    compacting: Option<(i64, usize)>,
    compacted: Vec<Answer>,
    /// The segment that is being emptied, and how far.
    collecting: Option<(Arc<Segment>, u64)>,
    /// Segments up to this one are to be rewritten whatever they hold.
    rewrite: Option<u32>,
    rewritten: Vec<Answer>,
    /// A defragmentation was asked for and has not begun.
    defragment: bool,
}

impl Chores {
    pub(super) fn pending(&self) -> bool {
        self.compacting.is_some() || self.collecting.is_some() || self.rewrite.is_some() || self.defragment
    }

    /// A revision was compacted.
    pub(super) fn compact(&mut self, revision: i64) {
        self.compacting = Some((revision, 0));
    }

    pub(super) fn when_compacted(&mut self, answer: Answer) {
        self.compacted.push(answer);
    }

    pub(super) fn defragment(&mut self, answer: Answer) {
        self.defragment = true;
        self.rewritten.push(answer);
    }
}

/// Records that were appended anew, and are not yet where the index says.
#[derive(Default)]
struct Moves {
    records: HashMap<(Key, i64), Location>,
    leases: Vec<(log::Lease, Location)>,
}

impl Writer {
    /// Takes one step of what is to be done.
    pub(super) fn step(&mut self) -> Result<(), EngineError> {
        if let Some((revision, done)) = self.chores.compacting {
            return self.compact_step(revision, done);
        }
        if std::mem::take(&mut self.chores.defragment) {
            self.chores.rewrite = Some(self.log.active());
            return self.roll();
        }
        if let Some((segment, offset)) = self.chores.collecting.clone() {
            return self.collect_step(&segment, offset);
        }
        if let Some(oldest) = self.worth_collecting() {
            self.chores.collecting = Some((oldest, 0));
        } else if self.chores.rewrite.take().is_some() {
            self.chores.rewritten.drain(..).for_each(|answer| answer());
        }
        Ok(())
    }

    fn compact_step(&mut self, revision: i64, done: usize) -> Result<(), EngineError> {
        let mut dropped = Vec::new();
        let looked = {
            let mut data = self.store.write();
            let looked = data.index.compact(revision, done, COMPACTION_STEP, &mut dropped);
            dropped.iter().for_each(|version| data.dead(version.location));
            looked
        };
        if looked == 0 {
            tracing::debug!(revision, "compacted");
            self.chores.compacting = None;
            self.chores.compacted.drain(..).for_each(|answer| answer());
        } else {
            self.chores.compacting = Some((revision, done + looked));
        }
        Ok(())
    }

    /// The oldest segment, when it should be emptied: on demand, or when more than half of the log is dead.
    fn worth_collecting(&self) -> Option<Arc<Segment>> {
        let data = self.store.read();
        let (id, oldest) = data.segments.first_key_value()?;
        if *id == self.log.active() {
            return None;
        }
        let size = data.size();
        let wanted = self.chores.rewrite.is_some_and(|until| *id <= until);
        let wasteful = size.total > 2 * size.live + 2 * SEGMENT_BYTES;
        (wanted || wasteful).then(|| oldest.clone())
    }

    /// Moves what is live in one frame of a segment; removes the segment after its last frame.
    fn collect_step(&mut self, segment: &Arc<Segment>, offset: u64) -> Result<(), EngineError> {
        self.roll_if_full()?;
        match segment.frame_at(offset)? {
            Some((entries, next)) => {
                let moves = self.append_live(entries)?;
                self.flush()?;
                self.moved(moves);
                self.chores.collecting = Some((segment.clone(), next));
                Ok(())
            }
            None => {
                self.chores.collecting = None;
                {
                    let mut data = self.store.write();
                    let mut segments = (*data.segments).clone();
                    segments.remove(&segment.id());
                    data.segments = Arc::new(segments);
                    data.uses.remove(&segment.id());
                }
                self.log.remove(segment)
            }
        }
    }

    fn append_live(&mut self, entries: Vec<Found>) -> Result<Moves, EngineError> {
        let mut moves = Moves::default();
        let store = self.store.clone();
        let data = store.read();
        for Found { entry, location } in entries {
            match entry.kind {
                Kind::Put | Kind::Delete => {
                    let kv = decode(entry.body)?;
                    let versions = data.index.versions(&kv.key);
                    let live = versions.iter().position(|v| v.location == location);
                    let Some(first) = live else { continue };
                    // Newer versions follow, so that the log still has them in their order.
                    for version in &versions[first..] {
                        let key: Key = kv.key.as_ref().into();
                        if moves.records.contains_key(&(key.clone(), version.revision)) {
                            continue;
                        }
                        let to = self.append_again(version, &data.segments)?;
                        moves.records.insert((key, version.revision), to);
                    }
                }
                Kind::Lease => {
                    let record: log::Lease = prost::Message::decode(entry.body)?;
                    if let Some(lease) = data.leases.get(record.id).filter(|l| l.location == location) {
                        moves.leases.push((lease.record, self.log.append(Kind::Lease, 0, &lease.record)));
                    }
                }
                // What ended is not in an older segment, and a newer state is in a newer one.
                Kind::LeaseEnd | Kind::State | Kind::Delta => {}
            }
        }
        Ok(moves)
    }

    fn append_again(
        &mut self,
        version: &Version,
        segments: &crate::engine::Segments,
    ) -> Result<Location, EngineError> {
        let old = version.location;
        let body = read_body(segments, old)?;
        let kind = if version.is_deletion() { Kind::Delete } else { Kind::Put };
        Ok(self.log.append(kind, version.order, &decode(body)?))
    }

    fn moved(&mut self, moves: Moves) {
        let mut data = self.store.write();
        for ((key, revision), to) in moves.records {
            if let Some(old) = data.index.moved(&key, revision, to) {
                data.dead(old);
                data.live(to);
            }
        }
        for (record, to) in moves.leases {
            if let Some(old) = data.leases.rewritten(record, to) {
                data.dead(old);
                data.live(to);
            }
        }
    }
}
