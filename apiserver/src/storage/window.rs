//! The past events of a resource, and for every part of it that somebody watches, which of them concern that part.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::entry::{Entry, Layout};
use super::filter::{Filter, INDEXED, Scope};

/// Events that the window keeps at most.
pub(super) const MAX_EVENTS: usize = 20_000;
/// Bytes of objects that the window keeps at most.
const MAX_BYTES: usize = 16 << 20;
/// How long events stay in the window at least, while it is within its bounds.
pub(super) const KEEP: Duration = Duration::from_secs(90);
/// Events younger than this number stay whatever their age.
const KEEP_EVENTS: usize = 100;

/// One step in the life of a resource.
#[derive(Debug)]
pub(super) struct Event {
    pub revision: i64,
    pub at: Instant,
    pub old: Option<Arc<Entry>>,
    pub new: Option<Arc<Entry>>,
    /// `old` as those see it from whose view it goes, made by the first who needs it.
    gone: OnceLock<Arc<Entry>>,
}

impl Event {
    pub(super) fn new(revision: i64, at: Instant, old: Option<Arc<Entry>>, new: Option<Arc<Entry>>) -> Self {
        Self { revision, at, old, new, gone: OnceLock::new() }
    }

    fn size(&self) -> usize {
        self.old.as_ref().or(self.new.as_ref()).map_or(0, |e| e.size())
    }

    fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.old.iter().chain(&self.new)
    }

    /// What the event means to somebody who sees only what a filter lets through.
    pub(super) fn seen_by(&self, filter: &Filter) -> Option<Change> {
        let old = self.old.as_ref().filter(|e| filter.matches(e));
        let new = self.new.as_ref().filter(|e| filter.matches(e));
        match (old, new) {
            (None, None) => None,
            (None, Some(new)) => Some(Change::Added(new.clone())),
            (Some(_), Some(new)) => Some(Change::Modified(new.clone())),
            (Some(old), None) => {
                let gone = || old.at(self.revision).map_or_else(|| old.clone(), Arc::new);
                Some(Change::Deleted(self.gone.get_or_init(gone).clone()))
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

/// Those who watch the same part of a resource, and the positions of the events that concern them.
#[derive(Debug)]
pub(super) struct Group {
    /// In the order of the window.
    log: VecDeque<u64>,
    /// The log is complete from this position on.
    since: u64,
    /// Events before this position are no longer in the log.
    lost: u64,
    watchers: usize,
    notify: Arc<Notify>,
    /// The last round in which they were to be woken.
    stirred: u64,
}

impl Group {
    fn new(since: u64) -> Self {
        let notify = Arc::new(Notify::new());
        Self { log: VecDeque::new(), since, lost: 0, watchers: 0, notify, stirred: 0 }
    }

    fn concern(&mut self, position: u64, first: u64, round: u64, stirred: &mut Vec<Arc<Notify>>) {
        while let Some(oldest) = self.log.front().filter(|oldest| **oldest < first) {
            self.lost = oldest + 1;
            self.log.pop_front();
        }
        // An object that moves between two values of a field concerns both groups, but each once.
        if self.log.back() != Some(&position) {
            self.log.push_back(position);
        }
        self.stir(round, stirred);
    }

    fn stir(&mut self, round: u64, stirred: &mut Vec<Arc<Notify>>) {
        if self.stirred != round {
            self.stirred = round;
            stirred.push(self.notify.clone());
        }
    }
}

/// The events, and the groups.
#[derive(Debug)]
pub(super) struct Window {
    events: VecDeque<Event>,
    /// The position of the first event.
    first: u64,
    bytes: usize,
    /// Events up to this revision are not in the window.
    pub floor: i64,
    /// Counts how often everything began anew.
    pub epoch: u64,
    /// Counts how often watchers were woken.
    round: u64,
    all: Group,
    namespaces: HashMap<Box<str>, Group>,
    objects: HashMap<Box<str>, Group>,
    /// By position in the layout, then by value.
    fields: Vec<(usize, HashMap<Box<str>, Group>)>,
}

/// A position that the window has passed.
#[derive(Debug, PartialEq, Eq)]
pub struct Expired;

impl Window {
    pub(super) fn new(layout: &Layout) -> Self {
        let fields = INDEXED.iter().filter_map(|name| layout.field(name)).map(|i| (i, HashMap::new()));
        Self {
            events: VecDeque::new(),
            first: 0,
            bytes: 0,
            floor: 0,
            epoch: 0,
            round: 1,
            all: Group::new(0),
            namespaces: HashMap::new(),
            objects: HashMap::new(),
            fields: fields.collect(),
        }
    }

    /// The position after the last event.
    pub(super) fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// The position of the first event behind a revision.
    pub(super) fn behind(&self, revision: i64) -> u64 {
        self.first + self.events.partition_point(|event| event.revision <= revision) as u64
    }

    /// Forgets everything; nobody's position is valid any longer.
    pub(super) fn reset(&mut self, floor: i64) -> Vec<Arc<Notify>> {
        self.first = self.end();
        self.events = VecDeque::new();
        (self.bytes, self.floor) = (0, floor);
        self.epoch += 1;
        let first = self.first;
        let groups = std::iter::once(&mut self.all)
            .chain(self.namespaces.values_mut())
            .chain(self.objects.values_mut())
            .chain(self.fields.iter_mut().flat_map(|(_, groups)| groups.values_mut()));
        groups
            .map(|group| {
                group.log.clear();
                group.since = first;
                group.notify.clone()
            })
            .collect()
    }

    /// Takes in an event, and notes whom it concerns.
    pub(super) fn push(&mut self, event: Event, stirred: &mut Vec<Arc<Notify>>) {
        let (position, first, round) = (self.end(), self.first, self.round);
        if self.all.watchers > 0 {
            self.all.stir(round, stirred);
        }
        if let Some(entry) = event.entries().next() {
            if let Some(group) = self.namespaces.get_mut(entry.namespace()) {
                group.concern(position, first, round, stirred);
            }
            if let Some(group) = self.objects.get_mut(&*entry.key) {
                group.concern(position, first, round, stirred);
            }
        }
        for (index, groups) in self.fields.iter_mut().filter(|(_, groups)| !groups.is_empty()) {
            for entry in event.entries() {
                if let Some(group) = groups.get_mut(entry.field_at(*index)) {
                    group.concern(position, first, round, stirred);
                }
            }
        }
        self.bytes += event.size();
        self.events.push_back(event);
    }

    /// Those who were stirred by [`Window::push`] are about to be woken; the next push stirs them again.
    pub(super) fn settle(&mut self) {
        self.round += 1;
    }

    /// Drops what is too much or too old.
    pub(super) fn trim(&mut self, now: Instant) {
        while let Some(oldest) = self.events.front() {
            let full = self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES;
            let old = self.events.len() > KEEP_EVENTS && now.duration_since(oldest.at) > KEEP;
            if !full && !old {
                break;
            }
            self.bytes -= oldest.size();
            self.floor = oldest.revision;
            self.first += 1;
            self.events.pop_front();
        }
        if self.events.capacity() > 64 && self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to(self.events.len() * 2);
        }
    }

    /// Whether a later [`Window::trim`] would drop something for its age.
    pub(super) fn ages(&self) -> bool {
        self.events.len() > KEEP_EVENTS
    }

    fn group(&self, scope: &Scope) -> Option<&Group> {
        match scope {
            Scope::All => Some(&self.all),
            Scope::Namespace(namespace) => self.namespaces.get(namespace),
            Scope::Object(key) => self.objects.get(key),
            Scope::Field(index, value) => self.fields.iter().find(|(i, _)| i == index)?.1.get(value),
        }
    }

    /// One more watches a part.
    pub(super) fn join(&mut self, scope: &Scope) -> Arc<Notify> {
        let end = self.end();
        let group = match scope {
            Scope::All => &mut self.all,
            Scope::Namespace(namespace) => {
                self.namespaces.entry(namespace.clone()).or_insert_with(|| Group::new(end))
            }
            Scope::Object(key) => self.objects.entry(key.clone()).or_insert_with(|| Group::new(end)),
            Scope::Field(index, value) => match self.fields.iter_mut().find(|(i, _)| i == index) {
                Some((_, groups)) => groups.entry(value.clone()).or_insert_with(|| Group::new(end)),
                None => &mut self.all,
            },
        };
        group.watchers += 1;
        group.notify.clone()
    }

    /// One watches no longer.
    pub(super) fn leave(&mut self, scope: &Scope) {
        fn leave(groups: &mut HashMap<Box<str>, Group>, key: &str) {
            if let Some(group) = groups.get_mut(key) {
                group.watchers -= 1;
                if group.watchers == 0 {
                    groups.remove(key);
                }
            }
        }
        match scope {
            Scope::All => self.all.watchers -= 1,
            Scope::Namespace(namespace) => leave(&mut self.namespaces, namespace),
            Scope::Object(key) => leave(&mut self.objects, key),
            Scope::Field(index, value) => match self.fields.iter_mut().find(|(i, _)| i == index) {
                Some((_, groups)) => leave(groups, value),
                None => self.all.watchers -= 1,
            },
        }
    }

    /// How many watch the same part.
    pub(super) fn company(&self, scope: &Scope) -> usize {
        self.group(scope).map_or(0, |group| group.watchers)
    }

    /// Whether events concern a part from a position on, or the position is gone.
    pub(super) fn has_news(&self, scope: &Scope, cursor: u64) -> bool {
        match (scope, self.group(scope)) {
            (Scope::All, _) | (_, None) => cursor != self.end(),
            (_, Some(group)) => {
                cursor < group.since.min(self.end()) || group.log.back().is_some_and(|last| *last >= cursor)
            }
        }
    }

    /// Shows the events from a position on that concern a part, until `visit` has had enough and returns false.
    /// The position behind the last event that was shown, or behind all when all were.
    pub(super) fn visit(
        &self,
        scope: &Scope,
        cursor: u64,
        mut visit: impl FnMut(&Event) -> bool,
    ) -> Result<u64, Expired> {
        let group = self.group(scope).filter(|_| *scope != Scope::All);
        let scanned = group.map_or(self.end(), |group| group.since);
        let mut cursor = cursor;
        if cursor < scanned {
            let skip = usize::try_from(cursor.checked_sub(self.first).ok_or(Expired)?).unwrap_or(usize::MAX);
            let count = usize::try_from(scanned - cursor).unwrap_or(usize::MAX);
            for event in self.events.iter().skip(skip).take(count) {
                cursor += 1;
                if !visit(event) {
                    return Ok(cursor);
                }
            }
            cursor = scanned;
        }
        if let Some(group) = group {
            if cursor < group.lost {
                return Err(Expired);
            }
            let from = group.log.partition_point(|position| *position < cursor);
            for position in group.log.range(from..) {
                let index = usize::try_from(position.checked_sub(self.first).ok_or(Expired)?);
                let Some(event) = index.ok().and_then(|i| self.events.get(i)) else { break };
                if !visit(event) {
                    return Ok(position + 1);
                }
            }
        }
        Ok(self.end())
    }
}
