//! The rules of LimitRanges.

use std::collections::{BTreeMap, BTreeSet};

use api::openapi::api::core::v1::{LimitRange, LimitRangeItem};
use api::openapi::apimachinery::pkg::api::resource::Quantity;
use api::quantity::Amount;
use api::validation::{FieldError, qualified_name};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{Errors, canonicalize, names, quantity, required};
use crate::registry::strategy::{Column, NAME, Strategy};

/// The rules of LimitRanges.
pub struct LimitRangeStrategy;

/// Fills `into` where it says nothing.
fn fill(into: &mut Option<BTreeMap<String, Quantity>>, from: &Option<BTreeMap<String, Quantity>>) {
    for (name, amount) in from.iter().flatten() {
        into.get_or_insert_default().entry(name.clone()).or_insert_with(|| amount.clone());
    }
}

impl Strategy for LimitRangeStrategy {
    type K = LimitRange;

    fn default(&self, range: &mut LimitRange) {
        for item in range.spec.iter_mut().flat_map(|s| &mut s.limits) {
            for amounts in [
                &mut item.max,
                &mut item.min,
                &mut item.default,
                &mut item.default_request,
                &mut item.max_limit_request_ratio,
            ] {
                canonicalize(amounts);
            }
            if item.type_ == "Container" {
                fill(&mut item.default, &item.max);
                fill(&mut item.default_request, &item.default);
                fill(&mut item.default_request, &item.min);
            }
        }
    }

    fn validate(&self, range: &LimitRange) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut seen = BTreeSet::new();
        for (i, item) in range.spec.iter().flat_map(|s| &s.limits).enumerate() {
            let field = format!("spec.limits[{i}]");
            required(&mut errors, &format!("{field}.type"), Some(&item.type_));
            if !seen.insert(&item.type_) {
                errors.push(FieldError::duplicate(format!("{field}.type"), item.type_.as_str()));
            }
            one(&mut errors, &field, item);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME, Column { type_: "date", ..Column::string("Created At", "When the object was made.") }];
        COLUMNS
    }

    fn row(&self, range: &LimitRange, _now: Timestamp) -> Vec<Value> {
        let made = range.metadata.creation_timestamp.as_ref().map(|t| t.0.to_string());
        vec![
            json!(range.metadata.name.as_deref().unwrap_or_default()),
            json!(made.unwrap_or_else(|| "<unknown>".into())),
        ]
    }
}

fn one(errors: &mut Errors, field: &str, item: &LimitRangeItem) {
    let lists = [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ];
    let mut amounts: BTreeMap<(&str, &str), (Amount, &str)> = BTreeMap::new();
    for (list, held) in lists {
        for (name, amount) in held.iter().flatten() {
            let at = format!("{field}.{list}[{name}]");
            names(errors, &at, name, qualified_name(name));
            if let Some(parsed) = quantity(errors, &at, amount) {
                amounts.insert((list, name.as_str()), (parsed, amount.0.as_str()));
            }
        }
    }
    if item.type_ == "Pod" {
        for (list, held) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
            if held.as_ref().is_some_and(|h| !h.is_empty()) {
                let detail = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(format!("{field}.{list}"), detail));
            }
        }
    }
    let resources: BTreeSet<&str> = amounts.keys().map(|(_, name)| *name).collect();
    // Each of these may not be more than the other.
    const ORDER: &[(&str, &str, &str)] = &[
        ("min", "max", "min"),
        ("min", "defaultRequest", "defaultRequest"),
        ("defaultRequest", "max", "defaultRequest"),
        ("defaultRequest", "default", "defaultRequest"),
        ("min", "default", "default"),
        ("default", "max", "default"),
    ];
    for name in resources {
        for (less, more, told) in ORDER {
            let (Some(a), Some(b)) = (amounts.get(&(*less, name)), amounts.get(&(*more, name))) else {
                continue;
            };
            if a.0 <= b.0 {
                continue;
            }
            let value = if told == less { a.1 } else { b.1 };
            let detail = match told == less {
                true => format!("{less} value {} is greater than {more} value {}", a.1, b.1),
                false => format!("{less} value {} is greater than {more} value {}", a.1, b.1),
            };
            errors.push(FieldError::invalid(format!("{field}.{told}[{name}]"), value, &detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, stored};

    #[test]
    fn defaults_follow_from_the_bounds() {
        let made = stored(
            &LimitRangeStrategy,
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]}}),
        );
        let item = &made["spec"]["limits"][0];
        assert_eq!(item["default"], json!({"cpu": "2"}));
        assert_eq!(item["defaultRequest"], json!({"cpu": "2", "memory": "1Mi"}));
        let wrong = json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}}]}});
        let least = "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1";
        invalid(&LimitRangeStrategy, wrong, &[least]);
    }
}
