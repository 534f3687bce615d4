//! The rules of ReplicaSets.

use api::openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::selector;
use crate::registry::core::pod::{defaults, spec::replicated_template};
use crate::registry::fields::not_negative;
use crate::registry::printing::{self, age};
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of ReplicaSets.
pub struct ReplicaSetStrategy;

impl Strategy for ReplicaSetStrategy {
    type K = ReplicaSet;

    fn default(&self, set: &mut ReplicaSet) {
        let spec = set.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        if let Some(template) = &mut spec.template {
            defaults::template(template.spec.get_or_insert_default());
        }
    }

    fn prepare_for_create(&self, set: &mut ReplicaSet) {
        set.status = Some(ReplicaSetStatus::default());
    }

    fn prepare_for_update(&self, new: &mut ReplicaSet, old: &ReplicaSet) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(&self, new: &mut ReplicaSet, old: &ReplicaSet) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, set: &ReplicaSet) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = set.spec.clone().unwrap_or_default();
        not_negative(&mut errors, "spec.replicas", spec.replicas);
        not_negative(&mut errors, "spec.minReadySeconds", spec.min_ready_seconds);
        selector::matches_template(&mut errors, &spec.selector, spec.template.as_ref());
        if let Some(template) = &spec.template {
            replicated_template(&mut errors, "spec.template", template);
        }
        errors
    }

    fn validate_update(&self, new: &ReplicaSet, old: &ReplicaSet) -> Vec<FieldError> {
        let selector = |set: &ReplicaSet| set.spec.clone().unwrap_or_default().selector;
        let mut errors = Vec::new();
        selector::unchanged(&mut errors, &selector(new), &selector(old));
        errors
    }

    fn validate_status_update(&self, new: &ReplicaSet, _old: &ReplicaSet) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let status = new.status.clone().unwrap_or_default();
        let counts = [
            ("fullyLabeledReplicas", status.fully_labeled_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
        ];
        not_negative(&mut errors, "status.replicas", Some(status.replicas));
        for (name, count) in counts {
            let field = format!("status.{name}");
            not_negative(&mut errors, &field, count);
            let detail = "cannot be greater than status.replicas";
            selector::not_more(&mut errors, &field, count, status.replicas, detail);
        }
        let ready = status.ready_replicas.unwrap_or(0);
        let detail = "cannot be greater than readyReplicas";
        selector::not_more(&mut errors, "status.availableReplicas", status.available_replicas, ready, detail);
        errors
    }

    fn selectable_fields(&self, set: &ReplicaSet) -> Vec<(&'static str, String)> {
        vec![("status.replicas", set.status.as_ref().map_or(0, |s| s.replicas).to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::integer("Desired", "The number of pods that are wanted."),
            Column::integer("Current", "The number of pods that exist."),
            Column::integer("Ready", "The number of pods that are ready."),
            AGE,
            Column::string("Containers", "Names of each container in the template.").wide(),
            Column::string("Images", "Images referenced by each container in the template.").wide(),
            Column::string("Selector", "The label selector of the pods.").wide(),
        ];
        COLUMNS
    }

    fn row(&self, set: &ReplicaSet, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (set.spec.clone().unwrap_or_default(), set.status.clone().unwrap_or_default());
        let (names, images) = spec.template.as_ref().map(printing::containers).unwrap_or_default();
        vec![
            json!(set.metadata.name),
            json!(spec.replicas.unwrap_or(0)),
            json!(status.replicas),
            json!(status.ready_replicas.unwrap_or(0)),
            json!(age(set.metadata.creation_timestamp.as_ref(), now)),
            json!(names),
            json!(images),
            json!(printing::selector(&spec.selector)),
        ]
    }
}

#[cfg(test)]
mod tests;
