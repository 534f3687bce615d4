//! Notices nodes that are lost: marks them and their pods, and taints them so that pods leave.

mod health;
mod taints;
mod zones;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use api::meta::{MetaExt, key_of};
use api::openapi::api::core::v1::{Node, Pod};
use api::openapi::apimachinery::pkg::apis::meta::v1::Time;
use client::{Action, Change, EventType, Patch, Recorder, WorkQueue, run_workers};
use component::tasks::lock;
use jiff::Timestamp;
use serde_json::json;

use crate::context::Context;
use crate::informers::pods_on;
use crate::pods::{is_ready, ready_condition, until};
use health::{Heartbeat, ready_status};
use taints::Eviction;
use zones::{Limiter, all_lost, rate, states, zone_of};

/// The namespace of the Leases that kubelets renew.
const LEASES: &str = "kube-node-lease";

#[derive(Default)]
struct State {
    heartbeats: HashMap<String, Heartbeat>,
    limiter: Limiter,
    /// Nodes whose turn has come, until they are ready again.
    admitted: HashSet<String>,
    suspended: bool,
}

struct Controller {
    ctx: Context,
    recorder: Recorder,
    state: Mutex<State>,
}

/// Runs the controller until leadership ends.
pub async fn run(ctx: Context) {
    let queue = WorkQueue::new("nodelifecycle");
    let informers = &ctx.informers;
    let q = queue.clone();
    informers.nodes.on_change(move |change| q.add(change.key()));
    let q = queue.clone();
    informers.leases.on_change(move |change| {
        let lease = change.object();
        if lease.namespace() == LEASES {
            q.add(lease.name().to_owned());
        }
    });
    let (q, nodes) = (queue.clone(), informers.nodes.store());
    informers.pods.on_change(move |change| {
        // A pod that says it is ready although its node is lost.
        if let Change::Added(pod) | Change::Updated { new: pod, .. } = change
            && is_ready(pod)
            && nodes.get(crate::pods::node_name(pod)).is_some_and(|node| ready_status(&node) != "True")
        {
            q.add(crate::pods::node_name(pod).to_owned());
        }
    });
    tokio::join!(informers.nodes.synced(), informers.leases.synced(), informers.pods.synced());
    let recorder = ctx.recorder("node-controller");
    let tasks = ctx.tasks.clone();
    let controller = Arc::new(Controller { ctx, recorder, state: Mutex::default() });
    let reconcile = move |name: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&name).await }
    };
    run_workers(queue, 1, &tasks, reconcile).await;
}

impl Controller {
    /// Looks at one node. It is looked at when it or its Lease changes, and when its last sign of
    /// life becomes too old.
    async fn reconcile(&self, name: &str) -> Result<Action, client::Error> {
        let informers = &self.ctx.informers;
        let now = self.ctx.clock.now();
        let Some(node) = informers.nodes.store().get(name) else {
            let mut state = lock(&self.state);
            state.admitted.remove(name);
            if state.heartbeats.remove(name).is_some() {
                tracing::info!(node = name, "node is gone");
            }
            return Ok(Action::Done);
        };
        let settings = &self.ctx.config.node_lifecycle;
        let expires =
            self.observe(&node, now).expires(settings.monitor_grace_period, settings.startup_grace_period);
        let mut node = Node::clone(&node);
        if expires <= now {
            node = self.mark_lost(node, now).await?;
        }
        if ready_status(&node) != "True" {
            self.mark_pods(&node, now).await?;
        }
        let eviction = self.eviction(&node, now);
        if let Some(taints) = taints::plan(&node, eviction, now) {
            self.taint(&node, taints).await?;
        }
        // While a node is not ready it is looked at again in case its zone's turn has come.
        let waits = ready_status(&node) != "True";
        let next = if waits { settings.monitor_period } else { until(now, expires) };
        Ok(Action::RequeueAfter(next.max(std::time::Duration::from_millis(100))))
    }

    fn observe(&self, node: &Node, now: Timestamp) -> Heartbeat {
        let lease = self.ctx.informers.leases.store().get(&key_of(LEASES, node.name()));
        let mut state = lock(&self.state);
        let before = state.heartbeats.get(node.name());
        if before.is_none() {
            let name = node.name();
            let message = format!("Node {name} event: Registered Node {name} in Controller");
            self.recorder.event(node, EventType::Normal, "RegisteredNode", message);
        }
        let next = Heartbeat::observe(before, node, lease.as_deref(), now);
        state.heartbeats.insert(node.name().to_owned(), next.clone());
        next
    }

