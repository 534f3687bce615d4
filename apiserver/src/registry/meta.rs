//! The rules of `metadata`, the same for every kind: what the server sets, what a client may not change,
//! and what names, labels, annotations, finalizers and owners must look like.

use api::decode::decode;
use api::openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use api::status::StatusError;
use api::validation::{self, FieldError};
use api::{Kind, Object, Subresource};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::{ErasedStrategy, wrong_type};

/// Metadata that only the server writes.
const SERVER_FIELDS: &[&str] =
    &["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"];
/// Metadata that is not kept. The store takes `managedFields` out before, and puts them back.
const DROPPED_FIELDS: &[&str] = &["managedFields", "selfLink"];

/// Takes a client's document for a kind: a map whose `apiVersion` and `kind` are right or absent, and whose
/// metadata has the right types.
pub fn intake(kind: &Kind, document: Value) -> Result<Object, StatusError> {
    let Ok(mut object) = Object::new(document) else {
        return Err(StatusError::bad_request("the request body is not a JSON object"));
    };
    for (field, wanted) in [("apiVersion", kind.api_version), ("kind", kind.kind)] {
        match object.as_map().get(field) {
            None | Some(Value::Null) => {
                object.as_map_mut().insert(field.into(), wanted.into());
            }
            Some(Value::String(text)) if text == wanted => {}
            Some(Value::String(text)) if text.is_empty() => {
                object.as_map_mut().insert(field.into(), wanted.into());
            }
            Some(Value::String(text)) if field == "apiVersion" => {
                return Err(StatusError::bad_request(format!(
                    "the API version in the data ({text}) does not match the expected API version ({wanted})"
                )));
            }
            Some(Value::String(text)) => {
                return Err(StatusError::bad_request(format!(
                    "the kind in the data ({text}) does not match the expected kind ({wanted})"
                )));
            }
            Some(_) => return Err(StatusError::bad_request(format!("{field}: must be a string"))),
        }
    }
    match object.as_map().get("metadata") {
        None | Some(Value::Null) => {
            object.as_map_mut().insert("metadata".into(), json!({}));
        }
        Some(meta) => {
            decode::<ObjectMeta>(meta).map_err(|mut error| {
                error.path.insert_str(0, "metadata.");
                wrong_type(kind, &error)
            })?;
        }
    }
    object.meta_mut().retain(|_, value| !value.is_null());
    Ok(object)
}

