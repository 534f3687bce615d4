//! kube-controller-manager: the loops that move the cluster's state towards what its objects ask for.
//!
//! Each controller is one file (or folder) under [`controllers`], named as upstream names it. What
//! it does is decided by a plain function from the objects that it reads to a list of operations;
//! a few lines around it read the shared caches and carry the operations out. Only the leader
//! works: [`run`] starts all controllers when it begins to lead and ends them when it stops.

pub mod controllers;

mod claim;
mod config;
mod context;
mod delete;
mod expectations;
#[cfg(test)]
mod fixtures;
mod informers;
mod metrics;
mod pods;
mod service_pods;

use std::sync::Arc;
use std::time::Duration;

use client::{Client, lead};
use component::clock::Clock;
use component::health::{self, Health};
use component::metrics::Metrics;
use component::tasks::Tasks;
use component::tls::{self, TlsError};
use tokio_util::sync::CancellationToken;

pub use config::{Cidr, CidrError, Config, ControllerSelection, NodeLifecycleConfig};
use context::Context;
use informers::Informers;

/// How long controllers may take to finish what they are at when leadership ends. Shorter than the
/// time between the renew deadline and the end of the Lease.
const DRAIN: Duration = Duration::from_secs(3);

/// Why the controller manager ended although it was not asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The serving certificate is not usable.
    #[error("the serving certificate is not usable")]
    Tls(#[source] TlsError),
    /// The health and metrics port cannot be served.
    #[error("could not serve on {0}")]
    Serve(std::net::SocketAddr, #[source] std::io::Error),
    /// A task ended in a panic, which is a mistake in the program.
    #[error("task {0} panicked")]
    Panicked(String),
}

/// Runs until `shutdown` is cancelled: contends for leadership and, while leading, runs the
/// controllers. Losing leadership ends the controllers but not this.
///
/// # Errors
/// See [`Error`].
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let config = Arc::new(config);
    let client = Client::new(config.client.clone());
    let metrics = Metrics::new("kube-controller-manager");
    let leading = metrics::leading(&metrics);
    let stop = shutdown.child_token();
    let work = async {
        let result = contend(&config, &client, &stop, &leading).await;
        stop.cancel();
        result
    };
    let (worked, served) = tokio::join!(work, serve(&config, metrics, &stop));
    worked.and(served)
}

/// Shows health and metrics on the secure port, if there is one.
async fn serve(config: &Config, metrics: Metrics, stop: &CancellationToken) -> Result<(), Error> {
    let Some(serving) = &config.serving else { return Ok(()) };
    let served = async {
        let tls = serving.tls.as_ref().map(tls::server_config).transpose().map_err(Error::Tls)?;
        let router = health::router(Health::new(), metrics);
        let served = health::serve(serving.addr, tls, router, stop.child_token()).await;
        served.map_err(|e| Error::Serve(serving.addr, e))
    };
    let result = served.await;
    stop.cancel();
    result
}

/// Runs the controllers for as long as this instance leads, again and again.
async fn contend(
    config: &Arc<Config>,
    client: &Client,
    stop: &CancellationToken,
    leading: &metrics::Leading,
) -> Result<(), Error> {
    let clock = Clock::system();
    let (failed, mut failure) = tokio::sync::mpsc::channel(1);
    let work = |token: CancellationToken| {
        let (config, client, clock) = (config.clone(), client.clone(), clock.clone());
        let failed = failed.clone();
        async move {
            leading.set(true);
            if let Err(error) = control(config, client, clock, token).await {
                // The first failure is enough: the receiver ends everything.
                let _ = failed.try_send(error);
            }
            leading.set(false);
        }
    };
    let led = async {
        match &config.leader {
            Some(leader) => lead(client, leader.clone(), clock.clone(), stop.clone(), work).await,
            None => work(stop.clone()).await,
        }
    };
    tokio::select! {
        () = led => failure.try_recv().map_or(Ok(()), Err),
        Some(error) = failure.recv() => Err(error),
    }
}

/// Runs every selected controller until the token is cancelled.
async fn control(
    config: Arc<Config>,
    client: Client,
    clock: Clock,
    token: CancellationToken,
) -> Result<(), Error> {
    let tasks = Tasks::new("controllers");
    let informers = Arc::new(Informers::new(&client));
    let ctx = Context { client, informers: informers.clone(), clock, tasks: tasks.spawner(), config };
    for (name, start) in controllers::ALL {
        if ctx.config.controllers.selects(name) {
            tasks.spawn(*name, start(ctx.clone()));
        }
    }
    informers.start(&tasks.spawner());
    drop(ctx);
    let result = tokio::select! {
        () = token.cancelled() => Ok(()),
        name = tasks.failed() => Err(Error::Panicked(name)),
    };
    if !tasks.drain(DRAIN).await {
        tracing::warn!("controllers were ended before they had finished");
    }
    result
}