    async fn mark_lost(&self, mut node: Node, now: Timestamp) -> Result<Node, client::Error> {
        let Some(conditions) = health::lost(&node, now) else { return Ok(node) };
        tracing::info!(node = node.name(), "node is not heard of any more");
        let was_ready = ready_status(&node) == "True";
        node.status.get_or_insert_default().conditions = Some(conditions);
        let node = self.ctx.client.all::<Node>().update_status(&node).await?;
        if was_ready {
            let message = format!("Node {} status is now: NodeNotReady", node.name());
            self.recorder.event(&node, EventType::Normal, "NodeNotReady", message);
        }
        Ok(node)
    }

    /// Whether the node's pods may be evicted now. It is asked only for nodes that wait for it.
    fn eviction(&self, node: &Node, now: Timestamp) -> Eviction {
        let nodes = self.ctx.informers.nodes.store().list();
        let settings = &self.ctx.config.node_lifecycle;
        let mut state = lock(&self.state);
        // The node as it is known here may be newer than in the cache, and others that are not heard
        // of any more may not be marked yet.
        let current = nodes.iter().map(|n| if n.name() == node.name() { node } else { &**n });
        let silent = |n: &Node| {
            let heartbeat = state.heartbeats.get(n.name());
            let grace = (settings.monitor_grace_period, settings.startup_grace_period);
            heartbeat.is_some_and(|h| h.expires(grace.0, grace.1) <= now)
        };
        let with_loss = current.map(|n| (n, ready_status(n) != "True" || silent(n)));
        let states = states(with_loss, settings.unhealthy_zone_threshold);
        let suspended = all_lost(&states);
        if suspended != state.suspended {
            state.suspended = suspended;
            if suspended {
                tracing::warn!("all nodes are lost: no pods are evicted");
            } else {
                tracing::info!("not all nodes are lost any more: pods are evicted again");
            }
        }
        if suspended {
            state.admitted.clear();
            return Eviction::Suspended;
        }
        if ready_status(node) == "True" {
            state.admitted.remove(node.name());
        }
        if !taints::awaits_eviction(node) {
            return Eviction::Deferred;
        }
        // Once admitted it stays so, lest a write that fails costs another turn.
        let zone = zone_of(node);
        let (zone_state, size) = states.get(&zone).copied().unwrap_or((zones::ZoneState::Normal, 0));
        let rate = rate(zone_state, size, settings);
        if state.admitted.contains(node.name()) || state.limiter.admit(&zone, rate, now) {
            state.admitted.insert(node.name().to_owned());
            return Eviction::Allowed;
        }
        Eviction::Deferred
    }

    async fn taint(
        &self,
        node: &Node,
        taints: Vec<api::openapi::api::core::v1::Taint>,
    ) -> Result<(), client::Error> {
        let names: Vec<_> = taints.iter().map(|t| format!("{}:{}", t.key, t.effect)).collect();
        tracing::info!(node = node.name(), taints = ?names, "tainting");
        let taints = if taints.is_empty() { serde_json::Value::Null } else { json!(taints) };
        let patch = json!({
            "metadata": { "uid": node.uid(), "resourceVersion": node.resource_version() },
            "spec": { "taints": taints },
        });
        self.ctx.client.all::<Node>().patch(node.name(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Marks the pods of a node that is not ready as not ready, so that no traffic is sent to them.
    async fn mark_pods(&self, node: &Node, now: Timestamp) -> Result<(), client::Error> {
        let pods = pods_on(&self.ctx.informers.pods.store(), node.name());
        for pod in pods.iter().filter(|p| is_ready(p)) {
            let mut next = Pod::clone(pod);
            let Some(condition) = ready_condition(pod) else { continue };
            let mut condition = condition.clone();
            condition.status = "False".into();
            condition.last_transition_time = Timestamp::from_second(now.as_second()).ok().map(Time);
            api::conditions::set(&mut next.status.get_or_insert_default().conditions, condition);
            let api = self.ctx.client.namespaced::<Pod>(pod.namespace());
            match api.update_status(&next).await {
                Ok(_) => self.recorder.event(&**pod, EventType::Warning, "NodeNotReady", "Node is not ready"),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
