//! The rules of RuntimeClasses.

use api::openapi::api::node::v1::RuntimeClass;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{IMMUTABLE, canonicalize, quantity, required_label};
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of RuntimeClasses.
pub struct RuntimeClassStrategy;

impl Strategy for RuntimeClassStrategy {
    type K = RuntimeClass;

    fn default(&self, class: &mut RuntimeClass) {
        if let Some(overhead) = &mut class.overhead {
            canonicalize(&mut overhead.pod_fixed);
        }
        for toleration in class.scheduling.iter_mut().filter_map(|s| s.tolerations.as_mut()).flatten() {
            toleration.operator.get_or_insert_with(|| "Equal".into());
        }
    }

    fn validate(&self, class: &RuntimeClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        required_label(&mut errors, "handler", &class.handler);
        for (name, amount) in class.overhead.iter().filter_map(|o| o.pod_fixed.as_ref()).flatten() {
            quantity(&mut errors, &format!("overhead.podFixed[{name}]"), amount);
        }
        if let Some(labels) = class.scheduling.as_ref().and_then(|s| s.node_selector.as_ref()) {
            errors.extend(api::validation::labels(labels, "scheduling.nodeSelector"));
        }
        errors
    }

    fn validate_update(&self, new: &RuntimeClass, old: &RuntimeClass) -> Vec<FieldError> {
        if new.handler == old.handler {
            return Vec::new();
        }
        vec![FieldError::invalid("handler", new.handler.as_str(), IMMUTABLE)]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME, Column::string("Handler", "What the container runtime calls it."), AGE];
        COLUMNS
    }

    fn row(&self, class: &RuntimeClass, now: Timestamp) -> Vec<Value> {
        vec![
            json!(class.metadata.name.as_deref().unwrap_or_default()),
            json!(class.handler),
            json!(age(class.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}
