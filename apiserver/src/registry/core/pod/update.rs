//! What of a pod may change once it exists.

use api::openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, Toleration};
use api::validation::FieldError;
use serde_json::Value;

use crate::registry::fields::Errors;

const ALLOWED: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Checks a change of the spec.
pub fn spec(errors: &mut Errors, new: &Pod, old: &Pod) {
    let (empty_new, empty_old) = (PodSpec::default(), PodSpec::default());
    let (new, old) = (new.spec.as_ref().unwrap_or(&empty_new), old.spec.as_ref().unwrap_or(&empty_old));
    if new.containers.len() != old.containers.len() {
        errors.push(FieldError::forbidden("spec.containers", "pod updates may not add or remove containers"));
        return;
    }
    let init = |spec: &PodSpec| spec.init_containers.as_ref().map_or(0, Vec::len);
    if init(new) != init(old) {
        let detail = "pod updates may not add or remove containers";
        errors.push(FieldError::forbidden("spec.initContainers", detail));
        return;
    }
    active_deadline(errors, new.active_deadline_seconds, old.active_deadline_seconds);
    let tolerations = |spec: &PodSpec| spec.tolerations.clone().unwrap_or_default();
    only_additions(errors, &tolerations(new), &tolerations(old));
    let gates = |spec: &PodSpec| spec.scheduling_gates.clone().unwrap_or_default();
    let (before, after) = (gates(old), gates(new));
    for gate in after.iter().filter(|gate| !before.contains(gate)) {
        let detail = "only deletion is allowed, but found new scheduling gate";
        let field = format!("spec.schedulingGates[{}]", after.iter().position(|g| g == gate).unwrap_or(0));
        errors.push(FieldError::forbidden(field, &format!("{detail} '{}'", gate.name)));
    }
    let changed = changed_fields(&as_allowed(new, old, !before.is_empty()), old);
    if !changed.is_empty() {
        let detail = format!("{ALLOWED}\nchanged: {}", changed.join(", "));
        errors.push(FieldError::forbidden("spec", &detail));
    }
}

/// The new spec with everything that may change set back to what it was.
fn as_allowed(new: &PodSpec, old: &PodSpec, gated: bool) -> PodSpec {
    let mut spec = new.clone();
    let images = |new: &mut [Container], old: &[Container]| {
        for (new, old) in new.iter_mut().zip(old) {
            new.image.clone_from(&old.image);
        }
    };
    images(&mut spec.containers, &old.containers);
    images(
        spec.init_containers.as_deref_mut().unwrap_or_default(),
        old.init_containers.as_deref().unwrap_or_default(),
    );
    spec.active_deadline_seconds = old.active_deadline_seconds;
    spec.tolerations.clone_from(&old.tolerations);
    spec.scheduling_gates.clone_from(&old.scheduling_gates);
    if old.termination_grace_period_seconds.is_some_and(|s| s < 0)
        && spec.termination_grace_period_seconds == Some(1)
    {
        spec.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    // A gated pod may be narrowed to fewer nodes before it is scheduled.
    let narrowed = old.node_selector.iter().flatten().all(|(key, value)| {
        spec.node_selector.as_ref().and_then(|selector| selector.get(key)) == Some(value)
    });
    if gated && narrowed {
        spec.node_selector.clone_from(&old.node_selector);
    }
    spec
}

/// The paths, one below `spec`, in which two specs differ.
fn changed_fields(new: &PodSpec, old: &PodSpec) -> Vec<String> {
    let map = |spec: &PodSpec| match serde_json::to_value(spec) {
        Ok(Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let absent = |value: Option<&Value>| {
        value.is_none_or(|v| {
            v.is_null() || v.as_array().is_some_and(Vec::is_empty) || *v == serde_json::json!({})
        })
    };
    let (new, old) = (map(new), map(old));
    let mut names: Vec<&String> = new.keys().chain(old.keys()).collect();
    names.sort();
    names.dedup();
    let differs = |name: &&&String| {
        let (new, old) = (new.get(**name), old.get(**name));
        new != old && !(absent(new) && absent(old))
    };
    names.iter().filter(differs).map(|name| format!("spec.{name}")).collect()
}

fn active_deadline(errors: &mut Errors, new: Option<i64>, old: Option<i64>) {
    const FIELD: &str = "spec.activeDeadlineSeconds";
    match (new, old) {
        (Some(new), Some(old)) if new > old => {
            errors.push(FieldError::invalid(FIELD, new, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(FIELD, Value::Null, detail));
        }
        _ => {}
    }
}

fn only_additions(errors: &mut Errors, new: &[Toleration], old: &[Toleration]) {
    let same = |a: &Toleration, b: &Toleration| {
        let seconds = Toleration { toleration_seconds: None, ..a.clone() };
        seconds == Toleration { toleration_seconds: None, ..b.clone() }
    };
    for gone in old.iter().filter(|old| !new.iter().any(|new| same(new, old))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        let key = gone.key.as_deref().unwrap_or_default();
        errors.push(FieldError::forbidden("spec.tolerations", &format!("{detail} (key {key:?})")));
    }
}

/// Checks a change of the status.
pub fn status(errors: &mut Errors, new: &Pod, old: &Pod) {
    let policy = new.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    let statuses = |pod: &Pod| pod.status.clone().unwrap_or_default();
    let (new, old) = (statuses(new), statuses(old));
    if let Some(class) = new.qos_class.as_deref()
        && old.qos_class.as_deref().is_some_and(|old| old != class)
    {
        errors.push(FieldError::invalid("status.qosClass", class, crate::registry::fields::IMMUTABLE));
    }
    if policy != "Always" {
        let (new, old) = (new.container_statuses, old.container_statuses);
        restarts(errors, "status.containerStatuses", &new, &old, policy);
    }
}

/// A container that has ended stays so, unless the policy starts it again.
fn restarts(
    errors: &mut Errors,
    field: &str,
    new: &Option<Vec<ContainerStatus>>,
    old: &Option<Vec<ContainerStatus>>,
    policy: &str,
) {
    let ended = |status: &ContainerStatus| status.state.as_ref().and_then(|s| s.terminated.as_ref()).cloned();
    for was in old.iter().flatten() {
        let Some(end) = ended(was) else { continue };
        if policy == "OnFailure" && end.exit_code != 0 {
            continue;
        }
        let position = new.iter().flatten().position(|now| now.name == was.name && ended(now).is_none());
        if let Some(i) = position {
            let detail = "may not be transitioned to non-terminated state";
            errors.push(FieldError::forbidden(format!("{field}[{i}].state"), detail));
        }
    }
}
