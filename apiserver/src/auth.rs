//! Who asks, and whether they may.

pub mod authorize;
pub mod node;

pub use authorize::{Authorizer, Request, Resource};

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name, such as `system:node:n1`.
    pub name: String,
    /// The groups, such as `system:nodes`.
    pub groups: Vec<String>,
}

impl User {
    /// Somebody without a certificate.
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()] }
    }

    /// The bearer of a verified certificate.
    pub fn authenticated(identity: component::tls::Identity) -> Self {
        let mut groups = identity.groups;
        groups.push("system:authenticated".into());
        Self { name: identity.user, groups }
    }

    /// The server itself, for what it creates when it starts.
    pub fn apiserver() -> Self {
        Self { name: "system:apiserver".into(), groups: vec!["system:masters".into()] }
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
