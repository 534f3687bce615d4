//! Rows of the table of kinds that are made from definitions.
//!
//! A row and its rules live as long as the process, as those of the built-in kinds do, so that whoever holds a
//! kind need not ask whether it is still there. A definition that comes back unchanged gets the row it had.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use api::kinds::Nature;
use api::kinds::custom::{as_it_is, keep};
use api::openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionVersion,
};
use api::{Kind, Subresource};
use serde_json::json;

use super::rules::Rules;

/// Rows by the definition that each was made from.
static ROWS: LazyLock<Mutex<HashMap<String, &'static Kind>>> = LazyLock::new(Mutex::default);

fn keep_all(texts: Option<&Vec<String>>) -> &'static [&'static str] {
    let kept: Vec<&'static str> = texts.into_iter().flatten().map(|t| keep(t)).collect();
    if kept.is_empty() { &[] } else { Box::leak(kept.into_boxed_slice()) }
}

/// The rows of a definition's served versions under the names that it was given.
pub fn of(definition: &CustomResourceDefinition) -> Vec<&'static Kind> {
    let spec = &definition.spec;
    let names = definition.status.as_ref().and_then(|s| s.accepted_names.as_ref()).unwrap_or(&spec.names);
    let namespaced = spec.scope == "Namespaced";
    let storage = spec.versions.iter().find(|v| v.storage).map(|v| v.name.as_str()).unwrap_or_default();
    let versions = spec.versions.iter().filter(|v| v.served);
    versions.map(|version| row(&spec.group, names, namespaced, storage, version)).collect()
}

/// The row of the version in which a definition's objects are stored, served or not.
pub fn stored(definition: &CustomResourceDefinition) -> Option<&'static Kind> {
    let spec = &definition.spec;
    let names = definition.status.as_ref().and_then(|s| s.accepted_names.as_ref()).unwrap_or(&spec.names);
    let storage = spec.versions.iter().find(|v| v.storage)?;
    Some(row(&spec.group, names, spec.scope == "Namespaced", &storage.name, storage))
}

fn row(
    group: &str,
    names: &CustomResourceDefinitionNames,
    namespaced: bool,
    storage: &str,
    version: &CustomResourceDefinitionVersion,
) -> &'static Kind {
    let key = json!([group, names, namespaced, storage, version]).to_string();
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(row) = rows.get(&key) {
        return row;
    }
    let parts = version.subresources.as_ref();
    let mut subresources = Vec::new();
    subresources.extend(parts.and_then(|s| s.status.as_ref()).map(|_| Subresource::Status));
    subresources.extend(parts.and_then(|s| s.scale.as_ref()).map(|_| Subresource::Scale));
    let api_version = format!("{group}/{}", version.name);
    let list_kind = names.list_kind.clone().unwrap_or_else(|| format!("{}List", names.kind));
    let singular = names.singular.clone().unwrap_or_else(|| names.kind.to_lowercase());
    let rules: &'static Rules = Box::leak(Box::new(Rules::new(group, &names.kind, storage, version)));
    let row: &'static Kind = Box::leak(Box::new(Kind {
        group: keep(group),
        version: keep(&version.name),
        api_version: keep(&api_version),
        kind: keep(&names.kind),
        list_kind: keep(&list_kind),
        plural: keep(&names.plural),
        singular: Some(keep(&singular)),
        short_names: keep_all(names.short_names.as_ref()),
        categories: keep_all(names.categories.as_ref()),
        namespaced,
        nature: Nature::Stored,
        subresources: Box::leak(subresources.into_boxed_slice()),
        generation: true,
        normalize: as_it_is,
        type_name: String::new,
        custom: Some(rules),
    }));
    rows.insert(key, row);
    row
}
