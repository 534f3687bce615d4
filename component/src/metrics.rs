//! Metrics in the OpenMetrics text format, with the process' own figures.

use std::sync::{Arc, Mutex};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Metric, Registry};

use crate::tasks::lock;

/// The metrics of one process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// An empty registry whose every metric bears the component's name as a constant label.
    pub fn new(component: &'static str) -> Self {
        let labels = [("component".into(), component.into())];
        Self(Arc::new(Mutex::new(Registry::with_labels(labels.into_iter()))))
    }

    /// Adds a metric. Counters are given without `_total`, which the encoding appends.
    pub fn register<M: Metric>(&self, name: &str, help: &str, metric: M) {
        lock(&self.0).register(name, help.trim_end_matches('.'), metric);
    }

    /// All metrics, in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &lock(&self.0)).is_err() {
            // Writing to a string fails only when a metric's own encoder does.
            tracing::error!("a metric could not be encoded");
        }
        let end = text.rfind("# EOF").unwrap_or(text.len());
        text.insert_str(end, &process_metrics());
        text
    }
}

/// Memory, processor time, threads and files of this process, read from /proc.
fn process_metrics() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |key: &str| {
        let line = status.lines().find(|l| l.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|f| f.parse().unwrap_or(0)).collect())
        .unwrap_or_default();
    let ticks = fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0);
    let files = std::fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or(0);
    let gauge = |name: &str, value: String| format!("# TYPE {name} gauge\n{name} {value}\n");
    let mut text = gauge("process_resident_memory_bytes", (kib("VmRSS:").unwrap_or(0) * 1024).to_string());
    text += &gauge("process_threads", kib("Threads:").unwrap_or(0).to_string());
    text += &gauge("process_open_fds", files.to_string());
    // USER_HZ is 100 on every Linux that Rust supports.
    text += &format!(
        "# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total {}.{:02}\n",
        ticks / 100,
        ticks % 100
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn metrics_are_encoded_with_the_component_and_the_process() {
        let metrics = Metrics::new("test");
        let counter: Counter = Counter::default();
        metrics.register("things", "Things that were counted", counter.clone());
        counter.inc();
        let text = metrics.encode();
        assert!(text.contains("things_total{component=\"test\"} 1"), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
