//! Keeps as many pods of a ReplicaSet's template as it asks for.

mod plan;
mod ranking;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use api::meta::MetaExt;
use api::openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use api::openapi::api::core::v1::Pod;
use api::selector::Selector;
use client::{Action, Change, EventType, ListParams, Recorder, Store, WorkQueue, run_workers};
use component::tasks::lock;
use futures::future::join_all;
use tokio::sync::Semaphore;

use crate::claim::{claim, settle};
use crate::context::Context;
use crate::expectations::Expectations;
use crate::informers::{owned, owned_or_orphaned, owner_key};
use plan::{Failure, Plan, new_pod, next_available, plan, status};

/// Pods that are created or deleted at one time, over all ReplicaSets: enough for the API server to commit
/// many at once, and few enough that others get their answers in between.
const TURNS: usize = 128;

/// Why a ReplicaSet could not be reconciled; each is tried again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("its selector is invalid")]
    Selector(#[source] api::selector::LabelSelectorError),
}

struct Controller {
    ctx: Context,
    recorder: Recorder,
    written: Expectations,
    /// Requests that are under way; who comes next is served in turn, so that a large ReplicaSet does not
    /// hold up the small ones.
    turns: Semaphore,
    /// ReplicaSets for which a creation ended without an answer: the pod may or may not exist.
    doubted: Mutex<HashSet<String>>,
}

/// Runs the controller until leadership ends.
pub async fn run(ctx: Context) {
    let queue = WorkQueue::new("replicaset");
    watch(&ctx, &queue);
    tokio::join!(ctx.informers.replica_sets.synced(), ctx.informers.pods.synced());
    let recorder = ctx.recorder("replicaset-controller");
    let (workers, tasks) = (ctx.config.concurrent_replicaset_syncs, ctx.tasks.clone());
    let controller = Arc::new(Controller {
        ctx,
        recorder,
        written: Expectations::default(),
        turns: Semaphore::new(TURNS),
        doubted: Mutex::default(),
    });
    let reconcile = move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    };
    run_workers(queue, workers, &tasks, reconcile).await;
}

/// Queues a ReplicaSet when it or a pod that it manages, managed or might manage changes.
fn watch(ctx: &Context, queue: &WorkQueue) {
    let q = queue.clone();
    ctx.informers.replica_sets.on_change(move |change| q.add(change.key()));
    let (q, sets) = (queue.clone(), ctx.informers.replica_sets.store());
    ctx.informers.pods.on_change(move |change| {
        let pod = change.object();
        let former = match change {
            Change::Updated { old, .. } => owner_key::<ReplicaSet, _>(&**old),
            Change::Added(_) | Change::Deleted(_) => None,
        };
        let present = owner_key::<ReplicaSet, _>(&**pod);
        if pod.controller().is_none() && !matches!(change, Change::Deleted(_)) {
            selecting(&sets, pod).into_iter().for_each(|key| q.add(key));
        }
        former.into_iter().chain(present).for_each(|key| q.add(key));
    });
}

