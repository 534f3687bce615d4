//! Publishes the cluster's CA certificates to every namespace, in the ConfigMap `kube-root-ca.crt`.

use std::sync::Arc;

use api::meta::{MetaExt, key_of};
use api::openapi::api::core::v1::ConfigMap;
use api::openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{Action, Informer, ListParams, Store, WorkQueue, run_workers};

use super::serviceaccount::is_open;
use crate::context::Context;

const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using \
    internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed \
    across distributions of Kubernetes clusters.";

/// Runs the controller until leadership ends. It does nothing when no CA was given.
pub async fn run(ctx: Context) {
    let Some(root_ca) = ctx.config.root_ca.clone().map(Arc::<str>::from) else { return };
    let queue = WorkQueue::new("root-ca-cert-publisher");
    let q = queue.clone();
    ctx.informers.namespaces.on_change(move |change| q.add(change.key()));
    // Only the ConfigMaps of this name are kept in memory.
    let params = ListParams::fields(format!("metadata.name={NAME}"));
    let published: Informer<ConfigMap> = Informer::new(ctx.client.all(), params);
    let q = queue.clone();
    published.on_change(move |change| q.add(change.object().namespace().to_owned()));
    published.start(&ctx.tasks);
    tokio::join!(ctx.informers.namespaces.synced(), published.synced());
    let (tasks, store) = (ctx.tasks.clone(), published.store());
    let reconcile = move |namespace: String| {
        let (ctx, store, root_ca) = (ctx.clone(), store.clone(), root_ca.clone());
        async move { reconcile(&ctx, &store, &root_ca, &namespace).await }
    };
    run_workers(queue, 1, &tasks, reconcile).await;
}

/// One write.
#[derive(Debug, PartialEq)]
enum Op {
    Create(ConfigMap),
    Update(ConfigMap),
}

fn plan(namespace: &str, root_ca: &str, present: Option<&ConfigMap>) -> Option<Op> {
    let mut next = present.cloned().unwrap_or_else(|| ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            namespace: Some(namespace.into()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    });
    next.data = Some([(KEY.to_owned(), root_ca.to_owned())].into());
    next.metadata.annotations.get_or_insert_default().insert(DESCRIPTION.into(), DESCRIPTION_TEXT.into());
    match present {
        None => Some(Op::Create(next)),
        Some(present) if *present == next => None,
        Some(_) => Some(Op::Update(next)),
    }
}

async fn reconcile(
    ctx: &Context,
    published: &Store<ConfigMap>,
    root_ca: &str,
    namespace: &str,
) -> Result<Action, client::Error> {
    if !ctx.informers.namespaces.store().get(namespace).is_some_and(|n| is_open(&n)) {
        return Ok(Action::Done);
    }
    let present = published.get(&key_of(namespace, NAME));
    let api = ctx.client.namespaced::<ConfigMap>(namespace);
    let result = match plan(namespace, root_ca, present.as_deref()) {
        None => return Ok(Action::Done),
        Some(Op::Create(map)) => api.create(&map).await,
        Some(Op::Update(map)) => api.update(&map).await,
    };
    match result {
        Err(error) if error.is_already_exists() || error.is_namespace_terminating() => Ok(Action::Done),
        Err(error) if error.is_not_found() => Ok(Action::Done),
        Err(error) => Err(error),
        Ok(_) => Ok(Action::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificates_are_published_and_restored() {
        let Some(Op::Create(map)) = plan("a", "PEM", None) else { panic!("none created") };
        assert_eq!((map.name(), map.namespace()), (NAME, "a"));
        assert_eq!(plan("a", "PEM", Some(&map)), None);
        let mut edited = map.clone();
        edited.data.as_mut().unwrap().insert("other".into(), String::new());
        assert_eq!(plan("a", "PEM", Some(&edited)), Some(Op::Update(map.clone())));
        assert!(matches!(plan("a", "NEW", Some(&map)), Some(Op::Update(_))));
    }
}
