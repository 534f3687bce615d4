//! The rules of MutatingWebhookConfigurations and ValidatingWebhookConfigurations.

use std::collections::BTreeSet;

use api::openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, ValidatingWebhook, ValidatingWebhookConfiguration,
    WebhookClientConfig,
};
use api::validation::{FieldError, dns_1035_label, dns_subdomain};
use http::Uri;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::matching;
use crate::registry::fields::{Errors, between, names, optional_one_of, required};
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The versions of AdmissionReview that are known.
const VERSIONS: &[&str] = &["v1", "v1beta1"];
/// What conditions may speak of.
const KNOWN: &[&str] = &["object", "oldObject", "request"];
const COLUMNS: &[Column] =
    &[NAME, Column::integer("Webhooks", "How many webhooks the configuration has."), AGE];

/// The rules of MutatingWebhookConfigurations.
pub struct MutatingWebhookConfigurationStrategy;
/// The rules of ValidatingWebhookConfigurations.
pub struct ValidatingWebhookConfigurationStrategy;

impl Strategy for MutatingWebhookConfigurationStrategy {
    type K = MutatingWebhookConfiguration;

    fn default(&self, configuration: &mut Self::K) {
        for hook in configuration.webhooks.iter_mut().flatten() {
            default(hook);
            hook.reinvocation_policy.get_or_insert_with(|| "Never".into());
        }
    }

    fn validate(&self, configuration: &Self::K) -> Vec<FieldError> {
        let hooks = configuration.webhooks.as_deref().unwrap_or_default();
        let mut errors = validate(hooks);
        for (i, hook) in hooks.iter().enumerate() {
            let (path, policy) = (format!("webhooks[{i}].reinvocationPolicy"), &hook.reinvocation_policy);
            optional_one_of(&mut errors, &path, policy.as_deref(), &["IfNeeded", "Never"]);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, configuration: &Self::K, now: Timestamp) -> Vec<Value> {
        let meta = &configuration.metadata;
        let count = configuration.webhooks.as_ref().map_or(0, Vec::len);
        vec![json!(meta.name), json!(count), json!(age(meta.creation_timestamp.as_ref(), now))]
    }
}

impl Strategy for ValidatingWebhookConfigurationStrategy {
    type K = ValidatingWebhookConfiguration;

    fn default(&self, configuration: &mut Self::K) {
        for hook in configuration.webhooks.iter_mut().flatten() {
            let mut common = common(hook.clone());
            default(&mut common);
            hook.client_config = common.client_config;
            hook.failure_policy = common.failure_policy;
            hook.match_policy = common.match_policy;
            hook.namespace_selector = common.namespace_selector;
            hook.object_selector = common.object_selector;
            hook.rules = common.rules;
            hook.timeout_seconds = common.timeout_seconds;
        }
    }

    fn validate(&self, configuration: &Self::K) -> Vec<FieldError> {
        let hooks: Vec<_> = configuration.webhooks.iter().flatten().cloned().map(common).collect();
        validate(&hooks)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, configuration: &Self::K, now: Timestamp) -> Vec<Value> {
        let meta = &configuration.metadata;
        let count = configuration.webhooks.as_ref().map_or(0, Vec::len);
        vec![json!(meta.name), json!(count), json!(age(meta.creation_timestamp.as_ref(), now))]
    }
}

/// A validating webhook has what a mutating one has, but for one field.
fn common(hook: ValidatingWebhook) -> MutatingWebhook {
    MutatingWebhook {
        admission_review_versions: hook.admission_review_versions,
        client_config: hook.client_config,
        failure_policy: hook.failure_policy,
        match_conditions: hook.match_conditions,
        match_policy: hook.match_policy,
        name: hook.name,
        namespace_selector: hook.namespace_selector,
        object_selector: hook.object_selector,
        reinvocation_policy: None,
        rules: hook.rules,
        side_effects: hook.side_effects,
        timeout_seconds: hook.timeout_seconds,
    }
}

fn default(hook: &mut MutatingWebhook) {
    hook.failure_policy.get_or_insert_with(|| "Fail".into());
    hook.match_policy.get_or_insert_with(|| "Equivalent".into());
    hook.namespace_selector.get_or_insert_default();
    hook.object_selector.get_or_insert_default();
    hook.timeout_seconds.get_or_insert(10);
    matching::default_rules(hook.rules.as_mut());
    if let Some(service) = &mut hook.client_config.service {
        service.port.get_or_insert(443);
    }
}

fn validate(hooks: &[MutatingWebhook]) -> Errors {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, hook) in hooks.iter().enumerate() {
        let path = format!("webhooks[{i}]");
        validate_hook(&mut errors, &path, hook);
        if !hook.name.is_empty() && !seen.insert(&hook.name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), hook.name.as_str()));
        }
    }
    errors
}

