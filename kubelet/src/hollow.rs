//! Hollow nodes: thousands of kubelets without machines in one process, as upstream's kubemark has one in each.
//!
//! Each has its own Node, lease, status and pods, and goes by the kubelet's own rules for what these say (`node::status`,
//! `pod::status`, `report`). What is hollow is the runtime: containers run as soon as they are asked for, answer
//! their probes, and end at once when they are told to. All of them share one connection and identity, one watch of
//! pods and one set of writers; a kubelet of its own would have these for each node.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::meta::MetaExt;
use client::{Action, Change, Client, Error, Informer, ListParams, Patch, WorkQueue, run_workers};
use component::clock::Clock;
use component::tasks::{Tasks, lock};
use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Node, NodeStatus, Pod, PodStatus};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::node::machine::{Machine, Pressure};
use crate::node::{Registration, fresh, lease, status as node_status};
use crate::pod::state::{Life, Memory, Termination, Why};
use crate::pod::status::{Input, status};
use crate::pod::view::{self, PodView, RunState};
use crate::report::{Reporter, difference};
use crate::resources::{init_containers, is_sidecar};

/// How often each node renews its lease.
const LEASE: Duration = Duration::from_secs(10);
/// How often each node writes its status though nothing has changed.
const STATUS: Duration = Duration::from_secs(300);
/// How often it is looked at which nodes are due.
const TICK: Duration = Duration::from_millis(100);
/// Requests about nodes in flight.
const IN_FLIGHT: usize = 16;
/// Pods that are worked on, and statuses that are written, at a time.
const WORKERS: usize = 16;

/// What hollow nodes are told.
#[derive(Clone)]
pub struct Config {
    /// How the API server is reached, by somebody who may write any node and pod.
    pub client: Client,
    /// How many nodes.
    pub nodes: usize,
    /// What their names begin with; a number follows.
    pub prefix: String,
    /// What each node has: processors, and bytes of memory.
    pub cpus: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// The most pods of one node.
    pub max_pods: i64,
    /// The present.
    pub clock: Clock,
}

/// A node, and what the API has of its status.
struct HollowNode {
    name: String,
    uid: String,
    known: Mutex<NodeStatus>,
    machine: Machine,
}

struct Hollow {
    config: Config,
    nodes: HashMap<String, Arc<HollowNode>>,
    pods: Informer<Pod>,
    reporter: Reporter,
    /// Pods' addresses are counted through: hollow pods do not talk.
    addresses: AtomicU32,
}

/// Registers the nodes and keeps them alive until `shutdown`. `ready` is called when all are registered.
///
/// # Errors
/// When a task panicked.
pub async fn run(
    config: Config,
    ready: impl FnOnce(),
    shutdown: CancellationToken,
) -> Result<(), crate::Error> {
    let tasks = Tasks::new("hollow nodes");
    let nodes = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        nodes = register_all(&config) => nodes,
    };
    tracing::info!(nodes = nodes.len(), "all are registered");
    let pods = Informer::new(config.client.all::<Pod>(), ListParams::default());
    let reporter = Reporter::with_writers(&config.client, WORKERS, &tasks.spawner());
    let hollow = Arc::new(Hollow { config, nodes, pods, reporter, addresses: AtomicU32::new(1) });
    let queue = WorkQueue::new("hollow-pods");
    hollow.clone().follow(&queue);
    hollow.pods.start(&tasks.spawner());
    let (worker, spawner) = (hollow.clone(), tasks.spawner());
    tasks.spawn("pods", async move {
        let sync = move |key: String| {
            let hollow = worker.clone();
            async move { Ok::<_, Error>(hollow.sync(&key)) }
        };
        run_workers(queue, WORKERS, &spawner, sync).await;
    });
    tasks.spawn("heartbeats", hollow.heartbeats());
    ready();
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        task = tasks.failed() => Err(crate::Error::Task(task)),
    };
    // What is under way may be dropped: nodes that fall silent are the API's to deal with.
    drop(tasks);
    outcome
}

