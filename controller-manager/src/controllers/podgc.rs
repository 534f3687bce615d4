//! Removes pods that nobody else will: of nodes that are gone, unscheduled ones that are being
//! deleted, and ended ones beyond a threshold.

use std::sync::Arc;
use std::time::Duration;

use api::meta::{MetaExt, key};
use api::openapi::api::core::v1::{Node, Pod, PodCondition};
use api::openapi::apimachinery::pkg::apis::meta::v1::Time;
use client::{Action, Change, WorkQueue, run_workers};
use jiff::Timestamp;

use crate::context::Context;
use crate::informers::pods_on;
use crate::pods::{is_terminal, node_name};

/// How long a node must be gone before its pods are removed: it may come back at once.
const QUARANTINE: Duration = Duration::from_secs(40);
/// How long ended pods may gather before they are counted.
const GATHER: Duration = Duration::from_secs(20);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What there is to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    /// One pod, by its key.
    Pod(String),
    /// The number of ended pods.
    Ended,
}

/// What becomes of a pod.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Others care for it.
    Keep,
    /// Its node is not in the cache: it goes if the node does not exist either.
    IfNodeIsGone,
    /// It goes at once, for this reason.
    Remove(&'static str),
}

fn plan(pod: &Pod, node: Option<&Node>) -> Plan {
    match (node_name(pod), node) {
        ("", _) if pod.is_deleting() => Plan::Remove("PodGC: unscheduled and terminating"),
        ("", _) => Plan::Keep,
        (_, None) => Plan::IfNodeIsGone,
        (_, Some(node)) => {
            let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
            let out = taints.into_iter().any(|t| t.key == OUT_OF_SERVICE);
            let ready =
                api::conditions::is_true(&node.status.as_ref().and_then(|s| s.conditions.clone()), "Ready");
            if pod.is_deleting() && out && !ready {
                Plan::Remove("PodGC: node is out of service")
            } else {
                Plan::Keep
            }
        }
    }
}

/// The ended pods beyond the threshold, oldest first; evicted ones before others.
fn superfluous(mut ended: Vec<Arc<Pod>>, threshold: usize) -> Vec<Arc<Pod>> {
    if threshold == 0 {
        return Vec::new();
    }
    let excess = ended.len().saturating_sub(threshold);
    let evicted = |p: &Pod| p.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("Evicted");
    let created = |p: &Pod| p.metadata.creation_timestamp.as_ref().map(|t| t.0);
    ended.sort_by_key(|p| (!evicted(p), created(p), p.name().to_owned()));
    ended.truncate(excess);
    ended
}

/// Runs the controller until leadership ends.
pub async fn run(ctx: Context) {
    let queue = WorkQueue::new("podgc");
    let informers = &ctx.informers;
    let (q, nodes) = (queue.clone(), informers.nodes.store());
    informers.pods.on_change(move |change| {
        let (Change::Added(pod) | Change::Updated { new: pod, .. }) = change else { return };
        let unscheduled = node_name(pod).is_empty();
        if !unscheduled && nodes.get(node_name(pod)).is_none() {
            q.add_after(Work::Pod(change.key()), QUARANTINE);
        } else if pod.is_deleting() {
            q.add(Work::Pod(change.key()));
        }
        if is_terminal(pod) {
            q.add_after(Work::Ended, GATHER);
        }
    });
    let (q, pods) = (queue.clone(), informers.pods.store());
    informers.nodes.on_change(move |change| {
        let delay = match change {
            Change::Added(_) => return,
            Change::Updated { .. } => Duration::ZERO,
            Change::Deleted(_) => QUARANTINE,
        };
        let affected = pods_on(&pods, change.object().name());
        let goes = |pod: &&Arc<Pod>| !delay.is_zero() || pod.is_deleting();
        affected.iter().filter(goes).for_each(|pod| q.add_after(Work::Pod(key(&**pod)), delay));
    });
    tokio::join!(informers.nodes.synced(), informers.pods.synced());
    let tasks = ctx.tasks.clone();
    let reconcile = move |work: Work| {
        let ctx = ctx.clone();
        async move { reconcile(&ctx, work).await }
    };
    run_workers(queue, 2, &tasks, reconcile).await;
}

