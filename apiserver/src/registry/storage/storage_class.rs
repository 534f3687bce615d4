//! The rules of StorageClasses.

use api::openapi::api::storage::v1::StorageClass;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{one_of, required};
use crate::registry::printing::{age, or_none};
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of StorageClasses.
pub struct StorageClassStrategy;

/// The annotation of the class that claims without one get.
pub const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// Whether an annotation says that something is the default.
pub(in crate::registry) fn is_default(
    meta: &api::openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    key: &str,
) -> bool {
    meta.annotations.as_ref().is_some_and(|a| a.get(key).is_some_and(|v| v == "true"))
}

impl Strategy for StorageClassStrategy {
    type K = StorageClass;

    fn default(&self, class: &mut StorageClass) {
        class.reclaim_policy.get_or_insert_with(|| "Delete".into());
        class.volume_binding_mode.get_or_insert_with(|| "Immediate".into());
    }

    fn validate(&self, class: &StorageClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        required(&mut errors, "provisioner", Some(&class.provisioner));
        if class.parameters.iter().flatten().any(|(key, _)| key.is_empty()) {
            errors.push(FieldError::invalid("parameters", "", "field can not be empty."));
        }
        one_of(&mut errors, "reclaimPolicy", class.reclaim_policy.as_deref(), &["Delete", "Retain"]);
        let modes = &["Immediate", "WaitForFirstConsumer"];
        one_of(&mut errors, "volumeBindingMode", class.volume_binding_mode.as_deref(), modes);
        errors
    }

    fn validate_update(&self, new: &StorageClass, old: &StorageClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if new.parameters.clone().unwrap_or_default() != old.parameters.clone().unwrap_or_default() {
            errors.push(FieldError::forbidden("parameters", "updates to parameters are forbidden."));
        }
        if new.provisioner != old.provisioner {
            errors.push(FieldError::forbidden("provisioner", "updates to provisioner are forbidden."));
        }
        if new.reclaim_policy != old.reclaim_policy {
            errors.push(FieldError::forbidden("reclaimPolicy", "updates to reclaimPolicy are forbidden."));
        }
        if new.volume_binding_mode != old.volume_binding_mode {
            let mode = new.volume_binding_mode.clone().unwrap_or_default();
            errors.push(FieldError::invalid("volumeBindingMode", mode, crate::registry::fields::IMMUTABLE));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Provisioner", "Who makes the volumes."),
            Column::string("ReclaimPolicy", "What becomes of a volume when its claim goes."),
            Column::string("VolumeBindingMode", "When a volume is made and bound."),
            Column {
                type_: "boolean",
                ..Column::string("AllowVolumeExpansion", "Whether volumes may grow.")
            },
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, class: &StorageClass, now: Timestamp) -> Vec<Value> {
        let name = class.metadata.name.clone().unwrap_or_default();
        vec![
            json!(if is_default(&class.metadata, DEFAULT) { format!("{name} (default)") } else { name }),
            json!(class.provisioner),
            json!(or_none(class.reclaim_policy.as_deref())),
            json!(or_none(class.volume_binding_mode.as_deref())),
            json!(class.allow_volume_expansion.unwrap_or(false)),
            json!(age(class.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, invalid_update, row, with};

    #[test]
    fn a_class_is_what_it_was_made() {
        let class =
            json!({"metadata": {"name": "fast", "annotations": {DEFAULT: "true"}}, "provisioner": "p"});
        let unset = &["fast (default)", "p", "<none>", "<none>", "false", "<unknown>"];
        row(&StorageClassStrategy, class.clone(), unset);
        invalid(
            &StorageClassStrategy,
            with(&class, "/provisioner", "".into()),
            &["provisioner: Required value"],
        );
        let other = "provisioner: Forbidden: updates to provisioner are forbidden.";
        invalid_update(
            &StorageClassStrategy,
            class.clone(),
            with(&class, "/provisioner", "q".into()),
            &[other],
        );
    }
}
