//! Keeps the status of PodDisruptionBudgets: how many of their pods are healthy, must be, and may be evicted.
//!
//! What an eviction is told is decided by the API server, from this status.

mod plan;
mod scale;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::meta::{MetaExt, key};
use api::openapi::api::core::v1::{Pod, PodCondition};
use api::openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use api::openapi::apimachinery::pkg::apis::meta::v1::Time;
use api::selector::Selector;
use client::{Action, Change, EventType, Informer, ListParams, Recorder, Store, WorkQueue, run_workers};
use jiff::Timestamp;

use crate::context::Context;
use crate::pods::until;
use plan::{DISRUPTION_TARGET, Owners, Plan, failed, is_relative, plan, stale_at};
use scale::owners;

/// What there is to look at, by key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Budget(String),
    /// A pod that was called the target of a disruption.
    Pod(String),
}

/// Why a budget could not be reconciled; each is tried again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Scale(#[from] scale::Error),
}

struct Controller {
    ctx: Context,
    recorder: Recorder,
    budgets: Store<PodDisruptionBudget>,
}

/// Runs the controller until leadership ends.
pub async fn run(ctx: Context) {
    let queue = WorkQueue::new("disruption");
    let budgets: Informer<PodDisruptionBudget> = Informer::new(ctx.client.all(), ListParams::default());
    let q = queue.clone();
    budgets.on_change(move |change| q.add(Work::Budget(change.key())));
    watch_pods(&ctx, &budgets.store(), &queue);
    budgets.start(&ctx.tasks);
    let informers = &ctx.informers;
    tokio::join!(
        budgets.synced(),
        informers.pods.synced(),
        informers.replica_sets.synced(),
        informers.deployments.synced()
    );
    let (recorder, tasks) = (ctx.recorder("controllermanager"), ctx.tasks.clone());
    let controller = Arc::new(Controller { ctx, recorder, budgets: budgets.store() });
    let reconcile = move |work: Work| {
        let controller = controller.clone();
        async move {
            match work {
                Work::Budget(key) => controller.reconcile(&key).await,
                Work::Pod(key) => Ok(controller.reconcile_pod(&key).await?),
            }
        }
    };
    run_workers(queue, 2, &tasks, reconcile).await;
}

/// Queues the budgets that cover a pod, or covered it, when it changes.
fn watch_pods(ctx: &Context, budgets: &Store<PodDisruptionBudget>, queue: &WorkQueue<Work>) {
    let (q, budgets, clock) = (queue.clone(), budgets.clone(), ctx.clock.clone());
    ctx.informers.pods.on_change(move |change| {
        let pod = change.object();
        let former = match change {
            Change::Updated { old, .. } => Some(old),
            Change::Added(_) | Change::Deleted(_) => None,
        };
        for budget in budgets.namespace(pod.namespace()) {
            if covers(&budget, pod) || former.is_some_and(|old| covers(&budget, old)) {
                q.add(Work::Budget(key(&*budget)));
            }
        }
        if let Some(at) = stale_at(pod).filter(|_| !matches!(change, Change::Deleted(_))) {
            q.add_after(Work::Pod(change.key()), until(clock.now(), at) + Duration::from_secs(1));
        }
    });
}

/// Whether a budget is about a pod. One without a selector is about none, one with an empty selector about all.
fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    let none = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    // What cannot be read was refused when it was written.
    selector.is_some_and(|s| Selector::from_typed(Some(s)).is_ok_and(|s| s.matches(labels)))
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Action, Error> {
        let Some(budget) = self.budgets.get(key) else { return Ok(Action::Done) };
        let now = self.ctx.clock.now();
        let mut pods = self.ctx.informers.pods.store().namespace(budget.namespace());
        pods.retain(|pod| covers(&budget, pod));
        if pods.is_empty() {
            self.recorder.event(&*budget, EventType::Normal, "NoPods", "No matching pods found");
        }
        let owners =
            if is_relative(&budget) { owners(&self.ctx, &pods).await } else { Ok(Owners::default()) };
        let owners = match owners {
            Ok(owners) => owners,
            Err(error) => {
                let text = format!("Failed to calculate the number of expected pods: {error}");
                let reason = "CalculateExpectedPodCountFailed";
                self.recorder.event(&*budget, EventType::Warning, reason, text);
                self.report(&budget, failed(&budget, &error.to_string(), now)).await?;
                return Err(error.into());
            }
        };
        if owners.unmanaged > 0 {
            self.recorder.event(&*budget, EventType::Warning, "UnmanagedPods", unmanaged(&budget));
        }
        let Plan { status, not_deleted, recheck } = plan(&budget, &pods, &owners, now);
        for pod in not_deleted {
            let text = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            self.recorder.event(&*pod, EventType::Warning, "NotDeleted", text);
        }
        self.report(&budget, status).await?;
        Ok(recheck.map_or(Action::Done, Action::RequeueAfter))
    }

    async fn report(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), client::Error> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let next = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        match self.ctx.client.namespaced(budget.namespace()).update_status(&next).await {
            // Whoever was faster, an eviction most often, left a version that is yet to be looked at.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Tells a pod that nobody deleted that nobody will.
    async fn reconcile_pod(&self, key: &str) -> Result<Action, client::Error> {
        let Some(pod) = self.ctx.informers.pods.store().get(key) else { return Ok(Action::Done) };
        let (Some(at), now) = (stale_at(&pod), self.ctx.clock.now()) else { return Ok(Action::Done) };
        if now < at {
            return Ok(Action::RequeueAfter(until(now, at)));
        }
        let mut next = (*pod).clone();
        let condition = PodCondition {
            type_: DISRUPTION_TARGET.into(),
            status: "False".into(),
            last_transition_time: Timestamp::from_second(now.as_second()).ok().map(Time),
            ..PodCondition::default()
        };
        api::conditions::set(&mut next.status.get_or_insert_default().conditions, condition);
        match self.ctx.client.namespaced(pod.namespace()).update_status(&next).await {
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(Action::Done),
            other => other.map(|_| Action::Done),
        }
    }
}

fn unmanaged(budget: &PodDisruptionBudget) -> String {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    let labels = selector.and_then(|s| s.match_labels.clone()).unwrap_or_default();
    let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the \
         status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for \
         these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
        labels.join(",")
    )
}
