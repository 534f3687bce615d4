//! A single-node server of the etcd v3 API over an embedded, crash-safe store.
//!
//! [`run`] opens the log ([`engine`]), learns from it what every key is and was ([`mvcc`]), starts the one thread that
//! writes ([`commit`]), and serves etcd's services ([`rpc`]).
#![deny(missing_docs)]

mod authority;
pub mod backup;
pub mod commit;
pub mod compactor;
pub mod engine;
pub mod lease;
pub mod metrics;
pub mod mvcc;
pub mod pb;
pub mod rpc;
pub mod server;
pub mod snapshot;
pub mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use component::clock::Clock;
use component::metrics::Metrics;
use component::tasks::Tasks;
use component::tls::{ServerTls, TlsError};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::commit::{WriterConfig, Writes};
use crate::compactor::AutoCompaction;
use crate::engine::EngineError;
use crate::metrics::StoreMetrics;
use crate::mvcc::{Data, Opening, Store};
use crate::pb::etcdserverpb::AlarmType;
use crate::rpc::{App, ETCD_VERSION};
use crate::server::{Front, ListenUrl, Listener};

/// Everything that a server is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the member.
    pub name: String,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// Where it serves clients.
    pub listen_client_urls: Vec<ListenUrl>,
    /// What it tells clients where it is.
    pub advertise_client_urls: Vec<String>,
    /// Where it shows `/metrics` and `/health` besides, without TLS unless the URL says so.
    pub listen_metrics_urls: Vec<ListenUrl>,
    /// Its certificate, and the CA of its clients.
    pub tls: Option<ServerTls>,
    /// Whether clients without a certificate are sent away.
    pub client_cert_auth: bool,
    /// Which revisions are forgotten without being asked.
    pub auto_compaction: AutoCompaction,
    /// Bytes of data beyond which writes are refused.
    pub quota_backend_bytes: u64,
    /// Whether writes are acknowledged before they are durable. For tests.
    pub unsafe_no_fsync: bool,
    /// What the keys of heartbeats begin with: an update of one is acknowledged when the process may die without losing it,
    /// which the machine may not. It is durable with the next other write, or within [`HEARTBEAT_SYNC`].
    pub heartbeat_prefixes: Vec<String>,
    /// How often watches that want to hear that nothing happened do.
    pub watch_progress_notify_interval: Duration,
    /// The clock.
    pub clock: Clock,
}

/// The quota when none is set: 2 GiB, as etcd's.
pub const DEFAULT_QUOTA: u64 = 2 << 30;

/// For how long a heartbeat may be written and not durable. Systems usually write it to the disk within 35 seconds.
pub const HEARTBEAT_SYNC: Duration = Duration::from_secs(300);

