//! The rules of PersistentVolumes.

use api::openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec};
use api::validation::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::fields::{
    Errors, canonicalize, optional_one_of, optional_subdomain, quantity, required,
};
use crate::registry::printing::age;
use crate::registry::strategy::{AGE, Column, NAME, Strategy};

/// The rules of PersistentVolumes.
pub struct PersistentVolumeStrategy;

const ACCESS: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// Fields of a volume's spec that are not its source.
const NO_SOURCE: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// Checks access modes, of which there must be one at least.
pub fn access_modes(errors: &mut Errors, field: &str, modes: &[String]) {
    if modes.is_empty() {
        errors.push(FieldError::required(field, "at least 1 access mode is required"));
    }
    for mode in modes.iter().filter(|mode| !ACCESS.contains(&mode.as_str())) {
        errors.push(FieldError::not_supported(field, mode.as_str(), ACCESS));
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(field, detail));
    }
}

/// Access modes as tables show them: `RWO,ROX`.
pub fn short_modes(modes: &[String]) -> String {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let have = short.iter().filter(|(long, _)| modes.iter().any(|m| m == long));
    have.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

impl Strategy for PersistentVolumeStrategy {
    type K = PersistentVolume;

    fn default(&self, volume: &mut PersistentVolume) {
        let spec = volume.spec.get_or_insert_default();
        spec.persistent_volume_reclaim_policy.get_or_insert_with(|| "Retain".into());
        spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
        canonicalize(&mut spec.capacity);
        if let Some(path) = &mut spec.host_path {
            path.type_.get_or_insert_default();
        }
        volume.status.get_or_insert_default().phase.get_or_insert_with(|| "Pending".into());
    }

    fn validate(&self, volume: &PersistentVolume) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = volume.spec.clone().unwrap_or_default();
        access_modes(&mut errors, "spec.accessModes", spec.access_modes.as_deref().unwrap_or_default());
        let capacity = spec.capacity.clone().unwrap_or_default();
        match capacity.get("storage") {
            None if capacity.is_empty() => errors.push(FieldError::required("spec.capacity", "")),
            None => {
                let names: Vec<&String> = capacity.keys().collect();
                errors.push(FieldError::not_supported("spec.capacity", json!(names), &["storage"]));
            }
            Some(size) => drop(quantity(&mut errors, "spec.capacity[storage]", size)),
        }
        match sources(&spec).len() {
            1 => {}
            0 => errors.push(FieldError::required("spec", "must specify a volume type")),
            _ => {
                for extra in sources(&spec).iter().skip(1) {
                    let detail = "may not specify more than 1 volume type";
                    errors.push(FieldError::forbidden(format!("spec.{extra}"), detail));
                }
            }
        }
        if let Some(path) = &spec.host_path {
            required(&mut errors, "spec.hostPath.path", Some(&path.path));
            crate::registry::fields::no_back_steps(&mut errors, "spec.hostPath.path", &path.path);
        }
        if spec.local.is_some() && spec.node_affinity.is_none() {
            let detail = "Local volume requires node affinity";
            errors.push(FieldError::required("spec.nodeAffinity", detail));
        }
        let policy = spec.persistent_volume_reclaim_policy.as_deref();
        let policies = &["Delete", "Recycle", "Retain"];
        optional_one_of(&mut errors, "spec.persistentVolumeReclaimPolicy", policy, policies);
        optional_one_of(
            &mut errors,
            "spec.volumeMode",
            spec.volume_mode.as_deref(),
            &["Block", "Filesystem"],
        );
        optional_subdomain(&mut errors, "spec.storageClassName", spec.storage_class_name.as_deref());
        errors
    }

    fn validate_update(&self, new: &PersistentVolume, old: &PersistentVolume) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let source = |volume: &PersistentVolume| {
            let mut spec = json!(volume.spec.clone().unwrap_or_default());
            if let Some(map) = spec.as_object_mut() {
                map.retain(|field, _| !NO_SOURCE.contains(&field.as_str()));
            }
            spec
        };
        if source(new) != source(old) {
            let detail = "spec.persistentvolumesource is immutable after creation";
            errors.push(FieldError::forbidden("spec.persistentvolumesource", detail));
        }
        let mode = |v: &PersistentVolume| v.spec.as_ref().and_then(|s| s.volume_mode.clone());
        if mode(new) != mode(old) {
            let mode = mode(new).unwrap_or_default();
            errors.push(FieldError::invalid("spec.volumeMode", mode, crate::registry::fields::IMMUTABLE));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Capacity", "The size of the volume."),
            Column::string("Access Modes", "How the volume may be mounted."),
            Column::string("Reclaim Policy", "What becomes of the volume when its claim goes."),
            Column::string("Status", "The phase of the volume."),
            Column::string("Claim", "The claim to which the volume is bound."),
            Column::string("StorageClass", "The class to which the volume belongs."),
            Column::string("VolumeAttributesClass", "The class of the volume's attributes."),
            Column::string("Reason", "Why the volume failed."),
            AGE,
            Column::string("VolumeMode", "Whether the volume is a file system or a block device.").wide(),
        ];
        COLUMNS
    }

    fn row(&self, volume: &PersistentVolume, now: Timestamp) -> Vec<Value> {
        let spec = volume.spec.clone().unwrap_or_default();
        let status = volume.status.clone().unwrap_or_default();
        let claim = spec
            .claim_ref
            .map(|c| format!("{}/{}", c.namespace.unwrap_or_default(), c.name.unwrap_or_default()));
        let going = volume.metadata.deletion_timestamp.is_some();
        let phase = if going { "Terminating".into() } else { status.phase.unwrap_or_default() };
        let capacity = spec.capacity.as_ref().and_then(|c| c.get("storage")).map(|q| q.0.clone());
        vec![
            json!(volume.metadata.name.as_deref().unwrap_or_default()),
            json!(capacity.unwrap_or_default()),
            json!(short_modes(spec.access_modes.as_deref().unwrap_or_default())),
            json!(spec.persistent_volume_reclaim_policy.unwrap_or_default()),
            json!(phase),
            json!(claim.unwrap_or_default()),
            json!(spec.storage_class_name.unwrap_or_default()),
            json!(spec.volume_attributes_class_name.unwrap_or_else(|| "<unset>".into())),
            json!(status.reason.unwrap_or_default()),
            json!(age(volume.metadata.creation_timestamp.as_ref(), now)),
            json!(spec.volume_mode.unwrap_or_else(|| "<unset>".into())),
        ]
    }
}

