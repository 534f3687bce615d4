//! Deletes objects whose owners are gone, and lets owners go when their dependents are.

mod custom;
mod graph;
pub(super) mod partial;
mod plan;

use std::sync::{Arc, Mutex};

use api::meta::MetaExt;
use api::openapi::api::core::v1::ObjectReference;
use api::openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, OwnerReference, Preconditions};
use api::{Kind, Object, Typed};
use client::{Action, Change, EventType, Informer, ListParams, Patch, Recorder, WorkQueue, run_workers};
use component::tasks::{Spawner, lock};
use serde_json::json;

use crate::context::Context;
use crate::informers::Informers;
use custom::Customs;
use graph::{FOREGROUND, Graph, Item, ORPHAN, Work, group};
use partial::Partial;
use plan::{OwnerState, Plan, blocking, plan};

type Shared = Arc<Mutex<Graph>>;

struct Controller {
    ctx: Context,
    recorder: Recorder,
    graph: Shared,
    queue: WorkQueue<Work>,
    customs: Customs,
}

/// Runs the controller until leadership ends.
pub async fn run(ctx: Context) {
    let graph = Shared::default();
    let queue = WorkQueue::new("garbagecollector");
    feed_shared(&ctx.informers, &graph, &queue);
    let others: Vec<Informer<Partial>> =
        others().map(|kind| feed_partial(&ctx, &ctx.tasks, kind, &graph, &queue)).collect();
    let (customs, _definitions) = custom::follow(&ctx, &graph, &queue).await;
    wait_for_shared(&ctx.informers).await;
    for informer in &others {
        informer.synced().await;
    }
    let recorder = ctx.recorder("garbage-collector-controller");
    let (workers, tasks) = (ctx.config.concurrent_gc_syncs, ctx.tasks.clone());
    let controller = Arc::new(Controller { ctx, recorder, graph, queue: queue.clone(), customs });
    let reconcile = move |work: Work| {
        let controller = controller.clone();
        async move { controller.reconcile(work).await }
    };
    run_workers(queue, workers, &tasks, reconcile).await;
}

fn feed_shared(informers: &Informers, graph: &Shared, queue: &WorkQueue<Work>) {
    feed(&informers.deployments, graph, queue);
    feed(&informers.replica_sets, graph, queue);
    feed(&informers.pods, graph, queue);
    feed(&informers.services, graph, queue);
    feed(&informers.endpoints, graph, queue);
    feed(&informers.endpoint_slices, graph, queue);
    feed(&informers.nodes, graph, queue);
    feed(&informers.leases, graph, queue);
    feed(&informers.namespaces, graph, queue);
    feed(&informers.service_accounts, graph, queue);
}

async fn wait_for_shared(informers: &Informers) {
    let i = informers;
    tokio::join!(i.deployments.synced(), i.replica_sets.synced(), i.pods.synced(), i.services.synced());
    tokio::join!(i.endpoints.synced(), i.endpoint_slices.synced(), i.nodes.synced(), i.leases.synced());
    tokio::join!(i.namespaces.synced(), i.service_accounts.synced());
}

/// The kinds for which no informer is there anyway. Events own nothing and expire by themselves.
fn others() -> impl Iterator<Item = &'static Kind> {
    const SHARED: [&str; 10] = [
        "deployments",
        "replicasets",
        "pods",
        "services",
        "endpoints",
        "endpointslices",
        "nodes",
        "leases",
        "namespaces",
        "serviceaccounts",
    ];
    Kind::distinct().filter(|kind| kind.kind != "Event" && !SHARED.contains(&kind.plural))
}

fn feed<K: Typed>(informer: &Informer<K>, graph: &Shared, queue: &WorkQueue<Work>) {
    let (graph, queue) = (graph.clone(), queue.clone());
    informer.on_change(move |change| {
        let work = follow(&graph, change, |object| object.uid(), item);
        work.into_iter().for_each(|work| queue.add(work));
    });
}

fn feed_partial(
    ctx: &Context,
    tasks: &Spawner,
    kind: &'static Kind,
    graph: &Shared,
    queue: &WorkQueue<Work>,
) -> Informer<Partial> {
    let informer = Informer::new(ctx.client.documents::<Partial>(kind, ""), ListParams::default());
    let (graph, queue) = (graph.clone(), queue.clone());
    informer.on_change(move |change| {
        let work = follow(&graph, change, |object| &object.metadata.uid, |object| partial_item(kind, object));
        work.into_iter().for_each(|work| queue.add(work));
    });
    informer.start(tasks);
    informer
}

