//! What is wrong with a container's environment.

use api::openapi::api::core::v1::{
    EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector,
};
use api::validation::{FieldError, qualified_name};

use crate::registry::fields::{self, Errors, config_key, names, required, set};

const NAME: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
/// Fields of a pod that its environment may show.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

fn variable_name(name: &str) -> Vec<String> {
    let printable = |b: u8| (b' '..=b'~').contains(&b) && b != b'=';
    if name.bytes().all(printable) { Vec::new() } else { vec![NAME.into()] }
}

/// Checks `env`.
pub fn variables(errors: &mut Errors, field: &str, variables: &[EnvVar]) {
    for (i, variable) in variables.iter().enumerate() {
        let field = format!("{field}[{i}]");
        required(errors, &format!("{field}.name"), Some(&variable.name));
        names(errors, &format!("{field}.name"), &variable.name, variable_name(&variable.name));
        if let Some(from) = &variable.value_from {
            let field = format!("{field}.valueFrom");
            if set(variable.value.as_deref()).is_some() {
                let detail = "may not be specified when `value` is not empty";
                errors.push(FieldError::invalid(field.as_str(), "", detail));
            }
            source(errors, &field, from);
        }
    }
}

fn source(errors: &mut Errors, field: &str, source: &EnvVarSource) {
    let present = [
        source.field_ref.is_some(),
        source.resource_field_ref.is_some(),
        source.config_map_key_ref.is_some(),
        source.secret_key_ref.is_some(),
        source.file_key_ref.is_some(),
    ];
    match present.iter().filter(|p| **p).count() {
        0 => errors.push(FieldError::invalid(
            field,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        )),
        1 => {}
        _ => errors.push(FieldError::invalid(field, "", "may not have more than one field specified at a time")),
    }
    if let Some(of) = &source.field_ref {
        object_field(errors, &format!("{field}.fieldRef"), of, ENV_FIELDS);
    }
    if let Some(of) = &source.resource_field_ref {
        resource_field(errors, &format!("{field}.resourceFieldRef"), of);
    }
    let keys = [
        ("configMapKeyRef", source.config_map_key_ref.as_ref().map(|r| (&r.name, &r.key))),
        ("secretKeyRef", source.secret_key_ref.as_ref().map(|r| (&r.name, &r.key))),
    ];
    for (which, reference) in keys {
        if let Some((name, key)) = reference {
            required(errors, &format!("{field}.{which}.name"), Some(name));
            let field = format!("{field}.{which}.key");
            if key.is_empty() {
                errors.push(FieldError::required(field, ""));
            } else {
                names(errors, &field, key, config_key(key));
            }
        }
    }
    if let Some(file) = &source.file_key_ref {
        required(errors, &format!("{field}.fileKeyRef.volumeName"), Some(&file.volume_name));
        required(errors, &format!("{field}.fileKeyRef.key"), Some(&file.key));
        fields::local_path(errors, &format!("{field}.fileKeyRef.path"), &file.path);
    }
}

/// Checks a reference to a field of the pod; `supported` beside `metadata.labels['…']` and annotations.
pub fn object_field(errors: &mut Errors, field: &str, of: &ObjectFieldSelector, supported: &[&str]) {
    required(errors, &format!("{field}.apiVersion"), of.api_version.as_deref());
    let path = of.field_path.as_str();
    let field = format!("{field}.fieldPath");
    if path.is_empty() {
        errors.push(FieldError::required(field, ""));
        return;
    }
    if let Some((map, rest)) = path.split_once("['")
        && let Some(key) = rest.strip_suffix("']")
    {
        if map == "metadata.annotations" || map == "metadata.labels" {
            let key = if map == "metadata.annotations" { key.to_lowercase() } else { key.to_owned() };
            names(errors, &field, path, qualified_name(&key));
        } else {
            let detail = format!("does not support subscript: {map:?}");
            errors.push(FieldError::invalid(field, path, &detail));
        }
        return;
    }
    if !supported.contains(&path) {
        errors.push(FieldError::not_supported(field, path, supported));
    }
}

/// Checks a reference to a request or limit of a container.
pub fn resource_field(errors: &mut Errors, field: &str, of: &ResourceFieldSelector) {
    let name = of.resource.as_str();
    let huge = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if name.is_empty() {
        errors.push(FieldError::required(format!("{field}.resource"), ""));
    } else if !huge && !RESOURCES.contains(&name) {
        errors.push(FieldError::not_supported(format!("{field}.resource"), name, RESOURCES));
    }
    if let Some(divisor) = &of.divisor {
        let field = format!("{field}.divisor");
        let allowed: &[&str] = if name.ends_with(".cpu") {
            &["0", "1m", "1"]
        } else {
            &["0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"]
        };
        if fields::quantity(errors, &field, divisor).is_some() && !allowed.contains(&divisor.0.as_str()) {
            let detail = if name.ends_with(".cpu") {
                "only divisor's values 1m and 1 are supported with the cpu resource"
            } else {
                "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported"
            };
            errors.push(FieldError::invalid(field, divisor.0.as_str(), detail));
        }
    }
}

/// Checks `envFrom`.
pub fn sources(errors: &mut Errors, field: &str, sources: &[EnvFromSource]) {
    for (i, source) in sources.iter().enumerate() {
        let field = format!("{field}[{i}]");
        if let Some(prefix) = set(source.prefix.as_deref()) {
            names(errors, &format!("{field}.prefix"), prefix, variable_name(prefix));
        }
        match (&source.config_map_ref, &source.secret_ref) {
            (None, None) => errors.push(FieldError::invalid(
                field.as_str(),
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            (Some(_), Some(_)) => errors.push(FieldError::invalid(
                field.as_str(),
                "",
                "may not have more than one field specified at a time",
            )),
            _ => {}
        }
        if let Some(map) = &source.config_map_ref {
            required(errors, &format!("{field}.configMapRef.name"), Some(&map.name));
        }
        if let Some(secret) = &source.secret_ref {
            required(errors, &format!("{field}.secretRef.name"), Some(&secret.name));
        }
    }
}
