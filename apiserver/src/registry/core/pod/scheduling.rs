//! What is wrong with what a pod asks of the scheduler: tolerations, affinity, spreading.

use std::collections::HashSet;

use api::openapi::api::core::v1::{
    Affinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec, Toleration,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use api::validation::{FieldError, dns_label, label_value, qualified_name};

use crate::registry::fields::{Errors, label_selector, names, one_of, optional_one_of, set};

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];
const RANGE: &str = "must be in the range 1-100";

/// Checks the whole of it.
pub fn validate(errors: &mut Errors, field: &str, spec: &PodSpec) {
    for (i, toleration) in spec.tolerations.iter().flatten().enumerate() {
        validate_toleration(errors, &format!("{field}.tolerations[{i}]"), toleration);
    }
    if let Some(wanted) = &spec.affinity {
        affinity(errors, &format!("{field}.affinity"), wanted);
    }
    spread(
        errors,
        &format!("{field}.topologySpreadConstraints"),
        spec.topology_spread_constraints.as_deref().unwrap_or_default(),
    );
}

/// Checks one toleration.
pub fn validate_toleration(errors: &mut Errors, field: &str, toleration: &Toleration) {
    let at = |name: &str| format!("{field}.{name}");
    let key = set(toleration.key.as_deref());
    let operator = toleration.operator.as_deref().unwrap_or_default();
    let (value, effect) =
        (toleration.value.as_deref().unwrap_or_default(), set(toleration.effect.as_deref()));
    if let Some(key) = key {
        names(errors, &at("key"), key, qualified_name(key));
    } else if operator != "Exists" {
        let detail =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(at("operator"), operator, detail));
    }
    if toleration.toleration_seconds.is_some() && effect != Some("NoExecute") {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(at("effect"), effect.unwrap_or_default(), detail));
    }
    match operator {
        "Equal" | "" => names(errors, &at("operator"), value, label_value(value)),
        "Exists" if !value.is_empty() => {
            errors.push(FieldError::invalid(
                at("operator"),
                value,
                "value must be empty when `operator` is 'Exists'",
            ));
        }
        "Exists" => {}
        other => errors.push(FieldError::not_supported(at("operator"), other, &["Equal", "Exists"])),
    }
    optional_one_of(errors, &at("effect"), effect, EFFECTS);
}

fn affinity(errors: &mut Errors, field: &str, affinity: &Affinity) {
    if let Some(node) = &affinity.node_affinity {
        let field = format!("{field}.nodeAffinity");
        if let Some(required) = &node.required_during_scheduling_ignored_during_execution {
            let field = format!("{field}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
            if required.node_selector_terms.is_empty() {
                let detail = "must have at least one node selector term";
                errors.push(FieldError::required(field.as_str(), detail));
            }
            for (i, term) in required.node_selector_terms.iter().enumerate() {
                node_term(errors, &format!("{field}[{i}]"), term);
            }
        }
        let preferred = node.preferred_during_scheduling_ignored_during_execution.as_deref();
        for (i, term) in preferred.unwrap_or_default().iter().enumerate() {
            let field = format!("{field}.preferredDuringSchedulingIgnoredDuringExecution[{i}]");
            if !(1..=100).contains(&term.weight) {
                errors.push(FieldError::invalid(format!("{field}.weight"), term.weight, RANGE));
            }
            node_term(errors, &format!("{field}.preference"), &term.preference);
        }
    }
    if let Some(pods) = &affinity.pod_affinity {
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref();
        pod_terms(errors, &format!("{field}.podAffinity"), required, preferred);
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref();
        pod_terms(errors, &format!("{field}.podAntiAffinity"), required, preferred);
    }
}

fn node_term(errors: &mut Errors, field: &str, term: &NodeSelectorTerm) {
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        let field = format!("{field}.matchExpressions[{i}]");
        node_requirement(errors, &field, requirement);
        names(errors, &format!("{field}.key"), &requirement.key, qualified_name(&requirement.key));
    }
    for (i, requirement) in term.match_fields.iter().flatten().enumerate() {
        let field = format!("{field}.matchFields[{i}]");
        let values = requirement.values.as_deref().unwrap_or_default();
        if !matches!(requirement.operator.as_str(), "In" | "NotIn") {
            let detail = "not a valid selector operator";
            errors.push(FieldError::invalid(
                format!("{field}.operator"),
                requirement.operator.as_str(),
                detail,
            ));
        } else if values.len() != 1 {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(FieldError::required(format!("{field}.values"), detail));
        }
        if requirement.key != "metadata.name" {
            let detail = "not a valid field selector key";
            errors.push(FieldError::invalid(format!("{field}.key"), requirement.key.as_str(), detail));
        }
    }
}

