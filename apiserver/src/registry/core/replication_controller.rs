//! The rules of ReplicationControllers.

use api::openapi::api::core::v1::{ReplicationController, ReplicationControllerStatus};
use api::selector::Selector;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::core::pod::{defaults, spec::replicated_template};
use crate::registry::fields::not_negative;
use crate::registry::printing::{self, age};
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of ReplicationControllers.
pub struct ReplicationControllerStrategy;

impl Strategy for ReplicationControllerStrategy {
    type K = ReplicationController;

    fn default(&self, controller: &mut ReplicationController) {
        let spec = controller.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let Some(template) = &mut spec.template else { return };
        defaults::template(template.spec.get_or_insert_default());
        let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        if !labels.is_empty() {
            if spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
                spec.selector = Some(labels.clone());
            }
            if controller.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
                controller.metadata.labels = Some(labels);
            }
        }
    }

    fn prepare_for_create(&self, controller: &mut ReplicationController) {
        controller.status = Some(ReplicationControllerStatus::default());
    }

    fn validate(&self, controller: &ReplicationController) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = controller.spec.clone().unwrap_or_default();
        not_negative(&mut errors, "spec.replicas", spec.replicas);
        not_negative(&mut errors, "spec.minReadySeconds", spec.min_ready_seconds);
        let selector = spec.selector.unwrap_or_default();
        if selector.is_empty() {
            errors.push(FieldError::required("spec.selector", ""));
        }
        let Some(template) = &spec.template else {
            errors.push(FieldError::required("spec.template", ""));
            return errors;
        };
        let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        if !Selector::from_map(&selector).matches(&labels) {
            let detail = "`selector` does not match template `labels`";
            errors.push(FieldError::invalid("spec.template.metadata.labels", json!(labels), detail));
        }
        replicated_template(&mut errors, "spec.template", template);
        errors
    }

    fn selectable_fields(&self, controller: &ReplicationController) -> Vec<(&'static str, String)> {
        vec![("status.replicas", controller.status.as_ref().map_or(0, |s| s.replicas).to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::integer("Desired", "The number of pods that are wanted."),
            Column::integer("Current", "The number of pods that there are."),
            Column::integer("Ready", "The number of pods that are ready."),
            AGE,
            Column::string("Containers", "Names of each container in the template.").wide(),
            Column::string("Images", "Images referenced by each container in the template.").wide(),
            Column::string("Selector", "The label selector of the pods.").wide(),
        ];
        COLUMNS
    }

    fn row(&self, controller: &ReplicationController, now: Timestamp) -> Vec<Value> {
        let spec = controller.spec.clone().unwrap_or_default();
        let status = controller.status.clone().unwrap_or_default();
        let (names, images) = printing::containers(&spec.template.unwrap_or_default());
        vec![
            json!(controller.metadata.name.as_deref().unwrap_or_default()),
            json!(spec.replicas.unwrap_or(0)),
            json!(status.replicas),
            json!(status.ready_replicas.unwrap_or(0)),
            json!(age(controller.metadata.creation_timestamp.as_ref(), now)),
            json!(names),
            json!(images),
            json!(printing::labels(spec.selector.as_ref())),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, stored, with};

    #[test]
    fn the_selector_comes_from_the_template() {
        let made = json!({"metadata": {"name": "web"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        let made = stored(&ReplicationControllerStrategy, made);
        assert_eq!(
            (&made["spec"]["selector"], &made["metadata"]["labels"]),
            (&json!({"a": "b"}), &json!({"a": "b"}))
        );
        assert_eq!(made["spec"]["replicas"], 1);
        invalid(
            &ReplicationControllerStrategy,
            with(&made, "/spec/selector", json!({"a": "c"})),
            &[
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ],
        );
    }
}
