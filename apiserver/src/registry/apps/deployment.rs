//! The rules of Deployments.

use api::openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, RollingUpdateDeployment};
use api::openapi::apimachinery::pkg::util::intstr::IntOrString;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::selector;
use crate::registry::core::pod::{defaults, spec::replicated_template};
use crate::registry::fields::{Errors, count_or_percent, not_negative, one_of, percent, shown};
use crate::registry::printing::{self, age};
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of Deployments.
pub struct DeploymentStrategy;

impl Strategy for DeploymentStrategy {
    type K = Deployment;

    fn default(&self, deployment: &mut Deployment) {
        let spec = deployment.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        let strategy = spec.strategy.get_or_insert_default();
        if strategy.type_.get_or_insert_with(|| "RollingUpdate".into()) == "RollingUpdate" {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_surge.get_or_insert_with(|| IntOrString::String("25%".into()));
            rolling.max_unavailable.get_or_insert_with(|| IntOrString::String("25%".into()));
        }
        defaults::template(spec.template.spec.get_or_insert_default());
    }

    fn prepare_for_create(&self, deployment: &mut Deployment) {
        deployment.status = Some(DeploymentStatus::default());
    }

    fn prepare_for_update(&self, new: &mut Deployment, old: &Deployment) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(&self, new: &mut Deployment, old: &Deployment) {
        new.spec.clone_from(&old.spec);
        new.metadata.labels.clone_from(&old.metadata.labels);
    }

    fn validate(&self, deployment: &Deployment) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let empty = DeploymentSpec::default();
        let spec = deployment.spec.as_ref().unwrap_or(&empty);
        not_negative(&mut errors, "spec.replicas", spec.replicas);
        selector::matches_template(&mut errors, &spec.selector, Some(&spec.template));
        replicated_template(&mut errors, "spec.template", &spec.template);
        rollout(&mut errors, spec);
        not_negative(&mut errors, "spec.minReadySeconds", spec.min_ready_seconds);
        not_negative(&mut errors, "spec.revisionHistoryLimit", spec.revision_history_limit);
        deadline(&mut errors, spec);
        errors
    }

    fn validate_update(&self, new: &Deployment, old: &Deployment) -> Vec<FieldError> {
        let selector = |d: &Deployment| d.spec.clone().unwrap_or_default().selector;
        let mut errors = Vec::new();
        selector::unchanged(&mut errors, &selector(new), &selector(old));
        errors
    }

    fn validate_status_update(&self, new: &Deployment, old: &Deployment) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (new, old) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
        status(&mut errors, &new);
        if new.collision_count.unwrap_or(0) < old.collision_count.unwrap_or(0) {
            let value = new.collision_count.unwrap_or(0);
            errors.push(FieldError::invalid("status.collisionCount", value, "cannot be decremented"));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Ready", "Number of the pod with ready state"),
            Column::integer("Up-to-date", "The number of pods that have the wanted template."),
            Column::integer("Available", "The number of pods that have been ready for minReadySeconds."),
            AGE,
            Column::string("Containers", "Names of each container in the template.").wide(),
            Column::string("Images", "Images referenced by each container in the template.").wide(),
            Column::string("Selector", "The label selector of the pods.").wide(),
        ];
        COLUMNS
    }

    fn row(&self, deployment: &Deployment, now: Timestamp) -> Vec<Value> {
        let spec = deployment.spec.clone().unwrap_or_default();
        let status = deployment.status.clone().unwrap_or_default();
        let (names, images) = printing::containers(&spec.template);
        let ready = format!("{}/{}", status.ready_replicas.unwrap_or(0), spec.replicas.unwrap_or(0));
        vec![
            json!(deployment.metadata.name),
            json!(ready),
            json!(status.updated_replicas.unwrap_or(0)),
            json!(status.available_replicas.unwrap_or(0)),
            json!(age(deployment.metadata.creation_timestamp.as_ref(), now)),
            json!(names),
            json!(images),
            json!(printing::selector(&spec.selector)),
        ]
    }
}

fn rollout(errors: &mut Errors, spec: &DeploymentSpec) {
    let strategy = spec.strategy.clone().unwrap_or_default();
    let type_ = strategy.type_.as_deref();
    one_of(errors, "spec.strategy.type", type_, &["Recreate", "RollingUpdate"]);
    match (type_, &strategy.rolling_update) {
        (Some("Recreate"), Some(_)) => errors.push(FieldError::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        )),
        (Some("RollingUpdate"), Some(rolling)) => rolling_update(errors, rolling),
        _ => {}
    }
}

fn rolling_update(errors: &mut Errors, rolling: &RollingUpdateDeployment) {
    let nothing = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&nothing);
    let surge = rolling.max_surge.as_ref().unwrap_or(&nothing);
    const FIELD: &str = "spec.strategy.rollingUpdate.maxUnavailable";
    count_or_percent(errors, FIELD, unavailable);
    count_or_percent(errors, "spec.strategy.rollingUpdate.maxSurge", surge);
    let number = |value: &IntOrString| match value {
        IntOrString::Int(count) => Some(*count),
        IntOrString::String(text) => percent(text),
    };
    if number(unavailable) == Some(0) && number(surge) == Some(0) {
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(FIELD, shown(unavailable), detail));
    }
    if matches!(unavailable, IntOrString::String(text) if percent(text) > Some(100)) {
        errors.push(FieldError::invalid(FIELD, shown(unavailable), "must not be greater than 100%"));
    }
}

fn deadline(errors: &mut Errors, spec: &DeploymentSpec) {
    const FIELD: &str = "spec.progressDeadlineSeconds";
    not_negative(errors, FIELD, spec.progress_deadline_seconds);
    if let Some(deadline) = spec.progress_deadline_seconds
        && deadline <= spec.min_ready_seconds.unwrap_or(0)
    {
        errors.push(FieldError::invalid(FIELD, deadline, "must be greater than minReadySeconds"));
    }
}

fn status(errors: &mut Errors, status: &DeploymentStatus) {
    let counts = [
        ("replicas", status.replicas),
        ("updatedReplicas", status.updated_replicas),
        ("readyReplicas", status.ready_replicas),
        ("availableReplicas", status.available_replicas),
        ("unavailableReplicas", status.unavailable_replicas),
        ("terminatingReplicas", status.terminating_replicas),
    ];
    for (name, count) in counts {
        not_negative(errors, &format!("status.{name}"), count);
    }
    not_negative(errors, "status.observedGeneration", status.observed_generation);
    let all = status.replicas.unwrap_or(0);
    for (name, count) in [counts[1], counts[2], counts[3]] {
        selector::not_more(
            errors,
            &format!("status.{name}"),
            count,
            all,
            "cannot be greater than status.replicas",
        );
    }
    let ready = status.ready_replicas.unwrap_or(0);
    let detail = "cannot be greater than readyReplicas";
    selector::not_more(errors, "status.availableReplicas", status.available_replicas, ready, detail);
}

#[cfg(test)]
mod tests;