/// The names of the sources that a volume has, of which there must be one.
fn sources(spec: &PersistentVolumeSpec) -> Vec<String> {
    let spec = json!(spec);
    let all = spec.as_object().into_iter().flatten().map(|(name, _)| name);
    all.filter(|name| !NO_SOURCE.contains(&name.as_str())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing::{invalid, invalid_update, row, stored, with};

    fn volume() -> Value {
        json!({"metadata": {"name": "pv"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/data"}, "claimRef": {"namespace": "n", "name": "c"}}})
    }

    #[test]
    fn a_volume_has_one_source_that_stays() {
        let made = stored(&PersistentVolumeStrategy, volume());
        assert_eq!(made["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        row(
            &PersistentVolumeStrategy,
            made,
            &["pv", "1Gi", "RWO", "Retain", "Pending", "n/c", "", "<unset>", "", "<unknown>", "Filesystem"],
        );
        let mut two = volume();
        two["spec"]["nfs"] = json!({"server": "s", "path": "/p"});
        let extra = "spec.nfs: Forbidden: may not specify more than 1 volume type";
        invalid(&PersistentVolumeStrategy, two, &[extra]);
        let moved = with(&volume(), "/spec/hostPath/path", "/other".into());
        let fixed =
            "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation";
        invalid_update(&PersistentVolumeStrategy, volume(), moved, &[fixed]);
    }
}
