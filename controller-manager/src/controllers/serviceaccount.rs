//! Makes sure that every namespace has the ServiceAccount `default`.

use api::meta::{MetaExt, key_of};
use api::openapi::api::core::v1::{Namespace, ServiceAccount};
use api::openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{Action, Change, WorkQueue, run_workers};

use crate::context::Context;

const NAME: &str = "default";

/// Runs the controller until leadership ends.
pub async fn run(ctx: Context) {
    let queue = WorkQueue::new("serviceaccount");
    let q = queue.clone();
    ctx.informers.namespaces.on_change(move |change| q.add(change.key()));
    let q = queue.clone();
    ctx.informers.service_accounts.on_change(move |change| {
        if let Change::Deleted(account) = change
            && account.name() == NAME
        {
            q.add(account.namespace().to_owned());
        }
    });
    tokio::join!(ctx.informers.namespaces.synced(), ctx.informers.service_accounts.synced());
    let tasks = ctx.tasks.clone();
    let reconcile = move |namespace: String| {
        let ctx = ctx.clone();
        async move { reconcile(&ctx, &namespace).await }
    };
    run_workers(queue, 1, &tasks, reconcile).await;
}

/// Whether a namespace takes new objects.
pub(super) fn is_open(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
    !namespace.is_deleting() && phase != Some("Terminating")
}

async fn reconcile(ctx: &Context, namespace: &str) -> Result<Action, client::Error> {
    let open = ctx.informers.namespaces.store().get(namespace).is_some_and(|n| is_open(&n));
    let present = ctx.informers.service_accounts.store().get(&key_of(namespace, NAME)).is_some();
    if !open || present {
        return Ok(Action::Done);
    }
    let metadata =
        ObjectMeta { name: Some(NAME.into()), namespace: Some(namespace.into()), ..ObjectMeta::default() };
    let account = ServiceAccount { metadata, ..ServiceAccount::default() };
    match ctx.client.namespaced::<ServiceAccount>(namespace).create(&account).await {
        Err(error) if error.is_already_exists() || error.is_namespace_terminating() => Ok(Action::Done),
        Err(error) if error.is_not_found() => Ok(Action::Done),
        Err(error) => Err(error),
        Ok(_) => Ok(Action::Done),
    }
}
