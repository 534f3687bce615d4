//! A Deployment's status: counts, and the conditions Available, Progressing and ReplicaFailure.

use std::time::Duration;

use api::meta::MetaExt;
use api::openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus};
use api::openapi::apimachinery::pkg::apis::meta::v1::Time;
use jiff::Timestamp;

use super::model::{Model, Set};
use crate::pods::{later, until};

/// The condition that follows a rollout.
pub const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";

/// A condition of now.
pub fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    DeploymentCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// The condition of a type.
pub fn find<'c>(conditions: &'c [DeploymentCondition], type_: &str) -> Option<&'c DeploymentCondition> {
    conditions.iter().find(|c| c.type_ == type_)
}

fn reason(condition: &DeploymentCondition) -> &str {
    condition.reason.as_deref().unwrap_or_default()
}

/// Sets a condition, unless one of the same status and reason stands already. The transition time
/// is kept when the status is the same.
pub fn set(conditions: &mut Vec<DeploymentCondition>, mut condition: DeploymentCondition) {
    if let Some(present) = find(conditions, &condition.type_) {
        if present.status == condition.status && present.reason == condition.reason {
            return;
        }
        if present.status == condition.status {
            condition.last_transition_time = present.last_transition_time.clone();
        }
    }
    conditions.retain(|c| c.type_ != condition.type_);
    conditions.push(condition);
}

/// The time that a rollout may take without progress, if it is limited.
pub fn progress_deadline(spec: &DeploymentSpec) -> Option<Duration> {
    let seconds = spec.progress_deadline_seconds.filter(|s| *s != i32::MAX)?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Notes in the conditions that a rollout was paused or resumed, so that the time in between does
/// not count against its deadline. A rollout that has failed already stays so.
pub fn note_pause(model: &mut Model<'_>) {
    if progress_deadline(model.spec).is_none() {
        return;
    }
    let present = find(&model.conditions, PROGRESSING).map(reason).unwrap_or_default();
    let paused = model.spec.paused == Some(true);
    let (reason, message) = match (paused, present) {
        (_, TIMED_OUT) => return,
        (true, "DeploymentPaused") => return,
        (true, _) => ("DeploymentPaused", "Deployment is paused"),
        (false, "DeploymentPaused") => ("DeploymentResumed", "Deployment is resumed"),
        (false, _) => return,
    };
    set(&mut model.conditions, condition(PROGRESSING, "Unknown", reason, message.into(), model.now));
}

/// Counts what the ReplicaSets report, and tells whether the Deployment is available.
pub fn compute(model: &Model<'_>) -> DeploymentStatus {
    // A ReplicaSet that is to be created has no status, and counts for nothing yet.
    let total = model.total(Set::existing);
    let available = model.total(Set::available);
    let terminating = model.all().map(|s| terminating(s, model)).sum::<Option<i32>>();
    let mut conditions = model.conditions.clone();
    let (status, reason, message) = if available >= model.replicas() - model.fenceposts().unavailable {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut conditions, condition(AVAILABLE, status, reason, message.into(), model.now));
    DeploymentStatus {
        observed_generation: model.deployment.metadata.generation,
        replicas: some(total),
        updated_replicas: some(model.new.as_ref().map_or(0, Set::existing)),
        ready_replicas: some(model.total(|s| s.status(|s| s.ready_replicas.unwrap_or(0)))),
        available_replicas: some(available),
        unavailable_replicas: some((total - available).max(0)),
        terminating_replicas: terminating,
        collision_count: model.deployment.status.as_ref().and_then(|s| s.collision_count),
        conditions: Some(conditions),
    }
}

/// Pods of a ReplicaSet that are on their way out; unknown until its controller has told.
fn terminating(set: &Set, model: &Model<'_>) -> Option<i32> {
    let is_new = model.new.as_ref().is_some_and(|n| std::sync::Arc::ptr_eq(&n.observed, &set.observed));
    if model.creates && is_new {
        return Some(0);
    }
    set.observed.status.as_ref()?.terminating_replicas
}

/// Counts of zero are left out, as upstream leaves them out.
fn some(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

/// The status of a rollout: [`compute`], and how it progresses.
pub fn rollout(model: &Model<'_>) -> DeploymentStatus {
    let mut status = compute(model);
    let mut conditions = status.conditions.take().unwrap_or_default();
    if progress_deadline(model.spec).is_none() {
        conditions.retain(|c| c.type_ != PROGRESSING);
    } else {
        progress(model, &status, &mut conditions);
    }
    match replica_failure(model) {
        Some(failure) => set(&mut conditions, failure),
        None => conditions.retain(|c| c.type_ != REPLICA_FAILURE),
    }
    status.conditions = Some(conditions);
    status
}

fn progress(model: &Model<'_>, status: &DeploymentStatus, conditions: &mut Vec<DeploymentCondition>) {
    let current = find(&model.conditions, PROGRESSING).cloned();
    let settled = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|c| reason(c) == NEW_SET_AVAILABLE);
    if settled {
        return;
    }
    let subject = match &model.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.observed.name()),
        None => format!("Deployment \"{}\"", model.deployment.name()),
    };
    if is_complete(model.deployment, model.spec, status) {
        let message = format!("{subject} has successfully progressed.");
        set(conditions, condition(PROGRESSING, "True", NEW_SET_AVAILABLE, message, model.now));
    } else if has_progressed(model.deployment, status) {
        let message = format!("{subject} is progressing.");
        let mut next = condition(PROGRESSING, "True", "ReplicaSetUpdated", message, model.now);
        if let Some(current) = current.filter(|c| c.status == "True") {
            next.last_transition_time = current.last_transition_time;
        }
        // Replaced even when status and reason are the same: the update time restarts the deadline.
        conditions.retain(|c| c.type_ != PROGRESSING);
        conditions.push(next);
    } else if has_timed_out(model.spec, conditions, model.now) {
        let message = format!("{subject} has timed out progressing.");
        set(conditions, condition(PROGRESSING, "False", TIMED_OUT, message, model.now));
    }
}

