//! The rules of PersistentVolumeClaims.

use api::openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec};
use api::quantity::Amount;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::persistent_volume::{access_modes, short_modes};
use crate::registry::fields::{
    Errors, canonicalize, label_selector, optional_one_of, optional_subdomain, quantity,
};
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of PersistentVolumeClaims.
pub struct PersistentVolumeClaimStrategy;

/// Fills in a claim, or the template of one.
pub fn defaults(claim: &mut PersistentVolumeClaim) {
    let spec = claim.spec.get_or_insert_default();
    spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
    if let Some(resources) = &mut spec.resources {
        canonicalize(&mut resources.requests);
        canonicalize(&mut resources.limits);
    }
    claim.status.get_or_insert_default().phase.get_or_insert_with(|| "Pending".into());
}

impl Strategy for PersistentVolumeClaimStrategy {
    type K = PersistentVolumeClaim;

    fn default(&self, claim: &mut PersistentVolumeClaim) {
        defaults(claim);
    }

    fn validate(&self, claim: &PersistentVolumeClaim) -> Vec<FieldError> {
        let mut errors = Vec::new();
        spec(&mut errors, "spec", &claim.spec.clone().unwrap_or_default());
        errors
    }

    fn validate_update(&self, new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let old_spec = old.spec.clone().unwrap_or_default();
        let new_spec = new.spec.clone().unwrap_or_default();
        let mut allowed = new_spec.clone();
        // A claim is bound once, and its class may be filled in once.
        if old_spec.volume_name.as_deref().unwrap_or_default().is_empty() {
            allowed.volume_name.clone_from(&old_spec.volume_name);
        }
        if old_spec.storage_class_name.is_none() {
            allowed.storage_class_name.clone_from(&old_spec.storage_class_name);
        }
        let bound = old.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        if bound {
            let requests = old_spec.resources.as_ref().and_then(|r| r.requests.clone());
            allowed.resources.get_or_insert_default().requests = requests;
            allowed.volume_attributes_class_name.clone_from(&old_spec.volume_attributes_class_name);
        }
        if allowed != old_spec {
            let detail = "spec is immutable after creation except resources.requests and \
                volumeAttributesClassName for bound claims";
            errors.push(FieldError::forbidden("spec", detail));
        }
        let size = |spec: &PersistentVolumeClaimSpec| {
            spec.resources.as_ref()?.requests.as_ref()?.get("storage").and_then(|q| Amount::try_from(q).ok())
        };
        let have = old.status.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage").cloned());
        let have = have.as_ref().and_then(|q| Amount::try_from(q).ok());
        if let (Some(new), Some(old)) = (size(&new_spec), size(&old_spec))
            && new < old
            && have.is_none_or(|have| new < have)
        {
            let detail = "field can not be less than status.capacity";
            errors.push(FieldError::forbidden("spec.resources.requests.storage", detail));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Status", "The phase of the claim."),
            Column::string("Volume", "The volume that backs the claim."),
            Column::string("Capacity", "The size of the volume."),
            Column::string("Access Modes", "How the volume may be mounted."),
            Column::string("StorageClass", "The class that the claim asks for."),
            Column::string("VolumeAttributesClass", "The class of the volume's attributes."),
            AGE,
            Column::string("VolumeMode", "Whether the volume is a file system or a block device.").wide(),
        ];
        COLUMNS
    }

    fn row(&self, claim: &PersistentVolumeClaim, now: Timestamp) -> Vec<Value> {
        let spec = claim.spec.clone().unwrap_or_default();
        let status = claim.status.clone().unwrap_or_default();
        let phase = status.phase.unwrap_or_default();
        let bound = spec.volume_name.clone().unwrap_or_default();
        let (capacity, modes) = if bound.is_empty() {
            (String::new(), String::new())
        } else {
            let storage = status.capacity.as_ref().and_then(|c| c.get("storage"));
            let modes = status.access_modes.as_deref().unwrap_or_default();
            (storage.map(|q| q.0.clone()).unwrap_or_default(), short_modes(modes))
        };
        let going = claim.metadata.deletion_timestamp.is_some();
        vec![
            json!(claim.metadata.name.as_deref().unwrap_or_default()),
            json!(if going { "Terminating".into() } else { phase }),
            json!(bound),
            json!(capacity),
            json!(modes),
            json!(spec.storage_class_name.unwrap_or_default()),
            json!(spec.volume_attributes_class_name.unwrap_or_else(|| "<unset>".into())),
            json!(age(claim.metadata.creation_timestamp.as_ref(), now)),
            json!(spec.volume_mode.unwrap_or_else(|| "<unset>".into())),
        ]
    }
}

/// Checks the spec of a claim.
fn spec(errors: &mut Errors, field: &str, spec: &PersistentVolumeClaimSpec) {
    let at = |name: &str| format!("{field}.{name}");
    access_modes(errors, &at("accessModes"), spec.access_modes.as_deref().unwrap_or_default());
    if let Some(selector) = &spec.selector {
        label_selector(errors, &at("selector"), selector);
    }
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    match requests.and_then(|r| r.get("storage")) {
        None => errors.push(FieldError::required(at("resources[storage]"), "")),
        Some(size) => {
            let field = at("resources[storage]");
            if quantity(errors, &field, size).is_some_and(|amount| amount == Amount::default()) {
                errors.push(FieldError::invalid(field, size.0.as_str(), "must be greater than zero"));
            }
        }
    }
    optional_subdomain(errors, &at("storageClassName"), spec.storage_class_name.as_deref());
    optional_one_of(errors, &at("volumeMode"), spec.volume_mode.as_deref(), &["Block", "Filesystem"]);
    if let Some(source) = &spec.data_source {
        crate::registry::fields::required(errors, &at("dataSource.name"), Some(&source.name));
        crate::registry::fields::required(errors, &at("dataSource.kind"), Some(&source.kind));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, invalid_update, row, stored, with};

    fn claim() -> Value {
        json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1024Mi"}}}})
    }

    #[test]
    fn a_claim_begins_pending() {
        let made = stored(&PersistentVolumeClaimStrategy, claim());
        assert_eq!(
            (&made["status"]["phase"], &made["spec"]["volumeMode"]),
            (&json!("Pending"), &json!("Filesystem"))
        );
        row(
            &PersistentVolumeClaimStrategy,
            made,
            &["data", "Pending", "", "", "", "", "<unset>", "<unknown>", "Filesystem"],
        );
        invalid(
            &PersistentVolumeClaimStrategy,
            json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["Odd"]}}),
            &[
                "spec.accessModes: Unsupported value: \"Odd\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \
                 \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec.resources[storage]: Required value",
            ],
        );
    }

    #[test]
    fn a_bound_claim_may_grow() {
        let fixed = "spec: Forbidden: spec is immutable after creation except resources.requests and \
            volumeAttributesClassName for bound claims";
        let larger = with(&claim(), "/spec/resources/requests/storage", "2Gi".into());
        invalid_update(&PersistentVolumeClaimStrategy, claim(), larger.clone(), &[fixed]);
        let mut bound = claim();
        bound["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
        invalid_update(&PersistentVolumeClaimStrategy, bound.clone(), larger, &[]);
        let smaller = with(&bound, "/spec/resources/requests/storage", "1Mi".into());
        let less = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity";
        invalid_update(&PersistentVolumeClaimStrategy, bound, smaller, &[less]);
    }
}
