//! Which names a definition may have: those that no other definition of its group has taken.

use std::collections::HashSet;

use api::openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionCondition, CustomResourceDefinitionNames,
    CustomResourceDefinitionStatus,
};
use api::openapi::apimachinery::pkg::apis::meta::v1::Time;
use jiff::Timestamp;

/// The status that a definition should have, `others` being all definitions of the cluster.
pub fn decide<'a>(
    definition: &CustomResourceDefinition,
    others: impl Iterator<Item = &'a CustomResourceDefinition>,
    now: Timestamp,
) -> CustomResourceDefinitionStatus {
    let (mut resources, mut kinds) = (HashSet::new(), HashSet::new());
    let of_group = |other: &&CustomResourceDefinition| {
        other.spec.group == definition.spec.group && other.metadata.name != definition.metadata.name
    };
    for names in others.filter(of_group).filter_map(|o| o.status.as_ref()?.accepted_names.as_ref()) {
        resources.extend(some(&names.plural));
        resources.extend(names.singular.as_deref());
        resources.extend(names.short_names.iter().flatten().map(String::as_str));
        kinds.extend(some(&names.kind));
        kinds.extend(names.list_kind.as_deref());
    }
    let mut status = definition.status.clone().unwrap_or_default();
    let wanted = &definition.spec.names;
    let mut accepted = status.accepted_names.take().unwrap_or_default();
    let conflict = take(&mut accepted, wanted, &resources, &kinds);
    status.accepted_names = Some(accepted);
    let (names, reason, message) = match &conflict {
        None => ("True", "NoConflicts", "no conflicts found".to_owned()),
        Some((reason, message)) => ("False", *reason, message.clone()),
    };
    set(&mut status, "NamesAccepted", names, reason, &message, now);
    let established = condition(&status, "Established").is_some_and(|c| c.status == "True");
    if !established {
        match conflict {
            None => {
                let message = "the initial names have been accepted";
                set(&mut status, "Established", "True", "InitialNamesAccepted", message, now);
            }
            Some(_) => {
                set(&mut status, "Established", "False", "NotAccepted", "not all names are accepted", now)
            }
        }
    }
    status
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Takes over every name that is free; tells of the first that is not.
fn take(
    accepted: &mut CustomResourceDefinitionNames,
    wanted: &CustomResourceDefinitionNames,
    resources: &HashSet<&str>,
    kinds: &HashSet<&str>,
) -> Option<(&'static str, String)> {
    let mut conflicts = Vec::new();
    let used = |name: &str| format!("{name:?} is already in use");
    if resources.contains(wanted.plural.as_str()) {
        conflicts.push(("PluralConflict", used(&wanted.plural)));
    } else {
        accepted.plural.clone_from(&wanted.plural);
    }
    match wanted.singular.as_deref() {
        Some(name) if resources.contains(name) => conflicts.push(("SingularConflict", used(name))),
        _ => accepted.singular.clone_from(&wanted.singular),
    }
    let taken: Vec<String> = wanted
        .short_names
        .iter()
        .flatten()
        .filter(|n| resources.contains(n.as_str()))
        .map(|n| used(n))
        .collect();
    if taken.is_empty() {
        accepted.short_names.clone_from(&wanted.short_names);
    } else {
        conflicts.push(("ShortNamesConflict", taken.join(", ")));
    }
    if kinds.contains(wanted.kind.as_str()) {
        conflicts.push(("KindConflict", used(&wanted.kind)));
    } else {
        accepted.kind.clone_from(&wanted.kind);
    }
    match wanted.list_kind.as_deref() {
        Some(name) if kinds.contains(name) => conflicts.push(("ListKindConflict", used(name))),
        _ => accepted.list_kind.clone_from(&wanted.list_kind),
    }
    accepted.categories.clone_from(&wanted.categories);
    conflicts.into_iter().next()
}

/// A condition of a status.
pub fn condition<'a>(
    status: &'a CustomResourceDefinitionStatus,
    type_: &str,
) -> Option<&'a CustomResourceDefinitionCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_)
}

/// Sets a condition; the time of transition stays while the status does.
pub fn set(
    status: &mut CustomResourceDefinitionStatus,
    type_: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let since =
        condition(status, type_).filter(|c| c.status == value).and_then(|c| c.last_transition_time.clone());
    // The API knows whole seconds.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let new = CustomResourceDefinitionCondition {
        type_: type_.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: since.or(Some(Time(now))),
        ..CustomResourceDefinitionCondition::default()
    };
    let all = status.conditions.get_or_insert_default();
    match all.iter_mut().find(|c| c.type_ == type_) {
        Some(old) => *old = new,
        None => all.push(new),
    }
}

/// Whether the objects of a definition are served.
pub fn is_established(definition: &CustomResourceDefinition) -> bool {
    let status = definition.status.as_ref();
    status.and_then(|s| condition(s, "Established")).is_some_and(|c| c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(name: &str, plural: &str, kind: &str, short: &str) -> CustomResourceDefinition {
        serde_json::from_value(json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": name}, "spec": {"group": "example.com", "scope": "Cluster", "versions": [],
            "names": {"plural": plural, "kind": kind, "listKind": format!("{kind}List"), "shortNames": [short]}}}))
        .expect("a definition")
    }

    #[test]
    fn the_first_to_come_has_the_name() {
        let now = Timestamp::UNIX_EPOCH;
        let mut first = definition("a", "as", "A", "x");
        first.status = Some(decide(&first, [].into_iter(), now));
        assert!(is_established(&first));
        let second = definition("b", "bs", "A", "x");
        let status = decide(&second, [&first, &second].into_iter(), now);
        let names = condition(&status, "NamesAccepted").expect("told");
        assert_eq!((names.status.as_str(), names.reason.as_deref()), ("False", Some("ShortNamesConflict")));
        assert_eq!(names.message.as_deref(), Some("\"x\" is already in use"));
        assert_eq!(condition(&status, "Established").expect("told").status, "False");
        let accepted = status.accepted_names.expect("told");
        assert_eq!((accepted.plural.as_str(), accepted.kind.as_str()), ("bs", ""));
        // A later round changes nothing.
        assert_eq!(Some(decide(&first, [&second].into_iter(), Timestamp::MAX)), first.status);
    }
}
