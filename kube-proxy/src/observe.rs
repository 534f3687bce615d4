//! Gathers what changed in the API, and hands it over in batches: the first change at once, the next
//! ones together as soon as the kernel has taken the first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::meta::MetaExt;
use api::openapi::api::core::v1::{Node, Service};
use api::openapi::api::discovery::v1::EndpointSlice;
use client::{Change, Client, Informer, ListParams, Store};
use component::clock::Clock;
use component::tasks::{Spawner, lock};
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::model::{self, LocalNode, ServiceModel, TRIGGER_TIME_ANNOTATION};
use crate::net::Cidr;
use crate::proxy::Proxy;
use crate::routes::{self, Via};
use crate::status::Status;
use crate::{chain, conntrack, link};

const BY_SERVICE: &str = "service";
/// The first pause after a failure; it doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(30);

/// What changed since it was last taken.
#[derive(Debug, Default)]
struct Pending {
    services: BTreeSet<String>,
    /// Everything depends on this node's zone.
    all: bool,
    /// When the changes happened that EndpointSlices report.
    triggers: Vec<Timestamp>,
    service_changes: u64,
    endpoint_changes: u64,
}

/// The caches, and what changed in them.
pub struct Observer {
    node_name: String,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    nodes: Informer<Node>,
    pending: Mutex<Pending>,
    changed: Notify,
    nodes_changed: Notify,
}

impl Observer {
    /// Begins to watch.
    pub fn start(client: &Client, node_name: &str, tasks: &Spawner) -> Arc<Self> {
        let slices = Informer::new(client.all(), ListParams::default());
        let observer = Arc::new(Self {
            node_name: node_name.to_owned(),
            services: Informer::new(client.all(), ListParams::default()),
            slices: slices.index(BY_SERVICE, |slice| model::service_of_slice(slice).into_iter().collect()),
            nodes: Informer::new(client.all(), ListParams::default()),
            pending: Mutex::default(),
            changed: Notify::new(),
            nodes_changed: Notify::new(),
        });
        // Weak: the informers live in the observer, their handlers must not keep it alive.
        let weak = Arc::downgrade(&observer);
        observer.services.on_change(move |change| {
            let Some(observer) = weak.upgrade() else { return };
            observer.service_changed(change.key());
        });
        let weak = Arc::downgrade(&observer);
        observer.slices.on_change(move |change| {
            let Some(observer) = weak.upgrade() else { return };
            observer.slice_changed(change);
        });
        let weak = Arc::downgrade(&observer);
        observer.nodes.on_change(move |change| {
            let Some(observer) = weak.upgrade() else { return };
            observer.node_changed(change);
        });
        observer.services.start(tasks);
        observer.slices.start(tasks);
        observer.nodes.start(tasks);
        observer
    }

    fn service_changed(&self, key: String) {
        let mut pending = lock(&self.pending);
        pending.services.insert(key);
        pending.service_changes += 1;
        drop(pending);
        self.changed.notify_one();
    }

    fn slice_changed(&self, change: &Change<EndpointSlice>) {
        let mut pending = lock(&self.pending);
        pending.services.extend(model::service_of_slice(change.object()));
        if let Change::Updated { old, .. } = change {
            pending.services.extend(model::service_of_slice(old));
        }
        let trigger = change.object().annotation(TRIGGER_TIME_ANNOTATION);
        if !matches!(change, Change::Deleted(_)) {
            pending.triggers.extend(trigger.and_then(|time| time.parse::<Timestamp>().ok()));
        }
        pending.endpoint_changes += 1;
        drop(pending);
        self.changed.notify_one();
    }

    fn node_changed(&self, change: &Change<Node>) {
        // Nodes report their status all the time; only their addresses, ranges and labels matter.
        if let Change::Updated { old, new } = change
            && node_view(old) == node_view(new)
        {
            return;
        }
        if change.object().name() == self.node_name {
            lock(&self.pending).all = true;
            self.changed.notify_one();
        }
        self.nodes_changed.notify_one();
    }

    async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
        self.nodes.synced().await;
    }

    fn me(&self) -> Option<Arc<Node>> {
        self.nodes.store().get(&self.node_name)
    }

    /// Takes what changed and normalises it.
    fn take(&self) -> Batch {
        let pending = std::mem::take(&mut *lock(&self.pending));
        let local = LocalNode::of(&self.node_name, self.me().as_deref());
        let (services, slices) = (self.services.store(), self.slices.store());
        let mut keys = pending.services;
        if pending.all {
            keys.extend(services.list().iter().map(|service| api::meta::key(service.as_ref())));
        }
        let models = keys.into_iter().map(|key| {
            let model = normalise(&services, &slices, &key, &local);
            (key, model)
        });
        Batch {
            models: models.collect(),
            triggers: pending.triggers,
            service_changes: pending.service_changes,
            endpoint_changes: pending.endpoint_changes,
        }
    }
}

type NodeView = (Vec<Cidr>, Option<Ipv4Addr>, Option<String>, bool);

