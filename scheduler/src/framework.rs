//! What a plugin is: it refuses nodes for a pod, scores those that are left, and says which events
//! may have changed its mind.

use std::sync::Arc;

use crate::pod::PodInfo;
use crate::snapshot::{NodeState, Snapshot};

/// The most that a plugin gives to a node.
pub const MAX_SCORE: i64 = 100;

/// Why a node is refused, as users read it.
#[derive(Clone, Debug)]
pub enum Reason {
    /// Always the same sentence.
    Static(&'static str),
    /// A sentence that was made when the node or the pod was read.
    Shared(Arc<str>),
}

impl Reason {
    /// The sentence.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
        }
    }
}

/// A node is refused. Usually for one reason, which then is not allocated for.
#[derive(Clone, Debug)]
pub enum Status {
    /// For one reason.
    Unschedulable(Reason),
    /// For several.
    UnschedulableFor(Vec<Reason>),
}

impl Status {
    /// Refused with a fixed sentence.
    pub const fn because(text: &'static str) -> Self {
        Self::Unschedulable(Reason::Static(text))
    }

    /// All reasons.
    pub fn reasons(&self) -> &[Reason] {
        match self {
            Self::Unschedulable(reason) => std::slice::from_ref(reason),
            Self::UnschedulableFor(reasons) => reasons,
        }
    }
}

/// What a plugin knows before it looks at a single node.
#[derive(Clone, Debug)]
pub enum PreFilter {
    /// Every node has to be looked at.
    All,
    /// Nothing is to be refused: the plugin is left out.
    Skip,
    /// Only these nodes can pass.
    Only(Vec<String>),
}

/// Refuses nodes.
pub trait Filter: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// Looks at the pod alone.
    fn pre_filter(&self, _pod: &PodInfo) -> PreFilter {
        PreFilter::All
    }

    /// Whether the pod can run on the node.
    fn filter(&self, pod: &PodInfo, node: &NodeState) -> Result<(), Status>;

    /// Whether a pod that this plugin refused may be schedulable after the event (KEP-4247).
    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> bool;
}

/// Prefers nodes.
pub trait Score: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// How much it counts.
    fn weight(&self) -> i64;

    /// Whether it has no opinion about the pod.
    fn skip(&self, _pod: &PodInfo, _snapshot: &Snapshot) -> bool {
        false
    }

    /// Any number; after `normalize` from 0 to [`MAX_SCORE`].
    fn score(&self, pod: &PodInfo, node: &NodeState, snapshot: &Snapshot) -> i64;

    /// Brings the scores of all nodes into range.
    fn normalize(&self, _scores: &mut [i64]) {}
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
    /// A pod left its node, or asks for less.
    PodLeft {
        /// What is given back.
        pod: &'a PodInfo,
        /// Where; `None` when the node is gone.
        node: Option<&'a NodeState>,
    },
}

impl<'a> Event<'a> {
    /// The node as it is now, for events of nodes.
    pub fn node(&self) -> Option<&'a NodeState> {
        match self {
            Self::NodeAdded(node) | Self::NodeUpdated { new: node, .. } => Some(node),
            Self::PodLeft { .. } => None,
        }
    }

    /// Whether a plugin that looks at the node alone now lets it pass, and did not before.
    pub fn opens(&self, filter: &dyn Filter, pod: &PodInfo) -> bool {
        match self {
            Self::NodeAdded(node) => filter.filter(pod, node).is_ok(),
            Self::NodeUpdated { old, new } => {
                filter.filter(pod, old).is_err() && filter.filter(pod, new).is_ok()
            }
            Self::PodLeft { .. } => false,
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
