//! The in-memory copy of one resource, with a window of its past events, from which gets, lists and
//! watches are served.
//!
//! A watcher is a position in the shared window and nothing else: a slow one holds no queue and makes
//! nobody wait. It goes on from its position, or is told that the position is gone (410) and lists again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use api::Kind;
use api::selector::{FieldSelector, Selector};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::encoding;
use super::layout::resource_prefix;
use super::version;
use crate::registry::strategies::strategy;

/// Events that the window keeps at most.
const MAX_EVENTS: usize = 20_000;
/// Bytes of objects that the window keeps at most.
const MAX_BYTES: usize = 32 << 20;
/// How long events stay in the window at least, while it is within its bounds.
const KEEP: Duration = Duration::from_secs(180);
/// Events younger than this number stay whatever their age.
const KEEP_EVENTS: usize = 100;

/// One version of an object.
#[derive(Debug)]
pub struct Entry {
    /// `namespace/name`, or the name alone for cluster-scoped kinds.
    pub key: Arc<str>,
    /// The resource version.
    pub revision: i64,
    /// The JSON that clients get, shared by everybody who gets it.
    pub json: Bytes,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// The selectable fields beside name and namespace.
    pub fields: Vec<(&'static str, String)>,
}

impl Entry {
    /// Reads a stored value. Nothing when it is no object, which only a foreign writer can cause.
    pub fn new(kind: &Kind, key: &str, stored: &[u8], revision: i64) -> Option<Self> {
        let json = encoding::stamp(stored, revision)?;
        let head = encoding::head(&json).ok()?;
        Some(Self {
            key: key.into(),
            revision,
            uid: head.uid.as_ref().into(),
            labels: head.labels.unwrap_or_default(),
            fields: strategy(kind).selectable_fields(&json),
            json: json.clone(),
        })
    }

    /// The namespace, empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        api::meta::split_key(&self.key).0
    }

    /// The name.
    pub fn name(&self) -> &str {
        api::meta::split_key(&self.key).1
    }

    /// The same object with another resource version: what a watcher is told when the object goes.
    fn at(&self, revision: i64) -> Self {
        Self {
            key: self.key.clone(),
            revision,
            json: encoding::stamp(&self.json, revision).unwrap_or_else(|| self.json.clone()),
            uid: self.uid.clone(),
            labels: self.labels.clone(),
            fields: self.fields.clone(),
        }
    }

    fn size(&self) -> usize {
        self.json.len() + 300
    }
}

/// Which objects of a resource somebody wants to see.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this namespace; empty for all.
    pub namespace: String,
    /// Only objects with these labels.
    pub labels: Selector,
    /// Only objects with these fields.
    pub fields: FieldSelector,
}

impl Filter {
    /// Whether an object is wanted.
    pub fn matches(&self, entry: &Entry) -> bool {
        if !self.namespace.is_empty() && entry.namespace() != self.namespace {
            return false;
        }
        let field = |name: &str| match name {
            "metadata.name" => Some(entry.name()),
            "metadata.namespace" => Some(entry.namespace()),
            name => entry.fields.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str()),
        };
        self.labels.matches(&entry.labels) && (self.fields.terms.is_empty() || self.fields.matches(field))
    }

    /// Whether every object of the namespace is wanted.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.terms.is_empty()
    }
}

/// One step in the life of a resource.
#[derive(Debug)]
struct Event {
    revision: i64,
    at: Instant,
    old: Option<Arc<Entry>>,
    new: Option<Arc<Entry>>,
    /// `old` as those see it from whose view it goes, made by the first who needs it.
    gone: OnceLock<Arc<Entry>>,
}

impl Event {
    fn size(&self) -> usize {
        self.old.as_ref().or(self.new.as_ref()).map_or(0, |e| e.size())
    }

    /// What the event means to somebody who sees only what a filter lets through.
    fn seen_by(&self, filter: &Filter) -> Option<Change> {
        let old = self.old.as_ref().filter(|e| filter.matches(e));
        let new = self.new.as_ref().filter(|e| filter.matches(e));
        match (old, new) {
            (None, None) => None,
            (None, Some(new)) => Some(Change::Added(new.clone())),
            (Some(_), Some(new)) => Some(Change::Modified(new.clone())),
            (Some(old), None) => {
                let gone = self.gone.get_or_init(|| Arc::new(old.at(self.revision)));
                Some(Change::Deleted(gone.clone()))
            }
        }
    }
}

