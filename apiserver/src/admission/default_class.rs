//! DefaultStorageClass and DefaultIngressClass: a claim or an Ingress that names no class gets the one that is marked
//! as default.

use api::Object;
use api::openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

/// Marks a StorageClass, now and in the past.
const STORAGE: &[&str] =
    &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// Marks an IngressClass.
const INGRESS: &[&str] = &["ingressclass.kubernetes.io/is-default-class"];

/// The name of the default class: of several, the one that was made last, and of these the first by name.
fn default_of<'a>(classes: &'a [ObjectMeta], marks: &[&str]) -> Option<&'a str> {
    let marked = |meta: &&ObjectMeta| {
        let annotations = meta.annotations.as_ref();
        marks.iter().any(|mark| annotations.and_then(|a| a.get(*mark)).is_some_and(|v| v == "true"))
    };
    let newest = classes.iter().filter(marked).max_by(|a, b| {
        let age = a.creation_timestamp.as_ref().map(|t| t.0).cmp(&b.creation_timestamp.as_ref().map(|t| t.0));
        age.then_with(|| b.name.cmp(&a.name))
    });
    newest?.name.as_deref()
}

fn set(object: &mut Object, field: &str, legacy: &str, class: Option<&str>) {
    let Some(class) = class else { return };
    if object.annotations().contains_key(legacy) {
        return;
    }
    let spec = object.as_map_mut().entry("spec").or_insert_with(|| json!({}));
    // What is of another type is refused when the document is decoded.
    let Some(spec) = spec.as_object_mut() else { return };
    // An empty name is a name: that of no class at all.
    if spec.get(field).is_none_or(Value::is_null) {
        spec.insert(field.to_owned(), class.into());
    }
}

/// Gives a new PersistentVolumeClaim its class.
pub fn claim(claim: &mut Object, classes: &[ObjectMeta]) {
    set(claim, "storageClassName", "volume.beta.kubernetes.io/storage-class", default_of(classes, STORAGE));
}

/// Gives a new Ingress its class.
pub fn ingress(ingress: &mut Object, classes: &[ObjectMeta]) {
    set(ingress, "ingressClassName", "kubernetes.io/ingress.class", default_of(classes, INGRESS));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_default_class_is_given_where_none_is_named() {
        let class = |name: &str, at: &str, default: &str| -> ObjectMeta {
            serde_json::from_value(
                json!({"name": name, "creationTimestamp": at, "annotations": {STORAGE[0]: default}}),
            )
            .expect("metadata")
        };
        let classes = [
            class("old", "2020-01-01T00:00:00Z", "true"),
            class("b", "2021-01-01T00:00:00Z", "true"),
            class("a", "2021-01-01T00:00:00Z", "true"),
            class("new", "2022-01-01T00:00:00Z", "false"),
        ];
        let given = |spec: Value, classes: &[ObjectMeta]| {
            let mut object = Object::new(json!({"spec": spec})).expect("a map");
            claim(&mut object, classes);
            object.pointer("/spec/storageClassName").cloned()
        };
        assert_eq!(given(json!({}), &classes), Some(json!("a")));
        assert_eq!(given(json!({"storageClassName": ""}), &classes), Some(json!("")));
        assert_eq!(given(json!({}), &classes[3..]), None);
    }

    #[test]
    fn the_older_annotation_names_a_class_too() {
        let meta: ObjectMeta =
            serde_json::from_value(json!({"name": "c", "annotations": {INGRESS[0]: "true"}}))
                .expect("metadata");
        let mut old = Object::new(json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}}))
            .expect("a map");
        ingress(&mut old, std::slice::from_ref(&meta));
        assert_eq!(old.pointer("/spec"), None);
        let mut new = Object::new(json!({})).expect("a map");
        ingress(&mut new, &[meta]);
        assert_eq!(new.str_at("/spec/ingressClassName"), "c");
    }
}
