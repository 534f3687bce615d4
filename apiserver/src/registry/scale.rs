//! The scale subresource: an `autoscaling/v1` view of `spec.replicas`.

use api::decode::decode;
use api::openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use api::selector::{Requirement, Selector};
use api::status::StatusError;
use api::validation::FieldError;
use api::{Kind, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::printing::age;
use super::strategy::{AGE, Column, NAME};
use crate::custom::rules;

/// The columns of a Scale's table.
pub const COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Desired", "The replicas that are wanted."),
    Column::integer("Available", "The replicas that there are."),
    AGE,
];

/// The cells of a Scale given as JSON.
pub fn row(scale: &[u8], now: Timestamp) -> Vec<Value> {
    let scale = Object::parse(scale).unwrap_or_default();
    let created = scale.meta().and_then(|meta| meta.get("creationTimestamp")).and_then(Value::as_str);
    let created = created.and_then(|time| time.parse().ok()).map(Time);
    vec![
        scale.name().into(),
        scale.int_at("/spec/replicas").into(),
        scale.int_at("/status/replicas").into(),
        age(created.as_ref(), now).into(),
    ]
}

/// The Scale of an object.
pub fn view(kind: &Kind, object: &Object) -> Object {
    let paths = rules::of(kind).and_then(|rules| rules.scale());
    let meta = object.meta();
    let meta = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]
        .into_iter()
        .filter_map(|f| Some((f.to_owned(), meta?.get(f)?.clone())))
        .collect::<serde_json::Map<_, _>>();
    let (wanted, present) =
        paths.map_or(("/spec/replicas", "/status/replicas"), |p| (&p.spec_replicas, &p.status_replicas));
    let mut scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": meta,
        "spec": {"replicas": object.int_at(wanted).unwrap_or(0)},
        "status": {"replicas": object.int_at(present).unwrap_or(0)},
    });
    let selector = match paths {
        Some(paths) => {
            paths.selector.as_ref().map(|at| object.str_at(at).to_owned()).filter(|s| !s.is_empty())
        }
        None => selector(kind, object),
    };
    if let Some(selector) = selector {
        scale["status"]["selector"] = selector.into();
    }
    Object::new(scale).expect("it was made as a map")
}

/// The selector of a built-in kind's pods, as text.
fn selector(kind: &Kind, object: &Object) -> Option<String> {
    let selector = object.pointer("/spec/selector");
    let typed = match kind.kind {
        "ReplicationController" => Some(LabelSelector {
            match_labels: selector.and_then(|s| decode(s).ok()),
            ..LabelSelector::default()
        }),
        _ => selector.and_then(|s| decode::<LabelSelector>(s).ok()),
    };
    Selector::from_typed(typed.as_ref()).ok().map(|selector| text(&selector))
}

fn text(selector: &Selector) -> String {
    let list =
        |values: &std::collections::BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
    let one = |requirement: &Requirement| match requirement {
        Requirement::In(key, values) if values.len() == 1 => format!("{key}={}", list(values)),
        Requirement::In(key, values) => format!("{key} in ({})", list(values)),
        Requirement::NotIn(key, values) => format!("{key} notin ({})", list(values)),
        Requirement::Exists(key) => key.clone(),
        Requirement::DoesNotExist(key) => format!("!{key}"),
        Requirement::GreaterThan(key, n) => format!("{key}>{n}"),
        Requirement::LessThan(key, n) => format!("{key}<{n}"),
    };
    selector.requirements().iter().map(one).collect::<Vec<_>>().join(",")
}

/// The object with the replicas that a Scale asks for.
///
/// # Errors
/// 400 for what is no Scale, 422 for negative replicas, 409 when the Scale is of an older version.
pub fn apply(kind: &Kind, scale: &Object, current: &Object) -> Result<Object, StatusError> {
    if !matches!(scale.kind(), "" | "Scale") || !matches!(scale.api_version(), "" | "autoscaling/v1") {
        return Err(StatusError::bad_request(format!(
            "{}, Kind={} is not an autoscaling/v1 Scale",
            scale.api_version(),
            scale.kind()
        )));
    }
    let name = scale.name();
    if !name.is_empty() && name != current.name() {
        return Err(StatusError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            current.name()
        )));
    }
    let version = scale.resource_version();
    if !version.is_empty() && version != current.resource_version() {
        return Err(StatusError::stale(kind, current.name()));
    }
    if !scale.uid().is_empty() && scale.uid() != current.uid() {
        return Err(StatusError::conflict(
            kind,
            current.name(),
            "Precondition failed: UID in precondition differs",
        ));
    }
    let replicas = match scale.pointer("/spec/replicas") {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_i64().filter(|n| i32::try_from(*n).is_ok()).ok_or_else(|| {
            StatusError::bad_request(format!("Scale in version \"v1\" cannot be handled as a Scale: spec.replicas: {value} is no 32-bit integer"))
        })?,
    };
    if scale.as_map().get("spec").is_some_and(|s| !s.is_object() && !s.is_null()) {
        return Err(StatusError::bad_request("spec: must be a map"));
    }
    if replicas < 0 {
        let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(StatusError::invalid(kind, current.name(), &[error]));
    }
    let mut new = current.clone();
    let path = rules::of(kind).and_then(|rules| rules.scale()).map_or("/spec/replicas", |p| &p.spec_replicas);
    let (parents, last) = path.rsplit_once('/').unwrap_or(("", path));
    let mut at = new.as_map_mut();
    for part in parents.split('/').skip(1) {
        let inner = at.entry(part).or_insert_with(|| json!({})).as_object_mut();
        at = inner.ok_or_else(|| {
            StatusError::internal(format!("{path} of {:?} is beneath no map", current.key()))
        })?;
    }
    at.insert(last.into(), replicas.into());
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Object {
        Object::new(json!({
            "metadata": {"name": "web", "resourceVersion": "7"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": 1}
        }))
        .expect("a map")
    }

    #[track_caller]
    fn check(scale: Value, wanted: Result<i64, u16>) {
        let kind = Kind::find("apps", "Deployment").expect("a kind");
        let result = apply(kind, &Object::new(scale).expect("a map"), &deployment());
        assert_eq!(result.map(|o| o.int_at("/spec/replicas").expect("set")).map_err(|e| e.code()), wanted);
    }

    #[test]
    fn a_scale_changes_replicas_and_nothing_else() {
        check(json!({"spec": {"replicas": 5}}), Ok(5));
        check(json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "spec": {}}), Ok(0));
        check(json!({"spec": {"replicas": -1}}), Err(422));
        check(json!({"spec": {"replicas": "5"}}), Err(400));
        check(json!({"spec": 5}), Err(400));
        check(json!({"kind": "Deployment", "spec": {"replicas": 5}}), Err(400));
        check(json!({"metadata": {"resourceVersion": "6"}, "spec": {"replicas": 5}}), Err(409));
        check(json!({"metadata": {"name": "other"}, "spec": {"replicas": 5}}), Err(400));
    }

    #[test]
    fn a_view_shows_replicas_and_selector() {
        let kind = Kind::find("apps", "Deployment").expect("a kind");
        let scale = view(kind, &deployment());
        assert_eq!((scale.int_at("/spec/replicas"), scale.int_at("/status/replicas")), (Some(2), Some(1)));
        assert_eq!((scale.str_at("/status/selector"), scale.resource_version()), ("app=web", "7"));
        let cells = row(&scale.to_vec(), Timestamp::UNIX_EPOCH);
        assert_eq!(cells, [json!("web"), json!(2), json!(1), json!("<unknown>")]);
        assert_eq!(cells.len(), COLUMNS.len());
    }
}
