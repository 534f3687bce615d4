//! Watches: the changes that just happened, kept for those who follow, and who wants to hear of which. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::mvcc::KeyRange;
use crate::pb::etcdserverpb::WatchCreateRequest;
use crate::pb::etcdserverpb::watch_create_request::FilterType;
use crate::pb::mvccpb::Event;
use crate::pb::mvccpb::event::EventType;

/// Bytes of changes that are kept in memory. Who falls behind further reads them from the disk.
const RECENT_BYTES: usize = 1 << 20;

/// The changes of a batch of revisions.
#[derive(Debug)]
pub struct Recorded {
    /// The newest revision of the batch.
    pub last: i64,
    /// In their order.
    pub events: Vec<Event>,
    bytes: usize,
}

/// The changes that just happened.
#[derive(Debug)]
pub struct Recent {
    batches: VecDeque<Arc<Recorded>>,
    bytes: usize,
    /// Every change from this revision on is here.
    first: i64,
}

impl Recent {
    /// None, after a revision.
    pub fn new(revision: i64) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, first: revision + 1 }
    }

    /// Adds the changes of the revisions from `first` to `last`.
    pub fn push(&mut self, first: i64, last: i64, events: Vec<Event>) {
        if self.batches.is_empty() {
            self.first = first;
        }
        let bytes = events.iter().map(|e| e.encoded_len() + std::mem::size_of::<Event>()).sum();
        self.bytes += bytes;
        self.batches.push_back(Arc::new(Recorded { last, events, bytes }));
        while self.bytes > RECENT_BYTES && self.batches.len() > 1 {
            if let Some(old) = self.batches.pop_front() {
                self.bytes -= old.bytes;
                self.first = old.last + 1;
            }
        }
    }

    /// The batches with changes after a revision, some of them if they are many; `None` when older ones than are kept
    /// would be needed.
    pub fn since(&self, revision: i64, limit: usize) -> Option<Vec<Arc<Recorded>>> {
        if revision + 1 < self.first {
            return None;
        }
        let start = self.batches.partition_point(|batch| batch.last <= revision);
        let mut count = 0;
        let enough = |batch: &&Arc<Recorded>| {
            let more = count < limit;
            count += batch.events.len();
            more
        };
        Some(self.batches.range(start..).take_while(enough).cloned().collect())
    }
}

/// Who wants to hear of which changes.
#[derive(Clone, Debug)]
pub struct Watcher {
    /// The keys.
    pub range: KeyRange,
    /// The first revision.
    pub from: i64,
    /// Whether writes are left out.
    pub no_put: bool,
    /// Whether deletions are left out.
    pub no_delete: bool,
    /// Whether what was there before is told as well.
    pub prev_kv: bool,
    /// Whether large responses may be split.
    pub fragment: bool,
    /// Whether it wants to hear from time to time that nothing happened.
    pub progress_notify: bool,
    /// Whether it was told anything since the last such time.
    pub active: bool,
}

impl Watcher {
    /// Understands a request; `from` is where it begins.
    pub fn new(request: &WatchCreateRequest, from: i64) -> Self {
        let key = if request.key.is_empty() { Bytes::from_static(&[0]) } else { request.key.clone() };
        let filtered = |filter: FilterType| request.filters.contains(&(filter as i32));
        Self {
            range: KeyRange::new(&key, &request.range_end),
            from,
            no_put: filtered(FilterType::Noput),
            no_delete: filtered(FilterType::Nodelete),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            active: false,
        }
    }

    /// Whether it wants to hear of an event.
    pub fn wants(&self, event: &Event) -> bool {
        let Some(kv) = &event.kv else { return false };
        let filtered = if event.r#type == EventType::Put as i32 { self.no_put } else { self.no_delete };
        !filtered && kv.mod_revision >= self.from && self.range.contains(&kv.key)
    }
}

/// The watchers of one stream.
#[derive(Debug, Default)]
pub struct Watchers {
    by_id: BTreeMap<i64, Watcher>,
    /// Those that watch one key, which are many where there are many.
    exact: HashMap<Bytes, Vec<i64>>,
    /// The others.
    ranges: Vec<i64>,
    last_id: i64,
}

