//! What a plugin is: it refuses nodes for a pod, scores those that are left, and says which events
//! may have changed its mind.

use std::borrow::Cow;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::plugins::{inter_pod_affinity, pod_topology_spread, volume_binding};
use crate::pod::PodInfo;
use crate::snapshot::{NodeState, Snapshot};

/// The most that a plugin gives to a node.
pub const MAX_SCORE: i64 = 100;

/// Why a node is refused, as users read it. Making one does not allocate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Always the same sentence.
    Static(&'static str),
    /// A sentence that was made when the node or the pod was read.
    Shared(Arc<str>),
    /// A sentence for everybody, and a detail for those who may see nodes.
    Detailed(&'static str, Arc<str>),
    /// `Insufficient …`, for each bit: pods, cpu, memory, ephemeral-storage, then what else the pod
    /// asks for, in its order.
    Insufficient(u32),
}

impl Reason {
    /// The sentences, each of which is counted.
    pub fn texts<'a>(&'a self, pod: &'a PodInfo) -> Vec<Cow<'a, str>> {
        match self {
            Self::Static(text) | Self::Detailed(text, _) => vec![Cow::Borrowed(*text)],
            Self::Shared(text) => vec![Cow::Borrowed(text)],
            Self::Insufficient(bits) => {
                let fixed = [
                    "Too many pods",
                    "Insufficient cpu",
                    "Insufficient memory",
                    "Insufficient ephemeral-storage",
                ];
                let extended = pod.request.stated.extended().map(|(name, _)| format!("Insufficient {name}"));
                let all = fixed.into_iter().map(Cow::Borrowed).chain(extended.map(Cow::Owned));
                all.enumerate()
                    .filter(|(i, _)| *i < 32 && bits & (1 << i) != 0)
                    .map(|(_, text)| text)
                    .collect()
            }
        }
    }

    /// What an administrator is told beyond that.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Detailed(_, detail) => Some(detail),
            _ => None,
        }
    }
}

/// A node is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Whether removing pods from the node could change that
    /// (`Unschedulable` rather than `UnschedulableAndUnresolvable`).
    pub resolvable: bool,
}

impl Refusal {
    /// Refused with a fixed sentence, for as long as certain pods are there.
    pub const fn because(text: &'static str) -> Self {
        Self { reason: Reason::Static(text), resolvable: true }
    }

    /// Refused with a fixed sentence, whatever pods are there.
    pub const fn for_good(text: &'static str) -> Self {
        Self { reason: Reason::Static(text), resolvable: false }
    }
}

/// What a plugin knows before it looks at a single node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreFilter {
    /// Every node has to be looked at.
    All,
    /// Nothing is to be refused: the plugin is left out.
    Skip,
    /// Only the nodes in these places can pass.
    Only(Vec<usize>),
    /// No node can pass, whatever it is.
    Refuse(Reason),
}

/// What plugins work out about one pod before they look at nodes, and what they look it up in.
#[derive(Clone)]
pub struct Cycle<'a> {
    /// The nodes and what runs on them.
    pub snapshot: &'a Snapshot,
    /// What else decisions depend on.
    pub cluster: &'a Cluster,
    /// Of PodTopologySpread.
    pub spread: pod_topology_spread::State,
    /// Of InterPodAffinity.
    pub affinity: inter_pod_affinity::State,
    /// Of VolumeBinding.
    pub volumes: volume_binding::State,
}

impl<'a> Cycle<'a> {
    /// Nothing is worked out yet.
    pub fn new(snapshot: &'a Snapshot, cluster: &'a Cluster) -> Self {
        Self {
            snapshot,
            cluster,
            spread: Default::default(),
            affinity: Default::default(),
            volumes: Default::default(),
        }
    }
}

