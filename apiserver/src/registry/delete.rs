//! What a deletion does to an object: removes it, or marks it and waits for finalizers and grace.

use api::decode::decode;
use api::openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use api::status::StatusError;
use api::validation::FieldError;
use api::{Kind, Object};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::meta::whole_seconds;
use super::strategy::ErasedStrategy;

/// The finalizer that waits until dependents have lost their owner reference.
const ORPHAN: &str = "orphan";
/// The finalizer that waits until blocking dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";

/// What a deletion comes to.
#[derive(Debug, PartialEq)]
pub enum Plan {
    /// The object goes now.
    Remove,
    /// The object is written like this, and waits.
    Mark(Box<Object>),
    /// The object waits already.
    Wait,
}

/// Reads `DeleteOptions` from a body, which may be empty.
///
/// # Errors
/// 400 for anything else than options.
pub fn parse_options(document: Option<Value>) -> Result<DeleteOptions, StatusError> {
    let Some(mut document) = document else { return Ok(DeleteOptions::default()) };
    if let Some(map) = document.as_object_mut() {
        // kubectl sends the options in the group of the object that it deletes.
        map.insert("apiVersion".into(), "v1".into());
        map.insert("kind".into(), "DeleteOptions".into());
    }
    decode(&document).map_err(|error| StatusError::bad_request(format!("DeleteOptions: {error}")))
}

/// What is wrong with options.
pub fn validate_options(options: &DeleteOptions) -> Result<(), StatusError> {
    let mut errors = Vec::new();
    let policy = options.propagation_policy.as_deref();
    if policy.is_some() && options.orphan_dependents.is_some() {
        let detail = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(FieldError::invalid("propagationPolicy", policy.unwrap_or_default(), detail));
    }
    if let Some(policy) = policy
        && !matches!(policy, "Orphan" | "Foreground" | "Background")
    {
        errors.push(FieldError::not_supported(
            "propagationPolicy",
            policy,
            &["Foreground", "Background", "Orphan", "nil"],
        ));
    }
    for (i, value) in options.dry_run.iter().flatten().enumerate() {
        if value != "All" {
            errors.push(FieldError::not_supported(format!("dryRun[{i}]"), value.as_str(), &["All"]));
        }
    }
    if options.grace_period_seconds.is_some_and(|s| s < 0) {
        let value = options.grace_period_seconds.unwrap_or_default();
        errors.push(FieldError::invalid("gracePeriodSeconds", value, "must be greater than or equal to 0"));
    }
    match errors.as_slice() {
        [] => Ok(()),
        errors => {
            let list = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let mut error = StatusError::new(
                422,
                "Invalid",
                format!("DeleteOptions.meta.k8s.io \"\" is invalid: {list}"),
            );
            error.0.details.get_or_insert_default().causes =
                Some(errors.iter().map(FieldError::cause).collect());
            Err(error)
        }
    }
}

/// Decides what deleting an object does.
///
/// # Errors
/// 409 when a precondition does not hold.
pub fn plan(
    kind: &Kind,
    strategy: &dyn ErasedStrategy,
    object: &Object,
    options: &DeleteOptions,
    now: Timestamp,
) -> Result<Plan, StatusError> {
    preconditions(kind, object, options)?;
    let mut marked = object.clone();
    marked.set_finalizers(&finalizers(object, options));
    if kind.kind == "Namespace"
        && kind.group.is_empty()
        && !marked.pointer("/spec/finalizers").is_none_or(is_empty)
    {
        if object.deletion_timestamp().is_some() {
            return Ok(unless_same(marked, object));
        }
        // A namespace has no grace: it ends when its content is gone.
        marked.meta_mut().insert("deletionTimestamp".into(), whole_seconds(now).into());
        marked.as_map_mut().insert("status".into(), terminating(object));
        return Ok(Plan::Mark(Box::new(marked)));
    }
    let grace = strategy.deletion_grace(object, options.grace_period_seconds).unwrap_or(0).max(0);
    if object.deletion_timestamp().is_some() {
        return Ok(again(object, marked, grace, options, now));
    }
    if grace == 0 && marked.finalizers().is_empty() {
        return Ok(Plan::Remove);
    }
    mark(kind, &mut marked, grace, now);
    Ok(Plan::Mark(Box::new(marked)))
}

