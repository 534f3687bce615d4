//! Carries decisions out: bindings, conditions and events.

use std::sync::Arc;
use std::time::Duration;

use api::meta::MetaExt;
use api::openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use api::openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use client::{Client, Error, EventType, Patch, Recorder};
use component::clock::Clock;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::core::Preemption;
use crate::plugins::default_preemption::DISRUPTED;
use crate::plugins::volume_binding::{SELECTED_NODE, Write};
use crate::pod::PodInfo;
use crate::queue::Queued;
use crate::run::Shared;
use crate::telemetry::Telemetry;

/// The pause before an uncertain binding is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What carries decisions out. Cheap to clone.
#[derive(Clone)]
pub struct Binder {
    /// The API server.
    pub client: Client,
    /// What is told when a binding fails.
    pub shared: Shared,
    /// Tells users.
    pub recorder: Recorder,
    /// The time.
    pub clock: Clock,
    /// Counts.
    pub telemetry: Telemetry,
}

/// What became of a binding.
#[derive(Debug)]
enum Fate {
    Bound,
    /// It was refused; the pod still waits.
    Refused(String),
    /// The pod is gone, or is on a node already.
    Settled,
}

impl Binder {
    /// Binds a pod to the node that it is assumed to be on.
    pub async fn bind(self, queued: Queued, node: Arc<str>) {
        let pod = queued.pod.clone();
        let began = Instant::now();
        match self.fate(&pod, &node).await {
            Fate::Bound => {
                let now = Instant::now();
                self.telemetry.bound(now.duration_since(queued.since), now.duration_since(began));
                let message = format!("Successfully assigned {} to {node}", pod.key());
                tracing::info!(pod = %pod.key(), %node, "bound");
                self.recorder.event(pod.pod.as_ref(), EventType::Normal, "Scheduled", message);
            }
            Fate::Refused(why) => {
                self.telemetry.failed();
                tracing::warn!(pod = %pod.key(), %node, why, "binding refused");
                self.shared.lock().not_bound(queued, true, Instant::now());
                self.shared.wake();
                let message = format!("binding rejected: {why}");
                self.recorder.event(
                    pod.pod.as_ref(),
                    EventType::Warning,
                    "FailedScheduling",
                    message.clone(),
                );
                self.tell(&pod.pod, "SchedulerError", &message, None).await;
            }
            Fate::Settled => {
                tracing::info!(pod = %pod.key(), %node, "no longer to be bound");
                self.shared.lock().not_bound(queued, false, Instant::now());
                self.shared.wake();
            }
        }
    }

    async fn fate(&self, pod: &PodInfo, node: &str) -> Fate {
        let pods = self.client.namespaced::<Pod>(pod.pod.namespace());
        match pods.create_subresource(pod.pod.name(), "binding", &binding(&pod.pod, node)).await {
            Ok(_) => Fate::Bound,
            Err(error) if error.is_not_found() => Fate::Settled,
            // Anything else may have happened: only the pod itself tells. Until then it stays assumed,
            // so that its room is not given away twice.
            Err(error) => loop {
                match pods.get_opt(pod.pod.name()).await {
                    Ok(Some(now)) if now.uid() == &*pod.uid => {
                        break judge(&now, node, &error);
                    }
                    Ok(_) => break Fate::Settled,
                    Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
                }
            },
        }
    }

    /// Tells users why a pod waits, and makes room for it.
    pub async fn fail(
        self,
        pod: Arc<PodInfo>,
        message: String,
        preemption: Option<Preemption>,
        forget_nomination: bool,
    ) {
        self.telemetry.unschedulable();
        tracing::info!(pod = %pod.key(), message, "unschedulable");
        self.recorder.event(pod.pod.as_ref(), EventType::Warning, "FailedScheduling", message.clone());
        let node = preemption.as_ref().map(|preemption| preemption.node.clone());
        let nomination = node.as_deref().or(forget_nomination.then_some(""));
        self.tell(&pod.pod, "Unschedulable", &message, nomination).await;
        if let Some(preemption) = preemption {
            self.make_room(&pod, preemption).await;
        }
    }

