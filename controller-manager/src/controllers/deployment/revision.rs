//! Revisions: the annotations that number the ReplicaSets of a Deployment, and their clean-up.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::meta::MetaExt;
use api::openapi::api::apps::v1::ReplicaSet;

use super::model::{Model, Set};

/// Numbers the template changes of a Deployment, on it and on its ReplicaSets.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// The revisions that a ReplicaSet had before it was rolled back to.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's size when the ReplicaSet was last scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// That size and the surge: how many pods there might be.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// The longest revision history that is kept, in characters.
const MAX_HISTORY: usize = 2000;

/// Annotations of a Deployment that are its own and not copied to ReplicaSets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// The revision in a map of annotations; 0 when there is none.
pub fn of(annotations: &BTreeMap<String, String>) -> i64 {
    annotations.get(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The revision that the new ReplicaSet shall have: one more than any old one.
pub fn next(old: &[Set]) -> i64 {
    old.iter().map(|s| of(&s.annotations)).max().unwrap_or(0).saturating_add(1)
}

/// Notes the sizes that a ReplicaSet's own follows from.
pub fn note_sizes(set: &mut Set, desired: i32, max: i32) {
    set.annotations.insert(DESIRED_REPLICAS.into(), desired.to_string());
    set.annotations.insert(MAX_REPLICAS.into(), max.to_string());
}

/// Brings the new ReplicaSet's annotations up to date: those of the Deployment (such as the change
/// cause) and the revision, whose former value goes to the history.
pub fn annotate(set: &mut Set, from: Option<&BTreeMap<String, String>>, revision: i64, exists: bool) {
    for (key, value) in from.into_iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            set.annotations.insert(key.clone(), value.clone());
        }
    }
    let former = set.annotations.get(REVISION).cloned();
    if of(&set.annotations) >= revision {
        return;
    }
    set.annotations.insert(REVISION.into(), revision.to_string());
    if let Some(former) = former.filter(|_| exists) {
        let history = set.annotations.get(REVISION_HISTORY).map(String::as_str).unwrap_or_default();
        let history = append(history, &former);
        set.annotations.insert(REVISION_HISTORY.into(), history);
    }
}

/// Appends to a comma-separated history and drops the oldest entries when it becomes too long.
fn append(history: &str, revision: &str) -> String {
    let mut entries: Vec<&str> = history.split(',').filter(|e| !e.is_empty()).collect();
    entries.push(revision);
    let length = |entries: &[&str]| entries.iter().map(|e| e.len() + 1).sum::<usize>() - 1;
    while entries.len() > 1 && length(&entries) > MAX_HISTORY {
        entries.remove(0);
    }
    entries.join(",")
}

/// The old ReplicaSets beyond the Deployment's history limit: the lowest revisions, and only those
/// that have no pods and whose own controller has seen their latest spec.
pub fn superfluous(model: &Model<'_>) -> Vec<Arc<ReplicaSet>> {
    let limit = model.spec.revision_history_limit.unwrap_or(10);
    if limit == i32::MAX {
        return Vec::new();
    }
    let mut candidates: Vec<_> = model.old.iter().filter(|s| !s.observed.is_deleting()).collect();
    candidates.sort_by_key(|s| of(&s.annotations));
    let excess = candidates.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    let settled = |set: &&Set| {
        let observed = set.observed.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
        let current = set.observed.metadata.generation.unwrap_or(0) <= observed;
        current && set.existing() == 0 && set.replicas == 0 && set.observed_replicas() == 0
    };
    candidates.into_iter().take(excess).filter(settled).map(|s| s.observed.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{labels, replica_set};

    #[test]
    fn the_change_cause_is_copied_and_what_belongs_to_the_deployment_is_not() {
        let mut set = Set::new(replica_set("a", 0).arc());
        let from = labels(&[("kubernetes.io/change-cause", "x"), (REVISION, "7"), (NOT_COPIED[0], "{}")]);
        annotate(&mut set, Some(&from), 3, false);
        assert_eq!(set.annotations, labels(&[("kubernetes.io/change-cause", "x"), (REVISION, "3")]));
    }

    #[test]
    fn a_rollback_gives_the_old_set_a_new_revision_and_remembers_the_former() {
        let mut set = Set::new(replica_set("a", 0).revision(1).arc());
        annotate(&mut set, None, 3, true);
        assert_eq!(set.annotations[REVISION], "3");
        assert_eq!(set.annotations[REVISION_HISTORY], "1");
        annotate(&mut set, None, 3, true);
        assert_eq!(set.annotations[REVISION_HISTORY], "1", "nothing changes twice");
        annotate(&mut set, None, 5, true);
        assert_eq!(set.annotations[REVISION_HISTORY], "1,3");
    }

    #[test]
    fn the_history_is_bounded() {
        let mut history = String::new();
        for revision in 0..5000 {
            history = append(&history, &revision.to_string());
        }
        assert!(history.len() <= MAX_HISTORY && history.ends_with(",4998,4999"));
    }
}
