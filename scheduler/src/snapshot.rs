//! The nodes and what runs on them, kept up to date event by event. Decisions read it in place.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::meta::MetaExt;
use api::openapi::api::core::v1::Node;

use crate::plugins::node_ports::{HostPort, UsedPorts};
use crate::pod::PodInfo;
use crate::resources::Resources;

/// A taint with the sentence that refuses a pod for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTaint {
    /// The key.
    pub key: String,
    /// The value, perhaps empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
    /// `node(s) had untolerated taint {key: value}`.
    pub reason: Arc<str>,
}

/// One node: what it is, and what is taken of it.
#[derive(Clone, Debug)]
pub struct NodeState {
    /// The name.
    pub name: Arc<str>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// `spec.taints`.
    pub taints: Vec<NodeTaint>,
    /// What there is for pods.
    pub allocatable: Resources,
    /// What pods asked for.
    pub requested: Resources,
    /// CPU that pods asked for, with defaults.
    pub scored_cpu: i64,
    /// Memory that pods asked for, with defaults.
    pub scored_memory: i64,
    /// Ports that pods took.
    pub ports: UsedPorts,
    /// `metadata.labels`.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Sizes of the images that are there.
    pub images: Arc<HashMap<String, i64>>,
}

impl NodeState {
    /// A node without pods.
    pub fn new(node: &Node) -> Self {
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        let taints = spec.taints.into_iter().flatten().map(|taint| {
            let value = taint.value.unwrap_or_default();
            let reason = format!("node(s) had untolerated taint {{{}: {value}}}", taint.key);
            NodeTaint { key: taint.key, value, effect: taint.effect, reason: reason.into() }
        });
        let images = status.iter().flat_map(|s| s.images.iter().flatten()).flat_map(|image| {
            let size = image.size_bytes.unwrap_or(0);
            image.names.iter().flatten().map(move |name| (name.clone(), size))
        });
        Self {
            name: node.name().into(),
            unschedulable: spec.unschedulable.unwrap_or(false),
            taints: taints.collect(),
            allocatable: allocatable.map(Resources::of).unwrap_or_default(),
            requested: Resources::default(),
            scored_cpu: 0,
            scored_memory: 0,
            ports: UsedPorts::default(),
            labels: Arc::new(node.metadata.labels.clone().unwrap_or_default()),
            images: Arc::new(images.collect()),
        }
    }

    /// Whether decisions can tell the two apart, apart from what runs there.
    fn same_offer(&self, other: &Self) -> bool {
        self.unschedulable == other.unschedulable
            && self.taints == other.taints
            && self.allocatable == other.allocatable
            && self.labels == other.labels
            && self.images == other.images
    }

    fn take(&mut self, pod: &PodInfo) {
        self.requested.add(&pod.request.stated);
        self.scored_cpu = self.scored_cpu.saturating_add(pod.request.scored_cpu);
        self.scored_memory = self.scored_memory.saturating_add(pod.request.scored_memory);
        pod.ports.iter().for_each(|port: &HostPort| self.ports.add(port));
    }

    fn give_back(&mut self, pod: &PodInfo) {
        self.requested.subtract(&pod.request.stated);
        self.scored_cpu = self.scored_cpu.saturating_sub(pod.request.scored_cpu);
        self.scored_memory = self.scored_memory.saturating_sub(pod.request.scored_memory);
        pod.ports.iter().for_each(|port: &HostPort| self.ports.remove(port));
    }
}

/// A pod that takes room.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// Its node, which may be unknown or gone.
    pub node: Arc<str>,
    /// We decided so and the API does not show it yet.
    pub assumed: bool,
}

/// How a node changed.
#[derive(Clone, Debug)]
pub enum NodeChange {
    /// In nothing that matters.
    Nothing,
    /// It is new.
    Added,
    /// It was this before.
    Updated(Box<NodeState>),
}

/// All nodes, and all pods that have one.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeState>,
    index: HashMap<Arc<str>, usize>,
    /// By uid.
    pods: HashMap<Arc<str>, Placed>,
    /// By the name of the node: what a node takes up when it appears after its pods.
    by_node: HashMap<Arc<str>, Vec<Arc<str>>>,
    /// On how many nodes an image is.
    image_nodes: HashMap<String, usize>,
}