    async fn make_room(&self, pod: &PodInfo, Preemption { node, victims, displaced }: Preemption) {
        tracing::info!(pod = %pod.key(), %node, victims = victims.len(), "preempting");
        self.telemetry.preempted(victims.len());
        for other in &displaced {
            self.nominate(&other.pod, "").await;
        }
        for victim in victims {
            if let Err(error) = self.evict(pod, &victim, &node).await {
                tracing::warn!(victim = %victim.key(), %error, "victim cannot be deleted");
                self.shared.lock().not_preempted(&pod.uid, Instant::now());
                self.shared.wake();
                return;
            }
        }
    }

    /// Deletes a victim with its own grace, after telling it why.
    async fn evict(&self, pod: &PodInfo, victim: &PodInfo, node: &str) -> Result<(), Error> {
        let pods = self.client.namespaced::<Pod>(victim.namespace());
        let why = format!("{}: preempting to accommodate a higher priority pod", pod.scheduler_name());
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": DISRUPTED, "message": why,
            "lastTransitionTime": whole_seconds(&self.clock.now().to_string()),
            "observedGeneration": victim.pod.metadata.generation,
        });
        let told = json!({"metadata": {"uid": &*victim.uid}, "status": {"conditions": [condition]}});
        match pods.patch_status(victim.pod.name(), &Patch::Strategic(told)).await {
            Ok(_) => {}
            // Gone, or replaced by another of its name: what was wanted.
            Err(error) if error.is_not_found() || error.is_conflict() => return Ok(()),
            Err(error) => return Err(error),
        }
        let preconditions = Preconditions { uid: Some(victim.uid.to_string()), resource_version: None };
        let options = DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() };
        match pods.delete(victim.pod.name(), &options).await {
            Ok(_) => {
                let message = format!("Preempted by pod {} on node {node}", pod.uid);
                self.recorder.event(victim.pod.as_ref(), EventType::Normal, "Preempted", message);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn nominate(&self, pod: &Pod, node: &str) {
        let pods = self.client.namespaced::<Pod>(pod.namespace());
        let nomination = json!({"metadata": {"uid": pod.uid()}, "status": {"nominatedNodeName": node}});
        match pods.patch_status(pod.name(), &Patch::Strategic(nomination)).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => tracing::warn!(pod = %api::meta::key(pod), %error, "nomination cannot be changed"),
        }
    }

    /// Has volumes bound or made where the pod is to run.
    pub async fn volumes(self, pod: Arc<PodInfo>, node: Arc<str>, writes: Vec<Write>) {
        for write in writes {
            let outcome = match &write {
                Write::Bind { volume, claim } => {
                    let volumes = self.client.all::<PersistentVolume>();
                    let reference = client::reference(&**claim);
                    let patch = json!({"spec": {"claimRef": reference}});
                    volumes.patch(volume, &Patch::Merge(patch)).await.map(drop)
                }
                Write::Provision(claim) if claim.annotation(SELECTED_NODE) == Some(&*node) => Ok(()),
                Write::Provision(claim) => {
                    let claims = self.client.namespaced::<PersistentVolumeClaim>(pod.namespace());
                    let patch =
                        json!({"metadata": {"uid": claim.uid(), "annotations": {SELECTED_NODE: &*node}}});
                    claims.patch(claim.name(), &Patch::Merge(patch)).await.map(drop)
                }
            };
            if let Err(error) = outcome {
                tracing::warn!(pod = %pod.key(), %error, "a volume cannot be bound");
                self.shared.lock().not_preempted(&pod.uid, Instant::now());
                self.shared.wake();
                return;
            }
        }
    }

    /// Sets the condition `PodScheduled=False`, and where room is being made (the empty string: nowhere any
    /// more), unless the pod says so already.
    pub async fn tell(&self, pod: &Pod, reason: &str, message: &str, nomination: Option<&str>) {
        let now = self.clock.now().to_string();
        let Some(status) = condition(pod, reason, message, &now, nomination) else { return };
        let pods = self.client.namespaced::<Pod>(pod.namespace());
        match pods.patch_status(pod.name(), &Patch::Strategic(status)).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => tracing::warn!(pod = %api::meta::key(pod), %error, "condition cannot be set"),
        }
    }
}

