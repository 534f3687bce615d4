//! The rules of nodes.

use std::collections::{BTreeSet, HashSet};

use api::conditions;
use api::openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use api::validation::{FieldError, label_value, qualified_name};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{self, Errors, set};
use crate::registry::printing::{age, or_none};
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of nodes.
pub struct NodeStrategy;

impl Strategy for NodeStrategy {
    type K = Node;

    fn default(&self, node: &mut Node) {
        if let Some(spec) = &mut node.spec {
            sync_ranges(spec);
        }
        if let Some(status) = &mut node.status {
            if status.allocatable.is_none() {
                status.allocatable.clone_from(&status.capacity);
            }
            fields::canonicalize(&mut status.capacity);
            fields::canonicalize(&mut status.allocatable);
        }
    }

    fn prepare_for_update(&self, new: &mut Node, old: &Node) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(&self, new: &mut Node, old: &Node) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, node: &Node) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = node.spec.clone().unwrap_or_default();
        taints(&mut errors, "spec.taints", spec.taints.as_deref().unwrap_or_default());
        ranges(&mut errors, &spec);
        status(&mut errors, &node.status.clone().unwrap_or_default());
        errors
    }

    fn validate_update(&self, new: &Node, old: &Node) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (new, old) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        let set_once = [
            ("podCIDR", "spec.podCIDRs", new.pod_cidr != old.pod_cidr, old.pod_cidr.as_deref()),
            ("providerID", "spec.providerID", new.provider_id != old.provider_id, old.provider_id.as_deref()),
        ];
        for (name, field, changed, before) in set_once {
            if changed && set(before).is_some() {
                let detail = format!("node updates may not change {name} except from \"\" to valid");
                errors.push(FieldError::forbidden(field, &detail));
            }
        }
        errors
    }

    fn validate_status_update(&self, new: &Node, _old: &Node) -> Vec<FieldError> {
        let mut errors = Vec::new();
        status(&mut errors, &new.status.clone().unwrap_or_default());
        errors
    }

    fn selectable_fields(&self, node: &Node) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", is_cordoned(node).to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Status", "The status of the node"),
            Column::string("Roles", "The roles of the node"),
            AGE,
            Column::string("Version", "Kubelet Version reported by the node."),
            Column::string("Internal-IP", "The node's address within the cluster.").wide(),
            Column::string("External-IP", "The node's address outside of the cluster.").wide(),
            Column::string("OS-Image", "The operating system that the node reports.").wide(),
            Column::string("Kernel-Version", "The kernel version that the node reports.").wide(),
            Column::string("Container-Runtime", "The container runtime and version that the node reports.")
                .wide(),
        ];
        COLUMNS
    }

    fn row(&self, node: &Node, now: Timestamp) -> Vec<Value> {
        let info = node.status.as_ref().and_then(|s| s.node_info.clone()).unwrap_or_default();
        let unknown = |text: &str| if text.is_empty() { "<unknown>".to_owned() } else { text.to_owned() };
        vec![
            json!(node.metadata.name),
            json!(readiness(node)),
            json!(roles(node)),
            json!(age(node.metadata.creation_timestamp.as_ref(), now)),
            json!(info.kubelet_version),
            json!(address(node, "InternalIP")),
            json!(address(node, "ExternalIP")),
            json!(unknown(&info.os_image)),
            json!(unknown(&info.kernel_version)),
            json!(unknown(&info.container_runtime_version)),
        ]
    }
}

/// `podCIDR` is the first of `podCIDRs`; whoever writes one of them means both.
fn sync_ranges(spec: &mut NodeSpec) {
    let first = spec.pod_cidrs.iter().flatten().next().cloned();
    match (set(spec.pod_cidr.as_deref()).map(str::to_owned), first) {
        (Some(range), None) => spec.pod_cidrs = Some(vec![range]),
        (None, Some(range)) => spec.pod_cidr = Some(range),
        _ => {}
    }
}

fn ranges(errors: &mut Errors, spec: &NodeSpec) {
    let all = spec.pod_cidrs.as_deref().unwrap_or_default();
    for (i, range) in all.iter().enumerate() {
        fields::cidr(errors, &format!("spec.podCIDRs[{i}]"), range);
    }
    if let (Some(one), Some(first)) = (spec.pod_cidr.as_deref(), all.first())
        && one != first
    {
        let detail = "first value must match `podCIDR`";
        errors.push(FieldError::invalid("spec.podCIDRs[0]", first.as_str(), detail));
    }
}

/// Checks taints, each of which may stand once per key and effect.
fn taints(errors: &mut Errors, field: &str, taints: &[Taint]) {
    let mut seen = HashSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let at = |name: &str| format!("{field}[{i}].{name}");
        fields::names(errors, &at("key"), &taint.key, qualified_name(&taint.key));
        let value = taint.value.as_deref().unwrap_or_default();
        fields::names(errors, &at("value"), value, label_value(value));
        let effects = &["NoExecute", "NoSchedule", "PreferNoSchedule"];
        fields::one_of(errors, &at("effect"), Some(&taint.effect), effects);
        if !seen.insert((taint.key.as_str(), taint.effect.as_str())) {
            let value = json!({"key": taint.key, "effect": taint.effect});
            errors.push(FieldError::duplicate(format!("{field}[{i}]"), value));
        }
    }
}

fn status(errors: &mut Errors, status: &NodeStatus) {
    let mut seen = HashSet::new();
    for (i, address) in status.addresses.iter().flatten().enumerate() {
        if !seen.insert((&address.type_, &address.address)) {
            let value = json!({"type": address.type_, "address": address.address});
            errors.push(FieldError::duplicate(format!("status.addresses[{i}]"), value));
        }
    }
    for (name, quantities) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        for (resource, quantity) in quantities.iter().flatten() {
            let field = format!("status.{name}[{resource}]");
            fields::names(errors, &field, resource, qualified_name(resource));
            fields::quantity(errors, &field, quantity);
        }
    }
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true)
}

fn readiness(node: &Node) -> String {
    let none = None;
    let conditions = node.status.as_ref().map_or(&none, |s| &s.conditions);
    let mut words = vec![match conditions::find(conditions, "Ready") {
        Some(ready) if ready.status == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if is_cordoned(node) {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles(node: &Node) -> String {
    let labels = node.metadata.labels.iter().flatten();
    let roles: BTreeSet<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => (key == "kubernetes.io/role").then_some(value.as_str()),
        })
        .filter(|role| !role.is_empty())
        .collect();
    or_none(Some(&roles.into_iter().collect::<Vec<_>>().join(",")))
}

fn address(node: &Node, type_: &str) -> String {
    let mut addresses = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    or_none(addresses.find(|a| a.type_ == type_).map(|a| a.address.as_str()))
}

#[cfg(test)]
mod tests;
