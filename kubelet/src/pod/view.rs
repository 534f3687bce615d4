//! What the runtime reports of one pod.

use std::collections::HashMap;

use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_cri::v1 as cri;

use crate::runtime::{CONTAINER_NAME_LABEL, POD_UID_LABEL, Runtime, RuntimeError};

/// Where a container is in its life, as the runtime says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Made, not started.
    Created,
    /// Its process runs.
    Running,
    /// Its process ended, or never could start.
    Exited,
    /// The runtime does not know.
    Unknown,
}

/// A sandbox of the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// Whether its network and its process stand.
    pub ready: bool,
    /// Counts the pod's sandboxes from 0.
    pub attempt: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// The pod's addresses, the primary one first; empty with the host's network.
    pub ips: Vec<String>,
}

/// One run of a container of the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// The runtime's id.
    pub id: String,
    /// The name in the pod's spec.
    pub name: String,
    /// Counts the container's runs from 0; the restart count.
    pub attempt: u32,
    /// The sandbox that it lives in.
    pub sandbox_id: String,
    /// Where it is in its life.
    pub state: RunState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its process started, if it did.
    pub started_at: Option<Timestamp>,
    /// When its process ended, if it did.
    pub finished_at: Option<Timestamp>,
    /// The process' exit code; 128 + n for signal n.
    pub exit_code: i32,
    /// The runtime's word for the end: `Completed`, `Error`, `OOMKilled`, `StartError`.
    pub reason: String,
    /// The runtime's explanation of the end.
    pub message: String,
    /// The image as it was asked for.
    pub image: String,
    /// The image by digest or id.
    pub image_ref: String,
    /// Annotations that the kubelet wrote when it made the container.
    pub annotations: HashMap<String, String>,
}

impl Container {
    /// Whether the process may be running.
    pub fn is_alive(&self) -> bool {
        match self.state {
            RunState::Running | RunState::Unknown => true,
            RunState::Created | RunState::Exited => false,
        }
    }
}

/// Everything that the runtime has of one pod, the newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodView {
    /// The pod's sandboxes.
    pub sandboxes: Vec<Sandbox>,
    /// Every run of every container that the runtime still knows.
    pub containers: Vec<Container>,
}

impl PodView {
    /// The sandbox in which containers may be started: the newest one, if it is ready.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|s| s.ready)
    }

    /// The newest run of a container.
    pub fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The run before the newest one.
    pub fn previous(&self, name: &str) -> Option<&Container> {
        self.containers.iter().filter(|c| c.name == name).nth(1)
    }

    /// The newest run of a container within a sandbox.
    pub fn latest_in(&self, name: &str, sandbox_id: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name && c.sandbox_id == sandbox_id)
    }

    /// Whether anything of the pod may be running.
    pub fn any_alive(&self) -> bool {
        self.containers.iter().any(Container::is_alive)
    }

    /// Whether the runtime has nothing of the pod.
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    fn sorted(mut self) -> Self {
        self.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.created_at, s.attempt)));
        self.containers.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.attempt)));
        self
    }
}

fn time(nanos: i64) -> Option<Timestamp> {
    (nanos > 0).then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok()).flatten()
}

/// The state behind the runtime's number.
pub fn run_state(state: i32) -> RunState {
    match cri::ContainerState::try_from(state) {
        Ok(cri::ContainerState::ContainerCreated) => RunState::Created,
        Ok(cri::ContainerState::ContainerRunning) => RunState::Running,
        Ok(cri::ContainerState::ContainerExited) => RunState::Exited,
        Ok(cri::ContainerState::ContainerUnknown) | Err(_) => RunState::Unknown,
    }
}

fn container(listed: &cri::Container, status: cri::ContainerStatus) -> Container {
    let name = status.labels.get(CONTAINER_NAME_LABEL).or_else(|| listed.labels.get(CONTAINER_NAME_LABEL));
    Container {
        name: name.cloned().unwrap_or_default(),
        attempt: status.metadata.as_ref().or(listed.metadata.as_ref()).map_or(0, |m| m.attempt),
        sandbox_id: listed.pod_sandbox_id.clone(),
        state: run_state(status.state),
        created_at: time(status.created_at).unwrap_or_default(),
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: status
            .image
            .map(|i| if i.user_specified_image.is_empty() { i.image } else { i.user_specified_image })
            .unwrap_or_default(),
        image_ref: status.image_ref,
        annotations: status.annotations,
        id: status.id,
    }
}

fn sandbox(listed: &cri::PodSandbox, status: cri::PodSandboxStatus) -> Sandbox {
    let network = status.network.unwrap_or_default();
    let more = network.additional_ips.into_iter().map(|ip| ip.ip);
    Sandbox {
        id: listed.id.clone(),
        ready: status.state == cri::PodSandboxState::SandboxReady as i32,
        attempt: listed.metadata.as_ref().map_or(0, |m| m.attempt),
        created_at: time(listed.created_at).unwrap_or_default(),
        ips: std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect(),
    }
}

/// What vanished between the list and the question about it is simply not there.
fn absent<T>(answer: Result<T, RuntimeError>) -> Result<Option<T>, RuntimeError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks the runtime for everything of a pod. `known` spares the question about ended containers.
pub async fn observe(runtime: &Runtime, uid: &str, known: &PodView) -> Result<PodView, RuntimeError> {
    let labels = [(POD_UID_LABEL, uid)];
    let (sandboxes, containers) = tokio::try_join!(runtime.sandboxes(&labels), runtime.containers(&labels))?;
    let sandboxes = try_join_all(sandboxes.iter().map(|listed| async move {
        let status = absent(runtime.sandbox_status(&listed.id).await)?;
        Ok::<_, RuntimeError>(status.map(|s| sandbox(listed, s)))
    }));
    let containers = try_join_all(containers.iter().map(|listed| async move {
        let before = known.containers.iter().find(|c| c.id == listed.id);
        if let Some(ended) = before.filter(|c| c.state == RunState::Exited) {
            return Ok(Some(ended.clone()));
        }
        let status = absent(runtime.container_status(&listed.id).await)?;
        Ok::<_, RuntimeError>(status.map(|s| container(listed, s)))
    }));
    let (sandboxes, containers) = tokio::try_join!(sandboxes, containers)?;
    Ok(PodView {
        sandboxes: sandboxes.into_iter().flatten().collect(),
        containers: containers.into_iter().flatten().collect(),
    }
    .sorted())
}
