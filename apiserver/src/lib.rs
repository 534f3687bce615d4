//! The API server: REST and gRPC on one TLS port, thin fronts over one pipeline
//! (authentication, authorization, admission, registry, storage).

pub mod admission;
pub mod aggregation;
pub mod auth;
mod bootstrap;
pub mod custom;
pub mod decisions;
pub mod discovery;
pub mod grpc;
pub mod metrics;
pub mod openapi;
pub mod reach;
pub mod registry;
pub mod rest;
pub mod server;
pub mod storage;
pub mod tunnel;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use component::clock::Clock;
use component::health::Health;
use component::metrics::Metrics;
use component::tasks::Tasks;
use component::tls::{ServerTls, TlsError};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::auth::token::Tokens;
use crate::auth::token::options::TokenOptions;
use crate::auth::{Authorizer, Gate};
use crate::metrics::RequestMetrics;
use crate::registry::Registry;
use crate::registry::allocate::Allocator;
use crate::server::{App, Fronts};
use crate::storage::{Etcd, EtcdConfig, EtcdError, Hub};

/// Everything that an API server is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where its state is.
    pub etcd: EtcdConfig,
    /// The addresses to listen on.
    pub bind: Vec<IpAddr>,
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// The address by which the cluster reaches it.
    pub advertise: IpAddr,
    /// Its certificate, and the CA of its clients.
    pub tls: ServerTls,
    /// The range of cluster IPs: network and length of the prefix.
    pub service_range: (Ipv4Addr, u8),
    /// The range of node ports.
    pub node_ports: RangeInclusive<u16>,
    /// The tokens of service accounts.
    pub tokens: TokenOptions,
    /// How it presents itself to those who serve other groups; none for groups whose servers do not care.
    pub front_proxy: Option<aggregation::front_proxy::Client>,
    /// What these are told, so that they believe it.
    pub request_headers: aggregation::front_proxy::Published,
    /// Admission plugins that are off, by upstream's names.
    pub disabled_admission: Vec<String>,
    /// Reads that may be in progress at once.
    pub max_reads: usize,
    /// Writes that may be in progress at once.
    pub max_writes: usize,
    /// How long events are kept; zero keeps them.
    pub event_ttl: Duration,
    /// How often the store forgets old revisions; zero never.
    pub compaction_interval: Duration,
    /// The clock.
    pub clock: Clock,
}

/// Why an API server did not start. None of these goes away by trying again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate, its key or the client CA.
    #[error("the serving certificate cannot be used")]
    Tls(#[source] TlsError),
    /// The keys of tokens.
    #[error("the keys of service accounts cannot be used")]
    Keys(#[source] component::jwt::JwtError),
    /// The settings of the store.
    #[error("the store cannot be used")]
    Etcd(#[source] EtcdError),
    /// An address is taken, or not this machine's.
    #[error("could not listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The compiled descriptors are malformed.
    #[error("gRPC reflection cannot be set up")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// A task that must live as long as the server ended by a panic.
    #[error("task {0} failed")]
    Task(String),
}

/// Runs an API server until the token is cancelled.
///
/// # Errors
/// When it cannot start, or one of its own tasks panics.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let mut listeners = Vec::new();
    for address in &config.bind {
        listeners.push(listen(SocketAddr::new(*address, config.port)).await?);
    }
    run_on(config, listeners, shutdown).await
}

/// Opens a listening socket.
///
/// # Errors
/// When the address is taken, or not this machine's.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|e| Error::Listen(address, e))
}

