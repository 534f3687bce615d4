//! The table of kinds: everything that the generic machinery must know about a kind, one row each.

use std::collections::HashMap;
use std::sync::LazyLock;

use k8s_openapi::api::{apps::v1 as apps, coordination::v1 as coordination, core::v1 as core};
use k8s_openapi::api::{discovery::v1 as discovery, events::v1 as events};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, ListableResource, Metadata, NamespaceResourceScope, Resource};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::schema::{Definitions, describe};

/// A typed Kubernetes object: any top-level type of [`k8s_openapi`] that carries `ObjectMeta`.
pub trait Typed:
    Resource<Scope: Scope>
    + ListableResource
    + Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + Clone
    + Default
    + std::fmt::Debug
    + Send
    + Sync
    + 'static
{
    /// The row of this type in the table of kinds.
    ///
    /// # Panics
    /// When the type has no row, which is a mistake in the program and not in its input.
    fn kind() -> &'static Kind {
        Kind::find(Self::GROUP, Self::KIND).expect("every typed object that is used has a row in KINDS")
    }
}

impl<K> Typed for K where
    K: Resource<Scope: Scope>
        + ListableResource
        + Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + Clone
        + Default
        + std::fmt::Debug
        + Send
        + Sync
        + 'static
{
}

/// Whether objects of a resource live in a namespace; the value behind k8s-openapi's scope types.
pub trait Scope {
    /// True for namespaced resources.
    const NAMESPACED: bool;
}

impl Scope for ClusterResourceScope {
    const NAMESPACED: bool = false;
}

impl Scope for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

/// A part of an object that is read or written by a path of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subresource {
    /// `/status`: written by controllers; the main path leaves it alone.
    Status,
    /// `/scale`: an `autoscaling/v1` Scale view of `spec.replicas`.
    Scale,
    /// `pods/binding`: the scheduler's decision.
    Binding,
    /// `pods/eviction`.
    Eviction,
    /// `pods/log`, served through the node tunnel.
    Log,
    /// `pods/exec`, served through the node tunnel.
    Exec,
    /// `pods/attach`, served through the node tunnel.
    Attach,
    /// `pods/portforward`, served through the node tunnel.
    PortForward,
    /// `namespaces/finalize`: removes `spec.finalizers`.
    Finalize,
}

impl Subresource {
    /// The path segment, as in `/api/v1/namespaces/default/pods/web/log`.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Finalize => "finalize",
        }
    }
}

/// A wrong type in a document, with the path of the field in Kubernetes' notation.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{path}: {message}")]
pub struct DecodeError {
    /// `spec.template.spec.containers[0].ports[0].containerPort`; `.` for the document itself.
    pub path: String,
    /// What was found and what was expected.
    pub message: String,
}

/// One row of the table.
#[derive(Debug)]
pub struct Kind {
    /// API group, empty for core.
    pub group: &'static str,
    /// API version within the group, such as `v1`.
    pub version: &'static str,
    /// `group/version`, or the version alone for core: what `apiVersion` says.
    pub api_version: &'static str,
    /// The kind, such as `Deployment`.
    pub kind: &'static str,
    /// The kind of a list, such as `DeploymentList`.
    pub list_kind: &'static str,
    /// The plural name used in paths, such as `deployments`.
    pub plural: &'static str,
    /// Abbreviations that kubectl accepts.
    pub short_names: &'static [&'static str],
    /// Groups of kinds such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Subresources that exist.
    pub subresources: &'static [Subresource],
    /// Whether `metadata.generation` is counted, which is so for kinds with a spec and a controller.
    pub generation: bool,
    /// Decodes into the Rust type and encodes again: rejects wrong types, drops unknown fields.
    pub normalize: fn(Value) -> Result<Value, DecodeError>,
    /// Adds the schemas of the Rust type and all that it is made of; gives its own full name.
    pub describe: fn(&mut Definitions) -> String,
}