/// Whether all pods are of the present template and available, and no others exist.
pub fn is_complete(deployment: &Deployment, spec: &DeploymentSpec, status: &DeploymentStatus) -> bool {
    let desired = spec.replicas.unwrap_or(1);
    status.updated_replicas.unwrap_or(0) == desired
        && status.replicas.unwrap_or(0) == desired
        && status.available_replicas.unwrap_or(0) == desired
        && status.observed_generation >= deployment.metadata.generation
}

/// Whether the counts are better than those that were last written.
fn has_progressed(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let empty = DeploymentStatus::default();
    let before = deployment.status.as_ref().unwrap_or(&empty);
    let n = |count: Option<i32>| count.unwrap_or(0);
    let old_pods = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(status.updated_replicas) > n(before.updated_replicas)
        || old_pods(status) < old_pods(before)
        || n(status.ready_replicas) > n(before.ready_replicas)
        || n(status.available_replicas) > n(before.available_replicas)
}

fn has_timed_out(spec: &DeploymentSpec, conditions: &[DeploymentCondition], now: Timestamp) -> bool {
    let Some(condition) = find(conditions, PROGRESSING) else { return false };
    match reason(condition) {
        NEW_SET_AVAILABLE => false,
        TIMED_OUT => true,
        _ => deadline(spec, condition).is_some_and(|at| at < now),
    }
}

fn deadline(spec: &DeploymentSpec, condition: &DeploymentCondition) -> Option<Timestamp> {
    Some(later(condition.last_update_time.as_ref()?.0, progress_deadline(spec)?))
}

/// When to look again at a rollout that waits, so that its deadline is noticed.
pub fn deadline_in(model: &Model<'_>, status: &DeploymentStatus) -> Option<Duration> {
    let progressing = find(status.conditions.as_deref().unwrap_or_default(), PROGRESSING)?;
    if is_complete(model.deployment, model.spec, status) || reason(progressing) == TIMED_OUT {
        return None;
    }
    let at = deadline(model.spec, progressing)?;
    // Times are in whole seconds: one more, so that it has surely passed.
    Some(until(model.now, at) + Duration::from_secs(1))
}

/// What keeps a ReplicaSet from making its pods, the new one's trouble first.
fn replica_failure(model: &Model<'_>) -> Option<DeploymentCondition> {
    let sets = model.new.iter().chain(&model.old);
    let failure = sets.filter_map(|set| {
        let conditions = &set.observed.status.as_ref()?.conditions;
        api::conditions::find(conditions, REPLICA_FAILURE)
    });
    failure.into_iter().next().map(|c| DeploymentCondition {
        type_: c.type_.clone(),
        status: c.status.clone(),
        reason: c.reason.clone(),
        message: c.message.clone(),
        last_transition_time: c.last_transition_time.clone(),
        last_update_time: c.last_transition_time.clone(),
    })
}

/// The status after the new ReplicaSet could not be created.
pub fn creation_failed(deployment: &Deployment, message: String, now: Timestamp) -> Option<DeploymentStatus> {
    progress_deadline(deployment.spec.as_ref()?)?;
    let mut status = deployment.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    set(conditions, condition(PROGRESSING, "False", "ReplicaSetCreateError", message, now));
    (Some(&status) != deployment.status.as_ref()).then_some(status)
}
