//! A pod as the scheduler sees it: what every decision needs, computed once.

use std::sync::Arc;

use api::meta::MetaExt;
use api::openapi::api::core::v1::{Container, Pod, PodSpec, Toleration};

use crate::plugins::node_affinity::Affinity;
use crate::plugins::node_ports::HostPort;
use crate::resources::Request;
use crate::terms::{Constraint, Labels, PodAffinity};

/// The name that pods ask for when they ask for no scheduler in particular.
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
    /// Near which pods it must and would like to run, or not.
    pub pod_affinity: PodAffinity,
    /// How evenly it and its like are to be spread.
    pub spread: Vec<Constraint>,
    /// Normalised names of its images.
    pub images: Vec<String>,
    /// `spec.priority`.
    pub priority: i32,
    /// Whether it is being deleted.
    pub terminating: bool,
}

impl PodInfo {
    /// Derives everything.
    pub fn new(pod: Arc<Pod>) -> Self {
        let (none, unlabelled) = (PodSpec::default(), Labels::new());
        let spec = pod.spec.as_ref().unwrap_or(&none);
        let labels = pod.metadata.labels.as_ref().unwrap_or(&unlabelled);
        let containers = spec.containers.iter();
        let ports = containers.clone().chain(sidecars(&spec.init_containers)).flat_map(HostPort::of);
        let images =
            containers.chain(spec.init_containers.iter().flatten()).filter_map(|c| c.image.as_deref());
        let constraints = spec.topology_spread_constraints.iter().flatten();
        Self {
            uid: pod.uid().into(),
            request: Request::of(spec),
            ports: ports.collect(),
            affinity: Affinity::of(spec),
            pod_affinity: PodAffinity::of(spec.affinity.as_ref(), pod.namespace(), labels),
            spread: constraints.map(|c| Constraint::of(c, labels)).collect(),
            images: images.map(crate::plugins::image_locality::normalized).collect(),
            priority: spec.priority.unwrap_or(0),
            terminating: pod.is_deleting(),
            pod,
        }
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        api::meta::key(self.pod.as_ref())
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.pod.namespace()
    }

    /// `metadata.labels`.
    pub fn labels(&self) -> &Labels {
        static NONE: Labels = Labels::new();
        self.pod.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    /// The tolerations of its spec.
    pub fn tolerations(&self) -> &[Toleration] {
        self.pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
    }

    /// `spec.schedulerName`, or the default's.
    pub fn scheduler_name(&self) -> &str {
        scheduler_name(&self.pod)
    }

    /// `status.nominatedNodeName`: where room is being made for it.
    pub fn nominated_node(&self) -> Option<&str> {
        let status = self.pod.status.as_ref()?;
        status.nominated_node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// Whether it counts on a node exactly as the other does.
    pub fn counts_like(&self, other: &Self) -> bool {
        self.request == other.request
            && self.ports == other.ports
            && self.terminating == other.terminating
            && self.labels() == other.labels()
            && self.pod_affinity == other.pod_affinity
    }
}

/// `spec.schedulerName`, or the default's.
pub fn scheduler_name(pod: &Pod) -> &str {
    let name = pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref());
    name.filter(|name| !name.is_empty()).unwrap_or(DEFAULT_SCHEDULER)
}

fn sidecars(init: &Option<Vec<Container>>) -> impl Iterator<Item = &Container> {
    init.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"))
}

/// What a pod is to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It waits for a node.
    Pending,
    /// It takes up room on a node.
    Assigned(&'a str),
    /// It is over, or being deleted before it got a node.
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
    if pod.is_deleting() { Standing::Irrelevant } else { Standing::Pending }
}
