//! The rules of PodTemplates.

use api::openapi::api::core::v1::PodTemplate;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::core::pod::{defaults, spec};
use crate::registry::printing;
use crate::registry::strategy::{Column, NAME, Strategy};

/// The rules of PodTemplates.
pub struct PodTemplateStrategy;

impl Strategy for PodTemplateStrategy {
    type K = PodTemplate;

    fn default(&self, template: &mut PodTemplate) {
        defaults::template(template.template.get_or_insert_default().spec.get_or_insert_default());
    }

    fn validate(&self, template: &PodTemplate) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let of = template.template.clone().unwrap_or_default();
        let labels = of.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        errors.extend(api::validation::labels(&labels, "template.labels"));
        spec::validate(&mut errors, "template.spec", &of.spec.unwrap_or_default());
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Containers", "Names of each container in the template."),
            Column::string("Images", "Images referenced by each container in the template."),
            Column::string("Pod Labels", "The labels of the template."),
        ];
        COLUMNS
    }

    fn row(&self, template: &PodTemplate, _now: Timestamp) -> Vec<Value> {
        let of = template.template.clone().unwrap_or_default();
        let (names, images) = printing::containers(&of);
        vec![
            json!(template.metadata.name.as_deref().unwrap_or_default()),
            json!(names),
            json!(images),
            json!(printing::labels(of.metadata.as_ref().and_then(|m| m.labels.as_ref()))),
        ]
    }
}
