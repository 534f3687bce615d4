//! NodeResourcesFit: refuses nodes that have not enough left, and scores the others by what would be
//! left: the most, the least, or by a shape.

use std::sync::Arc;

use crate::framework::{Cycle, Event, Filter, MAX_SCORE, NODES, POD_LEFT, Reason, Refusal, Score};
use crate::pod::PodInfo;
use crate::resources::Resources;
use crate::snapshot::NodeState;

/// A resource that counts, and how much.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// Which.
    pub resource: Resource,
    /// Its weight among the others.
    pub weight: i64,
}

/// A resource by name, told apart once.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// `cpu`.
    Cpu,
    /// `memory`.
    Memory,
    /// `ephemeral-storage`.
    Ephemeral,
    /// Any other.
    Extended(Arc<str>),
}

impl Resource {
    /// By its name in the API.
    pub fn named(name: &str) -> Self {
        match name {
            "cpu" => Self::Cpu,
            "memory" => Self::Memory,
            "ephemeral-storage" => Self::Ephemeral,
            other => Self::Extended(other.into()),
        }
    }

    /// How much there is.
    pub fn of(&self, resources: &Resources) -> i64 {
        match self {
            Self::Cpu => resources.cpu,
            Self::Memory => resources.memory,
            Self::Ephemeral => resources.ephemeral,
            Self::Extended(name) => resources.extended_of(name),
        }
    }
}

/// How nodes are scored (`scoringStrategy.type`).
#[derive(Clone, Debug, PartialEq)]
pub enum Strategy {
    /// The most that would be left is best.
    LeastAllocated,
    /// The least that would be left is best.
    MostAllocated,
    /// By points of (utilisation in hundredths, score in hundredths), joined by lines.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct NodeResourcesFit {
    /// How nodes are scored.
    pub strategy: Strategy,
    /// By what they are scored.
    pub resources: Vec<Weighted>,
    /// Extended resources that do not count when nodes are refused.
    pub ignored: Vec<String>,
    /// Prefixes before the slash of such resources.
    pub ignored_groups: Vec<String>,
}

/// CPU and memory, alike.
pub fn cpu_and_memory() -> Vec<Weighted> {
    [Resource::Cpu, Resource::Memory].map(|resource| Weighted { resource, weight: 1 }).into()
}

impl Default for NodeResourcesFit {
    fn default() -> Self {
        Self {
            strategy: Strategy::LeastAllocated,
            resources: cpu_and_memory(),
            ignored: Vec::new(),
            ignored_groups: Vec::new(),
        }
    }
}

impl NodeResourcesFit {
    /// What is missing, as bits in the order of [`Reason::Insufficient`], and whether the node would have
    /// it if it were empty.
    fn missing(&self, asked: &Resources, taken: &Resources, there: &Resources) -> (u32, bool) {
        let (mut bits, mut ever) = (0, true);
        let mut check = |bit: u32, asked: i64, taken: i64, there: i64| {
            if asked > 0 && asked > there.saturating_sub(taken) {
                bits |= 1 << bit.min(31);
                ever &= asked <= there;
            }
        };
        check(0, asked.pods, taken.pods, there.pods);
        check(1, asked.cpu, taken.cpu, there.cpu);
        check(2, asked.memory, taken.memory, there.memory);
        check(3, asked.ephemeral, taken.ephemeral, there.ephemeral);
        for (bit, (name, asked)) in (4u32..).zip(asked.extended()) {
            if !self.ignores(name) {
                check(bit, asked, taken.extended_of(name), there.extended_of(name));
            }
        }
        (bits, ever)
    }

    fn ignores(&self, name: &str) -> bool {
        let group = || name.split_once('/').map(|(group, _)| group);
        self.ignored.iter().any(|n| n == name) || self.ignored_groups.iter().any(|g| Some(&**g) == group())
    }

    fn passes(&self, pod: &PodInfo, node: &NodeState) -> bool {
        self.missing(&pod.request.stated, &node.requested, &node.allocatable).0 == 0
    }
}

impl Filter for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeState, _cycle: &Cycle<'_>) -> Result<(), Refusal> {
        match self.missing(&pod.request.stated, &node.requested, &node.allocatable) {
            (0, _) => Ok(()),
            (bits, ever) => Err(Refusal { reason: Reason::Insufficient(bits), resolvable: ever }),
        }
    }

    fn events(&self) -> u16 {
        NODES | POD_LEFT
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            // Where it left, there must be room now; what it left alone may not be enough.
            Event::PodLeft { node, .. } => node.is_some_and(|node| self.passes(pod, node)),
            _ => event.opens(|node| self.passes(pod, node)),
        }
    }
}

