//! The rules that kinds with a selector and a template share.

use std::collections::BTreeMap;

use api::openapi::api::core::v1::PodTemplateSpec;
use api::openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use api::selector::label::Selector;
use api::validation::FieldError;
use serde_json::json;

use crate::registry::fields::{Errors, IMMUTABLE, label_selector};

fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// Checks `spec.selector`, which must be there and select the template's labels.
pub fn matches_template(errors: &mut Errors, selector: &LabelSelector, template: Option<&PodTemplateSpec>) {
    if is_empty(selector) {
        // A missing selector and an empty one decode to the same.
        let detail = "empty selector is invalid for deployment";
        errors.push(if selector.match_labels.is_some() || selector.match_expressions.is_some() {
            FieldError::invalid("spec.selector", json!(selector), detail)
        } else {
            FieldError::required("spec.selector", "")
        });
    }
    label_selector(errors, "spec.selector", selector);
    let Some(template) = template else {
        errors.push(FieldError::required("spec.template", ""));
        return;
    };
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    let matches =
        Selector::from_typed(Some(selector)).is_ok_and(|s| is_empty(selector) || s.matches(&labels));
    if !matches {
        errors.push(FieldError::invalid(
            "spec.template.metadata.labels",
            json!(labels),
            "`selector` does not match template `labels`",
        ));
    }
}

/// A selector stays what it was: pods that it once selected would be forgotten.
pub fn unchanged(errors: &mut Errors, new: &LabelSelector, old: &LabelSelector) {
    if new != old {
        errors.push(FieldError::invalid("spec.selector", json!(new), IMMUTABLE));
    }
}

/// A count that cannot exceed another.
pub fn not_more(errors: &mut Errors, field: &str, count: Option<i32>, most: i32, detail: &str) {
    if let Some(count) = count.filter(|c| *c > most) {
        errors.push(FieldError::invalid(field, count, detail));
    }
}
