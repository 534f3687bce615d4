//! Which rules belong to which kind: one row per kind.

use std::sync::LazyLock;

use api::Kind;
use api::kinds::KINDS;

use crate::custom;

use super::strategy::{DocumentRules, Erased, ErasedStrategy, Plain};
use super::{
    admissionregistration, apiextensions, apiregistration, apps, autoscaling, batch, certificates,
    coordination, core, discovery, events, networking, node, policy, rbac, scheduling, storage,
};

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
    if let Some(rules) = custom::rules::of(kind) {
        return rules;
    }
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
        ("", "PersistentVolume") => rules!(core::persistent_volume::PersistentVolumeStrategy),
        ("", "PersistentVolumeClaim") => rules!(core::persistent_volume_claim::PersistentVolumeClaimStrategy),
        ("", "ReplicationController") => rules!(core::replication_controller::ReplicationControllerStrategy),
        ("", "PodTemplate") => rules!(core::pod_template::PodTemplateStrategy),
        ("", "ResourceQuota") => rules!(core::resource_quota::ResourceQuotaStrategy),
        ("", "LimitRange") => rules!(core::limit_range::LimitRangeStrategy),
        ("", "ComponentStatus") => rules!(core::component_status::ComponentStatusStrategy),
        ("apps", "StatefulSet") => rules!(apps::stateful_set::StatefulSetStrategy),
        ("apps", "DaemonSet") => rules!(apps::daemon_set::DaemonSetStrategy),
        ("batch", "Job") => rules!(batch::job::JobStrategy),
        ("batch", "CronJob") => rules!(batch::cron_job::CronJobStrategy),
        ("autoscaling", "HorizontalPodAutoscaler") => {
            rules!(autoscaling::horizontal_pod_autoscaler::HorizontalPodAutoscalerStrategy)
        }
        ("policy", "PodDisruptionBudget") => {
            rules!(policy::pod_disruption_budget::PodDisruptionBudgetStrategy)
        }
        ("networking.k8s.io", "Ingress") => rules!(networking::ingress::IngressStrategy),
        ("networking.k8s.io", "IngressClass") => rules!(networking::ingress_class::IngressClassStrategy),
        ("networking.k8s.io", "NetworkPolicy") => rules!(networking::network_policy::NetworkPolicyStrategy),
        ("networking.k8s.io", "IPAddress") => rules!(networking::ip_address::IPAddressStrategy),
        ("networking.k8s.io", "ServiceCIDR") => rules!(networking::service_cidr::ServiceCIDRStrategy),
        ("node.k8s.io", "RuntimeClass") => rules!(node::runtime_class::RuntimeClassStrategy),
        ("scheduling.k8s.io", "PriorityClass") => rules!(scheduling::priority_class::PriorityClassStrategy),
        ("storage.k8s.io", "StorageClass") => rules!(storage::storage_class::StorageClassStrategy),
        ("storage.k8s.io", "VolumeAttachment") => {
            rules!(storage::volume_attachment::VolumeAttachmentStrategy)
        }
        ("storage.k8s.io", "CSINode") => rules!(storage::csi_node::CSINodeStrategy),
        ("storage.k8s.io", "CSIDriver") => rules!(storage::csi_driver::CSIDriverStrategy),
        ("rbac.authorization.k8s.io", "Role") => rules!(rbac::role::RoleStrategy),
        ("rbac.authorization.k8s.io", "RoleBinding") => rules!(rbac::binding::RoleBindingStrategy),
        ("rbac.authorization.k8s.io", "ClusterRole") => rules!(rbac::role::ClusterRoleStrategy),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => {
            rules!(rbac::binding::ClusterRoleBindingStrategy)
        }
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            rules!(certificates::certificate_signing_request::CertificateSigningRequestStrategy)
        }
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => {
            rules!(admissionregistration::webhooks::MutatingWebhookConfigurationStrategy)
        }
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => {
            rules!(admissionregistration::webhooks::ValidatingWebhookConfigurationStrategy)
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            rules!(apiextensions::custom_resource_definition::CustomResourceDefinitionStrategy)
        }
        ("apiregistration.k8s.io", "APIService") => rules!(apiregistration::api_service::APIServiceStrategy),
        ("storage.k8s.io", "CSIStorageCapacity")
        | ("storage.k8s.io", "VolumeAttributesClass")
        | ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy")
        | ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding")
        | ("flowcontrol.apiserver.k8s.io", "FlowSchema")
        | ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration")
        | ("resource.k8s.io", "DeviceClass")
        | ("resource.k8s.io", "ResourceClaim")
        | ("resource.k8s.io", "ResourceClaimTemplate")
        | ("resource.k8s.io", "ResourceSlice") => plain(kind),
        (group, kind) => unreachable!("{group}/{kind} is in the table of kinds but has no strategy"),
    }
}

/// The rules of a row without rules of its own.
fn plain(kind: &Kind) -> &'static dyn ErasedStrategy {
    static ROWS: LazyLock<Vec<Plain>> =
        LazyLock::new(|| KINDS.iter().map(|kind| Plain(kind, document_rules(kind))).collect());
    let row = ROWS.iter().find(|Plain(row, _)| (row.api_version, row.kind) == (kind.api_version, kind.kind));
    row.expect("a kind without a row of its own is custom")
}

/// Rules that are read off the document, where a kind has such.
fn document_rules(kind: &Kind) -> Option<DocumentRules> {
    match (kind.group, kind.kind) {
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            Some(admissionregistration::policies::POLICY)
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding") => {
            Some(admissionregistration::policies::BINDING)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
