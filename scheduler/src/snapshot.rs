//! The nodes and what runs on them, kept up to date event by event. Decisions read it in place.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use api::openapi::api::core::v1::Node;

use crate::pod::PodInfo;
use crate::terms::Labels;

mod counts;
mod node;
mod topology;

use counts::Counts;
pub use counts::{Carried, Namespaces, Selection, Strength, speaks_of};
pub use node::{NodeChange, NodeState, NodeTaint, Rest};
use topology::Topology;
pub use topology::{Column, NONE};

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

/// All nodes, and all pods that have one.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeState>,
    index: HashMap<Arc<str>, usize>,
    /// By uid.
    pods: HashMap<Arc<str>, Placed>,
    /// Pods whose node is not known, by its name: what it takes up when it appears after them.
    homeless: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
    /// On how many nodes an image is.
    image_nodes: HashMap<String, usize>,
    namespaces: Namespaces,
    /// Names by the ids of nodes; those of nodes that are gone stay until [`Self::renumber`].
    names: Vec<Arc<str>>,
    /// Places by the ids of nodes.
    places: Vec<u32>,
    /// Filled by what decisions ask for, hence mutable beneath them.
    topology: RefCell<Topology>,
    counts: RefCell<Counts>,
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

    /// The place of the node with an id.
    pub fn place(&self, id: u32) -> Option<usize> {
        self.places.get(id as usize).filter(|place| **place != NONE).map(|place| *place as usize)
    }

    /// The name of the node with an id, even if it is gone.
    pub fn name_of(&self, id: u32) -> &str {
        self.names.get(id as usize).map_or("", |name| name)
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

    /// The labels of namespaces.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Which nodes share a value of a label.
    pub fn column(&self, key: &Arc<str>) -> Column {
        self.topology.borrow_mut().column(key, &self.nodes)
    }

    /// By the places of nodes: how many of these pods are there.
    pub fn count(&self, selection: &Selection) -> Arc<Vec<u32>> {
        self.counts.borrow_mut().of(selection, &self.nodes, &self.namespaces)
    }

    /// Calls `see` with each term that pods carry, and on which nodes, by id, how many do.
    pub fn carried(&self, mut see: impl FnMut(&Carried, &HashMap<u32, u32>)) {
        self.counts.borrow().carried().for_each(|(carried, nodes)| see(carried, nodes));
    }

    /// Keeps a namespace's labels; `None` when it is gone. Tells whether that is any news.
    pub fn set_namespace(&mut self, name: &str, labels: Option<&Labels>) -> bool {
        let news = match labels {
            Some(labels) if self.namespaces.get(name) == Some(labels) => false,
            Some(labels) => {
                self.namespaces.insert(name.to_owned(), labels.clone());
                true
            }
            None => self.namespaces.remove(name).is_some(),
        };
        if news {
            self.counts.get_mut().namespace_changed();
        }
        news
    }

    /// Adds a node, or takes over what changed in it.
    pub fn set_node(&mut self, node: &Node) -> NodeChange {
        let mut new = NodeState::new(node);
        match self.index.get(new.name()) {
            Some(position) => {
                let held = &mut self.nodes[*position];
                if held.same_offer(&new) {
                    return NodeChange::Nothing;
                }
                let mut old = held.clone();
                std::mem::swap(&mut held.allocatable, &mut new.allocatable);
                held.unschedulable = new.unschedulable;
                held.has_hard_taints = new.has_hard_taints;
                held.has_soft_taints = new.has_soft_taints;
                held.rest.taints = new.rest.taints;
                held.rest.labels = new.rest.labels;
                held.rest.images = new.rest.images.clone();
                // Whoever is told of the change asks what the node offered, not who was there.
                old.rest.pods.clear();
                self.topology.get_mut().set(held);
                self.count_images(&old.rest.images, &new.rest.images);
                NodeChange::Updated(Box::new(old))
            }
            None => {
                let at = self.nodes.len();
                let name = new.name().clone();
                new.position = u32::try_from(at).unwrap_or(NONE);
                new.id = u32::try_from(self.names.len()).unwrap_or(NONE);
                self.names.push(name.clone());
                self.places.push(new.position);
                self.count_images(&HashMap::new(), &new.rest.images.clone());
                self.index.insert(name.clone(), at);
                self.topology.get_mut().set(&new);
                self.counts.get_mut().push();
                self.nodes.push(new);
                for pod in self.homeless.remove(&name).unwrap_or_default() {
                    self.put(&pod, at);
                }
                NodeChange::Added
            }
        }
    }

    /// Removes a node. Its pods stay known: they are somebody else's to delete.
    pub fn remove_node(&mut self, name: &str) -> Option<NodeState> {
        let position = *self.index.get(name)?;
        let pods = self.nodes[position].pods().to_vec();
        for pod in &pods {
            self.take_off(pod, position);
        }
        self.index.remove(name);
        let gone = self.nodes.swap_remove(position);
        if !pods.is_empty() {
            self.homeless.insert(gone.name().clone(), pods);
        }
        self.places[gone.id as usize] = NONE;
        self.count_images(&gone.rest.images, &HashMap::new());
        if let Some(moved) = self.nodes.get_mut(position) {
            moved.position = gone.position;
            self.places[moved.id as usize] = gone.position;
            self.index.insert(moved.name().clone(), position);
        }
        self.topology.get_mut().swap_remove(position, &self.nodes);
        self.counts.get_mut().swap_remove(position);
        Some(gone)
    }

    /// Whether most ids belong to nodes that are gone.
    pub fn wants_renumbering(&self) -> bool {
        self.names.len() > 4 * self.nodes.len() + 4096
    }

    /// Gives the nodes new ids. Whoever remembers one has to forget it.
    pub fn renumber(&mut self) {
        self.names.clear();
        self.places.clear();
        let pods: Vec<(usize, Vec<Arc<PodInfo>>)> =
            self.nodes.iter().map(|node| (node.place(), node.pods().to_vec())).collect();
        for (at, pods) in &pods {
            pods.iter().for_each(|pod| self.take_off(pod, *at));
            let id = u32::try_from(self.names.len()).unwrap_or(NONE);
            let node = &mut self.nodes[*at];
            node.id = id;
            self.names.push(node.name().clone());
            self.places.push(node.position);
            pods.iter().for_each(|pod| self.put(pod, *at));
        }
    }

    /// Adds a pod, or replaces what is known of it.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, node: &str, assumed: bool) {
        self.remove_pod(&pod.uid.clone());
        let node: Arc<str> = match self.index.get(node) {
            Some(position) => {
                let position = *position;
                self.put(&pod, position);
                self.nodes[position].name().clone()
            }
            None => {
                let node: Arc<str> = node.into();
                self.homeless.entry(node.clone()).or_default().push(pod.clone());
                node
            }
        };
        self.pods.insert(pod.uid.clone(), Placed { pod, node, assumed });
    }

    /// Keeps a newer state of a pod that we assumed to be on a node.
    pub fn refresh_assumed(&mut self, pod: Arc<PodInfo>) {
        if let Some(node) = self.pods.get(&pod.uid).filter(|p| p.assumed).map(|p| p.node.clone()) {
            self.set_pod(pod, &node, true);
        }
    }

    /// The API shows a pod where it is, with nothing changed that counts: only the object is replaced.
    pub fn refresh(&mut self, pod: Arc<PodInfo>) {
        let Some(placed) = self.pods.get_mut(&pod.uid) else { return };
        if let Some(position) = self.index.get(&placed.node) {
            self.nodes[*position].replace(&pod);
        }
        placed.assumed = false;
        placed.pod = pod;
    }

    /// Removes a pod and returns it.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Placed> {
        let placed = self.pods.remove(uid)?;
        if let Some(position) = self.index.get(&placed.node) {
            self.take_off(&placed.pod, *position);
        } else if let Some(pods) = self.homeless.get_mut(&placed.node) {
            pods.retain(|other| *other.uid != *uid);
            if pods.is_empty() {
                self.homeless.remove(&placed.node);
            }
        }
        Some(placed)
    }

    fn put(&mut self, pod: &Arc<PodInfo>, at: usize) {
        let node = &mut self.nodes[at];
        node.take(pod);
        self.counts.get_mut().pod(pod, at, node.id, true, &self.namespaces);
    }

    fn take_off(&mut self, pod: &PodInfo, at: usize) {
        let node = &mut self.nodes[at];
        node.give_back(pod);
        self.counts.get_mut().pod(pod, at, node.id, false, &self.namespaces);
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
    use crate::resources::Resources;

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
    fn what_decisions_look_at_first_fits_two_cache_lines() {
        assert_eq!(std::mem::size_of::<NodeState>(), 128);
    }

    #[test]
    fn a_heartbeat_is_no_change() {
        let mut snapshot = Snapshot::default();
        assert!(matches!(snapshot.set_node(&node("n1").cpu("4").build()), NodeChange::Added));
        assert!(matches!(snapshot.set_node(&node("n1").cpu("4").build()), NodeChange::Nothing));
        assert!(matches!(snapshot.set_node(&node("n1").cpu("5").build()), NodeChange::Updated(_)));
    }
}
