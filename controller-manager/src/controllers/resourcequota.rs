//! Keeps the status of ResourceQuotas equal to what the objects of their namespaces take, so that what goes gives its
//! share back.
//!
//! Admission charges a quota in the transaction that writes the object. A recount therefore reads the quota first and
//! the objects after it, and is written only if nobody charged the quota in between: it never misses an object.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::openapi::api::core::v1::{Pod, Service};
use api::openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use api::quota::{Resources, is_about, recount};
use api::{Kind, Object};
use client::{Action, Change, Informer, ListParams, Store, WorkQueue, run_workers};
use component::tasks::lock;
use serde_json::{Value, json};

use super::garbagecollector::partial::Partial;
use crate::context::Context;

/// How often a quota is counted although nothing happened: upstream's `--resource-quota-sync-period`.
const RESYNC: Duration = Duration::from_secs(300);
/// Quotas that are counted at once: upstream's `--concurrent-resource-quota-syncs`.
const WORKERS: usize = 5;

/// What the workers share.
struct Controller {
    ctx: Context,
    quotas: Store<Object>,
    queue: WorkQueue<String>,
    /// The kinds whose objects are followed for the sake of a quota, by plural and group.
    followed: Mutex<BTreeMap<String, Arc<Informer<Partial>>>>,
}

/// Runs the controller until leadership ends.
pub async fn run(ctx: Context) {
    let queue = WorkQueue::new("resourcequota");
    let quotas: Informer<Object> = Informer::new(ctx.client.documents(kind(), ""), ListParams::default());
    let q = queue.clone();
    quotas.on_change(move |change| {
        if is_due(change) {
            q.add(change.key());
        }
    });
    let store = quotas.store();
    let controller = Arc::new(Controller {
        ctx: ctx.clone(),
        quotas: store,
        queue: queue.clone(),
        followed: Mutex::default(),
    });
    let this = controller.clone();
    ctx.informers.pods.on_change(move |change| {
        if gives_back(change, |old, new| has_ended(new) && !has_ended(old)) {
            this.replenish::<Pod>(change.object().metadata.namespace.as_deref());
        }
    });
    let this = controller.clone();
    ctx.informers.services.on_change(move |change| {
        if gives_back(change, |old, new| old.spec != new.spec) {
            this.replenish::<Service>(change.object().metadata.namespace.as_deref());
        }
    });
    quotas.start(&ctx.tasks);
    quotas.synced().await;
    ctx.informers.pods.synced().await;
    ctx.informers.services.synced().await;
    let reconcile = move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    };
    run_workers(queue, WORKERS, &ctx.tasks, reconcile).await;
}

fn kind() -> &'static Kind {
    Kind::find("", "ResourceQuota").expect("ResourceQuota is in the table")
}

/// Whether a quota has to be counted: when it is new, or says something else than before.
fn is_due(change: &Change<Object>) -> bool {
    match change {
        Change::Added(_) => true,
        Change::Updated { old, new } => {
            old.pointer("/spec") != new.pointer("/spec")
                || old.pointer("/status/hard") != new.pointer("/status/hard")
        }
        Change::Deleted(_) => false,
    }
}

