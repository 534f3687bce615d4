//! What a PodDisruptionBudget's status should say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::meta::MetaExt;
use api::openapi::api::core::v1::Pod;
use api::openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use api::openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use api::openapi::apimachinery::pkg::util::intstr::IntOrString;
use jiff::Timestamp;

use crate::pods::{is_ready, is_terminal, later, until};

/// How long an evicted pod may take until its deletion is seen. After that it counts again.
pub const DELETION_TIMEOUT: Duration = Duration::from_secs(2 * 60);
/// How long a pod may be called the target of a disruption without being deleted.
pub const STALE_DISRUPTION: Duration = Duration::from_secs(2 * 60);
/// The only condition of a budget.
pub const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";
/// The condition of a pod that somebody is about to delete.
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// The controllers that own a budget's pods, whose replicas are what is expected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// Replicas by the uid of the topmost controller: of a Deployment rather than of its ReplicaSets.
    pub replicas: BTreeMap<String, i32>,
    /// Pods without any controller.
    pub unmanaged: usize,
}

impl Owners {
    fn expected(&self) -> i32 {
        self.replicas.values().fold(0, |sum, n| sum.saturating_add(*n))
    }
}

/// Whether the budget is a part of what its pods' controllers ask for, rather than a number of pods.
pub fn is_relative(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// What should be written and told about a budget.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// The status.
    pub status: PodDisruptionBudgetStatus,
    /// Pods whose eviction was granted and which are still there, long after.
    pub not_deleted: Vec<Arc<Pod>>,
    /// When to look again though nothing changes.
    pub recheck: Option<Duration>,
}

/// Decides about a budget that selects `pods`. `owners` matters to a relative budget alone.
pub fn plan(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], owners: &Owners, now: Timestamp) -> Plan {
    let (expected, desired) = expectations(budget, pods.len(), owners);
    let granted = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
    let (mut disrupted, mut not_deleted) = (BTreeMap::new(), Vec::new());
    for pod in pods.iter().filter(|pod| !pod.is_deleting()) {
        let Some(time) = granted.and_then(|granted| granted.get(pod.name())) else { continue };
        if later(time.0, DELETION_TIMEOUT) < now {
            not_deleted.push(pod.clone());
        } else {
            disrupted.insert(pod.name().to_owned(), time.clone());
        }
    }
    let counts = |pod: &&Arc<Pod>| !pod.is_deleting() && !disrupted.contains_key(pod.name()) && is_ready(pod);
    let healthy = i32::try_from(pods.iter().filter(counts).count()).unwrap_or(i32::MAX);
    let allowed = if expected > 0 { healthy.saturating_sub(desired).max(0) } else { 0 };
    let recheck = disrupted.values().map(|time| later(time.0, DELETION_TIMEOUT)).min();
    let reason = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let status = PodDisruptionBudgetStatus {
        current_healthy: healthy,
        desired_healthy: desired,
        expected_pods: expected,
        disruptions_allowed: allowed,
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: conditions(budget, reason, "", now),
    };
    // A moment later than the last one at which it still counts.
    let recheck = recheck.map(|at| until(now, at) + Duration::from_secs(1));
    Plan { status, not_deleted, recheck }
}

/// The status of a budget that cannot be computed: nothing may be disrupted until it can be.
pub fn failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = 0;
    status.observed_generation = budget.metadata.generation;
    status.conditions = conditions(budget, ("False", "SyncFailed"), why, now);
    status
}

/// How many pods there should be, and how many of them must be healthy.
fn expectations(budget: &PodDisruptionBudget, present: usize, owners: &Owners) -> (i32, i32) {
    let Some(spec) = &budget.spec else { return (0, 0) };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let expected = owners.expected();
            (expected, expected.saturating_sub(scaled(most, expected)).max(0))
        }
        (None, Some(IntOrString::Int(count))) => (i32::try_from(present).unwrap_or(i32::MAX), *count),
        (None, Some(percent)) => (owners.expected(), scaled(percent, owners.expected())),
        (None, None) => (0, 0),
    }
}

/// A number, or a percentage of `total` rounded up. What is neither was refused when it was written.
fn scaled(value: &IntOrString, total: i32) -> i32 {
    match value {
        IntOrString::Int(count) => *count,
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|n| n.parse::<i64>().ok()).unwrap_or(0);
            let product = percent.saturating_mul(i64::from(total)).saturating_add(99);
            i32::try_from(product / 100).unwrap_or(i32::MAX)
        }
    }
}

fn conditions(
    budget: &PodDisruptionBudget,
    (status, reason): (&str, &str),
    message: &str,
    now: Timestamp,
) -> Option<Vec<Condition>> {
    let mut all = budget.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let present = all.iter().find(|c| c.type_ == DISRUPTION_ALLOWED && c.status == status);
    // In whole seconds, as it is stored: else every status would differ from the stored one.
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let condition = Condition {
        type_: DISRUPTION_ALLOWED.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: budget.metadata.generation,
        last_transition_time: present.map_or(now, |c| c.last_transition_time.clone()),
    };
    match all.iter_mut().find(|c| c.type_ == DISRUPTION_ALLOWED) {
        Some(own) => *own = condition,
        None => all.push(condition),
    }
    Some(all)
}

/// When a pod that was called the target of a disruption, and was not deleted, is told otherwise; nothing for
/// others.
pub fn stale_at(pod: &Pod) -> Option<Timestamp> {
    if pod.is_deleting() || is_terminal(pod) {
        return None;
    }
    let condition = api::conditions::find(&pod.status.as_ref()?.conditions, DISRUPTION_TARGET)?;
    let since = condition.last_transition_time.as_ref()?.0;
    (condition.status == "True").then(|| later(since, STALE_DISRUPTION))
}

#[cfg(test)]
mod tests;
