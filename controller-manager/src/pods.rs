//! Questions about pods that several controllers ask.

use std::time::Duration;

use api::meta::MetaExt;
use api::openapi::api::core::v1::{Pod, PodCondition};
use jiff::Timestamp;

/// `status.phase`; a pod that nobody has reported on is `Pending`.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// Whether the pod has ended for good: `Succeeded` or `Failed`.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts as a replica: it has neither ended nor is it being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !pod.is_deleting()
}

/// Whether the pod is on its way out but may still run.
pub fn is_terminating(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.is_deleting()
}

/// `spec.nodeName`, or the empty string while the pod is unassigned.
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

/// The condition `Ready`.
pub fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    api::conditions::find(&pod.status.as_ref()?.conditions, "Ready")
}

/// Whether the condition `Ready` is `True`.
pub fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|c| c.status == "True")
}

/// When a ready pod has been ready for long enough; `None` for a pod that is not ready.
pub fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    let ready = ready_condition(pod).filter(|c| c.status == "True")?;
    if min_ready_seconds == 0 {
        return Some(Timestamp::MIN);
    }
    let since = ready.last_transition_time.as_ref()?.0;
    Some(later(since, Duration::from_secs(min_ready_seconds.max(0) as u64)))
}

/// Whether the pod has been ready for at least `min_ready_seconds`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready_seconds).is_some_and(|at| at <= now)
}

/// How long until the next of these pods becomes available, if one is ready but not yet for long enough.
pub fn next_available<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Option<Duration> {
    pods.into_iter()
        .filter_map(|p| available_at(p, min_ready_seconds))
        .filter(|at| *at > now)
        .min()
        .map(|at| until(now, at))
}

/// A point in time after another; stays within what a timestamp can hold.
pub fn later(from: Timestamp, by: Duration) -> Timestamp {
    from.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// The time from `now` to `at`; nothing when that has passed.
pub fn until(now: Timestamp, at: Timestamp) -> Duration {
    at.duration_since(now).try_into().unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, pod};

    #[test]
    fn a_pod_is_available_when_it_has_been_ready_for_min_ready_seconds() {
        let ready = pod("a").ready_since(10).build();
        assert!(is_available(&ready, 0, at(10)));
        assert!(!is_available(&ready, 5, at(14)));
        assert!(is_available(&ready, 5, at(15)));
        assert!(!is_available(&pod("b").build(), 0, at(99)));
        assert_eq!(next_available([&ready], 5, at(12)), Some(Duration::from_secs(3)));
        assert_eq!(next_available([&ready], 5, at(15)), None);
    }

    #[test]
    fn ended_and_deleted_pods_are_not_active() {
        assert!(is_active(&pod("a").build()));
        assert!(!is_active(&pod("a").phase("Failed").build()));
        assert!(!is_active(&pod("a").deleting().build()));
        assert!(is_terminating(&pod("a").deleting().build()));
        assert!(!is_terminating(&pod("a").deleting().phase("Succeeded").build()));
    }
}