/// The ReplicaSets that would adopt a pod.
fn selecting(sets: &Store<ReplicaSet>, pod: &Pod) -> Vec<String> {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let selects = |set: &Arc<ReplicaSet>| {
        let selector = set.spec.as_ref().and_then(|s| Selector::from_typed(Some(&s.selector)).ok());
        selector.is_some_and(|s| !s.is_everything() && s.matches(&labels))
    };
    let all = sets.namespace(pod.namespace()).into_iter();
    all.filter(selects).map(|set| api::meta::key(&*set)).collect()
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Action, Error> {
        let now = self.ctx.clock.now();
        let Some(set) = self.ctx.informers.replica_sets.store().get(key) else {
            self.written.forget(key);
            lock(&self.doubted).remove(key);
            return Ok(Action::Done);
        };
        let Some(spec) = &set.spec else { return Ok(Action::Done) };
        let store = self.ctx.informers.pods.store();
        self.dispel_doubt(key, &set).await?;
        // Asked before the pods are read, so that what it vouches for is in what is read.
        if !self.written.met(key, &store, &self.ctx.client.all(), now).await? {
            return Ok(Action::RequeueAfter(Expectations::patience()));
        }
        let selector = Selector::from_typed(Some(&spec.selector)).map_err(Error::Selector)?;
        let claim = claim(&*set, &selector, owned_or_orphaned(&store, &*set));
        let client = &self.ctx.client;
        let namespace = set.namespace();
        let pods = settle(&*set, &client.namespaced(namespace), &client.namespaced(namespace), claim).await?;

        let (mut failure, mut error) = (None, None);
        let plan = plan(&set, &pods, || self.related(&set), now);
        let reason = if matches!(plan, Plan::Create(_)) { "FailedCreate" } else { "FailedDelete" };
        if let Err(cause) = self.apply(key, &set, plan).await
            && !cause.is_namespace_terminating()
        {
            failure = Some(Failure { reason, message: cause.to_string() });
            error = Some(cause);
        }
        self.report(&set, status(&set, &pods, failure.as_ref(), now)).await?;
        match error {
            Some(error) => Err(error.into()),
            None => Ok(next_available(&set, &pods, now).map_or(Action::Done, Action::RequeueAfter)),
        }
    }

    /// After a creation without an answer the pods are read from the API server, and those that the
    /// cache does not show yet are awaited.
    async fn dispel_doubt(&self, key: &str, set: &ReplicaSet) -> Result<(), client::Error> {
        if !lock(&self.doubted).contains(key) {
            return Ok(());
        }
        let api = self.ctx.client.namespaced::<Pod>(set.namespace());
        let live = api.list(&ListParams::default()).await?.items;
        let store = self.ctx.informers.pods.store();
        let unseen =
            |pod: &&Pod| pod.is_controlled_by(set.uid()) && store.get(&api::meta::key(*pod)).is_none();
        for pod in live.iter().filter(unseen) {
            self.written.created(key, pod, self.ctx.clock.now());
        }
        lock(&self.doubted).remove(key);
        Ok(())
    }

    /// The pods of all ReplicaSets that have the same owner.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let pods = self.ctx.informers.pods.store();
        let Some(owner) = set.controller() else { return owned(&pods, set.uid()) };
        let siblings = owned(&self.ctx.informers.replica_sets.store(), &owner.uid);
        siblings.iter().flat_map(|sibling| owned(&pods, sibling.uid())).collect()
    }

    async fn apply(&self, key: &str, set: &ReplicaSet, plan: Plan) -> Result<(), client::Error> {
        match plan {
            Plan::Nothing => Ok(()),
            Plan::Create(count) => self.create(key, set, count).await,
            Plan::Delete(pods) => self.delete(key, set, pods).await,
        }
    }

    /// Creates pods in batches of one, two, four and so on, so that what fails for all of them fails
    /// for one of them first.
    async fn create(&self, key: &str, set: &ReplicaSet, count: usize) -> Result<(), client::Error> {
        let api = self.ctx.client.namespaced::<Pod>(set.namespace());
        let pod = new_pod(set);
        let (mut left, mut batch) = (count, 1);
        while left > 0 {
            let size = batch.min(left);
            let one = || async {
                // It is never closed.
                let _turn = self.turns.acquire().await;
                api.create(&pod).await
            };
            let results = join_all((0..size).map(|_| one())).await;
            for result in &results {
                match result {
                    Ok(pod) => {
                        self.written.created(key, pod, self.ctx.clock.now());
                        let message = format!("Created pod: {}", pod.name());
                        self.recorder.event(set, EventType::Normal, "SuccessfulCreate", message);
                    }
                    Err(error) if error.is_namespace_terminating() => {}
                    Err(error) => {
                        if error.is_retryable() {
                            lock(&self.doubted).insert(key.to_owned());
                        }
                        let message = format!("Error creating: {error}");
                        self.recorder.event(set, EventType::Warning, "FailedCreate", message);
                    }
                }
            }
            results.into_iter().collect::<Result<Vec<_>, _>>()?;
            left -= size;
            batch *= 2;
        }
        Ok(())
    }

    async fn delete(&self, key: &str, set: &ReplicaSet, pods: Vec<Arc<Pod>>) -> Result<(), client::Error> {
        let api = self.ctx.client.namespaced::<Pod>(set.namespace());
        let deletions = pods.iter().map(|pod| {
            let (api, options) = (api.clone(), crate::delete::if_uid(&**pod));
            async move {
                let _turn = self.turns.acquire().await;
                api.delete(pod.name(), &options).await
            }
        });
        let mut outcome = Ok(());
        for (pod, result) in pods.iter().zip(join_all(deletions).await) {
            match result {
                Ok(_) => {
                    self.written.deleted(key, &**pod, self.ctx.clock.now());
                    let message = format!("Deleted pod: {}", pod.name());
                    self.recorder.event(set, EventType::Normal, "SuccessfulDelete", message);
                }
                // Gone, or replaced by another of its name: what was wanted.
                Err(error) if error.is_not_found() || error.is_conflict() => {
                    self.written.deleted(key, &**pod, self.ctx.clock.now());
                }
                Err(error) => {
                    let message = format!("Error deleting: {error}");
                    self.recorder.event(set, EventType::Warning, "FailedDelete", message);
                    outcome = Err(error);
                }
            }
        }
        outcome
    }

    async fn report(&self, set: &ReplicaSet, next: ReplicaSetStatus) -> Result<(), client::Error> {
        if set.status.as_ref().is_some_and(|present| same_status(present, &next)) {
            return Ok(());
        }
        let api = self.ctx.client.namespaced::<ReplicaSet>(set.namespace());
        let mut set = set.clone();
        set.status = Some(next.clone());
        match api.update_status(&set).await {
            Err(error) if error.is_conflict() => {
                // Most often its Deployment has just scaled it; the counts hold all the same, but
                // for a generation that was not acted upon.
                let mut live = api.get(set.name()).await?;
                if live.uid() != set.uid() {
                    return Ok(());
                }
                live.status = Some(next);
                api.update_status(&live).await?;
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}

fn same_status(present: &ReplicaSetStatus, next: &ReplicaSetStatus) -> bool {
    let full = |status: &ReplicaSetStatus| {
        let mut status = status.clone();
        for count in
            [&mut status.fully_labeled_replicas, &mut status.ready_replicas, &mut status.available_replicas]
        {
            count.get_or_insert(0);
        }
        status.conditions = status.conditions.filter(|list| !list.is_empty());
        status
    };
    full(present) == full(next)
}
