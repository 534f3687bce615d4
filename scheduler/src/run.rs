//! Feeds the state machine from the API, and runs it while this instance leads.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use client::{Client, LeaderConfig, Recorder, lead};
use component::clock::Clock;
use component::flags::Serving;
use component::health::Health;
use component::metrics::Metrics;
use component::tasks::{Spawner, Tasks, lock};
use component::tls;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bind::Binder;
use crate::core::{Core, Step};
use crate::feed::Feed;
use crate::profile::Profile;
use crate::telemetry::Telemetry;

/// Everything that a scheduler is told when it starts.
pub struct Config {
    /// The API server.
    pub client: Client,
    /// The time.
    pub clock: Clock,
    /// How to contend for leadership; `None` leads at once.
    pub leader: Option<LeaderConfig>,
    /// Where to show health, metrics and decisions.
    pub serving: Option<Serving>,
    /// The seed of the generator that breaks ties.
    pub seed: u64,
    /// Which plugins decide, by the name that pods ask for.
    pub profiles: Vec<Profile>,
    /// How long a pod waits after its first decision in vain, and at most.
    pub backoff: (Duration, Duration),
    /// The name under which events are recorded.
    pub host: String,
}

/// Why a scheduler cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The serving certificate is not usable.
    #[error("the secure port cannot be served")]
    Tls(#[source] tls::TlsError),
    /// The address is taken or not there.
    #[error("the secure port cannot be served: {0}")]
    Serve(String),
    /// A task panicked.
    #[error("task {0} panicked")]
    Panicked(String),
}

/// Decisions in a row before other tasks get a turn.
const BURST: usize = 32;
/// Requests to the API server at one time, for bindings and for conditions.
const IN_FLIGHT: usize = 128;
const DRAIN: Duration = Duration::from_secs(5);

struct Inner {
    core: Mutex<Core>,
    changed: Notify,
}

/// The state machine, shared by informers, the loop and bindings. Cheap to clone.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

impl Shared {
    /// Shares a state machine.
    pub fn new(core: Core) -> Self {
        Self(Arc::new(Inner { core: Mutex::new(core), changed: Notify::new() }))
    }

    /// The state machine. Not to be held across an await.
    pub fn lock(&self) -> MutexGuard<'_, Core> {
        lock(&self.0.core)
    }

    /// There may be something to decide.
    pub fn wake(&self) {
        self.0.changed.notify_one();
    }
}

/// Schedules pods until `shutdown`.
pub async fn run(mut config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let tasks = Tasks::new("kube-scheduler");
    let metrics = Metrics::new("kube-scheduler");
    let telemetry = Telemetry::new(&metrics);
    let health = Health::new();
    let synced = health.check("informer-sync");
    let shared =
        Shared::new(Core::with_backoff(config.seed, std::mem::take(&mut config.profiles), config.backoff));
    let served = serve(&config, health, metrics, shared.clone(), &tasks.spawner())?;
    let recorder = Recorder::new(
        &config.client,
        "default-scheduler",
        &config.host,
        config.clock.clone(),
        &tasks.spawner(),
    );
    let client = config.client.clone();
    let binder = Binder { client, shared: shared.clone(), recorder, clock: config.clock.clone(), telemetry };
    crate::answer::run(&config.client, &shared, &tasks.spawner());
    let feed = Feed::start(&config.client, &shared, &binder, &tasks.spawner());
    let worker =
        Worker { shared, binder, tasks: tasks.spawner(), permits: Arc::new(Semaphore::new(IN_FLIGHT)) };
    let token = shutdown.child_token();
    let leading = async {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = feed.synced(&synced) => {}
        }
        let work = |lost: CancellationToken| worker.clone().decide(lost);
        match config.leader.clone() {
            Some(leader) => lead(&config.client, leader, config.clock.clone(), token.clone(), work).await,
            None => work(token.clone()).await,
        }
    };
    let outcome = tokio::select! {
        biased;
        name = tasks.failed() => Err(Error::Panicked(name)),
        Err(error) = served => Err(error),
        () = leading => Ok(()),
    };
    tasks.drain(DRAIN).await;
    outcome
}

/// Serves the secure port; resolves only if it cannot be served.
fn serve(
    config: &Config,
    health: Health,
    metrics: Metrics,
    shared: Shared,
    tasks: &Spawner,
) -> Result<impl Future<Output = Result<(), Error>> + use<>, Error> {
    let serving = config.serving.clone();
    let tls = match serving.as_ref().and_then(|s| s.tls.as_ref()) {
        Some(files) => Some(tls::server_config(files).map_err(Error::Tls)?),
        None => None,
    };
    let router = component::health::router(health, metrics).merge(crate::serve::router(shared));
    let token = tasks.token();
    Ok(async move {
        match serving {
            Some(serving) => {
                let served = component::health::serve(serving.addr, tls, router, token).await;
                served.map_err(|e| Error::Serve(format!("{}: {e}", serving.addr)))?;
            }
            None => std::future::pending().await,
        }
        Ok(())
    })
}

#[derive(Clone)]
struct Worker {
    shared: Shared,
    binder: Binder,
    tasks: Spawner,
    permits: Arc<Semaphore>,
}

impl Worker {
    /// Decides until leadership is lost.
    async fn decide(self, lost: CancellationToken) {
        tracing::info!("scheduling");
        loop {
            let deadline = {
                let mut decided = 0;
                while decided < BURST && !lost.is_cancelled() && self.step() {
                    decided += 1;
                }
                let core = self.shared.lock();
                self.binder.telemetry.pending(core.depth());
                if core.has_active() { Some(Instant::now()) } else { core.deadline() }
            };
            let timer = async {
                match deadline {
                    Some(at) if at <= Instant::now() => tokio::task::yield_now().await,
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = lost.cancelled() => return,
                () = self.shared.0.changed.notified() => {}
                () = timer => {}
            }
        }
    }

    /// Makes one decision and has it carried out; false when there was none to make.
    fn step(&self) -> bool {
        let began = Instant::now();
        let step = self.shared.lock().step(began, || self.binder.clock.now().to_string());
        let Some(step) = step else { return false };
        self.binder.telemetry.decided(began.elapsed());
        let (binder, permits) = (self.binder.clone(), self.permits.clone());
        self.tasks.spawn("decision", async move {
            // It is never closed; waiting in line bounds what the API server is asked at one time.
            let _permit = permits.acquire().await;
            match step {
                Step::Bind { queued, node } => binder.bind(*queued, node).await,
                Step::Volumes { pod, node, writes } => binder.volumes(pod, node, writes).await,
                Step::Fail { pod, message, preemption, forget_nomination } => {
                    binder.fail(pod, message, preemption, forget_nomination).await;
                }
            }
        });
        true
    }
}