/// Whether an object that was just changed has nothing left to wait for.
pub fn is_finished(kind: &Kind, object: &Object) -> bool {
    let grace = object.int_at("/metadata/deletionGracePeriodSeconds").unwrap_or(0);
    let namespace = kind.kind == "Namespace" && kind.group.is_empty();
    object.deletion_timestamp().is_some()
        && grace == 0
        && object.finalizers().is_empty()
        && (!namespace || object.pointer("/spec/finalizers").is_none_or(is_empty))
}

fn is_empty(list: &Value) -> bool {
    list.as_array().is_none_or(Vec::is_empty)
}

fn preconditions(kind: &Kind, object: &Object, options: &DeleteOptions) -> Result<(), StatusError> {
    let Some(wanted) = &options.preconditions else { return Ok(()) };
    let check = |what: &str, wanted: &Option<String>, is: &str| match wanted {
        Some(wanted) if wanted != is => Err(StatusError::conflict(
            kind,
            object.name(),
            format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {is}"),
        )),
        _ => Ok(()),
    };
    check("UID", &wanted.uid, object.uid())?;
    check("ResourceVersion", &wanted.resource_version, object.resource_version())
}

/// The finalizers after the propagation policy had its say.
fn finalizers(object: &Object, options: &DeleteOptions) -> Vec<String> {
    let policy = match (options.propagation_policy.as_deref(), options.orphan_dependents) {
        (Some(policy), _) => policy,
        (None, Some(true)) => "Orphan",
        (None, Some(false)) => "Background",
        (None, None) => return object.finalizers(),
    };
    let mut finalizers = object.finalizers();
    finalizers.retain(|f| f != ORPHAN && f != FOREGROUND);
    match policy {
        "Orphan" => finalizers.push(ORPHAN.into()),
        "Foreground" => finalizers.push(FOREGROUND.into()),
        _ => {}
    }
    finalizers
}

fn mark(kind: &Kind, object: &mut Object, grace: i64, now: Timestamp) {
    let ends = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX);
    let generation = object.generation();
    let meta = object.meta_mut();
    meta.insert("deletionTimestamp".into(), whole_seconds(ends).into());
    meta.insert("deletionGracePeriodSeconds".into(), grace.into());
    if kind.generation && generation > 0 {
        meta.insert("generation".into(), (generation + 1).into());
    }
}

/// An object that is being deleted is deleted again: the grace may only get shorter.
fn again(object: &Object, mut marked: Object, grace: i64, options: &DeleteOptions, now: Timestamp) -> Plan {
    let before = object.int_at("/metadata/deletionGracePeriodSeconds").unwrap_or(0);
    let shorter = grace < before && options.grace_period_seconds.is_some();
    let left = if shorter { grace } else { before };
    if left == 0 && marked.finalizers().is_empty() {
        return Plan::Remove;
    }
    if shorter {
        let ends = now.checked_add(SignedDuration::from_secs(left)).unwrap_or(Timestamp::MAX);
        let earlier =
            object.deletion_timestamp().and_then(|t| t.parse::<Timestamp>().ok()).unwrap_or(ends).min(ends);
        marked.meta_mut().insert("deletionTimestamp".into(), whole_seconds(earlier).into());
        marked.meta_mut().insert("deletionGracePeriodSeconds".into(), left.into());
    }
    unless_same(marked, object)
}

fn unless_same(marked: Object, object: &Object) -> Plan {
    if marked == *object { Plan::Wait } else { Plan::Mark(Box::new(marked)) }
}

