//! The rules of ValidatingAdmissionPolicies and their bindings, read off the documents.

use std::collections::BTreeSet;

use api::decode::decode;
use api::openapi::api::admissionregistration::v1::{MatchCondition, RuleWithOperations};
use api::openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use api::validation::FieldError;
use serde_json::{Value, json};

use super::matching;
use crate::registry::fields::{Errors, one_of, optional_one_of, required};
use crate::registry::strategy::DocumentRules;

/// The rules of ValidatingAdmissionPolicies.
pub const POLICY: DocumentRules = DocumentRules { default: default_policy, validate: validate_policy };
/// The rules of ValidatingAdmissionPolicyBindings.
pub const BINDING: DocumentRules = DocumentRules { default: default_binding, validate: validate_binding };

/// What expressions may speak of. `authorizer` is not among it.
const KNOWN: &[&str] = &["object", "oldObject", "request", "namespaceObject", "variables"];
const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];

fn fill(value: &mut Value, field: &str, default: Value) {
    if let Some(map) = value.as_object_mut() {
        map.entry(field).or_insert(default);
    }
}

fn default_match(value: &mut Value) {
    fill(value, "matchPolicy", "Equivalent".into());
    fill(value, "namespaceSelector", json!({}));
    fill(value, "objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in value.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            fill(rule, "scope", "*".into());
        }
    }
}

fn default_policy(policy: &mut Value) {
    let Some(spec) = policy.get_mut("spec") else { return };
    fill(spec, "failurePolicy", "Fail".into());
    if let Some(constraints) = spec.get_mut("matchConstraints") {
        default_match(constraints);
    }
}