fn normalize<K: Typed>(value: Value) -> Result<Value, DecodeError> {
    let typed: K = serde_path_to_error::deserialize(value)
        .map_err(|e| DecodeError { path: e.path().to_string(), message: e.into_inner().to_string() })?;
    serde_json::to_value(typed).map_err(|e| DecodeError { path: ".".into(), message: e.to_string() })
}

impl Kind {
    const fn of<K: Typed>() -> Self {
        Self {
            group: K::GROUP,
            version: K::VERSION,
            api_version: K::API_VERSION,
            kind: K::KIND,
            list_kind: K::LIST_KIND,
            plural: K::URL_PATH_SEGMENT,
            short_names: &[],
            categories: &[],
            namespaced: <K::Scope as Scope>::NAMESPACED,
            subresources: &[],
            generation: false,
            normalize: normalize::<K>,
            describe: describe::<K>,
        }
    }

    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short_names = names;
        self
    }

    const fn categories(mut self, names: &'static [&'static str]) -> Self {
        self.categories = names;
        self
    }

    const fn subresources(mut self, subresources: &'static [Subresource]) -> Self {
        self.subresources = subresources;
        self
    }

    const fn generation(mut self) -> Self {
        self.generation = true;
        self
    }

    /// The row of a kind by group and kind.
    pub fn find(group: &str, kind: &str) -> Option<&'static Self> {
        KINDS.iter().find(|row| row.group == group && row.kind == kind)
    }

    /// The row of a resource by group, version and plural: what a path names.
    pub fn resource(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        static BY_PATH: LazyLock<HashMap<(&str, &str, &str), &Kind>> =
            LazyLock::new(|| KINDS.iter().map(|k| ((k.group, k.version, k.plural), k)).collect());
        BY_PATH.get(&(group, version, plural)).copied()
    }

    /// The row of an `apiVersion` and `kind` pair: what a document names.
    pub fn of_document(api_version: &str, kind: &str) -> Option<&'static Self> {
        KINDS.iter().find(|row| row.api_version == api_version && row.kind == kind)
    }

    /// Lower-case singular name, such as `deployment`.
    pub fn singular(&self) -> String {
        self.kind.to_lowercase()
    }

    /// `deployments.apps`, or `pods` for core: how messages name a resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether a subresource exists.
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// The subresource with a path segment, if this kind has it.
    pub fn subresource(&self, path: &str) -> Option<Subresource> {
        self.subresources.iter().copied().find(|s| s.path() == path)
    }
}

use Subresource::{Attach, Binding, Eviction, Exec, Finalize, Log, PortForward, Scale, Status};

/// Every kind that the API serves. A kind without rules of its own is one row here and nothing else.
pub static KINDS: &[Kind] = &[
    Kind::of::<core::Namespace>().short(&["ns"]).subresources(&[Status, Finalize]),
    Kind::of::<core::Node>().short(&["no"]).subresources(&[Status]),
    Kind::of::<core::Pod>().short(&["po"]).categories(&["all"]).generation().subresources(&[
        Status,
        Binding,
        Eviction,
        Log,
        Exec,
        Attach,
        PortForward,
    ]),
    Kind::of::<core::Service>().short(&["svc"]).categories(&["all"]).subresources(&[Status]),
    Kind::of::<core::Endpoints>().short(&["ep"]),
    Kind::of::<core::ConfigMap>().short(&["cm"]),
    Kind::of::<core::Secret>(),
    Kind::of::<core::ServiceAccount>().short(&["sa"]),
    Kind::of::<core::Event>().short(&["ev"]),
    Kind::of::<events::Event>().short(&["ev"]),
    Kind::of::<discovery::EndpointSlice>(),
    Kind::of::<coordination::Lease>(),
    Kind::of::<apps::Deployment>()
        .short(&["deploy"])
        .categories(&["all"])
        .generation()
        .subresources(&[Status, Scale]),
    Kind::of::<apps::ReplicaSet>()
        .short(&["rs"])
        .categories(&["all"])
        .generation()
        .subresources(&[Status, Scale]),
    Kind::of::<apps::ControllerRevision>(),
];
