//! Role-based access control, evaluated from the server's own copies.
//!
//! A [`Policy`] is what all roles and bindings say at one moment, indexed by subject. Whoever asks gets the present
//! one without waiting for anybody; [`follow`] makes a new one whenever a role or binding changes.

pub mod bootstrap;
pub mod escalation;
pub mod follow;
pub mod reconcile;
pub mod rules;

use std::collections::HashMap;
use std::sync::Arc;

use api::openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};

use super::{Request, User};

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// A binding of a role to one of its subjects.
#[derive(Debug)]
pub struct Grant {
    /// The binding's namespace; empty for a ClusterRoleBinding.
    namespace: String,
    binding: String,
    subject: Subject,
    role: RoleRef,
}

impl Grant {
    /// In the words of a review's reason.
    fn describe(&self) -> String {
        let subject = match (self.subject.kind.as_str(), self.subject.namespace.as_deref()) {
            ("ServiceAccount", namespace) => {
                format!("ServiceAccount \"{}/{}\"", self.subject.name, namespace.unwrap_or_default())
            }
            (kind, _) => format!("{kind} {:?}", self.subject.name),
        };
        let role = format!("of {} {:?} to {subject}", self.role.kind, self.role.name);
        match self.namespace.as_str() {
            "" => format!("ClusterRoleBinding {:?} {role}", self.binding),
            namespace => format!("RoleBinding \"{}/{namespace}\" {role}", self.binding),
        }
    }
}

/// Grants by who holds them.
#[derive(Debug, Default)]
struct Grants {
    users: HashMap<String, Vec<Arc<Grant>>>,
    groups: HashMap<String, Vec<Arc<Grant>>>,
}

impl Grants {
    fn add(&mut self, grant: Grant) {
        let name = grant.subject.name.clone();
        let (map, holder) = match grant.subject.kind.as_str() {
            "User" => (&mut self.users, name),
            "Group" => (&mut self.groups, name),
            "ServiceAccount" => {
                let namespace = grant.subject.namespace.as_deref().unwrap_or(&grant.namespace);
                (&mut self.users, format!("system:serviceaccount:{namespace}:{name}"))
            }
            _ => return,
        };
        map.entry(holder).or_default().push(Arc::new(grant));
    }

    fn of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Grant> {
        let own = self.users.get(&user.name).into_iter().flatten();
        let shared = user.groups.iter().filter_map(|group| self.groups.get(group)).flatten();
        own.chain(shared).map(AsRef::as_ref)
    }
}

/// What the roles and bindings of the cluster say.
#[derive(Debug, Default)]
pub struct Policy {
    /// By namespace and name; ClusterRoles have an empty namespace.
    roles: HashMap<String, HashMap<String, Arc<[PolicyRule]>>>,
    /// By namespace; ClusterRoleBindings are those of the empty one.
    grants: HashMap<String, Grants>,
}

/// The rules that a user holds, and what could not be found out about them.
#[derive(Debug, Default)]
pub struct Held {
    /// The rules, in no particular order.
    pub rules: Vec<PolicyRule>,
    /// Bindings that refer to roles which are not there.
    pub errors: Vec<String>,
}

impl Policy {
    /// Adds a role; a ClusterRole has no namespace.
    pub fn add_role(&mut self, namespace: &str, name: &str, rules: Arc<[PolicyRule]>) {
        self.roles.entry(namespace.to_owned()).or_default().insert(name.to_owned(), rules);
    }

    /// Adds a binding; a ClusterRoleBinding has no namespace.
    pub fn add_binding(&mut self, namespace: &str, name: &str, subjects: &[Subject], role: &RoleRef) {
        let grants = self.grants.entry(namespace.to_owned()).or_default();
        for subject in subjects {
            grants.add(Grant {
                namespace: namespace.to_owned(),
                binding: name.to_owned(),
                subject: subject.clone(),
                role: role.clone(),
            });
        }
    }

    /// The rules of a role as a binding in a namespace refers to it.
    ///
    /// # Errors
    /// Says which role is missing.
    pub fn role(&self, namespace: &str, role: &RoleRef) -> Result<&Arc<[PolicyRule]>, String> {
        let (home, kind) = match role.kind.as_str() {
            "ClusterRole" => ("", "clusterrole"),
            "Role" => (namespace, "role"),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        let found = self.roles.get(home).and_then(|roles| roles.get(&role.name));
        found.ok_or_else(|| format!("{kind}.{GROUP} {:?} not found", role.name))
    }

    /// The grants that count in a namespace: the cluster's and its own.
    fn grants<'a>(&'a self, user: &'a User, namespace: &str) -> impl Iterator<Item = &'a Grant> {
        let own = if namespace.is_empty() { None } else { self.grants.get(namespace) };
        self.grants.get("").into_iter().chain(own).flat_map(move |grants| grants.of(user))
    }

    /// Whether a user may do something, and by which binding.
    ///
    /// # Errors
    /// What could not be found out on the way, empty for a plain no.
    pub fn allows(&self, user: &User, request: &Request<'_>) -> Result<String, Vec<String>> {
        let namespace = match request {
            Request::Resource(_, resource) => resource.namespace,
            Request::Path(..) => "",
        };
        let mut errors = Vec::new();
        for grant in self.grants(user, namespace) {
            match self.role(&grant.namespace, &grant.role) {
                Ok(role) if role.iter().any(|rule| rules::allows(rule, request)) => {
                    return Ok(format!("RBAC: allowed by {}", grant.describe()));
                }
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
        Err(errors)
    }

    /// Every rule that a user holds in a namespace; the empty one asks for those that hold everywhere.
    pub fn held(&self, user: &User, namespace: &str) -> Held {
        let mut held = Held::default();
        for grant in self.grants(user, namespace) {
            match self.role(&grant.namespace, &grant.role) {
                Ok(role) => held.rules.extend(role.iter().cloned()),
                Err(error) => held.errors.push(error),
            }
        }
        held
    }
}

#[cfg(test)]
mod tests;