/// [`run`] on sockets that are open already.
///
/// # Errors
/// As [`run`].
pub async fn run_on(
    config: Config,
    listeners: Vec<TcpListener>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let acceptor = TlsAcceptor::from(component::tls::server_config(&config.tls).map_err(Error::Tls)?);
    let tokens = Arc::new(config.tokens.load().map_err(Error::Keys)?);
    let tasks = Tasks::new("kube-apiserver");
    let etcd = Etcd::connect(&config.etcd, tasks.spawner()).await.map_err(Error::Etcd)?;
    let health = Health::new();
    let metrics = Metrics::new("kube-apiserver");
    let started = health.check("poststarthook/bootstrap-system-objects");
    let hub = Hub::start(etcd.clone(), &tasks.spawner(), health.check("etcd"));
    let allocator = Allocator::new(config.service_range, config.node_ports.clone());
    let rbac = auth::rbac::follow::start(hub.clone(), &tasks.spawner());
    let table = Arc::new(custom::Table::default());
    let streams_end = CancellationToken::new();
    let tunnels = tunnel::Tunnels::new(streams_end.clone(), tasks.spawner());
    let reach = Arc::new(reach::Reach::new(hub.clone(), tunnels.clone(), tasks.spawner()));
    let admission = admission::Admission::new(
        rbac.clone(),
        table.clone(),
        reach,
        hub.clone(),
        &config.disabled_admission,
    );
    let registry =
        Registry::new(etcd, hub.clone(), allocator, admission, config.clock.clone(), config.event_ttl);
    let registry = Arc::new(registry);
    let authorizer = Arc::new(Authorizer::new(hub.clone(), rbac));
    let tokens = Tokens::new(tokens, hub.clone(), config.clock.clone());
    let gate = Arc::new(Gate::new(tokens, hub, config.clock.clone(), authorizer.clone()));
    let mut port = config.port;
    for listener in &listeners {
        port = listener.local_addr().map_or(port, |address| address.port());
    }
    let app = Arc::new(App {
        registry: registry.clone(),
        table: table.clone(),
        authorizer,
        gate: gate.clone(),
        address: SocketAddr::new(config.advertise, port).to_string(),
        tunnels,
        decisions: decisions::Decisions::new(streams_end.clone(), tasks.spawner()),
        health,
        requests: RequestMetrics::new(&metrics),
        metrics,
        clock: config.clock.clone(),
        tasks: tasks.spawner(),
        reads: Semaphore::new(config.max_reads.max(1)),
        writes: Semaphore::new(config.max_writes.max(1)),
        shutdown: streams_end.clone(),
    });
    let fronts = Fronts {
        rest: rest::router(app.clone()),
        grpc: grpc::router(app.clone()).await.map_err(Error::Reflection)?,
        gate,
    };
    for listener in listeners {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "serving securely");
        }
        let serving = server::serve(listener, acceptor.clone(), fronts.clone(), streams_end.clone());
        tasks.spawn("listener", serving);
    }
    let address = bootstrap::Address {
        advertise: config.advertise,
        port,
        cluster_ip: first_address(config.service_range),
    };
    spawn_custom(&tasks, registry.clone(), table);
    spawn_aggregation(&tasks, app, &config);
    spawn_chores(&tasks, registry, address, started, config.compaction_interval);
    let failed = tokio::select! {
        () = shutdown.cancelled() => None,
        name = tasks.failed() => Some(name),
    };
    // Watches and streams end first; requests in progress are answered.
    streams_end.cancel();
    if !tasks.drain(Duration::from_secs(15)).await {
        tracing::warn!("some tasks did not finish in time");
    }
    match failed {
        Some(name) => Err(Error::Task(name)),
        None => Ok(()),
    }
}

/// Lets definitions add kinds to the table.
fn spawn_custom(tasks: &Tasks, registry: Arc<Registry>, table: Arc<custom::Table>) {
    let token = tasks.token();
    tasks.spawn("custom resources", async move {
        tokio::select! {
            () = token.cancelled() => {}
            () = custom::controller::run(registry, table) => {}
        }
    });
}

/// Leads requests for groups that others serve to them.
fn spawn_aggregation(tasks: &Tasks, app: Arc<App>, config: &Config) {
    let (token, client) = (tasks.token(), config.front_proxy.clone());
    let published = config.request_headers.clone();
    tasks.spawn("aggregation", async move {
        tokio::select! {
            () = token.cancelled() => {}
            () = aggregation::controller::run(app, client, published) => {}
        }
    });
}

fn spawn_chores(
    tasks: &Tasks,
    registry: Arc<Registry>,
    address: bootstrap::Address,
    started: component::health::Check,
    compaction_interval: Duration,
) {
    let (token, booting) = (tasks.token(), registry.clone());
    let boot = async move {
        booting.hub().filled().await;
        if let Err(error) = registry::allocate::repair::run(&booting).await {
            // Claims are checked when they are made; knowing them beforehand only saves attempts.
            tracing::warn!(%error, "could not compare the addresses that are taken with the Services");
        }
        bootstrap::run(&booting, &address).await;
        started.ok();
        tracing::info!("the system objects exist");
    };
    tasks.spawn("bootstrap", async move {
        tokio::select! {
            () = token.cancelled() => {}
            () = boot => {}
        }
    });
    if compaction_interval.is_zero() {
        return;
    }
    let token = tasks.token();
    tasks.spawn("compactor", async move {
        tokio::select! {
            () = token.cancelled() => {}
            () = bootstrap::compact(&registry, compaction_interval) => {}
        }
    });
}

/// The first address of a range that may be given to a Service.
fn first_address((network, length): (Ipv4Addr, u8)) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
    Ipv4Addr::from((u32::from(network) & mask).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubernetes_service_has_the_first_address() {
        assert_eq!(first_address((Ipv4Addr::new(10, 96, 0, 0), 12)), Ipv4Addr::new(10, 96, 0, 1));
        assert_eq!(first_address((Ipv4Addr::new(10, 97, 3, 4), 12)), Ipv4Addr::new(10, 96, 0, 1));
    }
}
