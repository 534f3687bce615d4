//! The pods of this node: each gets a worker when it first appears, wherever it appears: in the API, in
//! the runtime, or on disk.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::meta::MetaExt;
use client::EventType::Warning;
use client::{Change, Informer, Store};
use component::tasks::{Spawner, lock};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Lifecycle, Node, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::watch;

use crate::admission::{Refusal, admit};
use crate::context::Ctx;
use crate::pleg::Owner;
use crate::pod::container::{GRACE_ANNOTATION, PRE_STOP_ANNOTATION};
use crate::pod::worker::{Command, Exit, Wakers, Worker};
use crate::runtime::{CONTAINER_NAME_LABEL, POD_UID_LABEL};

struct Slot {
    commands: watch::Sender<Command>,
    wakers: Wakers,
    /// Whether it counts against the node's resources.
    admitted: bool,
    /// Its worker has ended; the slot keeps the uid from being run again until the API forgets it.
    finished: bool,
}

/// All workers, by uid.
pub struct Pods {
    ctx: Ctx,
    tasks: Spawner,
    nodes: Store<Node>,
    node_name: String,
    slots: Mutex<HashMap<String, Slot>>,
}

fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the API shows that a container of the pod was started already.
fn has_started(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let lists = status.into_iter().flat_map(|s| [&s.container_statuses, &s.init_container_statuses]);
    lists.flatten().flatten().any(|c| c.container_id.as_deref().is_some_and(|id| !id.is_empty()))
}

impl Pods {
    /// No workers yet; they will belong to the owner of `tasks`.
    pub fn new(ctx: Ctx, nodes: Store<Node>, node_name: &str, tasks: &Spawner) -> Arc<Self> {
        let (tasks, node_name) = (tasks.clone(), node_name.to_owned());
        Arc::new(Self { ctx, tasks, nodes, node_name, slots: Mutex::default() })
    }

    /// Whether there is anything to watch the runtime for.
    pub fn any(&self) -> bool {
        lock(&self.slots).values().any(|s| !s.finished)
    }

    /// The uids that have workers, or had them and are not forgotten.
    pub fn uids(&self) -> HashSet<String> {
        lock(&self.slots).keys().cloned().collect()
    }

    /// Takes over what the API lists (the informer must have synced), then follows its changes.
    /// `running` are the pods that the runtime has.
    pub fn follow(self: &Arc<Self>, informer: &Informer<Pod>, running: &HashSet<Owner>) {
        let running: HashSet<_> = running.iter().map(|o| o.uid.as_str()).collect();
        let mut pods = informer.store().list();
        // Pods that run already come before all others, then the older ones.
        pods.sort_by_key(|p| {
            let created = p.metadata.creation_timestamp.as_ref().map(|t| t.0);
            (!running.contains(p.uid()), created.unwrap_or(Timestamp::MAX))
        });
        for pod in &pods {
            self.upsert(pod, running.contains(pod.uid()));
        }
        let this = self.clone();
        informer.on_change(move |change| match change {
            Change::Added(pod) => this.upsert(pod, false),
            Change::Updated { old, new } => {
                if old.uid() != new.uid() {
                    this.gone(old);
                }
                this.upsert(new, false);
            }
            Change::Deleted(pod) => this.gone(pod),
        });
        // What was deleted between the list and the following.
        let present: HashSet<_> = informer.store().list().iter().map(|p| p.uid().to_owned()).collect();
        pods.iter().filter(|p| !present.contains(p.uid())).for_each(|p| self.gone(p));
    }

    fn upsert(self: &Arc<Self>, pod: &Arc<Pod>, running: bool) {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.get(pod.uid()) {
            slot.commands.send_if_modified(|command| {
                let changed = command.pod.resource_version() != pod.resource_version();
                command.pod = pod.clone();
                changed
            });
            return;
        }
        let settled = running || is_terminal(pod) || has_started(pod) || pod.is_deleting();
        let verdict = if settled { Ok(()) } else { self.judge(pod, &slots) };
        let command = Command { pod: pod.clone(), gone: false };
        let slot = self.start(command, verdict.clone().err());
        slots.insert(pod.uid().to_owned(), slot);
        drop(slots);
        self.count();
        if let Err(refusal) = verdict {
            tracing::info!(pod = %api::meta::key(&**pod), reason = refusal.reason, message = refusal.message, "pod refused");
            self.ctx.pod_event(pod, Warning, &refusal.reason, refusal.message);
        }
    }

    fn judge(&self, pod: &Pod, slots: &HashMap<String, Slot>) -> Result<(), Refusal> {
        let active = slots.values().filter(|s| s.admitted && !s.finished);
        let others: Vec<_> =
            active.map(|s| s.commands.borrow().pod.clone()).filter(|p| !is_terminal(p)).collect();
        let others: Vec<_> = others.iter().map(AsRef::as_ref).collect();
        let node = self.nodes.get(&self.node_name);
        admit(pod, &others, node.as_deref(), &self.ctx.allocatable)
    }

    fn gone(&self, pod: &Pod) {
        let mut slots = lock(&self.slots);
        match slots.get(pod.uid()) {
            Some(slot) if slot.finished => {
                slots.remove(pod.uid());
            }
            Some(slot) => slot.commands.send_modify(|c| c.gone = true),
            None => {}
        }
    }