impl Score for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn score(&self, pod: &PodInfo, node: &NodeState, _cycle: &Cycle<'_>) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for Weighted { resource, weight } in &self.resources {
            let there = resource.of(&node.allocatable);
            let asked = match resource {
                Resource::Cpu => pod.request.scored_cpu,
                Resource::Memory => pod.request.scored_memory,
                other => other.of(&pod.request.stated),
            };
            let taken = match resource {
                Resource::Cpu => node.scored_cpu,
                Resource::Memory => node.scored_memory,
                other => other.of(&node.requested),
            };
            // A resource that the pod does not ask for tells nothing about where it should go.
            if there <= 0 || matches!(resource, Resource::Extended(_)) && asked == 0 {
                continue;
            }
            let score = self.strategy.score(taken.saturating_add(asked), there);
            if score > 0 || !matches!(self.strategy, Strategy::RequestedToCapacityRatio(_)) {
                sum += score * weight;
                weights += weight;
            }
        }
        match (weights, &self.strategy) {
            (0, _) => 0,
            (_, Strategy::RequestedToCapacityRatio(_)) => (sum as f64 / weights as f64).round() as i64,
            _ => sum / weights,
        }
    }
}

impl Strategy {
    fn score(&self, taken: i64, there: i64) -> i64 {
        match self {
            Self::LeastAllocated => hundredths(there - taken.min(there), there),
            Self::MostAllocated => hundredths(taken.min(there), there),
            Self::RequestedToCapacityRatio(shape) => {
                on_lines(shape, if taken > there { 100 } else { hundredths(taken, there) })
            }
        }
    }
}

/// A share of the whole. Memory in bytes times a hundred can pass 63 bits.
fn hundredths(part: i64, whole: i64) -> i64 {
    match part.checked_mul(MAX_SCORE) {
        Some(product) => product / whole,
        None => part / (whole / MAX_SCORE).max(1),
    }
}

