//! Decides a Deployment's next step from it and its ReplicaSets.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use api::meta::{MetaExt, controller_ref};
use api::openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use api::openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use jiff::Timestamp;

use super::hash::pod_template_hash;
use super::model::{HASH_LABEL, Model, Set};
use super::status::{self, PROGRESSING};
use super::{revision, rolling, scale};

/// What a plan is made from.
pub struct Observed<'a> {
    /// The Deployment.
    pub deployment: &'a Deployment,
    /// The ReplicaSets that it manages.
    pub sets: &'a [Arc<ReplicaSet>],
    /// The uids of ReplicaSets that still have pods which may run. Read by the strategy Recreate alone.
    pub running: &'a HashSet<String>,
    /// The current time.
    pub now: Timestamp,
}

/// A ReplicaSet to write.
#[derive(Debug, PartialEq)]
pub struct Update {
    /// The object, at the version that was observed.
    pub set: ReplicaSet,
    /// Its size before.
    pub from: i32,
}

/// What shall be done, in this order.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// The ReplicaSet of the present template, which does not exist yet.
    pub create: Option<ReplicaSet>,
    /// ReplicaSets that change.
    pub update: Vec<Update>,
    /// ReplicaSets that the history does not keep.
    pub delete: Vec<Arc<ReplicaSet>>,
    /// The revision to note on the Deployment.
    pub revision: Option<String>,
    /// The status to write.
    pub status: Option<DeploymentStatus>,
    /// When to look again although nothing has changed.
    pub requeue_after: Option<Duration>,
}

/// Decides the next step.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let Some(spec) = &observed.deployment.spec else { return Plan::default() };
    let mut model = Model::new(observed.deployment, spec, observed.sets, observed.now);
    if observed.deployment.is_deleting() {
        let status = status::compute(&model);
        return finish(&model, Vec::new(), status);
    }
    status::note_pause(&mut model);
    if spec.paused == Some(true) || scale::is_scaling(&model) {
        adopt_template(&mut model, false);
        scale::scale(&mut model);
        let delete = if spec.paused == Some(true) { revision::superfluous(&model) } else { Vec::new() };
        let status = status::compute(&model);
        return finish(&model, delete, status);
    }
    let stepped = if model.is_rolling() { roll(&mut model) } else { recreate(&mut model, observed.running) };
    let status = status::rollout(&model);
    let written = observed.deployment.status.clone().unwrap_or_default();
    let delete = if !stepped && status::is_complete(observed.deployment, spec, &written) {
        revision::superfluous(&model)
    } else {
        Vec::new()
    };
    let waits = status::deadline_in(&model, &status);
    Plan { requeue_after: waits, ..finish(&model, delete, status) }
}

/// RollingUpdate: grow the new ReplicaSet as far as the surge allows, else shrink the old ones as
/// far as availability allows. Returns whether a step was taken.
fn roll(model: &mut Model<'_>) -> bool {
    adopt_template(model, true);
    model.creates || rolling::scale_new(model) || rolling::scale_old(model)
}

/// Recreate: empty the old ReplicaSets, wait until their pods are gone, then fill the new one.
fn recreate(model: &mut Model<'_>, running: &HashSet<String>) -> bool {
    adopt_template(model, false);
    let desired = model.replicas();
    let mut emptied = false;
    for set in model.old.iter_mut().filter(|s| s.replicas > 0) {
        Model::resize(set, 0, desired, desired);
        emptied = true;
    }
    if emptied {
        return true;
    }
    if model.old.iter().any(|s| s.existing() > 0 || running.contains(s.observed.uid())) {
        return true;
    }
    adopt_template(model, true);
    match &mut model.new {
        Some(new) if new.replicas != desired => {
            Model::resize(new, desired, desired, desired);
            true
        }
        _ => model.creates,
    }
}

/// Brings the ReplicaSet of the present template up to date, or has it created.
fn adopt_template(model: &mut Model<'_>, create: bool) {
    let next = revision::next(&model.old);
    let annotations = model.deployment.metadata.annotations.as_ref();
    let named = |set: &Set| format!("\"{}\"", set.observed.name());
    let (reason, message) = match &mut model.new {
        Some(new) => {
            revision::annotate(new, annotations, next, !model.creates);
            new.min_ready_seconds = model.spec.min_ready_seconds;
            ("FoundNewReplicaSet", format!("Found new replica set {}", named(new)))
        }
        None if create => {
            let new = build(model, next);
            let message = format!("Created new replica set {}", named(&new));
            model.new = Some(new);
            model.creates = true;
            ("NewReplicaSetCreated", message)
        }
        None => return,
    };
    let known = status::find(&model.conditions, PROGRESSING).is_some();
    if status::progress_deadline(model.spec).is_some() && (!known || reason == "NewReplicaSetCreated") {
        let condition = status::condition(PROGRESSING, "True", reason, message, model.now);
        status::set(&mut model.conditions, condition);
    }
}

/// The ReplicaSet of the present template, of the size that it may begin with.
fn build(model: &Model<'_>, next_revision: i64) -> Set {
    let deployment = model.deployment;
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
    let hash = pod_template_hash(&model.spec.template, collisions);
    let mut template = model.spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = model.spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
    let metadata = ObjectMeta {
        name: Some(format!("{}-{hash}", deployment.name())),
        namespace: deployment.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: Some(vec![controller_ref(deployment)]),
        ..ObjectMeta::default()
    };
    let spec = ReplicaSetSpec {
        replicas: Some(0),
        min_ready_seconds: model.spec.min_ready_seconds,
        selector,
        template: Some(template),
    };
    let mut set = Set::new(Arc::new(ReplicaSet { metadata, spec: Some(spec), status: None }));
    set.replicas = rolling::new_replicas(model, 0);
    revision::annotate(&mut set, deployment.metadata.annotations.as_ref(), next_revision, false);
    let desired = model.replicas();
    revision::note_sizes(&mut set, desired, desired.saturating_add(model.fenceposts().surge));
    set
}

/// Turns the model into what differs from what was observed.
fn finish(model: &Model<'_>, delete: Vec<Arc<ReplicaSet>>, status: DeploymentStatus) -> Plan {
    let existing = model.old.iter().chain(model.new.as_ref().filter(|_| !model.creates));
    let update =
        existing.filter_map(|s| Some(Update { set: s.changed()?, from: s.observed_replicas() })).collect();
    let noted = model.deployment.annotation(revision::REVISION);
    let revision = model.new.as_ref().and_then(|new| new.annotations.get(revision::REVISION));
    let same = same_status(model.deployment.status.as_ref(), &status);
    Plan {
        create: model.new.as_ref().filter(|_| model.creates).map(Set::applied),
        update,
        delete,
        revision: revision.filter(|r| noted != Some(r.as_str())).cloned(),
        status: (!same).then_some(status),
        requeue_after: None,
    }
}

/// Whether writing the status would change nothing; the order of conditions does not matter.
fn same_status(present: Option<&DeploymentStatus>, next: &DeploymentStatus) -> bool {
    let Some(present) = present else { return false };
    let sorted = |status: &DeploymentStatus| {
        let mut status = status.clone();
        let conditions = status.conditions.get_or_insert_default();
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        for count in [
            &mut status.replicas,
            &mut status.updated_replicas,
            &mut status.ready_replicas,
            &mut status.available_replicas,
            &mut status.unavailable_replicas,
        ] {
            count.get_or_insert(0);
        }
        status
    };
    sorted(present) == sorted(next)
}

#[cfg(test)]
mod tests;
