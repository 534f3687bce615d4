//! How fast pods are evicted from lost nodes, zone by zone.
//!
//! Many lost nodes at once rather mean that the network is, and to move all of their pods would do
//! harm. So nodes of a zone are evicted one after the other at a rate, slower or not at all where
//! much of the zone is lost, and nobody is evicted while every node of the cluster is lost.

use std::collections::{BTreeMap, HashMap};

use api::meta::MetaExt;
use api::openapi::api::core::v1::Node;
use jiff::Timestamp;

use crate::config::NodeLifecycleConfig;

/// How a zone fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneState {
    /// Nearly all nodes are ready.
    Normal,
    /// Many are not.
    PartialDisruption,
    /// None is.
    FullDisruption,
}

/// The zone of a node: region and zone together.
pub fn zone_of(node: &Node) -> String {
    let label = |key: &str| node.label(key).unwrap_or_default();
    let (region, zone) = (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"));
    if region.is_empty() && zone.is_empty() { String::new() } else { format!("{region}:\u{0}:{zone}") }
}

/// The state and the number of nodes of every zone, from the nodes and whether each is lost.
pub fn states<'a>(
    nodes: impl IntoIterator<Item = (&'a Node, bool)>,
    threshold: f64,
) -> BTreeMap<String, (ZoneState, usize)> {
    let mut counts = BTreeMap::<String, (usize, usize)>::new();
    for (node, is_lost) in nodes {
        let (ready, lost) = counts.entry(zone_of(node)).or_default();
        *if is_lost { lost } else { ready } += 1;
    }
    let state = |(ready, lost): (usize, usize)| match (ready, lost) {
        (0, 1..) => ZoneState::FullDisruption,
        _ if lost > 2 && lost as f64 / (ready + lost) as f64 >= threshold => ZoneState::PartialDisruption,
        _ => ZoneState::Normal,
    };
    counts.into_iter().map(|(zone, (ready, lost))| (zone, (state((ready, lost)), ready + lost))).collect()
}

/// Whether every zone is fully lost.
pub fn all_lost(states: &BTreeMap<String, (ZoneState, usize)>) -> bool {
    !states.is_empty() && states.values().all(|(state, _)| *state == ZoneState::FullDisruption)
}

/// Nodes a second that may be evicted in a zone.
pub fn rate(state: ZoneState, size: usize, config: &NodeLifecycleConfig) -> f64 {
    match state {
        ZoneState::Normal | ZoneState::FullDisruption => config.eviction_rate,
        ZoneState::PartialDisruption if size > config.large_cluster_size_threshold => {
            config.secondary_eviction_rate
        }
        ZoneState::PartialDisruption => 0.0,
    }
}

/// A token bucket of one per zone.
#[derive(Debug, Default)]
pub struct Limiter {
    /// When each zone last let a node go.
    last: HashMap<String, Timestamp>,
}

impl Limiter {
    /// Whether a node of the zone may go now; if so, that is noted.
    pub fn admit(&mut self, zone: &str, rate: f64, now: Timestamp) -> bool {
        if rate <= 0.0 {
            return false;
        }
        let waited = self.last.get(zone).map(|last| now.duration_since(*last).as_secs_f64());
        let may = waited.is_none_or(|seconds| seconds * rate >= 1.0);
        if may {
            self.last.insert(zone.to_owned(), now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::nodelifecycle::health::ready_status;
    use crate::fixtures::{at, node};

    fn with_loss(node: &Node) -> (&Node, bool) {
        (node, ready_status(node) != "True")
    }

    #[track_caller]
    fn check(nodes: &[(&str, usize)], expected: ZoneState) {
        let make = |(ready, count): &(&str, usize)| vec![node("n", ready, 0).build(); *count];
        let nodes: Vec<_> = nodes.iter().flat_map(make).collect();
        let states = states(nodes.iter().map(with_loss), 0.55);
        assert_eq!(states[""], (expected, nodes.len()));
        assert_eq!(all_lost(&states), expected == ZoneState::FullDisruption);
    }

    #[test]
    fn a_zone_is_lost_with_its_last_node() {
        check(&[("True", 3)], ZoneState::Normal);
        check(&[("True", 2), ("Unknown", 1)], ZoneState::Normal);
        check(&[("True", 1), ("Unknown", 2)], ZoneState::Normal);
        check(&[("True", 2), ("Unknown", 2), ("False", 1)], ZoneState::PartialDisruption);
        check(&[("Unknown", 1)], ZoneState::FullDisruption);
    }

    #[test]
    fn one_lost_zone_does_not_stop_the_others() {
        let nodes = [
            node("a", "Unknown", 0).labels(&[("topology.kubernetes.io/zone", "a")]).build(),
            node("b", "True", 0).labels(&[("topology.kubernetes.io/zone", "b")]).build(),
        ];
        let states = states(nodes.iter().map(with_loss), 0.55);
        assert_eq!(states.len(), 2);
        assert!(!all_lost(&states));
    }

    #[test]
    fn nodes_go_one_by_one() {
        let mut limiter = Limiter::default();
        assert!(limiter.admit("z", 0.1, at(0)));
        assert!(!limiter.admit("z", 0.1, at(9)));
        assert!(limiter.admit("other", 0.1, at(9)));
        assert!(limiter.admit("z", 0.1, at(10)));
        assert!(!limiter.admit("z", 0.0, at(1000)));
    }
}
