//! What is wrong with requests and limits, and which class of service they make.

use std::collections::BTreeMap;

use api::openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use api::openapi::apimachinery::pkg::api::resource::Quantity;
use api::quantity::Amount;
use api::validation::{FieldError, qualified_name};

use crate::registry::fields::{Errors, names, quantity};

type Quantities = BTreeMap<String, Quantity>;

/// Checks requests and limits beneath `field`.
pub fn requirements(errors: &mut Errors, field: &str, resources: &ResourceRequirements) {
    let empty = Quantities::new();
    let limits = resources.limits.as_ref().unwrap_or(&empty);
    let requests = resources.requests.as_ref().unwrap_or(&empty);
    each(errors, &format!("{field}.limits"), limits);
    each(errors, &format!("{field}.requests"), requests);
    for (name, request) in requests {
        let wanted = Amount::try_from(request).ok();
        let field = format!("{field}.requests");
        match limits.get(name) {
            Some(limit) => {
                let most = Amount::try_from(limit).ok();
                if let (Some(wanted), Some(most)) = (wanted, most) {
                    let (bad, relation) = if overcommits(name) {
                        (wanted > most, "less than or equal to")
                    } else {
                        (wanted != most, "equal to")
                    };
                    if bad {
                        let detail = format!("must be {relation} {name} limit of {}", limit.0);
                        errors.push(FieldError::invalid(field, request.0.as_str(), &detail));
                    }
                }
            }
            None if !overcommits(name) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(field.replace(".requests", ".limits"), detail));
            }
            None => {}
        }
    }
}

fn each(errors: &mut Errors, field: &str, quantities: &Quantities) {
    for (name, amount) in quantities {
        let field = format!("{field}[{name}]");
        resource_name(errors, &field, name);
        let value = quantity(errors, &field, amount);
        if !fractional(name)
            && let Some(value) = value
            && Amount::units(value.to_units()) != value
        {
            errors.push(FieldError::invalid(field, amount.0.as_str(), "must be an integer"));
        }
    }
}

fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

/// Of native resources a node may promise more than it has; of extended ones it may not.
fn overcommits(name: &str) -> bool {
    (!name.contains('/') || name.contains("kubernetes.io/")) && !name.starts_with("hugepages-")
}

fn fractional(name: &str) -> bool {
    is_standard(name) && !name.starts_with("hugepages-")
}

fn resource_name(errors: &mut Errors, field: &str, name: &str) {
    names(errors, field, name, qualified_name(name));
    if !name.contains('/') && !is_standard(name) {
        errors.push(FieldError::invalid(field, name, "must be a standard resource for containers"));
    }
}

/// The quality-of-service class: `Guaranteed` when every container's requests of cpu and memory equal
/// its limits, `BestEffort` when none asks for any, `Burstable` otherwise.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    if let Some(whole) = &spec.resources
        && (whole.limits.is_some() || whole.requests.is_some())
    {
        return class_of([whole].into_iter());
    }
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let empty = ResourceRequirements::default();
    let resources: Vec<_> = containers.map(|c: &Container| c.resources.as_ref().unwrap_or(&empty)).collect();
    class_of(resources.into_iter())
}

fn class_of<'a>(all: impl Iterator<Item = &'a ResourceRequirements>) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for resources in all {
        for name in ["cpu", "memory"] {
            let amount = |of: &Option<Quantities>| {
                let amount = of.as_ref().and_then(|q| q.get(name)).and_then(|q| Amount::try_from(q).ok());
                amount.filter(|a| *a > Amount::ZERO)
            };
            let (limit, request) = (amount(&resources.limits), amount(&resources.requests));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request == limit || request.is_none());
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
