//! Deployments and ReplicaSets.

use serde_json::Value;

use super::doc::{Doc, text_of};
use super::pod::pod_template;
use crate::age;
use crate::commands::rollout::same_template;

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn selector(object: &Value) -> String {
    crate::pods::selector_of(object).unwrap_or_else(|| "<none>".into())
}

/// Describes a Deployment with its ReplicaSets.
pub fn deployment(doc: &mut Doc, object: &Value, sets: &[Value]) {
    let (meta, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    doc.field(0, "Name", meta["name"].as_str().unwrap_or_default());
    doc.field(0, "Namespace", meta["namespace"].as_str().unwrap_or_default());
    doc.field(0, "CreationTimestamp", age::long(&meta["creationTimestamp"]));
    doc.pairs("Labels", &meta["labels"]);
    doc.annotations("Annotations", &meta["annotations"]);
    doc.field(0, "Selector", selector(object));
    doc.field(
        0,
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            number(&spec["replicas"]),
            number(&status["updatedReplicas"]),
            number(&status["replicas"]),
            number(&status["availableReplicas"]),
            number(&status["unavailableReplicas"])
        ),
    );
    doc.field(0, "StrategyType", spec["strategy"]["type"].as_str().unwrap_or_default());
    doc.field(0, "MinReadySeconds", number(&spec["minReadySeconds"]));
    if let Some(rolling) = spec["strategy"].get("rollingUpdate") {
        let part = |field: &str| text_of(&rolling[field]).unwrap_or_else(|| "<nil>".into());
        doc.field(
            0,
            "RollingUpdateStrategy",
            format!("{} max unavailable, {} max surge", part("maxUnavailable"), part("maxSurge")),
        );
    }
    pod_template(doc, &spec["template"]);
    doc.conditions(&status["conditions"]);
    let (new, old) = generations(object, sets);
    if !sets.is_empty() {
        doc.field(0, "OldReplicaSets", sets_text(&old));
        doc.field(0, "NewReplicaSet", sets_text(&new));
    }
}

/// The ReplicaSet of the present template, and the others that still have something to say.
fn generations<'a>(object: &Value, sets: &'a [Value]) -> (Vec<&'a Value>, Vec<&'a Value>) {
    let mut sets: Vec<&Value> = sets.iter().collect();
    sets.sort_by_key(|s| s["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned());
    let template = &object["spec"]["template"];
    let at = sets.iter().position(|s| same_template(&s["spec"]["template"], template));
    let new: Vec<&Value> = at.map(|at| sets.remove(at)).into_iter().collect();
    (new, sets)
}

fn sets_text(sets: &[&Value]) -> String {
    let texts: Vec<String> = sets
        .iter()
        .map(|s| {
            format!(
                "{} ({}/{} replicas created)",
                s["metadata"]["name"].as_str().unwrap_or_default(),
                number(&s["status"]["replicas"]),
                number(&s["spec"]["replicas"])
            )
        })
        .collect();
    if texts.is_empty() { "<none>".into() } else { texts.join(", ") }
}

/// Describes a ReplicaSet with its pods.
pub fn replica_set(doc: &mut Doc, object: &Value, pods: &[Value]) {
    let (meta, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    doc.field(0, "Name", meta["name"].as_str().unwrap_or_default());
    doc.field(0, "Namespace", meta["namespace"].as_str().unwrap_or_default());
    doc.field(0, "Selector", selector(object));
    doc.pairs("Labels", &meta["labels"]);
    doc.annotations("Annotations", &meta["annotations"]);
    doc.controller(object);
    doc.field(
        0,
        "Replicas",
        format!("{} current / {} desired", number(&status["replicas"]), number(&spec["replicas"])),
    );
    let count = |phase: &str| pods.iter().filter(|p| p["status"]["phase"] == phase).count();
    doc.field(
        0,
        "Pods Status",
        format!(
            "{} Running / {} Waiting / {} Succeeded / {} Failed",
            count("Running"),
            count("Pending"),
            count("Succeeded"),
            count("Failed")
        ),
    );
    pod_template(doc, &spec["template"]);
    doc.conditions(&status["conditions"]);
}
