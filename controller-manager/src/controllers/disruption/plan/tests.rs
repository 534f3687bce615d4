//! Cases of budgets.

use super::*;
use crate::fixtures::{at, pod, time};
use serde_json::{Value, json};

fn budget(spec: Value) -> PodDisruptionBudget {
    let value = json!({"metadata": {"name": "b", "namespace": "default", "generation": 3}, "spec": spec});
    serde_json::from_value(value).expect("a budget")
}

fn owners(replicas: &[i32]) -> Owners {
    let replicas = replicas.iter().enumerate().map(|(i, n)| (i.to_string(), *n)).collect();
    Owners { replicas, unmanaged: 0 }
}

/// Ready pods `r0`, `r1`, … and unready ones `u0`, ….
fn pods(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
    let good = (0..ready).map(|i| pod(&format!("r{i}")).ready_since(1).arc());
    let bad = (0..unready).map(|i| pod(&format!("u{i}")).unready_since(1).arc());
    good.chain(bad).collect()
}

/// Checks (expected, desired, healthy, allowed).
#[track_caller]
fn check(spec: Value, present: (usize, usize), replicas: &[i32], wanted: (i32, i32, i32, i32)) {
    let plan = plan(&budget(spec), &pods(present.0, present.1), &owners(replicas), at(10));
    let s = plan.status;
    assert_eq!((s.expected_pods, s.desired_healthy, s.current_healthy, s.disruptions_allowed), wanted);
    let conditions = s.conditions.expect("a condition");
    let [condition] = conditions.as_slice() else { panic!("{conditions:?}") };
    let reason = if wanted.3 > 0 { "SufficientPods" } else { "InsufficientPods" };
    assert_eq!((condition.type_.as_str(), condition.reason.as_str()), (DISRUPTION_ALLOWED, reason));
    assert_eq!((s.observed_generation, condition.observed_generation), (Some(3), Some(3)));
}

#[test]
fn a_budget_allows_what_is_healthy_beyond_what_is_desired() {
    check(json!({"minAvailable": 2}), (3, 0), &[], (3, 2, 3, 1));
    check(json!({"minAvailable": 2}), (2, 1), &[], (3, 2, 2, 0));
    check(json!({"minAvailable": 0}), (2, 0), &[], (2, 0, 2, 2));
    check(json!({"minAvailable": 2}), (0, 0), &[], (0, 2, 0, 0));
    // Percentages are rounded up, and are of what the controllers ask for rather than of what is there.
    check(json!({"minAvailable": "50%"}), (5, 0), &[5], (5, 3, 5, 2));
    check(json!({"minAvailable": "50%"}), (3, 0), &[3, 4], (7, 4, 3, 0));
    check(json!({"minAvailable": "100%"}), (3, 0), &[3], (3, 3, 3, 0));
    check(json!({"maxUnavailable": 1}), (3, 0), &[3], (3, 2, 3, 1));
    check(json!({"maxUnavailable": 1}), (2, 1), &[3], (3, 2, 2, 0));
    check(json!({"maxUnavailable": "30%"}), (5, 0), &[5], (5, 3, 5, 2));
    check(json!({"maxUnavailable": 9}), (3, 0), &[3], (3, 0, 3, 3));
    check(json!({"maxUnavailable": 1}), (1, 0), &[0], (0, 0, 1, 0));
    check(json!({}), (3, 0), &[], (0, 0, 3, 0));
}

#[test]
fn only_relative_budgets_ask_the_controllers() {
    assert!(!is_relative(&budget(json!({"minAvailable": 1}))));
    assert!(is_relative(&budget(json!({"minAvailable": "1%"}))));
    assert!(is_relative(&budget(json!({"maxUnavailable": 1}))));
}

#[test]
fn a_granted_eviction_counts_until_its_pod_is_seen_to_go() {
    let mut budget = budget(json!({"minAvailable": 1}));
    let granted = [("r0".to_owned(), time(0)), ("gone".to_owned(), time(0))].into();
    let status =
        PodDisruptionBudgetStatus { disrupted_pods: Some(granted), ..PodDisruptionBudgetStatus::default() };
    budget.status = Some(status);
    let all = pods(3, 0);
    let early = plan(&budget, &all, &Owners::default(), at(60));
    assert_eq!((early.status.current_healthy, early.status.disruptions_allowed), (2, 1));
    let left: Vec<_> = early.status.disrupted_pods.expect("one is left").into_keys().collect();
    assert_eq!((left, early.recheck), (vec!["r0".to_owned()], Some(Duration::from_secs(61))));
    assert!(early.not_deleted.is_empty());

    let late = plan(&budget, &all, &Owners::default(), at(121));
    assert_eq!((late.status.current_healthy, late.status.disrupted_pods), (3, None));
    assert_eq!((late.not_deleted[0].name(), late.recheck), ("r0", None));

    let deleting = vec![pod("r0").ready_since(1).deleting().arc(), pod("r1").ready_since(1).arc()];
    let seen = plan(&budget, &deleting, &Owners::default(), at(60));
    assert_eq!((seen.status.current_healthy, seen.status.disrupted_pods), (1, None));
}

#[test]
fn the_condition_keeps_its_time_while_it_stays() {
    let mut budget = budget(json!({"minAvailable": 1}));
    let since = |s: &PodDisruptionBudgetStatus| s.conditions.as_ref().expect("one")[0].last_transition_time.0;
    let first = plan(&budget, &pods(2, 0), &Owners::default(), at(10)).status;
    budget.status = Some(first.clone());
    assert_eq!(plan(&budget, &pods(2, 0), &Owners::default(), at(20)).status, first);
    let lost = plan(&budget, &pods(1, 0), &Owners::default(), at(30)).status;
    assert_eq!(since(&lost), at(30));
    budget.status = Some(lost);
    let failed = failed(&budget, "why", at(40));
    assert_eq!((since(&failed), failed.disruptions_allowed), (at(30), 0));
    let condition = &failed.conditions.as_ref().expect("one")[0];
    assert_eq!((condition.reason.as_str(), condition.message.as_str()), ("SyncFailed", "why"));
}

#[test]
fn a_target_that_is_not_deleted_is_told_so() {
    use api::openapi::api::core::v1::PodCondition;
    let target = |status: &str| {
        let mut pod = pod("a").ready_since(1);
        let condition = PodCondition {
            type_: DISRUPTION_TARGET.into(),
            status: status.into(),
            last_transition_time: Some(time(10)),
            ..PodCondition::default()
        };
        api::conditions::set(&mut pod.0.status.as_mut().expect("a status").conditions, condition);
        pod
    };
    assert_eq!(stale_at(&target("True").build()), Some(at(130)));
    assert_eq!(stale_at(&target("False").build()), None);
    assert_eq!(stale_at(&target("True").deleting().build()), None);
    assert_eq!(stale_at(&target("True").phase("Failed").build()), None);
    assert_eq!(stale_at(&pod("b").build()), None);
}
