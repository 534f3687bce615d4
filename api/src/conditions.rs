//! Conditions: the status lists of `type`, `status`, `reason`, `message` and their times.

use k8s_openapi::api::apps::v1::{DeploymentCondition, ReplicaSetCondition};
use k8s_openapi::api::core::v1::{NamespaceCondition, NodeCondition, PodCondition};

/// What all condition types have in common.
pub trait ConditionLike {
    /// The `type` field.
    fn type_(&self) -> &str;
    /// `True`, `False` or `Unknown`.
    fn status(&self) -> &str;
}

macro_rules! condition_like {
    ($($t:ty),*) => {$(
        impl ConditionLike for $t {
            fn type_(&self) -> &str { &self.type_ }
            fn status(&self) -> &str { &self.status }
        }
    )*};
}

condition_like!(DeploymentCondition, ReplicaSetCondition, NamespaceCondition, NodeCondition, PodCondition);

/// The condition of a type.
pub fn find<'a, C: ConditionLike>(conditions: &'a Option<Vec<C>>, type_: &str) -> Option<&'a C> {
    conditions.as_ref()?.iter().find(|c| c.type_() == type_)
}

/// Whether the condition of a type is `True`.
pub fn is_true<C: ConditionLike>(conditions: &Option<Vec<C>>, type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| c.status() == "True")
}

/// Replaces the condition of the same type, or appends it.
pub fn set<C: ConditionLike>(conditions: &mut Option<Vec<C>>, condition: C) {
    let list = conditions.get_or_insert_default();
    match list.iter_mut().find(|c| c.type_() == condition.type_()) {
        Some(present) => *present = condition,
        None => list.push(condition),
    }
}
