//! The task behind one probe of one run of a container.

use std::sync::Arc;

use client::EventType::Warning;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval_at};

use crate::context::Ctx;
use crate::probes::{self, Counter, Outcome, Purpose, Timing};

/// A new result of a probe.
#[derive(Debug)]
pub struct Probed {
    /// The container.
    pub name: String,
    /// The run.
    pub id: String,
    /// What the probe is for.
    pub purpose: Purpose,
    /// The result.
    pub success: bool,
}

/// Asks again and again, for as long as it is kept.
pub struct Prober {
    /// The tools.
    pub ctx: Ctx,
    /// The pod.
    pub pod: Arc<Pod>,
    /// The pod's address, as the node reaches it.
    pub host: String,
    /// The container.
    pub container: Container,
    /// What the probe is for.
    pub purpose: Purpose,
    /// The run.
    pub id: String,
    /// When the run started.
    pub since: Timestamp,
    /// Whether the container is known to be ready already.
    pub ready: bool,
}

impl Prober {
    /// Asks, and tells of each new result. A startup probe ends with its first result.
    pub async fn run(self, results: mpsc::Sender<Probed>) {
        let Some(probe) = self.purpose.of(&self.container).cloned() else { return };
        let timing = Timing::from(&probe);
        let ran = Duration::try_from(self.ctx.clock.now().duration_since(self.since)).unwrap_or_default();
        let first = Instant::now() + timing.initial_delay.saturating_sub(ran);
        let mut ticks = interval_at(first, timing.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let known = match self.purpose {
            Purpose::Liveness => Some(true),
            Purpose::Readiness => Some(self.ready),
            Purpose::Startup => None,
        };
        let mut counter = Counter::new(timing, known);
        loop {
            ticks.tick().await;
            let outcome = probes::ask(&self.ctx.runtime, &probe, &self.container, &self.id, &self.host).await;
            let success = match outcome {
                Outcome::Success => true,
                Outcome::Failure(why) => {
                    self.event(&format!("{} probe failed: {why}", self.purpose.name()));
                    false
                }
                Outcome::Error(why) => {
                    self.event(&format!("{} probe errored: {why}", self.purpose.name()));
                    continue;
                }
            };
            if let Some(result) = counter.observe(success) {
                let name = self.container.name.clone();
                let told = Probed { name, id: self.id.clone(), purpose: self.purpose, success: result };
                if results.send(told).await.is_err() {
                    return;
                }
                if self.purpose == Purpose::Startup {
                    return;
                }
            }
        }
    }

    fn event(&self, message: &str) {
        self.ctx.container_event(&self.pod, &self.container.name, Warning, "Unhealthy", message);
    }
}
