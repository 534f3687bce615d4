//! Small questions about `ObjectMeta` that every component asks.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::kinds::Typed;

/// `namespace/name`, or the name alone for cluster-scoped objects.
pub fn key<K: Typed>(object: &K) -> String {
    let meta = object.metadata();
    key_of(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// Joins a namespace (may be empty) and a name into a key.
pub fn key_of(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// Splits a key into namespace (empty for cluster-scoped objects) and name.
pub fn split_key(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

/// Shorthand for the optional strings of `ObjectMeta`, with the empty string for what is unset.
pub trait MetaExt {
    /// The metadata itself.
    fn meta(&self) -> &ObjectMeta;

    /// `metadata.name`.
    fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }
    /// `metadata.namespace`.
    fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or_default()
    }
    /// `metadata.uid`.
    fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }
    /// `metadata.resourceVersion`.
    fn resource_version(&self) -> &str {
        self.meta().resource_version.as_deref().unwrap_or_default()
    }
    /// A label's value.
    fn label(&self, key: &str) -> Option<&str> {
        self.meta().labels.as_ref()?.get(key).map(String::as_str)
    }
    /// An annotation's value.
    fn annotation(&self, key: &str) -> Option<&str> {
        self.meta().annotations.as_ref()?.get(key).map(String::as_str)
    }
    /// Whether deletion has begun.
    fn is_deleting(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }
    /// The owner that manages this object, if there is one.
    fn controller(&self) -> Option<&OwnerReference> {
        self.meta().owner_references.as_ref()?.iter().find(|o| o.controller == Some(true))
    }
    /// Whether the managing owner has a uid.
    fn is_controlled_by(&self, uid: &str) -> bool {
        self.controller().is_some_and(|o| o.uid == uid)
    }
}

impl<K: Typed> MetaExt for K {
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }
}

/// The reference by which a managing owner is recorded in what it creates
/// (`controller: true`, `blockOwnerDeletion: true`).
pub fn controller_ref<K: Typed>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.into(),
        kind: K::KIND.into(),
        name: owner.name().to_owned(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
