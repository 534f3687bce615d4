//! The node's own object: registration, status, heartbeats, and its pod range.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Error, EventType, Patch, Recorder};
use component::clock::Clock;
use component::tasks::{AbortOnDrop, Spawner};
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, ObjectReference, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::report::difference;
use crate::runtime::Runtime;

pub mod eviction;
pub mod lease;
pub mod machine;
pub mod status;

use machine::Machine;

/// How soon a node that is not ready is looked at again, at first and after a minute.
const NOT_READY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How often an unchanged status is written all the same.
const REPORT: Duration = Duration::from_secs(300);

/// What a node is registered with.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// The node's name.
    pub name: String,
    /// `--node-labels`.
    pub labels: BTreeMap<String, String>,
    /// `--register-with-taints`.
    pub taints: Vec<Taint>,
}

/// The labels that every node has.
fn default_labels(name: &str, machine: &Machine) -> BTreeMap<String, String> {
    let arch = machine.architecture.clone();
    [
        ("kubernetes.io/hostname", name.to_owned()),
        ("kubernetes.io/os", "linux".into()),
        ("kubernetes.io/arch", arch.clone()),
        ("beta.kubernetes.io/os", "linux".into()),
        ("beta.kubernetes.io/arch", arch),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect()
}

/// The node as it is first registered.
pub(crate) fn fresh(registration: &Registration, machine: &Machine) -> Node {
    let mut labels = default_labels(&registration.name, machine);
    labels.extend(registration.labels.clone());
    let attach = ("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned());
    Node {
        metadata: ObjectMeta {
            name: Some(registration.name.clone()),
            labels: Some(labels),
            annotations: Some([attach].into()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!registration.taints.is_empty()).then(|| registration.taints.clone()),
            ..NodeSpec::default()
        }),
        status: None,
    }
}

/// The tools of the node's tasks.
pub struct NodeAgent {
    /// The API.
    pub client: Client,
    /// Whose readiness is the node's.
    pub runtime: Runtime,
    /// Tells users what happens.
    pub recorder: Recorder,
    /// The present.
    pub clock: Clock,
    /// What the node is registered with.
    pub registration: Registration,
    /// The machine.
    pub machine: Machine,
    /// `--node-status-update-frequency`.
    pub frequency: Duration,
    /// The node's pod range, as the API has it.
    pub pod_cidr: watch::Receiver<Option<String>>,
    /// Waked when images have come or gone.
    pub images_changed: Arc<Notify>,
    /// Waked when the node's object has been deleted.
    pub deleted: Arc<Notify>,
}

impl NodeAgent {
    /// Creates the node's object, or takes over the one that is there; tries until it succeeds.
    pub async fn register(&self, token: &CancellationToken) -> Option<Node> {
        let mut wait = Duration::from_millis(100);
        loop {
            match self.try_register().await {
                Ok(node) => {
                    tracing::info!(node = self.registration.name, "registered");
                    return Some(node);
                }
                Err(error) => tracing::warn!(%error, "registering the node failed; trying again"),
            }
            tokio::select! {
                () = token.cancelled() => return None,
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(Duration::from_secs(7)),
            }
        }
    }

    async fn try_register(&self) -> Result<Node, Error> {
        let nodes = self.client.all::<Node>();
        let mut wanted = fresh(&self.registration, &self.machine);
        wanted.status = Some(self.status(None, &HashMap::new()).await);
        match nodes.create(&wanted).await {
            Err(error) if error.is_already_exists() => {}
            other => return other,
        }
        let present = nodes.get(&self.registration.name).await?;
        let have = present.metadata.labels.clone().unwrap_or_default();
        let labels = wanted.metadata.labels.unwrap_or_default();
        let missing: BTreeMap<_, _> = labels.iter().filter(|(k, v)| have.get(*k) != Some(v)).collect();
        if missing.is_empty() {
            return Ok(present);
        }
        nodes.patch(&self.registration.name, &Patch::Merge(json!({"metadata": {"labels": missing}}))).await
    }

    fn reference(&self) -> ObjectReference {
        let name = self.registration.name.clone();
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            uid: Some(name.clone()),
            name: Some(name),
            ..ObjectReference::default()
        }
    }

    async fn status(
        &self,
        before: Option<&NodeStatus>,
        images: &HashMap<String, k8s_cri::v1::Image>,
    ) -> NodeStatus {
        let (version, runtime) = tokio::join!(self.runtime.version(), self.runtime.status());
        let observed = status::Observed {
            runtime: runtime.map_err(|e| e.to_string()),
            runtime_version: version.ok().map(|v| format!("{}://{}", v.runtime_name, v.runtime_version)),
            pressure: self.machine.pressure(),
            images: images.values().cloned().collect(),
        };
        status::status(&self.machine, &self.registration.name, before, &observed, self.clock.time())
    }

    /// Registers the node and keeps its lease and its status until `token` says otherwise. A node that is deleted
    /// while its kubelet runs is registered again.
    pub async fn keep(mut self, tasks: Spawner, token: CancellationToken) {
        self.recorder.event_ref(self.reference(), EventType::Normal, "Starting", "Starting kubelet.");
        while let Some(node) = self.register(&token).await {
            let (name, uid) = (self.registration.name.clone(), node.metadata.uid.clone().unwrap_or_default());
            let registered = token.child_token();
            let lease = lease::keep(self.client.clone(), name, uid, self.clock.clone(), registered.clone());
            let _lease = AbortOnDrop(tasks.spawn("node lease", lease));
            self.keep_status(node, registered).await;
            if token.is_cancelled() {
                return;
            }
            tracing::warn!(node = self.registration.name, "the node was deleted; registering it again");
        }
    }

    /// Keeps the node's status true until `token` says otherwise, or the node's object is gone.
    async fn keep_status(&mut self, registered: Node, token: CancellationToken) {
        let mut known = registered.status.unwrap_or_default();
        let mut written = None::<Instant>;
        let mut images = HashMap::new();
        let mut images_at = None::<Instant>;
        let mut not_ready_since = None::<Instant>;
        let mut configured = None::<String>;
        loop {
            self.configure_network(&mut configured).await;
            if images_at.is_none_or(|at| at.elapsed() >= Duration::from_secs(60))
                && let Ok(list) = self.runtime.list_images().await
            {
                images = list.into_iter().map(|i| (i.id.clone(), i)).collect();
                images_at = Some(Instant::now());
            }
            let wanted = self.status(Some(&known), &images).await;
            let ready = status::is_ready(&wanted);
            let changed = !status::same(&known, &wanted);
            if changed || written.is_none_or(|at| at.elapsed() >= REPORT) {
                self.announce(&known, &wanted);
                match self.write(&known, &wanted).await {
                    Ok(node) => {
                        known = node.status.unwrap_or_default();
                        written = Some(Instant::now());
                    }
                    Err(error) if error.is_not_found() => return,
                    Err(error) => tracing::warn!(%error, "writing the node's status failed"),
                }
            }
            not_ready_since = if ready { None } else { not_ready_since.or_else(|| Some(Instant::now())) };
            let wait = match not_ready_since {
                Some(since) if since.elapsed() < Duration::from_secs(60) => NOT_READY.0,
                Some(_) => NOT_READY.1.min(self.frequency),
                None => self.frequency,
            };
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                () = self.deleted.notified() => return,
                () = self.images_changed.notified() => images_at = None,
                changed = self.pod_cidr.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn configure_network(&mut self, configured: &mut Option<String>) {
        let range = self.pod_cidr.borrow_and_update().clone();
        let Some(range) = range.filter(|r| configured.as_ref() != Some(r)) else { return };
        match self.runtime.set_pod_cidr(&range).await {
            Ok(()) => {
                tracing::info!(pod_cidr = range, "the runtime has the node's pod range");
                *configured = Some(range);
            }
            Err(error) => tracing::warn!(%error, "telling the runtime the pod range failed; trying again"),
        }
    }

    fn announce(&self, before: &NodeStatus, now: &NodeStatus) {
        let ready = status::is_ready(now);
        if ready != status::is_ready(before) {
            let reason = if ready { "NodeReady" } else { "NodeNotReady" };
            let message = format!("Node {} status is now: {reason}", self.registration.name);
            tracing::info!(node = self.registration.name, "{message}");
            self.recorder.event_ref(self.reference(), EventType::Normal, reason, message);
        }
    }

    async fn write(&self, known: &NodeStatus, wanted: &NodeStatus) -> Result<Node, Error> {
        let encode = |s: &NodeStatus| serde_json::to_value(s).unwrap_or_default();
        let change = difference(&encode(known), &encode(wanted)).unwrap_or_else(|| json!({}));
        let nodes = self.client.all::<Node>();
        nodes.patch_status(&self.registration.name, &Patch::Merge(json!({"status": change}))).await
    }
}

/// The pod range of a node, if it has one.
pub fn pod_cidr(node: &Node) -> Option<String> {
    let spec = node.spec.as_ref()?;
    spec.pod_cidr.clone().filter(|r| !r.is_empty())
}
