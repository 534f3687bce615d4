//! NodeName: a pod that names its node runs on no other.

use crate::framework::{Cycle, Event, Filter, NODES, PreFilter, Refusal};
use crate::pod::PodInfo;
use crate::snapshot::NodeState;

/// See the module.
pub struct NodeName;

fn wanted(pod: &PodInfo) -> Option<&str> {
    pod.pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|name| !name.is_empty())
}

fn passes(pod: &PodInfo, node: &NodeState) -> bool {
    wanted(pod).is_none_or(|name| *name == **node.name())
}

impl Filter for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn pre_filter(&self, pod: &PodInfo, _cycle: &mut Cycle<'_>) -> PreFilter {
        if wanted(pod).is_some() { PreFilter::All } else { PreFilter::Skip }
    }

    fn filter(&self, pod: &PodInfo, node: &NodeState, _cycle: &Cycle<'_>) -> Result<(), Refusal> {
        if passes(pod, node) {
            return Ok(());
        }
        Err(Refusal::for_good("node(s) didn't match the requested node name"))
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
    use super::*;
    use crate::fixtures::{node, pod};

    #[test]
    fn a_named_node_is_the_only_one() {
        let (a, b) = (node("a").state(), node("b").state());
        assert!(passes(&pod("p").on("a").info(), &a));
        assert!(!passes(&pod("p").on("a").info(), &b));
        assert!(passes(&pod("p").info(), &b));
        assert!(NodeName.hint(&pod("p").on("a").info(), &Event::NodeAdded(&a)));
        assert!(!NodeName.hint(&pod("p").on("a").info(), &Event::NodeAdded(&b)));
    }
}
