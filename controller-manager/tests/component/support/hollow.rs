//! Nodes without a machine: they renew their Leases and report what kubelets would report.
//!
//! A pod with an image that begins with `bad` never becomes ready.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use api::openapi::api::coordination::v1::Lease;
use api::openapi::api::core::v1::{Node, Pod};
use api::openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use client::{Action, Client, Error, Informer, ListParams, Patch, WorkQueue, run_workers};
use component::clock::Clock;
use component::tasks::Tasks;
use serde_json::json;

const LEASES: &str = "kube-node-lease";

struct Inner {
    client: Client,
    clock: Clock,
    up: Mutex<HashSet<String>>,
    names: Vec<String>,
    turn: AtomicUsize,
    address: AtomicUsize,
    queue: WorkQueue,
    pods: Informer<Pod>,
}

/// The hollow nodes of a test.
pub struct Hollow(Arc<Inner>);

impl Hollow {
    /// Registers the nodes and lets them work.
    pub async fn start(client: &Client, tasks: &Tasks, names: &[&str]) -> Self {
        let queue = WorkQueue::new("hollow");
        let pods = Informer::new(client.all::<Pod>(), ListParams::default());
        let q = queue.clone();
        pods.on_change(move |change| q.add(change.key()));
        let inner = Arc::new(Inner {
            client: client.clone(),
            clock: Clock::system(),
            up: Mutex::default(),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            turn: AtomicUsize::new(0),
            address: AtomicUsize::new(0),
            queue: queue.clone(),
            pods,
        });
        for name in names {
            inner.register(name).await.expect("the node registers");
            inner.up().insert((*name).to_owned());
        }
        inner.pods.start(&tasks.spawner());
        let beating = inner.clone();
        tasks.spawn("heartbeats", async move {
            loop {
                for name in beating.names.clone() {
                    beating.beat(&name).await;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        let (spawner, working) = (tasks.spawner(), inner.clone());
        tasks.spawn("kubelets", async move {
            let reconcile = move |key: String| {
                let inner = working.clone();
                async move { inner.reconcile(&key).await }
            };
            run_workers(queue, 4, &spawner, reconcile).await;
        });
        Self(inner)
    }

    /// The node falls silent, with all that runs on it.
    pub fn stop(&self, name: &str) {
        self.0.up().remove(name);
    }

    /// The node is back.
    pub async fn resume(&self, name: &str) {
        self.0.register(name).await.expect("the node reports");
        self.0.up().insert(name.to_owned());
        for pod in self.0.pods.store().list() {
            self.0.queue.add(api::meta::key(&*pod));
        }
    }
}

impl Inner {
    fn up(&self) -> MutexGuard<'_, HashSet<String>> {
        self.up.lock().expect("no holder panics")
    }

    fn is_up(&self, node: &str) -> bool {
        self.up().contains(node)
    }

    async fn register(&self, name: &str) -> Result<(), Error> {
        let nodes = self.client.all::<Node>();
        if nodes.get_opt(name).await?.is_none() {
            let mut node = Node::default();
            node.metadata.name = Some(name.to_owned());
            nodes.create(&node).await?;
        }
        let now = self.clock.time();
        let ready = json!({
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        });
        nodes.patch_status(name, &Patch::Merge(json!({ "status": { "conditions": [ready] } }))).await?;
        let leases = self.client.namespaced::<Lease>(LEASES);
        if leases.get_opt(name).await?.is_none() {
            let mut lease = Lease::default();
            lease.metadata.name = Some(name.to_owned());
            leases.create(&lease).await?;
        }
        Ok(())
    }

    async fn beat(&self, name: &str) {
        if self.is_up(name) {
            let spec = json!({ "holderIdentity": name, "renewTime": self.clock.micro_time() });
            // A beat that is lost is followed by the next.
            let leases = self.client.namespaced::<Lease>(LEASES);
            let _ = leases.patch(name, &Patch::Merge(json!({ "spec": spec }))).await;
        }
    }

    async fn reconcile(&self, key: &str) -> Result<Action, Error> {
        let Some(pod) = self.pods.store().get(key) else { return Ok(Action::Done) };
        let (namespace, name) = api::meta::split_key(key);
        let pods = self.client.namespaced::<Pod>(namespace);
        let spec = pod.spec.as_ref().expect("a pod has a spec");
        let node = spec.node_name.as_deref().unwrap_or_default();
        if node.is_empty() && pod.metadata.deletion_timestamp.is_none() {
            return self.bind(&pods, name).await;
        }
        if !self.is_up(node) {
            return Ok(Action::Done);
        }
        if pod.metadata.deletion_timestamp.is_some() {
            let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
            return match pods.delete(name, &options).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(Action::Done),
            };
        }
        let ready =
            api::conditions::is_true(&pod.status.as_ref().and_then(|s| s.conditions.clone()), "Ready");
        if ready {
            return Ok(Action::Done);
        }
        let bad = spec.containers[0].image.as_deref().is_some_and(|image| image.starts_with("bad"));
        self.report(&pods, &pod, !bad).await
    }

    async fn bind(&self, pods: &client::Api<Pod>, name: &str) -> Result<Action, Error> {
        let up: Vec<_> = self.names.iter().filter(|n| self.is_up(n)).collect();
        let Some(node) = up.get(self.turn.fetch_add(1, Ordering::Relaxed) % up.len().max(1)) else {
            return Ok(Action::RequeueAfter(Duration::from_millis(200)));
        };
        let target = json!({ "kind": "Node", "name": node });
        let binding =
            json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name }, "target": target });
        match pods.create_subresource(name, "binding", &binding).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(Action::Done),
        }
    }

    async fn report(&self, pods: &client::Api<Pod>, pod: &Pod, ready: bool) -> Result<Action, Error> {
        let status = pod.status.as_ref();
        let condition = json!({
            "type": "Ready", "status": if ready { "True" } else { "False" },
            "lastTransitionTime": self.clock.time(),
        });
        let known = status.and_then(|s| s.pod_ip.clone());
        let ip = known.unwrap_or_else(|| {
            let n = self.address.fetch_add(1, Ordering::Relaxed);
            format!("10.244.{}.{}", n / 250, n % 250 + 1)
        });
        let running = status.and_then(|s| s.phase.as_deref()) == Some("Running");
        if running && !ready {
            return Ok(Action::Done);
        }
        let patch = json!({
            "metadata": { "uid": pod.metadata.uid },
            "status": {
                "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }], "conditions": [condition],
            },
        });
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match pods.patch_status(name, &Patch::Merge(patch)).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(Action::Done),
        }
    }
}
