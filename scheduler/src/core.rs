//! Everything that the scheduler knows, as one state machine: what happens goes in, decisions come
//! out. One lock around it keeps an event from falling between a decision and its consequence. Pure.

use std::sync::Arc;
use std::time::Duration;

use api::Typed;
use api::meta::MetaExt;
use api::openapi::api::core::v1::{Node, Pod};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::explain::{Decision, Explain};
use crate::framework::Event;
use crate::plugins::default_preemption::Outcome;
use crate::plugins::scheduling_gates::gated;
use crate::plugins::volume_binding::{self, Write};
use crate::pod::{PodInfo, Standing, scheduler_name, standing};
use crate::profile::Profile;
use crate::queue::{BACKOFF, Depth, Queue, Queued};
use crate::schedule::{Diagnosis, Nominated, Scheduler, Search};
use crate::snapshot::{NodeChange, Snapshot};
use crate::terms::Labels;

/// Who makes room for a pod.
#[derive(Clone, Debug)]
pub struct Preemption {
    /// The node.
    pub node: Arc<str>,
    /// To be deleted.
    pub victims: Vec<Arc<PodInfo>>,
    /// Their nominations for the node end.
    pub displaced: Vec<Arc<PodInfo>>,
}

/// What has to be done about a decision.
#[derive(Clone, Debug)]
pub enum Step {
    /// Bind the pod to the node, and report with [`Core::not_bound`] if that cannot be done.
    Bind {
        /// The pod, to be handed back.
        queued: Box<Queued>,
        /// The node, on which it counts from now on.
        node: Arc<str>,
    },
    /// Have volumes bound or made for the pod on the node. It is decided about anew when they are there.
    Volumes {
        /// The pod.
        pod: Arc<PodInfo>,
        /// The node.
        node: Arc<str>,
        /// What is to be written.
        writes: Vec<Write>,
    },
    /// Tell users why it waits, and have others make room for it.
    Fail {
        /// The pod.
        pod: Arc<PodInfo>,
        /// In upstream's words.
        message: String,
        /// Who makes room.
        preemption: Option<Preemption>,
        /// The pod says that room is made for it, but none is.
        forget_nomination: bool,
    },
}

/// See the module.
pub struct Core {
    snapshot: Snapshot,
    cluster: Cluster,
    queue: Queue,
    nominated: Nominated,
    scheduler: Scheduler,
    profiles: Vec<Profile>,
    explain: Explain,
}

impl Core {
    /// Knows nothing yet. Ties are broken by a generator with this seed.
    pub fn new(seed: u64, profiles: Vec<Profile>) -> Self {
        Self::with_backoff(seed, profiles, BACKOFF)
    }

    /// As [`Self::new`], with how long a pod waits after its first decision in vain, and at most.
    pub fn with_backoff(seed: u64, profiles: Vec<Profile>, backoff: (Duration, Duration)) -> Self {
        Self {
            snapshot: Snapshot::default(),
            cluster: Cluster::default(),
            queue: Queue::new(backoff),
            nominated: Nominated::default(),
            scheduler: Scheduler::new(SmallRng::seed_from_u64(seed)),
            profiles,
            explain: Explain::default(),
        }
    }

    /// A node came or changed.
    pub fn set_node(&mut self, node: &Node, now: Instant) {
        let change = self.snapshot.set_node(node);
        let Some(new) = self.snapshot.node(node.name()) else { return };
        match &change {
            NodeChange::Nothing => {}
            NodeChange::Added => self.queue.event(&Event::NodeAdded(new), &self.profiles, now),
            NodeChange::Updated(old) => {
                self.queue.event(&Event::NodeUpdated { old, new }, &self.profiles, now);
            }
        }
    }

    /// A node is gone.
    pub fn remove_node(&mut self, name: &str, now: Instant) {
        if let Some(gone) = self.snapshot.remove_node(name) {
            self.queue.event(&Event::NodeRemoved(&gone), &self.profiles, now);
        }
        if self.snapshot.wants_renumbering() {
            self.explain.clear();
            self.snapshot.renumber();
        }
    }

    /// A namespace came, changed, or is gone (`None`).
    pub fn set_namespace(&mut self, name: &str, labels: Option<&Labels>, now: Instant) {
        if self.snapshot.set_namespace(name, labels) {
            self.queue.event(&Event::Namespace, &self.profiles, now);
        }
    }

    /// Something that decisions depend on changed, but nothing that a pod could wait for.
    pub fn cluster(&mut self, change: impl FnOnce(&mut Cluster)) {
        change(&mut self.cluster);
    }

