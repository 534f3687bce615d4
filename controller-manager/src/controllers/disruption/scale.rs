//! Finds the controllers of pods, and how many pods they ask for.

use std::sync::Arc;

use api::Kind;
use api::Subresource;
use api::kinds::custom::served;
use api::meta::{MetaExt, key_of};
use api::openapi::Resource;
use api::openapi::api::apps::v1::{Deployment, ReplicaSet};
use api::openapi::api::core::v1::Pod;
use api::openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use api::openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use client::ListParams;

use super::plan::Owners;
use crate::context::Context;

/// Why it cannot be told how many pods there should be; it may be told later.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The controller is gone, or is another one of its name.
    #[error("found no controllers for pod {0:?}")]
    NoController(String),
    /// Nobody can say how many pods a controller of this kind asks for.
    #[error("{0} does not implement the scale subresource")]
    NoScale(String),
    /// It could not be asked.
    #[error(transparent)]
    Client(#[from] client::Error),
}

/// The controllers of pods of one namespace.
///
/// # Errors
/// See [`Error`].
pub async fn owners(ctx: &Context, pods: &[Arc<Pod>]) -> Result<Owners, Error> {
    let mut owners = Owners::default();
    let mut seen = std::collections::HashSet::new();
    for pod in pods {
        let Some(owner) = pod.controller() else {
            owners.unmanaged += 1;
            continue;
        };
        if !seen.insert(&owner.uid) {
            continue;
        }
        let of_sets = owner.kind == ReplicaSet::KIND && owner.api_version == ReplicaSet::API_VERSION;
        let found = match replica_set(ctx, pod.namespace(), owner) {
            Some(found) => Some(found),
            None if of_sets => None,
            None => scale(ctx, pod.namespace(), owner).await?,
        };
        let (uid, replicas) = found.ok_or_else(|| Error::NoController(pod.name().to_owned()))?;
        owners.replicas.insert(uid, replicas);
    }
    Ok(owners)
}

/// A ReplicaSet's replicas, or those of the Deployment that it belongs to.
fn replica_set(ctx: &Context, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
    let set = ctx.informers.replica_sets.store().get(&key_of(namespace, &owner.name))?;
    if set.uid() != owner.uid || owner.kind != ReplicaSet::KIND {
        return None;
    }
    let above = set.controller().filter(|o| o.kind == Deployment::KIND);
    let Some(above) = above else {
        return Some((owner.uid.clone(), set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)));
    };
    let deployment = ctx.informers.deployments.store().get(&key_of(namespace, &above.name))?;
    let replicas = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    (deployment.uid() == above.uid).then(|| (above.uid.clone(), replicas))
}

/// The replicas of any other kind, as its subresource `scale` has them.
async fn scale(
    ctx: &Context,
    namespace: &str,
    owner: &OwnerReference,
) -> Result<Option<(String, i32)>, Error> {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    let no_scale = || Error::NoScale(format!("{}.{group}", owner.kind.to_lowercase()));
    let kind = match Kind::find(group, &owner.kind) {
        Some(kind) if kind.has(Subresource::Scale) => kind,
        Some(_) => return Err(no_scale()),
        None => match defined(ctx, group, &owner.kind).await? {
            Some((kind, true)) => kind,
            Some((_, false)) => return Err(no_scale()),
            None => return Ok(None),
        },
    };
    let scale = match ctx.client.dynamic(kind, namespace).get_subresource(&owner.name, "scale").await {
        Err(error) if error.is_not_found() => return Ok(None),
        other => other?,
    };
    let replicas = scale.pointer("/spec/replicas").and_then(serde_json::Value::as_i64).unwrap_or(0);
    let replicas = i32::try_from(replicas).unwrap_or(i32::MAX);
    Ok((scale.uid() == owner.uid).then(|| (owner.uid.clone(), replicas)))
}

/// A custom kind, and whether it can be scaled.
async fn defined(
    ctx: &Context,
    group: &str,
    kind: &str,
) -> Result<Option<(&'static Kind, bool)>, client::Error> {
    let definitions = ctx.client.all::<CustomResourceDefinition>().list(&ListParams::default()).await?.items;
    Ok(definitions.iter().filter(|d| d.spec.group == group).find_map(|definition| {
        let row = served(definition).filter(|row| row.kind == kind)?;
        let version = definition.spec.versions.iter().find(|v| v.name == row.version);
        let scales = version.and_then(|v| v.subresources.as_ref()).is_some_and(|s| s.scale.is_some());
        Some((row, scales))
    }))
}
