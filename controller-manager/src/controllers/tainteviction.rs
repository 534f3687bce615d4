//! Evicts pods from nodes with NoExecute taints, each when it does not tolerate them any longer.

use std::sync::Arc;
use std::time::Duration;

use api::meta::{MetaExt, key};
use api::openapi::api::core::v1::{Node, Pod, PodCondition, Taint, Toleration};
use api::openapi::apimachinery::pkg::apis::meta::v1::Time;
use client::{Action, EventType, Recorder, WorkQueue, run_workers};
use jiff::Timestamp;

use crate::context::Context;
use crate::informers::pods_on;
use crate::pods::{is_terminal, later, node_name, until};

/// What becomes of a pod.
#[derive(Debug, PartialEq)]
enum Plan {
    /// It stays.
    Stay,
    /// It stays for so long.
    Wait(Duration),
    /// It goes now.
    Evict,
}

struct Controller {
    ctx: Context,
    recorder: Recorder,
}

/// Runs the controller until leadership ends.
pub async fn run(ctx: Context) {
    let queue = WorkQueue::new("tainteviction");
    let informers = &ctx.informers;
    let q = queue.clone();
    informers.pods.on_change(move |change| {
        if !node_name(change.object()).is_empty() {
            q.add(change.key());
        }
    });
    let (q, pods) = (queue.clone(), informers.pods.store());
    informers.nodes.on_change(move |change| {
        if let client::Change::Updated { old, new } = change
            && taints(old).eq(taints(new))
        {
            return;
        }
        pods_on(&pods, change.object().name()).iter().for_each(|pod| q.add(key(&**pod)));
    });
    tokio::join!(informers.nodes.synced(), informers.pods.synced());
    let recorder = ctx.recorder("taint-eviction-controller");
    let tasks = ctx.tasks.clone();
    let controller = Arc::new(Controller { ctx, recorder });
    let reconcile = move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    };
    run_workers(queue, 4, &tasks, reconcile).await;
}

/// The taints that drive pods away.
fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    let all = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    all.filter(|t| t.effect == "NoExecute")
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |text: &Option<String>| text.clone().unwrap_or_default();
    let (effect, key) = (set(&toleration.effect), set(&toleration.key));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && set(&toleration.value) == set(&taint.value),
        _ => false,
    }
}