fn validate_hook(errors: &mut Errors, path: &str, hook: &MutatingWebhook) {
    let at = |field: &str| format!("{path}.{field}");
    required(errors, &at("name"), Some(&hook.name));
    if !hook.name.is_empty() {
        names(errors, &at("name"), &hook.name, dns_subdomain(&hook.name));
        if hook.name.split('.').count() < 3 {
            let detail = "should be a domain with at least three segments separated by dots";
            errors.push(FieldError::invalid(at("name"), hook.name.as_str(), detail));
        }
    }
    review_versions(errors, &at("admissionReviewVersions"), &hook.admission_review_versions);
    for (i, rule) in hook.rules.iter().flatten().enumerate() {
        matching::rule(errors, &format!("{path}.rules[{i}]"), rule);
    }
    optional_one_of(errors, &at("failurePolicy"), hook.failure_policy.as_deref(), &["Fail", "Ignore"]);
    optional_one_of(errors, &at("matchPolicy"), hook.match_policy.as_deref(), &["Equivalent", "Exact"]);
    let effects = &["None", "NoneOnDryRun"];
    if hook.side_effects.is_empty() {
        let detail = "must specify one of None, NoneOnDryRun";
        errors.push(FieldError::required(at("sideEffects"), detail));
    } else {
        optional_one_of(errors, &at("sideEffects"), Some(&hook.side_effects), effects);
    }
    if let Some(seconds) = hook.timeout_seconds
        && !(1..=30).contains(&seconds)
    {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(at("timeoutSeconds"), seconds, detail));
    }
    matching::selector(errors, &at("namespaceSelector"), hook.namespace_selector.as_ref());
    matching::selector(errors, &at("objectSelector"), hook.object_selector.as_ref());
    client_config(errors, &at("clientConfig"), &hook.client_config);
    matching::conditions(errors, &at("matchConditions"), hook.match_conditions.as_deref(), KNOWN);
}

fn review_versions(errors: &mut Errors, path: &str, versions: &[String]) {
    if versions.is_empty() {
        errors.push(FieldError::required(path, "must specify one of v1, v1beta1"));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, version) in versions.iter().enumerate() {
        let at = format!("{path}[{i}]");
        if !seen.insert(version) {
            errors.push(FieldError::invalid(&at, version.as_str(), "duplicate version"));
        }
        names(errors, &at, version, dns_1035_label(version));
    }
    if !versions.iter().any(|v| VERSIONS.contains(&v.as_str())) {
        let detail = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid(path, json!(versions), detail));
    }
}

