//! What the subresources `pods/binding` and `pods/eviction` do.

use api::decode::decode;
use api::openapi::api::core::v1::Binding;
use api::openapi::api::policy::v1::Eviction;
use api::openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use api::status::StatusError;
use api::validation::FieldError;
use api::{Kind, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::meta::whole_seconds;

/// Reads a Binding.
///
/// # Errors
/// 400 for what is none, 422 for one that names no node.
pub fn parse_binding(kind: &Kind, name: &str, document: Value) -> Result<Binding, StatusError> {
    let binding: Binding = typed(document, "v1", "Binding")?;
    let mut errors = Vec::new();
    if !matches!(binding.target.kind.as_deref().unwrap_or_default(), "" | "Node") {
        let kind = binding.target.kind.as_deref().unwrap_or_default();
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    if binding.target.name.as_deref().unwrap_or_default().is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    let own = binding.metadata.name.as_deref().unwrap_or_default();
    if !own.is_empty() && own != name {
        return Err(StatusError::bad_request(format!(
            "name in URL ({name}) does not match name in Binding object: {own}"
        )));
    }
    if errors.is_empty() { Ok(binding) } else { Err(StatusError::invalid(kind, name, &errors)) }
}

/// Reads an Eviction: the options with which the pod is to be deleted.
///
/// # Errors
/// 400 for what is none.
pub fn parse_eviction(name: &str, document: Value) -> Result<DeleteOptions, StatusError> {
    let eviction: Eviction = typed(document, "policy/v1", "Eviction")?;
    let own = eviction.metadata.name.as_deref().unwrap_or_default();
    if !own.is_empty() && own != name {
        return Err(StatusError::bad_request(format!(
            "name in URL ({name}) does not match name in Eviction object: {own}"
        )));
    }
    Ok(eviction.delete_options.unwrap_or_default())
}

fn typed<T: serde::de::DeserializeOwned>(
    mut document: Value,
    api_version: &str,
    kind: &str,
) -> Result<T, StatusError> {
    let Some(map) = document.as_object_mut() else {
        return Err(StatusError::bad_request("the request body is not a JSON object"));
    };
    for (field, wanted) in [("apiVersion", api_version), ("kind", kind)] {
        let own = map.entry(field).or_insert_with(|| wanted.into());
        if own.as_str() != Some(wanted) {
            return Err(StatusError::bad_request(format!("{field}: {own} is not {wanted:?}")));
        }
    }
    decode(&document)
        .map_err(|error| StatusError::bad_request(format!("{kind} cannot be handled as a {kind}: {error}")))
}

/// The pod as it is after it was bound.
///
/// # Errors
/// 409 when the pod is another one, is being deleted, or has a node already.
pub fn bind(kind: &Kind, binding: &Binding, pod: &Object, now: Timestamp) -> Result<Object, StatusError> {
    let conflict = |why: String| {
        let mut error = StatusError::conflict(kind, pod.name(), &why);
        error.0.message =
            Some(format!("Operation cannot be fulfilled on pods/binding {:?}: {why}", pod.name()));
        error
    };
    if let Some(uid) = binding.metadata.uid.as_deref().filter(|uid| !uid.is_empty() && *uid != pod.uid()) {
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", pod.uid());
        return Err(conflict(why));
    }
    if let Some(wanted) = binding.metadata.resource_version.as_deref()
        && !wanted.is_empty()
        && wanted != pod.resource_version()
    {
        return Err(StatusError::stale(kind, pod.name()));
    }
    if pod.deletion_timestamp().is_some() {
        return Err(conflict(format!("pod {} is being deleted, cannot be assigned to a host", pod.name())));
    }
    let node = pod.str_at("/spec/nodeName");
    if !node.is_empty() {
        return Err(conflict(format!("pod {} is already assigned to node {node:?}", pod.name())));
    }
    let mut bound = pod.clone();
    for (key, value) in binding.metadata.annotations.iter().flatten() {
        let annotations = bound.meta_mut().entry("annotations").or_insert_with(|| json!({}));
        if let Some(map) = annotations.as_object_mut() {
            map.insert(key.clone(), value.clone().into());
        }
    }
    let target = binding.target.name.clone().unwrap_or_default();
    let spec = bound.as_map_mut().entry("spec").or_insert_with(|| json!({}));
    if let Some(spec) = spec.as_object_mut() {
        spec.insert("nodeName".into(), target.into());
    }
    set_scheduled(&mut bound, now);
    Ok(bound)
}

fn set_scheduled(pod: &mut Object, now: Timestamp) {
    let mut scheduled =
        json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": whole_seconds(now)});
    if let Some(generation) = pod.meta().and_then(|m| m.get("generation")) {
        scheduled["observedGeneration"] = generation.clone();
    }
    set_condition(pod, scheduled);
}

/// Replaces the condition of the same type. False when it said the same already.
pub fn set_condition(pod: &mut Object, mut condition: Value) -> bool {
    let status = pod.as_map_mut().entry("status").or_insert_with(|| json!({}));
    let Some(status) = status.as_object_mut() else { return false };
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(list) = conditions.as_array_mut() else { return false };
    let Some(present) = list.iter().position(|c| c.get("type") == condition.get("type")) else {
        list.push(condition);
        return true;
    };
    let present = &mut list[present];
    if present.get("status") == condition.get("status")
        && let Some(since) = present.get("lastTransitionTime")
    {
        condition["lastTransitionTime"] = since.clone();
    }
    let changes = *present != condition;
    *present = condition;
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(binding: Value, pod: Value, wanted: Result<&str, (u16, &str)>) {
        let kind = Kind::find("", "Pod").expect("a kind");
        let result = parse_binding(kind, "web", binding)
            .and_then(|b| bind(kind, &b, &Object::new(pod).expect("a map"), Timestamp::UNIX_EPOCH));
        match (result, wanted) {
            (Ok(pod), Ok(node)) => {
                assert_eq!(pod.str_at("/spec/nodeName"), node);
                assert_eq!(pod.str_at("/status/conditions/0/status"), "True");
            }
            (Err(error), Err((code, text))) => {
                assert_eq!(error.code(), code, "{error}");
                assert!(error.to_string().contains(text), "{error}");
            }
            (result, wanted) => panic!("{result:?} instead of {wanted:?}"),
        }
    }

    #[test]
    fn a_pod_is_bound_once() {
        let to = |node: &str| json!({"target": {"kind": "Node", "name": node}});
        let pod = json!({"metadata": {"name": "web", "uid": "1"}, "spec": {}});
        check(to("n1"), pod.clone(), Ok("n1"));
        check(to(""), pod.clone(), Err((422, "target.name: Required value")));
        check(json!({"target": {"kind": "Pod", "name": "x"}}), pod.clone(), Err((422, "target.kind")));
        check(json!({"target": 5}), pod.clone(), Err((400, "target")));
        check(
            json!({"metadata": {"name": "other"}, "target": {"name": "n1"}}),
            pod.clone(),
            Err((400, "other")),
        );
        check(
            json!({"metadata": {"uid": "2"}, "target": {"name": "n1"}}),
            pod,
            Err((409, "UID in precondition")),
        );
        let bound = json!({"metadata": {"name": "web"}, "spec": {"nodeName": "n0"}});
        check(to("n1"), bound, Err((409, "pod web is already assigned to node \"n0\"")));
        let dying =
            json!({"metadata": {"name": "web", "deletionTimestamp": "2020-01-01T00:00:00Z"}, "spec": {}});
        check(to("n1"), dying, Err((409, "is being deleted")));
    }

    #[test]
    fn an_eviction_carries_delete_options() {
        let options =
            parse_eviction("web", json!({"deleteOptions": {"gracePeriodSeconds": 5}})).expect("fine");
        assert_eq!(options.grace_period_seconds, Some(5));
        for bad in [
            json!([]),
            json!({"kind": "Pod"}),
            json!({"deleteOptions": 5}),
            json!({"metadata": {"name": "x"}}),
        ] {
            assert_eq!(parse_eviction("web", bad).expect_err("refused").code(), 400);
        }
    }
}
