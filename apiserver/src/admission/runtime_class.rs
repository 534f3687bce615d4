//! RuntimeClass: a pod pays for what its runtime needs and goes where that is.

use api::Object;
use api::openapi::api::node::v1::RuntimeClass;
use serde_json::{Value, json};

/// The class that a pod names.
pub fn name(pod: &Object) -> Option<&str> {
    Some(pod.str_at("/spec/runtimeClassName")).filter(|name| !name.is_empty())
}

/// Adds overhead, node selector and tolerations of its class to a pod.
///
/// # Errors
/// When the pod says otherwise than its class.
pub fn apply(pod: &mut Object, class: &RuntimeClass) -> Result<(), String> {
    let Some(spec) = pod.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    let fixed = class.overhead.as_ref().and_then(|o| o.pod_fixed.as_ref()).filter(|f| !f.is_empty());
    let own = spec.get("overhead").filter(|o| o.as_object().is_some_and(|o| !o.is_empty()));
    match (fixed, own) {
        (None, None) => {}
        (None, Some(_)) => {
            return Err(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into()
            );
        }
        (Some(fixed), Some(own)) if *own != json!(fixed) => {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        (Some(fixed), _) => {
            spec.insert("overhead".into(), json!(fixed));
        }
    }
    let Some(scheduling) = &class.scheduling else { return Ok(()) };
    if let Some(selector) = scheduling.node_selector.as_ref().filter(|s| !s.is_empty()) {
        let merged = spec.entry("nodeSelector").or_insert_with(|| json!({}));
        if merged.is_null() {
            *merged = json!({});
        }
        let Some(merged) = merged.as_object_mut() else { return Ok(()) };
        for (key, value) in selector {
            if merged.get(key).and_then(Value::as_str).is_some_and(|own| own != value) {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {}",
                    merged.get(key).and_then(Value::as_str).unwrap_or_default()
                ));
            }
            merged.insert(key.clone(), value.clone().into());
        }
    }
    let tolerations = scheduling.tolerations.iter().flatten().map(|t| json!(t));
    let list = spec.entry("tolerations").or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        for toleration in tolerations {
            if !list.contains(&toleration) {
                list.push(toleration);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class() -> RuntimeClass {
        serde_json::from_value(json!({
            "metadata": {"name": "vm"}, "handler": "kata", "overhead": {"podFixed": {"memory": "64Mi"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]},
        }))
        .expect("a class")
    }

    #[track_caller]
    fn check(spec: Value, wanted: Result<(), &str>) {
        let mut pod = Object::new(json!({"spec": spec})).expect("a map");
        match (apply(&mut pod, &class()), wanted) {
            (Ok(()), Ok(())) => {
                assert_eq!(pod.str_at("/spec/overhead/memory"), "64Mi");
                assert_eq!(pod.str_at("/spec/nodeSelector/vm"), "yes");
                assert_eq!(pod.str_at("/spec/tolerations/0/key"), "vm");
            }
            (Err(error), Err(text)) => assert!(error.contains(text), "{error}"),
            (result, _) => panic!("{result:?}"),
        }
    }

    #[test]
    fn a_pod_gets_what_its_class_says_and_may_not_contradict() {
        check(json!({}), Ok(()));
        check(json!({"overhead": {"memory": "64Mi"}, "nodeSelector": {"vm": "yes"}}), Ok(()));
        check(json!({"overhead": {"memory": "1Mi"}}), Err("doesn't match"));
        check(
            json!({"nodeSelector": {"vm": "no"}}),
            Err("conflict: runtimeClass.scheduling.nodeSelector[vm] = yes"),
        );
    }
}
