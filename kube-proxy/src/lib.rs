//! Keeps Services, cluster DNS and the routes to other nodes' pods working on one node.
//!
//! `observe` gathers what changed, `model` normalises it, `rules` and `dns` decide, `nft`, `routes`
//! and `conntrack` act.

pub mod conntrack;
pub mod dns;
pub mod link;
pub mod model;
pub mod net;
pub mod nft;
pub mod observe;
pub mod proxy;
pub mod routes;
pub mod rules;
pub mod status;
pub mod sysctl;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use component::clock::Clock;
use component::metrics::Metrics;
use component::tasks::{Spawner, Tasks};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::dns::{Names, Zone};
use crate::net::Cidr;
use crate::observe::Observer;
use crate::proxy::Proxy;
use crate::rules::Params;
use crate::status::Status;

/// Everything that a proxy is told when it starts.
#[derive(Clone)]
pub struct Config {
    /// The API server.
    pub client: Client,
    /// The time.
    pub clock: Clock,
    /// The name of this node's Node object.
    pub node_name: String,
    /// Where pods' addresses come from.
    pub cluster_cidrs: Vec<Cidr>,
    /// Where ClusterIPs come from.
    pub service_range: Cidr,
    /// Where DNS is answered; without it, nowhere.
    pub cluster_dns: Option<Ipv4Addr>,
    /// The domain of the cluster's names.
    pub cluster_domain: String,
    /// Who is asked for other names.
    pub dns_upstreams: Vec<SocketAddr>,
    /// Where health is shown.
    pub healthz: Option<SocketAddr>,
    /// Where metrics are shown.
    pub metrics: Option<SocketAddr>,
}

/// Why the proxy cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's netlink cannot be reached.
    #[error("netlink cannot be opened")]
    Netlink(#[source] std::io::Error),
    /// A task panicked.
    #[error("task {0} panicked")]
    Panicked(String),
}

const DRAIN: Duration = Duration::from_secs(5);

/// Runs the proxy until `shutdown`. Rules, routes and the DNS interface stay, so that traffic
/// survives a restart; [`cleanup`] removes them.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let tasks = Tasks::new("kube-proxy");
    let netlink = netlink(&tasks.spawner())?;
    if let Err(error) = sysctl::apply() {
        tracing::error!(error = %chain(&error), "services may not work");
    }
    let metrics = Metrics::new("kube-proxy");
    let status = Arc::new(Status::new(config.clock.clone(), &metrics));
    serve_status(&config, status.clone(), metrics, &tasks.spawner());
    let names = Names::new(zone(&config));
    // The name server can be reached before the API server is.
    if let Err(error) = link::ensure(&netlink, config.cluster_dns).await {
        tracing::error!(error = %chain(&error), "the DNS address cannot be set up");
    }
    if let Some(address) = config.cluster_dns {
        let bind = SocketAddr::new(address.into(), 53);
        let dns = dns::Config { bind, upstreams: config.dns_upstreams.clone() };
        dns::serve(dns, names.clone(), status.dns_counts(), &tasks.spawner());
    }
    let params = Params {
        cluster_cidrs: config.cluster_cidrs.clone(),
        service_range: config.service_range,
        cluster_dns: config.cluster_dns,
    };
    let observer = Observer::start(&config.client, &config.node_name, &tasks.spawner());
    let removed = watch_table(&tasks.spawner());
    let worker = observe::Worker {
        observer: observer.clone(),
        proxy: Proxy::new(params, names),
        status: status.clone(),
        clock: config.clock.clone(),
        removed,
        tasks: tasks.spawner(),
    };
    tasks.spawn("services", worker.run(tasks.token()));
    let network = observe::Network {
        observer,
        netlink,
        service_range: config.service_range,
        cluster_dns: config.cluster_dns,
        status,
    };
    tasks.spawn("routes", network.run(tasks.token()));
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        name = tasks.failed() => Err(Error::Panicked(name)),
    };
    tasks.drain(DRAIN).await;
    outcome
}

/// Removes everything that a proxy has made on this node: the table, the routes, the interface.
pub async fn cleanup() -> Result<(), Vec<String>> {
    let tasks = Tasks::new("cleanup");
    let mut problems = Vec::new();
    if let Err(error) = nft::remove().await {
        problems.push(chain(&error));
    }
    match netlink(&tasks.spawner()) {
        Ok(netlink) => {
            problems.extend(routes::remove(&netlink).await.err().map(|e| chain(&e)));
            problems.extend(link::remove(&netlink).await.err().map(|e| chain(&e)));
        }
        Err(error) => problems.push(chain(&error)),
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// A handle on the kernel's routing, whose connection is a task.
pub fn netlink(tasks: &Spawner) -> Result<rtnetlink::Handle, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Netlink)?;
    let token = tasks.token();
    tasks.spawn("netlink", async move {
        token.run_until_cancelled(connection).await;
    });
    Ok(handle)
}

fn zone(config: &Config) -> Zone {
    let mut reverse = config.cluster_cidrs.clone();
    reverse.push(config.service_range);
    Zone::new(&config.cluster_domain, reverse)
}

/// Notified when the table may be gone.
fn watch_table(tasks: &Spawner) -> Arc<Notify> {
    let removed = Arc::new(Notify::new());
    let (notify, token) = (removed.clone(), tasks.token());
    tasks.spawn("table-watch", async move {
        let watched = async {
            let mut watch = nft::watch::TableWatch::new()?;
            loop {
                watch.removed().await?;
                notify.notify_one();
            }
        };
        let outcome: Option<std::io::Result<()>> = token.run_until_cancelled(watched).await;
        if let Some(Err(error)) = outcome {
            tracing::error!(%error, "a removal of the table will not be noticed");
        }
    });
    removed
}

fn serve_status(config: &Config, status: Arc<Status>, metrics: Metrics, tasks: &Spawner) {
    let health = config.healthz.map(|addr| ("healthz", addr, status::health_router(status.clone())));
    let metrics = config.metrics.map(|addr| ("metrics", addr, status::metrics_router(status, metrics)));
    for (name, addr, router) in health.into_iter().chain(metrics) {
        let token = tasks.token();
        tasks.spawn(name, async move {
            if let Err(error) = component::health::serve(addr, None, router, token).await {
                tracing::error!(%addr, %error, "{name} cannot be served");
            }
        });
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
