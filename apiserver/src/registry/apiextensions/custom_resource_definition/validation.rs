//! What is wrong with a definition, but for its schemas.

use std::collections::HashSet;

use api::openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionVersion,
    CustomResourceSubresourceScale,
};
use api::validation::{FieldError, dns_1035_label, dns_subdomain};

use super::structural;
use crate::custom::path::Path;
use crate::registry::fields::{Errors, IMMUTABLE, names, one_of, required};

/// Types of printer columns.
const COLUMN_TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
/// The annotation that groups of Kubernetes itself need.
const APPROVED: &str = "api-approved.kubernetes.io";

/// Everything that is wrong with a definition.
pub(super) fn definition(definition: &CustomResourceDefinition) -> Errors {
    let mut errors = Vec::new();
    let spec = &definition.spec;
    let name = definition.metadata.name.as_deref().unwrap_or_default();
    if !name.is_empty() && name != format!("{}.{}", spec.names.plural, spec.group) {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", name, detail));
    }
    group(&mut errors, definition);
    one_of(&mut errors, "spec.scope", Some(&spec.scope), &["Cluster", "Namespaced"]);
    if spec.preserve_unknown_fields == Some(true) {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
            spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, detail));
    }
    called(&mut errors, "spec.names", &spec.names);
    versions(&mut errors, &spec.versions);
    conversion(&mut errors, definition);
    errors.extend(stored_versions(definition));
    errors
}

fn group(errors: &mut Errors, definition: &CustomResourceDefinition) {
    let group = definition.spec.group.as_str();
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
        return;
    }
    names(errors, "spec.group", group, dns_subdomain(group));
    if !group.contains('.') {
        errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
    let beneath =
        |domain: &str| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let annotations = definition.metadata.annotations.as_ref();
    if (beneath("k8s.io") || beneath("kubernetes.io"))
        && annotations.is_none_or(|a| a.get(APPROVED).is_none_or(String::is_empty))
    {
        let detail = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see \
            https://github.com/kubernetes/enhancements/pull/1111";
        errors.push(FieldError::required(format!("metadata.annotations[{APPROVED}]"), detail));
    }
}

fn mixed_case(errors: &mut Errors, field: &str, value: &str) {
    for problem in dns_1035_label(&value.to_lowercase()) {
        let detail = format!("may have mixed case, but should otherwise match: {problem}");
        errors.push(FieldError::invalid(field, value, &detail));
    }
}

fn called(errors: &mut Errors, field: &str, all: &CustomResourceDefinitionNames) {
    let at = |name: &str| format!("{field}.{name}");
    required(errors, &at("plural"), Some(&all.plural));
    required(errors, &at("kind"), Some(&all.kind));
    if !all.plural.is_empty() {
        names(errors, &at("plural"), &all.plural, dns_1035_label(&all.plural));
    }
    if let Some(singular) = all.singular.as_deref().filter(|s| !s.is_empty()) {
        names(errors, &at("singular"), singular, dns_1035_label(singular));
    }
    for (i, short) in all.short_names.iter().flatten().enumerate() {
        names(errors, &format!("{field}.shortNames[{i}]"), short, dns_1035_label(short));
    }
    for (i, category) in all.categories.iter().flatten().enumerate() {
        names(errors, &format!("{field}.categories[{i}]"), category, dns_1035_label(category));
    }
    if !all.kind.is_empty() {
        mixed_case(errors, &at("kind"), &all.kind);
    }
    let list_kind = all.list_kind.as_deref().unwrap_or_default();
    if !list_kind.is_empty() {
        mixed_case(errors, &at("listKind"), list_kind);
        if list_kind == all.kind {
            let detail = "kind and listKind may not be the same";
            errors.push(FieldError::invalid(at("listKind"), list_kind, detail));
        }
    }
}

fn versions(errors: &mut Errors, versions: &[CustomResourceDefinitionVersion]) {
    if versions.is_empty() {
        errors.push(FieldError::required("spec.versions", "must have at least one version"));
        return;
    }
    let mut seen = HashSet::new();
    for (i, version) in versions.iter().enumerate() {
        let field = format!("spec.versions[{i}]");
        names(errors, &format!("{field}.name"), &version.name, dns_1035_label(&version.name));
        if !seen.insert(&version.name) {
            let detail = "must contain unique version names";
            errors.push(FieldError::invalid(&field, version.name.as_str(), detail));
        }
        one_version(errors, &field, version);
    }
    if versions.iter().filter(|v| v.storage).count() != 1 {
        let all: Vec<&str> = versions.iter().map(|v| v.name.as_str()).collect();
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", all, detail));
    }
}

