//! What is wrong with the spec of a pod or of a pod template.

use std::collections::HashSet;

use api::openapi::api::core::v1::{Container, HostAlias, PodDNSConfig, PodSpec, PodTemplateSpec};
use api::validation::{FieldError, dns_subdomain, labels, qualified_name};

use super::container::{Place, container, ports_in_use};
use super::{resources, scheduling, security, volume};
use crate::registry::fields::{
    self, Errors, between, not_negative, one_of, optional_label, optional_subdomain, required, set,
};

/// Restart policies of pods.
const RESTART: &[&str] = &["Always", "Never", "OnFailure"];
const DNS: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];

/// Checks a template of pods that are replaced and never end: Deployments, ReplicaSets.
pub fn replicated_template(errors: &mut Errors, field: &str, template: &PodTemplateSpec) {
    let meta = template.metadata.clone().unwrap_or_default();
    errors.extend(labels(&meta.labels.unwrap_or_default(), &format!("{field}.labels")));
    errors.extend(api::validation::annotations(
        &meta.annotations.unwrap_or_default(),
        &format!("{field}.annotations"),
    ));
    let field = format!("{field}.spec");
    let empty = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&empty);
    validate(errors, &field, spec);
    if spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
        errors.push(FieldError::forbidden(
            format!("{field}.ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
    if let Some(policy) = set(spec.restart_policy.as_deref())
        && policy != "Always"
        && RESTART.contains(&policy)
    {
        errors.push(FieldError::not_supported(format!("{field}.restartPolicy"), policy, &["Always"]));
    }
    if spec.active_deadline_seconds.is_some() {
        errors.push(FieldError::forbidden(
            format!("{field}.activeDeadlineSeconds"),
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        ));
    }
}

/// Checks a pod's spec beneath `field`.
pub fn validate(errors: &mut Errors, field: &str, spec: &PodSpec) {
    let at = |name: &str| format!("{field}.{name}");
    let volumes = volume::volumes(errors, &at("volumes"), spec.volumes.as_deref().unwrap_or_default());
    containers(errors, field, spec, &volumes);
    one_of(errors, &at("restartPolicy"), spec.restart_policy.as_deref(), RESTART);
    one_of(errors, &at("dnsPolicy"), spec.dns_policy.as_deref(), DNS);
    dns_config(errors, &at("dnsConfig"), spec.dns_policy.as_deref(), spec.dns_config.as_ref());
    let grace = spec.termination_grace_period_seconds;
    not_negative(errors, &at("terminationGracePeriodSeconds"), grace);
    between(errors, &at("activeDeadlineSeconds"), spec.active_deadline_seconds, 1, i64::from(i32::MAX));
    errors.extend(labels(&spec.node_selector.clone().unwrap_or_default(), &at("nodeSelector")));
    optional_subdomain(errors, &at("serviceAccountName"), spec.service_account_name.as_deref());
    optional_subdomain(errors, &at("nodeName"), spec.node_name.as_deref());
    optional_label(errors, &at("hostname"), spec.hostname.as_deref());
    optional_label(errors, &at("subdomain"), spec.subdomain.as_deref());
    optional_subdomain(errors, &at("priorityClassName"), spec.priority_class_name.as_deref());
    optional_subdomain(errors, &at("runtimeClassName"), spec.runtime_class_name.as_deref());
    let preemption = spec.preemption_policy.as_deref();
    fields::optional_one_of(errors, &at("preemptionPolicy"), preemption, &["Never", "PreemptLowerPriority"]);
    security::pod(errors, field, spec);
    scheduling::validate(errors, field, spec);
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        host_alias(errors, &format!("{field}.hostAliases[{i}]"), alias);
    }
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let field = format!("{field}.readinessGates[{i}].conditionType");
        fields::names(errors, &field, &gate.condition_type, qualified_name(&gate.condition_type));
    }
    if let Some(whole) = &spec.resources {
        resources::requirements(errors, &at("resources"), whole);
    }
    for (name, quantity) in spec.overhead.iter().flatten() {
        fields::quantity(errors, &format!("{field}.overhead[{name}]"), quantity);
    }
}

