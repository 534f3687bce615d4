//! Which rules belong to which kind: one row per kind.

use api::Kind;

use super::strategy::{Erased, ErasedStrategy};
use super::{apps, coordination, core, discovery, events};

macro_rules! rules {
    ($($strategy:ident)::+) => {{
        static S: Erased<$($strategy)::+> = Erased($($strategy)::+);
        &S
    }};
}

/// The rules of a kind of the table.
///
/// # Panics
/// When a row of the table has none here, which a test rules out.
pub fn strategy(kind: &Kind) -> &'static dyn ErasedStrategy {
    match (kind.group, kind.kind) {
        ("", "Namespace") => rules!(core::namespace::NamespaceStrategy),
        ("", "Node") => rules!(core::node::NodeStrategy),
        ("", "Pod") => rules!(core::pod::PodStrategy),
        ("", "Service") => rules!(core::service::ServiceStrategy),
        ("", "Endpoints") => rules!(core::endpoints::EndpointsStrategy),
        ("", "ConfigMap") => rules!(core::config_map::ConfigMapStrategy),
        ("", "Secret") => rules!(core::secret::SecretStrategy),
        ("", "ServiceAccount") => rules!(core::service_account::ServiceAccountStrategy),
        ("", "Event") => rules!(core::event::EventStrategy),
        ("events.k8s.io", "Event") => rules!(events::event::EventStrategy),
        ("discovery.k8s.io", "EndpointSlice") => rules!(discovery::endpoint_slice::EndpointSliceStrategy),
        ("coordination.k8s.io", "Lease") => rules!(coordination::lease::LeaseStrategy),
        ("apps", "Deployment") => rules!(apps::deployment::DeploymentStrategy),
        ("apps", "ReplicaSet") => rules!(apps::replica_set::ReplicaSetStrategy),
        ("apps", "ControllerRevision") => rules!(apps::controller_revision::ControllerRevisionStrategy),
        (group, kind) => unreachable!("{group}/{kind} is in the table of kinds but has no strategy"),
    }
}

#[cfg(test)]
mod tests;
