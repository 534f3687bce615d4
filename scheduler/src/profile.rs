//! Which plugins decide about a pod, and how much each counts: one profile for each scheduler name.

use crate::framework::{Filter, Score};
use crate::plugins::default_preemption::DefaultPreemption;
use crate::plugins::image_locality::ImageLocality;
use crate::plugins::inter_pod_affinity::InterPodAffinity;
use crate::plugins::node_affinity::NodeAffinity;
use crate::plugins::node_name::NodeName;
use crate::plugins::node_ports::NodePorts;
use crate::plugins::node_resources_balanced_allocation::NodeResourcesBalancedAllocation;
use crate::plugins::node_resources_fit::NodeResourcesFit;
use crate::plugins::node_unschedulable::NodeUnschedulable;
use crate::plugins::node_volume_limits::NodeVolumeLimits;
use crate::plugins::pod_topology_spread::PodTopologySpread;
use crate::plugins::taint_toleration::TaintToleration;
use crate::plugins::volume_binding::VolumeBinding;
use crate::pod::DEFAULT_SCHEDULER;

/// The most plugins of one sort that a profile has.
pub const MOST: usize = 8;

/// A plugin that scores, and how much it counts.
pub struct Weighted {
    /// It.
    pub plugin: Box<dyn Score>,
    /// Its scores are multiplied by this.
    pub weight: i64,
}

/// See the module.
pub struct Profile {
    /// Pods ask for it by this name (`schedulerName`).
    pub name: String,
    /// Those that refuse nodes, in this order; the first that does ends the matter.
    pub filters: Vec<Box<dyn Filter>>,
    /// Those that prefer nodes; at most [`MOST`].
    pub scores: Vec<Weighted>,
    /// Whether pods with scheduling gates wait.
    pub gates: bool,
    /// What is tried when no node was found.
    pub preemption: Option<DefaultPreemption>,
    /// `percentageOfNodesToScore`; 0 adapts to the number of nodes.
    pub percentage: usize,
}

/// What plugins are told.
#[derive(Clone, Debug, Default)]
pub struct Args {
    /// Of NodeResourcesFit.
    pub fit: NodeResourcesFit,
    /// Of NodeResourcesBalancedAllocation.
    pub balanced: NodeResourcesBalancedAllocation,
    /// Of PodTopologySpread.
    pub spread: PodTopologySpread,
    /// Of InterPodAffinity.
    pub affinity: InterPodAffinity,
    /// Of NodeAffinity.
    pub node_affinity: NodeAffinity,
    /// Of DefaultPreemption.
    pub preemption: DefaultPreemption,
}

/// The filters of upstream's default profile, in its order.
pub const FILTERS: &[&str] = &[
    "NodeUnschedulable",
    "NodeName",
    "TaintToleration",
    "NodeAffinity",
    "NodePorts",
    "NodeResourcesFit",
    "NodeVolumeLimits",
    "VolumeBinding",
    "PodTopologySpread",
    "InterPodAffinity",
];

/// The scores of upstream's default profile, with their weights.
pub const SCORES: &[(&str, i64)] = &[
    ("TaintToleration", 3),
    ("NodeAffinity", 2),
    ("PodTopologySpread", 2),
    ("InterPodAffinity", 2),
    ("NodeResourcesFit", 1),
    ("NodeResourcesBalancedAllocation", 1),
    ("ImageLocality", 1),
];

/// A filter by its name.
pub fn filter(name: &str, args: &Args) -> Option<Box<dyn Filter>> {
    Some(match name {
        "NodeUnschedulable" => Box::new(NodeUnschedulable),
        "NodeName" => Box::new(NodeName),
        "TaintToleration" => Box::new(TaintToleration),
        "NodeAffinity" => Box::new(args.node_affinity.clone()),
        "NodePorts" => Box::new(NodePorts),
        "NodeResourcesFit" => Box::new(args.fit.clone()),
        "NodeVolumeLimits" => Box::new(NodeVolumeLimits),
        "VolumeBinding" => Box::new(VolumeBinding),
        "PodTopologySpread" => Box::new(args.spread.clone().with_added_affinity(args.node_affinity.clone())),
        "InterPodAffinity" => Box::new(args.affinity.clone()),
        _ => return None,
    })
}

/// A score by its name.
pub fn score(name: &str, args: &Args) -> Option<Box<dyn Score>> {
    Some(match name {
        "TaintToleration" => Box::new(TaintToleration),
        "NodeAffinity" => Box::new(args.node_affinity.clone()),
        "PodTopologySpread" => Box::new(args.spread.clone().with_added_affinity(args.node_affinity.clone())),
        "InterPodAffinity" => Box::new(args.affinity.clone()),
        "NodeResourcesFit" => Box::new(args.fit.clone()),
        "NodeResourcesBalancedAllocation" => Box::new(args.balanced.clone()),
        "ImageLocality" => Box::new(ImageLocality),
        _ => return None,
    })
}

impl Default for Profile {
    /// Upstream's default profile.
    fn default() -> Self {
        let args = Args::default();
        let weighted =
            |(name, weight): &(&str, i64)| Some(Weighted { plugin: score(name, &args)?, weight: *weight });
        Self {
            name: DEFAULT_SCHEDULER.to_owned(),
            filters: FILTERS.iter().filter_map(|name| filter(name, &args)).collect(),
            scores: SCORES.iter().filter_map(weighted).collect(),
            gates: true,
            preemption: Some(args.preemption),
            percentage: 0,
        }
    }
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let filters: Vec<_> = self.filters.iter().map(|filter| filter.name()).collect();
        let scores: Vec<_> = self.scores.iter().map(|score| (score.plugin.name(), score.weight)).collect();
        let mut debug = f.debug_struct("Profile");
        debug.field("name", &self.name).field("filters", &filters).field("scores", &scores);
        debug.field("percentage", &self.percentage).finish_non_exhaustive()
    }
}
