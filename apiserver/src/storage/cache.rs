//! The in-memory copy of one resource, with a window of its past events, from which gets, lists and
//! watches are served.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use api::Kind;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::entry::{Entry, Layout};
use super::filter::{Filter, INDEXED, Scope};
use super::layout::resource_prefix;
use super::version;
use super::watcher::Watcher;
use super::window::{Event, Expired, Window};

/// An entry that is ordered by its key, so that the key is kept once.
#[derive(Clone, Debug)]
struct ByKey(Arc<Entry>);

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}
impl Eq for ByKey {}
impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.key.cmp(&other.0.key)
    }
}
impl Borrow<str> for ByKey {
    fn borrow(&self) -> &str {
        &self.0.key
    }
}

/// A change: the key, the new state (none: deleted), the revision.
type Step = (Box<str>, Option<Arc<Entry>>, i64);

/// The objects as they stand, and the window.
pub(super) struct State {
    entries: BTreeSet<ByKey>,
    /// By position in the layout and value: the objects with that value in an indexed field.
    index: Vec<(usize, Values)>,
    pub window: Window,
    /// The revision of the last event.
    applied: i64,
    /// Changes that came while the copy is being filled.
    early: Option<Vec<Step>>,
}

impl State {
    fn new(layout: &Layout) -> Self {
        let index = INDEXED.iter().filter_map(|name| layout.field(name)).map(|i| (i, HashMap::new()));
        Self {
            entries: BTreeSet::new(),
            index: index.collect(),
            window: Window::new(layout),
            applied: 0,
            early: None,
        }
    }

    /// The revision of which this copy can say that it knows everything up to it.
    pub fn revision(&self, known_before: i64) -> i64 {
        known_before.max(version::end(version::revision(self.applied)))
    }

    /// Puts a new state in the place of the old one, of which there may be none, and returns that.
    fn replace(&mut self, key: &str, new: Option<&Arc<Entry>>) -> Option<Arc<Entry>> {
        let old = match new {
            Some(new) => self.entries.replace(ByKey(new.clone())),
            None => self.entries.take(key),
        };
        for (field, values) in &mut self.index {
            if let Some(ByKey(old)) = &old {
                forget(values, old.field_at(*field), &old.key);
            }
            if let Some(new) = new {
                remember(values, new.field_at(*field), new);
            }
        }
        old.map(|ByKey(old)| old)
    }

    /// Begins anew; whom to wake.
    fn begin(
        &mut self,
        layout: &Layout,
        entries: impl IntoIterator<Item = Arc<Entry>>,
        revision: i64,
    ) -> Vec<Arc<Notify>> {
        let mut fresh = Self::new(layout);
        for entry in entries {
            fresh.replace("", Some(&entry));
        }
        (self.entries, self.index, self.applied, self.early) = (fresh.entries, fresh.index, revision, None);
        self.window.reset(revision)
    }

    /// Takes in changes; whom to wake.
    fn apply(&mut self, changes: Vec<Step>, now: Instant) -> Vec<Arc<Notify>> {
        let mut stirred = Vec::new();
        for (key, new, revision) in changes {
            // The copy was filled at a later revision than the one from which changes are followed.
            if revision <= self.window.floor {
                continue;
            }
            let old = self.replace(&key, new.as_ref());
            self.applied = revision;
            if old.is_some() || new.is_some() {
                self.window.push(Event::new(revision, now, old, new), &mut stirred);
            }
        }
        self.window.trim(now);
        if !stirred.is_empty() {
            self.window.settle();
        }
        stirred
    }

    /// The objects of a scope behind the key `after`.
    fn scan<'s>(&'s self, scope: &'s Scope, after: &'s str) -> Box<dyn Iterator<Item = &'s Arc<Entry>> + 's> {
        let behind = |entry: &&Arc<Entry>| after.is_empty() || *entry.key > *after;
        match scope {
            Scope::Object(key) => Box::new(self.entries.get(&**key).map(|e| &e.0).into_iter().filter(behind)),
            Scope::Field(field, value) => {
                let found = self.index.iter().find(|(i, _)| i == field).and_then(|(_, v)| v.get(value));
                Box::new(found.into_iter().flatten().map(|e| &e.0).filter(behind))
            }
            Scope::Namespace(namespace) => {
                let (start, end) = bounds(namespace, after);
                Box::new(self.entries.range::<str, _>((start.as_bound(), end.as_bound())).map(|e| &e.0))
            }
            Scope::All => {
                let (start, end) = bounds("", after);
                Box::new(self.entries.range::<str, _>((start.as_bound(), end.as_bound())).map(|e| &e.0))
            }
        }
    }
}

type Values = HashMap<Box<str>, BTreeSet<ByKey>>;

fn forget(values: &mut Values, value: &str, key: &str) {
    if let Some(set) = values.get_mut(value) {
        set.remove(key);
        if set.is_empty() {
            values.remove(value);
        }
    }
}

