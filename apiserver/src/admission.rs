//! Admission: what a request must pass and is changed by, between authorization and registry.

pub mod default_toleration_seconds;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod service_account;

use api::status::StatusError;
use api::{Kind, Object, Subresource};

use crate::auth::User;

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is new.
    Create,
    /// It changes.
    Update,
    /// It goes.
    Delete,
}

/// Fills in what cluster policy sets in new objects. Runs on the client's document, before it is decoded.
pub fn mutate(kind: &Kind, object: &mut Object) {
    if kind.group.is_empty() && kind.kind == "Pod" {
        service_account::mutate(object);
        default_toleration_seconds::mutate(object);
    }
}

/// Refuses what policy does not allow this user. `new` is absent for deletions, `old` for creations.
///
/// # Errors
/// 403.
pub fn validate(
    user: &User,
    kind: &Kind,
    subresource: Option<Subresource>,
    operation: Operation,
    new: Option<&Object>,
    old: Option<&Object>,
) -> Result<(), StatusError> {
    match user.node() {
        Some(node) => node_restriction::decide(node, kind, subresource, operation, new, old),
        None => Ok(()),
    }
}
