//! Feeds the state machine from the API. Begins before this instance leads, so that a new leader knows
//! everything.

use std::pin::Pin;
use std::sync::Arc;

use api::meta::{MetaExt, key_of};
use api::object::Document;
use api::openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use api::openapi::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service,
};
use api::openapi::api::policy::v1::PodDisruptionBudget;
use api::openapi::api::storage::v1::{CSINode, StorageClass};
use api::selector::Selector;
use api::{Kind, Typed};
use client::{Change, Client, Informer, ListParams};
use component::health::Check;
use component::tasks::Spawner;
use tokio::time::Instant;

use crate::bind::Binder;
use crate::cluster::Cluster;
use crate::plugins::scheduling_gates::{self, gated};
use crate::pod::{Standing, standing};
use crate::run::Shared;
use crate::terms::selector_of;

/// An object without what no decision looks at: it is kept for as long as the object lives, and there
/// are many.
#[derive(Clone, Debug)]
struct Lean<K>(Arc<K>);

/// What is left out of an object.
trait Prune: Typed {
    fn prune(&mut self);
}

impl<K: Prune> Document for Lean<K> {
    fn encode(&self) -> Vec<u8> {
        self.0.encode()
    }
    fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let mut object = K::decode(bytes)?;
        object.metadata_mut().managed_fields = None;
        object.metadata_mut().annotations = None;
        object.prune();
        Ok(Self(Arc::new(object)))
    }
    fn document_key(&self) -> String {
        self.0.document_key()
    }
    fn document_namespace(&self) -> &str {
        self.0.document_namespace()
    }
    fn document_name(&self) -> &str {
        self.0.document_name()
    }
    fn document_version(&self) -> &str {
        self.0.document_version()
    }
}

impl Prune for Pod {
    fn prune(&mut self) {
        let Some(spec) = &mut self.spec else { return };
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let kept = std::mem::take(container);
            container.name = kept.name;
            container.image = kept.image;
            container.ports = kept.ports;
            container.resources = kept.resources;
            container.restart_policy = kept.restart_policy;
        }
        if let Some(volumes) = &mut spec.volumes {
            volumes.retain(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some());
        }
        spec.ephemeral_containers = None;
        spec.security_context = None;
        if let Some(status) = &mut self.status {
            status.container_statuses = None;
            status.init_container_statuses = None;
            status.ephemeral_container_statuses = None;
        }
    }
}

impl Prune for Node {
    fn prune(&mut self) {
        if let Some(status) = &mut self.status {
            let kept = std::mem::take(status);
            status.allocatable = kept.allocatable;
            status.capacity = kept.capacity;
            status.images = kept.images;
        }
    }
}

impl Prune for Service {
    fn prune(&mut self) {
        self.status = None;
        if let Some(spec) = &mut self.spec {
            let selector = spec.selector.take();
            *spec = Default::default();
            spec.selector = selector;
        }
    }
}

impl Prune for ReplicaSet {
    fn prune(&mut self) {
        self.status = None;
        self.spec.iter_mut().for_each(|spec| spec.template = None);
    }
}

impl Prune for StatefulSet {
    fn prune(&mut self) {
        self.status = None;
        if let Some(spec) = &mut self.spec {
            spec.template = Default::default();
            spec.volume_claim_templates = None;
        }
    }
}

impl Prune for ReplicationController {
    fn prune(&mut self) {
        self.status = None;
        self.spec.iter_mut().for_each(|spec| spec.template = None);
    }
}

/// What is followed, until [`Feed::synced`] and after.
pub(crate) struct Feed(Vec<Box<dyn Synced>>);

trait Synced: Send + Sync {
    fn synced(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

impl<K: Document> Synced for Informer<K> {
    fn synced(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(Informer::synced(self))
    }
}

/// Starts what follows the API.
struct Starter<'a> {
    client: &'a Client,
    shared: &'a Shared,
    tasks: &'a Spawner,
    started: Vec<Box<dyn Synced>>,
}

impl Starter<'_> {
    /// Follows a kind. One that the API does not serve is left out.
    fn follow<K: Typed, D: Document>(&mut self, feed: impl Fn(&Shared, &Change<D>) + Send + Sync + 'static) {
        let Some(kind) = Kind::find(K::GROUP, K::KIND) else { return };
        let informer = Informer::<D>::new(self.client.documents(kind, ""), ListParams::default());
        let to = self.shared.clone();
        informer.on_change(move |change| {
            feed(&to, change);
            to.wake();
        });
        informer.start(self.tasks);
        self.started.push(Box::new(informer));
    }

    /// Follows what only has to be known.
    fn know<K: Typed, D: Document>(&mut self, set: impl Fn(&mut Cluster, &D, bool) + Send + Sync + 'static) {
        self.follow::<K, D>(move |to, change| {
            let gone = matches!(change, Change::Deleted(_));
            to.lock().cluster(|cluster| set(cluster, change.object(), gone));
        });
    }

    /// Follows what pods may wait for: volumes and their like.
    fn store<K: Typed>(&mut self, set: impl Fn(&mut Cluster, &Arc<K>, bool) + Send + Sync + 'static) {
        self.follow::<K, K>(move |to, change| {
            let gone = matches!(change, Change::Deleted(_));
            let object = change.object();
            let now = Instant::now();
            to.lock().storage(object.namespace(), now, |cluster| set(cluster, object, gone));
        });
    }
}

