//! How the lists of each kind merge under a strategic merge patch, as the types' patch tags say.

use crate::kinds::Kind;

/// How a list merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListRule {
    /// The patch's list replaces the whole.
    Atomic,
    /// Maps with the same value of this key are merged.
    Keyed(&'static str),
    /// Scalars, each of which stands once.
    Set,
}

/// The types whose fields need a rule. Whatever has none is [`Type::Plain`]: maps merge, lists are atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Plain,
    Meta,
    Pod,
    PodSpec,
    PodStatus,
    Container,
    Workload,
    WorkloadSpec,
    Template,
    Conditions,
    Service,
    ServiceSpec,
    Node,
    NodeSpec,
    NodeStatus,
    Namespace,
    ServiceAccount,
    Other,
}

use ListRule::{Atomic, Keyed, Set};

/// (type, field, how its list merges, type of the field or of its elements)
static FIELDS: &[(Type, &str, ListRule, Type)] = &[
    (Type::Meta, "ownerReferences", Keyed("uid"), Type::Plain),
    (Type::Meta, "finalizers", Set, Type::Plain),
    (Type::Pod, "spec", Atomic, Type::PodSpec),
    (Type::Pod, "status", Atomic, Type::PodStatus),
    (Type::PodSpec, "containers", Keyed("name"), Type::Container),
    (Type::PodSpec, "initContainers", Keyed("name"), Type::Container),
    (Type::PodSpec, "ephemeralContainers", Keyed("name"), Type::Container),
    (Type::PodSpec, "volumes", Keyed("name"), Type::Plain),
    (Type::PodSpec, "imagePullSecrets", Keyed("name"), Type::Plain),
    (Type::PodSpec, "hostAliases", Keyed("ip"), Type::Plain),
    (Type::PodSpec, "topologySpreadConstraints", Keyed("topologyKey"), Type::Plain),
    (Type::PodSpec, "resourceClaims", Keyed("name"), Type::Plain),
    (Type::PodSpec, "schedulingGates", Keyed("name"), Type::Plain),
    (Type::Container, "ports", Keyed("containerPort"), Type::Plain),
    (Type::Container, "env", Keyed("name"), Type::Plain),
    (Type::Container, "volumeMounts", Keyed("mountPath"), Type::Plain),
    (Type::Container, "volumeDevices", Keyed("devicePath"), Type::Plain),
    (Type::PodStatus, "conditions", Keyed("type"), Type::Plain),
    (Type::PodStatus, "podIPs", Keyed("ip"), Type::Plain),
    (Type::PodStatus, "hostIPs", Keyed("ip"), Type::Plain),
    (Type::PodStatus, "resourceClaimStatuses", Keyed("name"), Type::Plain),
    (Type::Workload, "spec", Atomic, Type::WorkloadSpec),
    (Type::Workload, "status", Atomic, Type::Conditions),
    (Type::WorkloadSpec, "template", Atomic, Type::Template),
    (Type::Template, "metadata", Atomic, Type::Meta),
    (Type::Template, "spec", Atomic, Type::PodSpec),
    (Type::Conditions, "conditions", Keyed("type"), Type::Plain),
    (Type::Service, "spec", Atomic, Type::ServiceSpec),
    (Type::Service, "status", Atomic, Type::Conditions),
    (Type::ServiceSpec, "ports", Keyed("port"), Type::Plain),
    (Type::Node, "spec", Atomic, Type::NodeSpec),
    (Type::Node, "status", Atomic, Type::NodeStatus),
    (Type::NodeSpec, "podCIDRs", Set, Type::Plain),
    (Type::NodeStatus, "conditions", Keyed("type"), Type::Plain),
    (Type::NodeStatus, "addresses", Keyed("type"), Type::Plain),
    (Type::Namespace, "status", Atomic, Type::Conditions),
    (Type::ServiceAccount, "secrets", Keyed("name"), Type::Plain),
];

/// What OpenAPI says of a field for those who make strategic merge patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// `x-kubernetes-patch-strategy`.
    pub strategy: &'static str,
    /// `x-kubernetes-patch-merge-key`; none for lists of scalars and for maps.
    pub merge_key: Option<&'static str>,
}

/// Fields of which one alternative excludes the others: a patch that sets one names what it retains.
static RETAIN: &[(&str, &str)] =
    &[("PodSpec", "volumes"), ("PodSpec", "resourceClaims"), ("DeploymentSpec", "strategy")];

/// The patch tag of a field of a type, such as `PodSpec` and `containers`.
pub fn tag(type_name: &str, field: &str) -> Option<Tag> {
    let retain = RETAIN.contains(&(type_name, field));
    let (rule, _) = Type::named(type_name).field(field);
    Some(match (rule, retain) {
        (Atomic, false) => return None,
        (Atomic, true) => Tag { strategy: "retainKeys", merge_key: None },
        (Keyed(key), false) => Tag { strategy: "merge", merge_key: Some(key) },
        (Keyed(key), true) => Tag { strategy: "merge,retainKeys", merge_key: Some(key) },
        (Set, _) => Tag { strategy: "merge", merge_key: None },
    })
}

impl Type {
    /// The type of a Rust type's name.
    fn named(name: &str) -> Self {
        match name {
            "ObjectMeta" => Self::Meta,
            "PodSpec" => Self::PodSpec,
            "PodStatus" => Self::PodStatus,
            "Container" | "EphemeralContainer" => Self::Container,
            "DeploymentStatus" | "ReplicaSetStatus" | "ServiceStatus" | "NamespaceStatus" => Self::Conditions,
            "ServiceSpec" => Self::ServiceSpec,
            "NodeSpec" => Self::NodeSpec,
            "NodeStatus" => Self::NodeStatus,
            "ServiceAccount" => Self::ServiceAccount,
            _ => Self::Plain,
        }
    }

    /// The type of a whole document.
    pub(super) fn of(kind: &Kind) -> Self {
        match (kind.group, kind.kind) {
            ("", "Pod") => Self::Pod,
            ("", "Service") => Self::Service,
            ("", "Node") => Self::Node,
            ("", "Namespace") => Self::Namespace,
            ("", "ServiceAccount") => Self::ServiceAccount,
            ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet") => Self::Workload,
            _ => Self::Other,
        }
    }

    fn is_document(self) -> bool {
        use Type::{Namespace, Node, Other, Pod, Service, ServiceAccount, Workload};
        matches!(self, Pod | Service | Node | Namespace | ServiceAccount | Workload | Other)
    }

    /// How a field merges if it is a list, and the type of the field or of its elements.
    pub(super) fn field(self, name: &str) -> (ListRule, Type) {
        if self.is_document() && name == "metadata" {
            return (Atomic, Self::Meta);
        }
        FIELDS
            .iter()
            .find(|(owner, field, ..)| *owner == self && *field == name)
            .map_or((Atomic, Self::Plain), |(_, _, rule, of)| (*rule, *of))
    }
}
