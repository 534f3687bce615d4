use super::*;
use crate::registry::testing::{invalid, stored, valid};

fn definition(version: Value) -> Value {
    let mut one = json!({"name": "v1", "served": true, "storage": true});
    one.as_object_mut().unwrap().extend(version.as_object().unwrap().clone());
    json!({"metadata": {"name": "webs.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "webs", "kind": "Web"}, "versions": [one]}})
}

fn schema(spec: Value) -> Value {
    json!({"schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}})
}

#[test]
fn names_follow_from_the_kind() {
    let made = stored(&CustomResourceDefinitionStrategy, definition(schema(json!({"type": "object"}))));
    assert_eq!(made["spec"]["names"]["singular"], "web");
    assert_eq!(made["spec"]["names"]["listKind"], "WebList");
    assert_eq!(made["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(made["metadata"]["finalizers"], json!([FINALIZER]));
}

#[track_caller]
fn check(document: Value, wanted: &[&str]) {
    invalid(&CustomResourceDefinitionStrategy, document, wanted);
}

#[test]
fn everything_wrong_is_told_at_once() {
    let spec = "spec.versions[0].schema.openAPIV3Schema.properties[spec]";
    check(
        definition(json!({})),
        &["spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"],
    );
    let untyped =
        format!("{spec}.properties[a].type: Required value: must not be empty for specified object fields");
    check(definition(schema(json!({"type": "object", "properties": {"a": {}}}))), &[&untyped]);
    let default = format!(
        "{spec}.properties[a].default: Invalid value: \"string\": default in body must be of type integer: \"string\""
    );
    check(
        definition(schema(
            json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}),
        )),
        &[&default],
    );
    let keys = format!(
        "{spec}.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"
    );
    let list = json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"});
    check(definition(schema(list)), &[&keys]);
    let mut wrong = definition(schema(json!({"type": "object"})));
    wrong["metadata"]["name"] = "other".into();
    wrong["spec"]["group"] = "example".into();
    wrong["spec"]["scope"] = "Galaxy".into();
    wrong["spec"]["versions"][0]["storage"] = false.into();
    check(
        wrong,
        &[
            "metadata.name: Invalid value: \"other\": must be spec.names.plural+\".\"+spec.group",
            "spec.group: Invalid value: \"example\": should be a domain with at least one dot",
            "spec.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespaced\"",
            "spec.versions: Invalid value: [\"v1\"]: must have exactly one version marked as storage version",
        ],
    );
}

#[test]
fn rules_must_compile() {
    let rule = |text: &str| {
        definition(schema(json!({"type": "object", "x-kubernetes-validations": [{"rule": text}]})))
    };
    valid(&CustomResourceDefinitionStrategy, rule("self.a > 1"));
    let made: CustomResourceDefinition = crate::registry::testing::object(rule("self.a +"));
    let errors = CustomResourceDefinitionStrategy.validate(&made);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].field.ends_with("x-kubernetes-validations[0].rule"));
    assert!(errors[0].message.contains("compilation failed"));
}