impl Watchers {
    /// Adds a watcher under an id, or a free one for 0; `None` when the id is taken.
    pub fn add(&mut self, id: i64, watcher: Watcher) -> Option<i64> {
        let id = if id == 0 {
            while self.by_id.contains_key(&self.last_id) {
                self.last_id += 1;
            }
            self.last_id
        } else {
            id
        };
        if self.by_id.contains_key(&id) {
            return None;
        }
        match &watcher.range {
            KeyRange::One(key) => self.exact.entry(key.clone()).or_default().push(id),
            KeyRange::Between(..) | KeyRange::From(_) => self.ranges.push(id),
        }
        self.by_id.insert(id, watcher);
        Some(id)
    }

    /// Removes a watcher; whether it was there.
    pub fn remove(&mut self, id: i64) -> bool {
        let Some(watcher) = self.by_id.remove(&id) else { return false };
        match &watcher.range {
            KeyRange::One(key) => {
                if let Some(ids) = self.exact.get_mut(key) {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
                        self.exact.remove(key);
                    }
                }
            }
            KeyRange::Between(..) | KeyRange::From(_) => self.ranges.retain(|other| *other != id),
        }
        true
    }

    /// A watcher.
    pub fn get_mut(&mut self, id: i64) -> Option<&mut Watcher> {
        self.by_id.get_mut(&id)
    }

    /// All ids.
    pub fn ids(&self) -> Vec<i64> {
        self.by_id.keys().copied().collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The watchers that want nothing but to hear that nothing happened, if nothing did since the last call.
    pub fn quiet(&mut self) -> Vec<i64> {
        let mut quiet = Vec::new();
        for (id, watcher) in &mut self.by_id {
            if watcher.progress_notify && !std::mem::take(&mut watcher.active) {
                quiet.push(*id);
            }
        }
        quiet
    }

    /// What every watcher wants to hear of a sequence of events.
    pub fn distribute<'a>(&self, events: impl IntoIterator<Item = &'a Event>) -> BTreeMap<i64, Vec<Event>> {
        let mut told: BTreeMap<i64, Vec<Event>> = BTreeMap::new();
        for event in events {
            let Some(kv) = &event.kv else { continue };
            let exact = self.exact.get(&kv.key).map_or(&[][..], Vec::as_slice);
            for id in exact.iter().chain(&self.ranges) {
                if self.by_id.get(id).is_some_and(|watcher| watcher.wants(event)) {
                    told.entry(*id).or_default().push(event.clone());
                }
            }
        }
        told
    }
}

/// Splits events between revisions into groups that are not much larger than `limit` bytes, unless one revision is.
pub fn pieces(events: Vec<Event>, limit: usize) -> Vec<Vec<Event>> {
    let revision = |event: &Event| event.kv.as_ref().map(|kv| kv.mod_revision);
    let mut pieces: Vec<Vec<Event>> = Vec::new();
    let mut size = 0;
    for event in events {
        let length = event.encoded_len() + 8;
        match pieces.last_mut() {
            Some(piece) if size + length <= limit || piece.last().map(revision) == Some(revision(&event)) => {
                size += length;
                piece.push(event);
            }
            _ => {
                size = length;
                pieces.push(vec![event]);
            }
        }
    }
    pieces
}

