use super::*;
use crate::fixtures::{Builder, at, deployment, replica_set, time};
use api::openapi::api::apps::v1::{DeploymentCondition, DeploymentStrategy, ReplicaSetCondition};

const NONE: &[&str] = &[];

/// Describes a plan in words that are easily compared.
fn words(plan: &Plan) -> Vec<String> {
    let size = |s: &ReplicaSet| s.spec.as_ref().unwrap().replicas.unwrap();
    let create = plan.create.iter().map(|s| format!("create {}", size(s)));
    let update = plan.update.iter().map(|u| match (u.from, size(&u.set)) {
        (from, to) if from == to => format!("annotate {}", u.set.name()),
        (from, to) => format!("{} {from}→{to}", u.set.name()),
    });
    let delete = plan.delete.iter().map(|s| format!("delete {}", s.name()));
    create.chain(update).chain(delete).collect()
}

fn run(deployment: &Deployment, sets: &[Arc<ReplicaSet>], running: &[&str], now: i64) -> Plan {
    let running = running.iter().map(|s| (*s).to_owned()).collect();
    plan(&Observed { deployment, sets, running: &running, now: at(now) })
}

#[track_caller]
fn check(deployment: Builder<Deployment>, sets: Vec<Builder<ReplicaSet>>, expected: &[&str]) -> Plan {
    let sets: Vec<_> = sets.into_iter().map(Builder::arc).collect();
    let plan = run(&deployment.build(), &sets, &[], 100);
    assert_eq!(words(&plan), expected);
    plan
}

/// The ReplicaSet of the present template (image v2), settled at revision 2.
fn new_set(replicas: i32, available: i32) -> Builder<ReplicaSet> {
    replica_set("new", replicas).image("v2").created(10).revision(2).sized(4, 5).available(available)
}

/// One of an older template, at revision 1.
fn old_set(replicas: i32, available: i32) -> Builder<ReplicaSet> {
    replica_set("old", replicas).image("v1").revision(1).sized(4, 5).available(available)
}

fn v2() -> Builder<Deployment> {
    deployment(4).image("v2").annotation(revision::REVISION, "2")
}

fn recreate_strategy(mut deployment: Builder<Deployment>) -> Builder<Deployment> {
    let strategy = DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None };
    deployment.0.spec.as_mut().unwrap().strategy = Some(strategy);
    deployment
}

fn progressing(plan: &Plan) -> (String, String, String) {
    let status = plan.status.as_ref().expect("a status is written");
    let condition = status::find(status.conditions.as_deref().unwrap(), PROGRESSING).expect("Progressing");
    (condition.status.clone(), condition.reason.clone().unwrap(), condition.message.clone().unwrap())
}

fn with_progressing(mut d: Builder<Deployment>, reason: &str, updated: i64) -> Builder<Deployment> {
    let condition = DeploymentCondition {
        type_: PROGRESSING.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        last_update_time: Some(time(updated)),
        last_transition_time: Some(time(updated)),
        ..Default::default()
    };
    d.0.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
    d
}

#[test]
fn the_first_replica_set_is_created_at_full_size_with_hash_revision_and_owner() {
    let plan = check(deployment(3), vec![], &["create 3"]);
    let set = plan.create.as_ref().unwrap();
    let hash = set.label(HASH_LABEL).expect("the label").to_owned();
    assert_eq!(set.name(), format!("web-{hash}"));
    assert_eq!(set.annotation(revision::REVISION), Some("1"));
    assert_eq!(set.annotation(revision::DESIRED_REPLICAS), Some("3"));
    assert_eq!(set.annotation(revision::MAX_REPLICAS), Some("4"));
    assert!(set.is_controlled_by("uid-web"));
    let spec = set.spec.as_ref().unwrap();
    assert_eq!(spec.selector.match_labels.as_ref().unwrap()[HASH_LABEL], hash);
    assert_eq!(plan.revision.as_deref(), Some("1"));
    assert_eq!(progressing(&plan).1, "NewReplicaSetCreated");
}

#[test]
fn a_new_template_starts_within_the_surge() {
    check(v2(), vec![old_set(4, 4)], &["create 1"]);
}

#[test]
fn a_rolling_update_grows_the_new_and_then_shrinks_the_old() {
    check(v2(), vec![old_set(4, 4), new_set(1, 0)], &["old 4→3"]);
    check(v2(), vec![old_set(3, 3), new_set(1, 0)], &["new 1→2"]);
    check(v2(), vec![old_set(3, 3), new_set(2, 0)], NONE);
    check(v2(), vec![old_set(3, 3), new_set(2, 1)], &["old 3→2"]);
    check(v2(), vec![old_set(0, 0), new_set(4, 4)], NONE);
}

