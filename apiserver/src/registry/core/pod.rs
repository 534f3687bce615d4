//! The rules of pods.

pub mod container;
pub mod defaults;
pub mod env;
pub mod probe;
pub mod resources;
pub mod scheduling;
pub mod security;
pub mod spec;
pub mod table;
pub mod update;
pub mod volume;

use api::openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::Value;

use crate::registry::fields::{self, set};
use crate::registry::strategy::{Column, Strategy};

/// The rules of pods.
pub struct PodStrategy;

impl Strategy for PodStrategy {
    type K = Pod;

    fn default(&self, pod: &mut Pod) {
        defaults::pod(pod.spec.get_or_insert_default());
    }

    fn prepare_for_create(&self, pod: &mut Pod) {
        let spec = pod.spec.get_or_insert_default();
        let mut status = PodStatus {
            phase: Some("Pending".into()),
            qos_class: Some(resources::qos_class(spec).into()),
            ..PodStatus::default()
        };
        if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
            status.conditions = Some(vec![PodCondition {
                type_: "PodScheduled".into(),
                status: "False".into(),
                reason: Some("SchedulingGated".into()),
                message: Some("Scheduling is blocked due to non-empty scheduling gates".into()),
                ..PodCondition::default()
            }]);
        }
        pod.status = Some(status);
    }

    fn prepare_for_update(&self, new: &mut Pod, old: &Pod) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(&self, new: &mut Pod, old: &Pod) {
        new.spec.clone_from(&old.spec);
        new.metadata.owner_references.clone_from(&old.metadata.owner_references);
        let class = old.status.as_ref().and_then(|s| s.qos_class.clone());
        let status = new.status.get_or_insert_default();
        if status.qos_class.as_deref().unwrap_or_default().is_empty() {
            status.qos_class = class;
        }
        sync_ips(status);
    }

    fn validate(&self, pod: &Pod) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = pod.spec.clone().unwrap_or_default();
        spec::validate(&mut errors, "spec", &spec);
        spec::pod_only(&mut errors, &spec);
        errors
    }

    fn validate_update(&self, new: &Pod, old: &Pod) -> Vec<FieldError> {
        let mut errors = Vec::new();
        update::spec(&mut errors, new, old);
        errors
    }

    fn validate_status_update(&self, new: &Pod, old: &Pod) -> Vec<FieldError> {
        let mut errors = Vec::new();
        update::status(&mut errors, new, old);
        let status = new.status.clone().unwrap_or_default();
        for (i, ip) in status.pod_ips.iter().flatten().enumerate() {
            fields::ip(&mut errors, &format!("status.podIPs[{i}]"), &ip.ip);
        }
        let phases = &["Failed", "Pending", "Running", "Succeeded", "Unknown"];
        fields::optional_one_of(&mut errors, "status.phase", set(status.phase.as_deref()), phases);
        errors
    }

    fn selectable_fields(&self, pod: &Pod) -> Vec<(&'static str, String)> {
        let text = |value: Option<&String>| value.cloned().unwrap_or_default();
        let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
        vec![
            ("spec.nodeName", text(spec.and_then(|s| s.node_name.as_ref()))),
            ("spec.restartPolicy", text(spec.and_then(|s| s.restart_policy.as_ref()))),
            ("spec.schedulerName", text(spec.and_then(|s| s.scheduler_name.as_ref()))),
            ("spec.serviceAccountName", text(spec.and_then(|s| s.service_account_name.as_ref()))),
            ("spec.hostNetwork", (spec.and_then(|s| s.host_network) == Some(true)).to_string()),
            ("status.phase", text(status.and_then(|s| s.phase.as_ref()))),
            ("status.podIP", text(status.and_then(|s| s.pod_ip.as_ref()))),
            ("status.nominatedNodeName", text(status.and_then(|s| s.nominated_node_name.as_ref()))),
        ]
    }

    fn columns(&self) -> &'static [Column] {
        table::COLUMNS
    }

    fn row(&self, pod: &Pod, now: Timestamp) -> Vec<Value> {
        table::row(pod, now)
    }

    fn deletion_grace(&self, pod: &Pod, requested: Option<i64>) -> Option<i64> {
        let spec = pod.spec.as_ref();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let scheduled = spec.is_some_and(|s| set(s.node_name.as_deref()).is_some());
        if !scheduled || phase == "Failed" || phase == "Succeeded" {
            return Some(0);
        }
        let own = spec.and_then(|s| s.termination_grace_period_seconds);
        let seconds = requested.or(own).unwrap_or(30);
        Some(if seconds < 0 { 1 } else { seconds })
    }
}

/// `podIP` is the first of `podIPs`; whoever writes one of them means both.
fn sync_ips(status: &mut PodStatus) {
    use api::openapi::api::core::v1::{HostIP, PodIP};
    let first = status.pod_ips.iter().flatten().next().map(|ip| ip.ip.clone());
    match (set(status.pod_ip.as_deref()).map(str::to_owned), first) {
        (Some(ip), None) => status.pod_ips = Some(vec![PodIP { ip }]),
        (None, Some(ip)) => status.pod_ip = Some(ip),
        _ => {}
    }
    let first = status.host_ips.iter().flatten().next().map(|ip| ip.ip.clone());
    match (set(status.host_ip.as_deref()).map(str::to_owned), first) {
        (Some(ip), None) => status.host_ips = Some(vec![HostIP { ip }]),
        (None, Some(ip)) => status.host_ip = Some(ip),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
