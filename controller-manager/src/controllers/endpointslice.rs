//! Keeps a Service's EndpointSlices equal to its pods.

mod plan;

use std::collections::HashMap;
use std::sync::Arc;

use api::meta::{MetaExt, key, key_of, split_key};
use api::openapi::api::core::v1::Pod;
use api::openapi::api::discovery::v1::EndpointSlice;
use client::{Action, Change, EventType, Recorder, WorkQueue, run_workers};

use crate::context::Context;
use crate::expectations::Expectations;
use crate::informers::{SERVICE_NAME, slices_of};
use crate::pods::node_name;
use crate::service_pods::{TriggerTimes, selector, selects, watch};
use plan::{MANAGED_BY, MANAGER, NodeInfo, Observed, Op, plan};

struct Controller {
    ctx: Context,
    recorder: Recorder,
    written: Expectations,
    times: TriggerTimes,
}

/// Runs the controller until leadership ends.
pub async fn run(ctx: Context) {
    let queue = WorkQueue::new("endpointslice");
    let informers = ctx.informers.clone();
    watch(&ctx, &queue);
    let q = queue.clone();
    informers.endpoint_slices.on_change(move |change| {
        let slice = change.object();
        if is_ours(slice)
            && let Some(service) = slice.label(SERVICE_NAME)
        {
            q.add(key_of(slice.namespace(), service));
        }
    });
    watch_nodes(&ctx, &queue);
    tokio::join!(
        informers.services.synced(),
        informers.pods.synced(),
        informers.nodes.synced(),
        informers.endpoint_slices.synced()
    );
    let recorder = ctx.recorder("endpoint-slice-controller");
    let (workers, tasks) = (ctx.config.concurrent_service_endpoint_syncs, ctx.tasks.clone());
    let (written, times) = (Expectations::default(), TriggerTimes::default());
    let controller = Arc::new(Controller { ctx, recorder, written, times });
    let reconcile = move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    };
    run_workers(queue, workers, &tasks, reconcile).await;
}

/// A node that comes, goes or moves to another zone changes the endpoints of its pods.
fn watch_nodes(ctx: &Context, queue: &WorkQueue) {
    let (q, services) = (queue.clone(), ctx.informers.services.store());
    ctx.informers.nodes.on_change(move |change| {
        if let Change::Updated { old, new } = change
            && old.label(ZONE) == new.label(ZONE)
        {
            return;
        }
        services.list().iter().filter(|s| selector(s).is_some()).for_each(|s| q.add(key(&**s)));
    });
}

const ZONE: &str = "topology.kubernetes.io/zone";

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.label(MANAGED_BY) == Some(MANAGER)
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Action, client::Error> {
        let informers = &self.ctx.informers;
        let Some(service) = informers.services.store().get(key) else {
            // Its slices are owned by it, and collected.
            self.written.forget(key);
            self.times.forget(key);
            return Ok(Action::Done);
        };
        let Some(selector) = selector(&service).filter(|_| !service.is_deleting()) else {
            return Ok(Action::Done);
        };
        let (store, now) = (informers.endpoint_slices.store(), self.ctx.clock.now());
        if !self.written.met(key, &store, &self.ctx.client.all(), now).await? {
            return Ok(Action::RequeueAfter(Expectations::patience()));
        }
        let mut pods = informers.pods.store().namespace(service.namespace());
        pods.retain(|pod| selects(selector, pod));
        let slices: Vec<_> =
            slices_of(&store, key).into_iter().filter(|s| is_ours(s) && !s.is_deleting()).collect();
        let time = self.times.next(&service, pods.iter().map(|p| &**p));
        let ops = plan(&Observed {
            service: &service,
            pods: &pods,
            slices: &slices,
            nodes: &self.nodes(&pods),
            max: self.ctx.config.max_endpoints_per_slice,
            trigger_time: time.as_deref(),
        });
        for op in ops {
            if let Err(error) = self.apply(key, op).await {
                if error.is_namespace_terminating() {
                    return Ok(Action::Done);
                }
                if !error.is_conflict() {
                    let message = format!("Error updating Endpoint Slices for Service {key}: {error}");
                    self.recorder.event(
                        &*service,
                        EventType::Warning,
                        "FailedToUpdateEndpointSlices",
                        message,
                    );
                }
                return Err(error);
            }
        }
        Ok(Action::Done)
    }

    /// What is known of the nodes that these pods are on.
    fn nodes(&self, pods: &[Arc<Pod>]) -> HashMap<String, NodeInfo> {
        let nodes = self.ctx.informers.nodes.store();
        let info = |pod: &Arc<Pod>| {
            let node = nodes.get(node_name(pod))?;
            Some((node_name(pod).to_owned(), NodeInfo { zone: node.label(ZONE).map(str::to_owned) }))
        };
        pods.iter().filter_map(info).collect()
    }

    async fn apply(&self, service: &str, op: Op) -> Result<(), client::Error> {
        let (namespace, _) = split_key(service);
        let api = self.ctx.client.namespaced::<EndpointSlice>(namespace);
        let now = self.ctx.clock.now();
        match op {
            Op::Create(slice) => self.written.created(service, &api.create(&slice).await?, now),
            Op::Update(slice) => self.written.changed(service, &api.update(&slice).await?, now),
            Op::Delete(slice) => match api.delete(slice.name(), &crate::delete::if_uid(&*slice)).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
                _ => self.written.deleted(service, &*slice, now),
            },
        }
        Ok(())
    }
}