/// Whether a change may leave more to others.
fn gives_back<K>(change: &Change<K>, less: impl Fn(&K, &K) -> bool) -> bool {
    match change {
        Change::Added(_) => false,
        Change::Updated { old, new } => less(old, new),
        Change::Deleted(_) => true,
    }
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The names that a quota limits.
fn limited(quota: &Object) -> Vec<String> {
    Resources::read(quota.pointer("/spec/hard")).0.into_keys().collect()
}

/// The status that a quota should have; nothing when it has it.
fn plan(quota: &Object, used: &Resources) -> Option<Value> {
    let hard = quota.pointer("/spec/hard").cloned().unwrap_or_else(|| json!({}));
    let read = |pointer: &str| Resources::read(quota.pointer(pointer));
    let amounts = |r: &Resources| r.0.iter().map(|(n, q)| (n.clone(), q.amount)).collect::<Vec<_>>();
    let same = read("/status/hard") == Resources::read(Some(&hard))
        && amounts(&read("/status/used")) == amounts(used);
    (!same).then(|| json!({"hard": hard, "used": used.document()}))
}

impl Controller {
    /// Has the quotas of a namespace counted that are about a kind.
    fn replenish<K: api::Typed>(&self, namespace: Option<&str>) {
        self.replenish_kind(K::kind(), namespace.unwrap_or_default());
    }

    fn replenish_kind(&self, kind: &Kind, namespace: &str) {
        for quota in self.quotas.namespace(namespace) {
            if limited(&quota).iter().any(|name| is_about(kind, name)) {
                self.queue.add(quota.key());
            }
        }
    }

    async fn reconcile(self: &Arc<Self>, key: &str) -> Result<Action, client::Error> {
        let Some(quota) = self.quotas.get(key) else { return Ok(Action::Done) };
        let kinds = self.kinds(&limited(&quota)).await?;
        for kind in &kinds {
            self.follow(kind).await;
        }
        let (namespace, name) = api::meta::split_key(key);
        let api = self.ctx.client.dynamic(self::kind(), namespace);
        let Some(quota) = api.get_opt(name).await? else { return Ok(Action::Done) };
        let mut objects = Vec::new();
        for kind in kinds {
            let list = self.ctx.client.dynamic(kind, namespace).list(&ListParams::default()).await?;
            objects.extend(list.items.into_iter().map(|object| (kind, object.into_value())));
        }
        let all = objects.iter().map(|(kind, object)| (*kind, object));
        let used = recount(&quota.to_value(), all, self.ctx.clock.now());
        if let Some(status) = plan(&quota, &used) {
            let mut next = quota;
            next.as_map_mut().insert("status".into(), status);
            match api.update_status(&next).await {
                // Somebody was charged in the meantime, and is counted now.
                Err(error) if error.is_conflict() => {
                    return Ok(Action::RequeueAfter(Duration::from_millis(20)));
                }
                Err(error) if error.is_not_found() => return Ok(Action::Done),
                Err(error) => return Err(error),
                Ok(_) => tracing::debug!(quota = key, %used, "counted"),
            }
        }
        Ok(Action::RequeueAfter(RESYNC))
    }

    /// The kinds that a quota is about.
    async fn kinds(&self, limited: &[String]) -> Result<Vec<&'static Kind>, client::Error> {
        let about = |kind: &Kind| kind.namespaced && limited.iter().any(|name| is_about(kind, name));
        let mut kinds: Vec<_> = Kind::distinct().filter(|kind| kind.is_stored() && about(kind)).collect();
        let unknown = |name: &&String| name.starts_with("count/") && !kinds.iter().any(|k| is_about(k, name));
        if limited.iter().any(|name| unknown(&name)) {
            let definitions = self.ctx.client.all::<CustomResourceDefinition>();
            let list = definitions.list(&ListParams::default()).await?;
            let custom = list.items.iter().filter_map(api::kinds::custom::served);
            kinds.extend(custom.filter(|kind| about(kind)));
        }
        Ok(kinds)
    }

    /// Sees to it that the end of an object of a kind is noticed.
    async fn follow(self: &Arc<Self>, kind: &'static Kind) {
        if kind.group.is_empty() && matches!(kind.kind, "Pod" | "Service") {
            return;
        }
        let informer = {
            let mut followed = lock(&self.followed);
            let known = followed.entry(kind.qualified()).or_insert_with(|| {
                let informer =
                    Informer::new(self.ctx.client.documents::<Partial>(kind, ""), ListParams::default());
                let this = Arc::downgrade(self);
                informer.on_change(move |change| {
                    // A claim may grow and shrink; the others only come and go.
                    if gives_back(change, |_, _| kind.kind == "PersistentVolumeClaim")
                        && let Some(this) = this.upgrade()
                    {
                        this.replenish_kind(kind, &change.object().metadata.namespace);
                    }
                });
                informer.start(&self.ctx.tasks);
                Arc::new(informer)
            });
            known.clone()
        };
        informer.synced().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(value: Value) -> Object {
        Object::new(value).expect("a map")
    }

    #[test]
    fn a_status_is_written_when_it_says_something_new() {
        let used = |text: &str| Resources::read(Some(&json!({"pods": text, "requests.memory": "1Gi"})));
        let hard = json!({"pods": "5", "requests.memory": "2Gi"});
        let fresh = quota(json!({"spec": {"hard": hard}}));
        let status = plan(&fresh, &used("1")).expect("a status");
        assert_eq!(status, json!({"hard": hard, "used": {"pods": "1", "requests.memory": "1Gi"}}));
        let told = quota(json!({"spec": {"hard": hard}, "status": status}));
        assert_eq!(plan(&told, &used("1")), None);
        assert!(plan(&told, &used("2")).is_some());
        let more = quota(json!({"spec": {"hard": {"pods": "6"}}, "status": told.pointer("/status")}));
        assert!(plan(&more, &Resources::read(Some(&json!({"pods": "1"})))).is_some());
    }

    #[test]
    fn a_quota_is_counted_when_it_is_new_or_changed() {
        let of = |pods: &str, used: &str| {
            Arc::new(quota(json!({"spec": {"hard": {"pods": pods}}, "status": {"used": {"pods": used}}})))
        };
        assert!(is_due(&Change::Added(of("1", "0"))));
        assert!(!is_due(&Change::Updated { old: of("1", "0"), new: of("1", "1") }));
        assert!(is_due(&Change::Updated { old: of("1", "0"), new: of("2", "0") }));
        assert!(!is_due(&Change::Deleted(of("1", "0"))));
    }
}
