//! The copies of all kinds, found by kind or by key. Kinds may come and go while the server runs.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use api::Kind;

use super::cache::Cache;
use super::layout::storage_kind;

/// The copies, as they are at one moment.
#[derive(Clone, Default)]
pub(super) struct Copies {
    by_kind: HashMap<(&'static str, &'static str), Arc<Cache>>,
    by_prefix: BTreeMap<Arc<str>, Arc<Cache>>,
}

impl Copies {
    /// The copy that holds the objects of a kind.
    pub(super) fn of(&self, kind: &'static Kind) -> Option<&Arc<Cache>> {
        let stored = storage_kind(kind);
        self.by_kind.get(&(stored.group, stored.kind))
    }

    /// The copy that a key belongs to, and the rest of the key beneath its prefix.
    pub(super) fn find<'k>(&self, key: &'k str) -> Option<(&Arc<Cache>, &'k str)> {
        // No prefix lies beneath another, so that the greatest that is not behind the key is the only candidate.
        let (prefix, cache) =
            self.by_prefix.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        Some((cache, key.strip_prefix(&**prefix)?))
    }

    /// Every copy, those that are not filled yet included.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Cache>> {
        self.by_prefix.values()
    }

    /// Lets a copy be fed.
    pub(super) fn feed(&mut self, cache: Arc<Cache>) {
        self.by_prefix.insert(cache.prefix().into(), cache);
    }

    /// Lets a copy be read.
    pub(super) fn show(&mut self, cache: Arc<Cache>) {
        self.by_kind.insert((cache.kind.group, cache.kind.kind), cache);
    }

    /// Forgets a kind; its copy, if there was one.
    pub(super) fn remove(&mut self, kind: &'static Kind) -> Option<Arc<Cache>> {
        let stored = storage_kind(kind);
        let cache = self.by_kind.remove(&(stored.group, stored.kind))?;
        self.by_prefix.remove(cache.prefix());
        Some(cache)
    }
}