fn node_requirement(errors: &mut Errors, field: &str, requirement: &NodeSelectorRequirement) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let field_values = format!("{field}.values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
            field_values.as_str(),
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
            field_values.as_str(),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "Gt" | "Lt" if values.len() != 1 => errors.push(FieldError::required(
            field_values.as_str(),
            "must be specified single value when `operator` is 'Lt' or 'Gt'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(
            format!("{field}.operator"),
            other,
            "not a valid selector operator",
        )),
    }
    for (i, value) in values.iter().enumerate() {
        names(errors, &format!("{field_values}[{i}]"), value, label_value(value));
    }
}

fn pod_terms(
    errors: &mut Errors,
    field: &str,
    required: Option<&[PodAffinityTerm]>,
    preferred: Option<&[WeightedPodAffinityTerm]>,
) {
    for (i, term) in required.unwrap_or_default().iter().enumerate() {
        pod_term(errors, &format!("{field}.requiredDuringSchedulingIgnoredDuringExecution[{i}]"), term);
    }
    for (i, weighted) in preferred.unwrap_or_default().iter().enumerate() {
        let field = format!("{field}.preferredDuringSchedulingIgnoredDuringExecution[{i}]");
        if !(1..=100).contains(&weighted.weight) {
            errors.push(FieldError::invalid(format!("{field}.weight"), weighted.weight, RANGE));
        }
        pod_term(errors, &format!("{field}.podAffinityTerm"), &weighted.pod_affinity_term);
    }
}

fn pod_term(errors: &mut Errors, field: &str, term: &PodAffinityTerm) {
    if let Some(selector) = &term.label_selector {
        label_selector(errors, &format!("{field}.labelSelector"), selector);
    }
    if let Some(selector) = &term.namespace_selector {
        label_selector(errors, &format!("{field}.namespaceSelector"), selector);
    }
    for namespace in term.namespaces.iter().flatten() {
        names(errors, &format!("{field}.namespace"), namespace, dns_label(namespace));
    }
    topology_key(errors, &format!("{field}.topologyKey"), &term.topology_key);
}

fn topology_key(errors: &mut Errors, field: &str, key: &str) {
    if key.is_empty() {
        errors.push(FieldError::required(field, "can not be empty"));
    } else {
        names(errors, field, key, qualified_name(key));
    }
}

fn spread(errors: &mut Errors, field: &str, constraints: &[TopologySpreadConstraint]) {
    let mut seen = HashSet::new();
    for (i, constraint) in constraints.iter().enumerate() {
        let at = |name: &str| format!("{field}[{i}].{name}");
        if constraint.max_skew <= 0 {
            errors.push(FieldError::invalid(at("maxSkew"), constraint.max_skew, "must be greater than zero"));
        }
        topology_key(errors, &at("topologyKey"), &constraint.topology_key);
        let unsatisfiable = Some(constraint.when_unsatisfiable.as_str());
        one_of(errors, &at("whenUnsatisfiable"), unsatisfiable, &["DoNotSchedule", "ScheduleAnyway"]);
        if constraint.min_domains.is_some_and(|n| n <= 0) {
            let value = constraint.min_domains.unwrap_or_default();
            errors.push(FieldError::invalid(at("minDomains"), value, "must be greater than zero"));
        }
        if let Some(selector) = &constraint.label_selector {
            label_selector(errors, &at("labelSelector"), selector);
        }
        let honor = &["Honor", "Ignore"];
        optional_one_of(errors, &at("nodeAffinityPolicy"), constraint.node_affinity_policy.as_deref(), honor);
        optional_one_of(errors, &at("nodeTaintsPolicy"), constraint.node_taints_policy.as_deref(), honor);
        let pair = (constraint.topology_key.as_str(), constraint.when_unsatisfiable.as_str());
        if !seen.insert(pair) {
            let value = format!("{{{}, {}}}", pair.0, pair.1);
            errors.push(FieldError::duplicate(
                format!("{field}[{i}].{{topologyKey, whenUnsatisfiable}}"),
                value,
            ));
        }
    }
}
