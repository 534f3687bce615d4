//! Which revisions every key has, and where their records stand. Pure: it reads no disk.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::engine::Location;

/// A key; shared by everything that names it.
pub type Key = Arc<[u8]>;

/// A key as one revision left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The revision that wrote it.
    pub revision: i64,
    /// Its place among the changes of that revision.
    pub order: u32,
    /// Where its record stands.
    pub location: Location,
    /// The revision that created the key.
    pub create: i64,
    /// Writes since then; 0 when this revision deleted the key.
    pub version: i64,
    /// The lease that the key is attached to, or 0.
    pub lease: i64,
}

impl Version {
    /// Whether this revision deleted the key.
    pub fn is_deletion(&self) -> bool {
        self.version == 0
    }
}

/// One change of one key.
#[derive(Clone, Debug)]
pub struct Change {
    /// The revision.
    pub revision: i64,
    /// Its place within the revision.
    pub order: u32,
    /// The key.
    pub key: Key,
}

/// A range of keys as requests name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    /// One key.
    One(bytes::Bytes),
    /// From the first up to, but not including, the second.
    Between(bytes::Bytes, bytes::Bytes),
    /// From a key on.
    From(bytes::Bytes),
}

impl KeyRange {
    /// Understands the two fields of a request: an empty end means the key alone, a zero byte everything from it on.
    pub fn new(key: &bytes::Bytes, end: &bytes::Bytes) -> Self {
        match end.as_ref() {
            [] => Self::One(key.clone()),
            [0] => Self::From(key.clone()),
            _ => Self::Between(key.clone(), end.clone()),
        }
    }

    /// Whether a key is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => key == one,
            Self::Between(start, end) => key >= start && key < end,
            Self::From(start) => key >= start,
        }
    }

    /// The bounds for an ordered map; `None` when no key can be between them.
    fn bounds(&self) -> Option<(Bound<&[u8]>, Bound<&[u8]>)> {
        match self {
            Self::One(one) => Some((Bound::Included(one), Bound::Included(one))),
            Self::Between(start, end) if start < end => Some((Bound::Included(start), Bound::Excluded(end))),
            Self::Between(..) => None,
            Self::From(start) => Some((Bound::Included(start), Bound::Unbounded)),
        }
    }
}

/// The versions of a key, oldest first. Nearly every key has one.
type Versions = SmallVec<[Version; 1]>;

/// All keys, and all changes that are remembered.
#[derive(Debug, Default)]
pub struct Index {
    keys: BTreeMap<Key, Versions>,
    history: VecDeque<Change>,
}

impl Index {
    /// Adds a change that is newer than everything; returns the shared key.
    pub fn insert(&mut self, key: &[u8], version: Version) -> Key {
        let key: Key = match self.keys.get_key_value(key) {
            Some((key, _)) => key.clone(),
            None => key.into(),
        };
        self.keys.entry(key.clone()).or_default().push(version);
        self.history.push_back(Change { revision: version.revision, order: version.order, key: key.clone() });
        key
    }

    /// Adds a change that was read from the log, in any order of revisions; returns the record that it replaces: the
    /// same change, which stands in the log once more because it was moved.
    pub fn recover(&mut self, key: &[u8], version: Version) -> Option<Version> {
        let versions = match self.keys.get_mut(key) {
            Some(versions) => versions,
            None => self.keys.entry(key.into()).or_default(),
        };
        match versions.binary_search_by_key(&version.revision, |v| v.revision) {
            Ok(at) => Some(std::mem::replace(&mut versions[at], version)),
            Err(at) => {
                versions.insert(at, version);
                None
            }
        }
    }

    /// Forgets, after everything was recovered, what a compaction had forgotten, and makes the history from the rest.
    /// Returns the versions that were dropped.
    pub fn recovered(&mut self, compacted: i64) -> Vec<Version> {
        let mut dropped = Vec::new();
        self.keys.retain(|_, versions| {
            prune(versions, compacted, &mut dropped);
            !versions.is_empty()
        });
        let mut history: Vec<Change> = Vec::new();
        for (key, versions) in &self.keys {
            let kept = versions.iter().filter(|v| v.revision >= compacted);
            history.extend(kept.map(|v| Change { revision: v.revision, order: v.order, key: key.clone() }));
        }
        history.sort_unstable_by_key(|c| (c.revision, c.order));
        self.history = history.into();
        dropped
    }