fn on_lines(shape: &[(i64, i64)], at: i64) -> i64 {
    let Some(first) = shape.first() else { return 0 };
    let mut before = first;
    for point in shape {
        if at <= point.0 {
            if point.0 == before.0 {
                return point.1;
            }
            return before.1 + (point.1 - before.1) * (at - before.0) / (point.0 - before.0);
        }
        before = point;
    }
    before.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Cluster;
    use crate::fixtures::{PodFixture, node, pod};
    use crate::snapshot::Snapshot;

    fn full() -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(&node("n").allocatable("pods", "2").allocatable("example.com/gpu", "2").build());
        let there = pod("there").cpu("3").request("memory", "7Gi").request("example.com/gpu", "1");
        snapshot.set_pod(there.info(), "n", false);
        snapshot
    }

    #[track_caller]
    fn check(pod: PodFixture, refused: &[&str]) {
        let snapshot = full();
        let cluster = Cluster::default();
        let (pod, cycle) = (pod.info(), Cycle::new(&snapshot, &cluster));
        let refusal = NodeResourcesFit::default().filter(&pod, snapshot.node("n").unwrap(), &cycle).err();
        let seen = refusal.as_ref().map(|r| r.reason.texts(&pod)).unwrap_or_default();
        assert_eq!(seen, refused);
    }

    #[test]
    fn what_is_missing_is_named() {
        check(pod("p"), &[]);
        check(pod("p").cpu("1").request("memory", "1Gi"), &[]);
        check(pod("p").cpu("1001m"), &["Insufficient cpu"]);
        check(pod("p").cpu("2").request("memory", "2Gi"), &["Insufficient cpu", "Insufficient memory"]);
        check(pod("p").request("ephemeral-storage", "11Gi"), &["Insufficient ephemeral-storage"]);
        check(pod("p").request("example.com/gpu", "1"), &[]);
        check(pod("p").request("example.com/gpu", "2"), &["Insufficient example.com/gpu"]);
        check(pod("p").request("example.com/tpu", "1"), &["Insufficient example.com/tpu"]);
    }

    #[test]
    fn a_node_has_a_limit_of_pods() {
        let mut snapshot = full();
        snapshot.set_pod(pod("second").info(), "n", false);
        let cluster = Cluster::default();
        let cycle = Cycle::new(&snapshot, &cluster);
        let refusal =
            NodeResourcesFit::default().filter(&pod("p").info(), snapshot.node("n").unwrap(), &cycle);
        assert_eq!(refusal.unwrap_err().reason.texts(&pod("p").info()), ["Too many pods"]);
    }

    #[test]
    fn what_even_an_empty_node_has_not_is_missing_for_good() {
        let (snapshot, cluster) = (full(), Cluster::default());
        let cycle = Cycle::new(&snapshot, &cluster);
        let resolvable = |pod: PodFixture| {
            let n = snapshot.node("n").unwrap();
            NodeResourcesFit::default().filter(&pod.info(), n, &cycle).unwrap_err().resolvable
        };
        assert!(resolvable(pod("p").cpu("4")));
        assert!(!resolvable(pod("p").cpu("5")));
        assert!(!resolvable(pod("p").cpu("4").request("memory", "9Gi")));
    }

    #[test]
    fn the_emptiest_node_is_preferred() {
        let empty = node("e").state();
        let (snapshot, cluster) = (full(), Cluster::default());
        let cycle = Cycle::new(&snapshot, &cluster);
        let score = |pod: &PodInfo, node: &NodeState| NodeResourcesFit::default().score(pod, node, &cycle);
        let pod = pod("p").cpu("1").request("memory", "1Gi").info();
        assert_eq!(score(&pod, &empty), (75 + 87) / 2);
        assert_eq!(score(&pod, snapshot.node("n").unwrap()), 0);
        assert_eq!(score(&pod, &node("x").cpu("0").state()), 87);
    }

    #[test]
    fn room_wakes_the_pod_and_crumbs_do_not() {
        let snapshot = full();
        let left = pod("left").cpu("100m").info();
        let event = Event::PodLeft { pod: &left, node: snapshot.node("n") };
        assert!(NodeResourcesFit::default().hint(&pod("p").cpu("1").info(), &event));
        assert!(!NodeResourcesFit::default().hint(&pod("p").cpu("2").info(), &event));
        let (small, big) = (node("n").cpu("1").state(), node("n").cpu("8").state());
        let event = Event::NodeUpdated { old: &small, new: &big };
        assert!(NodeResourcesFit::default().hint(&pod("p").cpu("2").info(), &event));
        assert!(!NodeResourcesFit::default().hint(&pod("p").cpu("9").info(), &event));
    }

    #[test]
    fn strategies_are_as_documented() {
        let (snapshot, cluster) = (Snapshot::default(), Cluster::default());
        let cycle = Cycle::new(&snapshot, &cluster);
        let check = |strategy: Strategy, resources: &[(&str, i64)], score: i64| {
            let weighted =
                |(name, weight): &(&str, i64)| Weighted { resource: Resource::named(name), weight: *weight };
            let resources = resources.iter().map(weighted).collect();
            let plugin = NodeResourcesFit { strategy, resources, ..NodeResourcesFit::default() };
            let pod = pod("p").cpu("1").request("memory", "6Gi").request("example.com/gpu", "2").info();
            let node = node("n").allocatable("example.com/gpu", "4").state();
            assert_eq!(plugin.score(&pod, &node, &cycle), score, "{plugin:?}");
        };
        check(Strategy::LeastAllocated, &[("cpu", 1), ("memory", 1)], (75 + 25) / 2);
        check(Strategy::LeastAllocated, &[("cpu", 3), ("memory", 1)], (3 * 75 + 25) / 4);
        check(Strategy::MostAllocated, &[("cpu", 1), ("memory", 1)], (25 + 75) / 2);
        check(Strategy::MostAllocated, &[("example.com/gpu", 1)], 50);
        check(Strategy::MostAllocated, &[("example.com/tpu", 1), ("cpu", 1)], 25);
        let pack = || Strategy::RequestedToCapacityRatio(vec![(0, 0), (100, 100)]);
        check(pack(), &[("cpu", 1), ("memory", 3)], 63);
        let spread = || Strategy::RequestedToCapacityRatio(vec![(0, 100), (50, 20), (100, 0)]);
        check(spread(), &[("cpu", 1)], 60);
        check(spread(), &[("memory", 1)], 10);
    }

    #[test]
    fn ignored_resources_do_not_count() {
        let plugin = NodeResourcesFit {
            ignored: vec!["example.com/foo".into()],
            ignored_groups: vec!["other.com".into()],
            ..NodeResourcesFit::default()
        };
        let asks = |name: &str| plugin.passes(&pod("p").request(name, "1").info(), &node("n").state());
        assert!(asks("example.com/foo") && asks("other.com/any") && !asks("example.com/bar"));
    }
}