/// Takes a change over into the graph. A name that another object has taken over is two changes.
fn follow<K>(
    graph: &Shared,
    change: &Change<K>,
    uid: impl Fn(&K) -> &str,
    item: impl Fn(&K) -> Item,
) -> Vec<Work> {
    let mut graph = lock(graph);
    match change {
        Change::Added(object) => graph.upsert(item(object)),
        Change::Deleted(object) => graph.remove(uid(object)),
        Change::Updated { old, new } => {
            let mut work = if uid(old) == uid(new) { Vec::new() } else { graph.remove(uid(old)) };
            work.extend(graph.upsert(item(new)));
            work
        }
    }
}

fn item<K: Typed>(object: &K) -> Item {
    let meta = object.metadata();
    let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|f| f == finalizer);
    Item {
        kind: K::kind(),
        namespace: object.namespace().to_owned(),
        name: object.name().to_owned(),
        uid: object.uid().to_owned(),
        owners: meta.owner_references.clone().unwrap_or_default(),
        deleting: object.is_deleting(),
        foreground: has(FOREGROUND),
        orphan: has(ORPHAN),
    }
}

fn partial_item(kind: &'static Kind, object: &Partial) -> Item {
    let meta = &object.metadata;
    let has = |finalizer: &str| meta.finalizers.iter().any(|f| f == finalizer);
    Item {
        kind,
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        owners: meta.owner_references.clone(),
        deleting: meta.deletion_timestamp.is_some(),
        foreground: has(FOREGROUND),
        orphan: has(ORPHAN),
    }
}

impl Controller {
    async fn reconcile(&self, work: Work) -> Result<Action, client::Error> {
        let (Work::Check(uid) | Work::Orphan(uid)) = &work;
        let item = lock(&self.graph).get(uid).cloned();
        let Some(item) = item else { return Ok(Action::Done) };
        // What is decided here cannot be undone, so the object is read from the API server.
        let api = self.ctx.client.dynamic(item.kind, &item.namespace);
        let live = api.get_opt(&item.name).await?.filter(|live| live.uid() == item.uid);
        let Some(live) = live else { return Ok(Action::Done) };
        match work {
            Work::Orphan(_) => self.orphan(&item, &live).await?,
            Work::Check(_) => self.check(&item, &live).await?,
        }
        Ok(Action::Done)
    }

    async fn check(&self, item: &Item, live: &Object) -> Result<(), client::Error> {
        let finalizers = live.finalizers();
        if live.deletion_timestamp().is_some() {
            if finalizers.iter().any(|f| f == FOREGROUND) {
                return self.release(item, live).await;
            }
            return Ok(());
        }
        let mut owners = Vec::new();
        for owner in live.owner_references() {
            match self.owner_state(item, &owner).await? {
                Some(state) => owners.push((owner, state)),
                // Nothing is deleted on account of an owner that cannot be looked up.
                None => owners.push((owner, OwnerState::Solid)),
            }
        }
        let decision = {
            let graph = lock(&self.graph);
            plan(&owners, &finalizers, &graph.dependents(&item.uid))
        };
        match decision {
            Plan::Keep => Ok(()),
            Plan::RemoveOwners(uids) => self.remove_owners(item, live, &uids).await,
            Plan::Delete { policy, unblock } => {
                if unblock {
                    self.unblock(item, live).await?;
                }
                self.delete(item, (!unblock).then(|| live.resource_version()), policy).await
            }
        }
    }

    /// An owner that waits for its dependents goes when none that it must wait for is left.
    async fn release(&self, item: &Item, live: &Object) -> Result<(), client::Error> {
        let blocking: Vec<_> = {
            let graph = lock(&self.graph);
            let dependents = graph.dependents(&item.uid);
            let of = |d: &&Item| (d.uid.clone(), d.waits_for_dependents());
            blocking(item, &dependents).iter().map(of).collect()
        };
        if blocking.is_empty() {
            return self.remove_finalizer(item, live, FOREGROUND).await;
        }
        for (uid, waits) in blocking {
            if !waits {
                self.queue.add(Work::Check(uid));
            }
        }
        Ok(())
    }

    /// How an owner stands; `None` when there is no telling.
    async fn owner_state(
        &self,
        item: &Item,
        owner: &OwnerReference,
    ) -> Result<Option<OwnerState>, client::Error> {
        let known = {
            let graph = lock(&self.graph);
            if graph.is_gone(&owner.uid) {
                return Ok(Some(OwnerState::Absent));
            }
            graph.get(&owner.uid).map(|o| (o.is_meant_by(owner, &item.namespace), o.waits_for_dependents()))
        };
        match known {
            Some((true, true)) => return Ok(Some(OwnerState::Waiting)),
            Some((true, false)) => return Ok(Some(OwnerState::Solid)),
            Some((false, _)) => self.warn_of_coordinates(item, owner),
            None => {}
        }
        let group = group(&owner.api_version);
        let found = Kind::find(group, &owner.kind).or_else(|| self.customs.find(group, &owner.kind));
        let Some(kind) = found else {
            tracing::debug!(owner = ?owner, item = %item.name, "owner is of an unknown kind");
            return Ok(None);
        };
        if kind.namespaced && item.namespace.is_empty() {
            tracing::debug!(owner = ?owner, item = %item.name, "a cluster-scoped object has a namespaced owner");
            return Ok(None);
        }
        let namespace = if kind.namespaced { item.namespace.as_str() } else { "" };
        let live = self.ctx.client.dynamic(kind, namespace).get_opt(&owner.name).await?;
        Ok(Some(match live.filter(|live| live.uid() == owner.uid) {
            None => {
                if known.is_none() {
                    lock(&self.graph).note_gone(&owner.uid);
                }
                OwnerState::Absent
            }
            Some(live) => {
                let waits =
                    live.deletion_timestamp().is_some() && live.finalizers().iter().any(|f| f == FOREGROUND);
                if waits { OwnerState::Waiting } else { OwnerState::Solid }
            }
        }))
    }