    /// A claim of this namespace changed; or, when it is empty, a volume, a class or what a node can attach.
    pub fn storage(&mut self, namespace: &str, now: Instant, change: impl FnOnce(&mut Cluster)) {
        change(&mut self.cluster);
        self.queue.event(&Event::Storage { namespace }, &self.profiles, now);
    }

    /// The place of a pod's profile; `None` for another scheduler's pod.
    fn profile(&self, pod: &Pod) -> Option<usize> {
        let name = scheduler_name(pod);
        self.profiles.iter().position(|profile| profile.name == name)
    }

    /// A pod came or changed.
    pub fn set_pod(&mut self, pod: &Arc<Pod>, now: Instant) {
        match (standing(pod), self.profile(pod)) {
            (Standing::Irrelevant, _) => self.remove_pod(pod.uid(), now),
            (Standing::Assigned(node), _) => self.assigned(pod, node, now),
            (Standing::Pending, None) => self.remove_pod(pod.uid(), now),
            (Standing::Pending, Some(profile)) => {
                let info = Arc::new(PodInfo::new(pod.clone()));
                match self.snapshot.pod(pod.uid()) {
                    // Our binding is on its way; what we see is older.
                    Some(placed) if placed.assumed => self.snapshot.refresh_assumed(info),
                    _ => {
                        if let Some(node) = info.nominated_node() {
                            self.nominated.set(info.clone(), node);
                        }
                        let gated = self.profiles[profile].gates && gated(pod);
                        self.queue.set(info, profile, gated, now);
                    }
                }
            }
        }
    }

    fn assigned(&mut self, pod: &Arc<Pod>, node: &str, now: Instant) {
        self.queue.remove(pod.uid());
        self.nominated.remove(pod.uid());
        let info = Arc::new(PodInfo::new(pod.clone()));
        let old = self.snapshot.pod(pod.uid()).map(|placed| (placed.node.clone(), placed.pod.clone()));
        let (moved, changed) = match &old {
            Some((from, old)) => (**from != *node, !old.counts_like(&info)),
            None => (false, false),
        };
        let assumed = self.snapshot.pod(pod.uid()).is_some_and(|placed| placed.assumed);
        if old.is_some() && !moved && !changed {
            self.snapshot.refresh(info.clone());
        } else {
            self.snapshot.set_pod(info.clone(), node, false);
        }
        if let Some((from, old)) = old.as_ref().filter(|_| moved || changed) {
            let node = self.snapshot.node(from);
            self.queue.event(&Event::PodLeft { pod: old, node }, &self.profiles, now);
        }
        if old.is_none() || assumed || moved || changed {
            self.queue.event(&Event::PodPlaced(&info), &self.profiles, now);
        }
    }

    /// A pod is gone, or is none of our business any more.
    pub fn remove_pod(&mut self, uid: &str, now: Instant) {
        self.queue.remove(uid);
        self.nominated.remove(uid);
        self.take_off(uid, now);
    }

    fn take_off(&mut self, uid: &str, now: Instant) -> Option<Arc<PodInfo>> {
        let placed = self.snapshot.remove_pod(uid)?;
        let node = self.snapshot.node(&placed.node);
        self.queue.event(&Event::PodLeft { pod: &placed.pod, node }, &self.profiles, now);
        Some(placed.pod)
    }

    /// Decides about the pod whose turn it is. `time` is for the record.
    pub fn step(&mut self, now: Instant, time: impl FnOnce() -> String) -> Option<Step> {
        let queued = self.queue.pop(now)?;
        let (pod, profile) = (queued.pod.clone(), queued.profile);
        let nodes = self.snapshot.nodes().len();
        let decided = self.scheduler.decide(
            &pod,
            &self.profiles[profile],
            &self.snapshot,
            &self.cluster,
            &self.nominated,
        );
        let mut decision = Decision {
            key: pod.key(),
            uid: pod.uid.clone(),
            time: time(),
            profile,
            node: None,
            message: String::new(),
            nodes,
            entries: Vec::new(),
            reasons: Vec::new(),
            others: None,
        };
        let step = match decided {
            Ok(placement) => {
                decision.message = format!("Successfully assigned {} to {}", pod.key(), placement.node);
                decision.node = Some(placement.node.clone());
                decision.reasons = placement.findings.texts(&pod);
                decision.entries = placement.findings.entries;
                self.place(queued, placement.node, now)
            }
            Err(diagnosis) => {
                let step = self.fail(queued, &diagnosis, now);
                if let Step::Fail { message, .. } = &step {
                    decision.message = message.clone();
                }
                let texts = |reason: &crate::framework::Reason| {
                    reason.texts(&pod).iter().map(|text| text.to_string()).collect::<Vec<_>>().join(", ")
                };
                let whole = diagnosis.whole.as_ref().map(|reason| (nodes, texts(reason)));
                decision.others = whole.or(diagnosis.others.as_ref().map(|(n, reason)| (*n, texts(reason))));
                decision.reasons = diagnosis.findings.texts(&pod);
                decision.entries = diagnosis.findings.entries;
                step
            }
        };
        self.explain.record(decision);
        Some(step)
    }

