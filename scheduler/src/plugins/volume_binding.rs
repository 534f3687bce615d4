//! VolumeBinding: a pod goes where its volumes are; a claim that waits for its first consumer is bound or
//! provisioned where the pod goes.

use std::sync::Arc;

use api::meta::MetaExt;
use api::openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use api::openapi::api::storage::v1::StorageClass;

use crate::framework::{Cycle, Event, Filter, NODES, PreFilter, Reason, Refusal, STORAGE};
use crate::pod::PodInfo;
use crate::snapshot::NodeState;
use crate::volumes::{Needed, Volumes, bound_to, needed, reachable};

/// The annotation by which provisioners learn where a volume is needed.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

const CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
const NONE_TO_BIND: &str = "node(s) didn't find available persistent volumes to bind";
const NO_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// See the module.
pub struct VolumeBinding;

/// What is worked out about one pod.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Volumes that its claims are bound to; `None` for one that is not there.
    bound: Vec<Option<Arc<PersistentVolume>>>,
    /// Claims that wait for it.
    waiting: Vec<Arc<PersistentVolumeClaim>>,
}

/// What has to be written before a pod can run on a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// This volume is for this claim.
    Bind {
        /// The volume's name.
        volume: String,
        /// The claim.
        claim: Arc<PersistentVolumeClaim>,
    },
    /// A volume for this claim is needed on the pod's node.
    Provision(Arc<PersistentVolumeClaim>),
}

/// What has to be written before the pod can run on the node; `None` when it cannot.
pub fn writes(pod: &PodInfo, node: &NodeState, volumes: &Volumes) -> Option<Vec<Write>> {
    let mut writes = Vec::new();
    for Needed { name, .. } in needed(pod) {
        let claim = volumes.claim(pod.namespace(), &name)?;
        if bound_to(claim).is_none() {
            writes.push(claim.clone());
        }
    }
    plan(&writes, node, volumes)
}

fn plan(waiting: &[Arc<PersistentVolumeClaim>], node: &NodeState, volumes: &Volumes) -> Option<Vec<Write>> {
    let (mut taken, mut writes): (Vec<String>, Vec<Write>) = Default::default();
    for claim in waiting {
        if let Some(selected) = claim.annotation(SELECTED_NODE) {
            if selected != &**node.name() {
                return None;
            }
            // It has been asked for, and comes.
            writes.push(Write::Provision(claim.clone()));
        } else if let Some(volume) = volumes.fitting(claim, node, &taken) {
            taken.push(volume.name().to_owned());
            writes.push(Write::Bind { volume: volume.name().to_owned(), claim: claim.clone() });
        } else if volumes.class(claim).is_some_and(|class| provisions(class, node)) {
            writes.push(Write::Provision(claim.clone()));
        } else {
            return None;
        }
    }
    Some(writes)
}

/// Whether a class makes volumes that can be used on a node.
fn provisions(class: &StorageClass, node: &NodeState) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    let matches = |term: &api::openapi::api::core::v1::TopologySelectorTerm| {
        let mut all = term.match_label_expressions.iter().flatten();
        all.all(|e| node.label(&e.key).is_some_and(|value| e.values.iter().any(|v| v == value)))
    };
    class.provisioner != NO_PROVISIONER && (terms.is_empty() || terms.iter().any(matches))
}

impl Filter for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn pre_filter(&self, pod: &PodInfo, cycle: &mut Cycle<'_>) -> PreFilter {
        let volumes = &cycle.cluster.volumes;
        let mut state = State::default();
        let refuse = |text: String| PreFilter::Refuse(Reason::Shared(text.into()));
        for Needed { name, ephemeral } in needed(pod) {
            let Some(claim) = volumes.claim(pod.namespace(), &name) else {
                return refuse(if ephemeral {
                    format!(
                        "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                    )
                } else {
                    format!("persistentvolumeclaim {name:?} not found")
                });
            };
            if claim.is_deleting() {
                return refuse(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            if ephemeral && !claim.is_controlled_by(&pod.uid) {
                let owner = format!("PVC {} was not created for pod {}", api::meta::key(&**claim), pod.key());
                return refuse(format!("{owner} (pod is not owner)"));
            }
            if let Some(volume) = bound_to(claim) {
                state.bound.push(volumes.volume(volume).cloned());
            } else if volumes.waits_for_consumer(claim) {
                state.waiting.push(claim.clone());
            } else {
                return PreFilter::Refuse(Reason::Static("pod has unbound immediate PersistentVolumeClaims"));
            }
        }
        let skip = state.bound.is_empty() && state.waiting.is_empty();
        cycle.volumes = state;
        if skip { PreFilter::Skip } else { PreFilter::All }
    }

    fn filter(&self, _pod: &PodInfo, node: &NodeState, cycle: &Cycle<'_>) -> Result<(), Refusal> {
        for volume in &cycle.volumes.bound {
            match volume {
                None => return Err(Refusal::for_good(NO_VOLUME)),
                Some(volume) if !reachable(volume, node) => return Err(Refusal::for_good(CONFLICT)),
                Some(_) => {}
            }
        }
        match plan(&cycle.volumes.waiting, node, &cycle.cluster.volumes) {
            Some(_) => Ok(()),
            None => Err(Refusal::for_good(NONE_TO_BIND)),
        }
    }

    fn events(&self) -> u16 {
        NODES | STORAGE
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::Storage { namespace } => namespace.is_empty() || *namespace == pod.namespace(),
            Event::NodeAdded(_) => true,
            Event::NodeUpdated { old, new } => old.rest.labels != new.rest.labels,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
