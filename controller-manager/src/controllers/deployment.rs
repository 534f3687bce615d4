//! Keeps the ReplicaSets of a Deployment as its template, size and strategy ask for.

mod hash;
mod model;
mod plan;
mod revision;
mod rolling;
mod scale;
mod status;

use std::collections::HashSet;
use std::sync::Arc;

use api::meta::MetaExt;
use api::openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use api::openapi::api::core::v1::Pod;
use api::selector::Selector;
use client::{Action, Change, EventType, Patch, Recorder, Store, WorkQueue, run_workers};
use serde_json::json;

use crate::claim::{claim, settle};
use crate::context::Context;
use crate::expectations::Expectations;
use crate::informers::{owned, owned_or_orphaned, owner_key};
use crate::pods;
use plan::{Observed, Plan, Update, plan};

/// Why a Deployment could not be reconciled; each is tried again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("its selector is invalid")]
    Selector(#[source] api::selector::LabelSelectorError),
    #[error("the name of its new ReplicaSet {0} is taken")]
    Collision(String),
}

struct Controller {
    ctx: Context,
    recorder: Recorder,
    written: Expectations,
}

/// Runs the controller until leadership ends.
pub async fn run(ctx: Context) {
    let queue = WorkQueue::new("deployment");
    watch(&ctx, &queue);
    let informers = &ctx.informers;
    tokio::join!(informers.deployments.synced(), informers.replica_sets.synced(), informers.pods.synced());
    let recorder = ctx.recorder("deployment-controller");
    let (workers, tasks) = (ctx.config.concurrent_deployment_syncs, ctx.tasks.clone());
    let controller = Arc::new(Controller { ctx, recorder, written: Expectations::default() });
    let reconcile = move |key: String| {
        let controller = controller.clone();
        async move { Box::pin(controller.reconcile(&key)).await }
    };
    run_workers(queue, workers, &tasks, reconcile).await;
}

/// Queues a Deployment when it, its ReplicaSets or the last of its pods change.
fn watch(ctx: &Context, queue: &WorkQueue) {
    let informers = &ctx.informers;
    let (q, deployments) = (queue.clone(), informers.deployments.store());
    informers.deployments.on_change(move |change| q.add(change.key()));

    let (q, all) = (queue.clone(), deployments.clone());
    informers.replica_sets.on_change(move |change| {
        let former = match change {
            Change::Updated { old, .. } => owner_key::<Deployment, _>(&**old),
            Change::Added(_) | Change::Deleted(_) => None,
        };
        let set = change.object();
        let present = owner_key::<Deployment, _>(&**set);
        if set.controller().is_none() && !matches!(change, Change::Deleted(_)) {
            selecting(&all, set).into_iter().for_each(|key| q.add(key));
        }
        former.into_iter().chain(present).for_each(|key| q.add(key));
    });

    // Recreate waits for the end of the last pod; the other strategies hear of it by the ReplicaSet.
    let (q, sets) = (queue.clone(), informers.replica_sets.store());
    informers.pods.on_change(move |change| {
        let pod = change.object();
        if matches!(change, Change::Deleted(_)) || pods::is_terminal(pod) {
            let set = owner_key::<ReplicaSet, _>(&**pod).and_then(|key| sets.get(&key));
            let owner = set.and_then(|set| owner_key::<Deployment, _>(&*set));
            let recreate = |key: &String| {
                let strategy = deployments
                    .get(key)
                    .and_then(|d| d.spec.as_ref().map(|s| model::strategy(s) == "Recreate"));
                strategy == Some(true)
            };
            owner.filter(recreate).into_iter().for_each(|key| q.add(key));
        }
    });
}

