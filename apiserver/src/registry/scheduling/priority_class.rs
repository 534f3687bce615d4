//! The rules of PriorityClasses.

use api::openapi::api::scheduling::v1::PriorityClass;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::optional_one_of;
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The highest priority that users may define.
const HIGHEST: i32 = 1_000_000_000;
/// The classes of the system, and their priorities.
const SYSTEM: &[(&str, i32)] =
    &[("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// The rules of PriorityClasses.
pub struct PriorityClassStrategy;

impl Strategy for PriorityClassStrategy {
    type K = PriorityClass;

    fn default(&self, class: &mut PriorityClass) {
        class.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".into());
    }

    fn validate(&self, class: &PriorityClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let name = class.metadata.name.as_deref().unwrap_or_default();
        if name.starts_with("system-") {
            let known = SYSTEM.iter().find(|(known, _)| *known == name);
            if known.is_none_or(|(_, value)| class.value != *value || class.global_default == Some(true)) {
                let detail = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a known system priority class"
                );
                errors.push(FieldError::forbidden("metadata.name", &detail));
            }
        } else if class.value > HIGHEST {
            let detail = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            errors.push(FieldError::forbidden("value", &detail));
        }
        let policies = &["Never", "PreemptLowerPriority"];
        optional_one_of(&mut errors, "preemptionPolicy", class.preemption_policy.as_deref(), policies);
        errors
    }

    fn validate_update(&self, new: &PriorityClass, old: &PriorityClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if new.value != old.value {
            errors.push(FieldError::forbidden("value", "may not be changed in an update."));
        }
        if new.preemption_policy != old.preemption_policy {
            let policy = new.preemption_policy.clone().unwrap_or_default();
            errors.push(FieldError::invalid("preemptionPolicy", policy, crate::registry::fields::IMMUTABLE));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::integer("Value", "The priority of the class' pods."),
            Column {
                type_: "boolean",
                ..Column::string("Global-Default", "Whether pods without a class have this one.")
            },
            AGE,
            Column::string("PreemptionPolicy", "Whether its pods may displace others."),
        ];
        COLUMNS
    }

    fn row(&self, class: &PriorityClass, now: Timestamp) -> Vec<Value> {
        vec![
            json!(class.metadata.name.as_deref().unwrap_or_default()),
            json!(class.value),
            json!(class.global_default.unwrap_or(false)),
            json!(age(class.metadata.creation_timestamp.as_ref(), now)),
            json!(class.preemption_policy.as_deref().unwrap_or("PreemptLowerPriority")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, invalid_update, valid, with};

    #[test]
    fn the_highest_priorities_are_the_systems() {
        let class = json!({"metadata": {"name": "high"}, "value": 1000});
        valid(&PriorityClassStrategy, class.clone());
        let most = "value: Forbidden: maximum allowed value of a user defined priority is 1000000000";
        invalid(&PriorityClassStrategy, with(&class, "/value", 1_000_000_001.into()), &[most]);
        let system = json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000});
        valid(&PriorityClassStrategy, system);
        let fixed = "value: Forbidden: may not be changed in an update.";
        invalid_update(&PriorityClassStrategy, class.clone(), with(&class, "/value", 7.into()), &[fixed]);
    }
}
