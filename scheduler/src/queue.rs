//! The pods that wait for a node. Pure: time is handed in.
//!
//! A pod is active (next to be decided), in backoff (decided in vain a moment ago), unschedulable
//! (until an event may have changed that) or gated (until somebody removes its gates).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::framework::Event;
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::schedule::FilterSet;

/// How long a pod waits after its first decision in vain, and at most.
pub const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// After this time a pod is tried again even if no event was seen.
const FLUSH: Duration = Duration::from_secs(300);

/// The higher priority first, then who has waited longer.
type Turn = (Reverse<i32>, u64);

#[derive(Clone, Debug)]
enum Place {
    Active(Turn),
    Backoff(Instant),
    Unschedulable { since: Instant },
    Gated,
}

/// A pod in the queue.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// How often it was decided in vain.
    pub attempts: u32,
    /// When it came.
    pub since: Instant,
    /// Its place in the order of arrival.
    arrival: u64,
    backoff_until: Instant,
    /// The place of its profile.
    pub profile: usize,
    refused_by: FilterSet,
    /// The events that can change the minds of those filters.
    listens: u16,
}

/// How many pods wait, and for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// To be decided.
    pub active: usize,
    /// For their backoff to pass.
    pub backoff: usize,
    /// For an event.
    pub unschedulable: usize,
    /// For their gates to be removed.
    pub gated: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Queue {
    backoffs: (Duration, Duration),
    pods: HashMap<Arc<str>, (Queued, Place)>,
    active: BTreeMap<Turn, Arc<str>>,
    backoff: BTreeSet<(Instant, u64, Arc<str>)>,
    /// The longest waiting first.
    unschedulable: BTreeSet<(Instant, u64, Arc<str>)>,
    gated: usize,
    arrivals: u64,
    /// By the bits of events: how many unschedulable pods listen.
    listening: [usize; 16],
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(BACKOFF)
    }
}

impl Queue {
    /// Empty; a pod waits so long after its first decision in vain, and so long at most.
    pub fn new(backoffs: (Duration, Duration)) -> Self {
        Self {
            backoffs,
            pods: HashMap::new(),
            active: BTreeMap::new(),
            backoff: BTreeSet::new(),
            unschedulable: BTreeSet::new(),
            gated: 0,
            arrivals: 0,
            listening: [0; 16],
        }
    }

    /// A pod came, or changed. One that is new, or changed in what it asks for, is decided next.
    pub fn set(&mut self, pod: Arc<PodInfo>, profile: usize, gated: bool, now: Instant) {
        let uid = pod.uid.clone();
        match self.pods.get(&uid).map(|(queued, place)| (queued.clone(), place.clone())) {
            None => {
                self.arrivals += 1;
                let queued = Queued {
                    pod,
                    attempts: 0,
                    since: now,
                    arrival: self.arrivals,
                    backoff_until: now,
                    profile,
                    listens: 0,
                    refused_by: FilterSet::default(),
                };
                if gated { self.put(queued, Place::Gated) } else { self.activate(queued) }
            }
            Some((mut queued, place)) => {
                queued.profile = profile;
                let asks_anew = matters(&queued.pod, &pod) || matches!(place, Place::Gated) != gated;
                queued.pod = pod;
                self.remove(&uid);
                match place {
                    _ if gated => self.put(queued, Place::Gated),
                    Place::Unschedulable { .. } | Place::Gated if asks_anew => self.requeue(queued, now),
                    Place::Active(_) => self.activate(queued),
                    place => self.put(queued, place),
                }
            }
        }
    }

    /// A pod needs no node any more.
    pub fn remove(&mut self, uid: &str) -> Option<Queued> {
        let (queued, place) = self.pods.remove(uid)?;
        match place {
            Place::Active(turn) => {
                self.active.remove(&turn);
            }
            Place::Backoff(until) => {
                self.backoff.remove(&(until, queued.arrival, queued.pod.uid.clone()));
            }
            Place::Unschedulable { since } => {
                self.unschedulable.remove(&(since, queued.arrival, queued.pod.uid.clone()));
                self.listen(queued.listens, false);
            }
            Place::Gated => self.gated -= 1,
        }
        Some(queued)
    }

    /// Takes the pod whose turn it is.
    pub fn pop(&mut self, now: Instant) -> Option<Queued> {
        self.pass_time(now);
        let uid = self.active.first_key_value()?.1.clone();
        self.remove(&uid)
    }

    /// A pod was decided in vain, for the reasons of these filters.
    pub fn unschedulable(
        &mut self,
        mut queued: Queued,
        refused_by: FilterSet,
        profiles: &[Profile],
        now: Instant,
    ) {
        queued.attempts += 1;
        queued.refused_by = refused_by;
        let filters = profiles.get(queued.profile).map(|profile| &profile.filters);
        let listening = refused_by.iter().filter_map(|place| filters?.get(place)).map(|f| f.events());
        queued.listens = listening.fold(0, |all, one| all | one);
        queued.backoff_until = now + backoff(self.backoffs, queued.attempts);
        self.put(queued, Place::Unschedulable { since: now });
    }

