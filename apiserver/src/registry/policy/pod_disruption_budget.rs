//! The rules of PodDisruptionBudgets.

use api::openapi::api::policy::v1::PodDisruptionBudget;
use api::openapi::apimachinery::pkg::util::intstr::IntOrString;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{
    count_or_percent, label_selector, not_negative, optional_one_of, percent, shown,
};
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of PodDisruptionBudgets.
pub struct PodDisruptionBudgetStrategy;

impl Strategy for PodDisruptionBudgetStrategy {
    type K = PodDisruptionBudget;

    fn validate(&self, budget: &PodDisruptionBudget) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = budget.spec.clone().unwrap_or_default();
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            let detail = "minAvailable and maxUnavailable cannot be both set";
            errors.push(FieldError::invalid("spec", json!(spec), detail));
        }
        for (name, value) in
            [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)]
        {
            let Some(value) = value else { continue };
            let field = format!("spec.{name}");
            count_or_percent(&mut errors, &field, value);
            if matches!(value, IntOrString::String(text) if percent(text) > Some(100)) {
                errors.push(FieldError::invalid(field, shown(value), "must not be greater than 100%"));
            }
        }
        if let Some(selector) = &spec.selector {
            label_selector(&mut errors, "spec.selector", selector);
        }
        let policies = &["AlwaysAllow", "IfHealthyBudget"];
        let policy = spec.unhealthy_pod_eviction_policy.as_deref();
        optional_one_of(&mut errors, "spec.unhealthyPodEvictionPolicy", policy, policies);
        errors
    }

    fn validate_status_update(
        &self,
        new: &PodDisruptionBudget,
        _old: &PodDisruptionBudget,
    ) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let status = new.status.clone().unwrap_or_default();
        not_negative(&mut errors, "status.disruptionsAllowed", Some(status.disruptions_allowed));
        not_negative(&mut errors, "status.currentHealthy", Some(status.current_healthy));
        not_negative(&mut errors, "status.desiredHealthy", Some(status.desired_healthy));
        not_negative(&mut errors, "status.expectedPods", Some(status.expected_pods));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Min Available", "How many pods must be available."),
            Column::string("Max Unavailable", "How many pods may be unavailable."),
            Column::integer("Allowed Disruptions", "How many pods may be evicted now."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, budget: &PodDisruptionBudget, now: Timestamp) -> Vec<Value> {
        let spec = budget.spec.clone().unwrap_or_default();
        let text = |value: &Option<IntOrString>| match value {
            None => "N/A".to_owned(),
            Some(IntOrString::Int(count)) => count.to_string(),
            Some(IntOrString::String(text)) => text.clone(),
        };
        vec![
            json!(budget.metadata.name.as_deref().unwrap_or_default()),
            json!(text(&spec.min_available)),
            json!(text(&spec.max_unavailable)),
            json!(budget.status.as_ref().map_or(0, |s| s.disruptions_allowed)),
            json!(age(budget.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, row, with};

    #[test]
    fn a_budget_says_one_of_two_things() {
        let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": "50%", "selector": {}}});
        row(&PodDisruptionBudgetStrategy, budget.clone(), &["b", "50%", "N/A", "0", "<unknown>"]);
        let most = "spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%";
        invalid(&PodDisruptionBudgetStrategy, with(&budget, "/spec/minAvailable", "101%".into()), &[most]);
        let both = with(&budget, "/spec/maxUnavailable", 1.into());
        let errors = PodDisruptionBudgetStrategy.validate(&crate::registry::testing::object(both));
        assert!(
            errors[0].message.ends_with("minAvailable and maxUnavailable cannot be both set"),
            "{errors:?}"
        );
    }
}