/// What a watcher is told.
#[derive(Clone, Debug)]
pub enum Change {
    /// It exists, or came into view.
    Added(Arc<Entry>),
    /// It changed.
    Modified(Arc<Entry>),
    /// It is gone, or went out of view; as it was last seen, with the version of its going.
    Deleted(Arc<Entry>),
}

impl Change {
    /// The object.
    pub fn entry(&self) -> &Arc<Entry> {
        match self {
            Self::Added(entry) | Self::Modified(entry) | Self::Deleted(entry) => entry,
        }
    }

    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub fn type_(&self) -> &'static str {
        match self {
            Self::Added(_) => "ADDED",
            Self::Modified(_) => "MODIFIED",
            Self::Deleted(_) => "DELETED",
        }
    }
}

#[derive(Default)]
struct State {
    entries: BTreeMap<Arc<str>, Arc<Entry>>,
    window: VecDeque<Event>,
    /// The position of the first event in the window.
    first: u64,
    /// Bytes held by the window.
    bytes: usize,
    /// Events up to this revision are not in the window.
    floor: i64,
    /// The revision of the last event.
    applied: i64,
}

impl State {
    fn next_position(&self) -> u64 {
        self.first + self.window.len() as u64
    }

    fn trim(&mut self, now: Instant) {
        while let Some(oldest) = self.window.front() {
            let full = self.window.len() > MAX_EVENTS || self.bytes > MAX_BYTES;
            let old = self.window.len() > KEEP_EVENTS && now.duration_since(oldest.at) > KEEP;
            if !full && !old {
                break;
            }
            self.bytes -= oldest.size();
            self.floor = oldest.revision;
            self.first += 1;
            self.window.pop_front();
        }
    }
}

/// A list as it stood at one revision.
#[derive(Debug)]
pub struct Listing {
    /// In the order of their keys.
    pub entries: Vec<Arc<Entry>>,
    /// The revision.
    pub revision: i64,
    /// Whether the list was cut at the limit.
    pub more: bool,
    /// How many matching objects are behind the cut; known only without selectors.
    pub remaining: Option<i64>,
}

/// The version asked for is older than the window.
#[derive(Debug, PartialEq, Eq)]
pub struct Expired;

/// The in-memory copy of one resource.
pub struct Cache {
    /// The kind that is stored.
    pub kind: &'static Kind,
    prefix: String,
    state: RwLock<State>,
    /// The position after the last event.
    position: watch::Sender<u64>,
    /// The revision up to which the whole store is known.
    revision: watch::Receiver<i64>,
}

impl Cache {
    /// An empty copy, to be filled by the hub that owns `revision`.
    pub fn new(prefix: &str, kind: &'static Kind, revision: watch::Receiver<i64>) -> Self {
        Self {
            kind,
            prefix: resource_prefix(prefix, kind),
            state: RwLock::default(),
            position: watch::channel(0).0,
            revision,
        }
    }

    /// What the keys of this resource begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts from a full list at a revision. Everybody who watched must list again.
    pub fn reset(&self, entries: BTreeMap<Arc<str>, Arc<Entry>>, revision: i64) {
        let mut state = self.write();
        // One position is skipped, so that none from before is valid.
        let first = state.next_position() + 1;
        *state = State { entries, first, floor: revision, applied: revision, ..State::default() };
        drop(state);
        self.position.send_replace(first);
    }

