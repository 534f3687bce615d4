//! ValidatingAdmissionPolicies and their bindings: rules in CEL that a request must keep.
//!
//! Policies and bindings are read from the copy of the store and compiled once. A server without bindings pays a look
//! at an empty map for each write.

use std::collections::HashMap;
use std::sync::Arc;

use api::decode::decode;
use api::openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, StatusCause};
use api::selector::Selector;
use api::status::StatusError;
use api::{Kind, Object};
use kube_cel::cel::Value as Cel;
use kube_cel::cel::objects::{Key, Map};
use serde_json::{Value, json};

use super::cel::{Conditions, Expression, Scope, cel, text};
use super::intent::{Change, Intent};
use super::matching::{Matcher, Surroundings};
use super::notes;
use super::webhook::{CompiledObjects, show};
use crate::storage::Filter;

/// The bytes of a message that an expression makes, at most.
const MAX_MESSAGE: usize = 5 << 10;

/// All policies. One for the server.
pub struct Policies {
    surroundings: Arc<Surroundings>,
    policies: CompiledObjects<Policy>,
    bindings: CompiledObjects<Binding>,
}

struct Policy {
    name: String,
    matcher: Matcher,
    conditions: Conditions,
    params: Option<(String, String)>,
    fails: bool,
    variables: Vec<(String, Compiled)>,
    validations: Vec<Validation>,
    annotations: Vec<(String, Compiled)>,
}

type Compiled = Result<Expression, String>;

struct Validation {
    expression: Compiled,
    text: String,
    message: Option<String>,
    message_expression: Option<Compiled>,
    reason: String,
}

struct Binding {
    name: String,
    policy: String,
    matcher: Option<Matcher>,
    params: Option<Value>,
    actions: Vec<String>,
}

/// A rule that a request does not keep.
struct Failure {
    index: usize,
    message: String,
    reason: String,
}

fn compiled(value: &Value, field: &str) -> Compiled {
    Expression::compile(value[field].as_str().unwrap_or_default()).map_err(|e| e.to_string())
}