/// Why a server did not start, or ended. None of these goes away by trying again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be opened, or failed.
    #[error("the store cannot be used")]
    Engine(#[from] EngineError),
    /// The certificate, its key or the client CA.
    #[error("the serving certificate cannot be used")]
    Tls(#[from] TlsError),
    /// An address is taken, or not this machine's.
    #[error("could not listen on {0}")]
    Listen(ListenUrl, #[source] std::io::Error),
    /// A URL wants TLS, and there is no certificate.
    #[error("{0} needs --cert-file and --key-file")]
    NoCertificate(ListenUrl),
    /// The thread that writes cannot be started.
    #[error("could not start the writer")]
    Thread(#[source] std::io::Error),
    /// A task that must live as long as the server ended by a panic.
    #[error("task {0} failed")]
    Task(String),
}

/// Where the log lies in a data directory.
pub fn log_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("lite")
}

/// Runs a server until the token is cancelled.
///
/// # Errors
/// When it cannot start, or its disk fails.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let mut listeners = Vec::new();
    for url in &config.listen_client_urls {
        let listener = server::listen(&url.address).await.map_err(|e| Error::Listen(url.clone(), e))?;
        listeners.push((url.clone(), listener));
    }
    run_on(config, listeners, shutdown).await
}

/// [`run`] on sockets that are open already.
///
/// # Errors
/// As [`run`].
pub async fn run_on(
    config: Config,
    listeners: Vec<(ListenUrl, Listener)>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let acceptor = match &config.tls {
        Some(files) => Some(server::acceptor(component::tls::server_config(files)?)),
        None => None,
    };
    let metrics = Metrics::new("etcd-lite");
    let figures = StoreMetrics::new(&metrics);
    let (store, log) = open(&config).await?;
    let tasks = Tasks::new("etcd-lite");
    let broken = CancellationToken::new();
    let writer = WriterConfig {
        quota: config.quota_backend_bytes,
        heartbeats: config.heartbeat_prefixes.iter().map(|p| Bytes::copy_from_slice(p.as_bytes())).collect(),
        clock: config.clock.clone(),
        metrics: figures.clone(),
    };
    let (writes, failure, thread) =
        commit::start(store.clone(), log, writer, broken.clone()).map_err(Error::Thread)?;
    let streams_end = CancellationToken::new();
    let app = Arc::new(App {
        store: store.clone(),
        writes: writes.clone(),
        tasks: tasks.spawner(),
        shutdown: streams_end.clone(),
        name: config.name.clone(),
        client_urls: config.advertise_client_urls.clone(),
        progress_interval: config.watch_progress_notify_interval,
    });
    let pages = pages(Pages { store: store.clone(), metrics, figures });
    let clients = rpc::router(app).await.merge(pages.clone());
    // The writer ends with the last router that can hand something in: none may stay in this function.
    let mut all: Vec<_> = listeners.into_iter().map(|(url, l)| (url, l, clients.clone())).collect();
    drop(clients);
    for url in &config.listen_metrics_urls {
        let listener = server::listen(&url.address).await.map_err(|e| Error::Listen(url.clone(), e))?;
        all.push((url.clone(), listener, pages.clone()));
    }
    for (url, listener, router) in all {
        if url.tls && acceptor.is_none() {
            return Err(Error::NoCertificate(url));
        }
        let tls = acceptor.clone().filter(|_| url.tls);
        let front = Front { router, tls, need_client_cert: config.client_cert_auth };
        // A port that was left to the system is known by now.
        let url = ListenUrl { address: listener.address().unwrap_or(url.address), ..url };
        tracing::info!(%url, "serving clients");
        tasks.spawn("listener", server::serve(listener, front, streams_end.clone()));
    }
    spawn_chores(&tasks, &store, &writes, &config);
    drop(writes);
    let failed = tokio::select! {
        () = shutdown.cancelled() => None,
        () = broken.cancelled() => None,
        name = tasks.failed() => Some(name),
    };
    // Streams end first; requests in progress are answered.
    streams_end.cancel();
    if !tasks.drain(Duration::from_secs(10)).await {
        tracing::warn!("some tasks did not finish in time");
    }
    // The last handle of the writer went with the tasks; what it was asked for is durable when it ends.
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    if joined.is_ok_and(|thread| thread.is_err()) {
        return Err(Error::Task("writer".into()));
    }
    match (failure.await, failed) {
        (Ok(error), _) => Err(error.into()),
        (Err(_), Some(name)) => Err(Error::Task(name)),
        (Err(_), None) => Ok(()),
    }
}

async fn open(config: &Config) -> Result<(Arc<Store>, engine::Log), Error> {
    let (dir, clock) = (log_dir(&config.data_dir), config.clock.clone());
    let ids = (rand::random::<u64>() >> 1, rand::random::<u64>() >> 1);
    let began = Instant::now();
    let boot = mvcc::boot();
    let open = move || Data::open(&dir, &Opening { clock: &clock, ids, boot: &boot });
    let opened = tokio::task::spawn_blocking(open).await;
    let (data, mut log) = opened.map_err(|e| Error::Task(e.to_string()))??;
    if config.unsafe_no_fsync {
        tracing::warn!("--unsafe-no-fsync: a machine that dies loses what was acknowledged");
        log.give_up_durability();
    }
    tracing::info!(
        revision = data.revision,
        compacted = data.compacted,
        keys = data.index.keys_len(),
        bytes = data.size().total,
        took = ?began.elapsed(),
        "the store is open"
    );
    Ok((Arc::new(Store::new(data)), log))
}

fn spawn_chores(tasks: &Tasks, store: &Arc<Store>, writes: &Writes, config: &Config) {
    let (token, expiring) = (tasks.token(), expire_leases(store.clone(), writes.clone()));
    tasks.spawn("lease expiry", async move {
        tokio::select! {
            () = token.cancelled() => {}
            () = expiring => {}
        }
    });
    if !config.heartbeat_prefixes.is_empty() {
        let (token, syncing) = (tasks.token(), sync_heartbeats(writes.clone()));
        tasks.spawn("heartbeat sync", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = syncing => {}
            }
        });
    }
    let (token, store, writes) = (tasks.token(), store.clone(), writes.clone());
    let compacting = compactor::run(config.auto_compaction, store, writes);
    tasks.spawn("compactor", async move {
        tokio::select! {
            () = token.cancelled() => {}
            () = compacting => {}
        }
    });
}

/// Makes heartbeats durable from time to time.
async fn sync_heartbeats(writes: Writes) {
    loop {
        tokio::time::sleep(HEARTBEAT_SYNC).await;
        if writes.sync().await.is_err() {
            return;
        }
    }
}

/// Ends every lease when its time is over.
async fn expire_leases(store: Arc<Store>, writes: Writes) {
    loop {
        let next = store.read().leases.next_deadline();
        match next {
            None => store.leases_changed.notified().await,
            Some(deadline) => {
                tokio::select! {
                    () = store.leases_changed.notified() => continue,
                    () = tokio::time::sleep_until(deadline) => {}
                }
                if writes.expire().await.is_err() {
                    return;
                }
            }
        }
    }
}

#[derive(Clone)]
struct Pages {
    store: Arc<Store>,
    metrics: Metrics,
    figures: StoreMetrics,
}

/// `/health`, `/metrics` and `/version`, as etcd has them.
fn pages(pages: Pages) -> Router {
    async fn health(State(pages): State<Pages>) -> impl IntoResponse {
        let full = pages.store.read().alarms.contains(&(AlarmType::Nospace as i32));
        let (code, text) =
            if full { (StatusCode::SERVICE_UNAVAILABLE, "false") } else { (StatusCode::OK, "true") };
        (code, Json(json!({ "health": text })))
    }
    async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
        pages.figures.refresh(&pages.store);
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], pages.metrics.encode())
    }
    let version = || async { Json(json!({ "etcdserver": ETCD_VERSION, "etcdcluster": ETCD_VERSION })) };
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .with_state(pages)
}