/// Registers all nodes; each is tried until it succeeds.
async fn register_all(config: &Config) -> HashMap<String, Arc<HollowNode>> {
    let register = |number: usize| async move {
        let name = format!("{}{number}", config.prefix);
        let machine = machine(config, &name, number);
        let mut pause = Duration::from_millis(100);
        loop {
            match register(config, &name, &machine).await {
                Ok(node) => {
                    let uid = node.metadata.uid.clone().unwrap_or_default();
                    let known = Mutex::new(node.status.unwrap_or_default());
                    return (name.clone(), Arc::new(HollowNode { name, uid, known, machine }));
                }
                Err(error) => tracing::warn!(node = name, %error, "registering failed; trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    };
    stream::iter(0..config.nodes).map(register).buffer_unordered(IN_FLIGHT).collect().await
}

/// The machine that a hollow node says it has.
fn machine(config: &Config, name: &str, number: usize) -> Machine {
    // 198.18.0.0/15 is set aside for benchmarks (RFC 2544).
    let address = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + u32::try_from(number % 0x1_0000).unwrap_or(0);
    Machine {
        cpus: config.cpus,
        memory: config.memory,
        storage: 100 << 30,
        max_pods: config.max_pods,
        architecture: "amd64".into(),
        machine_id: name.to_owned(),
        system_uuid: name.to_owned(),
        boot_id: name.to_owned(),
        kernel: "hollow".into(),
        os_image: "hollow".into(),
        addresses: vec![IpAddr::V4(Ipv4Addr::from(address))],
        hostname: name.to_owned(),
        ..Machine::default()
    }
}

/// What a runtime that is well reports.
fn observed() -> node_status::Observed {
    let well =
        |type_: &str| cri::RuntimeCondition { r#type: type_.into(), status: true, ..Default::default() };
    let conditions = vec![well("RuntimeReady"), well("NetworkReady")];
    node_status::Observed {
        runtime: Ok(cri::RuntimeStatus { conditions }),
        runtime_version: Some("hollow://1.0".into()),
        pressure: Pressure::default(),
        images: Vec::new(),
    }
}

async fn register(config: &Config, name: &str, machine: &Machine) -> Result<Node, Error> {
    let nodes = config.client.all::<Node>();
    let mut node = fresh(&Registration { name: name.to_owned(), ..Registration::default() }, machine);
    node.status = Some(node_status::status(machine, name, None, &observed(), config.clock.time()));
    let node = match nodes.create(&node).await {
        Err(error) if error.is_already_exists() => nodes.get(name).await?,
        other => other?,
    };
    lease::renew(&config.client, name, node.uid(), true, &config.clock).await?;
    Ok(node)
}

impl Hollow {
    /// Renews leases and writes statuses, those of each node at a time of its own, so that they come evenly.
    async fn heartbeats(self: Arc<Self>) {
        let nodes: Vec<_> = self.nodes.values().cloned().collect();
        let began = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut renewed, mut written) = (0, 0);
        loop {
            ticks.tick().await;
            let due = due(nodes.len(), began.elapsed(), LEASE);
            let renew = (renewed..due).map(|at| self.renew(&nodes[at % nodes.len()]));
            stream::iter(renew).buffer_unordered(IN_FLIGHT).collect::<()>().await;
            renewed = due;
            let due = due_status(nodes.len(), began.elapsed());
            let write = (written..due).map(|at| self.write_status(&nodes[at % nodes.len()]));
            stream::iter(write).buffer_unordered(IN_FLIGHT).collect::<()>().await;
            written = due;
        }
    }

    async fn renew(&self, node: &HollowNode) {
        let config = &self.config;
        if let Err(error) = lease::renew(&config.client, &node.name, &node.uid, false, &config.clock).await {
            tracing::warn!(node = node.name, %error, "renewing the lease failed; it is renewed in its turn");
        }
    }

    async fn write_status(&self, node: &HollowNode) {
        let known = lock(&node.known).clone();
        let now = self.config.clock.time();
        let wanted = node_status::status(&node.machine, &node.name, Some(&known), &observed(), now);
        let encode = |s: &NodeStatus| serde_json::to_value(s).unwrap_or_default();
        let Some(change) = difference(&encode(&known), &encode(&wanted)) else { return };
        let nodes = self.config.client.all::<Node>();
        match nodes.patch_status(&node.name, &Patch::Merge(json!({ "status": change }))).await {
            Ok(written) => *lock(&node.known) = written.status.unwrap_or_default(),
            Err(error) => tracing::warn!(node = node.name, %error, "writing the status failed"),
        }
    }

    /// Has every pod of these nodes looked at whenever it changes.
    fn follow(self: Arc<Self>, queue: &WorkQueue<String>) {
        let (queue, hollow) = (queue.clone(), self.clone());
        self.pods.on_change(move |change| match change {
            Change::Added(pod) | Change::Updated { new: pod, .. } => {
                if needs_work(pod) && hollow.node_of(pod).is_some() {
                    queue.add(change.key());
                }
            }
            Change::Deleted(pod) => hollow.reporter.forget(pod.uid()),
        });
    }

    fn node_of(&self, pod: &Pod) -> Option<&Arc<HollowNode>> {
        self.nodes.get(pod.spec.as_ref()?.node_name.as_deref()?)
    }

    fn sync(&self, key: &str) -> Action {
        let Some(pod) = self.pods.store().get(key).filter(|pod| needs_work(pod)) else { return Action::Done };
        let Some(node) = self.node_of(&pod) else { return Action::Done };
        let now = self.config.clock.now();
        let status = self.status_of(&pod, node, now);
        if pod.metadata.deletion_timestamp.is_some() {
            self.reporter.delete(&pod, status);
        } else {
            self.reporter.report(&pod, status);
        }
        Action::Done
    }

    fn status_of(&self, pod: &Pod, node: &HollowNode, now: Timestamp) -> PodStatus {
        let known = pod.status.as_ref().and_then(|s| s.pod_ip.clone());
        let ip = known.unwrap_or_else(|| self.next_address());
        let deleted = pod.metadata.deletion_timestamp.is_some();
        let (view, memory) = (view_of(pod, &ip, deleted, now), memory_of(pod, deleted, now));
        let host_ips: Vec<_> = node.machine.addresses.iter().map(ToString::to_string).collect();
        status(Input {
            pod,
            view: &view,
            memory: &memory,
            waiting: &BTreeMap::new(),
            host_ips: &host_ips,
            now,
        })
    }

    fn next_address(&self) -> String {
        let number = self.addresses.fetch_add(1, Ordering::Relaxed) % (1 << 23);
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + number).to_string()
    }
}

/// How many renewals are due after a time, if each node renews once in `period`.
fn due(nodes: usize, elapsed: Duration, period: Duration) -> usize {
    (nodes as f64 * elapsed.as_secs_f64() / period.as_secs_f64()) as usize
}

fn due_status(nodes: usize, elapsed: Duration) -> usize {
    due(nodes, elapsed, STATUS)
}

/// Whether a pod is to be started or ended.
fn needs_work(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    pod.metadata.deletion_timestamp.is_some() || phase == "Pending"
}

fn container_id(pod: &Pod, name: &str) -> String {
    format!("{}-{name}", pod.uid())
}

/// What a runtime would report: everything was started at once; or has heeded its signal at once.
fn view_of(pod: &Pod, ip: &str, ended: bool, now: Timestamp) -> PodView {
    let sandbox = view::Sandbox {
        id: pod.uid().to_owned(),
        ready: !ended,
        attempt: 0,
        created_at: now,
        ips: vec![ip.to_owned()],
    };
    let Some(spec) = &pod.spec else { return PodView::default() };
    let run = |c: &Container, done: bool| view::Container {
        id: container_id(pod, &c.name),
        name: c.name.clone(),
        attempt: 0,
        sandbox_id: sandbox.id.clone(),
        state: if done { RunState::Exited } else { RunState::Running },
        created_at: now,
        started_at: Some(now),
        finished_at: done.then_some(now),
        exit_code: 0,
        reason: if done { "Completed".into() } else { String::new() },
        message: String::new(),
        image: c.image.clone().unwrap_or_default(),
        image_ref: c.image.clone().unwrap_or_default(),
        annotations: HashMap::new(),
    };
    let inits = init_containers(spec).iter().map(|c| run(c, ended || !is_sidecar(c)));
    let containers = inits.chain(spec.containers.iter().map(|c| run(c, ended))).collect();
    PodView { sandboxes: vec![sandbox.clone()], containers }
}

/// Probes of containers that run have succeeded.
fn memory_of(pod: &Pod, ended: bool, now: Timestamp) -> Memory {
    let mut memory = Memory::default();
    if ended {
        let grace = pod.metadata.deletion_grace_period_seconds.and_then(|s| u64::try_from(s).ok());
        let grace = Duration::from_secs(grace.unwrap_or(0));
        memory.life = Life::Ended(Termination { why: Why::Deleted, grace, since: now });
        return memory;
    }
    let spec = pod.spec.as_ref();
    for name in spec.iter().flat_map(|s| crate::resources::all_containers(s)).map(|c| &c.name) {
        let id = Some(container_id(pod, name));
        let of = memory.container(name);
        (of.started, of.ready) = (id.clone(), id);
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(more: serde_json::Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"nodeName": "n", "initContainers": [{"name": "i"}], "containers": [{
                "name": "c", "image": "x:1", "readinessProbe": {"tcpSocket": {"port": 1}}}]},
        });
        api::patch::merge_patch(&pod.clone(), &more).map(|merged| pod = merged).unwrap();
        serde_json::from_value(pod).unwrap()
    }

    fn status_now(pod: &Pod, ended: bool) -> PodStatus {
        let now = Timestamp::UNIX_EPOCH;
        let (view, memory) = (view_of(pod, "10.128.0.1", ended, now), memory_of(pod, ended, now));
        let host_ips = ["198.18.0.1".to_owned()];
        status(Input {
            pod,
            view: &view,
            memory: &memory,
            waiting: &BTreeMap::new(),
            host_ips: &host_ips,
            now,
        })
    }

    #[test]
    fn a_hollow_pod_runs_and_is_ready_at_once() {
        let status = status_now(&pod(json!({})), false);
        assert_eq!(status.phase.as_deref(), Some("Running"));
        assert!(api::conditions::is_true(&status.conditions, "Ready"));
        assert_eq!(status.pod_ip.as_deref(), Some("10.128.0.1"));
        let init = &status.init_container_statuses.unwrap()[0];
        assert_eq!(init.state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 0);
    }

    #[test]
    fn a_deleted_one_has_ended() {
        let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}});
        let pod = pod(deleted);
        assert!(needs_work(&pod));
        let status = status_now(&pod, true);
        let main = &status.container_statuses.unwrap()[0];
        assert!(main.state.as_ref().unwrap().terminated.is_some() && !main.ready);
    }

    #[test]
    fn heartbeats_come_evenly() {
        assert_eq!(due(5000, Duration::from_millis(100), LEASE), 50);
        assert_eq!(due(5000, Duration::from_secs(20), LEASE), 10_000);
        assert_eq!(due(3, Duration::from_secs(1), LEASE), 0);
    }
}