    /// A decision could not be carried out: again, after the backoff.
    pub fn retry(&mut self, mut queued: Queued, now: Instant) {
        queued.attempts += 1;
        queued.backoff_until = now + backoff(self.backoffs, queued.attempts);
        self.requeue(queued, now);
    }

    /// Something happened: pods for which it may matter are tried again, the others are left alone.
    pub fn event(&mut self, event: &Event<'_>, profiles: &[Profile], now: Instant) {
        if self.listening[event.bit().trailing_zeros() as usize] == 0 {
            return;
        }
        let concerned = |uid: &&Arc<str>| {
            let (queued, _) = &self.pods[*uid];
            let Some(profile) = profiles.get(queued.profile) else { return false };
            let refused = queued.refused_by.iter().filter_map(|place| profile.filters.get(place));
            let mut listening = refused.filter(|filter| filter.events() & event.bit() != 0);
            listening.any(|filter| filter.hint(&queued.pod, event))
        };
        let waiting = self.unschedulable.iter().map(|(_, _, uid)| uid);
        let concerned: Vec<Arc<str>> = waiting.filter(concerned).cloned().collect();
        for uid in concerned {
            if let Some(queued) = self.remove(&uid) {
                self.requeue(queued, now);
            }
        }
    }

    /// When time alone will make a pod active.
    pub fn deadline(&self) -> Option<Instant> {
        let backoff = self.backoff.first().map(|(until, ..)| *until);
        let flush = self.unschedulable.first().map(|(since, ..)| *since + FLUSH);
        backoff.into_iter().chain(flush).min()
    }

    /// Whether a pod could be taken now.
    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// How many wait, and for what.
    pub fn depth(&self) -> Depth {
        Depth {
            active: self.active.len(),
            backoff: self.backoff.len(),
            unschedulable: self.unschedulable.len(),
            gated: self.gated,
        }
    }

    /// Moves the pods whose backoff has passed, and those that no event came for.
    fn pass_time(&mut self, now: Instant) {
        while let Some((until, _, uid)) = self.backoff.first().cloned()
            && until <= now
        {
            if let Some(queued) = self.remove(&uid) {
                self.activate(queued);
            }
        }
        while let Some((since, _, uid)) = self.unschedulable.first().cloned()
            && since + FLUSH <= now
        {
            if let Some(queued) = self.remove(&uid) {
                self.requeue(queued, now);
            }
        }
    }

    fn listen(&mut self, events: u16, begin: bool) {
        let counts = self.listening.iter_mut().enumerate().filter(|(bit, _)| events & (1 << bit) != 0);
        for (_, count) in counts {
            *count = if begin { *count + 1 } else { count.saturating_sub(1) };
        }
    }

    /// Tries a pod again after its backoff, whatever it waits for.
    pub fn wake(&mut self, uid: &str, now: Instant) {
        if matches!(self.pods.get(uid), Some((_, Place::Unschedulable { .. })))
            && let Some(queued) = self.remove(uid)
        {
            self.requeue(queued, now);
        }
    }

    fn requeue(&mut self, queued: Queued, now: Instant) {
        let until = queued.backoff_until;
        if until <= now { self.activate(queued) } else { self.put(queued, Place::Backoff(until)) }
    }

    fn activate(&mut self, queued: Queued) {
        let turn = (Reverse(queued.pod.priority), queued.arrival);
        self.put(queued, Place::Active(turn));
    }

    fn put(&mut self, queued: Queued, place: Place) {
        let uid = queued.pod.uid.clone();
        match &place {
            Place::Active(turn) => {
                self.active.insert(*turn, uid.clone());
            }
            Place::Backoff(until) => {
                self.backoff.insert((*until, queued.arrival, uid.clone()));
            }
            Place::Unschedulable { since } => {
                self.unschedulable.insert((*since, queued.arrival, uid.clone()));
                self.listen(queued.listens, true);
            }
            Place::Gated => self.gated += 1,
        }
        self.pods.insert(uid, (queued, place));
    }
}

/// Doubles with every attempt.
fn backoff((first, last): (Duration, Duration), attempts: u32) -> Duration {
    first.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(last)
}

/// Whether a change of a waiting pod can change the decision. Its status does not.
fn matters(old: &PodInfo, new: &PodInfo) -> bool {
    old.pod.spec != new.pod.spec || old.pod.metadata.labels != new.pod.metadata.labels
}

#[cfg(test)]
mod tests;
