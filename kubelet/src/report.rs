//! Writes pods' statuses: only what changed, the newest wish alone, and never over another pod's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use api::conditions;
use api::meta::MetaExt;
use client::{Action, Client, Error, Patch, WorkQueue, run_workers};
use component::tasks::{Spawner, lock};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use serde_json::{Map, Value, json};

/// Conditions that the kubelet writes; all others are somebody else's.
pub const OWN_CONDITIONS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// How many statuses are written at once.
const WRITERS: usize = 4;

#[derive(Clone)]
struct Wish {
    /// The pod as the API had it last, as far as is known here.
    known: Arc<Pod>,
    status: PodStatus,
    /// Whether the object is to be deleted once its status is written.
    delete: bool,
}

/// A handle on the writer.
#[derive(Clone)]
pub struct Reporter {
    client: Client,
    wishes: Arc<Mutex<HashMap<String, Wish>>>,
    queue: WorkQueue<String>,
}

/// The merge patch that makes `new` of `old`; none when they are equal.
pub fn difference(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (old, new) if old == new => None,
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for key in old.keys().filter(|k| !new.contains_key(*k)) {
                patch.insert(key.clone(), Value::Null);
            }
            for (key, value) in new {
                let change = old.get(key).map_or_else(|| Some(value.clone()), |o| difference(o, value));
                patch.extend(change.map(|c| (key.clone(), c)));
            }
            Some(Value::Object(patch))
        }
        (_, new) => Some(new.clone()),
    }
}

/// A status as it is to be written over what the API has: others' conditions are theirs.
pub fn over(wish: &PodStatus, known: &PodStatus) -> PodStatus {
    let mut merged = wish.clone();
    let own = |type_: &str| OWN_CONDITIONS.contains(&type_);
    let mut list = known.conditions.clone();
    for condition in wish.conditions.iter().flatten().filter(|c| own(&c.type_)) {
        conditions::set(&mut list, condition.clone());
    }
    merged.conditions = list;
    merged
}

fn newer(a: &Pod, b: &Pod) -> bool {
    let version = |p: &Pod| p.resource_version().parse::<u64>().unwrap_or(0);
    version(a) > version(b)
}

impl Reporter {
    /// A writer that works for as long as the owner of `tasks` lives.
    pub fn new(client: &Client, tasks: &Spawner) -> Self {
        Self::with_writers(client, WRITERS, tasks)
    }

    /// The same with so many statuses written at once.
    pub fn with_writers(client: &Client, writers: usize, tasks: &Spawner) -> Self {
        let reporter =
            Self { client: client.clone(), wishes: Arc::default(), queue: WorkQueue::new("pod-status") };
        let worker = reporter.clone();
        let (queue, spawner) = (reporter.queue.clone(), tasks.clone());
        tasks.spawn("pod status writers", async move {
            let write = move |uid: String| {
                let worker = worker.clone();
                async move { worker.write(&uid).await }
            };
            run_workers(queue, writers, &spawner, write).await;
        });
        reporter
    }

    /// Wishes that a pod's status be this.
    pub fn report(&self, pod: &Arc<Pod>, status: PodStatus) {
        self.wish(pod, Some(status), false);
    }

    /// Wishes that a pod be deleted for good, after its last status is written.
    pub fn delete(&self, pod: &Arc<Pod>, status: PodStatus) {
        self.wish(pod, Some(status), true);
    }

    fn wish(&self, pod: &Arc<Pod>, status: Option<PodStatus>, delete: bool) {
        let uid = pod.uid().to_owned();
        let mut wishes = lock(&self.wishes);
        let status = status.or_else(|| pod.status.clone()).unwrap_or_default();
        match wishes.get_mut(&uid) {
            Some(wish) => {
                if newer(pod, &wish.known) {
                    wish.known = pod.clone();
                }
                wish.status = status;
                wish.delete |= delete;
            }
            None => {
                wishes.insert(uid.clone(), Wish { known: pod.clone(), status, delete });
            }
        }
        drop(wishes);
        self.queue.add(uid);
    }