    fn start(self: &Arc<Self>, command: Command, refused: Option<Refusal>) -> Slot {
        let uid = command.pod.uid().to_owned();
        let (commands, receiver) = watch::channel(command);
        let wakers = Wakers::default();
        let slot = Slot { commands, wakers: wakers.clone(), admitted: refused.is_none(), finished: false };
        let this = Arc::downgrade(self);
        let (ctx, token) = (self.ctx.clone(), self.tasks.token());
        self.tasks.spawn(format!("pod {uid}"), async move {
            loop {
                let mut worker = Worker::new(ctx.clone(), uid.clone(), receiver.clone(), wakers.clone());
                if let Some(Refusal { reason, message }) = refused.clone() {
                    worker = worker.refused(reason, message);
                }
                match Box::pin(worker.run(token.clone())).await {
                    Exit::ShutDown => return,
                    Exit::Gone => break,
                    Exit::Crashed => tokio::time::sleep(Duration::from_secs(1)).await,
                }
            }
            if let Some(pods) = this.upgrade() {
                pods.finished(&uid);
            }
        });
        slot
    }

    fn finished(&self, uid: &str) {
        let mut slots = lock(&self.slots);
        match slots.get_mut(uid) {
            Some(slot) if !slot.commands.borrow().gone => slot.finished = true,
            Some(_) => {
                slots.remove(uid);
            }
            None => {}
        }
        drop(slots);
        self.count();
    }

    fn count(&self) {
        let running = lock(&self.slots).values().filter(|s| !s.finished).count();
        self.ctx.meters.running_pods.set(i64::try_from(running).unwrap_or(i64::MAX));
    }

    /// The runtime reports something new of a pod.
    pub fn changed(self: &Arc<Self>, owner: &Owner) {
        let known = {
            let slots = lock(&self.slots);
            let slot = slots.get(&owner.uid);
            slot.iter().for_each(|s| s.wakers.runtime.notify_one());
            slot.is_some()
        };
        if !known {
            self.adopt(owner.clone());
        }
    }

    /// Takes charge of a pod that the API does not have, to end it. The pod informer must have synced.
    pub fn adopt(self: &Arc<Self>, owner: Owner) {
        let this = Arc::downgrade(self);
        let ctx = self.ctx.clone();
        self.tasks.spawn(format!("adopt {}", owner.uid), async move {
            let containers = ctx.runtime.containers(&[(POD_UID_LABEL, &owner.uid)]).await;
            let containers = containers.unwrap_or_else(|error| {
                tracing::warn!(uid = owner.uid, %error, "containers of an unknown pod cannot be listed");
                Vec::new()
            });
            let Some(pods) = this.upgrade() else { return };
            let mut slots = lock(&pods.slots);
            if slots.contains_key(&owner.uid) {
                return;
            }
            tracing::info!(?owner, "ending a pod that the API does not have");
            let pod = Arc::new(remnant(&owner, &containers));
            let slot = pods.start(Command { pod, gone: true }, None);
            slots.insert(owner.uid.clone(), slot);
        });
    }
}

/// As much of a pod as its containers' records tell.
fn remnant(owner: &Owner, containers: &[k8s_cri::v1::Container]) -> Pod {
    let annotation = |name: &str| containers.iter().find_map(|c| c.annotations.get(name));
    let grace = annotation(GRACE_ANNOTATION).and_then(|g| g.parse().ok());
    let mut names = HashSet::new();
    let distinct = containers.iter().filter_map(|c| Some((c.labels.get(CONTAINER_NAME_LABEL)?, c)));
    let specs = distinct.filter(|(name, _)| names.insert((*name).clone())).map(|(name, c)| Container {
        name: name.clone(),
        lifecycle: c
            .annotations
            .get(PRE_STOP_ANNOTATION)
            .map(|hook| Lifecycle { pre_stop: serde_json::from_str(hook).ok(), ..Lifecycle::default() }),
        ..Container::default()
    });
    let spec = PodSpec {
        containers: specs.collect(),
        termination_grace_period_seconds: grace,
        ..PodSpec::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(owner.name.clone()),
            namespace: Some(owner.namespace.clone()),
            uid: Some(owner.uid.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_pod_is_rebuilt_from_its_containers() {
        let owner = Owner { uid: "u".into(), namespace: "n".into(), name: "p".into() };
        let container = k8s_cri::v1::Container {
            labels: [(CONTAINER_NAME_LABEL.to_owned(), "c".to_owned())].into(),
            annotations: [
                (GRACE_ANNOTATION.to_owned(), "7".to_owned()),
                (PRE_STOP_ANNOTATION.to_owned(), r#"{"sleep":{"seconds":1}}"#.to_owned()),
            ]
            .into(),
            ..Default::default()
        };
        let pod = remnant(&owner, &[container.clone(), container]);
        let spec = pod.spec.unwrap();
        assert_eq!((spec.containers.len(), spec.termination_grace_period_seconds), (1, Some(7)));
        let hook = spec.containers[0].lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
        assert_eq!(hook.and_then(|h| h.sleep.as_ref()).map(|s| s.seconds), Some(1));
    }
}
