//! How the lists of built-in kinds merge, as upstream's types are tagged: also for kinds that other
//! servers than ours serve.

/// How a field merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Maps merge; a list is replaced whole.
    Plain,
    /// Elements with the same value of this key are one.
    Keyed(&'static str),
    /// As `Keyed`, and an element keeps only the keys that the manifest names.
    KeyedRetain(&'static str),
    /// Scalars, each of which stands once.
    Set,
    /// A map that keeps only the keys that the manifest names.
    Retain,
    /// A map that is replaced whole.
    Replace,
}

/// The types whose fields have rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Plain,
    Document(Spec),
    Meta,
    Spec(Spec),
    Status(Spec),
    Template,
    JobTemplate,
    JobSpec,
    PodSpec,
    Container,
    Volume,
}

/// Kinds by what their `spec` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spec {
    Pod,
    Deployment,
    Workload,
    Job,
    CronJob,
    PodTemplate,
    Service,
    Node,
    ServiceAccount,
    Webhooks,
    Volume,
    Disruption,
    StorageNode,
    Other,
}

use Rule::{Keyed, KeyedRetain, Plain, Replace, Retain, Set};

static FIELDS: &[(Type, &str, Rule, Type)] = &[
    (Type::Meta, "ownerReferences", Keyed("uid"), Type::Plain),
    (Type::Meta, "finalizers", Set, Type::Plain),
    (Type::Template, "metadata", Plain, Type::Meta),
    (Type::Template, "spec", Plain, Type::PodSpec),
    (Type::PodSpec, "containers", Keyed("name"), Type::Container),
    (Type::PodSpec, "initContainers", Keyed("name"), Type::Container),
    (Type::PodSpec, "ephemeralContainers", Keyed("name"), Type::Container),
    (Type::PodSpec, "volumes", KeyedRetain("name"), Type::Volume),
    (Type::PodSpec, "imagePullSecrets", Keyed("name"), Type::Plain),
    (Type::PodSpec, "hostAliases", Keyed("ip"), Type::Plain),
    (Type::PodSpec, "topologySpreadConstraints", Keyed("topologyKey"), Type::Plain),
    (Type::PodSpec, "resourceClaims", KeyedRetain("name"), Type::Plain),
    (Type::PodSpec, "schedulingGates", Keyed("name"), Type::Plain),
    (Type::Container, "ports", Keyed("containerPort"), Type::Plain),
    (Type::Container, "env", Keyed("name"), Type::Plain),
    (Type::Container, "volumeMounts", Keyed("mountPath"), Type::Plain),
    (Type::Container, "volumeDevices", Keyed("devicePath"), Type::Plain),
    (Type::Spec(Spec::Deployment), "template", Plain, Type::Template),
    (Type::Spec(Spec::Deployment), "strategy", Retain, Type::Plain),
    (Type::Spec(Spec::Workload), "template", Plain, Type::Template),
    (Type::Spec(Spec::Job), "template", Plain, Type::Template),
    (Type::Spec(Spec::CronJob), "jobTemplate", Plain, Type::JobTemplate),
    (Type::JobTemplate, "metadata", Plain, Type::Meta),
    (Type::JobTemplate, "spec", Plain, Type::JobSpec),
    (Type::JobSpec, "template", Plain, Type::Template),
    (Type::Document(Spec::PodTemplate), "template", Plain, Type::Template),
    (Type::Spec(Spec::Service), "ports", Keyed("port"), Type::Plain),
    (Type::Spec(Spec::Node), "podCIDRs", Set, Type::Plain),
    (Type::Spec(Spec::Disruption), "selector", Replace, Type::Plain),
    (Type::Spec(Spec::StorageNode), "drivers", Keyed("name"), Type::Plain),
    (Type::Status(Spec::Node), "addresses", Keyed("type"), Type::Plain),
    (Type::Status(Spec::Pod), "podIPs", Keyed("ip"), Type::Plain),
    (Type::Status(Spec::Pod), "hostIPs", Keyed("ip"), Type::Plain),
    (Type::Document(Spec::ServiceAccount), "secrets", Keyed("name"), Type::Plain),
    (Type::Document(Spec::Webhooks), "webhooks", Keyed("name"), Type::Plain),
];

/// Whether a group belongs to Kubernetes itself, whose servers take strategic merge patches.
pub fn is_built_in(group: &str) -> bool {
    const GROUPS: &[&str] = &[
        "",
        "admissionregistration.k8s.io",
        "apps",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
        "batch",
        "certificates.k8s.io",
        "coordination.k8s.io",
        "discovery.k8s.io",
        "events.k8s.io",
        "flowcontrol.apiserver.k8s.io",
        "internal.apiserver.k8s.io",
        "networking.k8s.io",
        "node.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "resource.k8s.io",
        "scheduling.k8s.io",
        "storage.k8s.io",
    ];
    GROUPS.contains(&group)
}

impl Type {
    /// The type of a whole document.
    pub fn of(group: &str, kind: &str) -> Self {
        Self::Document(match (group, kind) {
            ("", "Pod") => Spec::Pod,
            ("", "Service") => Spec::Service,
            ("", "Node") => Spec::Node,
            ("", "ServiceAccount") => Spec::ServiceAccount,
            ("", "PodTemplate") => Spec::PodTemplate,
            ("", "PersistentVolume") => Spec::Volume,
            ("", "ReplicationController") => Spec::Workload,
            ("apps", "Deployment") => Spec::Deployment,
            ("apps", "ReplicaSet" | "StatefulSet" | "DaemonSet") => Spec::Workload,
            ("batch", "Job") => Spec::Job,
            ("batch", "CronJob") => Spec::CronJob,
            ("policy", "PodDisruptionBudget") => Spec::Disruption,
            ("storage.k8s.io", "CSINode") => Spec::StorageNode,
            (
                "admissionregistration.k8s.io",
                "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration",
            ) => Spec::Webhooks,
            _ => Spec::Other,
        })
    }

    /// How a field merges, and the type of the field or of its elements.
    pub fn field(self, name: &str) -> (Rule, Self) {
        match (self, name) {
            (Self::Document(_), "metadata") => (Plain, Self::Meta),
            (Self::Document(Spec::Pod), "spec") => (Plain, Self::PodSpec),
            (Self::Document(spec), "spec") => (Plain, Self::Spec(spec)),
            (Self::Document(spec), "status") => (Plain, Self::Status(spec)),
            (Self::Status(_), "conditions") => (Keyed("type"), Self::Plain),
            _ => FIELDS
                .iter()
                .find(|(owner, field, ..)| *owner == self && *field == name)
                .map_or((Plain, Self::Plain), |(_, _, rule, of)| (*rule, *of)),
        }
    }
}