    /// Forgets a pod that is gone.
    pub fn forget(&self, uid: &str) {
        lock(&self.wishes).remove(uid);
    }

    async fn write(&self, uid: &str) -> Result<Action, Error> {
        let Some(wish) = lock(&self.wishes).get(uid).cloned() else { return Ok(Action::Done) };
        match self.write_status(uid, &wish).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() => {
                self.forget(uid);
                return Ok(Action::Done);
            }
            Err(error) if error.is_conflict() => return self.refresh(uid, &wish).await,
            Err(error) => return Err(error),
        }
        if wish.delete {
            self.write_deletion(uid, &wish.known).await?;
        }
        Ok(Action::Done)
    }

    async fn write_status(&self, uid: &str, wish: &Wish) -> Result<(), Error> {
        let known = wish.known.status.clone().unwrap_or_default();
        let wanted = over(&wish.status, &known);
        let encode = |status: &PodStatus| serde_json::to_value(status).unwrap_or_default();
        let Some(change) = difference(&encode(&known), &encode(&wanted)) else { return Ok(()) };
        let patch = json!({
            "metadata": {"uid": uid, "resourceVersion": wish.known.resource_version()},
            "status": change,
        });
        let pods = self.client.namespaced::<Pod>(wish.known.namespace());
        let written = pods.patch_status(wish.known.name(), &Patch::Merge(patch)).await?;
        tracing::debug!(pod = %api::meta::key(&*wish.known), phase = wanted.phase, "status written");
        if let Some(wish) = lock(&self.wishes).get_mut(uid)
            && newer(&written, &wish.known)
        {
            wish.known = Arc::new(written);
        }
        Ok(())
    }

    /// The object has changed meanwhile: take the new one for the base and try again.
    async fn refresh(&self, uid: &str, wish: &Wish) -> Result<Action, Error> {
        let pods = self.client.namespaced::<Pod>(wish.known.namespace());
        match pods.get_opt(wish.known.name()).await? {
            Some(pod) if pod.uid() == uid => {
                if let Some(wish) = lock(&self.wishes).get_mut(uid) {
                    wish.known = Arc::new(pod);
                }
                self.queue.add(uid.to_owned());
            }
            // Another pod of that name stands there now.
            Some(_) | None => self.forget(uid),
        }
        Ok(Action::Done)
    }

    async fn write_deletion(&self, uid: &str, pod: &Pod) -> Result<(), Error> {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteOptions::default()
        };
        let pods = self.client.namespaced::<Pod>(pod.namespace());
        match pods.delete(pod.name(), &options).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => return Err(error),
        }
        tracing::info!(pod = %api::meta::key(pod), uid, "pod deleted");
        self.forget(uid);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(old: Value, new: Value, patch: Option<Value>) {
        assert_eq!(difference(&old, &new), patch);
        if let Some(patch) = patch {
            assert_eq!(api::patch::merge_patch(&old, &patch).ok(), Some(new));
        }
    }

    #[test]
    fn only_what_changed_is_written() {
        check(json!({"a": 1}), json!({"a": 1}), None);
        check(json!({"a": 1, "b": 2}), json!({"a": 1}), Some(json!({"b": null})));
        check(
            json!({"a": {"x": 1, "y": [1]}}),
            json!({"a": {"x": 1, "y": [2]}}),
            Some(json!({"a": {"y": [2]}})),
        );
    }

    #[test]
    fn the_conditions_of_others_are_kept() {
        let status = |text: Value| serde_json::from_value::<PodStatus>(text).unwrap();
        let known = status(json!({"conditions": [
            {"type": "example.com/gate", "status": "True"}, {"type": "Ready", "status": "False"}]}));
        let wish = status(json!({"phase": "Running", "conditions": [
            {"type": "example.com/gate", "status": "False"}, {"type": "Ready", "status": "True"}]}));
        let merged = over(&wish, &known);
        assert!(conditions::is_true(&merged.conditions, "Ready"));
        assert!(conditions::is_true(&merged.conditions, "example.com/gate"));
        assert_eq!(merged.phase.as_deref(), Some("Running"));
    }
}