fn default_binding(binding: &mut Value) {
    if let Some(matches) = binding.pointer_mut("/spec/matchResources") {
        default_match(matches);
    }
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn validate_policy(policy: &Value) -> Errors {
    let (mut errors, spec) = (Vec::new(), &policy["spec"]);
    optional_one_of(&mut errors, "spec.failurePolicy", spec["failurePolicy"].as_str(), &["Fail", "Ignore"]);
    let mut known = KNOWN.to_vec();
    if spec["paramKind"].is_object() {
        known.push("params");
        required(&mut errors, "spec.paramKind.apiVersion", spec["paramKind"]["apiVersion"].as_str());
        required(&mut errors, "spec.paramKind.kind", spec["paramKind"]["kind"].as_str());
    }
    if spec["matchConstraints"].is_object() {
        let path = "spec.matchConstraints";
        resources(&mut errors, path, &spec["matchConstraints"]);
        if list(&spec["matchConstraints"], "resourceRules").is_empty() {
            errors.push(FieldError::required(format!("{path}.resourceRules"), ""));
        }
    } else {
        errors.push(FieldError::required("spec.matchConstraints", ""));
    }
    let mut seen = BTreeSet::new();
    for (i, variable) in list(spec, "variables").iter().enumerate() {
        let path = format!("spec.variables[{i}]");
        let name = text(variable, "name");
        if !is_identifier(name) {
            let detail = "name is not a valid CEL identifier";
            errors.push(FieldError::invalid(format!("{path}.name"), name, detail));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        matching::expression(
            &mut errors,
            &format!("{path}.expression"),
            text(variable, "expression"),
            &known,
        );
    }
    let conditions: Vec<MatchCondition> =
        list(spec, "matchConditions").iter().filter_map(|c| decode(c).ok()).collect();
    matching::conditions(&mut errors, "spec.matchConditions", Some(&conditions), &known);
    let (validations, annotations) = (list(spec, "validations"), list(spec, "auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must be specified";
        errors.push(FieldError::required("spec.validations", detail));
    }
    for (i, validation) in validations.iter().enumerate() {
        rule(&mut errors, &format!("spec.validations[{i}]"), validation, &known);
    }
    for (i, annotation) in annotations.iter().enumerate() {
        let path = format!("spec.auditAnnotations[{i}]");
        required(&mut errors, &format!("{path}.key"), annotation["key"].as_str());
        let expression = text(annotation, "valueExpression");
        matching::expression(&mut errors, &format!("{path}.valueExpression"), expression, &known);
    }
    errors
}

fn is_identifier(name: &str) -> bool {
    let head = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    head && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn rule(errors: &mut Errors, path: &str, validation: &Value, known: &[&str]) {
    let (expression, message) = (text(validation, "expression"), text(validation, "message").trim());
    matching::expression(errors, &format!("{path}.expression"), expression, known);
    if let Some(made) = validation["messageExpression"].as_str() {
        matching::expression(errors, &format!("{path}.messageExpression"), made, known);
    }
    if message.contains('\n') {
        let detail = "message must not contain line breaks";
        errors.push(FieldError::invalid(format!("{path}.message"), message, detail));
    }
    if message.is_empty() && expression.trim().contains('\n') {
        let detail = "message must be specified if expression contains line breaks";
        errors.push(FieldError::required(format!("{path}.message"), detail));
    }
    optional_one_of(errors, &format!("{path}.reason"), validation["reason"].as_str(), REASONS);
}

fn resources(errors: &mut Errors, path: &str, value: &Value) {
    let policies = &["Equivalent", "Exact"];
    optional_one_of(errors, &format!("{path}.matchPolicy"), value["matchPolicy"].as_str(), policies);
    for field in ["resourceRules", "excludeResourceRules"] {
        for (i, rule) in list(value, field).iter().enumerate() {
            if let Ok(rule) = decode::<RuleWithOperations>(rule) {
                matching::rule(errors, &format!("{path}.{field}[{i}]"), &rule);
            }
        }
    }
    for field in ["namespaceSelector", "objectSelector"] {
        let selector = decode::<LabelSelector>(&value[field]).ok();
        matching::selector(errors, &format!("{path}.{field}"), selector.as_ref());
    }
}

fn validate_binding(binding: &Value) -> Errors {
    let (mut errors, spec) = (Vec::new(), &binding["spec"]);
    required(&mut errors, "spec.policyName", spec["policyName"].as_str());
    if spec["paramRef"].is_object() {
        let params = &spec["paramRef"];
        let (named, selected) = (!text(params, "name").is_empty(), params["selector"].is_object());
        if named == selected {
            errors.push(match named {
                true => {
                    FieldError::forbidden("spec.paramRef.name", "name and selector are mutually exclusive")
                }
                false => FieldError::required("spec.paramRef", "one of name or selector must be specified"),
            });
        }
        let action = params["parameterNotFoundAction"].as_str();
        one_of(&mut errors, "spec.paramRef.parameterNotFoundAction", action, &["Allow", "Deny"]);
    }
    if spec["matchResources"].is_object() {
        resources(&mut errors, "spec.matchResources", &spec["matchResources"]);
    }
    let (path, actions) = ("spec.validationActions", list(spec, "validationActions"));
    if actions.is_empty() {
        errors.push(FieldError::required(path, "at least one validation action is required"));
    }
    for (i, action) in actions.iter().enumerate() {
        optional_one_of(&mut errors, &format!("{path}[{i}]"), action.as_str(), &["Audit", "Deny", "Warn"]);
        if actions[..i].contains(action) {
            errors.push(FieldError::duplicate(format!("{path}[{i}]"), action.clone()));
        }
    }
    if actions.contains(&"Deny".into()) && actions.contains(&"Warn".into()) {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in \
                      the API response and headers serves no purpose)";
        errors.push(FieldError::invalid(path, json!(actions), detail));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(change: Value) -> Value {
        let mut spec = json!({"matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["pods"]}]}, "validations": [{"expression": "object.a == 1"}]});
        for (field, value) in change.as_object().expect("a map") {
            spec[field] = value.clone();
        }
        json!({"spec": spec})
    }

    #[track_caller]
    fn check(errors: &[FieldError], wanted: &str) {
        let told = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        assert!(if wanted.is_empty() { told.is_empty() } else { told.contains(wanted) }, "{told}");
    }

    #[test]
    fn every_wrong_field_of_a_policy_is_named() {
        let mut filled = policy(json!({}));
        default_policy(&mut filled);
        assert_eq!(filled["spec"]["failurePolicy"], "Fail");
        assert_eq!(filled["spec"]["matchConstraints"]["resourceRules"][0]["scope"], "*");
        check(&validate_policy(&filled), "");
        let wrong = |change: Value, why: &str| check(&validate_policy(&policy(change)), why);
        wrong(json!({"validations": []}), "validations or auditAnnotations must be specified");
        wrong(json!({"matchConstraints": null}), "spec.matchConstraints: Required value");
        wrong(json!({"validations": [{"expression": "object."}]}), "spec.validations[0].expression");
        wrong(json!({"validations": [{"expression": "params.a == 1"}]}), "undeclared reference to 'params'");
        let params = json!({"apiVersion": "v1", "kind": "ConfigMap"});
        wrong(json!({"paramKind": params, "validations": [{"expression": "params.a == 1"}]}), "");
        wrong(
            json!({"validations": [{"expression": "true", "reason": "Never"}]}),
            "Unsupported value: \"Never\"",
        );
        wrong(json!({"variables": [{"name": "1a", "expression": "1"}]}), "not a valid CEL identifier");
        wrong(json!({"validations": [{"expression": "authorizer.a == 1"}]}), "'authorizer'");
    }

    #[test]
    fn every_wrong_field_of_a_binding_is_named() {
        let check = |spec: Value, why: &str| check(&validate_binding(&json!({"spec": spec})), why);
        check(json!({"policyName": "p", "validationActions": ["Deny", "Audit"]}), "");
        check(json!({"validationActions": ["Deny"]}), "spec.policyName: Required value");
        check(json!({"policyName": "p"}), "at least one validation action is required");
        check(json!({"policyName": "p", "validationActions": ["Deny", "Warn"]}), "must not contain both");
        check(json!({"policyName": "p", "validationActions": ["Shout"]}), "Unsupported value: \"Shout\"");
        let params =
            |value: Value| json!({"policyName": "p", "validationActions": ["Deny"], "paramRef": value});
        check(
            params(json!({"parameterNotFoundAction": "Deny"})),
            "one of name or selector must be specified",
        );
        check(params(json!({"name": "a"})), "parameterNotFoundAction: Required value");
    }
}
