//! The kubelet: runs a node's pods on a container runtime, and reports the node and its pods.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::{Change, Client, ClientConfig, ConfigError, Informer, ListParams, Recorder};
use component::clock::Clock;
use component::health::Health;
use component::metrics::Metrics;
use component::tasks::{Spawner, Tasks};
use k8s_openapi::api::core::v1::{Node, Pod, Service, Taint};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub mod admission;
pub mod cgroups;
pub mod config_file;
pub mod containerd;
pub mod context;
pub mod dns;
pub mod endpoints;
pub mod hollow;
pub mod housekeeping;
pub mod images;
pub mod logs;
pub mod meters;
pub mod node;
pub mod objects;
pub mod pleg;
pub mod pod;
pub mod pods;
pub mod prober;
pub mod probes;
pub mod report;
pub mod resources;
pub mod runtime;
pub mod tokens;
pub mod tunnel;
pub mod volumes;

use cgroups::Cgroups;
use context::{Context, Ctx};
use node::machine::{Machine, outbound_address};
use node::{NodeAgent, Registration};
use pods::Pods;
use runtime::{Runtime, RuntimeError};

/// Everything that a kubelet is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// How the API server is reached.
    pub kubeconfig: PathBuf,
    /// The node's name.
    pub node_name: String,
    /// `unix:///run/containerd/containerd.sock`.
    pub runtime_endpoint: String,
    /// Where pods' directories are.
    pub root: PathBuf,
    /// Where pods' logs are.
    pub pod_log_dir: PathBuf,
    /// The node's addresses; found out when there are none.
    pub node_ips: Vec<IpAddr>,
    /// The cluster's name servers.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// Where the kernel shows control groups.
    pub cgroup_mount: PathBuf,
    /// The group beneath which all pods' groups are.
    pub cgroup_root: String,
    /// Whether pods get control groups by their quality of service.
    pub cgroups_per_qos: bool,
    /// The node's resolv.conf; none, if pods shall not use the node's resolver.
    pub resolv_conf: Option<PathBuf>,
    /// Where health and metrics are served; none serves them nowhere.
    pub healthz: Option<SocketAddr>,
    /// The most pods that run at once.
    pub max_pods: i64,
    /// Below what a node is under pressure.
    pub eviction_hard: node::eviction::Thresholds,
    /// Labels that the node is registered with.
    pub node_labels: BTreeMap<String, String>,
    /// Taints that the node is registered with.
    pub taints: Vec<Taint>,
    /// How often the node's status is computed.
    pub status_frequency: Duration,
    /// How large containers' logs may become.
    pub log_limits: housekeeping::LogLimits,
}