fn one_version(errors: &mut Errors, field: &str, version: &CustomResourceDefinitionVersion) {
    if let Some(warning) = version.deprecation_warning.as_deref().filter(|_| version.deprecated != Some(true))
    {
        let detail = "can only be set for deprecated versions";
        errors.push(FieldError::invalid(format!("{field}.deprecationWarning"), warning, detail));
    }
    let at = format!("{field}.schema.openAPIV3Schema");
    match version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()) {
        None => errors.push(FieldError::required(at, "schemas are required")),
        Some(schema) => structural::check(errors, &at, &serde_json::json!(schema)),
    }
    if let Some(scale) = version.subresources.as_ref().and_then(|s| s.scale.as_ref()) {
        scale_paths(errors, &format!("{field}.subresources.scale"), scale);
    }
    for (i, column) in version.additional_printer_columns.iter().flatten().enumerate() {
        let at = |name: &str| format!("{field}.additionalPrinterColumns[{i}].{name}");
        required(errors, &at("name"), Some(&column.name));
        one_of(errors, &at("type"), Some(&column.type_), COLUMN_TYPES);
        required(errors, &at("jsonPath"), Some(&column.json_path));
    }
    let fields = version.selectable_fields.as_deref().unwrap_or_default();
    if fields.len() > 8 {
        errors.push(FieldError::too_many(format!("{field}.selectableFields"), fields.len() as u64, 8));
    }
    let mut seen = HashSet::new();
    for (i, selectable) in fields.iter().enumerate() {
        let at = format!("{field}.selectableFields[{i}].jsonPath");
        let path = selectable.json_path.as_str();
        if path.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else if Path::parse(path).and_then(|p| p.pointer()).is_none() || path.starts_with(".metadata") {
            let detail = "is an invalid path: must be a simple path to a field of the object";
            errors.push(FieldError::invalid(&at, path, detail));
        } else if !seen.insert(path) {
            errors.push(FieldError::duplicate(&at, path));
        }
    }
}

fn scale_paths(errors: &mut Errors, field: &str, scale: &CustomResourceSubresourceScale) {
    let paths = [
        ("specReplicasPath", Some(&scale.spec_replicas_path), &[".spec"][..], true),
        ("statusReplicasPath", Some(&scale.status_replicas_path), &[".status"][..], true),
        ("labelSelectorPath", scale.label_selector_path.as_ref(), &[".spec", ".status"][..], false),
    ];
    for (name, path, beneath, needed) in paths {
        let at = format!("{field}.{name}");
        let path = path.map(String::as_str).unwrap_or_default();
        if path.is_empty() {
            if needed {
                errors.push(FieldError::required(at, ""));
            }
            continue;
        }
        let plain = Path::parse(path).and_then(|p| p.pointer()).is_some();
        if !plain || !beneath.iter().any(|b| path.strip_prefix(b).is_some_and(|rest| rest.starts_with('.'))) {
            let detail = format!("should be a json path under {}", beneath.join(" or "));
            errors.push(FieldError::invalid(at, path, &detail));
        }
    }
}

fn conversion(errors: &mut Errors, definition: &CustomResourceDefinition) {
    let Some(conversion) = &definition.spec.conversion else { return };
    one_of(errors, "spec.conversion.strategy", Some(&conversion.strategy), &["None", "Webhook"]);
    match (conversion.strategy.as_str(), &conversion.webhook) {
        ("None", Some(_)) => errors.push(FieldError::forbidden(
            "spec.conversion.webhook",
            "should not be set when strategy is not set to Webhook",
        )),
        // To accept it and hand out objects that nobody converted would be worse.
        ("Webhook", _) => errors.push(FieldError::forbidden(
            "spec.conversion.strategy",
            "conversion by webhook is not served yet; use None",
        )),
        _ => {}
    }
}

/// What is wrong with the versions in which objects may be stored.
pub(super) fn stored_versions(definition: &CustomResourceDefinition) -> Errors {
    let stored = definition.status.as_ref().and_then(|s| s.stored_versions.as_deref()).unwrap_or_default();
    let mut errors = Vec::new();
    for (i, name) in stored.iter().enumerate() {
        if !definition.spec.versions.iter().any(|v| v.name == *name) {
            let field = format!("status.storedVersions[{i}]");
            errors.push(FieldError::invalid(field, name.as_str(), "must appear in spec.versions"));
        }
    }
    if let Some(storage) = definition.spec.versions.iter().find(|v| v.storage)
        && !stored.is_empty()
        && !stored.contains(&storage.name)
    {
        let detail = format!("must have the storage version {}", storage.name);
        errors.push(FieldError::invalid("status.storedVersions", stored.to_vec(), &detail));
    }
    errors
}

/// What may not change, some of it once the names were accepted.
pub(super) fn change(new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> Errors {
    let mut errors = Vec::new();
    let established = crate::custom::names::is_established(old);
    let (new, old) = (&new.spec, &old.spec);
    let fields = [
        ("spec.group", &new.group, &old.group, true),
        ("spec.names.plural", &new.names.plural, &old.names.plural, true),
        ("spec.scope", &new.scope, &old.scope, established),
        ("spec.names.kind", &new.names.kind, &old.names.kind, established),
    ];
    for (field, new, _, _) in fields.into_iter().filter(|(_, new, old, fixed)| *fixed && new != old) {
        errors.push(FieldError::invalid(field, new.as_str(), IMMUTABLE));
    }
    errors
}
