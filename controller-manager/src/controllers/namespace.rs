//! Empties namespaces that are being deleted, and then gives them free.

mod plan;

use std::sync::Arc;

use api::meta::MetaExt;
use api::openapi::api::core::v1::Namespace;
use api::openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use api::openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use api::{Kind, Object};
use client::{Action, Change, ListParams, WorkQueue, run_workers};

use crate::context::Context;
use plan::{Content, FINALIZER, Remaining, is_due, settles_in, turns};

/// Runs the controller until leadership ends.
pub async fn run(ctx: Context) {
    let queue = WorkQueue::new("namespace");
    let q = queue.clone();
    ctx.informers.namespaces.on_change(move |change| {
        if is_due(change.object()) && !matches!(change, Change::Deleted(_)) {
            q.add(change.key());
        }
    });
    // What takes longest to go is a pod: its end is awaited, and not asked for again and again.
    let (q, namespaces) = (queue.clone(), ctx.informers.namespaces.store());
    ctx.informers.pods.on_change(move |change| {
        if let Change::Deleted(pod) = change
            && namespaces.get(pod.namespace()).is_some_and(|n| is_due(&n))
        {
            q.add(pod.namespace().to_owned());
        }
    });
    ctx.informers.namespaces.synced().await;
    let (workers, tasks) = (ctx.config.concurrent_namespace_syncs, ctx.tasks.clone());
    let ctx = Arc::new(ctx);
    let reconcile = move |name: String| {
        let ctx = ctx.clone();
        async move { reconcile(&ctx, &name).await }
    };
    run_workers(queue, workers, &tasks, reconcile).await;
}

async fn reconcile(ctx: &Context, name: &str) -> Result<Action, client::Error> {
    // Read from the API server: what follows cannot be undone.
    let api = ctx.client.all::<Namespace>();
    let Some(namespace) = api.get_opt(name).await? else { return Ok(Action::Done) };
    if !is_due(&namespace) {
        return Ok(Action::Done);
    }
    let content = empty(ctx, name).await;
    let namespace = report(ctx, namespace, &content).await?;
    if !content.is_gone() {
        let errors = content.errors.len();
        tracing::debug!(namespace = name, errors, remaining = ?content.remaining, "namespace is not empty yet");
        return Ok(Action::RequeueAfter(content.estimate()));
    }
    if let Some(wait) = settles_in(&namespace, ctx.clock.now()) {
        return Ok(Action::RequeueAfter(wait));
    }
    let mut free = namespace;
    let spec = free.spec.get_or_insert_default();
    spec.finalizers.get_or_insert_default().retain(|f| f != FINALIZER);
    match api.update_subresource(name, "finalize", &free).await {
        Err(error) if error.is_not_found() => Ok(Action::Done),
        Err(error) => Err(error),
        Ok(_) => {
            tracing::info!(namespace = name, "namespace is empty");
            Ok(Action::Done)
        }
    }
}

/// Deletes everything that may be deleted in this turn and tells what remains.
async fn empty(ctx: &Context, namespace: &str) -> Content {
    let mut content = Content::default();
    let custom = match custom_kinds(ctx).await {
        Ok(kinds) => kinds,
        Err(error) => {
            // Nothing is known of them, so the namespace cannot be known to be empty either.
            content.errors.push(format!("customresourcedefinitions.apiextensions.k8s.io: {error}"));
            Vec::new()
        }
    };
    for (turn, kinds) in turns().into_iter().enumerate() {
        let custom = custom.iter().copied().filter(|_| turn > 0);
        for kind in kinds.into_iter().chain(custom) {
            match delete_all(ctx, kind, namespace).await {
                Ok(remaining) if remaining.count > 0 => {
                    content.remaining.insert(kind.qualified(), remaining);
                }
                Ok(_) => {}
                Err(error) => content.errors.push(format!("{}: {error}", kind.qualified())),
            }
        }
        if !content.is_gone() {
            break;
        }
    }
    content
}

/// The namespaced kinds that definitions have added.
async fn custom_kinds(ctx: &Context) -> Result<Vec<&'static Kind>, client::Error> {
    let list = ctx.client.all::<CustomResourceDefinition>().list(&ListParams::default()).await?;
    Ok(list.items.iter().filter_map(api::kinds::custom::served).filter(|kind| kind.namespaced).collect())
}

async fn delete_all(ctx: &Context, kind: &'static Kind, namespace: &str) -> Result<Remaining, client::Error> {
    let api = ctx.client.dynamic(kind, namespace);
    let found = api.list(&ListParams::default()).await?;
    if found.items.is_empty() {
        return Ok(Remaining::default());
    }
    let options = DeleteOptions { propagation_policy: Some("Background".into()), ..DeleteOptions::default() };
    api.delete_collection(&ListParams::default(), &options).await?;
    let left = api.list(&ListParams::default()).await?.items;
    Ok(remaining(&left))
}

fn remaining(objects: &[Object]) -> Remaining {
    let mut remaining = Remaining { count: objects.len(), ..Remaining::default() };
    for object in objects {
        for finalizer in object.finalizers() {
            *remaining.finalizers.entry(finalizer).or_default() += 1;
        }
        let grace = object.int_at("/metadata/deletionGracePeriodSeconds").unwrap_or(0);
        remaining.grace = remaining.grace.max(grace);
    }
    remaining
}

/// Writes the conditions, if they say something new.
async fn report(ctx: &Context, namespace: Namespace, content: &Content) -> Result<Namespace, client::Error> {
    let present = namespace.status.as_ref().and_then(|s| s.conditions.as_ref());
    let conditions = content.conditions(present, ctx.clock.now());
    let status = namespace.status.as_ref();
    let phase = status.and_then(|s| s.phase.as_deref());
    let untold = present.is_none() && content.is_gone();
    if (present == Some(&conditions) || untold) && phase == Some("Terminating") {
        return Ok(namespace);
    }
    let mut next = namespace;
    let status = next.status.get_or_insert_default();
    status.phase = Some("Terminating".into());
    status.conditions = Some(conditions);
    tracing::debug!(namespace = next.name(), "reporting what remains");
    ctx.client.all::<Namespace>().update_status(&next).await
}
