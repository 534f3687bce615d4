//! A pod's row in a table, above all what stands under STATUS, READY and RESTARTS.

use api::conditions;
use api::openapi::api::core::v1::{ContainerStatus, Pod, PodSpec, PodStatus};
use api::openapi::apimachinery::pkg::apis::meta::v1::Time;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::printing::{age, or_none};
use crate::registry::strategy::{AGE, Column, NAME};

/// The columns of pods.
pub const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    Column::string("Status", "The aggregate status of the containers in this pod."),
    Column::string(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in \
         this pod has restarted.",
    ),
    AGE,
    Column::string("IP", "The address of the pod, reachable within the cluster.").wide(),
    Column::string("Node", "The node that the pod is bound to.").wide(),
    Column::string("Nominated Node", "The node that makes room for the pod.").wide(),
    Column::string("Readiness Gates", "The pod's own conditions of readiness that hold, of those it names.")
        .wide(),
];

/// The cells of a pod.
pub fn row(pod: &Pod, now: Timestamp) -> Vec<Value> {
    let (empty_spec, empty_status) = (PodSpec::default(), PodStatus::default());
    let spec = pod.spec.as_ref().unwrap_or(&empty_spec);
    let status = pod.status.as_ref().unwrap_or(&empty_status);
    let summary = summary(pod, spec, status);
    let ip = status.pod_ips.iter().flatten().next().map(|ip| ip.ip.as_str());
    vec![
        json!(pod.metadata.name),
        json!(format!("{}/{}", summary.ready, summary.containers)),
        json!(summary.reason),
        json!(summary.restarts.show(now)),
        json!(age(pod.metadata.creation_timestamp.as_ref(), now)),
        json!(or_none(ip.or(status.pod_ip.as_deref()))),
        json!(or_none(spec.node_name.as_deref())),
        json!(or_none(status.nominated_node_name.as_deref())),
        json!(gates(spec, status)),
    ]
}

fn gates(spec: &PodSpec, status: &PodStatus) -> String {
    let gates = spec.readiness_gates.as_deref().unwrap_or_default();
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates.iter().filter(|g| conditions::is_true(&status.conditions, &g.condition_type)).count();
    format!("{open}/{}", gates.len())
}

/// How often containers were started again, and when the last one of them had ended.
#[derive(Clone, Default)]
struct Restarts {
    count: i64,
    last: Option<Time>,
}

impl Restarts {
    fn add(&mut self, status: &ContainerStatus) {
        self.count += i64::from(status.restart_count);
        let ended = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        self.last = self.last.take().max(ended.and_then(|t| t.finished_at.clone()));
    }

    fn show(&self, now: Timestamp) -> String {
        match &self.last {
            Some(last) if self.count != 0 => format!("{} ({} ago)", self.count, age(Some(last), now)),
            _ => self.count.to_string(),
        }
    }
}

struct Summary {
    ready: usize,
    containers: usize,
    reason: String,
    restarts: Restarts,
}

fn summary(pod: &Pod, spec: &PodSpec, status: &PodStatus) -> Summary {
    let phase = status.phase.clone().unwrap_or_default();
    let mut reason = status.reason.clone().filter(|r| !r.is_empty()).unwrap_or_else(|| phase.clone());
    let gated = conditions::find(&status.conditions, "PodScheduled")
        .is_some_and(|c| c.reason.as_deref() == Some("SchedulingGated"));
    if gated {
        reason = "SchedulingGated".into();
    }
    let init = init_summary(spec, status);
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut summary = Summary {
        ready: init.ready,
        containers: spec.containers.len() + sidecars.count(),
        reason: init.reason.clone().unwrap_or(reason),
        restarts: init.restarts,
    };
    if init.reason.is_none() || conditions::is_true(&status.conditions, "Initialized") {
        summary.restarts = init.sidecar_restarts;
        main_summary(&mut summary, status);
    }
    let deleting = pod.metadata.deletion_timestamp.is_some();
    if deleting && status.reason.as_deref() == Some("NodeLost") {
        summary.reason = "Unknown".into();
    } else if deleting && phase != "Succeeded" && phase != "Failed" {
        summary.reason = "Terminating".into();
    }
    summary
}

#[derive(Default)]
struct InitSummary {
    /// Set while the pod is still initializing, or has failed to.
    reason: Option<String>,
    ready: usize,
    restarts: Restarts,
    sidecar_restarts: Restarts,
}

fn init_summary(spec: &PodSpec, status: &PodStatus) -> InitSummary {
    let total = spec.init_containers.as_ref().map_or(0, Vec::len);
    let is_sidecar = |name: &str| {
        let mut all = spec.init_containers.iter().flatten();
        all.any(|c| c.name == name && c.restart_policy.as_deref() == Some("Always"))
    };
    let mut summary = InitSummary::default();
    for (i, container) in status.init_container_statuses.iter().flatten().enumerate() {
        summary.restarts.add(container);
        let sidecar = is_sidecar(&container.name);
        if sidecar {
            summary.sidecar_restarts.add(container);
        }
        let state = container.state.clone().unwrap_or_default();
        let waiting = state.waiting.and_then(|w| w.reason).filter(|r| !r.is_empty());
        summary.reason = Some(match (state.terminated, waiting) {
            (Some(end), _) if end.exit_code == 0 => continue,
            _ if sidecar && container.started == Some(true) => {
                summary.ready += usize::from(container.ready);
                continue;
            }
            (Some(end), _) => format!("Init:{}", ending(end.reason.as_deref(), end.signal, end.exit_code)),
            (None, Some(reason)) if reason != "PodInitializing" => format!("Init:{reason}"),
            _ => format!("Init:{i}/{total}"),
        });
        break;
    }
    summary
}

fn ending(reason: Option<&str>, signal: Option<i32>, exit_code: i32) -> String {
    match (reason.filter(|r| !r.is_empty()), signal.unwrap_or(0)) {
        (Some(reason), _) => reason.to_owned(),
        (None, 0) => format!("ExitCode:{exit_code}"),
        (None, signal) => format!("Signal:{signal}"),
    }
}

/// The first container that has something to tell gives the reason.
fn main_summary(summary: &mut Summary, status: &PodStatus) {
    let mut running = false;
    for container in status.container_statuses.iter().flatten().rev() {
        summary.restarts.add(container);
        let state = container.state.clone().unwrap_or_default();
        let waiting = state.waiting.and_then(|w| w.reason).filter(|r| !r.is_empty());
        match (waiting, state.terminated) {
            (Some(reason), _) => summary.reason = reason,
            (None, Some(end)) => summary.reason = ending(end.reason.as_deref(), end.signal, end.exit_code),
            (None, None) if container.ready && state.running.is_some() => {
                running = true;
                summary.ready += 1;
            }
            (None, None) => {}
        }
    }
    if summary.reason == "Completed" && running {
        let ready = conditions::is_true(&status.conditions, "Ready");
        summary.reason = if ready { "Running" } else { "NotReady" }.into();
    }
}
