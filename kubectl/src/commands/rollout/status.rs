//! Where a rollout stands, in upstream's words.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::pods::condition;
use crate::resource::Resource;

/// The kinds that roll out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Deployment,
    DaemonSet,
    StatefulSet,
}

impl Kind {
    /// The kind of a resource, if it rolls out.
    pub fn of(resource: &Resource) -> Result<Self> {
        match resource.kind.as_str() {
            "Deployment" => Ok(Self::Deployment),
            "DaemonSet" => Ok(Self::DaemonSet),
            "StatefulSet" => Ok(Self::StatefulSet),
            kind => Err(Error::message(format!("no status viewer has been implemented for {kind}"))),
        }
    }
}

/// What is printed, and whether the rollout is over.
#[derive(Debug, PartialEq, Eq)]
pub struct Status {
    pub message: String,
    pub done: bool,
}

fn waiting(message: String) -> Result<Status, String> {
    Ok(Status { message, done: false })
}

fn done(message: String) -> Result<Status, String> {
    Ok(Status { message, done: true })
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// Where a rollout stands; the error is a rollout that failed or cannot be followed.
pub fn status(kind: Kind, object: &Value, revision: i64) -> Result<Status, String> {
    match kind {
        Kind::Deployment => deployment(object, revision),
        Kind::DaemonSet => daemon_set(object),
        Kind::StatefulSet => stateful_set(object),
    }
}

fn deployment(object: &Value, revision: i64) -> Result<Status, String> {
    let (meta, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    let name = meta["name"].as_str().unwrap_or_default();
    if revision > 0 {
        let running = super::history::revision_of(object);
        if running != revision {
            return Err(format!(
                "desired revision ({revision}) is different from the running revision ({running})"
            ));
        }
    }
    if number(&meta["generation"]) > number(&status["observedGeneration"]) {
        return waiting("Waiting for deployment spec update to be observed...\n".into());
    }
    if condition(&status["conditions"], "Progressing")
        .is_some_and(|c| c["reason"] == "ProgressDeadlineExceeded")
    {
        return Err(format!("deployment {name:?} exceeded its progress deadline"));
    }
    let (updated, replicas, available) = (
        number(&status["updatedReplicas"]),
        number(&status["replicas"]),
        number(&status["availableReplicas"]),
    );
    let start = format!("Waiting for deployment {name:?} rollout to finish:");
    if let Some(wanted) = spec["replicas"].as_i64().filter(|wanted| updated < *wanted) {
        return waiting(format!("{start} {updated} out of {wanted} new replicas have been updated...\n"));
    }
    if replicas > updated {
        return waiting(format!("{start} {} old replicas are pending termination...\n", replicas - updated));
    }
    if available < updated {
        return waiting(format!("{start} {available} of {updated} updated replicas are available...\n"));
    }
    done(format!("deployment {name:?} successfully rolled out\n"))
}

fn rolls(object: &Value) -> Result<(), String> {
    match object["spec"]["updateStrategy"]["type"].as_str() {
        None | Some("RollingUpdate") => Ok(()),
        Some(_) => Err("rollout status is only available for RollingUpdate strategy type".into()),
    }
}

fn daemon_set(object: &Value) -> Result<Status, String> {
    rolls(object)?;
    let (meta, status) = (&object["metadata"], &object["status"]);
    let name = meta["name"].as_str().unwrap_or_default();
    if number(&meta["generation"]) > number(&status["observedGeneration"]) {
        return waiting("Waiting for daemon set spec update to be observed...\n".into());
    }
    let desired = number(&status["desiredNumberScheduled"]);
    let start = format!("Waiting for daemon set {name:?} rollout to finish:");
    let updated = number(&status["updatedNumberScheduled"]);
    if updated < desired {
        return waiting(format!("{start} {updated} out of {desired} new pods have been updated...\n"));
    }
    let available = number(&status["numberAvailable"]);
    if available < desired {
        return waiting(format!("{start} {available} of {desired} updated pods are available...\n"));
    }
    done(format!("daemon set {name:?} successfully rolled out\n"))
}

fn stateful_set(object: &Value) -> Result<Status, String> {
    rolls(object)?;
    let (meta, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    let observed = number(&status["observedGeneration"]);
    if observed == 0 || number(&meta["generation"]) > observed {
        return waiting("Waiting for statefulset spec update to be observed...\n".into());
    }
    let replicas = spec["replicas"].as_i64();
    let ready = number(&status["readyReplicas"]);
    if let Some(missing) = replicas.map(|r| r - ready).filter(|m| *m > 0) {
        return waiting(format!("Waiting for {missing} pods to be ready...\n"));
    }
    let updated = number(&status["updatedReplicas"]);
    if let (Some(replicas), Some(partition)) =
        (replicas, spec["updateStrategy"]["rollingUpdate"]["partition"].as_i64())
        && partition > 0
    {
        if updated < replicas - partition {
            return waiting(format!(
                "Waiting for partitioned roll out to finish: {updated} out of {} new pods have been updated...\n",
                replicas - partition
            ));
        }
        return done(format!("partitioned roll out complete: {updated} new pods have been updated...\n"));
    }
    let revision = status["updateRevision"].as_str().unwrap_or_default();
    if status["updateRevision"] != status["currentRevision"] {
        return waiting(format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {revision}...\n"
        ));
    }
    done(format!(
        "statefulset rolling update complete {} pods at revision {}...\n",
        number(&status["currentReplicas"]),
        status["currentRevision"].as_str().unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(kind: Kind, object: Value, want: Result<(&str, bool), &str>) {
        let found = status(kind, &object, 0);
        let found = found.as_ref().map(|s| (s.message.trim_end(), s.done)).map_err(String::as_str);
        assert_eq!(found, want);
    }

    fn web(spec: Value, status: Value) -> Value {
        json!({"metadata": {"name": "web", "generation": 2}, "spec": spec, "status": status})
    }

    #[test]
    fn a_deployment_goes_through_its_stages() {
        let see = |status, want| check(Kind::Deployment, web(json!({"replicas": 3}), status), want);
        see(
            json!({"observedGeneration": 1}),
            Ok(("Waiting for deployment spec update to be observed...", false)),
        );
        see(
            json!({"observedGeneration": 2, "updatedReplicas": 1}),
            Ok((
                "Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated...",
                false,
            )),
        );
        see(
            json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 4}),
            Ok((
                "Waiting for deployment \"web\" rollout to finish: 1 old replicas are pending termination...",
                false,
            )),
        );
        see(
            json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 2}),
            Ok((
                "Waiting for deployment \"web\" rollout to finish: 2 of 3 updated replicas are available...",
                false,
            )),
        );
        see(
            json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3}),
            Ok(("deployment \"web\" successfully rolled out", true)),
        );
        see(
            json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}),
            Err("deployment \"web\" exceeded its progress deadline"),
        );
    }

    #[test]
    fn daemon_sets_and_stateful_sets_have_words_of_their_own() {
        check(
            Kind::DaemonSet,
            web(
                json!({}),
                json!({"observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 1}),
            ),
            Ok((
                "Waiting for daemon set \"web\" rollout to finish: 1 of 3 updated pods are available...",
                false,
            )),
        );
        check(
            Kind::StatefulSet,
            web(json!({"replicas": 2}), json!({"observedGeneration": 2, "readyReplicas": 1})),
            Ok(("Waiting for 1 pods to be ready...", false)),
        );
        check(
            Kind::StatefulSet,
            web(json!({"updateStrategy": {"type": "OnDelete"}}), json!({})),
            Err("rollout status is only available for RollingUpdate strategy type"),
        );
    }
}
