//! The rules of CSIDrivers.

use api::openapi::api::storage::v1::CSIDriver;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{IMMUTABLE, optional_one_of};
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of CSIDrivers.
pub struct CSIDriverStrategy;

impl Strategy for CSIDriverStrategy {
    type K = CSIDriver;

    fn default(&self, driver: &mut CSIDriver) {
        let spec = &mut driver.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".into());
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
        if spec.volume_lifecycle_modes.as_ref().is_none_or(Vec::is_empty) {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".into()]);
        }
    }

    fn validate(&self, driver: &CSIDriver) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = &driver.spec;
        let policies = &["File", "None", "ReadWriteOnceWithFSType"];
        optional_one_of(&mut errors, "spec.fsGroupPolicy", spec.fs_group_policy.as_deref(), policies);
        for (i, mode) in spec.volume_lifecycle_modes.iter().flatten().enumerate() {
            let field = format!("spec.volumeLifecycleModes[{i}]");
            optional_one_of(&mut errors, &field, Some(mode), &["Ephemeral", "Persistent"]);
        }
        errors
    }

    fn validate_update(&self, new: &CSIDriver, old: &CSIDriver) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (new, old) = (&new.spec, &old.spec);
        if new.attach_required != old.attach_required {
            errors.push(FieldError::invalid("spec.attachRequired", json!(new.attach_required), IMMUTABLE));
        }
        if new.volume_lifecycle_modes != old.volume_lifecycle_modes {
            let modes = json!(new.volume_lifecycle_modes);
            errors.push(FieldError::invalid("spec.volumeLifecycleModes", modes, IMMUTABLE));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column {
                type_: "boolean",
                ..Column::string("AttachRequired", "Whether volumes are attached before they are mounted.")
            },
            Column {
                type_: "boolean",
                ..Column::string("PodInfoOnMount", "Whether the driver is told of the pod.")
            },
            Column {
                type_: "boolean",
                ..Column::string("StorageCapacity", "Whether the scheduler looks at capacities.")
            },
            Column::string("TokenRequests", "The audiences of the tokens that the driver is given."),
            Column {
                type_: "boolean",
                ..Column::string("RequiresRepublish", "Whether the driver is called again and again.")
            },
            Column::string("Modes", "What volumes the driver serves."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, driver: &CSIDriver, now: Timestamp) -> Vec<Value> {
        let spec = &driver.spec;
        let tokens: Vec<&str> = spec.token_requests.iter().flatten().map(|t| t.audience.as_str()).collect();
        vec![
            json!(driver.metadata.name.as_deref().unwrap_or_default()),
            json!(spec.attach_required.unwrap_or(true)),
            json!(spec.pod_info_on_mount.unwrap_or(false)),
            json!(spec.storage_capacity.unwrap_or(false)),
            json!(if tokens.is_empty() { "<unset>".to_owned() } else { tokens.join(",") }),
            json!(spec.requires_republish.unwrap_or(false)),
            json!(spec.volume_lifecycle_modes.as_ref().map_or_else(|| "<none>".into(), |m| m.join(","))),
            json!(age(driver.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}
