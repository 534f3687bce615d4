//! A Deployment and its ReplicaSets as a plan works on them: what was observed, and what it shall become.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::meta::MetaExt;
use api::openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentSpec, ReplicaSet, ReplicaSetStatus,
};
use api::openapi::api::core::v1::PodTemplateSpec;
use jiff::Timestamp;

use super::revision;
use super::rolling::Fenceposts;

/// The label by which the pods of one ReplicaSet are told from those of its siblings.
pub const HASH_LABEL: &str = "pod-template-hash";

/// One ReplicaSet.
#[derive(Clone, Debug)]
pub struct Set {
    /// As it was seen, or as it will be created.
    pub observed: Arc<ReplicaSet>,
    /// The size that it shall have.
    pub replicas: i32,
    /// The annotations that it shall have.
    pub annotations: BTreeMap<String, String>,
    /// The `minReadySeconds` that it shall have.
    pub min_ready_seconds: Option<i32>,
}

impl Set {
    /// A ReplicaSet that shall stay as it is.
    pub fn new(observed: Arc<ReplicaSet>) -> Self {
        let spec = observed.spec.as_ref();
        Self {
            replicas: spec.and_then(|s| s.replicas).unwrap_or(1),
            annotations: observed.metadata.annotations.clone().unwrap_or_default(),
            min_ready_seconds: spec.and_then(|s| s.min_ready_seconds),
            observed,
        }
    }

    /// The size that it has.
    pub fn observed_replicas(&self) -> i32 {
        self.observed.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    /// A number of its status; 0 when nothing was reported.
    pub fn status(&self, get: impl Fn(&ReplicaSetStatus) -> i32) -> i32 {
        self.observed.status.as_ref().map_or(0, get)
    }

    /// Pods that exist.
    pub fn existing(&self) -> i32 {
        self.status(|s| s.replicas)
    }

    /// Pods that are available.
    pub fn available(&self) -> i32 {
        self.status(|s| s.available_replicas.unwrap_or(0))
    }

    /// The number in an annotation, if there is one.
    pub fn number(&self, annotation: &str) -> Option<i32> {
        self.annotations.get(annotation)?.parse().ok()
    }

    /// For sorting by age; equally old ones are ordered by name.
    pub fn age(&self) -> (Option<Timestamp>, &str) {
        (self.observed.metadata.creation_timestamp.as_ref().map(|t| t.0), self.observed.name())
    }

    /// The object to write, if it shall differ from what was observed.
    pub fn changed(&self) -> Option<ReplicaSet> {
        let before = Self::new(self.observed.clone());
        let same = before.replicas == self.replicas
            && before.annotations == self.annotations
            && before.min_ready_seconds.unwrap_or(0) == self.min_ready_seconds.unwrap_or(0);
        (!same).then(|| self.applied())
    }

    /// The object as it shall be.
    pub fn applied(&self) -> ReplicaSet {
        let mut set = ReplicaSet::clone(&self.observed);
        set.metadata.annotations = (!self.annotations.is_empty()).then(|| self.annotations.clone());
        let spec = set.spec.get_or_insert_default();
        spec.replicas = Some(self.replicas);
        spec.min_ready_seconds = self.min_ready_seconds;
        set
    }
}

/// Everything that a plan looks at and changes.
pub struct Model<'a> {
    /// The Deployment as observed.
    pub deployment: &'a Deployment,
    /// Its spec.
    pub spec: &'a DeploymentSpec,
    /// The ReplicaSet of the present template: observed, or to be created.
    pub new: Option<Set>,
    /// Whether `new` does not exist yet.
    pub creates: bool,
    /// The other ReplicaSets, oldest first.
    pub old: Vec<Set>,
    /// The conditions, which begin as observed.
    pub conditions: Vec<DeploymentCondition>,
    /// The time at which is planned.
    pub now: Timestamp,
}

impl<'a> Model<'a> {
    /// Sorts the ReplicaSets into the new one and the old ones.
    pub fn new(
        deployment: &'a Deployment,
        spec: &'a DeploymentSpec,
        sets: &[Arc<ReplicaSet>],
        now: Timestamp,
    ) -> Self {
        let mut old: Vec<_> = sets.iter().cloned().map(Set::new).collect();
        old.sort_by(|a, b| a.age().cmp(&b.age()));
        let same_template = |set: &Set| {
            let template = set.observed.spec.as_ref().and_then(|s| s.template.as_ref());
            template.is_some_and(|t| same_but_for_hash(t, &spec.template))
        };
        let new = old.iter().position(same_template).map(|i| old.remove(i));
        let status = deployment.status.as_ref();
        let conditions = status.and_then(|s| s.conditions.clone()).unwrap_or_default();
        Self { deployment, spec, new, creates: false, old, conditions, now }
    }

    /// The size that the Deployment asks for.
    pub fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    /// Whether the strategy is `RollingUpdate`, which is also the default.
    pub fn is_rolling(&self) -> bool {
        strategy(self.spec) != "Recreate"
    }

    /// How far a rolling update may deviate from the size that was asked for.
    pub fn fenceposts(&self) -> Fenceposts {
        Fenceposts::of(self.spec)
    }

    /// All ReplicaSets, the new one last.
    pub fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(self.new.as_ref())
    }

    /// All ReplicaSets, to change.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Set> {
        self.old.iter_mut().chain(self.new.as_mut())
    }

    /// The sum over all ReplicaSets.
    pub fn total(&self, get: impl Fn(&Set) -> i32) -> i32 {
        self.all().map(get).fold(0, i32::saturating_add)
    }

    /// Sets a size, and notes in the annotations the sizes that it follows from.
    pub fn resize(set: &mut Set, replicas: i32, desired: i32, max: i32) {
        set.replicas = replicas;
        revision::note_sizes(set, desired, max);
    }
}

/// `spec.strategy.type`; empty when it is not set.
pub fn strategy(spec: &DeploymentSpec) -> &str {
    spec.strategy.as_ref().and_then(|s| s.type_.as_deref()).unwrap_or_default()
}

/// Whether two templates are the same but for the hash label that the controller adds.
pub fn same_but_for_hash(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    comparable(a) == comparable(b)
}

/// The template without the hash label, and with what is empty left out.
fn comparable(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let meta = template.metadata.get_or_insert_default();
    meta.creation_timestamp = None;
    let labels = meta.labels.get_or_insert_default();
    labels.remove(HASH_LABEL);
    if labels.is_empty() {
        meta.labels = None;
    }
    if meta.annotations.as_ref().is_some_and(BTreeMap::is_empty) {
        meta.annotations = None;
    }
    template
}