fn texts(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

impl Policy {
    fn read(name: &str, json: &[u8]) -> Arc<Self> {
        let whole: Value = serde_json::from_slice(json).unwrap_or_default();
        let spec = &whole["spec"];
        let validation = |v: &Value| Validation {
            expression: compiled(v, "expression"),
            text: texts(v, "expression").trim().to_owned(),
            message: v["message"].as_str().filter(|m| !m.is_empty()).map(|m| m.trim().to_owned()),
            message_expression: v["messageExpression"].is_string().then(|| compiled(v, "messageExpression")),
            reason: v["reason"].as_str().unwrap_or("Invalid").to_owned(),
        };
        let params = spec.get("paramKind").filter(|p| p.is_object());
        Arc::new(Self {
            name: name.to_owned(),
            matcher: Matcher::read(&spec["matchConstraints"], "resourceRules"),
            conditions: Conditions::read(spec.get("matchConditions")),
            params: params.map(|p| (texts(p, "apiVersion"), texts(p, "kind"))),
            fails: spec["failurePolicy"] != "Ignore",
            variables: list(spec, "variables")
                .map(|v| (texts(v, "name"), compiled(v, "expression")))
                .collect(),
            validations: list(spec, "validations").map(validation).collect(),
            annotations: list(spec, "auditAnnotations")
                .map(|a| (texts(a, "key"), compiled(a, "valueExpression")))
                .collect(),
        })
    }

    /// The rules that are not kept with what a scope holds.
    fn failures(&self, scope: &Scope<'_>) -> Vec<Failure> {
        let failure = |(index, rule): (usize, &Validation)| {
            let (message, reason) =
                match rule.expression.as_ref().map_err(Clone::clone).and_then(|e| e.holds(scope)) {
                    Ok(true) => return None,
                    Ok(false) => (rule.message(scope), rule.reason.clone()),
                    Err(_) if !self.fails => return None,
                    Err(why) => {
                        (format!("expression '{}' resulted in error: {why}", rule.text), "Invalid".to_owned())
                    }
                };
            Some(Failure { index, message, reason })
        };
        self.validations.iter().enumerate().filter_map(failure).collect()
    }

    fn annotate(&self, scope: &Scope<'_>) {
        for (key, expression) in &self.annotations {
            match expression.as_ref().map_err(Clone::clone).and_then(|e| e.value(scope)) {
                Ok(Cel::String(value)) => notes::annotate(format!("{}/{key}", self.name), value.as_str()),
                Ok(_) => {}
                Err(why) => tracing::debug!(policy = self.name, key, why, "an annotation has no value"),
            }
        }
    }
}

impl Validation {
    /// What is said of a rule that is not kept: what its expression makes, else its message, else the rule.
    fn message(&self, scope: &Scope<'_>) -> String {
        let made = self.message_expression.as_ref().and_then(|e| e.as_ref().ok()?.value(scope).ok());
        let made = made.as_ref().and_then(text).map(str::trim);
        let fits = |m: &&str| !m.is_empty() && !m.contains('\n') && m.len() <= MAX_MESSAGE;
        match (made.filter(fits), &self.message) {
            (Some(made), _) => made.to_owned(),
            (None, Some(message)) => message.clone(),
            (None, None) => format!("failed expression: {}", self.text),
        }
    }
}

impl Binding {
    fn read(name: &str, json: &[u8]) -> Arc<Self> {
        let whole: Value = serde_json::from_slice(json).unwrap_or_default();
        let spec = &whole["spec"];
        let matches = spec.get("matchResources").filter(|m| m.is_object());
        Arc::new(Self {
            name: name.to_owned(),
            policy: texts(spec, "policyName"),
            matcher: matches.map(|m| Matcher::read(m, "resourceRules").or_everything()),
            params: spec.get("paramRef").filter(|p| p.is_object()).cloned(),
            actions: list(spec, "validationActions").filter_map(|a| a.as_str().map(str::to_owned)).collect(),
        })
    }

    fn does(&self, action: &str) -> bool {
        self.actions.iter().any(|a| a == action)
    }
}

impl Policies {
    /// The policies that the copies name.
    pub fn new(surroundings: Arc<Surroundings>) -> Self {
        let of = |kind| Kind::find("admissionregistration.k8s.io", kind).expect("policies are in the table");
        Self {
            surroundings,
            policies: CompiledObjects::new(of("ValidatingAdmissionPolicy")),
            bindings: CompiledObjects::new(of("ValidatingAdmissionPolicyBinding")),
        }
    }

    /// Whether no policy is bound.
    pub fn validate_nothing(&self) -> bool {
        self.bindings.is_empty(&self.surroundings.hub)
    }

    /// Holds a request against every policy that is bound to it.
    ///
    /// # Errors
    /// The refusal of the first policy, with the messages of all of them as causes.
    pub fn validate(&self, intent: &Intent<'_>, change: Change<'_>) -> Result<(), StatusError> {
        let hub = &self.surroundings.hub;
        let bindings = self.bindings.all(hub, Binding::read);
        let mut refusal: Option<StatusError> = None;
        for policy in self.policies.all(hub, Policy::read) {
            for binding in bindings.iter().filter(|b| b.policy == policy.name) {
                for failure in self.check(&policy, binding, intent, change)? {
                    tell(&policy, binding, &failure);
                    if !binding.does("Deny") {
                        continue;
                    }
                    let message = format!(
                        "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {}",
                        policy.name, binding.name, failure.message
                    );
                    let refusal = refusal.get_or_insert_with(|| refuse(intent, &message, &failure.reason));
                    let cause = StatusCause { message: Some(message), ..StatusCause::default() };
                    refusal.0.details.get_or_insert_default().causes.get_or_insert_default().push(cause);
                }
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// What a request does not keep of a policy as a binding has it.
    fn check(
        &self,
        policy: &Policy,
        binding: &Binding,
        intent: &Intent<'_>,
        change: Change<'_>,
    ) -> Result<Vec<Failure>, StatusError> {
        let around = &self.surroundings;
        let Some(kind) = around.matches(&policy.matcher, intent, change)? else { return Ok(Vec::new()) };
        if let Some(matcher) = &binding.matcher
            && around.matches(matcher, intent, change)?.is_none()
        {
            return Ok(Vec::new());
        }
        let mut scope = Scope::default();
        for (name, object) in [("object", change.new), ("oldObject", change.old)] {
            let shown = object.map(|object| show(intent, kind, object)).transpose()?;
            scope.set_json(name, &shown.unwrap_or_default());
        }
        scope.set_json("request", &intent.request(kind));
        let namespace = around.namespace(intent, change)?.filter(|_| !intent.is_namespace());
        scope.set_json("namespaceObject", &namespace.map(Object::into_value).unwrap_or_default());
        let broken = |message: String| Failure { index: 0, message, reason: "Invalid".into() };
        let fail = |why: String| if policy.fails { vec![broken(why)] } else { Vec::new() };
        let all = match self.params(policy, binding, intent) {
            Ok(all) => all,
            Err(why) => return Ok(fail(why)),
        };
        let mut failures = Vec::new();
        for params in all {
            scope.set("params", params.as_ref().map_or(Cel::Null, cel));
            variables(&mut scope, &policy.variables);
            match policy.conditions.hold(&scope) {
                Ok(true) => {
                    failures.extend(policy.failures(&scope));
                    policy.annotate(&scope);
                }
                Ok(false) => {}
                Err(why) => failures.extend(fail(why)),
            }
        }
        Ok(failures)
    }

    /// The objects with which a policy is held against a request: one by one, or none at all.
    fn params(
        &self,
        policy: &Policy,
        binding: &Binding,
        intent: &Intent<'_>,
    ) -> Result<Vec<Option<Value>>, String> {
        let (Some((version, kind)), Some(wanted)) = (&policy.params, &binding.params) else {
            return Ok(vec![None]);
        };
        let table = &self.surroundings.table;
        let custom = || table.custom().into_iter().find(|k| k.api_version == version && k.kind == kind);
        let kind = Kind::of_document(version, kind).or_else(custom).ok_or_else(|| {
            format!("failed to find resource referenced by paramKind: '{version}, Kind={kind}'")
        })?;
        let namespace = match (kind.namespaced, wanted["namespace"].as_str()) {
            (false, _) => "",
            (true, Some(namespace)) if !namespace.is_empty() => namespace,
            (true, _) if intent.scope().is_empty() => {
                return Err(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                        .into(),
                );
            }
            (true, _) => intent.scope(),
        };
        let cache = self.surroundings.hub.cache(kind);
        let entries = match wanted["name"].as_str().filter(|n| !n.is_empty()) {
            Some(name) => cache.get(&api::meta::key_of(namespace, name)).into_iter().collect(),
            None => {
                let selector = decode::<LabelSelector>(&wanted["selector"]).map_err(|e| e.to_string())?;
                let labels = Selector::from_typed(Some(&selector)).map_err(|e| e.to_string())?;
                cache
                    .list(&Filter { namespace: namespace.to_owned(), labels, ..Filter::default() }, 0, "")
                    .entries
            }
        };
        if entries.is_empty() && wanted["parameterNotFoundAction"] == "Deny" {
            return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
        }
        let read = |entry: &Arc<crate::storage::Entry>| {
            serde_json::from_slice(&entry.json).map_err(|e| e.to_string())
        };
        entries.iter().map(|entry| read(entry).map(Some)).collect()
    }
}

/// Defines `variables`. One that has no value is not there, and fails whoever asks for it.
fn variables(scope: &mut Scope<'_>, all: &[(String, Compiled)]) {
    let mut map = HashMap::new();
    scope.set("variables", Cel::Map(Map { map: Arc::default() }));
    for (name, expression) in all {
        if let Some(value) = expression.as_ref().ok().and_then(|e| e.value(scope).ok()) {
            map.insert(Key::String(Arc::new(name.clone())), value);
            scope.set("variables", Cel::Map(Map { map: Arc::new(map.clone()) }));
        }
    }
}

/// Warns of a failure and notes it for the record, where the binding wants that.
fn tell(policy: &Policy, binding: &Binding, failure: &Failure) {
    if binding.does("Warn") {
        notes::warn(format!(
            "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
            policy.name, binding.name, failure.message
        ));
    }
    if binding.does("Audit") {
        let what = json!([{"message": failure.message, "policy": policy.name, "binding": binding.name,
            "expressionIndex": failure.index, "validationActions": binding.actions}]);
        notes::annotate("validation.policy.admission.k8s.io/validation_failure", what.to_string());
    }
}

fn refuse(intent: &Intent<'_>, message: &str, reason: &str) -> StatusError {
    let mut error = intent.forbidden(message);
    error.0.reason = Some(reason.to_owned());
    error.0.code = Some(match reason {
        "Unauthorized" => 401,
        "Forbidden" => 403,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    });
    error
}
