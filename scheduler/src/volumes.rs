//! What is known of volumes: claims, volumes, classes, and how many volumes a node can attach.

use std::collections::HashMap;
use std::sync::Arc;

use api::meta::{MetaExt, key_of};
use api::openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use api::openapi::api::storage::v1::{CSINode, StorageClass};
use api::quantity::Amount;

use crate::pod::PodInfo;
use crate::snapshot::NodeState;
use crate::terms::{Labels, selector_of};

/// See the module.
#[derive(Debug, Default)]
pub struct Volumes {
    claims: HashMap<String, Arc<PersistentVolumeClaim>>,
    volumes: HashMap<String, Arc<PersistentVolume>>,
    classes: HashMap<String, Arc<StorageClass>>,
    /// By node and driver.
    limits: HashMap<String, HashMap<String, i32>>,
}

/// A claim that a pod needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Its name, in the pod's namespace.
    pub name: String,
    /// Whether it is made for the pod by a controller.
    pub ephemeral: bool,
}

/// The claims that a pod needs.
pub fn needed(pod: &PodInfo) -> impl Iterator<Item = Needed> {
    let spec = pod.pod.spec.as_ref();
    spec.into_iter().flat_map(|spec| spec.volumes.iter().flatten()).filter_map(|volume| {
        if let Some(claim) = &volume.persistent_volume_claim {
            return Some(Needed { name: claim.claim_name.clone(), ephemeral: false });
        }
        let name = || format!("{}-{}", pod.pod.name(), volume.name);
        volume.ephemeral.as_ref().map(|_| Needed { name: name(), ephemeral: true })
    })
}

impl Volumes {
    /// Keeps a claim; `None` when it is gone.
    pub fn set_claim(&mut self, key: &str, claim: Option<Arc<PersistentVolumeClaim>>) {
        set(&mut self.claims, key, claim);
    }

    /// Keeps a volume; `None` when it is gone.
    pub fn set_volume(&mut self, name: &str, volume: Option<Arc<PersistentVolume>>) {
        set(&mut self.volumes, name, volume);
    }

    /// Keeps a class; `None` when it is gone.
    pub fn set_class(&mut self, name: &str, class: Option<Arc<StorageClass>>) {
        set(&mut self.classes, name, class);
    }

    /// Keeps what a node's drivers can attach; `None` when it is gone.
    pub fn set_csi_node(&mut self, name: &str, node: Option<&CSINode>) {
        let limits = node.map(|node| {
            let drivers = node.spec.drivers.iter();
            let limit = |allocatable: &api::openapi::api::storage::v1::VolumeNodeResources| allocatable.count;
            drivers.filter_map(|d| Some((d.name.clone(), limit(d.allocatable.as_ref()?)?))).collect()
        });
        set(&mut self.limits, name, limits);
    }

    /// A claim of a namespace.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<PersistentVolumeClaim>> {
        self.claims.get(&key_of(namespace, name))
    }

    /// A volume.
    pub fn volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.volumes.get(name)
    }

    /// How many volumes of each driver a node can attach, as far as it is limited.
    pub fn limits(&self, node: &str) -> Option<&HashMap<String, i32>> {
        self.limits.get(node)
    }

    /// The class of a claim.
    pub fn class(&self, claim: &PersistentVolumeClaim) -> Option<&Arc<StorageClass>> {
        self.classes.get(class_name(claim))
    }

    /// Whether a claim is bound only when a pod needs it.
    pub fn waits_for_consumer(&self, claim: &PersistentVolumeClaim) -> bool {
        let mode = self.class(claim).and_then(|class| class.volume_binding_mode.as_deref());
        mode == Some("WaitForFirstConsumer")
    }

    /// The smallest volume that would do for a claim on a node, other than those in `taken`.
    pub fn fitting(
        &self,
        claim: &PersistentVolumeClaim,
        node: &NodeState,
        taken: &[String],
    ) -> Option<&Arc<PersistentVolume>> {
        let fits = |volume: &&Arc<PersistentVolume>| {
            !taken.iter().any(|name| name == volume.name()) && suits(volume, claim) && reachable(volume, node)
        };
        let all = self.volumes.values().filter(fits);
        all.min_by_key(|volume| (capacity(volume).to_units(), volume.name().to_owned()))
    }
}

fn set<T>(all: &mut HashMap<String, T>, key: &str, item: Option<T>) {
    match item {
        Some(item) => {
            all.insert(key.to_owned(), item);
        }
        None => {
            all.remove(key);
        }
    }
}

fn class_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default()
}

/// The volume that a claim is bound to.
pub fn bound_to(claim: &PersistentVolumeClaim) -> Option<&str> {
    let completed = claim.annotation("pv.kubernetes.io/bind-completed").is_some();
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    name.filter(|name| !name.is_empty() && (completed || phase == Some("Bound")))
}

/// Whether a volume can be used on a node, as far as its node affinity says.
pub fn reachable(volume: &PersistentVolume, node: &NodeState) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|selector| {
        let mut terms = selector.node_selector_terms.iter();
        terms.any(|term| crate::plugins::node_affinity::matches(term, node))
    })
}

fn capacity(volume: &PersistentVolume) -> Amount {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    let storage = capacity.and_then(|capacity| capacity.get("storage"));
    storage.and_then(|quantity| Amount::parse(&quantity.0).ok()).unwrap_or(Amount::ZERO)
}

fn suits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(offer), Some(asked)) = (&volume.spec, &claim.spec) else { return false };
    let free = match &offer.claim_ref {
        None => volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available"),
        Some(to) => {
            let of = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
            of(&to.name) == claim.name()
                && of(&to.namespace) == claim.namespace()
                && (of(&to.uid).is_empty() || of(&to.uid) == claim.uid())
        }
    };
    let modes = || offer.access_modes.iter().flatten();
    let request = asked.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage"));
    let request = request.and_then(|quantity| Amount::parse(&quantity.0).ok()).unwrap_or(Amount::ZERO);
    let mode = |mode: &Option<String>| mode.as_deref().unwrap_or("Filesystem").to_owned();
    let none = Labels::new();
    free && !volume.is_deleting()
        && offer.storage_class_name.as_deref().unwrap_or_default() == class_name(claim)
        && asked.access_modes.iter().flatten().all(|wanted| modes().any(|mode| mode == wanted))
        && capacity(volume).to_units() >= request.to_units()
        && mode(&offer.volume_mode) == mode(&asked.volume_mode)
        && asked.selector.as_ref().is_none_or(|selector| {
            selector_of(Some(selector)).matches(volume.metadata.labels.as_ref().unwrap_or(&none))
        })
}