fn client_config(errors: &mut Errors, path: &str, config: &WebhookClientConfig) {
    match (&config.url, &config.service) {
        (Some(url), None) => self::url(errors, &format!("{path}.url"), url),
        (None, Some(service)) => {
            let at = |field: &str| format!("{path}.service.{field}");
            required(errors, &at("name"), Some(&service.name));
            required(errors, &at("namespace"), Some(&service.namespace));
            between(errors, &at("port"), service.port, 1, 65535);
            if let Some(path) = service.path.as_deref().filter(|p| !p.is_empty() && !p.starts_with('/')) {
                errors.push(FieldError::invalid(at("path"), path, "must start with a '/'"));
            }
        }
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
}

fn url(errors: &mut Errors, path: &str, url: &str) {
    const FORM: &str = "desired format: https://host[:port]/path";
    // The fragment is cut off by the parser.
    let (whole, fragment) = url.split_once('#').map_or((url, ""), |(whole, fragment)| (whole, fragment));
    let parsed: Uri = match whole.parse() {
        Ok(parsed) => parsed,
        Err(problem) => {
            let detail = format!("url must be a valid URL: {problem}; {FORM}");
            errors.push(FieldError::required(path, &detail));
            return;
        }
    };
    let scheme = parsed.scheme_str().unwrap_or_default();
    if scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme; {FORM}");
        errors.push(FieldError::invalid(path, scheme, &detail));
    }
    if parsed.host().unwrap_or_default().is_empty() {
        errors.push(FieldError::invalid(path, "", &format!("host must be specified; {FORM}")));
    }
    if let Some((user, _)) = parsed.authority().and_then(|a| a.as_str().rsplit_once('@')) {
        errors.push(FieldError::invalid(path, user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        errors.push(FieldError::invalid(path, fragment, "fragments are not permitted in the URL"));
    }
    if let Some(query) = parsed.query().filter(|q| !q.is_empty()) {
        errors.push(FieldError::invalid(path, query, "query parameters are not permitted in the URL"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::strategy::{Erased, ErasedStrategy};
    use api::Object;

    fn hook(change: Value) -> Value {
        let mut hook = json!({"name": "a.b.c", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"url": "https://a.b/c"},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
        for (field, value) in change.as_object().expect("a map") {
            hook[field] = value.clone();
        }
        hook
    }

    fn created(hooks: Value) -> Result<Object, String> {
        let document = json!({"apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration", "metadata": {"name": "x"}, "webhooks": hooks});
        let object = Object::new(document).expect("a map");
        Erased(MutatingWebhookConfigurationStrategy).for_create(object, Vec::new()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let service = json!({"service": {"namespace": "n", "name": "s"}});
        let object = created(json!([hook(json!({"clientConfig": service}))])).expect("fine");
        let hook = object.pointer("/webhooks/0").expect("a hook");
        for (pointer, wanted) in [
            ("/failurePolicy", json!("Fail")),
            ("/matchPolicy", json!("Equivalent")),
            ("/timeoutSeconds", json!(10)),
            ("/reinvocationPolicy", json!("Never")),
            ("/namespaceSelector", json!({})),
            ("/objectSelector", json!({})),
            ("/rules/0/scope", json!("*")),
            ("/clientConfig/service/port", json!(443)),
        ] {
            assert_eq!(hook.pointer(pointer), Some(&wanted), "{pointer}");
        }
    }

    #[track_caller]
    fn refused(change: Value, why: &str) {
        let error = created(json!([hook(change)])).expect_err("refused");
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn every_wrong_field_is_named() {
        assert!(created(json!([hook(json!({}))])).is_ok());
        refused(json!({"name": "a.b"}), "webhooks[0].name: Invalid value: \"a.b\": should be a domain");
        refused(json!({"sideEffects": "Some"}), "webhooks[0].sideEffects: Unsupported value: \"Some\"");
        refused(json!({"timeoutSeconds": 31}), "must be between 1 and 30 seconds");
        refused(json!({"failurePolicy": "Maybe"}), "webhooks[0].failurePolicy: Unsupported value");
        refused(json!({"admissionReviewVersions": []}), "must specify one of v1, v1beta1");
        refused(json!({"admissionReviewVersions": ["v2"]}), "must include at least one of v1, v1beta1");
        refused(json!({"clientConfig": {}}), "exactly one of url or service is required");
        refused(json!({"clientConfig": {"url": "http://a.b/c"}}), "'https' is the only allowed URL scheme");
        refused(json!({"clientConfig": {"url": "https://a:b@c/d"}}), "user information is not permitted");
        refused(json!({"clientConfig": {"url": "https://c/d?e=f"}}), "query parameters are not permitted");
        refused(json!({"clientConfig": {"url": "https://c/d#e"}}), "fragments are not permitted");
        let condition = |text: &str| json!({"matchConditions": [{"name": "x", "expression": text}]});
        refused(condition("object."), "webhooks[0].matchConditions[0].expression");
        refused(condition("subject.a"), "undeclared reference to 'subject'");
        let rule = |field: &str, value: Value| {
            let mut rule = hook(json!({}))["rules"][0].clone();
            rule[field] = value;
            json!({"rules": [rule]})
        };
        refused(rule("operations", json!(["*", "CREATE"])), "must not specify other operations");
        refused(rule("operations", json!(["READ"])), "webhooks[0].rules[0].operations[0]: Unsupported value");
        refused(rule("resources", json!(["*/*", "pods"])), "must not specify other resources");
        refused(rule("resources", json!(["pods/*", "pods/log"])), "if 'pods/*' is present");
        refused(rule("scope", json!("Galaxy")), "webhooks[0].rules[0].scope: Unsupported value");
        let twice = created(json!([hook(json!({})), hook(json!({}))])).expect_err("refused");
        assert!(twice.contains("webhooks[1].name: Duplicate value: \"a.b.c\""), "{twice}");
    }
}
