//! The rules of IngressClasses.

use api::openapi::api::networking::v1::IngressClass;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{IMMUTABLE, one_of, required, set};
use crate::registry::printing::age;
use crate::registry::storage::storage_class::is_default;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The annotation of the class that Ingresses without one get.
pub const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

/// The rules of IngressClasses.
pub struct IngressClassStrategy;

impl Strategy for IngressClassStrategy {
    type K = IngressClass;

    fn default(&self, class: &mut IngressClass) {
        if let Some(parameters) = class.spec.as_mut().and_then(|s| s.parameters.as_mut()) {
            parameters.scope.get_or_insert_with(|| "Cluster".into());
        }
    }

    fn validate(&self, class: &IngressClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = class.spec.clone().unwrap_or_default();
        if let Some(controller) = set(spec.controller.as_deref())
            && (controller.len() > 250 || !controller.contains('/'))
        {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid("spec.controller", controller, detail));
        }
        if let Some(of) = &spec.parameters {
            let at = |name: &str| format!("spec.parameters.{name}");
            required(&mut errors, &at("kind"), Some(&of.kind));
            required(&mut errors, &at("name"), Some(&of.name));
            one_of(&mut errors, &at("scope"), of.scope.as_deref(), &["Cluster", "Namespace"]);
            match (of.scope.as_deref(), set(of.namespace.as_deref())) {
                (Some("Namespace"), None) => {
                    let detail = "`parameters.scope` is set to 'Namespace'";
                    errors.push(FieldError::required(at("namespace"), detail));
                }
                (Some("Cluster"), Some(_)) => {
                    let detail = "`parameters.scope` is set to 'Cluster'";
                    errors.push(FieldError::forbidden(at("namespace"), detail));
                }
                _ => {}
            }
        }
        errors
    }

    fn validate_update(&self, new: &IngressClass, old: &IngressClass) -> Vec<FieldError> {
        let of = |class: &IngressClass| class.spec.clone().unwrap_or_default().controller.unwrap_or_default();
        if of(new) == of(old) {
            return Vec::new();
        }
        vec![FieldError::invalid("spec.controller", of(new), IMMUTABLE)]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Controller", "Who serves the class."),
            Column::string("Parameters", "What more the controller is told."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, class: &IngressClass, now: Timestamp) -> Vec<Value> {
        let spec = class.spec.clone().unwrap_or_default();
        let name = class.metadata.name.clone().unwrap_or_default();
        let parameters = spec.parameters.map_or_else(
            || "<none>".into(),
            |p| match set(p.api_group.as_deref()) {
                Some(group) => format!("{}.{group}/{}", p.kind, p.name),
                None => format!("{}/{}", p.kind, p.name),
            },
        );
        vec![
            json!(if is_default(&class.metadata, DEFAULT) { format!("{name} (default)") } else { name }),
            json!(spec.controller.unwrap_or_default()),
            json!(parameters),
            json!(age(class.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}
