//! NodeUnschedulable: refuses cordoned nodes, unless the pod tolerates the taint that stands for it.

use super::taint_toleration::tolerates;
use crate::framework::{Cycle, Event, Filter, NODES, Refusal};
use crate::pod::PodInfo;
use crate::snapshot::NodeState;

const TAINT: &str = "node.kubernetes.io/unschedulable";

/// See the module.
pub struct NodeUnschedulable;

fn passes(pod: &PodInfo, node: &NodeState) -> bool {
    !node.unschedulable || tolerates(pod.tolerations(), TAINT, "", "NoSchedule")
}

impl Filter for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeState, _cycle: &Cycle<'_>) -> Result<(), Refusal> {
        if passes(pod, node) {
            return Ok(());
        }
        Err(Refusal::for_good("node(s) were unschedulable"))
    }

    fn events(&self) -> u16 {
        NODES
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        event.opens(|node| passes(pod, node))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::{node, pod};

    #[track_caller]
    fn check(unschedulable: bool, tolerations: Value, fits: bool) {
        let node = node("n").spec(json!({"unschedulable": unschedulable})).state();
        let pod = pod("p").set("tolerations", tolerations).info();
        assert_eq!(passes(&pod, &node), fits);
    }

    #[test]
    fn cordoned_nodes_are_refused_unless_tolerated() {
        check(false, json!([]), true);
        check(true, json!([]), false);
        check(true, json!([{"key": TAINT, "operator": "Exists", "effect": "NoSchedule"}]), true);
        check(true, json!([{"operator": "Exists"}]), true);
        check(true, json!([{"key": TAINT, "operator": "Exists", "effect": "NoExecute"}]), false);
    }

    #[test]
    fn uncordoning_wakes_the_pod() {
        let (cordoned, open) = (node("n").spec(json!({"unschedulable": true})).state(), node("n").state());
        let pod = pod("p").info();
        assert!(NodeUnschedulable.hint(&pod, &Event::NodeUpdated { old: &cordoned, new: &open }));
        assert!(!NodeUnschedulable.hint(&pod, &Event::NodeUpdated { old: &open, new: &cordoned }));
        assert!(!NodeUnschedulable.hint(&pod, &Event::NodeAdded(&cordoned)));
    }
}