/// Puts the object into the namespace of the request, or refuses when it says that it is in another.
pub fn place(kind: &Kind, object: &mut Object, namespace: &str) -> Result<(), StatusError> {
    if !kind.namespaced {
        object.set_meta_str("namespace", "");
        return Ok(());
    }
    match object.namespace() {
        "" => object.set_meta_str("namespace", namespace),
        own if own == namespace => {}
        _ => {
            return Err(StatusError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// What the server sets in a new object.
pub fn prepare_for_create(kind: &Kind, object: &mut Object, now: Timestamp, uid: &str) {
    let meta = object.meta_mut();
    for field in SERVER_FIELDS.iter().chain(DROPPED_FIELDS) {
        meta.remove(*field);
    }
    meta.remove("resourceVersion");
    meta.insert("uid".into(), uid.into());
    meta.insert("creationTimestamp".into(), whole_seconds(now).into());
    if kind.generation {
        meta.insert("generation".into(), 1.into());
    }
}

/// RFC 3339 in whole seconds, as `creationTimestamp` has it.
pub fn whole_seconds(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second()).unwrap_or(Timestamp::MAX).to_string()
}

/// Carries over what a client may not change. Refuses a change of identity.
pub fn prepare_for_update(kind: &Kind, new: &mut Object, old: &Object) -> Result<(), StatusError> {
    if !new.uid().is_empty() && new.uid() != old.uid() {
        let message = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            new.uid(),
            old.uid()
        );
        return Err(StatusError::conflict(kind, old.name(), message));
    }
    let old_meta = old.meta().cloned().unwrap_or_default();
    let meta = new.meta_mut();
    for field in DROPPED_FIELDS {
        meta.remove(*field);
    }
    for field in SERVER_FIELDS {
        match old_meta.get(*field) {
            Some(value) => meta.insert((*field).into(), value.clone()),
            None => meta.remove(*field),
        };
    }
    Ok(())
}

/// Counts the generation up when anything but metadata and status changed.
pub fn count_generation(kind: &Kind, new: &mut Object, old: &Object) {
    if !kind.generation {
        return;
    }
    // A custom kind without the subresource has its status as any other field.
    let status = kind.custom.is_some() && !kind.has(Subresource::Status);
    let counted = |o: &Object| {
        let map = o
            .as_map()
            .iter()
            .filter(|(k, _)| *k != "metadata" && *k != "apiVersion" && (status || *k != "status"));
        map.map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>()
    };
    let generation = old.generation().max(1) + i64::from(counted(new) != counted(old));
    new.meta_mut().insert("generation".into(), generation.into());
}

/// Every wrong field of the metadata of a new object, its name included.
pub fn validate_create(kind: &Kind, strategy: &dyn ErasedStrategy, object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let prefix =
        object.meta().and_then(|m| m.get("generateName")).and_then(Value::as_str).unwrap_or_default();
    if object.name().is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        let problems = strategy.validate_name(object.name());
        errors.extend(problems.iter().map(|p| FieldError::invalid("metadata.name", object.name(), p)));
        let unsafe_path = validation::path_segment(object.name());
        if problems.is_empty() {
            errors.extend(unsafe_path.iter().map(|p| FieldError::invalid("metadata.name", object.name(), p)));
        }
        if problems.is_empty() && object.name().len() > 253 {
            errors.push(FieldError::too_long("metadata.name", 253));
        }
    }
    if prefix.len() > 253 {
        errors.push(FieldError::too_long("metadata.generateName", 253));
    }
    if kind.namespaced {
        let problems = validation::dns_label(object.namespace());
        errors.extend(
            problems.iter().map(|p| FieldError::invalid("metadata.namespace", object.namespace(), p)),
        );
    }
    errors.extend(validate(kind, object));
    errors
}

/// Every wrong field of the metadata of a changed object.
pub fn validate_update(kind: &Kind, new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let identity: &[_] = if kind.namespaced { &["name", "namespace"] } else { &["name"] };
    for field in identity {
        let get = |o: &Object| o.str_at(&format!("/metadata/{field}")).to_owned();
        if get(new) != get(old) {
            errors.push(FieldError::invalid(format!("metadata.{field}"), get(new), "field is immutable"));
        }
    }
    if old.deletion_timestamp().is_some() {
        let known = old.finalizers();
        let added: Vec<_> = new.finalizers().into_iter().filter(|f| !known.contains(f)).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.push(FieldError::forbidden("metadata.finalizers", &detail));
        }
    }
    errors.extend(validate(kind, new));
    errors
}

fn validate(kind: &Kind, object: &Object) -> Vec<FieldError> {
    let mut errors = validation::labels(&object.labels(), "metadata.labels");
    errors.extend(validation::annotations(&object.annotations(), "metadata.annotations"));
    for finalizer in object.finalizers() {
        errors.extend(validate_finalizer(kind, &finalizer));
    }
    errors.extend(validate_owners(&object.owner_references()));
    errors
}

fn validate_finalizer(kind: &Kind, finalizer: &str) -> Vec<FieldError> {
    // Custom resources and their definitions may have finalizers of any name.
    let any = kind.custom.is_some() || kind.group == "apiextensions.k8s.io";
    let standard = any || matches!(finalizer, "orphan" | "foregroundDeletion" | "kubernetes");
    let mut errors: Vec<_> = validation::qualified_name(finalizer)
        .iter()
        .map(|p| FieldError::invalid("metadata.finalizers", finalizer, p))
        .collect();
    if errors.is_empty() && !standard && !finalizer.contains('/') {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid("metadata.finalizers", finalizer, detail));
    }
    errors
}

