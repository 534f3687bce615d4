//! Which pods go first when a ReplicaSet shrinks.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use api::meta::MetaExt;
use api::openapi::api::core::v1::Pod;
use jiff::Timestamp;

use crate::pods::{is_active, is_ready, node_name, phase, ready_condition};

/// Lets users say which pods are cheaper to lose: lower costs go first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Orders pods so that those to be deleted come first: unassigned, pending, not ready, cheap to
/// lose, sharing their node with many related pods, ready for a short time, often restarted, young.
/// `related` are the pods of all ReplicaSets of the same owner. Times are compared by their
/// magnitude, so that a set does not lose its pods in the order of their creation alone.
pub fn rank(pods: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Vec<Arc<Pod>> {
    let mut per_node = HashMap::<&str, usize>::new();
    for pod in related.iter().filter(|p| is_active(p)) {
        *per_node.entry(node_name(pod)).or_default() += 1;
    }
    let crowd = |pod: &Pod| per_node.get(node_name(pod)).copied().unwrap_or(0);
    let mut ranked = pods.to_vec();
    ranked.sort_by(|a, b| {
        let by = |f: &dyn Fn(&Pod) -> i64| f(a).cmp(&f(b));
        by(&|p| i64::from(!node_name(p).is_empty()))
            .then_with(|| by(&phase_rank))
            .then_with(|| by(&|p| i64::from(is_ready(p))))
            .then_with(|| by(&deletion_cost))
            .then_with(|| crowd(b).cmp(&crowd(a)))
            .then_with(|| ready_time(a, b, now))
            .then_with(|| by(&restarts).reverse())
            .then_with(|| youth(created(a), created(b), now))
            .then_with(|| a.uid().cmp(b.uid()))
    });
    ranked
}

fn phase_rank(pod: &Pod) -> i64 {
    match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn deletion_cost(pod: &Pod) -> i64 {
    pod.annotation(DELETION_COST).and_then(|text| text.parse::<i32>().ok()).unwrap_or(0).into()
}

fn restarts(pod: &Pod) -> i64 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|c| i64::from(c.restart_count)).max().unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|t| t.0)
}

fn ready_time(a: &Pod, b: &Pod, now: Timestamp) -> Ordering {
    if !is_ready(a) || !is_ready(b) {
        return Ordering::Equal;
    }
    let since = |pod| ready_condition(pod).and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
    youth(since(a), since(b), now)
}

/// Younger goes first, by the magnitude of the age; an unknown time counts as the youngest.
fn youth(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let magnitude = |time: Option<Timestamp>| match time.map(|t| now.duration_since(t).as_nanos()) {
        None => -2,
        Some(age) if age <= 0 => -1,
        Some(age) => i64::from(age.ilog2()),
    };
    magnitude(a).cmp(&magnitude(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Builder, at, pod};

    #[track_caller]
    fn check(first: Builder<Pod>, then: Builder<Pod>, related: &[Arc<Pod>]) {
        let (first, then) = (first.arc(), then.arc());
        for pods in [[first.clone(), then.clone()], [then.clone(), first.clone()]] {
            let ranked = rank(&pods, related, at(10_000));
            assert_eq!(ranked[0].name(), first.name());
        }
    }

    #[test]
    fn pods_rank_as_documented() {
        let ready = |name: &str| pod(name).ready_since(100);
        check(pod("z"), pod("a").node("n"), &[]);
        check(pod("z").node("n"), pod("a").node("n").phase("Running"), &[]);
        check(pod("z").node("n").unready_since(1), ready("a"), &[]);
        check(ready("z").annotation(DELETION_COST, "-5"), ready("a"), &[]);
        check(ready("a"), ready("z").annotation(DELETION_COST, "10"), &[]);
        let crowded = [ready("x").node("n2").arc(), ready("y").node("n2").arc(), ready("w").node("n1").arc()];
        check(ready("z").node("n2"), ready("a").node("n1"), &crowded);
        check(pod("z").ready_since(9_000), pod("a").ready_since(100), &[]);
        check(ready("z").restarts(3), ready("a").restarts(1), &[]);
        check(ready("z").created(9_999), ready("a").created(1), &[]);
        check(ready("a"), ready("z"), &[]);
        // Nearly the same age counts as the same.
        check(pod("a").ready_since(100), pod("z").ready_since(101), &[]);
    }
}