    fn place(&mut self, queued: Queued, node: Arc<str>, now: Instant) -> Step {
        let pod = queued.pod.clone();
        let filters = &self.profiles[queued.profile].filters;
        let binding = filters.iter().position(|filter| filter.name() == "VolumeBinding");
        let state = self.snapshot.node(&node).filter(|_| binding.is_some());
        let writes = state.and_then(|state| volume_binding::writes(&pod, state, &self.cluster.volumes));
        let writes = writes.unwrap_or_default();
        if !writes.is_empty() {
            let mut waits_for = crate::schedule::FilterSet::default();
            binding.into_iter().for_each(|place| waits_for.insert(place));
            self.queue.unschedulable(queued, waits_for, &self.profiles, now);
            return Step::Volumes { pod, node, writes };
        }
        self.nominated.remove(&pod.uid);
        self.snapshot.set_pod(pod, &node, true);
        Step::Bind { queued: Box::new(queued), node }
    }

    fn fail(&mut self, queued: Queued, diagnosis: &Diagnosis, now: Instant) -> Step {
        let pod = queued.pod.clone();
        let mut message = diagnosis.to_string();
        let (mut preemption, mut forget_nomination) = (None, false);
        match self.preempt(&queued, diagnosis) {
            None => {}
            Some(Outcome::Ineligible(why)) => message = format!("{message} preemption: {why}"),
            Some(Outcome::Impossible(why)) => {
                message = format!("{message} preemption: {why}");
                forget_nomination = pod.nominated_node().is_some();
                self.nominated.remove(&pod.uid);
            }
            Some(Outcome::Nominated { node, victims, displaced }) => {
                for other in &displaced {
                    self.nominated.remove(&other.uid);
                    self.queue.wake(&other.uid, now);
                }
                self.nominated.set(pod.clone(), &node);
                preemption = Some(Preemption { node, victims, displaced });
            }
        }
        self.queue.unschedulable(queued, diagnosis.refused_by, &self.profiles, now);
        Step::Fail { pod, message, preemption, forget_nomination }
    }

    fn preempt(&mut self, queued: &Queued, diagnosis: &Diagnosis) -> Option<Outcome> {
        let profile = &self.profiles[queued.profile];
        let preemption = profile.preemption.as_ref().filter(|_| diagnosis.nodes > 0)?;
        let search = Search::again(&queued.pod, profile, &self.snapshot, &self.cluster, &self.nominated);
        Some(preemption.preempt(&search, diagnosis, &mut self.scheduler.rng))
    }

    /// Room could not be made for the pod: it is tried again.
    pub fn not_preempted(&mut self, uid: &str, now: Instant) {
        self.nominated.remove(uid);
        self.queue.wake(uid, now);
    }

    /// A binding was certainly not made: the room is free again, and the pod is retried unless it is
    /// gone (`retry`) or the API has shown it on a node by now.
    pub fn not_bound(&mut self, mut queued: Queued, retry: bool, now: Instant) {
        let uid = queued.pod.uid.clone();
        if !self.snapshot.pod(&uid).is_some_and(|placed| placed.assumed) {
            return;
        }
        if let Some(pod) = self.take_off(&uid, now) {
            // It may have changed while it was assumed.
            queued.pod = pod;
        }
        if retry {
            self.queue.retry(queued, now);
        }
    }

    /// When time alone will give something to decide.
    pub fn deadline(&self) -> Option<Instant> {
        self.queue.deadline()
    }

    /// Whether there is something to decide now.
    pub fn has_active(&self) -> bool {
        self.queue.has_active()
    }

    /// How many pods wait, and for what.
    pub fn depth(&self) -> Depth {
        self.queue.depth()
    }

    /// The nodes and what runs on them.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The last decision about the pod `namespace/name`, as JSON.
    pub fn explain(&self, key: &str) -> Option<serde_json::Value> {
        self.explain.show(key, &self.snapshot, &self.profiles)
    }
}

/// The uid of an object, by which it is known here.
pub fn uid<K: Typed>(object: &K) -> &str {
    object.uid()
}

#[cfg(test)]
mod tests;