fn remember(values: &mut Values, value: &str, entry: &Arc<Entry>) {
    match values.get_mut(value) {
        Some(set) => _ = set.insert(ByKey(entry.clone())),
        // Whoever asks for an empty field looks at everything.
        None if value.is_empty() => {}
        None => _ = values.insert(value.into(), BTreeSet::from([ByKey(entry.clone())])),
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

/// The in-memory copy of one resource.
pub struct Cache {
    /// The kind that is stored.
    pub kind: &'static Kind,
    /// What is kept of its objects.
    pub layout: Arc<Layout>,
    prefix: String,
    state: RwLock<State>,
    /// The revision up to which the whole store is known.
    revision: watch::Receiver<i64>,
}

impl Cache {
    /// An empty copy, to be filled by the hub that owns `revision`.
    pub fn new(prefix: &str, kind: &'static Kind, revision: watch::Receiver<i64>) -> Self {
        let layout = Layout::of(kind);
        let state = RwLock::new(State::new(&layout));
        Self { kind, layout, prefix: resource_prefix(prefix, kind), state, revision }
    }

    /// What the keys of this resource begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The revision up to which the whole store is known.
    pub(super) fn known(&self) -> i64 {
        *self.revision.borrow()
    }

    /// A copy of a kind that appears while the others are followed already: what changes until [`Cache::fill`] is kept.
    pub(super) fn awaiting(prefix: &str, kind: &'static Kind, revision: watch::Receiver<i64>) -> Self {
        let cache = Self::new(prefix, kind, revision);
        cache.write().early = Some(Vec::new());
        cache
    }

    /// Starts from a full list at a revision and catches up with what changed since.
    pub(super) fn fill(&self, entries: Vec<Arc<Entry>>, revision: i64) {
        let mut state = self.write();
        // Without early changes, all copies were filled anew in between, and this one is current already.
        let Some(early) = state.early.take() else { return };
        state.begin(&self.layout, entries, revision);
        state.apply(early, Instant::now());
    }

    /// Starts from a full list at a revision. Everybody who watched must list again.
    pub fn reset(&self, entries: impl IntoIterator<Item = Arc<Entry>>, revision: i64) {
        let woken = self.write().begin(&self.layout, entries, revision);
        woken.iter().for_each(|notify| notify.notify_waiters());
    }

    /// Takes in changes, all of a revision together: key beneath the prefix, stored value (none: deleted), revision.
    pub fn apply<'a>(&self, changes: impl Iterator<Item = (&'a str, Option<&'a [u8]>, i64)>) {
        let changes: Vec<_> = changes.map(|(key, value, at)| self.change(key, value, at)).collect();
        let mut state = self.write();
        if let Some(early) = &mut state.early {
            early.extend(changes);
            return;
        }
        let stirred = state.apply(changes, Instant::now());
        drop(state);
        stirred.iter().for_each(|notify| notify.notify_waiters());
    }

    /// Reads a change; what is no object counts as gone.
    fn change(&self, key: &str, value: Option<&[u8]>, at: i64) -> Step {
        let entry = value.and_then(|v| Entry::new(&self.layout, key, v, at));
        (key.into(), entry.map(Arc::new), at)
    }

    /// Drops events that are too old; whether there will be more to drop.
    pub fn trim(&self, now: Instant) -> bool {
        let mut state = self.write();
        state.window.trim(now);
        state.window.ages()
    }

    /// One object.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.read().entries.get(key).map(|e| e.0.clone())
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
        let known_before = self.known();
        let scope = filter.scope(self.kind, &self.layout);
        let state = self.read();
        // Most lists want everything in their scope, and need not ask each object.
        let whole = filter.is_everything() && matches!(scope, Scope::All | Scope::Namespace(_));
        let mut all = state.scan(&scope, after).filter(|entry| whole || filter.matches(entry));
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
        let revision = state.revision(known_before);
        Listing { entries, revision, more, remaining: remaining.filter(|_| more) }
    }

    /// A watcher of what follows a revision, which may lie in the future.
    pub fn watch_after(self: &Arc<Self>, filter: Filter, revision: i64) -> Result<Watcher, Expired> {
        let scope = filter.scope(self.kind, &self.layout);
        let mut state = self.write();
        if revision < state.window.floor {
            return Err(Expired);
        }
        let position = (state.window.epoch, state.window.behind(revision));
        let notify = state.window.join(&scope);
        drop(state);
        Ok(Watcher::new(self.clone(), position, revision, filter, scope, notify))
    }

    /// The matching objects as they stand, their revision, and a watcher of what follows.
    pub fn watch_from_now(self: &Arc<Self>, filter: Filter) -> (Vec<Arc<Entry>>, i64, Watcher) {
        let known_before = self.known();
        let scope = filter.scope(self.kind, &self.layout);
        let mut state = self.write();
        let whole = filter.is_everything() && matches!(scope, Scope::All | Scope::Namespace(_));
        let present = state.scan(&scope, "").filter(|e| whole || filter.matches(e)).cloned().collect();
        let position = (state.window.epoch, state.window.end());
        let revision = state.revision(known_before);
        let notify = state.window.join(&scope);
        drop(state);
        (present, revision, Watcher::new(self.clone(), position, 0, filter, scope, notify))
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

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
