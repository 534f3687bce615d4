//! NodeResourcesFit: refuses nodes that have not enough left, and prefers those with the most left
//! (the LeastAllocated strategy).

use std::sync::Arc;

use crate::framework::{Event, Filter, MAX_SCORE, Reason, Score, Status};
use crate::pod::PodInfo;
use crate::resources::Resources;
use crate::snapshot::{NodeState, Snapshot};

/// See the module.
pub struct NodeResourcesFit;

/// What is missing for a request, in upstream's words and order.
fn missing(asked: &Resources, taken: &Resources, there: &Resources) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut check = |asked: i64, taken: i64, there: i64, reason: &'static str| {
        if asked > 0 && asked > there.saturating_sub(taken) {
            reasons.push(Reason::Static(reason));
        }
    };
    check(asked.pods, taken.pods, there.pods, "Too many pods");
    check(asked.cpu, taken.cpu, there.cpu, "Insufficient cpu");
    check(asked.memory, taken.memory, there.memory, "Insufficient memory");
    check(asked.ephemeral, taken.ephemeral, there.ephemeral, "Insufficient ephemeral-storage");
    for (name, asked) in &asked.extended {
        let of = |resources: &Resources| resources.extended.get(name).copied().unwrap_or(0);
        if *asked > 0 && *asked > of(there).saturating_sub(of(taken)) {
            reasons.push(Reason::Shared(Arc::from(format!("Insufficient {name}"))));
        }
    }
    reasons
}

impl Filter for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeState) -> Result<(), Status> {
        let mut reasons = missing(&pod.request.stated, &node.requested, &node.allocatable);
        match reasons.len() {
            0 => Ok(()),
            1 => Err(Status::Unschedulable(reasons.remove(0))),
            _ => Err(Status::UnschedulableFor(reasons)),
        }
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::NodeAdded(_) | Event::NodeUpdated { .. } => event.opens(self, pod),
            // Where it left, there must be room now; what it left alone may not be enough.
            Event::PodLeft { node, .. } => node.is_some_and(|node| self.filter(pod, node).is_ok()),
        }
    }
}

impl Score for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, node: &NodeState, _snapshot: &Snapshot) -> i64 {
        let cpu = (node.scored_cpu + pod.request.scored_cpu, node.allocatable.cpu);
        let memory = (node.scored_memory + pod.request.scored_memory, node.allocatable.memory);
        let known = [cpu, memory].into_iter().filter(|(_, there)| *there > 0);
        let (sum, count) =
            known.fold((0, 0), |(sum, count), (taken, there)| (sum + least(taken, there), count + 1));
        if count == 0 { 0 } else { sum / count }
    }
}

/// The share that is left, in hundredths.
fn least(taken: i64, there: i64) -> i64 {
    if taken > there {
        return 0;
    }
    // Memory in bytes times a hundred can pass 63 bits.
    let share = i128::from(there - taken) * i128::from(MAX_SCORE) / i128::from(there);
    i64::try_from(share).unwrap_or(MAX_SCORE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{PodFixture, node, pod};

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
        let status = NodeResourcesFit.filter(&pod.info(), snapshot.node("n").unwrap());
        let seen: Vec<_> =
            status.err().iter().flat_map(|s| s.reasons()).map(|r| r.as_str().to_owned()).collect();
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
        let status = NodeResourcesFit.filter(&pod("p").info(), snapshot.node("n").unwrap()).unwrap_err();
        assert_eq!(status.reasons()[0].as_str(), "Too many pods");
    }

    #[test]
    fn the_emptiest_node_is_preferred() {
        let empty = node("e").state();
        let snapshot = full();
        let pod = pod("p").cpu("1").request("memory", "1Gi").info();
        assert_eq!(NodeResourcesFit.score(&pod, &empty, &snapshot), (75 + 87) / 2);
        assert_eq!(NodeResourcesFit.score(&pod, snapshot.node("n").unwrap(), &snapshot), 0);
        assert_eq!(NodeResourcesFit.score(&pod, &node("x").cpu("0").state(), &snapshot), 87);
    }

    #[test]
    fn room_wakes_the_pod_and_crumbs_do_not() {
        let snapshot = full();
        let left = pod("left").cpu("100m").info();
        let event = Event::PodLeft { pod: &left, node: snapshot.node("n") };
        assert!(NodeResourcesFit.hint(&pod("p").cpu("1").info(), &event));
        assert!(!NodeResourcesFit.hint(&pod("p").cpu("2").info(), &event));
        let (small, big) = (node("n").cpu("1").state(), node("n").cpu("8").state());
        let event = Event::NodeUpdated { old: &small, new: &big };
        assert!(NodeResourcesFit.hint(&pod("p").cpu("2").info(), &event));
        assert!(!NodeResourcesFit.hint(&pod("p").cpu("9").info(), &event));
    }
}
