//! Rows for kinds that are known only at run time.
//!
//! A row lives as long as the process, as those of the built-in kinds do, so that whoever holds a kind need not ask
//! whether it is still there. Equal rows are made once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{LazyLock, Mutex, PoisonError};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use super::{DecodeError, Kind, Nature};

/// Texts that are kept for good, each once.
static TEXTS: LazyLock<Mutex<BTreeSet<&'static str>>> = LazyLock::new(Mutex::default);
/// Rows by group, version, plural and scope.
static ROWS: LazyLock<
    Mutex<HashMap<(&'static str, &'static str, &'static str, &'static str, bool), &'static Kind>>,
> = LazyLock::new(Mutex::default);

/// Keeps a text for good.
pub fn keep(text: &str) -> &'static str {
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kept) = texts.get(text) {
        return kept;
    }
    let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
    texts.insert(kept);
    kept
}

/// What a custom resource may hold is its schema's to say.
pub fn as_it_is(value: Value) -> Result<Value, DecodeError> {
    Ok(value)
}

/// The row by which a client asks for the objects of a definition: its first served version. Nothing until the
/// definition is established.
pub fn served(definition: &CustomResourceDefinition) -> Option<&'static Kind> {
    let status = definition.status.as_ref()?;
    status.conditions.iter().flatten().find(|c| c.type_ == "Established" && c.status == "True")?;
    let names = status.accepted_names.as_ref()?;
    let version = definition.spec.versions.iter().find(|v| v.served)?;
    let (group, version) = (keep(&definition.spec.group), keep(&version.name));
    let (plural, kind) = (keep(&names.plural), keep(&names.kind));
    let namespaced = definition.spec.scope == "Namespaced";
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    let row = rows.entry((group, version, plural, kind, namespaced)).or_insert_with(|| {
        let list_kind = names.list_kind.clone().unwrap_or_else(|| format!("{kind}List"));
        Box::leak(Box::new(Kind {
            group,
            version,
            api_version: keep(&format!("{group}/{version}")),
            kind,
            list_kind: keep(&list_kind),
            singular: names.singular.as_deref().map(keep),
            plural,
            short_names: &[],
            categories: &[],
            namespaced,
            nature: Nature::Stored,
            subresources: &[],
            generation: true,
            normalize: as_it_is,
            type_name: String::new,
            #[cfg(test)]
            record: |_| {},
            #[cfg(test)]
            round: Ok,
            custom: None,
        }))
    });
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_established_definition_has_a_row_that_stays() {
        let mut document = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "boats.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
                "names": {"plural": "boats", "kind": "Boat"}, "versions": [{"name": "v1", "served": true, "storage": true}]}});
        let of = |document: &Value| serde_json::from_value(document.clone()).expect("a definition");
        assert!(served(&of(&document)).is_none());
        document["status"] = json!({"acceptedNames": {"plural": "boats", "kind": "Boat"},
            "conditions": [{"type": "Established", "status": "True"}]});
        let row = served(&of(&document)).expect("a row");
        assert_eq!((row.api_version, row.list_kind, row.namespaced), ("example.com/v1", "BoatList", true));
        assert!(std::ptr::eq(row, served(&of(&document)).expect("a row")));
    }
}