#[test]
fn old_pods_that_are_not_available_go_first() {
    let other = replica_set("older", 2).image("v0").sized(4, 5).available(0);
    check(v2(), vec![old_set(2, 2), other, new_set(1, 1)], &["older 2→0"]);
}

#[test]
fn available_pods_are_never_fewer_than_promised() {
    check(v2(), vec![old_set(3, 2), new_set(2, 0)], NONE);
}

#[test]
fn a_rollback_reuses_the_old_set_under_a_new_revision() {
    let d = deployment(4).image("v1").annotation(revision::REVISION, "2");
    let plan = check(d, vec![old_set(0, 0), new_set(4, 4)], &["old 0→1"]);
    assert_eq!(plan.update[0].set.annotation(revision::REVISION), Some("3"));
    assert_eq!(plan.update[0].set.annotation(revision::REVISION_HISTORY), Some("1"));
    assert_eq!(plan.revision.as_deref(), Some("3"));
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let d = || recreate_strategy(v2());
    check(d(), vec![old_set(4, 4)], &["old 4→0"]);
    let draining = {
        let mut set = old_set(0, 0);
        set.0.status.as_mut().unwrap().replicas = 2;
        set
    };
    check(d(), vec![draining], NONE);
    let ended = [old_set(0, 0).arc()];
    assert!(words(&run(&d().build(), &ended, &["uid-old"], 100)).is_empty(), "its pods still terminate");
    assert_eq!(words(&run(&d().build(), &ended, &[], 100)), ["create 4"]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let paused = || {
        let mut d = v2();
        d.0.spec.as_mut().unwrap().paused = Some(true);
        d
    };
    let plan = check(paused(), vec![old_set(4, 4)], NONE);
    assert_eq!(
        progressing(&plan),
        ("Unknown".into(), "DeploymentPaused".into(), "Deployment is paused".into())
    );
    let mut larger = paused();
    larger.0.spec.as_mut().unwrap().replicas = Some(6);
    check(larger, vec![old_set(4, 4)], &["old 4→6"]);
    let mut resumed = with_progressing(v2(), "DeploymentPaused", 50);
    let status = resumed.0.status.as_mut().unwrap();
    (status.replicas, status.updated_replicas) = (Some(5), Some(3));
    (status.ready_replicas, status.available_replicas) = (Some(3), Some(3));
    let plan = check(resumed, vec![old_set(2, 2), new_set(3, 1)], NONE);
    assert_eq!(progressing(&plan).1, "DeploymentResumed");
}

#[test]
fn the_deadline_is_awaited_and_then_noticed() {
    let d = with_progressing(v2(), "ReplicaSetUpdated", 0);
    let mut d = d.build();
    let sets = [old_set(3, 3).arc(), new_set(2, 0).arc()];
    let plan = run(&d, &sets, &[], 100);
    d.status = plan.status;
    assert_eq!(plan.requeue_after, Some(Duration::from_secs(601)), "progress restarts the deadline");
    let plan = run(&d, &sets, &[], 400);
    assert_eq!((plan.requeue_after, &plan.status), (Some(Duration::from_secs(301)), &None));
    let plan = run(&d, &sets, &[], 701);
    let expected = ("False", "ProgressDeadlineExceeded", "ReplicaSet \"new\" has timed out progressing.");
    let found = progressing(&plan);
    assert_eq!((&*found.0, &*found.1, &*found.2), expected);
    d.status = plan.status;
    let plan = run(&d, &sets, &[], 800);
    assert_eq!((plan.requeue_after, plan.status), (None, None));
}

#[test]
fn a_complete_rollout_says_so_and_cleans_up_its_history() {
    let mut d = with_progressing(v2(), "ReplicaSetUpdated", 0).build();
    d.spec.as_mut().unwrap().revision_history_limit = Some(1);
    let mut sets = vec![new_set(4, 4).arc()];
    for revision in [-1, 0, 1] {
        sets.push(replica_set(&format!("r{revision}"), 0).image("x").revision(revision).arc());
    }
    let plan = run(&d, &sets, &[], 100);
    let expected = ("True", "NewReplicaSetAvailable", "ReplicaSet \"new\" has successfully progressed.");
    let found = progressing(&plan);
    assert_eq!((&*found.0, &*found.1, &*found.2), expected);
    let status = plan.status.clone().unwrap();
    assert_eq!(status.available_replicas, Some(4));
    assert_eq!((status.unavailable_replicas, status.terminating_replicas), (None, Some(0)));
    assert!(api::conditions::is_true(&status.conditions, "Available"));
    d.status = plan.status;
    let plan = run(&d, &sets, &[], 101);
    assert_eq!(words(&plan), ["delete r-1", "delete r0"]);
    assert_eq!((plan.status, plan.requeue_after), (None, None), "a settled Deployment is left alone");
}

#[test]
fn a_change_of_min_ready_seconds_reaches_the_set_without_a_new_revision() {
    let mut d = v2();
    d.0.spec.as_mut().unwrap().min_ready_seconds = Some(7);
    let plan = check(d, vec![new_set(4, 4)], &["annotate new"]);
    assert_eq!(plan.update[0].set.spec.as_ref().unwrap().min_ready_seconds, Some(7));
    assert_eq!(plan.update[0].set.annotation(revision::REVISION), Some("2"));
}

#[test]
fn trouble_of_a_replica_set_is_shown() {
    let mut set = new_set(4, 0);
    let failure = ReplicaSetCondition {
        type_: "ReplicaFailure".into(),
        status: "True".into(),
        reason: Some("FailedCreate".into()),
        ..Default::default()
    };
    set.0.status.as_mut().unwrap().conditions = Some(vec![failure]);
    let plan = check(v2(), vec![set], NONE);
    let conditions = plan.status.unwrap().conditions;
    assert!(api::conditions::is_true(&conditions, "ReplicaFailure"));
}

#[test]
fn a_deployment_that_is_deleted_only_reports() {
    let plan = check(v2().deleting(), vec![old_set(4, 4)], NONE);
    assert!(plan.status.is_some() && plan.revision.is_none());
}

/// Plays a rollout to its end with pods that become available in any order.
mod rollout {
    use super::*;
    use proptest::prelude::*;

    fn available(set: &ReplicaSet) -> i32 {
        set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
    }

    /// What a ReplicaSet's controller would report, with up to `ready` more pods available.
    fn report(set: &ReplicaSet, ready: i32) -> Arc<ReplicaSet> {
        let mut set = set.clone();
        let replicas = set.spec.as_ref().unwrap().replicas.unwrap();
        let status = set.status.get_or_insert_default();
        let available = (status.available_replicas.unwrap_or(0) + ready).min(replicas);
        status.replicas = replicas;
        status.ready_replicas = Some(available);
        status.available_replicas = Some(available);
        status.terminating_replicas = Some(0);
        Arc::new(set)
    }

    proptest! {
        #[test]
        fn ends_and_keeps_its_bounds_at_every_step(
            replicas in 1..12i32,
            surge in 0..4i32,
            unavailable in 0..4i32,
            steps in proptest::collection::vec(0..3i32, 400),
        ) {
            use api::openapi::apimachinery::pkg::util::intstr::IntOrString::Int;
            let mut d = deployment(replicas).image("v2").build();
            let spec = d.spec.as_mut().unwrap();
            let update = spec.strategy.as_mut().unwrap().rolling_update.as_mut().unwrap();
            (update.max_surge, update.max_unavailable) = (Some(Int(surge)), Some(Int(unavailable)));
            let posts = rolling::Fenceposts::of(spec);
            let old = replica_set("old", replicas).image("v1").revision(1).available(replicas);
            let mut sets = vec![old.sized(replicas, replicas + posts.surge).arc()];
            for (i, ready) in steps.iter().enumerate() {
                let plan = run(&d, &sets, &[], i as i64);
                if let Some(mut created) = plan.create {
                    created.metadata.uid = Some("uid-new".into());
                    created.metadata.creation_timestamp = Some(time(i as i64));
                    sets.push(Arc::new(created));
                }
                for update in plan.update {
                    let at = sets.iter().position(|s| s.name() == update.set.name()).unwrap();
                    sets[at] = Arc::new(update.set);
                }
                if let Some(status) = plan.status {
                    d.status = Some(status);
                }
                let total: i32 = sets.iter().map(|s| s.spec.as_ref().unwrap().replicas.unwrap()).sum();
                prop_assert!(total <= replicas + posts.surge, "{total} pods at step {i}");
                sets = sets.iter().map(|s| report(s, *ready)).collect();
                let up: i32 = sets.iter().map(|s| available(s)).sum();
                prop_assert!(up >= replicas - posts.unavailable, "{up} available at step {i}");
            }
            let sizes: Vec<_> = sets.iter().map(|s| s.spec.as_ref().unwrap().replicas.unwrap()).collect();
            prop_assert_eq!(sizes, [0, replicas]);
            let done = run(&d, &sets, &[], 1000);
            prop_assert!(words(&done).is_empty());
        }
    }
}