/// The Deployments that would adopt a ReplicaSet.
fn selecting(deployments: &Store<Deployment>, set: &ReplicaSet) -> Vec<String> {
    let labels = set.metadata.labels.clone().unwrap_or_default();
    let selects = |d: &Arc<Deployment>| {
        let selector = d.spec.as_ref().and_then(|s| Selector::from_typed(Some(&s.selector)).ok());
        selector.is_some_and(|s| !s.is_everything() && s.matches(&labels))
    };
    let all = deployments.namespace(set.namespace()).into_iter();
    all.filter(selects).map(|d| api::meta::key(&*d)).collect()
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Action, Error> {
        let now = self.ctx.clock.now();
        let informers = &self.ctx.informers;
        let Some(deployment) = informers.deployments.store().get(key) else {
            self.written.forget(key);
            return Ok(Action::Done);
        };
        let store = informers.replica_sets.store();
        if !self.written.met(key, &store, &self.ctx.client.all(), now).await? {
            return Ok(Action::RequeueAfter(Expectations::patience()));
        }
        let Some(spec) = &deployment.spec else { return Ok(Action::Done) };
        let selector = Selector::from_typed(Some(&spec.selector)).map_err(Error::Selector)?;
        if selector.is_everything() {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&*deployment, EventType::Warning, "SelectingAll", message);
            return Ok(Action::Done);
        }
        let claim = claim(&*deployment, &selector, owned_or_orphaned(&store, &*deployment));
        let client = &self.ctx.client;
        let namespace = deployment.namespace();
        let sets =
            settle(&*deployment, &client.namespaced(namespace), &client.namespaced(namespace), claim).await?;
        let running = running(&informers.pods.store(), &sets);
        let plan = plan(&Observed { deployment: &deployment, sets: &sets, running: &running, now });
        let requeue = plan.requeue_after;
        Box::pin(self.apply(key, Deployment::clone(&deployment), plan)).await?;
        Ok(requeue.map_or(Action::Done, Action::RequeueAfter))
    }

    async fn apply(&self, key: &str, deployment: Deployment, plan: Plan) -> Result<(), Error> {
        let sets = self.ctx.client.namespaced::<ReplicaSet>(deployment.namespace());
        if let Some(set) = plan.create
            && !self.create(key, &deployment, &set).await?
        {
            return Ok(());
        }
        for Update { set, from } in plan.update {
            let set = sets.update(&set).await?;
            self.written.changed(key, &set, self.ctx.clock.now());
            self.tell_scaled(&deployment, &set, from);
        }
        for set in plan.delete {
            let options = crate::delete::if_uid(&*set);
            match sets.delete(set.name(), &options).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error.into()),
                _ => self.written.deleted(key, &*set, self.ctx.clock.now()),
            }
        }
        self.report(deployment, plan.revision, plan.status).await
    }

    /// Creates the new ReplicaSet. Returns false when that is pointless, as its namespace goes away.
    async fn create(&self, key: &str, deployment: &Deployment, set: &ReplicaSet) -> Result<bool, Error> {
        let sets = self.ctx.client.namespaced::<ReplicaSet>(deployment.namespace());
        match sets.create(set).await {
            Ok(created) => {
                self.written.created(key, &created, self.ctx.clock.now());
                self.tell_scaled(deployment, &created, 0);
                Ok(true)
            }
            Err(error) if error.is_already_exists() => {
                let present = sets.get(set.name()).await?;
                let template =
                    |s: &ReplicaSet| s.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
                let same = model::same_but_for_hash(&template(&present), &template(set));
                if present.is_controlled_by(deployment.uid()) && same {
                    // It was made before, and the cache does not show it yet.
                    self.written.created(key, &present, self.ctx.clock.now());
                    return Ok(true);
                }
                let mut status = deployment.status.clone().unwrap_or_default();
                status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
                self.report(deployment.clone(), None, Some(status)).await?;
                Err(Error::Collision(set.name().to_owned()))
            }
            Err(error) if error.is_namespace_terminating() => Ok(false),
            Err(error) => {
                let message = format!("Failed to create new replica set \"{}\": {error}", set.name());
                let status = status::creation_failed(deployment, message.clone(), self.ctx.clock.now());
                self.report(deployment.clone(), None, status).await?;
                self.recorder.event(deployment, EventType::Warning, "ReplicaSetCreateError", message);
                Err(error.into())
            }
        }
    }

    fn tell_scaled(&self, deployment: &Deployment, set: &ReplicaSet, from: i32) {
        let to = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        if from == to {
            return;
        }
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {from} to {to}", set.name());
        tracing::info!(deployment = %api::meta::key(deployment), set = %set.name(), from, to, "scaled");
        self.recorder.event(deployment, EventType::Normal, "ScalingReplicaSet", message);
    }

    /// Writes the revision and the status of the Deployment.
    async fn report(
        &self,
        mut deployment: Deployment,
        revision: Option<String>,
        status: Option<DeploymentStatus>,
    ) -> Result<(), Error> {
        let api = self.ctx.client.namespaced::<Deployment>(deployment.namespace());
        if let Some(revision) = revision {
            let patch = json!({ "metadata": {
                "annotations": { revision::REVISION: revision },
                "resourceVersion": deployment.resource_version(),
            }});
            deployment = api.patch(deployment.name(), &Patch::Merge(patch)).await?;
        }
        if status.is_some() {
            deployment.status = status;
            api.update_status(&deployment).await?;
        }
        Ok(())
    }
}

/// The ReplicaSets that still have pods which may run.
fn running(pods: &Store<Pod>, sets: &[Arc<ReplicaSet>]) -> HashSet<String> {
    let runs = |set: &&Arc<ReplicaSet>| owned(pods, set.uid()).iter().any(|pod| !pods::is_terminal(pod));
    sets.iter().filter(runs).map(|set| set.uid().to_owned()).collect()
}
