//! Everything that the scheduler knows, as one state machine: what happens goes in, decisions come
//! out. One lock around it keeps an event from falling between a decision and its consequence. Pure.

use std::sync::Arc;

use api::Typed;
use api::meta::MetaExt;
use api::openapi::api::core::v1::{Node, Pod};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::explain::{Decision, Explain};
use crate::framework::Event;
use crate::pod::{PodInfo, Standing, standing};
use crate::queue::{Depth, Queue, Queued};
use crate::schedule::Scheduler;
use crate::snapshot::{NodeChange, Snapshot};

/// What has to be done about a decision.
#[derive(Clone, Debug)]
pub enum Step {
    /// Bind the pod to the node, and report with [`Core::bound`] or [`Core::not_bound`].
    Bind {
        /// The pod, to be handed back.
        queued: Box<Queued>,
        /// The node, on which it counts from now on.
        node: Arc<str>,
    },
    /// Tell users why it waits.
    Fail {
        /// The pod.
        pod: Arc<PodInfo>,
        /// In upstream's words.
        message: String,
    },
}

/// See the module.
pub struct Core {
    snapshot: Snapshot,
    queue: Queue,
    scheduler: Scheduler,
    explain: Explain,
}

impl Core {
    /// Knows nothing yet. Ties are broken by a generator with this seed; `percentage` is
    /// `percentageOfNodesToScore`, 0 adapts.
    pub fn new(seed: u64, percentage: usize) -> Self {
        Self {
            snapshot: Snapshot::default(),
            queue: Queue::default(),
            scheduler: Scheduler::new(SmallRng::seed_from_u64(seed), percentage),
            explain: Explain::default(),
        }
    }

    /// A node came or changed.
    pub fn set_node(&mut self, node: &Node, now: Instant) {
        let change = self.snapshot.set_node(node);
        let Some(new) = self.snapshot.node(node.name()) else { return };
        match &change {
            NodeChange::Nothing => {}
            NodeChange::Added => self.queue.event(&Event::NodeAdded(new), now),
            NodeChange::Updated(old) => self.queue.event(&Event::NodeUpdated { old, new }, now),
        }
    }

    /// A node is gone.
    pub fn remove_node(&mut self, name: &str) {
        self.snapshot.remove_node(name);
    }

    /// A pod came or changed.
    pub fn set_pod(&mut self, pod: &Arc<Pod>, now: Instant) {
        match standing(pod) {
            Standing::Irrelevant => self.remove_pod(pod.uid(), now),
            Standing::Assigned(node) => {
                self.queue.remove(pod.uid());
                let old =
                    self.snapshot.pod(pod.uid()).map(|placed| (placed.node.clone(), placed.pod.clone()));
                let info = Arc::new(PodInfo::new(pod.clone()));
                self.snapshot.set_pod(info.clone(), node, false);
                if let Some((from, old)) =
                    old.filter(|(from, old)| **from != *node || old.request != info.request)
                {
                    let node = self.snapshot.node(&from);
                    self.queue.event(&Event::PodLeft { pod: &old, node }, now);
                }
            }
            standing @ (Standing::Pending | Standing::Gated) => {
                let info = Arc::new(PodInfo::new(pod.clone()));
                match self.snapshot.pod(pod.uid()) {
                    // Our binding is on its way; what we see is older.
                    Some(placed) if placed.assumed => self.snapshot.refresh_assumed(info),
                    _ => self.queue.set(info, standing == Standing::Gated, now),
                }
            }
        }
    }

    /// A pod is gone, or is none of our business any more.
    pub fn remove_pod(&mut self, uid: &str, now: Instant) {
        self.queue.remove(uid);
        if let Some(placed) = self.snapshot.remove_pod(uid) {
            let node = self.snapshot.node(&placed.node);
            self.queue.event(&Event::PodLeft { pod: &placed.pod, node }, now);
        }
    }

    /// Decides about the pod whose turn it is. `time` is for the record.
    pub fn step(&mut self, now: Instant, time: impl FnOnce() -> String) -> Option<Step> {
        let queued = self.queue.pop(now)?;
        let pod = queued.pod.clone();
        let nodes = self.snapshot.nodes().len();
        let (step, node, message, verdicts) = match self.scheduler.decide(&pod, &self.snapshot) {
            Ok(placement) => {
                self.snapshot.set_pod(pod.clone(), &placement.node, true);
                let message = format!("Successfully assigned {} to {}", pod.key(), placement.node);
                let node = placement.node.clone();
                (
                    Step::Bind { queued: Box::new(queued), node: node.clone() },
                    Some(node),
                    message,
                    placement.verdicts,
                )
            }
            Err(diagnosis) => {
                let message = diagnosis.to_string();
                self.queue.unschedulable(queued, diagnosis.refused_by, now);
                (Step::Fail { pod: pod.clone(), message: message.clone() }, None, message, diagnosis.verdicts)
            }
        };
        let uid = pod.uid.clone();
        self.explain.record(pod.key(), Decision { uid, time: time(), node, message, nodes, verdicts });
        Some(step)
    }

    /// A binding was made: the pod stays assumed until the API shows it.
    pub fn bound(&mut self, _uid: &str) {}

    /// A binding was certainly not made: the room is free again, and the pod is retried unless it is
    /// gone (`retry`) or the API has shown it on a node by now.
    pub fn not_bound(&mut self, mut queued: Queued, retry: bool, now: Instant) {
        let uid = queued.pod.uid.clone();
        if !self.snapshot.pod(&uid).is_some_and(|placed| placed.assumed) {
            return;
        }
        if let Some(placed) = self.snapshot.remove_pod(&uid) {
            // It may have changed while it was assumed.
            queued.pod = placed.pod.clone();
            let node = self.snapshot.node(&placed.node);
            self.queue.event(&Event::PodLeft { pod: &placed.pod, node }, now);
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

    /// The last decisions.
    pub fn explain(&self) -> &Explain {
        &self.explain
    }
}

/// The uid of an object, by which it is known here.
pub fn uid<K: Typed>(object: &K) -> &str {
    object.uid()
}

#[cfg(test)]
mod tests;
