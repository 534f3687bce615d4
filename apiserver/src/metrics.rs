//! Counts and times of requests, under upstream's names.

use std::time::Duration;

use component::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// The labels of a request. All come from tables or are numbers, so that their variety is bounded.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerbLabels {
    verb: &'static str,
    resource: &'static str,
}

/// The metrics of both fronts.
#[derive(Clone)]
pub struct RequestMetrics {
    total: Family<RequestLabels, Counter>,
    seconds: Family<VerbLabels, Histogram>,
    long_running: Gauge,
}

impl RequestMetrics {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let this = Self {
            total: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new([0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
            }),
            long_running: Gauge::default(),
        };
        metrics.register(
            "apiserver_request",
            "Requests by verb, group, resource and HTTP code",
            this.total.clone(),
        );
        metrics.register(
            "apiserver_request_duration_seconds",
            "Response latency by verb and resource, watches excepted",
            this.seconds.clone(),
        );
        metrics.register(
            "apiserver_longrunning_requests",
            "Watches and streams that are open",
            this.long_running.clone(),
        );
        this
    }

    /// A request was answered.
    pub fn answered(&self, verb: &'static str, kind: Option<&'static api::Kind>, code: u16, took: Duration) {
        let (group, resource) = kind.map_or(("", ""), |k| (k.group, k.plural));
        self.total.get_or_create(&RequestLabels { verb, group, resource, code }).inc();
        if verb != "watch" {
            self.seconds.get_or_create(&VerbLabels { verb, resource }).observe(took.as_secs_f64());
        }
    }

    /// A watch or stream is open until the guard is dropped.
    pub fn long_running(&self) -> LongRunning {
        self.long_running.inc();
        LongRunning(self.long_running.clone())
    }
}

/// Counts one open watch or stream.
pub struct LongRunning(Gauge);

impl Drop for LongRunning {
    fn drop(&mut self) {
        self.0.dec();
    }
}