/// Refuses nodes.
pub trait Filter: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// Looks at the pod and the cluster as a whole, and keeps what it needs in the cycle.
    fn pre_filter(&self, _pod: &PodInfo, _cycle: &mut Cycle<'_>) -> PreFilter {
        PreFilter::All
    }

    /// Whether the pod can run on the node.
    fn filter(&self, pod: &PodInfo, node: &NodeState, cycle: &Cycle<'_>) -> Result<(), Refusal>;

    /// What if this pod were on the node, too? For preemption, after `pre_filter`.
    fn add_pod(&self, _pod: &PodInfo, _other: &PodInfo, _node: &NodeState, _cycle: &mut Cycle<'_>) {}

    /// What if this pod were not on the node? For preemption, after `pre_filter`.
    fn remove_pod(&self, _pod: &PodInfo, _other: &PodInfo, _node: &NodeState, _cycle: &mut Cycle<'_>) {}

    /// The events, as bits of [`Event::bit`], that can change its mind at all.
    fn events(&self) -> u16;

    /// Whether a pod that this plugin refused may be schedulable after the event (KEP-4247).
    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> bool;
}

/// Prefers nodes.
pub trait Score: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// Looks at the pod and the nodes that are left, by their places; false when it has no opinion.
    fn pre_score(&self, _pod: &PodInfo, _feasible: &[usize], _cycle: &mut Cycle<'_>) -> bool {
        true
    }

    /// Any number; after `normalize` from 0 to [`MAX_SCORE`].
    fn score(&self, pod: &PodInfo, node: &NodeState, cycle: &Cycle<'_>) -> i64;

    /// Brings the scores of all nodes into range.
    fn normalize(&self, _scores: &mut [i64], _cycle: &Cycle<'_>) {}
}

/// Something that may make a pod schedulable.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A node came.
    NodeAdded(&'a NodeState),
    /// A node changed in what decisions depend on.
    NodeUpdated {
        /// Before.
        old: &'a NodeState,
        /// Now.
        new: &'a NodeState,
    },
    /// A node is gone.
    NodeRemoved(&'a NodeState),
    /// A pod left its node, or asks for less, or bears other labels: this is what was.
    PodLeft {
        /// What is given back.
        pod: &'a PodInfo,
        /// Where; `None` when the node is gone.
        node: Option<&'a NodeState>,
    },
    /// A pod is on a node, or bears other labels there: this is what is.
    PodPlaced(&'a PodInfo),
    /// A volume, a claim, a class, or what a node can attach changed.
    Storage {
        /// The namespace of the claim that changed; empty for everything else.
        namespace: &'a str,
    },
    /// A namespace has other labels.
    Namespace,
}

/// A node came, changed or went.
pub const NODE_ADDED: u16 = 1;
/// See [`NODE_ADDED`].
pub const NODE_UPDATED: u16 = 2;
/// See [`NODE_ADDED`].
pub const NODE_REMOVED: u16 = 4;
/// A pod left a node.
pub const POD_LEFT: u16 = 8;
/// A pod is on a node.
pub const POD_PLACED: u16 = 16;
/// Something about volumes changed.
pub const STORAGE: u16 = 32;
/// A namespace changed.
pub const NAMESPACE: u16 = 64;
/// A node came or changed.
pub const NODES: u16 = NODE_ADDED | NODE_UPDATED;

impl<'a> Event<'a> {
    /// Its bit in the set of a plugin's events.
    pub fn bit(&self) -> u16 {
        match self {
            Self::NodeAdded(_) => NODE_ADDED,
            Self::NodeUpdated { .. } => NODE_UPDATED,
            Self::NodeRemoved(_) => NODE_REMOVED,
            Self::PodLeft { .. } => POD_LEFT,
            Self::PodPlaced(_) => POD_PLACED,
            Self::Storage { .. } => STORAGE,
            Self::Namespace => NAMESPACE,
        }
    }

    /// The node as it is now, for events of nodes.
    pub fn node(&self) -> Option<&'a NodeState> {
        match self {
            Self::NodeAdded(node) | Self::NodeUpdated { new: node, .. } => Some(node),
            _ => None,
        }
    }

    /// Whether a plugin that looks at the node alone now lets it pass, and did not before.
    pub fn opens(&self, passes: impl Fn(&NodeState) -> bool) -> bool {
        match self {
            Self::NodeAdded(node) => passes(node),
            Self::NodeUpdated { old, new } => !passes(old) && passes(new),
            _ => false,
        }
    }
}

/// Scales scores so that the greatest becomes [`MAX_SCORE`]; `reverse` prefers the smallest.
pub fn normalize_to_max(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}
