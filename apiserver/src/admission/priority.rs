//! Priority: a pod's class becomes its number, and there is one default class.

use api::openapi::api::scheduling::v1::PriorityClass;
use api::status::StatusError;
use api::{Kind, Object};
use serde_json::{Value, json};

/// What begins the names of classes that belong to the system.
const SYSTEM: &str = "system-";

/// The classes that every cluster has: name, value, description.
pub const BUILT_IN: &[(&str, i32, &str)] = &[
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

/// The highest value that a class of a user may have.
const HIGHEST: i32 = 1_000_000_000;

/// Resolves the class of a new pod.
///
/// # Errors
/// 403 when the class does not exist, or when the pod brings another number than its class has.
pub fn resolve(pod: &mut Object, classes: &[PriorityClass]) -> Result<(), String> {
    let Some(spec) = pod.as_map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    let name = spec.get("priorityClassName").and_then(Value::as_str).unwrap_or_default().to_owned();
    let by_name = |name: &str| classes.iter().find(|c| c.metadata.name.as_deref() == Some(name));
    let (value, policy) = if name.is_empty() {
        // Of several defaults the one of least value counts.
        let default = classes.iter().filter(|c| c.global_default == Some(true)).min_by_key(|c| c.value);
        if let Some(default) = default {
            spec.insert("priorityClassName".into(), json!(default.metadata.name));
        }
        (default.map_or(0, |c| c.value), default.and_then(|c| c.preemption_policy.clone()))
    } else {
        let built_in = BUILT_IN.iter().find(|(n, ..)| *n == name).map(|(_, value, _)| (*value, None));
        let found = by_name(&name).map(|c| (c.value, c.preemption_policy.clone()));
        let Some(found) = found.or(built_in) else {
            return Err(format!("no PriorityClass with name {name} was found"));
        };
        found
    };
    if spec.get("priority").and_then(Value::as_i64).is_some_and(|own| own != i64::from(value)) {
        let own = spec.get("priority").and_then(Value::as_i64).unwrap_or_default();
        return Err(format!(
            "the integer value of priority ({own}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        ));
    }
    spec.insert("priority".into(), value.into());
    let policy = policy.unwrap_or_else(|| "PreemptLowerPriority".into());
    let own = spec.get("preemptionPolicy").and_then(Value::as_str);
    if own.is_some_and(|own| own != policy) {
        return Err(format!(
            "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name",
            own.unwrap_or_default()
        ));
    }
    spec.insert("preemptionPolicy".into(), policy.into());
    Ok(())
}

/// Whether a class may be written.
///
/// # Errors
/// 403 for a second default class, and for what only the system may have.
pub fn validate_class(kind: &Kind, class: &Object, classes: &[PriorityClass]) -> Result<(), StatusError> {
    let refuse = |why: String| Err(StatusError::forbidden(kind, class.name(), why));
    let value = class.int_at("/value").unwrap_or_default();
    let own = BUILT_IN.iter().any(|(name, own, _)| *name == class.name() && i64::from(*own) == value);
    if !own && class.name().starts_with(SYSTEM) {
        return refuse(format!(
            "priority class names with '{SYSTEM}' prefix are reserved for system use only"
        ));
    }
    if !own && value > i64::from(HIGHEST) {
        return refuse(format!("maximum allowed value of a user defined priority is {HIGHEST}"));
    }
    if class.pointer("/globalDefault").and_then(Value::as_bool) == Some(true) {
        let other = classes
            .iter()
            .find(|c| c.global_default == Some(true) && c.metadata.name.as_deref() != Some(class.name()));
        if let Some(other) = other.and_then(|c| c.metadata.name.as_deref()) {
            return refuse(format!(
                "PriorityClass {other} is already marked as default. Only one default can exist"
            ));
        }
    }
    Ok(())
}

/// The document of a class that every cluster has.
pub fn document(name: &str, value: i32, description: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "value": value,
        "description": description,
        "preemptionPolicy": "PreemptLowerPriority",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, value: i32, default: bool) -> PriorityClass {
        serde_json::from_value(json!({"metadata": {"name": name}, "value": value, "globalDefault": default}))
            .expect("a class")
    }

    #[track_caller]
    fn check(spec: Value, classes: &[PriorityClass], wanted: Result<(i64, &str), &str>) {
        let mut pod = Object::new(json!({"spec": spec})).expect("a map");
        match (resolve(&mut pod, classes), wanted) {
            (Ok(()), Ok((priority, name))) => {
                assert_eq!(pod.int_at("/spec/priority"), Some(priority));
                assert_eq!(pod.str_at("/spec/priorityClassName"), name);
                assert_eq!(pod.str_at("/spec/preemptionPolicy"), "PreemptLowerPriority");
            }
            (Err(error), Err(text)) => assert!(error.contains(text), "{error}"),
            (result, _) => panic!("{result:?}"),
        }
    }

    #[test]
    fn a_pods_class_becomes_its_number() {
        let high = class("high", 1000, false);
        check(json!({}), &[], Ok((0, "")));
        check(json!({"priorityClassName": "high"}), std::slice::from_ref(&high), Ok((1000, "high")));
        check(json!({"priorityClassName": "high"}), &[], Err("no PriorityClass with name high was found"));
        check(
            json!({"priorityClassName": "system-node-critical"}),
            &[],
            Ok((2_000_001_000, "system-node-critical")),
        );
        check(json!({"priority": 7}), &[], Err("(7) must not be provided"));
        check(json!({"priority": 0}), &[], Ok((0, "")));
        let defaults = [class("b", 20, true), class("a", 10, true)];
        check(json!({}), &defaults, Ok((10, "a")));
    }

    #[test]
    fn there_is_one_default_and_the_systems_names_are_its_own() {
        let kind = Kind::find("scheduling.k8s.io", "PriorityClass").expect("a kind");
        let validate = |value: Value| {
            let class_ = Object::new(value).expect("a map");
            validate_class(kind, &class_, &[class("first", 1, true)]).map_err(|e| e.to_string())
        };
        let made = |name: &str, value: i32, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default});
        assert!(validate(made("x", 5, false)).is_ok());
        assert!(validate(made("first", 5, true)).is_ok());
        assert!(
            validate(made("x", 5, true)).expect_err("refused").contains("first is already marked as default")
        );
        assert!(validate(made("system-x", 5, false)).expect_err("refused").contains("reserved"));
        assert!(validate(made("x", HIGHEST + 1, false)).expect_err("refused").contains("maximum"));
        let (name, value, description) = BUILT_IN[0];
        assert!(validate(document(name, value, description)).is_ok());
    }
}