fn validate_owners(owners: &[OwnerReference]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, owner) in owners.iter().enumerate() {
        let field = |name: &str| format!("metadata.ownerReferences[{i}].{name}");
        for (name, value) in [("apiVersion", &owner.api_version), ("kind", &owner.kind)] {
            if value.is_empty() {
                errors.push(FieldError::invalid(field(name), value.as_str(), "must not be empty"));
            }
        }
        for (name, value) in [("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.push(FieldError::invalid(field(name), value.as_str(), "must not be empty"));
            }
        }
    }
    if owners.iter().filter(|o| o.controller == Some(true)).count() > 1 {
        let detail = "Only one reference can have Controller set to true";
        errors.push(FieldError::invalid("metadata.ownerReferences", json!(owners), detail));
    }
    errors
}

/// Letters and digits of generated names, without vowels and look-alikes.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A name from `generateName`: the prefix, cut so that the name fits a label, and five random characters.
pub fn generate_name(prefix: &str, mut random: impl FnMut(usize) -> usize) -> String {
    let mut end = prefix.len().min(58);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = prefix[..end].to_owned();
    name.extend((0..5).map(|_| char::from(ALPHABET[random(ALPHABET.len()) % ALPHABET.len()])));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> &'static Kind {
        Kind::find("", "Pod").expect("a kind")
    }

    #[track_caller]
    fn refused(document: Value, wanted: &str) {
        let error = intake(pod(), document).expect_err("it must be refused");
        assert_eq!(error.code(), 400);
        assert!(error.to_string().contains(wanted), "{error}");
    }

    #[test]
    fn documents_of_another_shape_are_refused() {
        refused(json!([]), "not a JSON object");
        refused(
            json!({"kind": "Service"}),
            "the kind in the data (Service) does not match the expected kind (Pod)",
        );
        refused(json!({"apiVersion": "apps/v1"}), "the API version in the data (apps/v1)");
        refused(json!({"apiVersion": 1}), "apiVersion: must be a string");
        refused(json!({"metadata": "x"}), "metadata");
        refused(json!({"metadata": {"name": 5}}), "metadata.name");
        refused(json!({"metadata": {"labels": {"a": 5}}}), "metadata.labels.a");
        let filled = intake(pod(), json!({"metadata": null})).expect("fine");
        assert_eq!((filled.api_version(), filled.kind()), ("v1", "Pod"));
    }

    #[test]
    fn a_changed_spec_counts_the_generation_and_a_changed_status_does_not() {
        let kind = Kind::find("apps", "Deployment").expect("a kind");
        let object = |spec: i64, status: i64| {
            Object::new(json!({"metadata": {"generation": 4}, "spec": {"replicas": spec}, "status": {"replicas": status}}))
                .expect("a map")
        };
        for (new, wanted) in [(object(1, 2), 4), (object(2, 1), 5)] {
            let mut new = new;
            count_generation(kind, &mut new, &object(1, 1));
            assert_eq!(new.generation(), wanted);
        }
    }

    #[test]
    fn identity_and_finalizers_of_a_dying_object_cannot_change() {
        let old = Object::new(json!({"metadata": {
            "name": "a", "namespace": "n", "uid": "1", "deletionTimestamp": "2020-01-01T00:00:00Z", "finalizers": ["x/y"]
        }}))
        .expect("a map");
        let mut new = old.clone();
        new.meta_mut().insert("name".into(), "b".into());
        new.set_finalizers(&["x/y".into(), "x/z".into()]);
        let fields: Vec<_> = validate_update(pod(), &new, &old).into_iter().map(|e| e.field).collect();
        assert_eq!(fields, ["metadata.name", "metadata.finalizers"]);
        new.meta_mut().insert("uid".into(), "2".into());
        assert!(prepare_for_update(pod(), &mut new, &old).expect_err("another uid").is_conflict());
    }

    #[test]
    fn generated_names_fit_a_label() {
        assert_eq!(generate_name("web-", |_| 0), "web-bbbbb");
        assert_eq!(generate_name(&"a".repeat(100), |_| 1).len(), 63);
        assert_eq!(generate_name(&"ü".repeat(100), |_| 1).chars().count(), 34);
    }
}
