//! The rules of VolumeAttachments.

use api::openapi::api::storage::v1::VolumeAttachment;
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{IMMUTABLE, required};
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of VolumeAttachments.
pub struct VolumeAttachmentStrategy;

impl Strategy for VolumeAttachmentStrategy {
    type K = VolumeAttachment;

    fn validate(&self, attachment: &VolumeAttachment) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = &attachment.spec;
        required(&mut errors, "spec.attacher", Some(&spec.attacher));
        required(&mut errors, "spec.nodeName", Some(&spec.node_name));
        let source = &spec.source;
        match (&source.persistent_volume_name, &source.inline_volume_spec) {
            (None, None) => {
                let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                errors.push(FieldError::required("spec.source", detail));
            }
            (Some(_), Some(_)) => {
                let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                errors.push(FieldError::forbidden("spec.source", detail));
            }
            (Some(name), None) => {
                required(&mut errors, "spec.source.persistentVolumeName", Some(name));
            }
            (None, Some(_)) => {}
        }
        errors
    }

    fn validate_update(&self, new: &VolumeAttachment, old: &VolumeAttachment) -> Vec<FieldError> {
        if new.spec == old.spec {
            return Vec::new();
        }
        vec![FieldError::invalid("spec", json!(new.spec), IMMUTABLE)]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Attacher", "The driver that attaches the volume."),
            Column::string("PV", "The volume."),
            Column::string("Node", "The node."),
            Column { type_: "boolean", ..Column::string("Attached", "Whether the volume is attached.") },
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, attachment: &VolumeAttachment, now: Timestamp) -> Vec<Value> {
        let spec = &attachment.spec;
        vec![
            json!(attachment.metadata.name.as_deref().unwrap_or_default()),
            json!(spec.attacher),
            json!(spec.source.persistent_volume_name.as_deref().unwrap_or_default()),
            json!(spec.node_name),
            json!(attachment.status.as_ref().is_some_and(|s| s.attached)),
            json!(age(attachment.metadata.creation_timestamp.as_ref(), now)),
        ]
    }
}
