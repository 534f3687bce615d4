//! NodeResourcesBalancedAllocation: prefers nodes on which CPU and memory are taken to the same degree.

use crate::framework::{MAX_SCORE, Score};
use crate::pod::PodInfo;
use crate::snapshot::{NodeState, Snapshot};

/// See the module.
pub struct NodeResourcesBalancedAllocation;

impl Score for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn skip(&self, pod: &PodInfo, _snapshot: &Snapshot) -> bool {
        pod.request.is_best_effort()
    }

    fn score(&self, pod: &PodInfo, node: &NodeState, _snapshot: &Snapshot) -> i64 {
        let (asked, taken, there) = (&pod.request.stated, &node.requested, &node.allocatable);
        let share = |taken: i64, there: i64| (there > 0).then(|| (taken as f64 / there as f64).min(1.0));
        let cpu = share(taken.cpu + asked.cpu, there.cpu);
        let memory = share(taken.memory + asked.memory, there.memory);
        // Of two numbers, half their difference is the standard deviation.
        let deviation = match (cpu, memory) {
            (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
            _ => 0.0,
        };
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{node, pod};

    #[track_caller]
    fn check(cpu: &str, memory: &str, score: i64) {
        let pod = pod("p").cpu(cpu).request("memory", memory).info();
        let seen = NodeResourcesBalancedAllocation.score(&pod, &node("n").state(), &Snapshot::default());
        assert_eq!(seen, score);
    }

    #[test]
    fn equal_shares_are_best() {
        check("2", "4Gi", 100);
        check("4", "0", 50);
        check("1", "4Gi", 87);
        check("9", "8Gi", 100);
    }

    #[test]
    fn pods_that_ask_for_nothing_do_not_unbalance() {
        assert!(NodeResourcesBalancedAllocation.skip(&pod("p").info(), &Snapshot::default()));
        assert!(!NodeResourcesBalancedAllocation.skip(&pod("p").cpu("1").info(), &Snapshot::default()));
    }
}