fn terminating(namespace: &Object) -> Value {
    let mut status = namespace.as_map().get("status").cloned().unwrap_or_else(|| json!({}));
    if let Some(map) = status.as_object_mut() {
        map.insert("phase".into(), "Terminating".into());
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::strategy::{Erased, Strategy};
    use api::openapi::api::core::v1::Pod;

    struct Graceful;
    impl Strategy for Graceful {
        type K = Pod;
        fn deletion_grace(&self, _: &Pod, requested: Option<i64>) -> Option<i64> {
            Some(requested.unwrap_or(30))
        }
    }

    fn options(value: Value) -> DeleteOptions {
        parse_options(Some(value)).expect("options")
    }

    #[track_caller]
    fn check(meta: Value, given: Value, wanted: &str) {
        let kind = Kind::find("", "Pod").expect("a kind");
        let object = Object::new(json!({"metadata": meta})).expect("a map");
        let now = "2020-01-01T00:00:00Z".parse().expect("a time");
        let seen = match plan(kind, &Erased(Graceful), &object, &options(given), now) {
            Err(error) => error.reason().to_owned(),
            Ok(Plan::Remove) => "remove".into(),
            Ok(Plan::Wait) => "wait".into(),
            Ok(Plan::Mark(marked)) => format!(
                "{} {} {}",
                marked.str_at("/metadata/deletionTimestamp"),
                marked.int_at("/metadata/deletionGracePeriodSeconds").expect("a grace"),
                marked.finalizers().join(",")
            ),
        };
        assert_eq!(seen, wanted);
    }

    #[test]
    fn a_pod_waits_for_its_kubelet_and_an_object_for_its_finalizers() {
        check(json!({}), json!({}), "2020-01-01T00:00:30Z 30 ");
        check(json!({}), json!({"gracePeriodSeconds": 0}), "remove");
        check(json!({"finalizers": ["x/y"]}), json!({"gracePeriodSeconds": 0}), "2020-01-01T00:00:00Z 0 x/y");
        check(
            json!({}),
            json!({"propagationPolicy": "Orphan", "gracePeriodSeconds": 0}),
            "2020-01-01T00:00:00Z 0 orphan",
        );
        check(
            json!({"finalizers": ["orphan"]}),
            json!({"propagationPolicy": "Foreground", "gracePeriodSeconds": 0}),
            "2020-01-01T00:00:00Z 0 foregroundDeletion",
        );
        check(
            json!({"finalizers": ["orphan"]}),
            json!({"propagationPolicy": "Background", "gracePeriodSeconds": 0}),
            "remove",
        );
    }

    #[test]
    fn grace_gets_shorter_and_never_longer() {
        let dying = json!({"deletionTimestamp": "2020-01-01T00:00:20Z", "deletionGracePeriodSeconds": 30});
        check(dying.clone(), json!({}), "wait");
        check(dying.clone(), json!({"gracePeriodSeconds": 60}), "wait");
        check(dying.clone(), json!({"gracePeriodSeconds": 5}), "2020-01-01T00:00:05Z 5 ");
        check(dying, json!({"gracePeriodSeconds": 0}), "remove");
        let blocked = json!({"deletionTimestamp": "2020-01-01T00:00:20Z", "deletionGracePeriodSeconds": 0, "finalizers": ["x/y"]});
        check(blocked, json!({"gracePeriodSeconds": 0}), "wait");
    }

    #[test]
    fn preconditions_must_hold() {
        let meta = json!({"uid": "1", "resourceVersion": "7"});
        check(meta.clone(), json!({"preconditions": {"uid": "2"}}), "Conflict");
        check(meta.clone(), json!({"preconditions": {"resourceVersion": "8"}}), "Conflict");
        check(
            meta,
            json!({"preconditions": {"uid": "1", "resourceVersion": "7"}, "gracePeriodSeconds": 0}),
            "remove",
        );
    }

    #[test]
    fn wrong_options_are_refused() {
        for bad in [
            json!({"propagationPolicy": "Sideways"}),
            json!({"propagationPolicy": "Orphan", "orphanDependents": true}),
            json!({"dryRun": ["Some"]}),
            json!({"gracePeriodSeconds": -1}),
        ] {
            assert_eq!(validate_options(&options(bad)).expect_err("refused").code(), 422);
        }
        assert_eq!(parse_options(Some(json!({"gracePeriodSeconds": "x"}))).expect_err("refused").code(), 400);
        assert_eq!(parse_options(Some(json!([]))).expect_err("refused").code(), 400);
    }

    #[test]
    fn a_namespace_waits_until_it_is_finalized() {
        let kind = Kind::find("", "Namespace").expect("a kind");
        let strategy = crate::registry::strategies::strategy(kind);
        let object = Object::new(json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}}))
            .expect("a map");
        let now = Timestamp::UNIX_EPOCH;
        let Ok(Plan::Mark(marked)) = plan(kind, strategy, &object, &DeleteOptions::default(), now) else {
            panic!("it must wait")
        };
        assert_eq!(marked.str_at("/status/phase"), "Terminating");
        assert!(!is_finished(kind, &marked));
        assert_eq!(plan(kind, strategy, &marked, &DeleteOptions::default(), now).expect("fine"), Plan::Wait);
        let mut finalized = *marked;
        finalized.as_map_mut().insert("spec".into(), json!({}));
        assert!(is_finished(kind, &finalized));
    }
}
