//! Decides how many pods a ReplicaSet creates or deletes, and what its status tells.

use std::sync::Arc;
use std::time::Duration;

use api::meta::{MetaExt, controller_ref};
use api::openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use api::openapi::api::core::v1::Pod;
use api::openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use jiff::Timestamp;

use super::ranking::rank;
use crate::pods;

/// The most pods that one step creates or deletes.
const BURST: usize = 500;
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What shall be done.
#[derive(Debug, PartialEq)]
pub enum Plan {
    /// As many pods exist as were asked for.
    Nothing,
    /// So many more.
    Create(usize),
    /// These go.
    Delete(Vec<Arc<Pod>>),
}

/// Why pods could not be created or deleted: the reason and message of the condition.
#[derive(Debug)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    /// What the API server said.
    pub message: String,
}

/// `spec.replicas`.
pub fn desired(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn min_ready_seconds(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
}

/// Compares the pods that the set manages with its size. `related` are the pods of all ReplicaSets
/// of the same owner, which tell how crowded each node is.
pub fn plan(
    set: &ReplicaSet,
    managed: &[Arc<Pod>],
    related: impl FnOnce() -> Vec<Arc<Pod>>,
    now: Timestamp,
) -> Plan {
    let active: Vec<_> = managed.iter().filter(|p| pods::is_active(p)).cloned().collect();
    let desired = usize::try_from(desired(set)).unwrap_or(0);
    if set.is_deleting() || active.len() == desired {
        return Plan::Nothing;
    }
    if active.len() < desired {
        return Plan::Create((desired - active.len()).min(BURST));
    }
    let excess = (active.len() - desired).min(BURST);
    let mut going = if excess == active.len() { active } else { rank(&active, &related(), now) };
    going.truncate(excess);
    Plan::Delete(going)
}

/// A pod of the set's template.
pub fn new_pod(set: &ReplicaSet) -> Pod {
    let template = set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    let from = template.metadata.unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", set.name())),
        namespace: set.metadata.namespace.clone(),
        labels: from.labels,
        annotations: from.annotations,
        finalizers: from.finalizers,
        owner_references: Some(vec![controller_ref(set)]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec, status: None }
}

/// What the set's pods amount to. `failure` is what the last attempt to create or delete ran into.
pub fn status(
    set: &ReplicaSet,
    managed: &[Arc<Pod>],
    failure: Option<&Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let active: Vec<_> = managed.iter().filter(|p| pods::is_active(p)).collect();
    let count = |test: &dyn Fn(&Pod) -> bool| active.iter().filter(|p| test(p)).count() as i32;
    let some = |n: i32| (n != 0).then_some(n);
    let template = set.spec.as_ref().and_then(|s| s.template.as_ref()?.metadata.as_ref()?.labels.as_ref());
    let fully_labeled =
        |pod: &Pod| template.into_iter().flatten().all(|(key, value)| pod.label(key) == Some(value.as_str()));
    let mut conditions = set.status.as_ref().and_then(|s| s.conditions.clone());
    let known = api::conditions::find(&conditions, REPLICA_FAILURE).is_some();
    match failure {
        Some(failure) if !known => {
            let condition = ReplicaSetCondition {
                type_: REPLICA_FAILURE.into(),
                status: "True".into(),
                reason: Some(failure.reason.into()),
                message: Some(failure.message.clone()),
                last_transition_time: Timestamp::from_second(now.as_second()).ok().map(Time),
            };
            api::conditions::set(&mut conditions, condition);
        }
        None if known => {
            if let Some(list) = &mut conditions {
                list.retain(|c| c.type_ != REPLICA_FAILURE);
            }
        }
        Some(_) | None => {}
    }
    ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: some(count(&fully_labeled)),
        ready_replicas: some(count(&pods::is_ready)),
        available_replicas: some(count(&|p| pods::is_available(p, min_ready_seconds(set), now))),
        terminating_replicas: Some(managed.iter().filter(|p| pods::is_terminating(p)).count() as i32),
        observed_generation: set.metadata.generation,
        conditions: conditions.filter(|list| !list.is_empty()),
    }
}

/// When a pod that is ready becomes available, which no event will tell.
pub fn next_available(set: &ReplicaSet, managed: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let active = managed.iter().map(|p| &**p).filter(|p| pods::is_active(p));
    pods::next_available(active, min_ready_seconds(set), now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, pod, replica_set};

    fn some_pods() -> Vec<Arc<Pod>> {
        vec![
            pod("a").ready_since(10).arc(),
            pod("b").node("n").labels(&[("other", "x")]).arc(),
            pod("c").ready_since(5).deleting().arc(),
            pod("d").phase("Failed").arc(),
        ]
    }

    #[track_caller]
    fn check(replicas: i32, expected: &str) {
        let set = replica_set("web", replicas).build();
        let found = match plan(&set, &some_pods(), Vec::new, at(100)) {
            Plan::Nothing => "nothing".into(),
            Plan::Create(n) => format!("create {n}"),
            Plan::Delete(pods) => pods.iter().map(|p| format!("delete {} ", p.name())).collect::<String>(),
        };
        assert_eq!(found.trim(), expected);
    }

    #[test]
    fn only_active_pods_count() {
        check(2, "nothing");
        check(5, "create 3");
        check(1, "delete b");
        check(0, "delete a delete b");
        check(-1, "delete a delete b");
        check(5000, "create 500");
    }

    #[test]
    fn a_set_that_is_deleted_is_left_alone() {
        let set = replica_set("web", 9).deleting().build();
        assert_eq!(plan(&set, &some_pods(), Vec::new, at(100)), Plan::Nothing);
    }

    #[test]
    fn the_status_counts_pods() {
        let mut set = replica_set("web", 2).build();
        set.spec.as_mut().unwrap().min_ready_seconds = Some(30);
        let counts = |now| {
            let s = status(&set, &some_pods(), None, at(now));
            (
                s.replicas,
                s.fully_labeled_replicas,
                s.ready_replicas,
                s.available_replicas,
                s.terminating_replicas,
            )
        };
        assert_eq!(counts(39), (2, Some(1), Some(1), None, Some(1)));
        assert_eq!(counts(40), (2, Some(1), Some(1), Some(1), Some(1)));
        assert_eq!(next_available(&set, &some_pods(), at(39)), Some(Duration::from_secs(1)));
        assert_eq!(next_available(&set, &some_pods(), at(40)), None);
    }

    #[test]
    fn a_failure_is_shown_until_it_is_over() {
        let mut set = replica_set("web", 2).build();
        let failure = Failure { reason: "FailedCreate", message: "quota".into() };
        set.status = Some(status(&set, &[], Some(&failure), at(1)));
        let shown = set.status.as_ref().and_then(|s| s.conditions.clone());
        let shown = &shown.unwrap()[0];
        assert_eq!((shown.type_.as_str(), shown.reason.as_deref()), ("ReplicaFailure", Some("FailedCreate")));
        assert_eq!(status(&set, &[], None, at(2)).conditions, None);
    }

    #[test]
    fn a_new_pod_is_of_the_template_and_owned() {
        let set = replica_set("web", 1).build();
        let pod = new_pod(&set);
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("web-"));
        assert!(pod.is_controlled_by("uid-web") && pod.label("app") == Some("web"));
    }
}
