//! Keeps a Service's Endpoints equal to its pods.

mod plan;

use std::sync::Arc;

use api::meta::{MetaExt, split_key};
use api::openapi::api::core::v1::{Endpoints, Service};
use client::{Action, EventType, Recorder, WorkQueue, run_workers};

use crate::context::Context;
use crate::expectations::Expectations;
use crate::service_pods::{TriggerTimes, selector, selects, watch};
use plan::{MANAGED_BY, MANAGER, Op, plan};

struct Controller {
    ctx: Context,
    recorder: Recorder,
    written: Expectations,
    times: TriggerTimes,
}

/// Runs the controller until leadership ends.
pub async fn run(ctx: Context) {
    let queue = WorkQueue::new("endpoints");
    let informers = ctx.informers.clone();
    watch(&ctx, &queue);
    let q = queue.clone();
    // Endpoints have the name of their Service.
    informers.endpoints.on_change(move |change| q.add(change.key()));
    tokio::join!(informers.services.synced(), informers.pods.synced(), informers.endpoints.synced());
    let recorder = ctx.recorder("endpoint-controller");
    let (workers, tasks) = (ctx.config.concurrent_endpoint_syncs, ctx.tasks.clone());
    let (written, times) = (Expectations::default(), TriggerTimes::default());
    let controller = Arc::new(Controller { ctx, recorder, written, times });
    let reconcile = move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    };
    run_workers(queue, workers, &tasks, reconcile).await;
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Action, client::Error> {
        let informers = &self.ctx.informers;
        let (store, now) = (informers.endpoints.store(), self.ctx.clock.now());
        let Some(service) = informers.services.store().get(key) else {
            self.written.forget(key);
            self.times.forget(key);
            if let Some(left_over) = store.get(key) {
                self.remove(&left_over).await?;
            }
            return Ok(Action::Done);
        };
        let Some(selector) = selector(&service) else { return Ok(Action::Done) };
        if !self.written.met(key, &store, &self.ctx.client.all(), now).await? {
            return Ok(Action::RequeueAfter(Expectations::patience()));
        }
        let mut pods = informers.pods.store().namespace(service.namespace());
        pods.retain(|pod| selects(selector, pod));
        let time = self.times.next(&service, pods.iter().map(|p| &**p));
        let present = store.get(key);
        match plan(&service, &pods, present.as_deref(), time.as_deref()) {
            Some(op) => self.apply(key, &service, op).await,
            None => Ok(Action::Done),
        }
    }

    async fn apply(&self, key: &str, service: &Service, op: Op) -> Result<Action, client::Error> {
        let (namespace, _) = split_key(key);
        let api = self.ctx.client.namespaced::<Endpoints>(namespace);
        let now = self.ctx.clock.now();
        let (reason, verb, result) = match op {
            Op::Create(next) => {
                let result = api.create(&next).await.map(|e| self.written.created(key, &e, now));
                ("FailedToCreateEndpoint", "create", result)
            }
            Op::Update(next) => {
                let result = api.update(&next).await.map(|e| self.written.changed(key, &e, now));
                ("FailedToUpdateEndpoint", "update", result)
            }
        };
        match result {
            Ok(()) => Ok(Action::Done),
            Err(error) if error.is_namespace_terminating() => Ok(Action::Done),
            Err(error) => {
                if !error.is_conflict() && !error.is_already_exists() {
                    let message = format!("Failed to {verb} endpoint {key}: {error}");
                    self.recorder.event(service, EventType::Warning, reason, message);
                }
                Err(error)
            }
        }
    }

    /// Removes the Endpoints of a Service that is gone, if they were made here.
    async fn remove(&self, endpoints: &Endpoints) -> Result<(), client::Error> {
        if endpoints.label(MANAGED_BY) != Some(MANAGER) {
            return Ok(());
        }
        let api = self.ctx.client.namespaced::<Endpoints>(endpoints.namespace());
        match api.delete(endpoints.name(), &crate::delete::if_uid(endpoints)).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}