fn node_view(node: &Node) -> NodeView {
    let zone = LocalNode::of("", Some(node)).zone;
    (routes::pod_cidrs(node), routes::internal_ip(node), zone, !eligible(node))
}

/// Whether load balancers should still send traffic here.
fn eligible(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    !node.is_deleting() && !taints.any(|taint| taint.key == "ToBeDeletedByClusterAutoscaler")
}

fn normalise(
    services: &Store<Service>,
    slices: &Store<EndpointSlice>,
    key: &str,
    local: &LocalNode,
) -> Option<ServiceModel> {
    let service = services.get(key)?;
    model::service(&service, &slices.by_index(BY_SERVICE, key), local)
}

struct Batch {
    models: BTreeMap<String, Option<ServiceModel>>,
    triggers: Vec<Timestamp>,
    service_changes: u64,
    endpoint_changes: u64,
}

/// Brings rules and names up to date.
pub struct Worker {
    /// What changed.
    pub observer: Arc<Observer>,
    /// What is desired and done.
    pub proxy: Proxy,
    /// Where it is shown.
    pub status: Arc<Status>,
    /// The time.
    pub clock: Clock,
    /// Notified when the table may be gone.
    pub removed: Arc<Notify>,
    /// Runs what need not be waited for.
    pub tasks: Spawner,
}

impl Worker {
    /// Works until the token is cancelled.
    pub async fn run(mut self, token: CancellationToken) {
        tokio::select! {
            () = token.cancelled() => return,
            () = self.observer.synced() => {}
        }
        let mut retry: Option<Duration> = Some(Duration::ZERO);
        loop {
            let pause = async {
                match retry {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = self.removed.notified() => self.proxy.distrust(),
                () = self.observer.changed.notified() => {}
                () = pause => {}
            }
            retry = match self.sync().await {
                true => None,
                false => Some(retry.map_or(RETRY_FIRST, |r| (r * 2).clamp(RETRY_FIRST, RETRY_LAST))),
            };
        }
    }

    async fn sync(&mut self) -> bool {
        let began = tokio::time::Instant::now();
        let batch = self.observer.take();
        self.status.queued();
        self.status.eligible(self.observer.me().is_none_or(|node| eligible(&node)));
        let services = batch.models.len();
        match self.proxy.sync(batch.models).await {
            Ok(done) => {
                let took = began.elapsed();
                self.status.synced(took, &batch.triggers, batch.service_changes, batch.endpoint_changes);
                if done.lines > 0 {
                    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                    tracing::info!(
                        services,
                        lines = done.lines,
                        full = done.full,
                        micros,
                        "rules are up to date"
                    );
                }
                if !done.ended.is_empty() {
                    self.tasks.spawn("conntrack", async move { conntrack::forget(&done.ended).await });
                }
                if done.full {
                    let (flows, range) = self.proxy.udp_flows();
                    self.tasks
                        .spawn("conntrack", async move { conntrack::forget_stale(&flows, range).await });
                }
                true
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "rules cannot be brought up to date");
                self.status.failed();
                false
            }
        }
    }
}

/// Keeps the DNS interface and the routes.
pub struct Network {
    /// What changed.
    pub observer: Arc<Observer>,
    /// The kernel's routing.
    pub netlink: rtnetlink::Handle,
    /// The range that stays on this node.
    pub service_range: Cidr,
    /// The interface's address.
    pub cluster_dns: Option<Ipv4Addr>,
    /// Where it is shown.
    pub status: Arc<Status>,
}

impl Network {
    /// Works until the token is cancelled.
    pub async fn run(self, token: CancellationToken) {
        tokio::select! {
            () = token.cancelled() => return,
            () = self.observer.nodes.synced() => {}
        }
        let mut retry: Option<Duration> = None;
        loop {
            retry = match self.sync().await {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(error, "routes are not up to date");
                    Some(retry.map_or(RETRY_FIRST, |r| (r * 2).clamp(RETRY_FIRST, RETRY_LAST)))
                }
            };
            let pause = async {
                match retry {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = token.cancelled() => return,
                () = self.observer.nodes_changed.notified() => {}
                () = pause => {}
            }
        }
    }

    async fn sync(&self) -> Result<(), String> {
        let index = link::ensure(&self.netlink, self.cluster_dns).await.map_err(|e| chain(&e))?;
        let nodes = self.observer.nodes.store().list();
        let mut want = routes::to_other_nodes(&nodes, &self.observer.node_name);
        let source = self.observer.me().and_then(|node| routes::internal_ip(&node));
        want.insert(self.service_range, Via::Device { index, source });
        let applied = routes::apply(&self.netlink, &want).await;
        if applied.is_err() && source.is_some() {
            // The node's address may be one that this machine does not carry itself (NAT).
            want.insert(self.service_range, Via::Device { index, source: None });
            return routes::apply(&self.netlink, &want).await.map_err(|e| chain(&e));
        }
        applied.map_err(|e| chain(&e))
    }
}
