//! Figures that the kubelet counts, under upstream's names.

use component::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// The kubelet's own figures; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Meters {
    /// Pods that have a worker.
    pub running_pods: Gauge,
    /// Containers that were started.
    pub started_containers: Counter,
    /// Containers that could not be started.
    pub started_containers_errors: Counter,
    /// Sandboxes that were made.
    pub started_pods: Counter,
}

impl Meters {
    /// Figures that are shown with `metrics`.
    pub fn new(metrics: &Metrics) -> Self {
        let meters = Self::default();
        metrics.register(
            "kubelet_running_pods",
            "Number of pods that have a worker",
            meters.running_pods.clone(),
        );
        let counters = [
            ("kubelet_started_containers", "Containers that were started", &meters.started_containers),
            (
                "kubelet_started_containers_errors",
                "Containers that could not be started",
                &meters.started_containers_errors,
            ),
            ("kubelet_started_pods", "Pod sandboxes that were made", &meters.started_pods),
        ];
        for (name, help, counter) in counters {
            metrics.register(name, help, counter.clone());
        }
        meters
    }
}