    /// An owner of that uid exists, but not where the reference says.
    fn warn_of_coordinates(&self, item: &Item, owner: &OwnerReference) {
        let reference =
            format!("{}/{}, name: {}, uid: {}", owner.api_version, owner.kind, owner.name, owner.uid);
        let message = format!("ownerRef [{reference}] does not exist in namespace \"{}\"", item.namespace);
        let regarding = ObjectReference {
            api_version: Some(item.kind.api_version.into()),
            kind: Some(item.kind.kind.into()),
            namespace: (!item.namespace.is_empty()).then(|| item.namespace.clone()),
            name: Some(item.name.clone()),
            uid: Some(item.uid.clone()),
            ..ObjectReference::default()
        };
        self.recorder.event_ref(regarding, EventType::Warning, "OwnerRefInvalidNamespace", message);
    }

    async fn delete(
        &self,
        item: &Item,
        version: Option<&str>,
        policy: &'static str,
    ) -> Result<(), client::Error> {
        tracing::info!(kind = item.kind.kind, namespace = %item.namespace, name = %item.name, policy, "collecting");
        let options = DeleteOptions {
            // The version makes sure that it has got no other owner in the meantime.
            preconditions: Some(Preconditions {
                uid: Some(item.uid.clone()),
                resource_version: version.map(str::to_owned),
            }),
            propagation_policy: Some(policy.into()),
            ..DeleteOptions::default()
        };
        let api = self.ctx.client.dynamic(item.kind, &item.namespace);
        match api.delete(&item.name, &options).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes the owner away from all dependents, and then the finalizer from the owner.
    async fn orphan(&self, item: &Item, live: &Object) -> Result<(), client::Error> {
        if live.deletion_timestamp().is_none() || !live.finalizers().iter().any(|f| f == ORPHAN) {
            return Ok(());
        }
        let dependents: Vec<Item> = lock(&self.graph).dependents(&item.uid).into_iter().cloned().collect();
        for dependent in dependents {
            let api = self.ctx.client.dynamic(dependent.kind, &dependent.namespace);
            let Some(live) = api.get_opt(&dependent.name).await?.filter(|l| l.uid() == dependent.uid) else {
                continue;
            };
            self.remove_owners(&dependent, &live, std::slice::from_ref(&item.uid)).await?;
        }
        self.remove_finalizer(item, live, ORPHAN).await
    }

    async fn remove_owners(&self, item: &Item, live: &Object, uids: &[String]) -> Result<(), client::Error> {
        let mut owners = live.owner_references();
        let before = owners.len();
        owners.retain(|owner| !uids.contains(&owner.uid));
        if owners.len() == before {
            return Ok(());
        }
        let owners = if owners.is_empty() { serde_json::Value::Null } else { json!(owners) };
        self.patch(item, live, json!({ "ownerReferences": owners })).await
    }

    async fn unblock(&self, item: &Item, live: &Object) -> Result<(), client::Error> {
        let mut owners = live.owner_references();
        owners.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
        self.patch(item, live, json!({ "ownerReferences": owners })).await
    }

    async fn remove_finalizer(
        &self,
        item: &Item,
        live: &Object,
        finalizer: &str,
    ) -> Result<(), client::Error> {
        let mut finalizers = live.finalizers();
        finalizers.retain(|f| f != finalizer);
        let finalizers = if finalizers.is_empty() { serde_json::Value::Null } else { json!(finalizers) };
        self.patch(item, live, json!({ "finalizers": finalizers })).await
    }

    /// Changes the metadata of the very object that was read, at the version that was read.
    async fn patch(
        &self,
        item: &Item,
        live: &Object,
        mut meta: serde_json::Value,
    ) -> Result<(), client::Error> {
        meta["uid"] = json!(live.uid());
        meta["resourceVersion"] = json!(live.resource_version());
        let api = self.ctx.client.dynamic(item.kind, &item.namespace);
        match api.patch(&item.name, &Patch::Merge(json!({ "metadata": meta }))).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
