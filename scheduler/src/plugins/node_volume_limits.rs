//! NodeVolumeLimits: a node attaches no more volumes of a driver than the driver says it can.

use std::collections::{HashMap, HashSet};

use crate::framework::{Cycle, Event, Filter, NODE_ADDED, POD_LEFT, PreFilter, Refusal, STORAGE};
use crate::pod::PodInfo;
use crate::snapshot::NodeState;
use crate::volumes::{Volumes, bound_to, needed};

/// See the module.
pub struct NodeVolumeLimits;

/// The volumes of a pod that are attached by a driver: (driver, volume), or (driver, claim) while it is
/// to be made.
fn attached(pod: &PodInfo, volumes: &Volumes) -> Vec<(String, String)> {
    let of = |name: &str| {
        let claim = volumes.claim(pod.namespace(), name)?;
        match bound_to(claim) {
            Some(volume) => {
                let csi = volumes.volume(volume)?.spec.as_ref()?.csi.clone()?;
                Some((csi.driver, csi.volume_handle))
            }
            None => Some((volumes.class(claim)?.provisioner.clone(), format!("{}/{name}", pod.namespace()))),
        }
    };
    needed(pod).filter_map(|needed| of(&needed.name)).collect()
}

impl Filter for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn pre_filter(&self, pod: &PodInfo, _cycle: &mut Cycle<'_>) -> PreFilter {
        if needed(pod).next().is_none() { PreFilter::Skip } else { PreFilter::All }
    }

    fn filter(&self, pod: &PodInfo, node: &NodeState, cycle: &Cycle<'_>) -> Result<(), Refusal> {
        let volumes = &cycle.cluster.volumes;
        let Some(limits) = volumes.limits(node.name()) else { return Ok(()) };
        let there: HashSet<(String, String)> =
            node.pods().iter().flat_map(|other| attached(other, volumes)).collect();
        let mut taken: HashMap<&str, i32> = HashMap::new();
        for (driver, _) in &there {
            *taken.entry(driver).or_default() += 1;
        }
        let new: HashSet<_> = attached(pod, volumes).into_iter().filter(|v| !there.contains(v)).collect();
        let mut asked: HashMap<&str, i32> = HashMap::new();
        for (driver, _) in &new {
            *asked.entry(driver).or_default() += 1;
        }
        let full = |(driver, asked): (&&str, &i32)| {
            let taken = taken.get(driver).copied().unwrap_or(0);
            limits.get(*driver).is_some_and(|limit| taken + asked > *limit)
        };
        if asked.iter().any(full) {
            return Err(Refusal::because("node(s) exceed max volume count"));
        }
        Ok(())
    }

    fn events(&self) -> u16 {
        NODE_ADDED | POD_LEFT | STORAGE
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::NodeAdded(_) => true,
            Event::PodLeft { pod: left, .. } => needed(left).next().is_some(),
            Event::Storage { namespace } => namespace.is_empty() || *namespace == pod.namespace(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::Cluster;
    use crate::fixtures::{PodFixture, node, pod};
    use crate::snapshot::Snapshot;

    fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("the fixture is one")
    }

    fn cluster(claims: &[&str]) -> Cluster {
        let mut cluster = Cluster::default();
        for name in claims {
            let claim = json!({"metadata": {"name": name, "namespace": "default"},
                "spec": {"volumeName": format!("pv-{name}")}, "status": {"phase": "Bound"}});
            let volume = json!({"metadata": {"name": format!("pv-{name}")},
                "spec": {"csi": {"driver": "csi.example.com", "volumeHandle": name}}});
            cluster.volumes.set_claim(&format!("default/{name}"), Some(Arc::new(from(claim))));
            cluster.volumes.set_volume(&format!("pv-{name}"), Some(Arc::new(from(volume))));
        }
        let limits = json!({"metadata": {"name": "n"}, "spec": {"drivers": [
            {"name": "csi.example.com", "nodeID": "n", "allocatable": {"count": 2}}]}});
        cluster.volumes.set_csi_node("n", Some(&from(limits)));
        cluster
    }

    fn with(name: &str, claims: &[&str]) -> PodFixture {
        let volume = |claim: &&str| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
        pod(name).set("volumes", claims.iter().map(volume).collect())
    }

    #[test]
    fn a_node_takes_no_more_volumes_than_its_driver_can_attach() {
        let cluster = cluster(&["a", "b", "c"]);
        let mut snapshot = Snapshot::default();
        snapshot.set_node(&node("n").build());
        snapshot.set_node(&node("unlimited").build());
        snapshot.set_pod(with("there", &["a"]).info(), "n", false);
        let check = |claims: &[&str], on: &str, fits: bool| {
            let cycle = Cycle::new(&snapshot, &cluster);
            let seen = NodeVolumeLimits.filter(&with("p", claims).info(), snapshot.node(on).unwrap(), &cycle);
            assert_eq!(seen.is_ok(), fits, "{claims:?} on {on}");
        };
        check(&["b"], "n", true);
        check(&["b", "c"], "n", false);
        check(&["a", "b"], "n", true);
        check(&["b", "c"], "unlimited", true);
    }
}