async fn reconcile(ctx: &Context, work: Work) -> Result<Action, client::Error> {
    let pods = ctx.informers.pods.store();
    match work {
        Work::Ended => {
            let threshold = ctx.config.terminated_pod_gc_threshold;
            let ended = pods.list().into_iter().filter(|p| is_terminal(p)).collect();
            for pod in superfluous(ended, threshold) {
                remove(ctx, &pod, "PodGC: too many ended pods").await?;
            }
        }
        Work::Pod(key) => {
            let Some(pod) = pods.get(&key) else { return Ok(Action::Done) };
            let node = ctx.informers.nodes.store().get(node_name(&pod));
            match plan(&pod, node.as_deref()) {
                Plan::Keep => {}
                Plan::Remove(why) => remove(ctx, &pod, why).await?,
                Plan::IfNodeIsGone => {
                    if ctx.client.all::<Node>().get_opt(node_name(&pod)).await?.is_none() {
                        remove(ctx, &pod, "PodGC: node no longer exists").await?;
                    }
                }
            }
        }
    }
    Ok(Action::Done)
}

/// Marks a pod as failed, if it has not ended, and removes it without waiting for its kubelet.
async fn remove(ctx: &Context, pod: &Pod, why: &str) -> Result<(), client::Error> {
    tracing::info!(pod = %key(pod), why, "removing");
    let api = ctx.client.namespaced::<Pod>(pod.namespace());
    if !is_terminal(pod) && !node_name(pod).is_empty() {
        let mut failed = pod.clone();
        let status = failed.status.get_or_insert_default();
        status.phase = Some("Failed".into());
        let condition = PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some("DeletionByPodGC".into()),
            message: Some(why.to_owned()),
            last_transition_time: Timestamp::from_second(ctx.clock.now().as_second()).ok().map(Time),
            ..PodCondition::default()
        };
        api::conditions::set(&mut status.conditions, condition);
        match api.update_status(&failed).await {
            Err(error) if error.is_not_found() => return Ok(()),
            other => drop(other?),
        }
    }
    match api.delete(pod.name(), &crate::delete::now(pod)).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{node, pod};

    #[test]
    fn only_what_nobody_else_removes_is_removed() {
        let out = || node("n", "Unknown", 0).taint(OUT_OF_SERVICE, "NoExecute", 0);
        let removed = |plan: Plan| matches!(plan, Plan::Remove(_));
        assert_eq!(plan(&pod("a").build(), None), Plan::Keep);
        assert!(removed(plan(&pod("a").deleting().build(), None)));
        assert_eq!(plan(&pod("a").node("n").build(), None), Plan::IfNodeIsGone);
        let node_up = node("n", "True", 0).build();
        assert_eq!(plan(&pod("a").node("n").deleting().build(), Some(&node_up)), Plan::Keep);
        let node_down = node("n", "Unknown", 0).build();
        assert_eq!(plan(&pod("a").node("n").deleting().build(), Some(&node_down)), Plan::Keep);
        assert!(removed(plan(&pod("a").node("n").deleting().build(), Some(&out().build()))));
        assert_eq!(plan(&pod("a").node("n").build(), Some(&out().build())), Plan::Keep);
    }

    #[test]
    fn the_oldest_ended_pods_go_first() {
        let ended = |name: &str, created| pod(name).phase("Failed").created(created);
        let mut evicted = ended("d", 9);
        evicted.0.status.as_mut().unwrap().reason = Some("Evicted".into());
        let pods = vec![ended("a", 3).arc(), ended("b", 1).arc(), ended("c", 2).arc(), evicted.arc()];
        let names = |threshold| -> Vec<String> {
            superfluous(pods.clone(), threshold).iter().map(|p| p.name().to_owned()).collect()
        };
        assert_eq!(names(2), ["d", "b"]);
        assert!(names(4).is_empty() && names(0).is_empty());
    }
}
