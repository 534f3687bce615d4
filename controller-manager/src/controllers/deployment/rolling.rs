//! The strategy RollingUpdate: how many pods may be added and taken away at each step.

use api::openapi::api::apps::v1::DeploymentSpec;
use api::openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::model::{Model, strategy};

/// The resolved bounds of a rolling update, in pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fenceposts {
    /// How many pods may exist beyond the desired size.
    pub surge: i32,
    /// How many of the desired pods may be unavailable.
    pub unavailable: i32,
}

impl Fenceposts {
    /// Resolves percentages: the surge is rounded up and the unavailability down. Both may not be
    /// zero, or no step could be taken: then one pod may be unavailable.
    pub fn of(spec: &DeploymentSpec) -> Self {
        if strategy(spec) == "Recreate" {
            return Self { surge: 0, unavailable: 0 };
        }
        let rolling = spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let replicas = spec.replicas.unwrap_or(1);
        let default = IntOrString::String("25%".into());
        let surge = rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&default);
        let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&default);
        let surge = scaled(surge, replicas, true);
        let unavailable = match scaled(unavailable, replicas, false) {
            0 if surge == 0 => 1,
            n => n,
        };
        Self { surge, unavailable: unavailable.min(replicas) }
    }
}

/// An absolute number, or a percentage of `total`. What is neither counts as nothing.
fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    let percent = match value {
        IntOrString::Int(n) => return (*n).max(0),
        IntOrString::String(text) => text.strip_suffix('%').and_then(|n| n.parse::<i64>().ok()).unwrap_or(0),
    };
    let product = percent.max(0).saturating_mul(i64::from(total.max(0)));
    let rounded = if round_up { product.saturating_add(99) / 100 } else { product / 100 };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

/// The size that the new ReplicaSet may grow to now, without exceeding the surge.
pub fn new_replicas(model: &Model<'_>, current: i32) -> i32 {
    let desired = model.replicas();
    if !model.is_rolling() {
        return desired;
    }
    let max_total = desired.saturating_add(model.fenceposts().surge);
    let total = model.total(|s| s.replicas);
    if total >= max_total {
        return current;
    }
    current + (max_total - total).min(desired - current)
}

/// Grows or shrinks the new ReplicaSet. Returns whether it changed, which ends this step.
pub fn scale_new(model: &mut Model<'_>) -> bool {
    let desired = model.replicas();
    let Some(current) = model.new.as_ref().map(|s| s.replicas) else { return false };
    let target = if current > desired { desired } else { new_replicas(model, current) };
    let max = desired.saturating_add(model.fenceposts().surge);
    match &mut model.new {
        Some(new) if target != current => {
            Model::resize(new, target, desired, max);
            true
        }
        _ => false,
    }
}

/// Shrinks the old ReplicaSets, pods that are not available first, and never below what must stay
/// available. Returns whether anything changed.
pub fn scale_old(model: &mut Model<'_>) -> bool {
    if model.old.iter().all(|s| s.replicas == 0) {
        return false;
    }
    let desired = model.replicas();
    let posts = model.fenceposts();
    let min_available = desired - posts.unavailable;
    let new_unavailable = model.new.as_ref().map_or(0, |s| s.replicas - s.available());
    let budget = model.total(|s| s.replicas) - min_available - new_unavailable;
    if budget <= 0 {
        return false;
    }
    let available = model.total(|s| s.available());
    let max = desired.saturating_add(posts.surge);

    let mut cleaned = 0;
    for set in model.old.iter_mut().filter(|s| s.replicas > 0) {
        let unhealthy = (set.replicas - set.available()).max(0);
        let less = unhealthy.min(budget - cleaned);
        if less > 0 {
            cleaned += less;
            Model::resize(set, set.replicas - less, desired, max);
        }
    }

    let mut removed = 0;
    let removable = (available - min_available).max(0);
    for set in model.old.iter_mut().filter(|s| s.replicas > 0) {
        let less = set.replicas.min(removable - removed);
        if less > 0 {
            removed += less;
            Model::resize(set, set.replicas - less, desired, max);
        }
    }
    cleaned + removed > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::deployment;

    fn value(text: &str) -> IntOrString {
        text.parse().map_or_else(|_| IntOrString::String(text.into()), IntOrString::Int)
    }

    #[track_caller]
    fn check(replicas: i32, surge: &str, unavailable: &str, expected: (i32, i32)) {
        let mut spec = deployment(replicas).build().spec.unwrap();
        let rolling = spec.strategy.as_mut().unwrap().rolling_update.as_mut().unwrap();
        rolling.max_surge = Some(value(surge));
        rolling.max_unavailable = Some(value(unavailable));
        let posts = Fenceposts::of(&spec);
        assert_eq!((posts.surge, posts.unavailable), expected, "{replicas} {surge} {unavailable}");
    }

    #[test]
    fn surge_rounds_up_and_unavailability_down_and_both_are_never_zero() {
        check(10, "25%", "25%", (3, 2));
        check(3, "25%", "25%", (1, 0));
        check(1, "25%", "25%", (1, 0));
        check(4, "0", "25%", (0, 1));
        check(3, "0", "25%", (0, 1));
        check(3, "0%", "0%", (0, 1));
        check(3, "5", "7", (5, 3));
        check(0, "25%", "25%", (0, 0));
        check(3, "200%", "100%", (6, 3));
        check(3, "nonsense", "1", (0, 1));
    }
}
