//! The rules of Leases.

use api::openapi::api::coordination::v1::Lease;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::not_negative;
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of Leases.
pub struct LeaseStrategy;

impl Strategy for LeaseStrategy {
    type K = Lease;

    fn validate(&self, lease: &Lease) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let Some(spec) = &lease.spec else { return errors };
        if let Some(seconds) = spec.lease_duration_seconds.filter(|s| *s <= 0) {
            errors.push(FieldError::invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
        }
        not_negative(&mut errors, "spec.leaseTransitions", spec.lease_transitions);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, Column::string("Holder", "Who holds the lease."), AGE];
        COLUMNS
    }

    fn row(&self, lease: &Lease, now: Timestamp) -> Vec<Value> {
        let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref());
        vec![
            json!(lease.metadata.name),
            json!(holder.unwrap_or_default()),
            json!(age(lease.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::LeaseStrategy;
    use crate::registry::testing::{invalid, valid};
    use serde_json::json;

    #[test]
    fn leases_last_a_while_and_count_their_transitions() {
        valid(
            &LeaseStrategy,
            json!({"spec": {"leaseDurationSeconds": 15, "holderIdentity": "a", "leaseTransitions": 0}}),
        );
        invalid(
            &LeaseStrategy,
            json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}),
            &[
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
    }
}