fn judge(now: &Pod, node: &str, error: &Error) -> Fate {
    let assigned = now.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty());
    match assigned {
        Some(assigned) if assigned == node => Fate::Bound,
        Some(_) => Fate::Settled,
        None if now.is_deleting() => Fate::Settled,
        None => Fate::Refused(error.to_string()),
    }
}

fn binding(pod: &Pod, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": pod.name(), "namespace": pod.namespace(), "uid": pod.uid()},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    })
}

/// The patch of a pod's status that says why it is not scheduled; `None` when it says so already.
fn condition(pod: &Pod, reason: &str, message: &str, now: &str, nomination: Option<&str>) -> Option<Value> {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let present = conditions.and_then(|list| list.iter().find(|c| c.type_ == "PodScheduled"));
    let same = present.is_some_and(|c| {
        c.status == "False" && c.reason.as_deref() == Some(reason) && c.message.as_deref() == Some(message)
    });
    let nominated = pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref()).unwrap_or_default();
    let nomination = nomination.filter(|node| *node != nominated);
    if same && nomination.is_none() {
        return None;
    }
    let mut condition =
        json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message});
    if present.is_none_or(|c| c.status != "False") {
        condition["lastTransitionTime"] = whole_seconds(now).into();
    }
    condition["observedGeneration"] = json!(pod.metadata.generation);
    let mut status = json!({"conditions": [condition]});
    if let Some(node) = nomination {
        status["nominatedNodeName"] = node.into();
    }
    Some(json!({"status": status}))
}

/// A time as the API writes those of conditions.
fn whole_seconds(now: &str) -> String {
    format!("{}Z", now.split('.').next().unwrap_or(now).trim_end_matches('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;

    #[test]
    fn a_condition_that_says_the_same_is_not_written_again() {
        let fresh = pod("p").build();
        let now = "2026-01-01T00:00:00.5Z";
        let patch = condition(&fresh, "Unschedulable", "m", now, None).unwrap();
        let written = &patch["status"]["conditions"][0];
        assert_eq!((&written["status"], &written["reason"]), (&json!("False"), &json!("Unschedulable")));
        assert_eq!(written["lastTransitionTime"], "2026-01-01T00:00:00Z");
        let mut told = fresh.as_ref().clone();
        told.status = serde_json::from_value(patch["status"].clone()).unwrap();
        assert_eq!(condition(&told, "Unschedulable", "m", now, None), None);
        let nominated = condition(&told, "Unschedulable", "m", now, Some("n")).unwrap();
        assert_eq!(nominated["status"]["nominatedNodeName"], "n");
        assert_eq!(condition(&told, "Unschedulable", "m", now, Some("")), None);
        let again = condition(&told, "Unschedulable", "other", now, None).unwrap();
        assert!(
            again["status"]["conditions"][0].get("lastTransitionTime").is_none(),
            "False since the first time"
        );
    }

    #[test]
    fn an_uncertain_binding_is_judged_by_the_pod() {
        let error =
            Error::Decode { name: "p".into(), source: serde_json::from_str::<Value>("").unwrap_err() };
        let fate = |pod: &Pod| format!("{:?}", judge(pod, "n", &error));
        assert_eq!(fate(&pod("p").on("n").build()), "Bound");
        assert_eq!(fate(&pod("p").on("other").build()), "Settled");
        assert!(fate(&pod("p").build()).starts_with("Refused"));
        assert_eq!(
            fate(&pod("p").meta("deletionTimestamp", json!("2026-01-01T00:00:00Z")).build()),
            "Settled"
        );
    }
}