/// Decides from the pod and the NoExecute taints of its node. A pod stays for the shortest of the
/// times of the tolerations that it needs, counted from when the taint came.
fn plan<'t>(pod: &Pod, taints: impl Iterator<Item = &'t Taint>, now: Timestamp) -> Plan {
    if pod.is_deleting() || is_terminal(pod) {
        return Plan::Stay;
    }
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let mut until_when: Option<Timestamp> = None;
    for taint in taints {
        let matching: Vec<_> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if matching.is_empty() {
            return Plan::Evict;
        }
        let added = taint.time_added.as_ref().map_or(now, |t| t.0);
        for seconds in matching.iter().filter_map(|t| t.toleration_seconds) {
            let ends = later(added, Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
            until_when = Some(until_when.map_or(ends, |other| other.min(ends)));
        }
    }
    match until_when {
        None => Plan::Stay,
        Some(at) if at <= now => Plan::Evict,
        Some(at) => Plan::Wait(until(now, at)),
    }
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Action, client::Error> {
        let informers = &self.ctx.informers;
        let Some(pod) = informers.pods.store().get(key) else { return Ok(Action::Done) };
        let Some(node) = informers.nodes.store().get(node_name(&pod)) else { return Ok(Action::Done) };
        match plan(&pod, taints(&node), self.ctx.clock.now()) {
            Plan::Stay => Ok(Action::Done),
            Plan::Wait(duration) => Ok(Action::RequeueAfter(duration)),
            Plan::Evict => self.evict(&pod).await,
        }
    }

    async fn evict(&self, pod: &Pod) -> Result<Action, client::Error> {
        let api = self.ctx.client.namespaced::<Pod>(pod.namespace());
        tracing::info!(pod = %key(pod), node = node_name(pod), "evicting");
        let message = format!("Marking for deletion Pod {}", key(pod));
        self.recorder.event(pod, EventType::Normal, "TaintManagerEviction", message);
        let mut marked = pod.clone();
        let condition = PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some("DeletionByTaintManager".into()),
            message: Some("Taint manager: deleting due to NoExecute taint".into()),
            last_transition_time: Timestamp::from_second(self.ctx.clock.now().as_second()).ok().map(Time),
            ..PodCondition::default()
        };
        api::conditions::set(&mut marked.status.get_or_insert_default().conditions, condition);
        match api.update_status(&marked).await {
            Err(error) if error.is_not_found() => return Ok(Action::Done),
            // Its kubelet or another controller wrote meanwhile: look at it anew.
            other => drop(other?),
        }
        match api.delete(pod.name(), &crate::delete::if_uid(pod)).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(Action::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, node, pod};

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: (!key.is_empty()).then(|| key.into()),
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            toleration_seconds: seconds,
            value: None,
        }
    }

    #[track_caller]
    fn check(tolerations: &[Toleration], now: i64, expected: Plan) {
        let mut pod = pod("a").node("n").build();
        pod.spec.as_mut().unwrap().tolerations = Some(tolerations.to_vec());
        let node = node("n", "Unknown", 0).taint("x", "NoExecute", 100).taint("y", "NoSchedule", 100);
        assert_eq!(plan(&pod, taints(&node.build()), at(now)), expected);
    }

    #[test]
    fn a_pod_stays_for_as_long_as_it_tolerates() {
        check(&[], 100, Plan::Evict);
        check(&[toleration("x", None)], 9999, Plan::Stay);
        check(&[toleration("", None)], 9999, Plan::Stay);
        check(&[toleration("y", None)], 100, Plan::Evict);
        check(&[toleration("x", Some(300))], 100, Plan::Wait(Duration::from_secs(300)));
        check(&[toleration("x", Some(300))], 350, Plan::Wait(Duration::from_secs(50)));
        check(&[toleration("x", Some(300))], 400, Plan::Evict);
        check(&[toleration("x", Some(-5))], 100, Plan::Evict);
        check(
            &[toleration("x", Some(300)), toleration("", Some(30))],
            100,
            Plan::Wait(Duration::from_secs(30)),
        );
        check(&[toleration("x", Some(30)), toleration("", None)], 130, Plan::Evict);
    }

    #[test]
    fn all_taints_must_be_tolerated_and_what_goes_already_is_left_alone() {
        let two = node("n", "Unknown", 0).taint("x", "NoExecute", 0).taint("z", "NoExecute", 0).build();
        let mut one = pod("a").node("n");
        one.0.spec.as_mut().unwrap().tolerations = Some(vec![toleration("x", None)]);
        assert_eq!(plan(&one.0, taints(&two), at(1)), Plan::Evict);
        assert_eq!(plan(&one.deleting().build(), taints(&two), at(1)), Plan::Stay);
        assert_eq!(plan(&pod("b").phase("Succeeded").build(), taints(&two), at(1)), Plan::Stay);
        assert_eq!(plan(&pod("c").build(), taints(&node("n", "True", 0).build()), at(1)), Plan::Stay);
    }

    #[test]
    fn tolerations_match_as_documented() {
        let taint =
            Taint { key: "k".into(), value: Some("v".into()), effect: "NoExecute".into(), time_added: None };
        let check = |operator: &str, key: &str, value: &str, effect: &str, expected: bool| {
            let some = |t: &str| (!t.is_empty()).then(|| t.to_owned());
            let toleration = Toleration {
                key: some(key),
                operator: some(operator),
                value: some(value),
                effect: some(effect),
                toleration_seconds: None,
            };
            assert_eq!(tolerates(&toleration, &taint), expected, "{operator} {key} {value} {effect}");
        };
        check("", "k", "v", "", true);
        check("Equal", "k", "v", "NoExecute", true);
        check("Equal", "k", "w", "", false);
        check("Exists", "k", "", "", true);
        check("Exists", "", "", "", true);
        check("Exists", "other", "", "", false);
        check("Exists", "k", "", "NoSchedule", false);
        check("Equal", "", "v", "", false);
        check("Nonsense", "k", "v", "", false);
    }
}
