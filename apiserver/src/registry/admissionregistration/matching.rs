//! What webhooks and policies have in common: rules, selectors and conditions in CEL.

use std::collections::BTreeSet;

use api::openapi::api::admissionregistration::v1::{MatchCondition, RuleWithOperations};
use api::openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use api::selector::Selector;
use api::validation::{FieldError, qualified_name};
use serde_json::json;

use crate::admission::cel::Expression;
use crate::registry::fields::{Errors, names, optional_one_of};

/// Conditions of one webhook or policy at most.
const MAX_CONDITIONS: u64 = 64;

/// Fills in what rules leave out.
pub fn default_rules(rules: Option<&mut Vec<RuleWithOperations>>) {
    for rule in rules.into_iter().flatten() {
        rule.scope.get_or_insert_with(|| "*".into());
    }
}

/// What is wrong with a rule.
pub fn rule(errors: &mut Errors, path: &str, rule: &RuleWithOperations) {
    list(errors, path, "operations", "operations", rule.operations.as_deref());
    for (i, operation) in rule.operations.iter().flatten().enumerate() {
        let supported = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
        optional_one_of(errors, &format!("{path}.operations[{i}]"), Some(operation), supported);
    }
    list(errors, path, "apiGroups", "API groups", rule.api_groups.as_deref());
    list(errors, path, "apiVersions", "API versions", rule.api_versions.as_deref());
    resources(errors, &format!("{path}.resources"), rule.resources.as_deref().unwrap_or_default());
    optional_one_of(errors, &format!("{path}.scope"), rule.scope.as_deref(), &["*", "Cluster", "Namespaced"]);
}

fn list(errors: &mut Errors, path: &str, field: &str, what: &str, values: Option<&[String]>) {
    let path = format!("{path}.{field}");
    let values = values.unwrap_or_default();
    if values.is_empty() {
        errors.push(FieldError::required(&path, ""));
    }
    if values.len() > 1 && values.iter().any(|v| v == "*") {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(&path, json!(values), &detail));
    }
    for (i, value) in values.iter().enumerate().filter(|(_, v)| v.is_empty()) {
        if field == "apiVersions" {
            errors.push(FieldError::required(format!("{path}[{i}]"), value));
        }
    }
}

fn resources(errors: &mut Errors, path: &str, values: &[String]) {
    if values.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let has = |wanted: &str| values.iter().any(|v| v == wanted);
    for (i, value) in values.iter().enumerate() {
        if value.is_empty() {
            errors.push(FieldError::required(format!("{path}[{i}]"), ""));
        }
        let Some((resource, part)) = value.split_once('/') else { continue };
        let mut redundant = |by: String| {
            let detail = format!("if '{by}' is present, must not specify {value}");
            errors.push(FieldError::invalid(format!("{path}[{i}]"), value.as_str(), &detail));
        };
        if part != "*" && has(&format!("{resource}/*")) {
            redundant(format!("{resource}/*"));
        }
        if resource != "*" && has(&format!("*/{part}")) {
            redundant(format!("*/{part}"));
        }
    }
    if values.len() > 1 && has("*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        errors.push(FieldError::invalid(path, json!(values), detail));
    }
    if has("*") && values.iter().any(|v| v != "*" && !v.contains('/')) {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(path, json!(values), detail));
    }
}

/// What is wrong with a selector.
pub fn selector(errors: &mut Errors, path: &str, selector: Option<&LabelSelector>) {
    if let Some(selector) = selector
        && let Err(problem) = Selector::from_typed(Some(selector))
    {
        errors.push(FieldError::invalid(path, json!(selector), &problem.to_string()));
    }
}

/// What is wrong with conditions, which know `object`, `oldObject`, `request` and what else is `known`.
pub fn conditions(errors: &mut Errors, path: &str, conditions: Option<&[MatchCondition]>, known: &[&str]) {
    let conditions = conditions.unwrap_or_default();
    let count = conditions.len() as u64;
    if count > MAX_CONDITIONS {
        errors.push(FieldError::too_many(path, count, MAX_CONDITIONS));
    }
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let at = format!("{path}[{i}]");
        if condition.name.is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else {
            names(errors, &format!("{at}.name"), &condition.name, qualified_name(&condition.name));
            if !seen.insert(&condition.name) {
                errors.push(FieldError::duplicate(format!("{at}.name"), condition.name.as_str()));
            }
        }
        expression(errors, &format!("{at}.expression"), &condition.expression, known);
    }
}

/// What is wrong with an expression.
pub fn expression(errors: &mut Errors, path: &str, text: &str, known: &[&str]) {
    if text.trim().is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    match Expression::compile(text) {
        Err(problem) => {
            errors.push(FieldError::invalid(path, text, &format!("compilation failed: {problem}")));
        }
        Ok(compiled) => {
            for name in compiled.undeclared(known) {
                let detail =
                    format!("compilation failed: undeclared reference to '{name}' (in container '')");
                errors.push(FieldError::invalid(path, text, &detail));
            }
        }
    }
}
