//! What the proxy shows of itself: health as upstream's proxy has it, and metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use component::clock::Clock;
use component::health::Health;
use component::metrics::Metrics;
use component::tasks::lock;
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::dns::serve::Counts;

/// Changes that wait for longer than this make the proxy unhealthy (upstream: twice the sync period).
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default, Clone, Copy)]
struct Times {
    updated: Option<Timestamp>,
    /// Since when something waits to be done.
    waiting: Option<Timestamp>,
}

/// The proxy's state as others may see it.
pub struct Status {
    clock: Clock,
    times: Mutex<Times>,
    eligible: AtomicBool,
    sync: Histogram,
    programming: Histogram,
    last_sync: Gauge<f64, AtomicU64>,
    failures: Counter,
    service_changes: Counter,
    endpoint_changes: Counter,
    dns: Arc<Counts>,
    dns_answered: Counter,
    dns_forwarded: Counter,
}

impl Status {
    /// A proxy that has done nothing yet.
    pub fn new(clock: Clock, metrics: &Metrics) -> Self {
        let status = Self {
            clock,
            times: Mutex::default(),
            eligible: AtomicBool::new(true),
            sync: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            programming: Histogram::new(exponential_buckets(0.001, 2.0, 20)),
            last_sync: Gauge::default(),
            failures: Counter::default(),
            service_changes: Counter::default(),
            endpoint_changes: Counter::default(),
            dns: Arc::default(),
            dns_answered: Counter::default(),
            dns_forwarded: Counter::default(),
        };
        let m = |name, help, counter: &Counter| metrics.register(name, help, counter.clone());
        let seconds = "kubeproxy_sync_proxy_rules_duration_seconds";
        metrics.register(seconds, "Time that a sync of the rules took", status.sync.clone());
        let seconds = "kubeproxy_network_programming_duration_seconds";
        let help = "Time from a change of a pod or Service until the rules follow it";
        metrics.register(seconds, help, status.programming.clone());
        let last = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";
        metrics.register(last, "When the rules were last brought up to date", status.last_sync.clone());
        m("kubeproxy_sync_proxy_rules_nftables_sync_failures", "Syncs that failed", &status.failures);
        m("kubeproxy_sync_proxy_rules_service_changes", "Changes of Services", &status.service_changes);
        m(
            "kubeproxy_sync_proxy_rules_endpoint_changes",
            "Changes of EndpointSlices",
            &status.endpoint_changes,
        );
        m("kubeproxy_dns_answered", "DNS requests that were answered here", &status.dns_answered);
        m("kubeproxy_dns_forwarded", "DNS requests that were forwarded", &status.dns_forwarded);
        status
    }

    /// Where the name server counts.
    pub fn dns_counts(&self) -> Arc<Counts> {
        self.dns.clone()
    }

    /// Something is to be done.
    pub fn queued(&self) {
        let now = self.clock.now();
        lock(&self.times).waiting.get_or_insert(now);
    }

    /// Everything is done.
    pub fn synced(&self, took: Duration, triggers: &[Timestamp], services: u64, endpoints: u64) {
        let now = self.clock.now();
        *lock(&self.times) = Times { updated: Some(now), waiting: None };
        self.sync.observe(took.as_secs_f64());
        self.last_sync.set(now.as_millisecond() as f64 / 1000.0);
        self.service_changes.inc_by(services);
        self.endpoint_changes.inc_by(endpoints);
        for trigger in triggers {
            let age = now.duration_since(*trigger).as_secs_f64();
            // What happened before this proxy started says nothing about it.
            if (0.0..=600.0).contains(&age) {
                self.programming.observe(age);
            }
        }
    }

    /// A sync failed.
    pub fn failed(&self) {
        self.failures.inc();
    }

    /// Whether load balancers should send traffic to this node.
    pub fn eligible(&self, eligible: bool) {
        self.eligible.store(eligible, Ordering::Relaxed);
    }

    fn healthy(&self, now: Timestamp) -> bool {
        let times = *lock(&self.times);
        let late = |since: Timestamp| now.duration_since(since).as_secs_f64() > PATIENCE.as_secs_f64();
        times.updated.is_some() && !times.waiting.is_some_and(late)
    }

    fn report(&self, with_eligibility: bool) -> Response {
        let now = self.clock.now();
        let eligible = self.eligible.load(Ordering::Relaxed);
        let good = self.healthy(now) && (eligible || !with_eligibility);
        let updated = lock(&self.times).updated.unwrap_or(Timestamp::UNIX_EPOCH);
        // Upstream shows the present time as the last update of a healthy proxy that has nothing to do.
        let updated = if self.healthy(now) { now } else { updated };
        let body = serde_json::json!({
            "lastUpdated": updated.to_string(),
            "currentTime": now.to_string(),
            "nodeEligible": eligible,
        });
        let code = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let headers =
            [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
        (code, headers, body.to_string()).into_response()
    }

    fn count_dns(&self) {
        let take = |from: &std::sync::atomic::AtomicUsize| from.swap(0, Ordering::Relaxed) as u64;
        self.dns_answered.inc_by(take(&self.dns.answered));
        self.dns_forwarded.inc_by(take(&self.dns.forwarded));
    }
}

/// `/healthz` (load balancers: is this node good for traffic) and `/livez` (is this process well).
pub fn health_router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/healthz", get(|State(status): State<Arc<Status>>| async move { status.report(true) }))
        .route("/livez", get(|State(status): State<Arc<Status>>| async move { status.report(false) }))
        .with_state(status)
}

/// `/metrics`, `/proxyMode`, and plain health.
pub fn metrics_router(status: Arc<Status>, metrics: Metrics) -> Router {
    let counted = axum::middleware::from_fn(move |request, next: axum::middleware::Next| {
        status.count_dns();
        next.run(request)
    });
    component::health::router(Health::new(), metrics)
        .route("/proxyMode", get(|| async { "nftables" }))
        .layer(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> (Status, Clock) {
        let clock = Clock::simulated(Timestamp::UNIX_EPOCH);
        (Status::new(clock.clone(), &Metrics::new("test")), clock)
    }

    #[tokio::test(start_paused = true)]
    async fn health_fails_before_the_first_sync_and_when_changes_wait_for_too_long() {
        let (status, clock) = status();
        assert!(!status.healthy(clock.now()));
        status.queued();
        status.synced(Duration::from_millis(5), &[], 1, 1);
        assert!(status.healthy(clock.now()));
        tokio::time::advance(PATIENCE * 10).await;
        assert!(status.healthy(clock.now()), "nothing waits");
        status.queued();
        tokio::time::advance(PATIENCE / 2).await;
        status.queued();
        assert!(status.healthy(clock.now()));
        tokio::time::advance(PATIENCE).await;
        assert!(!status.healthy(clock.now()), "the first change waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_goes_is_live_and_not_healthy() {
        let (status, _) = status();
        status.synced(Duration::ZERO, &[], 0, 0);
        status.eligible(false);
        assert_eq!(status.report(true).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status.report(false).status(), StatusCode::OK);
    }
}
