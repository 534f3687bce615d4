//! The rules of namespaces.

use api::openapi::api::core::v1::{Namespace, NamespaceStatus};
use api::validation::{FieldError, dns_label, qualified_name};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields;
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The finalizer by which the namespace controller empties a namespace before it goes.
const FINALIZER: &str = "kubernetes";
/// The label that carries every namespace's name, for selectors.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The rules of namespaces.
pub struct NamespaceStrategy;

impl Strategy for NamespaceStrategy {
    type K = Namespace;

    fn default(&self, namespace: &mut Namespace) {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        if !name.is_empty() {
            namespace.metadata.labels.get_or_insert_default().insert(NAME_LABEL.into(), name);
        }
    }

    fn prepare_for_create(&self, namespace: &mut Namespace) {
        namespace.status =
            Some(NamespaceStatus { phase: Some("Active".into()), ..NamespaceStatus::default() });
        let finalizers = namespace.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
    }

    fn prepare_for_update(&self, new: &mut Namespace, old: &Namespace) {
        new.status.clone_from(&old.status);
        // Only the finalize subresource changes these.
        new.spec.clone_from(&old.spec);
    }

    fn prepare_for_status_update(&self, new: &mut Namespace, old: &Namespace) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, namespace: &Namespace) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.as_deref()).unwrap_or_default();
        for (i, finalizer) in finalizers.iter().enumerate() {
            let field = format!("spec.finalizers[{i}]");
            fields::names(&mut errors, &field, finalizer, qualified_name(finalizer));
        }
        errors
    }

    fn validate_status_update(&self, new: &Namespace, _old: &Namespace) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let phase = new.status.as_ref().and_then(|s| s.phase.as_deref());
        let deleting = new.metadata.deletion_timestamp.is_some();
        let wrong = match fields::set(phase) {
            None => None,
            Some(phase) if deleting && phase != "Terminating" => {
                Some((phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"))
            }
            Some(phase) if !deleting && phase != "Active" => {
                Some((phase, "may only be 'Active' if `deletionTimestamp` is empty"))
            }
            Some(_) => None,
        };
        errors.extend(wrong.map(|(phase, detail)| FieldError::invalid("status.phase", phase, detail)));
        errors
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        dns_label(name)
    }

    fn selectable_fields(&self, namespace: &Namespace) -> Vec<(&'static str, String)> {
        vec![("status.phase", phase(namespace).to_owned())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, Column::string("Status", "The status of the namespace"), AGE];
        COLUMNS
    }

    fn row(&self, namespace: &Namespace, now: Timestamp) -> Vec<Value> {
        vec![
            json!(namespace.metadata.name),
            json!(phase(namespace)),
            json!(age(namespace.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}

fn phase(namespace: &Namespace) -> &str {
    namespace.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{object, row, stored, updated};

    #[test]
    fn a_namespace_is_active_labelled_and_finalized() {
        let namespace = stored(
            &NamespaceStrategy,
            json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "b"}}}),
        );
        assert_eq!(namespace["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "a"}));
        assert_eq!(namespace["spec"], json!({"finalizers": ["kubernetes"]}));
        assert_eq!(namespace["status"], json!({"phase": "Active"}));
        row(
            &NamespaceStrategy,
            json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}}),
            &["a", "Active", "<unknown>"],
        );
    }

    #[test]
    fn finalizers_and_status_are_not_the_clients() {
        let named = json!({"metadata": {"name": "a"}});
        let (namespace, errors) = updated(
            &NamespaceStrategy,
            named,
            json!({"metadata": {"name": "a"}, "spec": {}, "status": {"phase": "Odd"}}),
        );
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(namespace.spec.unwrap().finalizers.unwrap(), ["kubernetes"]);
        assert_eq!(namespace.status.unwrap().phase.as_deref(), Some("Active"));
    }

    #[test]
    fn the_phase_goes_with_the_deletion() {
        let of = |meta: Value, phase: &str| object(json!({"metadata": meta, "status": {"phase": phase}}));
        let old = Namespace::default();
        let check = |meta: Value, phase: &str| {
            let errors = NamespaceStrategy.validate_status_update(&of(meta, phase), &old);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let deleting = json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(check(deleting.clone(), "Terminating"), Vec::<String>::new());
        assert_eq!(
            check(deleting, "Active"),
            [
                "status.phase: Invalid value: \"Active\": may only be 'Terminating' if `deletionTimestamp` is not empty"
            ]
        );
        assert_eq!(
            check(json!({"name": "a"}), "Terminating"),
            [
                "status.phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
            ]
        );
    }
}