    /// Takes in the changes of one response: key beneath the prefix, stored value (none: deleted), revision.
    pub fn apply<'a>(&self, changes: impl Iterator<Item = (&'a str, Option<&'a [u8]>, i64)>) {
        let now = Instant::now();
        let changes: Vec<_> = changes
            .map(|(key, value, revision)| {
                (key, value.and_then(|v| Entry::new(self.kind, key, v, revision)).map(Arc::new), revision)
            })
            .collect();
        let mut state = self.write();
        for (key, new, revision) in changes {
            if revision <= state.floor {
                continue;
            }
            let old = match &new {
                Some(entry) => state.entries.insert(entry.key.clone(), entry.clone()),
                None => state.entries.remove(key),
            };
            if old.is_none() && new.is_none() {
                continue;
            }
            let event = Event { revision, at: now, old, new, gone: OnceLock::new() };
            state.bytes += event.size();
            state.applied = revision;
            state.window.push_back(event);
        }
        state.trim(now);
        let position = state.next_position();
        drop(state);
        self.position.send_replace(position);
    }

    /// The revision of which this copy can say that it knows everything up to it.
    fn revision_of(&self, state: &State, known_before: i64) -> i64 {
        known_before.max(version::end(version::revision(state.applied)))
    }

    /// One object.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.read().entries.get(key).cloned()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read().entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Matching objects behind the key `after`, `limit` of them (0: all).
    pub fn list(&self, filter: &Filter, limit: usize, after: &str) -> Listing {
        let known_before = *self.revision.borrow();
        let state = self.read();
        let (start, end) = bounds(&filter.namespace, after);
        let mut all = state
            .entries
            .range::<str, _>((start.as_bound(), end.as_bound()))
            .map(|(_, entry)| entry)
            .filter(|entry| filter.matches(entry));
        let limit = if limit == 0 { usize::MAX } else { limit };
        let entries: Vec<_> = all.by_ref().take(limit).cloned().collect();
        let (more, remaining) = if entries.len() < limit {
            (false, None)
        } else if filter.is_everything() {
            let remaining = all.count();
            (remaining > 0, Some(i64::try_from(remaining).unwrap_or(i64::MAX)))
        } else {
            (all.next().is_some(), None)
        };
        let revision = self.revision_of(&state, known_before);
        Listing { entries, revision, more, remaining: remaining.filter(|_| more) }
    }

    /// A watcher of what follows a revision.
    pub fn watch_after(self: &Arc<Self>, filter: Filter, revision: i64) -> Result<Watcher, Expired> {
        let position = self.position.subscribe();
        let state = self.read();
        if revision < state.floor {
            return Err(Expired);
        }
        let behind = state.window.partition_point(|event| event.revision <= revision);
        let cursor = state.first + behind as u64;
        Ok(Watcher { cache: self.clone(), cursor, filter, position })
    }

    /// The matching objects as they stand, their revision, and a watcher of what follows.
    pub fn watch_from_now(self: &Arc<Self>, filter: Filter) -> (Vec<Arc<Entry>>, i64, Watcher) {
        let position = self.position.subscribe();
        let known_before = *self.revision.borrow();
        let state = self.read();
        let (start, end) = bounds(&filter.namespace, "");
        let range = state.entries.range::<str, _>((start.as_bound(), end.as_bound()));
        let present = range.map(|(_, e)| e).filter(|e| filter.matches(e)).cloned().collect();
        let cursor = state.next_position();
        let revision = self.revision_of(&state, known_before);
        drop(state);
        (present, revision, Watcher { cache: self.clone(), cursor, filter, position })
    }
}

enum Edge {
    Open,
    Excluded(String),
}

impl Edge {
    fn as_bound(&self) -> std::ops::Bound<&str> {
        match self {
            Self::Open => std::ops::Bound::Unbounded,
            Self::Excluded(key) => std::ops::Bound::Excluded(key),
        }
    }
}

/// The keys of a namespace (empty: all) behind the key `after` (empty: from the beginning).
fn bounds(namespace: &str, after: &str) -> (Edge, Edge) {
    let edge = |key: String| if key.is_empty() { Edge::Open } else { Edge::Excluded(key) };
    if namespace.is_empty() {
        return (edge(after.to_owned()), Edge::Open);
    }
    let first = format!("{namespace}/");
    // A foreign `after` must not widen the range, nor turn it upside down.
    let start = if after > first.as_str() { after.to_owned() } else { first };
    let end = format!("{namespace}0");
    if start >= end {
        (Edge::Excluded(end.clone()), Edge::Excluded(format!("{end}\0")))
    } else {
        (edge(start), edge(end))
    }
}

/// Somebody's position in the window.
pub struct Watcher {
    cache: Arc<Cache>,
    cursor: u64,
    filter: Filter,
    position: watch::Receiver<u64>,
}

impl Watcher {
    /// The changes since the last call, at most `max` of them; empty when there are none. With them the
    /// revision up to which everything has then been told, if that is known.
    pub fn poll(&mut self, max: usize) -> Result<(Vec<Change>, Option<i64>), Expired> {
        let known_before = *self.cache.revision.borrow();
        let state = self.cache.read();
        let skip = self.cursor.checked_sub(state.first).ok_or(Expired)?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut changes = Vec::new();
        for event in state.window.iter().skip(skip) {
            self.cursor += 1;
            if let Some(change) = event.seen_by(&self.filter) {
                changes.push(change);
                if changes.len() >= max {
                    break;
                }
            }
        }
        let all = self.cursor == state.next_position();
        let revision = all.then(|| self.cache.revision_of(&state, known_before));
        Ok((changes, revision))
    }

    /// Waits until there is something to poll.
    pub async fn changed(&mut self) {
        let cursor = self.cursor;
        // The sender lives in the cache that this watcher holds.
        let _ = self.position.wait_for(|position| *position != cursor).await;
    }
}

#[cfg(test)]
mod tests;
