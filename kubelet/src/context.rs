//! What every part of the kubelet works with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use api::quantity::Amount;
use client::{Client, EventType, Recorder, Store};
use component::clock::Clock;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};

use crate::cgroups::Cgroups;
use crate::images::Images;
use crate::objects::Objects;
use crate::pod::env::Facts;
use crate::pod::sandbox::Node;
use crate::report::Reporter;
use crate::runtime::Runtime;

/// The tools and facts of one node; shared by its pods' workers.
pub struct Context {
    /// The API.
    pub client: Client,
    /// Where containers run.
    pub runtime: Runtime,
    /// Tells users what happens.
    pub recorder: Recorder,
    /// The present.
    pub clock: Clock,
    /// ConfigMaps and Secrets.
    pub objects: Objects,
    /// Images.
    pub images: Images,
    /// Control groups.
    pub cgroups: Cgroups,
    /// All Services, for the environment of containers.
    pub services: Store<Service>,
    /// Writes pods' statuses.
    pub reporter: Reporter,
    /// Figures.
    pub meters: crate::meters::Meters,
    /// `--root-dir`.
    pub root: PathBuf,
    /// What sandboxes are told of the node.
    pub node: Node,
    /// The node's addresses.
    pub host_ips: Vec<String>,
    /// What pods may use of the node in all, by resource.
    pub allocatable: BTreeMap<String, Amount>,
    /// The node's memory in bytes.
    pub memory_capacity: i64,
}

impl Context {
    /// The directory of a pod.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// What a pod may ask of the node through the downward API.
    pub fn facts(&self, pod_ips: Vec<String>) -> Facts {
        Facts { host_ips: self.host_ips.clone(), pod_ips, allocatable: self.allocatable.clone() }
    }

    /// Tells of something that happened with a pod.
    pub fn pod_event(&self, pod: &Pod, type_: EventType, reason: &str, message: impl Into<String>) {
        self.recorder.event(pod, type_, reason, message);
    }

    /// Tells of something that happened with a container of a pod.
    pub fn container_event(
        &self,
        pod: &Pod,
        container: &str,
        type_: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let init = pod
            .spec
            .as_ref()
            .is_some_and(|s| s.init_containers.iter().flatten().any(|c| c.name == container));
        let list = if init { "spec.initContainers" } else { "spec.containers" };
        let regarding =
            ObjectReference { field_path: Some(format!("{list}{{{container}}}")), ..client::reference(pod) };
        self.recorder.event_ref(regarding, type_, reason, message);
    }
}

/// How the context is passed about.
pub type Ctx = Arc<Context>;
