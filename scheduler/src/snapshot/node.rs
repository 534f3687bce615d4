//! One node: what it is, and what is taken of it.

use std::collections::HashMap;
use std::sync::Arc;

use api::meta::MetaExt;
use api::openapi::api::core::v1::Node;

use crate::plugins::node_ports::UsedPorts;
use crate::pod::PodInfo;
use crate::resources::Resources;
use crate::terms::Labels;

/// A taint with what an administrator is told when a pod is refused for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTaint {
    /// The key.
    pub key: String,
    /// The value, perhaps empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
    /// `{key: value}`.
    pub detail: Arc<str>,
}

impl NodeTaint {
    /// Whether it keeps pods away, rather than asks them to stay away.
    pub fn is_hard(&self) -> bool {
        matches!(self.effect.as_str(), "NoSchedule" | "NoExecute")
    }
}

/// One node. What almost every decision looks at stands first, in two cache lines; the rest is
/// elsewhere.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct NodeState {
    /// What there is for pods.
    pub allocatable: Resources,
    /// What pods asked for.
    pub requested: Resources,
    /// CPU that pods asked for, with defaults.
    pub scored_cpu: i64,
    /// Memory that pods asked for, with defaults.
    pub scored_memory: i64,
    /// Its place in the snapshot.
    pub position: u32,
    /// Its number, which no other node of the snapshot's lifetime bears.
    pub id: u32,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// Whether any taint keeps pods away.
    pub has_hard_taints: bool,
    /// Whether any taint asks pods to stay away.
    pub has_soft_taints: bool,
    /// Everything else.
    pub rest: Box<Rest>,
}

/// What only some decisions look at.
#[derive(Clone, Debug)]
pub struct Rest {
    /// The name.
    pub name: Arc<str>,
    /// `spec.taints`.
    pub taints: Vec<NodeTaint>,
    /// Ports that pods took.
    pub ports: UsedPorts,
    /// `metadata.labels`.
    pub labels: Arc<Labels>,
    /// Sizes of the images that are there.
    pub images: Arc<HashMap<String, i64>>,
    /// The pods that take room.
    pub pods: Vec<Arc<PodInfo>>,
}

impl NodeState {
    /// A node without pods.
    pub fn new(node: &Node) -> Self {
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        let taints = spec.taints.into_iter().flatten().map(|taint| {
            let value = taint.value.unwrap_or_default();
            let detail = format!("{{{}: {value}}}", taint.key);
            NodeTaint { key: taint.key, value, effect: taint.effect, detail: detail.into() }
        });
        let taints: Vec<NodeTaint> = taints.collect();
        let images = status.iter().flat_map(|s| s.images.iter().flatten()).flat_map(|image| {
            let size = image.size_bytes.unwrap_or(0);
            image.names.iter().flatten().map(move |name| (name.clone(), size))
        });
        Self {
            allocatable: allocatable.map(Resources::of).unwrap_or_default(),
            requested: Resources::default(),
            scored_cpu: 0,
            scored_memory: 0,
            position: 0,
            id: 0,
            unschedulable: spec.unschedulable.unwrap_or(false),
            has_hard_taints: taints.iter().any(NodeTaint::is_hard),
            has_soft_taints: taints.iter().any(|t| t.effect == "PreferNoSchedule"),
            rest: Box::new(Rest {
                name: node.name().into(),
                taints,
                ports: UsedPorts::default(),
                labels: Arc::new(node.metadata.labels.clone().unwrap_or_default()),
                images: Arc::new(images.collect()),
                pods: Vec::new(),
            }),
        }
    }

    /// The name.
    pub fn name(&self) -> &Arc<str> {
        &self.rest.name
    }

    /// Its place in the snapshot.
    pub fn place(&self) -> usize {
        self.position as usize
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.rest.labels.get(key).map(String::as_str)
    }

    /// The pods that take room.
    pub fn pods(&self) -> &[Arc<PodInfo>] {
        &self.rest.pods
    }

    /// Whether decisions can tell the two apart, apart from what runs there.
    pub(super) fn same_offer(&self, other: &Self) -> bool {
        self.unschedulable == other.unschedulable
            && self.allocatable == other.allocatable
            && self.rest.taints == other.rest.taints
            && self.rest.labels == other.rest.labels
            && self.rest.images == other.rest.images
    }

    /// Counts a pod in.
    pub fn take(&mut self, pod: &Arc<PodInfo>) {
        self.requested.add(&pod.request.stated);
        self.scored_cpu = self.scored_cpu.saturating_add(pod.request.scored_cpu);
        self.scored_memory = self.scored_memory.saturating_add(pod.request.scored_memory);
        pod.ports.iter().for_each(|port| self.rest.ports.add(port));
        self.rest.pods.push(pod.clone());
    }

    /// Replaces the object of a pod that counts as before.
    pub(super) fn replace(&mut self, pod: &Arc<PodInfo>) {
        if let Some(held) = self.rest.pods.iter_mut().find(|other| other.uid == pod.uid) {
            *held = pod.clone();
        }
    }

    /// Counts a pod out that was counted in.
    pub fn give_back(&mut self, pod: &PodInfo) {
        let Some(at) = self.rest.pods.iter().position(|other| other.uid == pod.uid) else { return };
        self.rest.pods.swap_remove(at);
        self.requested.subtract(&pod.request.stated);
        self.scored_cpu = self.scored_cpu.saturating_sub(pod.request.scored_cpu);
        self.scored_memory = self.scored_memory.saturating_sub(pod.request.scored_memory);
        pod.ports.iter().for_each(|port| self.rest.ports.remove(port));
    }
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