/// Splits events into groups of which each is no larger than `limit` bytes, unless a single event is.
pub fn fragments(events: Vec<Event>, limit: usize) -> Vec<Vec<Event>> {
    let mut groups = Vec::new();
    let (mut group, mut size) = (Vec::new(), 0);
    for event in events {
        let length = event.encoded_len() + 8;
        if size + length > limit && !group.is_empty() {
            groups.push(std::mem::take(&mut group));
            size = 0;
        }
        size += length;
        group.push(event);
    }
    groups.push(group);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::mvccpb::KeyValue;

    fn event(key: &'static str, revision: i64, kind: EventType) -> Event {
        let kv = KeyValue { key: key.into(), mod_revision: revision, ..KeyValue::default() };
        Event { r#type: kind as i32, kv: Some(kv), prev_kv: None }
    }

    fn watcher(key: &'static str, end: &'static str, filters: &[FilterType]) -> Watcher {
        let request = WatchCreateRequest {
            key: key.into(),
            range_end: end.into(),
            filters: filters.iter().map(|f| *f as i32).collect(),
            ..WatchCreateRequest::default()
        };
        Watcher::new(&request, 5)
    }

    #[test]
    fn everyone_hears_what_they_asked_for() {
        let mut watchers = Watchers::default();
        assert_eq!(watchers.add(0, watcher("a", "", &[])), Some(0));
        assert_eq!(watchers.add(0, watcher("a", "c", &[FilterType::Nodelete])), Some(1));
        assert_eq!(watchers.add(7, watcher("", "\0", &[FilterType::Noput])), Some(7));
        assert_eq!(watchers.add(7, watcher("a", "", &[])), None, "the id is taken");
        let events = [
            event("a", 4, EventType::Put),
            event("a", 5, EventType::Put),
            event("b", 6, EventType::Delete),
            event("c", 7, EventType::Delete),
        ];
        let revisions = |told: &BTreeMap<i64, Vec<Event>>| -> Vec<(i64, Vec<i64>)> {
            let of = |e: &Event| e.kv.as_ref().unwrap().mod_revision;
            told.iter().map(|(id, events)| (*id, events.iter().map(of).collect())).collect()
        };
        let told = revisions(&watchers.distribute(&events));
        assert_eq!(told, [(0, vec![5]), (1, vec![5]), (7, vec![6, 7])]);
        assert!(watchers.remove(0) && !watchers.remove(0));
        assert_eq!(revisions(&watchers.distribute(&events)), [(1, vec![5]), (7, vec![6, 7])]);
    }

    #[test]
    fn what_is_no_longer_kept_is_not_made_up() {
        let mut recent = Recent::new(10);
        assert!(recent.since(10, 100).is_some_and(|b| b.is_empty()));
        assert!(recent.since(9, 100).is_none());
        recent.push(11, 12, vec![event("a", 11, EventType::Put), event("a", 12, EventType::Put)]);
        recent.push(13, 13, vec![event("a", 13, EventType::Put)]);
        let lasts = |recent: &Recent, since, limit| -> Option<Vec<i64>> {
            Some(recent.since(since, limit)?.iter().map(|b| b.last).collect())
        };
        assert_eq!(lasts(&recent, 10, 100), Some(vec![12, 13]));
        assert_eq!(lasts(&recent, 11, 100), Some(vec![12, 13]));
        assert_eq!(lasts(&recent, 12, 100), Some(vec![13]));
        assert_eq!(lasts(&recent, 10, 1), Some(vec![12]), "whole batches, and at least one");
        let large = KeyValue { value: vec![0; RECENT_BYTES].into(), mod_revision: 14, ..KeyValue::default() };
        recent.push(14, 14, vec![Event { r#type: 0, kv: Some(large), prev_kv: None }]);
        assert_eq!(lasts(&recent, 12, 100), None);
        assert_eq!(lasts(&recent, 13, 100), Some(vec![14]));
    }

    #[test]
    fn pieces_end_between_revisions() {
        let events: Vec<_> = [1, 2, 3, 3, 3, 4].map(|n| event("key", n, EventType::Put)).into();
        let size = events[0].encoded_len() + 8;
        let split = pieces(events.clone(), size * 3);
        assert_eq!(split.iter().map(Vec::len).collect::<Vec<_>>(), [5, 1]);
        assert_eq!(split.concat(), events);
        assert_eq!(pieces(events, size).iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 3, 1]);
        assert!(pieces(Vec::new(), size).is_empty());
    }

    #[test]
    fn fragments_hold_everything_in_order() {
        let events: Vec<_> = (1..=10).map(|n| event("key", n, EventType::Put)).collect();
        let size = events[0].encoded_len() + 8;
        let groups = fragments(events.clone(), size * 3);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3, 1]);
        assert_eq!(groups.concat(), events);
        assert_eq!(fragments(events, 1).len(), 10);
    }
}
