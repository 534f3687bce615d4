//! The rules of ResourceQuotas.

use api::openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use api::validation::{FieldError, qualified_name};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{Errors, IMMUTABLE, canonicalize, names, one_of, quantity};
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// The rules of ResourceQuotas.
pub struct ResourceQuotaStrategy;

impl Strategy for ResourceQuotaStrategy {
    type K = ResourceQuota;

    fn default(&self, quota: &mut ResourceQuota) {
        canonicalize(&mut quota.spec.get_or_insert_default().hard);
    }

    fn validate(&self, quota: &ResourceQuota) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = quota.spec.clone().unwrap_or_default();
        for (name, amount) in spec.hard.iter().flatten() {
            let field = format!("spec.hard[{name}]");
            names(&mut errors, &field, name, qualified_name(name));
            quantity(&mut errors, &field, amount);
        }
        scopes(&mut errors, &spec);
        errors
    }

    fn validate_update(&self, new: &ResourceQuota, old: &ResourceQuota) -> Vec<FieldError> {
        let scopes = |quota: &ResourceQuota| {
            let mut scopes = quota.spec.as_ref().and_then(|s| s.scopes.clone()).unwrap_or_default();
            scopes.sort();
            scopes
        };
        if scopes(new) == scopes(old) {
            return Vec::new();
        }
        vec![FieldError::invalid("spec.scopes", json!(scopes(new)), IMMUTABLE)]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Request", "What is requested, of what may be, for each resource."),
            Column::string("Limit", "What is allowed, of what may be, for each limit."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, quota: &ResourceQuota, now: Timestamp) -> Vec<Value> {
        let status = quota.status.clone().unwrap_or_default();
        let used = status.used.unwrap_or_default();
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in status.hard.iter().flatten() {
            let used = used.get(name).map_or("0", |q| q.0.as_str());
            let list = if name.starts_with("limits") { &mut limits } else { &mut requests };
            list.push(format!("{name}: {used}/{}", hard.0));
        }
        vec![
            json!(quota.metadata.name.as_deref().unwrap_or_default()),
            json!(requests.join(", ")),
            json!(limits.join(", ")),
            json!(age(quota.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}

fn scopes(errors: &mut Errors, spec: &ResourceQuotaSpec) {
    let all = spec.scopes.as_deref().unwrap_or_default();
    for scope in all {
        one_of(errors, "spec.scopes", Some(scope), SCOPES);
    }
    for (a, b) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if all.iter().any(|s| s == a) && all.iter().any(|s| s == b) {
            errors.push(FieldError::invalid("spec.scopes", json!(all), "conflicting scopes"));
        }
    }
    let expressions = spec.scope_selector.as_ref().and_then(|s| s.match_expressions.as_deref());
    for (i, expression) in expressions.unwrap_or_default().iter().enumerate() {
        let at = |name: &str| format!("spec.scopeSelector.matchExpressions[{i}].{name}");
        one_of(errors, &at("scopeName"), Some(&expression.scope_name), SCOPES);
        let operators = &["DoesNotExist", "Exists", "In", "NotIn"];
        one_of(errors, &at("operator"), Some(&expression.operator), operators);
        let empty = expression.values.as_ref().is_none_or(Vec::is_empty);
        match expression.operator.as_str() {
            "In" | "NotIn" if empty => {
                let detail =
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(at("values"), detail));
            }
            "Exists" | "DoesNotExist" if !empty => {
                let detail =
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(at("values"), json!(expression.values), detail));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, row};

    #[test]
    fn a_quota_shows_what_is_used() {
        let status = json!({"hard": {"limits.cpu": "2", "pods": "5"}, "used": {"pods": "1"}});
        let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "-1"}}, "status": status});
        row(&ResourceQuotaStrategy, quota.clone(), &["q", "pods: 1/5", "limits.cpu: 0/2", "<unknown>"]);
        let negative = "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0";
        invalid(&ResourceQuotaStrategy, quota, &[negative]);
    }
}