    /// A key as it was at a revision; `None` when it did not exist.
    pub fn get(&self, key: &[u8], at: i64) -> Option<&Version> {
        visible(self.keys.get(key)?, at)
    }

    /// All keys with their versions, those included of which only a deletion is remembered.
    pub fn keys(&self) -> impl Iterator<Item = (&Key, &[Version])> {
        self.keys.iter().map(|(key, versions)| (key, versions.as_slice()))
    }

    /// All versions of a key, oldest first.
    pub fn versions(&self, key: &[u8]) -> &[Version] {
        self.keys.get(key).map_or(&[], |v| v.as_slice())
    }

    /// The version of a key that a revision wrote.
    pub fn exact(&self, key: &[u8], revision: i64) -> Option<&Version> {
        let versions = self.keys.get(key)?;
        versions.binary_search_by_key(&revision, |v| v.revision).ok().map(|at| &versions[at])
    }

    /// The keys of a range as they were at a revision, in order.
    pub fn range<'a>(
        &'a self,
        range: &'a KeyRange,
        at: i64,
    ) -> impl Iterator<Item = (&'a Key, &'a Version)> + 'a {
        let bounds = range.bounds();
        let found = bounds.map(|bounds| self.keys.range::<[u8], _>(bounds));
        found.into_iter().flatten().filter_map(move |(key, versions)| Some((key, visible(versions, at)?)))
    }

    /// Changes from a revision on, in order.
    pub fn changes(&self, from: i64) -> impl Iterator<Item = &Change> {
        let start = self.history.partition_point(|c| c.revision < from);
        self.history.range(start..)
    }

    /// Changes that are remembered.
    pub fn history_len(&self) -> usize {
        self.history.len()
    }

    /// Keys, those included of which only a deletion is remembered.
    pub fn keys_len(&self) -> usize {
        self.keys.len()
    }

    /// The record of a change was moved.
    pub fn moved(&mut self, key: &[u8], revision: i64, to: Location) -> Option<Location> {
        let versions = self.keys.get_mut(key)?;
        let at = versions.binary_search_by_key(&revision, |v| v.revision).ok()?;
        Some(std::mem::replace(&mut versions[at].location, to))
    }

    /// Takes one step of a compaction: looks at up to `steps` changes that are not newer than `compacted`, beginning
    /// after those that `done` counts, and drops the versions which nobody can ask for any more. Returns how many
    /// changes it looked at; none when the compaction is through, and the history is then cut.
    pub fn compact(
        &mut self,
        compacted: i64,
        done: usize,
        steps: usize,
        dropped: &mut Vec<Version>,
    ) -> usize {
        let end = self.history.partition_point(|c| c.revision <= compacted);
        let until = (done + steps).min(end);
        for at in done..until {
            let key = self.history[at].key.clone();
            let Some(versions) = self.keys.get_mut(&key) else { continue };
            prune(versions, compacted, dropped);
            if versions.is_empty() {
                self.keys.remove(&key);
            }
        }
        if until == done {
            // The compacted revision itself can still be read and watched from.
            let cut = self.history.partition_point(|c| c.revision < compacted);
            self.history.drain(..cut);
            if self.history.capacity() > 4096 && self.history.len() < self.history.capacity() / 4 {
                self.history.shrink_to(self.history.len() * 2);
            }
        }
        until - done
    }
}

/// The newest of a key's versions that is not newer than a revision, unless that is a deletion.
fn visible(versions: &[Version], at: i64) -> Option<&Version> {
    let count = match versions.last() {
        // By far the most frequent question.
        Some(last) if last.revision <= at => versions.len(),
        _ => versions.partition_point(|v| v.revision <= at),
    };
    versions[..count].last().filter(|v| !v.is_deletion())
}

/// Drops the versions that a compaction forgets: those before the newest one that is not newer than the compacted
/// revision, and that one too when it is a deletion.
fn prune(versions: &mut Versions, compacted: i64, dropped: &mut Vec<Version>) {
    let old = versions.partition_point(|v| v.revision <= compacted);
    let Some(last) = old.checked_sub(1) else { return };
    let cut = if versions[last].is_deletion() { old } else { last };
    dropped.extend(versions.drain(..cut));
    if versions.len() <= 1 {
        versions.shrink_to_fit();
    }
}
