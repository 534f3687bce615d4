//! Who may do what: a kubelet what concerns its node, anybody what the roles say, `system:masters` everything.

use std::sync::Arc;

use api::openapi::api::rbac::v1::PolicyRule;
use api::{Kind, Subresource};

use super::rbac::follow::Present;
use super::{User, node, rbac};
use crate::storage::Hub;

/// A request for an object or a collection. Names are enough: a review may ask about what is not served here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resource<'a> {
    /// The API group, empty for core.
    pub group: &'a str,
    /// The version.
    pub version: &'a str,
    /// The plural, such as `pods`.
    pub resource: &'a str,
    /// The part of the object, or nothing.
    pub subresource: &'a str,
    /// The namespace; empty for cluster-scoped kinds and for all namespaces.
    pub namespace: &'a str,
    /// The object's name; empty for collections and creations.
    pub name: &'a str,
    /// The field selector of a list or watch.
    pub field_selector: &'a str,
}

impl<'a> Resource<'a> {
    /// What a path or message names. A namespace is its own scope, as upstream's request info has it.
    pub fn of(
        kind: &'a Kind,
        namespace: &'a str,
        name: &'a str,
        subresource: Option<Subresource>,
        field_selector: &'a str,
    ) -> Self {
        let is_namespace = kind.kind == "Namespace" && kind.group.is_empty();
        Self {
            group: kind.group,
            version: kind.version,
            resource: kind.plural,
            subresource: subresource.map_or("", Subresource::path),
            namespace: if is_namespace { name } else { namespace },
            name,
            field_selector,
        }
    }
}

/// What a user asks for.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// An object or a collection, with upstream's verb: `get`, `list`, `watch`, `create`, `update`, `patch`,
    /// `delete`, `deletecollection`, or a verb of its own such as `bind`, `escalate`, `impersonate`, `approve`.
    Resource(&'a str, Resource<'a>),
    /// Any other path, with the HTTP method in lower case.
    Path(&'a str, &'a str),
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// Why, or why not; may be empty.
    pub reason: String,
    /// What could not be found out on the way; may be empty.
    pub error: String,
}

/// Decides requests.
pub struct Authorizer {
    hub: Arc<Hub>,
    rbac: Present,
    node_rules: Vec<PolicyRule>,
}

impl Authorizer {
    /// An authorizer that looks at the pods of a node in the copies, and at the present policy.
    pub fn new(hub: Arc<Hub>, rbac: Present) -> Self {
        Self { hub, rbac, node_rules: rbac::bootstrap::node_rules() }
    }

    /// What the roles and bindings say.
    pub fn rbac(&self) -> &Present {
        &self.rbac
    }

    /// Whether a user may do something, and why. The gate has waited for the first look at the roles.
    pub fn decide(&self, user: &User, request: &Request<'_>) -> Decision {
        if user.is_in("system:masters") {
            return Decision { allowed: true, reason: String::new(), error: String::new() };
        }
        let mut reasons = Vec::new();
        if let Some(node) = user.node() {
            let ask = node::Ask { node, rules: &self.node_rules, pods: &node::Pods(&self.hub) };
            match node::authorize(&ask, request) {
                Ok(()) => return Decision { allowed: true, reason: String::new(), error: String::new() },
                Err(why) => reasons.extend(why),
            }
        }
        let mut error = String::new();
        match self.rbac.now().allows(user, request) {
            Ok(reason) => return Decision { allowed: true, reason, error },
            Err(errors) => match errors.as_slice() {
                [] => {}
                [one] => error.clone_from(one),
                many => error = format!("[{}]", many.join(", ")),
            },
        }
        if !error.is_empty() {
            reasons.push(format!("RBAC: {error}"));
        }
        Decision { allowed: false, reason: reasons.join("\n"), error }
    }

    /// Whether a user may do something.
    ///
    /// # Errors
    /// 403 in upstream's wording.
    pub fn authorize(&self, user: &User, request: &Request<'_>) -> Result<(), api::StatusError> {
        let decision = self.decide(user, request);
        if decision.allowed { Ok(()) } else { Err(forbidden(user, request, &decision.reason)) }
    }
}

/// The refusal of a request.
pub fn forbidden(user: &User, request: &Request<'_>, why: &str) -> api::StatusError {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    match request {
        Request::Path(verb, path) => api::StatusError::new(
            403,
            "Forbidden",
            format!("forbidden: User {:?} cannot {verb} path {path:?}{why}", user.name),
        ),
        Request::Resource(verb, resource) => {
            let plural = match resource.subresource {
                "" => resource.resource.to_owned(),
                sub => format!("{}/{sub}", resource.resource),
            };
            let scope = match resource.namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            let message = format!(
                "User {:?} cannot {verb} resource {plural:?} in API group {:?} {scope}{why}",
                user.name, resource.group
            );
            api::StatusError::forbidden_resource(resource.group, resource.resource, resource.name, message)
        }
    }
}