/// Why a kubelet cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig is missing or wrong.
    #[error("kubeconfig")]
    Kubeconfig(#[from] ConfigError),
    /// The runtime's endpoint is wrong.
    #[error("container runtime")]
    Runtime(#[from] RuntimeError),
    /// A directory cannot be made.
    #[error("directory {path}")]
    Directory {
        /// Which one.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The control groups of the node's pods cannot be made.
    #[error("control groups")]
    Cgroups(#[from] cgroups::CgroupError),
    /// Health and metrics cannot be served.
    #[error("health endpoint")]
    Health(#[source] std::io::Error),
    /// A part of the kubelet panicked.
    #[error("task {0} panicked")]
    Task(String),
}

fn make_dir(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path)
        .map_err(|source| Error::Directory { path: path.display().to_string(), source })
}

/// Runs a kubelet until `shutdown`. Containers go on without it.
///
/// # Errors
/// What is wrong with the configuration, or which part failed for good.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let client_config = ClientConfig::from_kubeconfig(&config.kubeconfig, "kubelet")?;
    let runtime = Runtime::new(&config.runtime_endpoint)?;
    make_dir(&config.root.join("pods"))?;
    make_dir(&config.pod_log_dir)?;
    let tasks = Tasks::new("kubelet");
    let (health, metrics) = (Health::new(), Metrics::new("kubelet"));
    let served = serve(&config, &health, &metrics, &tasks);
    let meters = meters::Meters::new(&metrics);
    let kubelet = Kubelet::new(config, Client::new(client_config), runtime, meters, &tasks.spawner())?;
    let spawner = tasks.spawner();
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        task = tasks.failed() => Err(Error::Task(task)),
        error = served => Err(Error::Health(error)),
        never = kubelet.work(&health, metrics, &spawner) => never,
    };
    tracing::info!("shutting down; containers go on running");
    if !tasks.drain(Duration::from_secs(5)).await {
        tracing::warn!("some tasks did not finish in time");
    }
    outcome
}

/// Serves health and metrics; resolves when that fails.
fn serve(
    config: &Config,
    health: &Health,
    metrics: &Metrics,
    tasks: &Tasks,
) -> impl Future<Output = std::io::Error> + use<> {
    let router = component::health::router(health.clone(), metrics.clone());
    let (addr, token) = (config.healthz, tasks.token());
    async move {
        let Some(addr) = addr else { return std::future::pending().await };
        match component::health::serve(addr, None, router, token).await {
            Err(error) => error,
            Ok(()) => std::future::pending().await,
        }
    }
}

struct Kubelet {
    config: Config,
    ctx: Ctx,
    machine: Machine,
    services: Informer<Service>,
}

impl Kubelet {
    fn new(
        config: Config,
        client: Client,
        runtime: Runtime,
        meters: meters::Meters,
        tasks: &Spawner,
    ) -> Result<Self, Error> {
        let clock = Clock::system();
        let mut addresses = config.node_ips.clone();
        if addresses.is_empty() {
            addresses.extend(outbound_address());
        }
        let machine = Machine::read(
            &config.root,
            config.max_pods,
            config.eviction_hard.clone(),
            &config.node_name,
            addresses.clone(),
        );
        let allocatable = machine.allocatable();
        let cgroups = Cgroups::new(&config.cgroup_mount, &config.cgroup_root, config.cgroups_per_qos);
        cgroups.prepare(allocatable["memory"].to_units(), allocatable["cpu"].to_milli())?;
        let services = Informer::new(client.all::<Service>(), ListParams::default());
        let recorder = Recorder::new(&client, "kubelet", &config.node_name, clock.clone(), tasks);
        let text = |ip: &IpAddr| ip.to_string();
        let ctx = Context {
            meters,
            recorder,
            objects: objects::Objects::new(&client, &clock, tasks),
            images: images::Images::new(runtime.clone()),
            services: services.store(),
            reporter: report::Reporter::new(&client, tasks),
            root: config.root.clone(),
            node: pod::sandbox::Node {
                name: config.node_name.clone(),
                dns: dns::ClusterDns {
                    servers: config.cluster_dns.iter().map(text).collect(),
                    domain: config.cluster_domain.clone(),
                },
                resolv: config.resolv_conf.as_ref().and_then(|path| read_resolv(path)),
                log_root: config.pod_log_dir.display().to_string(),
            },
            host_ips: addresses.iter().map(text).collect(),
            memory_capacity: machine.memory,
            allocatable,
            cgroups,
            client,
            runtime,
            clock,
        };
        Ok(Self { config, ctx: Arc::new(ctx), machine, services })
    }

    /// Everything that a kubelet does. Does not end by itself.
    async fn work(self, health: &Health, metrics: Metrics, tasks: &Spawner) -> Result<(), Error> {
        let synced = health.check("syncloop");
        synced.failed("pods are not known yet");
        let name = self.config.node_name.clone();
        let client = self.ctx.client.clone();
        self.services.start(tasks);
        let nodes = Informer::new(client.all::<Node>(), ListParams::fields(format!("metadata.name={name}")));
        let pods = Informer::new(client.all::<Pod>(), ListParams::fields(format!("spec.nodeName={name}")));
        let (pod_cidr, ranges) = watch::channel(None);
        let deleted = Arc::new(Notify::new());
        let tell = deleted.clone();
        nodes.on_change(move |change| match change {
            Change::Added(node) | Change::Updated { new: node, .. } => {
                pod_cidr.send_if_modified(|range| {
                    let new = node::pod_cidr(node);
                    let changed = new.is_some() && *range != new;
                    if changed {
                        *range = new;
                    }
                    changed
                });
            }
            Change::Deleted(_) => tell.notify_one(),
        });
        nodes.start(tasks);
        pods.start(tasks);
        self.start_node(ranges, deleted, tasks);
        let (listing, ()) = tokio::join!(first_listing(&self.ctx.runtime), pods.synced());
        // Pods may be told of Services when their containers start.
        let patience = Duration::from_secs(5);
        if tokio::time::timeout(patience, self.services.synced()).await.is_err() {
            tracing::warn!("Services are not known yet; containers start without their variables");
        }
        let manager = Pods::new(self.ctx.clone(), nodes.store(), &name, tasks);
        let owners = listing.owners();
        manager.follow(&pods, &owners);
        for owner in owners.iter().filter(|o| !manager.uids().contains(&o.uid)) {
            manager.adopt(owner.clone());
        }
        self.adopt_leftovers(&manager);
        self.start_watching(&manager, listing, tasks);
        let (store, shown) = (pods.store(), pods.store());
        let node = tunnel::Node {
            http: endpoints::router(health.clone(), metrics, move || shown.list()),
            name,
            runtime: self.ctx.runtime.clone(),
            pods: Arc::new(move |key| store.get(key)),
            clock: self.ctx.clock.clone(),
        };
        tunnel::run(&client, node, tasks);
        synced.ok();
        tracing::info!(pods = manager.uids().len(), "the kubelet works");
        std::future::pending().await
    }

    /// Registers the node; then keeps its lease and status.
    fn start_node(&self, pod_cidr: watch::Receiver<Option<String>>, deleted: Arc<Notify>, tasks: &Spawner) {
        let ctx = &self.ctx;
        let agent = NodeAgent {
            client: ctx.client.clone(),
            runtime: ctx.runtime.clone(),
            recorder: ctx.recorder.clone(),
            clock: ctx.clock.clone(),
            registration: Registration {
                name: self.config.node_name.clone(),
                labels: self.config.node_labels.clone(),
                taints: self.config.taints.clone(),
            },
            machine: self.machine.clone(),
            frequency: self.config.status_frequency,
            pod_cidr,
            images_changed: ctx.images.changed(),
            deleted,
        };
        tasks.spawn("node", agent.keep(tasks.clone(), tasks.token()));
    }

    /// Ends pods of which nothing but a directory or a control group is left.
    fn adopt_leftovers(&self, manager: &Arc<Pods>) {
        let dirs = std::fs::read_dir(self.config.root.join("pods"));
        let dirs = dirs.into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
        let known = manager.uids();
        let mut left: Vec<_> =
            dirs.chain(self.ctx.cgroups.pods()).filter(|uid| !known.contains(uid)).collect();
        left.sort();
        left.dedup();
        for uid in left {
            manager.adopt(pleg::Owner { uid, namespace: String::new(), name: String::new() });
        }
    }

    fn start_watching(&self, manager: &Arc<Pods>, listing: pleg::Listing, tasks: &Spawner) {
        let runtime = self.ctx.runtime.clone();
        let (told, asked, busy) = (manager.clone(), manager.clone(), manager.clone());
        let changed = move |owner: &pleg::Owner| told.changed(owner);
        let watching = pleg::run(runtime, listing, changed, move || asked.any(), tasks.token());
        tasks.spawn("pleg", watching);
        tasks.spawn(
            "logs",
            housekeeping::logs(self.ctx.clone(), self.config.log_limits, move || busy.any(), tasks.token()),
        );
        tasks.spawn("images", housekeeping::images(self.ctx.clone(), tasks.token()));
    }
}

fn read_resolv(path: &Path) -> Option<dns::Resolv> {
    match std::fs::read_to_string(path) {
        Ok(text) => Some(dns::Resolv::parse(&text)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the node's resolv.conf cannot be read");
            None
        }
    }
}

/// What the runtime has at the start; tries until it answers.
async fn first_listing(runtime: &Runtime) -> pleg::Listing {
    let mut wait = Duration::from_millis(100);
    loop {
        match pleg::list(runtime).await {
            Ok(listing) => return listing,
            Err(error) => tracing::warn!(%error, "the runtime does not answer yet; trying again"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}