impl Feed {
    /// Begins to follow.
    pub(crate) fn start(client: &Client, shared: &Shared, binder: &Binder, tasks: &Spawner) -> Self {
        let mut starter = Starter { client, shared, tasks, started: Vec::new() };
        starter.follow::<Node, Lean<Node>>(|to, change| match change {
            Change::Added(node) | Change::Updated { new: node, .. } => {
                to.lock().set_node(&node.0, Instant::now());
            }
            Change::Deleted(node) => to.lock().remove_node(node.0.name(), Instant::now()),
        });
        starter.follow::<Namespace, Namespace>(|to, change| {
            let namespace = change.object();
            let labels = namespace.metadata.labels.clone().unwrap_or_default();
            let labels = (!matches!(change, Change::Deleted(_))).then_some(&labels);
            to.lock().set_namespace(namespace.name(), labels, Instant::now());
        });
        starter.know::<Service, Lean<Service>>(|cluster, service, gone| {
            let selector = service.0.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            let selector = selector.filter(|_| !gone).map(Selector::from_map);
            cluster.set_service(service.0.namespace(), service.0.name(), selector);
        });
        starter.know::<ReplicaSet, Lean<ReplicaSet>>(|cluster, set, gone| {
            let selector = set.0.spec.as_ref().map(|spec| selector_of(Some(&spec.selector)));
            cluster.set_owner(set.0.uid(), selector.filter(|_| !gone));
        });
        starter.know::<StatefulSet, Lean<StatefulSet>>(|cluster, set, gone| {
            let selector = set.0.spec.as_ref().map(|spec| selector_of(Some(&spec.selector)));
            cluster.set_owner(set.0.uid(), selector.filter(|_| !gone));
        });
        starter.know::<ReplicationController, Lean<ReplicationController>>(|cluster, controller, gone| {
            let selector = controller.0.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            cluster.set_owner(controller.0.uid(), selector.filter(|_| !gone).map(Selector::from_map));
        });
        starter.know::<PodDisruptionBudget, PodDisruptionBudget>(|cluster, budget, gone| {
            cluster.set_budget(budget.namespace(), budget.name(), (!gone).then_some(budget));
        });
        starter.store::<PersistentVolumeClaim>(|cluster, claim, gone| {
            let key = key_of(claim.namespace(), claim.name());
            cluster.volumes.set_claim(&key, (!gone).then(|| claim.clone()));
        });
        starter.store::<PersistentVolume>(|cluster, volume, gone| {
            cluster.volumes.set_volume(volume.name(), (!gone).then(|| volume.clone()));
        });
        starter.store::<StorageClass>(|cluster, class, gone| {
            cluster.volumes.set_class(class.name(), (!gone).then(|| class.clone()));
        });
        starter.store::<CSINode>(|cluster, node, gone| {
            cluster.volumes.set_csi_node(node.name(), (!gone).then_some(&**node));
        });
        let (binder, spawner) = (binder.clone(), tasks.clone());
        starter.follow::<Pod, Lean<Pod>>(move |to, change| {
            feed_pod(to, change);
            if let Change::Added(pod) | Change::Updated { new: pod, .. } = change
                && standing(&pod.0) == Standing::Pending
                && gated(&pod.0)
            {
                let (binder, pod) = (binder.clone(), pod.0.clone());
                spawner.spawn("gated", async move {
                    binder.tell(&pod, "SchedulingGated", scheduling_gates::MESSAGE, None).await;
                });
            }
        });
        Self(starter.started)
    }

    /// Waits until everything that there is is known.
    pub(crate) async fn synced(&self, check: &Check) {
        for informer in &self.0 {
            informer.synced().await;
        }
        check.ok();
    }
}

fn feed_pod(shared: &Shared, change: &Change<Lean<Pod>>) {
    let now = Instant::now();
    let mut core = shared.lock();
    match change {
        Change::Added(pod) => core.set_pod(&pod.0, now),
        Change::Updated { old, new } => {
            // Deleted and made again under the same name.
            if old.0.uid() != new.0.uid() {
                core.remove_pod(old.0.uid(), now);
            }
            core.set_pod(&new.0, now);
        }
        Change::Deleted(pod) => core.remove_pod(pod.0.uid(), now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_decisions_look_at_is_kept_and_the_rest_is_not() {
        let pod = json!({"metadata": {"name": "p", "annotations": {"a": "b"}, "labels": {"app": "web"}},
            "spec": {"nodeSelector": {"a": "b"}, "volumes": [{"name": "e", "emptyDir": {}},
                    {"name": "c", "persistentVolumeClaim": {"claimName": "c"}}],
                "containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "b"}],
                    "resources": {"requests": {"cpu": "1"}}, "ports": [{"containerPort": 1, "hostPort": 2}]}]},
            "status": {"phase": "Running", "containerStatuses": []}});
        let lean = Lean::<Pod>::decode(pod.to_string().as_bytes()).unwrap();
        let kept = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"app": "web"}},
            "spec": {"nodeSelector": {"a": "b"},
                "volumes": [{"name": "c", "persistentVolumeClaim": {"claimName": "c"}}],
                "containers": [{"name": "c", "image": "i",
                    "resources": {"requests": {"cpu": "1"}}, "ports": [{"containerPort": 1, "hostPort": 2}]}]},
            "status": {"phase": "Running"}});
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&lean.encode()).unwrap(), kept);
    }
}