fn containers(errors: &mut Errors, field: &str, spec: &PodSpec, volumes: &HashSet<&str>) {
    let init = spec.init_containers.as_deref().unwrap_or_default();
    if spec.containers.is_empty() {
        errors.push(FieldError::required(format!("{field}.containers"), ""));
    }
    let mut seen = HashSet::new();
    let places = [(Place::Main, &spec.containers[..], "containers"), (Place::Init, init, "initContainers")];
    for (place, list, name) in places {
        for (i, one) in list.iter().enumerate() {
            let field = format!("{field}.{name}[{i}]");
            container(errors, &field, one, place, volumes);
            if !one.name.is_empty() && !seen.insert(one.name.as_str()) {
                errors.push(FieldError::duplicate(format!("{field}.name"), one.name.as_str()));
            }
        }
    }
    ports_in_use(errors, &format!("{field}.containers"), &spec.containers);
    if spec.host_network == Some(true) {
        host_network_ports(errors, &format!("{field}.containers"), &spec.containers);
        host_network_ports(errors, &format!("{field}.initContainers"), init);
    }
}

/// In the node's network a container's port is the node's.
fn host_network_ports(errors: &mut Errors, field: &str, containers: &[Container]) {
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            if port.host_port != Some(port.container_port) {
                errors.push(FieldError::invalid(
                    format!("{field}[{i}].ports[{j}].containerPort"),
                    port.container_port,
                    "must match `hostPort` when `hostNetwork` is true",
                ));
            }
        }
    }
}

fn host_alias(errors: &mut Errors, field: &str, alias: &HostAlias) {
    fields::ip(errors, &format!("{field}.ip"), &alias.ip);
    for (i, name) in alias.hostnames.iter().flatten().enumerate() {
        fields::names(errors, &format!("{field}.hostnames[{i}]"), name, dns_subdomain(name));
    }
}

fn dns_config(errors: &mut Errors, field: &str, policy: Option<&str>, config: Option<&PodDNSConfig>) {
    let servers = config.and_then(|c| c.nameservers.as_deref()).unwrap_or_default();
    if policy == Some("None") && servers.is_empty() {
        errors.push(FieldError::required(
            format!("{field}.nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        ));
    }
    let Some(config) = config else { return };
    if servers.len() > 3 {
        let detail = "must not have more than 3 nameservers";
        errors.push(FieldError::invalid(format!("{field}.nameservers"), servers.to_vec(), detail));
    }
    for (i, server) in servers.iter().enumerate() {
        fields::ip(errors, &format!("{field}.nameservers[{i}]"), server);
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    if searches.len() > 32 {
        let detail = "must not have more than 32 search paths";
        errors.push(FieldError::invalid(format!("{field}.searches"), searches.to_vec(), detail));
    }
    for (i, search) in searches.iter().enumerate() {
        let relative = search.strip_suffix('.').unwrap_or(search);
        if search != "." {
            // Underscores are allowed, as resolvers allow them.
            let problems = dns_subdomain(&relative.replace('_', "a"));
            fields::names(errors, &format!("{field}.searches[{i}]"), search, problems);
        }
    }
    for (i, option) in config.options.iter().flatten().enumerate() {
        let name = set(option.name.as_deref());
        if name.is_none() {
            errors.push(FieldError::required(format!("{field}.options[{i}]"), "must not be empty"));
        }
    }
}

/// Checks the names that a pod's own metadata and spec must have beyond those of a template.
pub fn pod_only(errors: &mut Errors, spec: &PodSpec) {
    if spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
        errors.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
    }
    for (i, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let field = format!("spec.schedulingGates[{i}].name");
        required(errors, &field, Some(&gate.name));
        if !gate.name.is_empty() {
            fields::names(errors, &field, &gate.name, qualified_name(&gate.name));
        }
    }
    if let Some(name) = set(spec.hostname_override.as_deref()) {
        let problems = dns_subdomain(name);
        fields::names(errors, "spec.hostnameOverride", name, problems);
        if name.len() > 64 {
            errors.push(FieldError::too_long("spec.hostnameOverride", 64));
        }
        if spec.host_network == Some(true) {
            let detail = "may not be specified when hostNetwork is true";
            errors.push(FieldError::forbidden("spec.hostnameOverride", detail));
        }
    }
    for (i, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        let field = format!("spec.imagePullSecrets[{i}].name");
        optional_subdomain(errors, &field, Some(&secret.name));
    }
}
