//! What is wrong with volumes.

use std::collections::HashSet;

use api::openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource, Volume, VolumeProjection,
};
use api::quantity::Amount;
use api::validation::FieldError;
use serde_json::Value;

use super::env::{object_field, resource_field};
use crate::registry::fields::{
    Errors, config_key, local_path, names, no_back_steps, optional_one_of, required, required_label,
};

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// Fields of a pod that a file may show.
const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// The names of the sources that a volume has.
fn sources(volume: &Volume) -> Vec<String> {
    match serde_json::to_value(volume) {
        Ok(Value::Object(map)) => map.into_iter().map(|(key, _)| key).filter(|key| key != "name").collect(),
        _ => Vec::new(),
    }
}

/// Whether a volume says what it is.
pub fn has_source(volume: &Volume) -> bool {
    !sources(volume).is_empty()
}

/// Checks all volumes and gives the names that may be mounted.
pub fn volumes<'a>(errors: &mut Errors, field: &str, volumes: &'a [Volume]) -> HashSet<&'a str> {
    let mut seen = HashSet::new();
    for (i, volume) in volumes.iter().enumerate() {
        let field = format!("{field}[{i}]");
        required_label(errors, &format!("{field}.name"), &volume.name);
        if !volume.name.is_empty() && !seen.insert(volume.name.as_str()) {
            errors.push(FieldError::duplicate(format!("{field}.name"), volume.name.as_str()));
        }
        source(errors, &field, volume);
    }
    seen
}

fn source(errors: &mut Errors, field: &str, volume: &Volume) {
    let sources = sources(volume);
    if sources.is_empty() {
        errors.push(FieldError::required(field, "must specify a volume type"));
    }
    for extra in sources.iter().skip(1) {
        let field = format!("{field}.{extra}");
        errors.push(FieldError::forbidden(field, "may not specify more than 1 volume type"));
    }
    if volume.git_repo.is_some() {
        // A node that clones what a pod names runs that repository's hooks.
        let field = format!("{field}.gitRepo");
        errors.push(FieldError::forbidden(field, "GitRepo volumes are not supported"));
    }
    if let Some(path) = &volume.host_path {
        required(errors, &format!("{field}.hostPath.path"), Some(&path.path));
        no_back_steps(errors, &format!("{field}.hostPath.path"), &path.path);
        optional_one_of(errors, &format!("{field}.hostPath.type"), path.type_.as_deref(), HOST_PATH_TYPES);
    }
    if let Some(limit) = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref())
        && !Amount::try_from(limit).is_ok_and(|a| !a.is_negative())
    {
        let detail = "SizeLimit field must be a valid resource quantity";
        errors.push(FieldError::forbidden(format!("{field}.emptyDir.sizeLimit"), detail));
    }
    if let Some(map) = &volume.config_map {
        let field = format!("{field}.configMap");
        required(errors, &format!("{field}.name"), Some(&map.name));
        mode(errors, &format!("{field}.defaultMode"), map.default_mode);
        items(errors, &field, map.items.as_deref());
    }
    if let Some(secret) = &volume.secret {
        let field = format!("{field}.secret");
        required(errors, &format!("{field}.secretName"), secret.secret_name.as_deref());
        mode(errors, &format!("{field}.defaultMode"), secret.default_mode);
        items(errors, &field, secret.items.as_deref());
    }
    if let Some(files) = &volume.downward_api {
        let field = format!("{field}.downwardAPI");
        mode(errors, &format!("{field}.defaultMode"), files.default_mode);
        downward(errors, &field, files.items.as_deref());
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        required(errors, &format!("{field}.persistentVolumeClaim.claimName"), Some(&claim.claim_name));
    }
    if let Some(projected) = &volume.projected {
        projections(errors, &format!("{field}.projected"), projected);
    }
}

fn mode(errors: &mut Errors, field: &str, mode: Option<i32>) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        errors.push(FieldError::invalid(field, mode, MODE));
    }
}

fn items(errors: &mut Errors, field: &str, items: Option<&[KeyToPath]>) {
    for (i, item) in items.unwrap_or_default().iter().enumerate() {
        let at = |name: &str| format!("{field}.items[{i}].{name}");
        if item.key.is_empty() {
            errors.push(FieldError::required(at("key"), ""));
        } else {
            names(errors, &at("key"), &item.key, config_key(&item.key));
        }
        required(errors, &at("path"), Some(&item.path));
        local_path(errors, &at("path"), &item.path);
        mode(errors, &at("mode"), item.mode);
    }
}

fn downward(errors: &mut Errors, field: &str, items: Option<&[DownwardAPIVolumeFile]>) {
    for (i, item) in items.unwrap_or_default().iter().enumerate() {
        let at = |name: &str| format!("{field}.items[{i}].{name}");
        required(errors, &at("path"), Some(&item.path));
        local_path(errors, &at("path"), &item.path);
        mode(errors, &at("mode"), item.mode);
        match (&item.field_ref, &item.resource_field_ref) {
            (Some(of), None) => object_field(errors, &at("fieldRef"), of, FILE_FIELDS),
            (None, Some(of)) => {
                required(errors, &at("resourceFieldRef.containerName"), of.container_name.as_deref());
                resource_field(errors, &at("resourceFieldRef"), of);
            }
            (Some(_), Some(_)) => errors.push(FieldError::invalid(
                at("resourceFieldRef"),
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            )),
            (None, None) => errors.push(FieldError::required(
                at("fieldRef"),
                "one of fieldRef and resourceFieldRef is required",
            )),
        }
    }
}

fn projections(errors: &mut Errors, field: &str, projected: &ProjectedVolumeSource) {
    mode(errors, &format!("{field}.defaultMode"), projected.default_mode);
    for (i, projection) in projected.sources.iter().flatten().enumerate() {
        projection_source(errors, &format!("{field}.sources[{i}]"), projection);
    }
}

fn projection_source(errors: &mut Errors, field: &str, projection: &VolumeProjection) {
    let count = match serde_json::to_value(projection) {
        Ok(Value::Object(map)) => map.len(),
        _ => 0,
    };
    match count {
        0 => errors.push(FieldError::required(field, "must specify a projection type")),
        1 => {}
        _ => errors.push(FieldError::forbidden(field, "may not specify more than 1 volume type")),
    }
    if let Some(map) = &projection.config_map {
        required(errors, &format!("{field}.configMap.name"), Some(&map.name));
        items(errors, &format!("{field}.configMap"), map.items.as_deref());
    }
    if let Some(secret) = &projection.secret {
        required(errors, &format!("{field}.secret.name"), Some(&secret.name));
        items(errors, &format!("{field}.secret"), secret.items.as_deref());
    }
    if let Some(files) = &projection.downward_api {
        downward(errors, &format!("{field}.downwardAPI"), files.items.as_deref());
    }
    if let Some(token) = &projection.service_account_token {
        let field = format!("{field}.serviceAccountToken");
        required(errors, &format!("{field}.path"), Some(&token.path));
        if let Some(seconds) = token.expiration_seconds.filter(|s| *s < 600) {
            let detail = "may not specify a duration less than 10 minutes";
            errors.push(FieldError::invalid(format!("{field}.expirationSeconds"), seconds, detail));
        }
    }
}
