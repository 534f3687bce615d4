//! A pod as the scheduler sees it: what every decision needs, computed once.

use std::sync::Arc;

use api::meta::MetaExt;
use api::openapi::api::core::v1::{Container, Pod};

use crate::plugins::node_affinity::Affinity;
use crate::plugins::node_ports::HostPort;
use crate::resources::Request;

/// The name that pods ask for when they ask for this scheduler.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// A pod with what is derived from it.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// The object itself.
    pub pod: Arc<Pod>,
    /// Tells pods of one name apart.
    pub uid: Arc<str>,
    /// What it asks for.
    pub request: Request,
    /// The node's ports that it takes.
    pub ports: Vec<HostPort>,
    /// Where it must and would like to run.
    pub affinity: Affinity,
    /// Normalised names of its images.
    pub images: Vec<String>,
    /// `spec.priority`.
    pub priority: i32,
}

impl PodInfo {
    /// Derives everything.
    pub fn new(pod: Arc<Pod>) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let containers = spec.containers.iter();
        let ports = containers.clone().chain(sidecars(&spec.init_containers)).flat_map(HostPort::of);
        let images =
            containers.chain(spec.init_containers.iter().flatten()).filter_map(|c| c.image.as_deref());
        Self {
            uid: pod.uid().into(),
            request: Request::of(&spec),
            ports: ports.collect(),
            affinity: Affinity::of(&spec),
            images: images.map(crate::plugins::image_locality::normalized).collect(),
            priority: spec.priority.unwrap_or(0),
            pod,
        }
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        api::meta::key(self.pod.as_ref())
    }

    /// The tolerations of its spec.
    pub fn tolerations(&self) -> &[api::openapi::api::core::v1::Toleration] {
        self.pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
    }
}

fn sidecars(init: &Option<Vec<Container>>) -> impl Iterator<Item = &Container> {
    init.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"))
}

/// What a pod is to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It waits for a node.
    Pending,
    /// It waits for somebody to remove its scheduling gates.
    Gated,
    /// It takes up room on a node.
    Assigned(&'a str),
    /// It is over, being deleted before it got a node, or another scheduler's.
    Irrelevant,
}

/// What a pod is to the scheduler.
pub fn standing(pod: &Pod) -> Standing<'_> {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    let Some(spec) = &pod.spec else { return Standing::Irrelevant };
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Standing::Irrelevant;
    }
    if let Some(node) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        return Standing::Assigned(node);
    }
    let scheduler = spec.scheduler_name.as_deref().filter(|n| !n.is_empty());
    if pod.is_deleting() || scheduler.is_some_and(|s| s != DEFAULT_SCHEDULER) {
        return Standing::Irrelevant;
    }
    if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        return Standing::Gated;
    }
    Standing::Pending
}
