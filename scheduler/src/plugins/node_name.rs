//! NodeName: a pod that names its node runs on no other.

use crate::framework::{Event, Filter, PreFilter, Status};
use crate::pod::PodInfo;
use crate::snapshot::NodeState;

/// See the module.
pub struct NodeName;

fn wanted(pod: &PodInfo) -> Option<&str> {
    pod.pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|name| !name.is_empty())
}

impl Filter for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn pre_filter(&self, pod: &PodInfo) -> PreFilter {
        if wanted(pod).is_some() { PreFilter::All } else { PreFilter::Skip }
    }

    fn filter(&self, pod: &PodInfo, node: &NodeState) -> Result<(), Status> {
        match wanted(pod) {
            Some(name) if *name != *node.name => {
                Err(Status::because("node(s) didn't match the requested node name"))
            }
            _ => Ok(()),
        }
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        event.opens(self, pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{node, pod};

    #[test]
    fn a_named_node_is_the_only_one() {
        let (a, b) = (node("a").state(), node("b").state());
        assert!(NodeName.filter(&pod("p").on("a").info(), &a).is_ok());
        assert!(NodeName.filter(&pod("p").on("a").info(), &b).is_err());
        assert!(NodeName.filter(&pod("p").info(), &b).is_ok());
        assert!(NodeName.hint(&pod("p").on("a").info(), &Event::NodeAdded(&a)));
        assert!(!NodeName.hint(&pod("p").on("a").info(), &Event::NodeAdded(&b)));
    }
}
