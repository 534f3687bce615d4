//! NodeResourcesBalancedAllocation: prefers nodes on which resources are taken to the same degree.

use super::node_resources_fit::{Resource, cpu_and_memory};
use crate::framework::{Cycle, MAX_SCORE, Score};
use crate::pod::PodInfo;
use crate::snapshot::NodeState;

/// See the module.
#[derive(Clone, Debug)]
pub struct NodeResourcesBalancedAllocation {
    /// The resources that are compared.
    pub resources: Vec<Resource>,
}

impl Default for NodeResourcesBalancedAllocation {
    fn default() -> Self {
        Self { resources: cpu_and_memory().into_iter().map(|weighted| weighted.resource).collect() }
    }
}

impl Score for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn pre_score(&self, pod: &PodInfo, _feasible: &[usize], _cycle: &mut Cycle<'_>) -> bool {
        self.resources.iter().any(|resource| resource.of(&pod.request.stated) > 0)
    }

    fn score(&self, pod: &PodInfo, node: &NodeState, _cycle: &Cycle<'_>) -> i64 {
        let share = |resource: &Resource| {
            let (asked, there) = (resource.of(&pod.request.stated), resource.of(&node.allocatable));
            let told = there > 0 && !(matches!(resource, Resource::Extended(_)) && asked == 0);
            told.then(|| ((resource.of(&node.requested) + asked) as f64 / there as f64).min(1.0))
        };
        let shares = || self.resources.iter().filter_map(share);
        let n = shares().count();
        let deviation = match n {
            0 | 1 => 0.0,
            n => {
                let mean = shares().sum::<f64>() / n as f64;
                (shares().map(|share| (share - mean).powi(2)).sum::<f64>() / n as f64).sqrt()
            }
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
        let (snapshot, cluster) = Default::default();
        let cycle = Cycle::new(&snapshot, &cluster);
        let pod = pod("p").cpu(cpu).request("memory", memory).info();
        let plugin = NodeResourcesBalancedAllocation::default();
        assert_eq!(plugin.score(&pod, &node("n").state(), &cycle), score);
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
        let (snapshot, cluster) = Default::default();
        let mut cycle = Cycle::new(&snapshot, &cluster);
        let plugin = NodeResourcesBalancedAllocation::default();
        assert!(!plugin.pre_score(&pod("p").info(), &[], &mut cycle));
        assert!(plugin.pre_score(&pod("p").cpu("1").info(), &[], &mut cycle));
    }
}
