//! The rules of ServiceCIDRs.

use api::openapi::api::networking::v1::ServiceCIDR;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{IMMUTABLE, cidr};
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of ServiceCIDRs.
pub struct ServiceCIDRStrategy;

fn ranges(of: &ServiceCIDR) -> &[String] {
    of.spec.as_ref().and_then(|s| s.cidrs.as_deref()).unwrap_or_default()
}

impl Strategy for ServiceCIDRStrategy {
    type K = ServiceCIDR;

    fn validate(&self, range: &ServiceCIDR) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let all = ranges(range);
        if all.is_empty() {
            errors.push(FieldError::required("spec.cidrs", "at least one CIDR required"));
        }
        if all.len() > 2 {
            let detail = "may only hold up to 2 values";
            errors.push(FieldError::invalid("spec.cidrs", json!(all), detail));
        }
        for (i, one) in all.iter().enumerate() {
            cidr(&mut errors, &format!("spec.cidrs[{i}]"), one);
        }
        if let [a, b] = all
            && a.contains(':') == b.contains(':')
        {
            let detail = "may specify no more than one IP for each IP family";
            errors.push(FieldError::invalid("spec.cidrs", json!(all), detail));
        }
        errors
    }

    fn validate_update(&self, new: &ServiceCIDR, old: &ServiceCIDR) -> Vec<FieldError> {
        // A second family may be added.
        if ranges(new).starts_with(ranges(old)) {
            return Vec::new();
        }
        vec![FieldError::invalid("spec.cidrs[0]", json!(ranges(new)), IMMUTABLE)]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, Column::string("CIDRs", "The ranges of addresses."), AGE];
        COLUMNS
    }

    fn row(&self, range: &ServiceCIDR, now: Timestamp) -> Vec<Value> {
        vec![
            json!(range.metadata.name.as_deref().unwrap_or_default()),
            json!(ranges(range).join(",")),
            json!(age(range.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}
