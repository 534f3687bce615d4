//! Reviews: questions that are asked by creating an object, which is answered and not stored.

use api::Object;
use api::decode::decode;
use api::openapi::api::authentication::v1 as authn;
use api::openapi::api::authorization::v1 as authz;
use api::status::StatusError;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::gate::Gate;
use super::rbac::rules;
use super::token::{Copies, issue};
use super::{Authorizer, Request, Resource, User};

/// Who answers.
pub struct Desk<'a> {
    /// Knows tokens.
    pub gate: &'a Gate,
    /// Knows what may be done.
    pub authorizer: &'a Authorizer,
}

impl Desk<'_> {
    /// Answers a review.
    ///
    /// # Errors
    /// 400 and 422 for a document that asks nothing sensible.
    pub async fn answer(
        &self,
        user: &User,
        group: &str,
        kind: &str,
        namespace: &str,
        mut document: Value,
    ) -> Result<Value, StatusError> {
        name_kind(&mut document, &format!("{group}/v1"), kind)?;
        let answer = match kind {
            "TokenReview" => self.token(typed(&document)?).await?,
            "SelfSubjectReview" => self_subject(user, typed(&document)?),
            "SubjectAccessReview" => {
                let review: authz::SubjectAccessReview = typed(&document)?;
                let status = self.access(kind, &review.spec)?;
                value(&authz::SubjectAccessReview { status: Some(status), ..review })
            }
            "LocalSubjectAccessReview" => {
                let review: authz::LocalSubjectAccessReview = typed(&document)?;
                let own = review.spec.resource_attributes.as_ref().and_then(|r| r.namespace.as_deref());
                if own != Some(namespace) {
                    return Err(StatusError::bad_request(format!(
                        "spec.resourceAttributes.namespace must match namespace: {namespace}"
                    )));
                }
                let status = self.access(kind, &review.spec)?;
                value(&authz::LocalSubjectAccessReview { status: Some(status), ..review })
            }
            "SelfSubjectAccessReview" => {
                let review: authz::SelfSubjectAccessReview = typed(&document)?;
                let authz::SelfSubjectAccessReviewSpec { non_resource_attributes, resource_attributes } =
                    &review.spec;
                let spec = authz::SubjectAccessReviewSpec {
                    non_resource_attributes: non_resource_attributes.clone(),
                    resource_attributes: resource_attributes.clone(),
                    user: Some(user.name.clone()),
                    groups: Some(user.groups.clone()),
                    uid: Some(user.uid.clone()),
                    extra: None,
                };
                let status = self.access(kind, &spec)?;
                value(&authz::SelfSubjectAccessReview { status: Some(status), ..review })
            }
            "SelfSubjectRulesReview" => {
                let review: authz::SelfSubjectRulesReview = typed(&document)?;
                let namespace = review.spec.namespace.clone().unwrap_or_default();
                if namespace.is_empty() {
                    return Err(StatusError::bad_request("no namespace on request"));
                }
                let status = self.rules(user, &namespace).await;
                value(&authz::SelfSubjectRulesReview { status: Some(status), ..review })
            }
            _ => return Err(StatusError::no_such_path()),
        };
        Ok(answer)
    }

    /// Makes a token for a service account.
    ///
    /// # Errors
    /// As [`issue::issue`], and 400 for a document that is no TokenRequest.
    pub fn token_request(
        &self,
        user: &User,
        account: &Object,
        mut document: Value,
    ) -> Result<Value, StatusError> {
        name_kind(&mut document, "authentication.k8s.io/v1", "TokenRequest")?;
        // It is for the server to say; clients in Go send an empty one, without the fields that it must have.
        if let Some(request) = document.as_object_mut() {
            request.remove("status");
        }
        let request = typed(&document)?;
        let id = uuid::Uuid::new_v4().to_string();
        let ask = issue::Ask { user, account, request, id, now: self.gate.clock().now() };
        let made = issue::issue(self.gate.tokens().config(), ask, &Copies(self.gate.hub()))?;
        Ok(value(&made))
    }

    async fn token(&self, review: authn::TokenReview) -> Result<Value, StatusError> {
        let token = review.spec.token.clone().unwrap_or_default();
        if token.is_empty() {
            return Err(StatusError::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences = review.spec.audiences.clone().unwrap_or_default();
        let status = match self.gate.authenticate(&token, &audiences).await {
            Ok(found) => authn::TokenReviewStatus {
                authenticated: Some(true),
                audiences: Some(found.audiences),
                user: Some(user_info(&found.user)),
                error: None,
            },
            Err(error) => authn::TokenReviewStatus {
                authenticated: None,
                user: Some(authn::UserInfo::default()),
                error: Some(error),
                audiences: None,
            },
        };
        Ok(value(&authn::TokenReview { status: Some(status), ..review }))
    }

    fn access(
        &self,
        kind: &str,
        spec: &authz::SubjectAccessReviewSpec,
    ) -> Result<authz::SubjectAccessReviewStatus, StatusError> {
        validate(kind, spec)?;
        let user = User {
            name: spec.user.clone().unwrap_or_default(),
            uid: spec.uid.clone().unwrap_or_default(),
            groups: spec.groups.clone().unwrap_or_default(),
            extra: spec.extra.clone().unwrap_or_default(),
        };
        let text = |t: &'_ Option<String>| t.clone().unwrap_or_default();
        let decision = match (&spec.resource_attributes, &spec.non_resource_attributes) {
            (Some(asked), _) => {
                let (group, version) = (text(&asked.group), text(&asked.version));
                let (resource, sub) = (text(&asked.resource), text(&asked.subresource));
                let (namespace, name) = (text(&asked.namespace), text(&asked.name));
                let fields = asked.field_selector.as_ref().map(field_selector).unwrap_or_default();
                let resource = Resource {
                    group: &group,
                    version: &version,
                    resource: &resource,
                    subresource: &sub,
                    namespace: &namespace,
                    name: &name,
                    field_selector: &fields,
                };
                let verb = text(&asked.verb);
                self.authorizer.decide(&user, &Request::Resource(&verb, resource))
            }
            (None, Some(asked)) => {
                let (verb, path) = (text(&asked.verb), text(&asked.path));
                self.authorizer.decide(&user, &Request::Path(&verb, &path))
            }
            (None, None) => unreachable!("it was validated"),
        };
        let some = |t: String| (!t.is_empty()).then_some(t);
        Ok(authz::SubjectAccessReviewStatus {
            allowed: decision.allowed,
            denied: None,
            reason: some(decision.reason),
            evaluation_error: some(decision.error),
        })
    }

    async fn rules(&self, user: &User, namespace: &str) -> authz::SubjectRulesReviewStatus {
        let held = self.authorizer.rbac().policy().await.held(user, namespace);
        let (mut resources, mut others) = (Vec::new(), Vec::new());
        if user.is_in("system:masters") {
            let all = || Some(vec!["*".to_owned()]);
            resources.push(authz::ResourceRule {
                verbs: vec!["*".into()],
                api_groups: all(),
                resources: all(),
                resource_names: None,
            });
            others.push(authz::NonResourceRule { verbs: vec!["*".into()], non_resource_urls: all() });
        }
        for rule in rules::simplify(held.rules) {
            if rule.resources.as_ref().is_some_and(|r| !r.is_empty()) {
                resources.push(authz::ResourceRule {
                    verbs: rule.verbs.clone(),
                    api_groups: rule.api_groups.clone(),
                    resources: rule.resources.clone(),
                    resource_names: rule.resource_names.clone(),
                });
            }
            if rule.non_resource_urls.as_ref().is_some_and(|r| !r.is_empty()) {
                others.push(authz::NonResourceRule {
                    verbs: rule.verbs,
                    non_resource_urls: rule.non_resource_urls,
                });
            }
        }
        let node = user.node().is_some();
        let mut errors = held.errors;
        if node {
            errors.push("node authorizer does not support user rule resolution".into());
        }
        authz::SubjectRulesReviewStatus {
            resource_rules: resources,
            non_resource_rules: others,
            incomplete: node,
            evaluation_error: (!errors.is_empty()).then(|| errors.join(", ")),
        }
    }
}

/// Sees to it that a document is of a kind, and that it has metadata.
fn name_kind(document: &mut Value, version: &str, kind: &str) -> Result<(), StatusError> {
    let Some(map) = document.as_object_mut() else {
        return Err(StatusError::bad_request("the request body is not a JSON object"));
    };
    for (field, wanted) in [("apiVersion", version), ("kind", kind)] {
        let own = map.entry(field).or_insert_with(|| wanted.into());
        if own.as_str() != Some(wanted) {
            return Err(StatusError::bad_request(format!("{field}: {own} is not {wanted:?}")));
        }
    }
    let meta = map.entry("metadata").or_insert_with(|| json!({}));
    if meta.is_null() {
        *meta = json!({});
    }
    Ok(())
}

fn self_subject(user: &User, review: authn::SelfSubjectReview) -> Value {
    let status = authn::SelfSubjectReviewStatus { user_info: Some(user_info(user)) };
    value(&authn::SelfSubjectReview { status: Some(status), ..review })
}

fn user_info(user: &User) -> authn::UserInfo {
    authn::UserInfo {
        username: Some(user.name.clone()),
        uid: (!user.uid.is_empty()).then(|| user.uid.clone()),
        groups: Some(user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
    }
}

fn typed<T: DeserializeOwned>(document: &Value) -> Result<T, StatusError> {
    decode(document).map_err(|error| StatusError::bad_request(error.to_string()))
}

fn value<T: serde::Serialize>(review: &T) -> Value {
    serde_json::to_value(review).unwrap_or_default()
}

fn field_selector(selector: &authz::FieldSelectorAttributes) -> String {
    if let Some(raw) = &selector.raw_selector {
        return raw.clone();
    }
    let one = |r: &api::openapi::apimachinery::pkg::apis::meta::v1::FieldSelectorRequirement| {
        let value = r.values.iter().flatten().next().cloned().unwrap_or_default();
        match r.operator.as_str() {
            "In" => Some(format!("{}={value}", r.key)),
            "NotIn" => Some(format!("{}!={value}", r.key)),
            _ => None,
        }
    };
    let terms: Vec<_> = selector.requirements.iter().flatten().filter_map(one).collect();
    terms.join(",")
}

fn validate(kind: &str, spec: &authz::SubjectAccessReviewSpec) -> Result<(), StatusError> {
    let empty = |t: &Option<String>| t.as_deref().unwrap_or_default().is_empty();
    let wrong = match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(_), Some(_)) => Some((
            "spec.nonResourceAttributes: Invalid value: cannot be specified in combination with resourceAttributes",
            "spec.nonResourceAttributes",
        )),
        (None, None) => Some((
            "spec.resourceAttributes: Invalid value: exactly one of nonResourceAttributes or resourceAttributes must \
             be specified",
            "spec.resourceAttributes",
        )),
        _ if empty(&spec.user) && spec.groups.as_ref().is_none_or(Vec::is_empty) => Some((
            "spec.user: Invalid value: \"\": at least one of user or group must be specified",
            "spec.user",
        )),
        _ => None,
    };
    match wrong {
        None => Ok(()),
        Some((message, field)) => {
            let text = format!("{kind}.authorization.k8s.io \"\" is invalid: {message}");
            let mut error = StatusError::new(422, "Invalid", text);
            let cause = api::openapi::apimachinery::pkg::apis::meta::v1::StatusCause {
                field: Some(field.into()),
                message: Some(message.trim_start_matches(field).trim_start_matches(": ").into()),
                reason: Some("FieldValueInvalid".into()),
            };
            error.0.details.get_or_insert_default().causes = Some(vec![cause]);
            Err(error)
        }
    }
}
