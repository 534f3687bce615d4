//! Who asks, and whether they may.

pub mod authorize;
pub mod bootstrap_token;
pub mod gate;
pub mod node;
pub mod rbac;
pub mod reviews;
pub mod token;

use std::collections::BTreeMap;

pub use authorize::{Authorizer, Decision, Request, Resource};
pub use gate::Gate;

/// Who makes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The name, such as `system:node:n1`.
    pub name: String,
    /// Who that is over the years, where somebody knows; a service account's or a node's uid.
    pub uid: String,
    /// The groups, such as `system:nodes`.
    pub groups: Vec<String>,
    /// What else the authenticator knows, such as the pod that a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Somebody without a certificate.
    pub fn anonymous() -> Self {
        Self::of("system:anonymous", &["system:unauthenticated"])
    }

    /// The bearer of a verified certificate.
    pub fn authenticated(identity: component::tls::Identity) -> Self {
        let mut groups = identity.groups;
        groups.push("system:authenticated".into());
        Self { name: identity.user, groups, ..Self::default() }
    }

    /// The server itself, for what it creates when it starts.
    pub fn apiserver() -> Self {
        Self::of("system:apiserver", &["system:masters"])
    }

    /// A user of these groups.
    pub fn of(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node whose kubelet this is.
    pub fn node(&self) -> Option<&str> {
        self.name.strip_prefix("system:node:").filter(|name| !name.is_empty() && self.is_in("system:nodes"))
    }
}
