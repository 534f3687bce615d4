//! ImageLocality: prefers nodes that have the pod's images, the more so the larger and commoner they are.

use crate::framework::{Cycle, MAX_SCORE, Score};
use crate::pod::PodInfo;
use crate::snapshot::NodeState;

const MIB: i64 = 1024 * 1024;
/// Less than this is soon pulled.
const LEAST: i64 = 23 * MIB;
/// More than this, per container, does not count for more.
const MOST: i64 = 1000 * MIB;

/// See the module.
pub struct ImageLocality;

/// An image's name with the tag that is meant when none is given.
pub fn normalized(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

impl Score for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn pre_score(&self, _pod: &PodInfo, _feasible: &[usize], cycle: &mut Cycle<'_>) -> bool {
        cycle.snapshot.knows_images()
    }

    fn score(&self, pod: &PodInfo, node: &NodeState, cycle: &Cycle<'_>) -> i64 {
        let snapshot = cycle.snapshot;
        let nodes = snapshot.nodes().len().max(1) as f64;
        // An image that few nodes have would draw all pods to them.
        let weighted = |image: &String| {
            let size = node.rest.images.get(image)?;
            Some((*size as f64 * (snapshot.nodes_with_image(image) as f64 / nodes)) as i64)
        };
        let sum: i64 = pod.images.iter().filter_map(weighted).sum();
        let containers = i64::try_from(pod.images.len()).unwrap_or(1).max(1);
        let most = MOST * containers;
        MAX_SCORE * (sum.clamp(LEAST, most) - LEAST) / (most - LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Cluster;
    use crate::fixtures::{node, pod};
    use crate::snapshot::Snapshot;

    #[test]
    fn a_node_with_the_image_is_preferred() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(&node("with").image("registry/app:1", 2000 * MIB).build());
        snapshot.set_node(&node("without").build());
        let pod = pod("p").image("registry/app:1").info();
        let (cluster, none) = (Cluster::default(), Snapshot::default());
        let mut cycle = Cycle::new(&snapshot, &cluster);
        assert!(ImageLocality.pre_score(&pod, &[0, 1], &mut cycle));
        let score = |name| ImageLocality.score(&pod, snapshot.node(name).unwrap(), &cycle);
        assert_eq!((score("with"), score("without")), (100, 0));
        assert!(!ImageLocality.pre_score(&pod, &[], &mut Cycle::new(&none, &cluster)));
    }

    #[test]
    fn images_without_a_tag_are_the_latest() {
        assert_eq!(normalized("app"), "app:latest");
        assert_eq!(normalized("localhost:5000/app"), "localhost:5000/app:latest");
        assert_eq!(normalized("app@sha256:00"), "app@sha256:00");
        assert_eq!(normalized("a/app:1"), "a/app:1");
    }
}
