//! The rows of the table of kinds.

use k8s_openapi::api::{admissionregistration::v1 as admissionregistration, apps::v1 as apps};
use k8s_openapi::api::{authentication::v1 as authentication, authorization::v1 as authorization};
use k8s_openapi::api::{
    autoscaling::v1 as autoscaling, autoscaling::v2 as autoscaling_v2, batch::v1 as batch,
};
use k8s_openapi::api::{
    certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core,
};
use k8s_openapi::api::{discovery::v1 as discovery, events::v1 as events, flowcontrol::v1 as flowcontrol};
use k8s_openapi::api::{
    networking::v1 as networking, node::v1 as node, policy::v1 as policy, rbac::v1 as rbac,
};
use k8s_openapi::api::{resource::v1 as resource, scheduling::v1 as scheduling, storage::v1 as storage};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;

use super::Kind;
use super::Subresource::{
    Approval, Attach, Binding, Eviction, Exec, Finalize, Log, PortForward, Proxy, Scale, Status, Token,
};

/// The category of what extends the API.
const EXTENSIONS: &[&str] = &["api-extensions"];
/// The category of what `kubectl get all` shows.
const ALL: &[&str] = &["all"];

/// Every kind that the API serves. A kind without rules of its own is one row here and nothing else.
pub static KINDS: &[Kind] = &[
    Kind::of::<core::Namespace>().short(&["ns"]).subresources(&[Status, Finalize]),
    Kind::of::<core::Node>().short(&["no"]).subresources(&[Status, Proxy]),
    Kind::of::<core::Pod>().short(&["po"]).categories(ALL).generation().subresources(&[
        Status,
        Binding,
        Eviction,
        Log,
        Exec,
        Attach,
        PortForward,
        Proxy,
    ]),
    Kind::of::<core::Service>().short(&["svc"]).categories(ALL).subresources(&[Status, Proxy]),
    Kind::of::<core::Endpoints>().short(&["ep"]),
    Kind::of::<core::ConfigMap>().short(&["cm"]),
    Kind::of::<core::Secret>(),
    Kind::of::<core::ServiceAccount>().short(&["sa"]).subresources(&[Token]),
    Kind::of::<core::Event>().short(&["ev"]),
    Kind::of::<core::PersistentVolume>().short(&["pv"]).subresources(&[Status]),
    Kind::of::<core::PersistentVolumeClaim>().short(&["pvc"]).subresources(&[Status]),
    Kind::of::<core::ReplicationController>()
        .short(&["rc"])
        .categories(ALL)
        .generation()
        .subresources(&[Status, Scale]),
    Kind::of::<core::PodTemplate>().generation(),
    Kind::of::<core::ResourceQuota>().short(&["quota"]).subresources(&[Status]),
    Kind::of::<core::LimitRange>().short(&["limits"]),
    Kind::of::<core::ComponentStatus>().short(&["cs"]).computed(),
    Kind::of::<events::Event>().short(&["ev"]),
    Kind::of::<discovery::EndpointSlice>().generation(),
    Kind::of::<coordination::Lease>(),
    Kind::of::<apps::Deployment>()
        .short(&["deploy"])
        .categories(ALL)
        .generation()
        .subresources(&[Status, Scale]),
    Kind::of::<apps::ReplicaSet>().short(&["rs"]).categories(ALL).generation().subresources(&[Status, Scale]),
    Kind::of::<apps::StatefulSet>()
        .short(&["sts"])
        .categories(ALL)
        .generation()
        .subresources(&[Status, Scale]),
    Kind::of::<apps::DaemonSet>().short(&["ds"]).categories(ALL).generation().subresources(&[Status]),
    Kind::of::<apps::ControllerRevision>(),
    Kind::of::<batch::Job>().categories(ALL).generation().subresources(&[Status]),
    Kind::of::<batch::CronJob>().short(&["cj"]).categories(ALL).generation().subresources(&[Status]),
    Kind::of::<autoscaling_v2::HorizontalPodAutoscaler>()
        .short(&["hpa"])
        .categories(ALL)
        .subresources(&[Status]),
    Kind::of::<autoscaling::HorizontalPodAutoscaler>()
        .short(&["hpa"])
        .categories(ALL)
        .subresources(&[Status]),
    Kind::of::<policy::PodDisruptionBudget>().short(&["pdb"]).generation().subresources(&[Status]),
    Kind::of::<networking::Ingress>().short(&["ing"]).generation().subresources(&[Status]),
    Kind::of::<networking::IngressClass>().generation(),
    Kind::of::<networking::NetworkPolicy>().short(&["netpol"]).generation(),
    Kind::of::<networking::IPAddress>().short(&["ip"]),
    Kind::of::<networking::ServiceCIDR>().subresources(&[Status]),
    Kind::of::<node::RuntimeClass>(),
    Kind::of::<scheduling::PriorityClass>().short(&["pc"]).generation(),
    Kind::of::<storage::StorageClass>().short(&["sc"]),
    Kind::of::<storage::VolumeAttachment>().subresources(&[Status]),
    Kind::of::<storage::CSINode>(),
    Kind::of::<storage::CSIDriver>().generation(),
    Kind::of::<storage::CSIStorageCapacity>(),
    Kind::of::<storage::VolumeAttributesClass>().short(&["vac"]),
    Kind::of::<rbac::Role>(),
    Kind::of::<rbac::RoleBinding>(),
    Kind::of::<rbac::ClusterRole>(),
    Kind::of::<rbac::ClusterRoleBinding>(),
    Kind::of::<certificates::CertificateSigningRequest>().short(&["csr"]).subresources(&[Status, Approval]),
    Kind::of::<admissionregistration::MutatingWebhookConfiguration>().categories(EXTENSIONS).generation(),
    Kind::of::<admissionregistration::ValidatingWebhookConfiguration>().categories(EXTENSIONS).generation(),
    Kind::of::<admissionregistration::ValidatingAdmissionPolicy>()
        .categories(EXTENSIONS)
        .generation()
        .subresources(&[Status]),
    Kind::of::<admissionregistration::ValidatingAdmissionPolicyBinding>().categories(EXTENSIONS).generation(),
    Kind::of::<apiextensions::CustomResourceDefinition>()
        .short(&["crd", "crds"])
        .categories(EXTENSIONS)
        .generation()
        .subresources(&[Status]),
    Kind::of::<apiregistration::APIService>().categories(EXTENSIONS).subresources(&[Status]),
    Kind::of::<flowcontrol::FlowSchema>().generation().subresources(&[Status]),
    Kind::of::<flowcontrol::PriorityLevelConfiguration>().generation().subresources(&[Status]),
    Kind::of::<resource::DeviceClass>().generation(),
    Kind::of::<resource::ResourceClaim>().subresources(&[Status]),
    Kind::of::<resource::ResourceClaimTemplate>(),
    Kind::of::<resource::ResourceSlice>().generation(),
    Kind::review::<core::Binding>(),
    Kind::review::<authentication::TokenReview>(),
    Kind::review::<authentication::SelfSubjectReview>(),
    Kind::review::<authorization::SubjectAccessReview>(),
    Kind::review::<authorization::SelfSubjectAccessReview>(),
    Kind::review::<authorization::LocalSubjectAccessReview>(),
    Kind::review::<authorization::SelfSubjectRulesReview>(),
];
