//! The table of kinds: everything that the generic machinery must know about a kind, one row each.

use std::any::Any;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, ListableResource, Metadata, NamespaceResourceScope, Resource};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

#[cfg(test)]
use crate::decode::decode;
#[cfg(test)]
use crate::schema::Definitions;
use crate::schema::conform::conform;
use crate::schema::full_name;

pub mod custom;
mod table;

pub use table::KINDS;

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
        Kind::of_document(Self::API_VERSION, Self::KIND)
            .expect("every typed object that is used has a row in KINDS")
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
    /// `certificatesigningrequests/approval`: the conditions that approve or deny.
    Approval,
    /// `serviceaccounts/token`: a TokenRequest.
    Token,
    /// `pods/proxy`, `services/proxy` and `nodes/proxy`: HTTP to what the object stands for.
    Proxy,
}

/// What becomes of the objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nature {
    /// They are kept, and have every verb.
    Stored,
    /// A question that is answered at once and kept nowhere: only `create` is served.
    Review,
    /// Made up when they are read: only `get` and `list` are served.
    Computed,
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
            Self::Approval => "approval",
            Self::Token => "token",
            Self::Proxy => "proxy",
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
    /// The singular name, where it is not the kind in lower case.
    pub singular: Option<&'static str>,
    /// The plural name used in paths, such as `deployments`.
    pub plural: &'static str,
    /// Abbreviations that kubectl accepts.
    pub short_names: &'static [&'static str],
    /// Groups of kinds such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// What becomes of its objects.
    pub nature: Nature,
    /// Subresources that exist.
    pub subresources: &'static [Subresource],
    /// Whether `metadata.generation` is counted, which is so for kinds with a spec and a controller.
    pub generation: bool,
    /// Rejects wrong types, drops unknown fields and nulls: see [`conform`].
    pub normalize: fn(Value) -> Result<Value, DecodeError>,
    /// The full name of its type, such as `io.k8s.api.apps.v1.Deployment`; empty for custom kinds.
    pub type_name: fn() -> String,
    /// As `describe`, by asking the decoder of the Rust type.
    #[cfg(test)]
    pub(crate) record: fn(&mut Definitions),
    /// As `normalize`, by way of the Rust type.
    #[cfg(test)]
    pub(crate) round: fn(Value) -> Result<Value, DecodeError>,
    /// What the API server knows of a kind that a CustomResourceDefinition defines; none for built-in kinds.
    pub custom: Option<&'static (dyn Any + Send + Sync)>,
}

/// What a kind that is only asked and never kept must be able to do.
trait Question: Resource<Scope: Scope> + Serialize + DeserializeOwned {}

impl<K: Resource<Scope: Scope> + Serialize + DeserializeOwned> Question for K {}

fn normalize<K: Question>(value: Value) -> Result<Value, DecodeError> {
    conform(&full_name::<K>(), (K::API_VERSION, K::KIND), value)
}

#[cfg(test)]
fn decoder<K: Question>(definitions: &mut Definitions) {
    crate::schema::record_decoder::<K>(definitions, Some((K::API_VERSION, K::KIND)));
}

impl Kind {
    const fn of<K: Typed>() -> Self {
        let mut row = Self::review::<K>();
        row.list_kind = K::LIST_KIND;
        row.nature = Nature::Stored;
        row
    }

    /// A row whose objects are questions.
    const fn review<K: Question>() -> Self {
        Self {
            group: K::GROUP,
            version: K::VERSION,
            api_version: K::API_VERSION,
            kind: K::KIND,
            list_kind: "",
            plural: K::URL_PATH_SEGMENT,
            short_names: &[],
            categories: &[],
            namespaced: <K::Scope as Scope>::NAMESPACED,
            nature: Nature::Review,
            subresources: &[],
            generation: false,
            normalize: normalize::<K>,
            type_name: full_name::<K>,
            #[cfg(test)]
            record: decoder::<K>,
            #[cfg(test)]
            round: |value| Ok(serde_json::to_value(decode::<K>(&value)?).expect("it has string keys")),
            singular: None,
            custom: None,
        }
    }

    /// A row whose objects are computed when they are read.
    const fn computed(mut self) -> Self {
        self.nature = Nature::Computed;
        self
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

    /// The row of a kind by group and kind, in the version in which it is stored if it has several.
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

    /// The rows of the table whose objects are kept, each kind in one version alone.
    pub fn distinct() -> impl Iterator<Item = &'static Self> {
        let once =
            |kind: &&Self| Self::find(kind.group, kind.kind).is_some_and(|first| std::ptr::eq(first, *kind));
        KINDS.iter().filter(|kind| kind.is_stored()).filter(once)
    }

    /// Lower-case singular name, such as `deployment`.
    pub fn singular(&self) -> String {
        self.singular.map_or_else(|| self.kind.to_lowercase(), str::to_owned)
    }

    /// `deployments.apps`, or `pods` for core: how messages name a resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether objects of this kind are kept.
    pub fn is_stored(&self) -> bool {
        self.nature == Nature::Stored
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

/// Compares two versions by preference, as upstream does: stable ones before betas before alphas, newer ones first
/// among these, and whatever has another form last, in the order of the alphabet. The greater is preferred.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (version_rank(a), version_rank(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

/// (stability, major, minor): `v2beta1` is (1, 2, 1).
fn version_rank(version: &str) -> Option<(u8, u64, u64)> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        digits.then(|| text.parse().ok()).flatten()
    };
    let rest = version.strip_prefix('v')?;
    for (stability, word) in [(1, "beta"), (0, "alpha")] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some((stability, number(major)?, number(minor)?));
        }
    }
    Some((2, number(rest)?, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_preferred_as_upstream_does() {
        let wanted =
            ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
        let mut sorted = wanted;
        sorted.sort_unstable();
        sorted.sort_by(|a, b| compare_versions(b, a));
        assert_eq!(sorted, wanted);
    }

    #[test]
    fn every_kind_that_is_kept_is_found_once() {
        let autoscalers: Vec<_> =
            Kind::distinct().filter(|k| k.plural == "horizontalpodautoscalers").map(|k| k.version).collect();
        assert_eq!(autoscalers, ["v2"]);
        assert!(Kind::distinct().all(|k| k.kind != "ComponentStatus"));
    }
}
