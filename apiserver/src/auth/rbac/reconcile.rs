//! Brings the default roles and bindings up to date when the server starts: what is missing is added, what somebody
//! added stays, and what is annotated `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone.

use api::decode::decode;
use api::openapi::api::rbac::v1::PolicyRule;
use api::openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use api::status::StatusError;
use api::{Kind, Object};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::bootstrap::{self, Default as Wanted};
use super::{GROUP, rules};
use crate::auth::User;
use crate::registry::Registry;
use crate::registry::store::{Target, WriteOptions};

/// Objects that are written at once.
const AT_ONCE: usize = 32;

/// Writes what is missing.
///
/// # Errors
/// The first write that failed; to be tried again.
pub async fn run(registry: &Registry) -> Result<(), StatusError> {
    let bring = |wanted| Box::pin(ensure(registry, wanted));
    futures::stream::iter(bootstrap::defaults())
        .map(bring)
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
}

/// What becomes of an object that is there.
#[derive(Debug, PartialEq)]
enum Step {
    Keep,
    Update(Value),
    /// The role of a binding cannot change.
    Replace,
}

async fn ensure(registry: &Registry, wanted: Wanted) -> Result<(), StatusError> {
    let kind = Kind::find(GROUP, wanted.kind).expect("the kinds of RBAC are in the table");
    let name = wanted.document["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let (user, options) = (User::apiserver(), WriteOptions::default());
    let key = api::meta::key_of(wanted.namespace, &name);
    let target = Target { kind, namespace: wanted.namespace, name: &name };
    if let Some(entry) = registry.hub().cache(kind).get(&key) {
        let present = Object::parse(&entry.json).map_err(StatusError::internal)?;
        match step(&present, &wanted.document) {
            Step::Keep => return Ok(()),
            Step::Update(document) => {
                return registry.update(&user, target, None, document, &options, &|| Ok(())).await.map(drop);
            }
            Step::Replace => {
                registry.delete(&user, target, None, &DeleteOptions::default()).await?;
            }
        }
    }
    match registry.create(&user, kind, wanted.namespace, wanted.document, &options).await {
        // Another server was faster.
        Err(error) if error.is_already_exists() => Ok(()),
        other => other.map(drop),
    }
}

fn step(present: &Object, wanted: &Value) -> Step {
    let annotation = "rbac.authorization.kubernetes.io/autoupdate";
    if present.annotations().get(annotation).is_some_and(|v| v == "false") {
        return Step::Keep;
    }
    if wanted.get("roleRef").is_some_and(|role| present.pointer("/roleRef") != Some(role)) {
        return Step::Replace;
    }
    let mut next = present.clone();
    for field in ["labels", "annotations"] {
        let own = next.meta_mut().entry(field).or_insert_with(|| json!({}));
        if let (Some(own), Some(more)) = (own.as_object_mut(), wanted["metadata"][field].as_object()) {
            for (key, value) in more {
                own.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    if let Some(aggregation) = wanted.get("aggregationRule") {
        if present.pointer("/aggregationRule").is_none_or(Value::is_null) {
            next.as_map_mut().insert("aggregationRule".into(), aggregation.clone());
        }
    } else if let Some(missing) = missing_rules(present, wanted) {
        extend(&mut next, "rules", missing);
    }
    let subjects: Vec<_> =
        present.pointer("/subjects").and_then(Value::as_array).cloned().unwrap_or_default();
    let wanted_subjects = wanted.get("subjects").and_then(Value::as_array).into_iter().flatten();
    let missing: Vec<_> = wanted_subjects.filter(|s| !subjects.contains(s)).cloned().collect();
    extend(&mut next, "subjects", missing);
    if next == *present { Step::Keep } else { Step::Update(next.into_value()) }
}

fn missing_rules(present: &Object, wanted: &Value) -> Option<Vec<Value>> {
    let read = |v: Option<&Value>| v.and_then(|v| decode::<Vec<PolicyRule>>(v).ok()).unwrap_or_default();
    let missing = rules::uncovered(&read(present.pointer("/rules")), &read(wanted.get("rules")));
    let missing = rules::simplify(missing);
    missing.iter().map(|rule| serde_json::to_value(rule).ok()).collect()
}

fn extend(object: &mut Object, field: &str, more: Vec<Value>) {
    if more.is_empty() {
        return;
    }
    let list = object.as_map_mut().entry(field).or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        list.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(present: Value, wanted: Value, expected: Option<Value>) {
        let step = step(&Object::new(present).expect("a map"), &wanted);
        match expected {
            Some(document) => assert_eq!(step, Step::Update(document)),
            None => assert_eq!(step, Step::Keep),
        }
    }

    fn read(verbs: &[&str]) -> Value {
        json!({"verbs": verbs, "apiGroups": [""], "resources": ["pods"]})
    }

    #[test]
    fn what_is_missing_comes_back_and_what_was_added_stays() {
        let meta = json!({"name": "r", "labels": {"a": "b"}, "annotations": {"c": "d"}});
        let wanted = json!({"metadata": meta, "rules": [read(&["get", "list"])]});
        check(wanted.clone(), wanted.clone(), None);
        let more = json!({"metadata": meta, "rules": [read(&["*"])]});
        check(more, wanted.clone(), None);
        let less = json!({"metadata": {"name": "r", "labels": {"x": "y"}}, "rules": [read(&["get"])]});
        check(
            less,
            wanted.clone(),
            Some(json!({
                "metadata": {"name": "r", "labels": {"x": "y", "a": "b"}, "annotations": {"c": "d"}},
                "rules": [read(&["get"]), read(&["list"])],
            })),
        );
        let protected = json!({"metadata": {"name": "r", "annotations": {
            "rbac.authorization.kubernetes.io/autoupdate": "false"
        }}, "rules": []});
        check(protected, wanted, None);
    }

    #[test]
    fn a_binding_gets_its_subjects_back_and_is_replaced_for_another_role() {
        let role = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": "a"});
        let meta = json!({"name": "b", "labels": {}, "annotations": {}});
        let wanted = json!({"metadata": meta, "roleRef": role, "subjects": [{"kind": "User", "name": "u"}]});
        let bare = json!({"metadata": meta, "roleRef": role});
        check(bare, wanted.clone(), Some(wanted.clone()));
        let other = Object::new(json!({"metadata": meta, "roleRef": {"kind": "ClusterRole", "name": "z"}}));
        assert_eq!(step(&other.expect("a map"), &wanted), Step::Replace);
    }
}
