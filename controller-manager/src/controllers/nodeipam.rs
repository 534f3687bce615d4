//! Gives each node a range of pod addresses of its own.

mod cidrs;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use api::meta::MetaExt;
use api::openapi::api::core::v1::Node;
use client::{Action, EventType, Patch, Recorder, WorkQueue, run_workers};
use component::tasks::lock;
use serde_json::json;

use crate::config::Cidr;
use crate::context::Context;
use cidrs::Cidrs;

struct State {
    cidrs: Cidrs,
    /// The uid under which each node's range is held, by the node's name.
    uids: HashMap<String, String>,
}

struct Controller {
    ctx: Context,
    recorder: Recorder,
    state: Mutex<State>,
}

/// Runs the controller until leadership ends. It does nothing when no range was given.
pub async fn run(ctx: Context) {
    let Some(cluster) = ctx.config.cluster_cidr else { return };
    let queue = WorkQueue::new("nodeipam");
    let q = queue.clone();
    ctx.informers.nodes.on_change(move |change| q.add(change.key()));
    ctx.informers.nodes.synced().await;

    // What nodes have already is learned before anything is handed out.
    let mut state =
        State { cidrs: Cidrs::new(cluster, ctx.config.node_cidr_mask_size), uids: HashMap::new() };
    for node in ctx.informers.nodes.store().list() {
        state.learn(&node);
    }
    let recorder = ctx.recorder("cidrAllocator");
    let tasks = ctx.tasks.clone();
    let controller = Arc::new(Controller { ctx, recorder, state: Mutex::new(state) });
    let reconcile = move |name: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&name).await }
    };
    run_workers(queue, 1, &tasks, reconcile).await;
}

/// The ranges that a node has.
fn assigned(node: &Node) -> Vec<Cidr> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    // A range of another address family is none of ours.
    all.filter_map(|text| text.parse().ok()).collect()
}

fn has_range(node: &Node) -> bool {
    node.spec.as_ref().and_then(|s| s.pod_cidr.as_deref()).is_some_and(|cidr| !cidr.is_empty())
}

impl State {
    fn learn(&mut self, node: &Node) {
        for cidr in assigned(node) {
            self.cidrs.occupy(node.uid(), cidr);
        }
        self.uids.insert(node.name().to_owned(), node.uid().to_owned());
    }

    /// The node of this name is gone, or was replaced by another.
    fn forget(&mut self, name: &str) {
        if let Some(uid) = self.uids.remove(name) {
            self.cidrs.release(&uid);
        }
    }

    /// Takes note of a node and returns the range that it is to be given, if it needs one.
    fn plan(&mut self, node: &Node) -> Option<Result<Cidr, Full>> {
        if self.uids.get(node.name()).is_some_and(|uid| uid != node.uid()) {
            self.forget(node.name());
        }
        self.learn(node);
        let needs_one = !has_range(node) && !node.is_deleting();
        needs_one.then(|| self.cidrs.allocate(node.uid()).ok_or(Full))
    }
}

/// All ranges are taken.
struct Full;

impl Controller {
    async fn reconcile(&self, name: &str) -> Result<Action, client::Error> {
        let node = self.ctx.informers.nodes.store().get(name);
        let Some(node) = node else {
            lock(&self.state).forget(name);
            return Ok(Action::Done);
        };
        let planned = lock(&self.state).plan(&node);
        match planned {
            None => Ok(Action::Done),
            Some(Ok(cidr)) => self.assign(&node, cidr).await,
            Some(Err(Full)) => {
                let message = format!("Node {name} status is now: CIDRNotAvailable");
                self.recorder.event(&*node, EventType::Normal, "CIDRNotAvailable", message);
                tracing::warn!(node = name, "no range of pod addresses is free");
                Ok(Action::RequeueAfter(std::time::Duration::from_secs(60)))
            }
        }
    }

    async fn assign(&self, node: &Node, cidr: Cidr) -> Result<Action, client::Error> {
        let cidr = cidr.to_string();
        // The version makes sure that the node has got no other range in the meantime.
        let patch = json!({
            "metadata": { "uid": node.uid(), "resourceVersion": node.resource_version() },
            "spec": { "podCIDR": cidr, "podCIDRs": [cidr] },
        });
        match self.ctx.client.all::<Node>().patch(node.name(), &Patch::Merge(patch)).await {
            Ok(_) => {
                tracing::info!(node = node.name(), %cidr, "assigned a range of pod addresses");
                Ok(Action::Done)
            }
            // The node changed or went: its event has queued it again, or will.
            Err(error) if error.is_conflict() || error.is_not_found() => Err(error),
            Err(error) => {
                let message = format!("Node {} status is now: CIDRAssignmentFailed", node.name());
                self.recorder.event(node, EventType::Normal, "CIDRAssignmentFailed", message);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::node;

    #[test]
    fn a_node_that_was_replaced_gives_its_range_back_and_gets_one_of_its_own() {
        let cidrs = Cidrs::new("10.0.0.0/30".parse().unwrap(), 31);
        let mut state = State { cidrs, uids: HashMap::new() };
        let text = |planned: Option<Result<Cidr, Full>>| match planned {
            None => "nothing".to_owned(),
            Some(Ok(cidr)) => cidr.to_string(),
            Some(Err(Full)) => "full".into(),
        };
        let mut a = node("a", "True", 0).build();
        assert_eq!(text(state.plan(&a)), "10.0.0.0/31");
        assert_eq!(text(state.plan(&a)), "10.0.0.0/31", "the same until the node bears it");
        a.spec.get_or_insert_default().pod_cidr = Some("10.0.0.0/31".into());
        assert_eq!(text(state.plan(&a)), "nothing");
        assert_eq!(text(state.plan(&node("b", "True", 0).build())), "10.0.0.2/31");
        assert_eq!(text(state.plan(&node("c", "True", 0).build())), "full");
        let mut again = node("a", "True", 0).build();
        again.metadata.uid = Some("uid-a2".into());
        assert_eq!(text(state.plan(&again)), "10.0.0.0/31");
        state.forget("b");
        assert_eq!(text(state.plan(&node("c", "True", 0).build())), "10.0.0.2/31");
    }
}
