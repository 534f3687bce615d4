//! Which rules belong to which kind: one row per kind.

use api::Kind;

use super::strategy::{Erased, ErasedStrategy, Generic};
use super::{apps, coordination, core, discovery, events};

macro_rules! rules {
    ($($strategy:ident)::+) => {{
        static S: Erased<$($strategy)::+> = Erased($($strategy)::+);
        &S
    }};
}

macro_rules! plain {
    ($module:ident::$kind:ident) => {{
        static S: Erased<Generic<types::$module::$kind>> = Erased(Generic::new());
        &S
    }};
}

/// The typed objects of the kinds without rules of their own.
mod types {
    pub(super) use api::openapi::api::admissionregistration::v1 as admissionregistration;
    pub(super) use api::openapi::api::storage::v1 as storage;
    pub(super) use api::openapi::api::{
        apps::v1 as apps, autoscaling::v2 as autoscaling_v2, batch::v1 as batch,
    };
    pub(super) use api::openapi::api::{certificates::v1 as certificates, core::v1 as core};
    pub(super) use api::openapi::api::{flowcontrol::v1 as flowcontrol, networking::v1 as networking};
    pub(super) use api::openapi::api::{node::v1 as node, policy::v1 as policy, rbac::v1 as rbac};
    pub(super) use api::openapi::api::{resource::v1 as resource, scheduling::v1 as scheduling};
    pub(super) use api::openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
    pub(super) use api::openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;
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
        ("", "PersistentVolume") => plain!(core::PersistentVolume),
        ("", "PersistentVolumeClaim") => plain!(core::PersistentVolumeClaim),
        ("", "ReplicationController") => plain!(core::ReplicationController),
        ("", "PodTemplate") => plain!(core::PodTemplate),
        ("", "ResourceQuota") => plain!(core::ResourceQuota),
        ("", "LimitRange") => plain!(core::LimitRange),
        ("", "ComponentStatus") => rules!(core::component_status::ComponentStatusStrategy),
        ("apps", "StatefulSet") => plain!(apps::StatefulSet),
        ("apps", "DaemonSet") => plain!(apps::DaemonSet),
        ("batch", "Job") => plain!(batch::Job),
        ("batch", "CronJob") => plain!(batch::CronJob),
        ("autoscaling", "HorizontalPodAutoscaler") => plain!(autoscaling_v2::HorizontalPodAutoscaler),
        ("policy", "PodDisruptionBudget") => plain!(policy::PodDisruptionBudget),
        ("networking.k8s.io", "Ingress") => plain!(networking::Ingress),
        ("networking.k8s.io", "IngressClass") => plain!(networking::IngressClass),
        ("networking.k8s.io", "NetworkPolicy") => plain!(networking::NetworkPolicy),
        ("networking.k8s.io", "IPAddress") => plain!(networking::IPAddress),
        ("networking.k8s.io", "ServiceCIDR") => plain!(networking::ServiceCIDR),
        ("node.k8s.io", "RuntimeClass") => plain!(node::RuntimeClass),
        ("scheduling.k8s.io", "PriorityClass") => plain!(scheduling::PriorityClass),
        ("storage.k8s.io", "StorageClass") => plain!(storage::StorageClass),
        ("storage.k8s.io", "VolumeAttachment") => plain!(storage::VolumeAttachment),
        ("storage.k8s.io", "CSINode") => plain!(storage::CSINode),
        ("storage.k8s.io", "CSIDriver") => plain!(storage::CSIDriver),
        ("storage.k8s.io", "CSIStorageCapacity") => plain!(storage::CSIStorageCapacity),
        ("storage.k8s.io", "VolumeAttributesClass") => plain!(storage::VolumeAttributesClass),
        ("rbac.authorization.k8s.io", "Role") => plain!(rbac::Role),
        ("rbac.authorization.k8s.io", "RoleBinding") => plain!(rbac::RoleBinding),
        ("rbac.authorization.k8s.io", "ClusterRole") => plain!(rbac::ClusterRole),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => plain!(rbac::ClusterRoleBinding),
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            plain!(certificates::CertificateSigningRequest)
        }
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => {
            plain!(admissionregistration::MutatingWebhookConfiguration)
        }
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => {
            plain!(admissionregistration::ValidatingWebhookConfiguration)
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            plain!(admissionregistration::ValidatingAdmissionPolicy)
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding") => {
            plain!(admissionregistration::ValidatingAdmissionPolicyBinding)
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            plain!(apiextensions::CustomResourceDefinition)
        }
        ("apiregistration.k8s.io", "APIService") => plain!(apiregistration::APIService),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => plain!(flowcontrol::FlowSchema),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            plain!(flowcontrol::PriorityLevelConfiguration)
        }
        ("resource.k8s.io", "DeviceClass") => plain!(resource::DeviceClass),
        ("resource.k8s.io", "ResourceClaim") => plain!(resource::ResourceClaim),
        ("resource.k8s.io", "ResourceClaimTemplate") => plain!(resource::ResourceClaimTemplate),
        ("resource.k8s.io", "ResourceSlice") => plain!(resource::ResourceSlice),
        (group, kind) => unreachable!("{group}/{kind} is in the table of kinds but has no strategy"),
    }
}

#[cfg(test)]
mod tests;
