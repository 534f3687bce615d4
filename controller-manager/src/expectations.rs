//! Remembers what was written, so that nothing is decided on a cache that does not show it yet.
//!
//! A controller that created three pods and looks at a cache which is a moment old would create
//! three more. So each write is noted under the key of the object for which it was made, and that
//! object is left alone until the cache shows all of them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use api::Typed;
use api::meta::{MetaExt, key, split_key};
use client::{Api, Store};
use component::tasks::lock;
use jiff::Timestamp;

use crate::pods::later;

/// How long a creation may stay unseen before the API server is asked: the object may have come and
/// gone within a gap of the watch.
const DOUBT_AFTER: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq)]
enum What {
    Created,
    /// Changed, with this resource version as the outcome.
    Changed(u64),
    Deleted,
}

#[derive(Clone, Debug)]
struct Expected {
    key: String,
    uid: String,
    what: What,
    since: Timestamp,
}

/// What a cache shows under a key.
struct Seen {
    uid: String,
    version: u64,
    deleting: bool,
}

/// The writes that were made for each object and may not be in the cache yet.
#[derive(Default)]
pub struct Expectations(Mutex<HashMap<String, Vec<Expected>>>);

impl Expectations {
    /// An object was created on behalf of `owner`.
    pub fn created<K: Typed>(&self, owner: &str, object: &K, now: Timestamp) {
        self.add(owner, object, What::Created, now);
    }

    /// An object was changed; `object` is the outcome.
    pub fn changed<K: Typed>(&self, owner: &str, object: &K, now: Timestamp) {
        self.add(owner, object, What::Changed(version(object)), now);
    }

    /// An object was deleted, or its deletion has begun.
    pub fn deleted<K: Typed>(&self, owner: &str, object: &K, now: Timestamp) {
        self.add(owner, object, What::Deleted, now);
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &str) {
        lock(&self.0).remove(owner);
    }

    fn add<K: Typed>(&self, owner: &str, object: &K, what: What, since: Timestamp) {
        let expected = Expected { key: key(object), uid: object.uid().to_owned(), what, since };
        lock(&self.0).entry(owner.to_owned()).or_default().push(expected);
    }

    /// Whether the cache shows everything that was written for `owner`. When it does not, an event
    /// will follow; looking again after [`Self::patience`] covers what no event will tell.
    pub async fn met<K: Typed>(
        &self,
        owner: &str,
        store: &Store<K>,
        api: &Api<K>,
        now: Timestamp,
    ) -> Result<bool, client::Error> {
        let waiting = self.unmet(owner, |key| store.get(key).map(|object| seen(&*object)));
        let doubted =
            waiting.iter().filter(|e| e.what == What::Created && later(e.since, DOUBT_AFTER) <= now);
        for expected in doubted {
            let (namespace, name) = split_key(&expected.key);
            let live = api.in_namespace(namespace).get_opt(name).await?;
            if live.is_none_or(|object| object.uid() != expected.uid) {
                let mut all = lock(&self.0);
                all.entry(owner.to_owned()).or_default().retain(|e| e.uid != expected.uid);
            }
        }
        Ok(lock(&self.0).get(owner).is_none_or(Vec::is_empty))
    }

    /// How long to wait before [`Self::met`] is asked again without an event.
    pub const fn patience() -> Duration {
        DOUBT_AFTER
    }

    /// Drops what the cache shows, and returns the rest.
    fn unmet(&self, owner: &str, look: impl Fn(&str) -> Option<Seen>) -> Vec<Expected> {
        let mut all = lock(&self.0);
        let Some(expected) = all.get_mut(owner) else { return Vec::new() };
        expected.retain(|e| !is_met(e, look(&e.key)));
        if expected.is_empty() {
            all.remove(owner);
            return Vec::new();
        }
        expected.clone()
    }
}

fn version<K: Typed>(object: &K) -> u64 {
    object.resource_version().parse().unwrap_or(0)
}

fn seen<K: Typed>(object: &K) -> Seen {
    Seen { uid: object.uid().to_owned(), version: version(object), deleting: object.is_deleting() }
}

fn is_met(expected: &Expected, seen: Option<Seen>) -> bool {
    let seen = seen.filter(|s| s.uid == expected.uid);
    match (&expected.what, seen) {
        (What::Created, seen) => seen.is_some(),
        (What::Changed(version), Some(seen)) => seen.version >= *version,
        (What::Changed(_) | What::Deleted, None) => true,
        (What::Deleted, Some(seen)) => seen.deleting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, pod};

    #[track_caller]
    fn check(note: impl Fn(&Expectations), shown: Option<(&str, u64, bool)>, met: bool) {
        let expectations = Expectations::default();
        note(&expectations);
        let look =
            |_: &str| shown.map(|(uid, version, deleting)| Seen { uid: uid.into(), version, deleting });
        assert_eq!(expectations.unmet("owner", look).is_empty(), met);
        assert!(expectations.unmet("another", look).is_empty());
    }

    #[test]
    fn a_write_is_awaited_until_the_cache_shows_it() {
        let mut a = pod("a").build();
        a.metadata.resource_version = Some("7".into());
        check(|e| e.created("owner", &a, at(0)), None, false);
        check(|e| e.created("owner", &a, at(0)), Some(("uid-a", 1, false)), true);
        check(|e| e.created("owner", &a, at(0)), Some(("uid-former", 9, false)), false);
        check(|e| e.changed("owner", &a, at(0)), Some(("uid-a", 6, false)), false);
        check(|e| e.changed("owner", &a, at(0)), Some(("uid-a", 7, false)), true);
        check(|e| e.changed("owner", &a, at(0)), None, true);
        check(|e| e.deleted("owner", &a, at(0)), Some(("uid-a", 7, false)), false);
        check(|e| e.deleted("owner", &a, at(0)), Some(("uid-a", 8, true)), true);
        check(|e| e.deleted("owner", &a, at(0)), Some(("uid-next", 9, false)), true);
        check(|e| e.deleted("owner", &a, at(0)), None, true);
    }
}