impl Snapshot {
    /// All nodes, in no particular but stable order.
    pub fn nodes(&self) -> &[NodeState] {
        &self.nodes
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&NodeState> {
        self.index.get(name).map(|i| &self.nodes[*i])
    }

    /// The place of a node in [`Self::nodes`].
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// A pod that takes room.
    pub fn pod(&self, uid: &str) -> Option<&Placed> {
        self.pods.get(uid)
    }

    /// How many pods take room.
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    /// On how many nodes an image is.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    /// Whether any node tells which images it has.
    pub fn knows_images(&self) -> bool {
        !self.image_nodes.is_empty()
    }

    /// Adds a node, or takes over what changed in it.
    pub fn set_node(&mut self, node: &Node) -> NodeChange {
        let mut new = NodeState::new(node);
        match self.index.get(&new.name).copied() {
            Some(position) => {
                let held = &mut self.nodes[position];
                if held.same_offer(&new) {
                    return NodeChange::Nothing;
                }
                new.name = held.name.clone();
                new.requested = held.requested.clone();
                (new.scored_cpu, new.scored_memory) = (held.scored_cpu, held.scored_memory);
                new.ports = held.ports.clone();
                let images = new.images.clone();
                let old = std::mem::replace(held, new);
                self.count_images(&old.images, &images);
                NodeChange::Updated(Box::new(old))
            }
            None => {
                for uid in self.by_node.get(&new.name).into_iter().flatten() {
                    new.take(&self.pods[uid].pod);
                }
                self.count_images(&HashMap::new(), &new.images.clone());
                self.index.insert(new.name.clone(), self.nodes.len());
                self.nodes.push(new);
                NodeChange::Added
            }
        }
    }

    /// Removes a node. Its pods stay known: they are somebody else's to delete.
    pub fn remove_node(&mut self, name: &str) {
        let Some(position) = self.index.remove(name) else { return };
        let gone = self.nodes.swap_remove(position);
        self.count_images(&gone.images, &HashMap::new());
        if let Some(moved) = self.nodes.get(position) {
            self.index.insert(moved.name.clone(), position);
        }
    }

    /// Adds a pod, or replaces what is known of it.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, node: &str, assumed: bool) {
        self.remove_pod(&pod.uid.clone());
        let node: Arc<str> = match self.index.get(node) {
            Some(position) => {
                let state = &mut self.nodes[*position];
                state.take(&pod);
                state.name.clone()
            }
            None => node.into(),
        };
        self.by_node.entry(node.clone()).or_default().push(pod.uid.clone());
        self.pods.insert(pod.uid.clone(), Placed { pod, node, assumed });
    }

    /// Keeps a newer state of a pod that we assumed to be on a node.
    pub fn refresh_assumed(&mut self, pod: Arc<PodInfo>) {
        if let Some(node) = self.pods.get(&pod.uid).filter(|p| p.assumed).map(|p| p.node.clone()) {
            self.set_pod(pod, &node, true);
        }
    }

    /// Removes a pod and returns it.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Placed> {
        let placed = self.pods.remove(uid)?;
        if let Some(position) = self.index.get(&placed.node) {
            self.nodes[*position].give_back(&placed.pod);
        }
        if let Some(uids) = self.by_node.get_mut(&placed.node) {
            uids.retain(|other| **other != *uid);
            if uids.is_empty() {
                self.by_node.remove(&placed.node);
            }
        }
        Some(placed)
    }

    fn count_images(&mut self, old: &HashMap<String, i64>, new: &HashMap<String, i64>) {
        for image in new.keys().filter(|image| !old.contains_key(*image)) {
            *self.image_nodes.entry(image.clone()).or_default() += 1;
        }
        for image in old.keys().filter(|image| !new.contains_key(*image)) {
            if let Some(count) = self.image_nodes.get_mut(image) {
                *count -= 1;
                if *count == 0 {
                    self.image_nodes.remove(image);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{node, pod};

    #[test]
    fn a_node_that_appears_after_its_pods_is_as_full_as_they_say() {
        let mut snapshot = Snapshot::default();
        snapshot.set_pod(pod("a").cpu("1").info(), "n1", false);
        snapshot.set_node(&node("n1").cpu("4").build());
        assert_eq!(snapshot.node("n1").unwrap().requested.cpu, 1000);
        snapshot.remove_node("n1");
        snapshot.set_node(&node("n1").cpu("4").build());
        snapshot.remove_pod("a-uid");
        assert_eq!(snapshot.node("n1").unwrap().requested, Resources::default());
    }

    #[test]
    fn a_pod_counts_once_however_often_it_is_told() {
        let mut snapshot = Snapshot::default();
        for name in ["n1", "n2", "n3"] {
            snapshot.set_node(&node(name).cpu("4").build());
        }
        snapshot.set_pod(pod("a").cpu("1").info(), "n1", true);
        snapshot.set_pod(pod("a").cpu("1").info(), "n1", false);
        assert_eq!(snapshot.node("n1").unwrap().requested.cpu, 1000);
        snapshot.set_pod(pod("a").cpu("1").info(), "n3", false);
        assert_eq!(snapshot.node("n1").unwrap().requested.pods, 0);
        snapshot.remove_node("n1");
        assert_eq!(snapshot.node("n3").unwrap().requested.cpu, 1000);
        assert_eq!((snapshot.nodes().len(), snapshot.position("n1")), (2, None));
    }

    #[test]
    fn a_heartbeat_is_no_change() {
        let mut snapshot = Snapshot::default();
        assert!(matches!(snapshot.set_node(&node("n1").cpu("4").build()), NodeChange::Added));
        assert!(matches!(snapshot.set_node(&node("n1").cpu("4").build()), NodeChange::Nothing));
        assert!(matches!(snapshot.set_node(&node("n1").cpu("5").build()), NodeChange::Updated(_)));
    }
}
