//! Metrics, under upstream's names.

use std::time::Duration;

use component::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::queue::Depth;

/// The label of attempts: `scheduled`, `unschedulable` or `error`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    result: &'static str,
}

/// The label of pending pods: `active`, `backoff`, `unschedulable` or `gated`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueueLabel {
    queue: &'static str,
}

/// All metrics of the scheduler.
#[derive(Clone)]
pub struct Telemetry {
    attempts: Family<ResultLabel, Counter>,
    algorithm: Histogram,
    waited: Histogram,
    binding: Histogram,
    pending: Family<QueueLabel, Gauge>,
    preemptions: Counter,
    victims: Histogram,
}

impl Telemetry {
    /// Registers them.
    pub fn new(metrics: &Metrics) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.0001, 2.0, 18));
        let telemetry = Self {
            attempts: Family::default(),
            algorithm: seconds(),
            waited: seconds(),
            binding: seconds(),
            pending: Family::default(),
            preemptions: Counter::default(),
            victims: Histogram::new(exponential_buckets(1.0, 2.0, 7)),
        };
        let help = "Total preemption attempts in the cluster";
        metrics.register("scheduler_preemption_attempts", help, telemetry.preemptions.clone());
        let help = "Number of selected preemption victims";
        metrics.register("scheduler_preemption_victims", help, telemetry.victims.clone());
        let attempts = "Number of attempts to schedule pods, by the result";
        metrics.register("scheduler_schedule_attempts", attempts, telemetry.attempts.clone());
        let help = "Time that the decision itself took";
        metrics.register(
            "scheduler_scheduling_algorithm_duration_seconds",
            help,
            telemetry.algorithm.clone(),
        );
        let help = "Time from a pod's arrival in the queue until it was bound";
        metrics.register("scheduler_pod_scheduling_sli_duration_seconds", help, telemetry.waited.clone());
        let help = "Time that a binding took";
        metrics.register("scheduler_binding_duration_seconds", help, telemetry.binding.clone());
        metrics.register(
            "scheduler_pending_pods",
            "Number of pending pods, by the queue",
            telemetry.pending.clone(),
        );
        telemetry
    }

    /// A decision was made.
    pub fn decided(&self, took: Duration) {
        self.algorithm.observe(took.as_secs_f64());
    }

    /// A pod was bound, this long after it came.
    pub fn bound(&self, waited: Duration, took: Duration) {
        self.attempts.get_or_create(&ResultLabel { result: "scheduled" }).inc();
        self.waited.observe(waited.as_secs_f64());
        self.binding.observe(took.as_secs_f64());
    }

    /// No node was found.
    pub fn unschedulable(&self) {
        self.attempts.get_or_create(&ResultLabel { result: "unschedulable" }).inc();
    }

    /// So many pods make room for another.
    pub fn preempted(&self, victims: usize) {
        self.preemptions.inc();
        self.victims.observe(victims as f64);
    }

    /// A decision could not be carried out.
    pub fn failed(&self) {
        self.attempts.get_or_create(&ResultLabel { result: "error" }).inc();
    }

    /// How many pods wait.
    pub fn pending(&self, depth: Depth) {
        let waiting = [
            ("active", depth.active),
            ("backoff", depth.backoff),
            ("unschedulable", depth.unschedulable),
            ("gated", depth.gated),
        ];
        for (queue, count) in waiting {
            self.pending.get_or_create(&QueueLabel { queue }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
