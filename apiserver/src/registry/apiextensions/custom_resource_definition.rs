//! The rules of CustomResourceDefinitions.

mod structural;
mod validation;

use api::openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionSpec,
};
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::strategy::{Column, NAME, Strategy};

/// The finalizer by which a definition waits until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The rules of CustomResourceDefinitions.
pub struct CustomResourceDefinitionStrategy;

fn remember_stored(definition: &mut CustomResourceDefinition) {
    let storage = definition.spec.versions.iter().find(|v| v.storage).map(|v| v.name.clone());
    let stored = definition.status.get_or_insert_default().stored_versions.get_or_insert_default();
    stored.extend(storage.filter(|s| !stored.contains(s)));
}

impl Strategy for CustomResourceDefinitionStrategy {
    type K = CustomResourceDefinition;

    fn default(&self, definition: &mut CustomResourceDefinition) {
        let spec: &mut CustomResourceDefinitionSpec = &mut definition.spec;
        let names = &mut spec.names;
        if names.singular.as_deref().unwrap_or_default().is_empty() {
            names.singular = Some(names.kind.to_lowercase());
        }
        if names.list_kind.as_deref().unwrap_or_default().is_empty() && !names.kind.is_empty() {
            names.list_kind = Some(format!("{}List", names.kind));
        }
        let none = || CustomResourceConversion { strategy: "None".into(), webhook: None };
        let conversion = spec.conversion.get_or_insert_with(none);
        if let Some(service) = conversion
            .webhook
            .as_mut()
            .and_then(|w| w.client_config.as_mut())
            .and_then(|config| config.service.as_mut())
        {
            service.port.get_or_insert(443);
        }
    }

    fn prepare_for_create(&self, definition: &mut CustomResourceDefinition) {
        definition.status = None;
        remember_stored(definition);
        let finalizers = definition.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
    }

    fn prepare_for_update(&self, new: &mut CustomResourceDefinition, old: &CustomResourceDefinition) {
        new.status.clone_from(&old.status);
        remember_stored(new);
    }

    fn prepare_for_status_update(&self, new: &mut CustomResourceDefinition, old: &CustomResourceDefinition) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, definition: &CustomResourceDefinition) -> Vec<FieldError> {
        validation::definition(definition)
    }

    fn validate_update(
        &self,
        new: &CustomResourceDefinition,
        old: &CustomResourceDefinition,
    ) -> Vec<FieldError> {
        validation::change(new, old)
    }

    fn validate_status_update(
        &self,
        new: &CustomResourceDefinition,
        _old: &CustomResourceDefinition,
    ) -> Vec<FieldError> {
        validation::stored_versions(new)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column {
                name: "Created At",
                type_: "date",
                format: "",
                description: "CreationTimestamp is a timestamp representing the server time when this object was created.",
                priority: 0,
            },
        ];
        COLUMNS
    }

    fn row(&self, definition: &CustomResourceDefinition, _now: Timestamp) -> Vec<Value> {
        let created = definition.metadata.creation_timestamp.as_ref().map(|t| t.0.to_string());
        vec![
            json!(definition.metadata.name.as_deref().unwrap_or_default()),
            json!(created.unwrap_or_else(|| "<unknown>".into())),
        ]
    }
}

#[cfg(test)]
mod tests;
