//! What the controller manager counts beside the process' own figures.

use component::metrics::Metrics;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Whether this instance leads. Cheap to clone.
#[derive(Clone)]
pub struct Leading(Gauge);

impl Leading {
    /// Tells whether this instance leads now.
    pub fn set(&self, leads: bool) {
        self.0.set(leads.into());
    }
}

/// Registers upstream's gauge of leadership.
pub fn leading(metrics: &Metrics) -> Leading {
    let family = Family::<Vec<(String, String)>, Gauge>::default();
    let gauge = family.get_or_create(&vec![("name".into(), "kube-controller-manager".into())]).clone();
    let help = "Gauge of if the reporting system is master of the relevant lease";
    metrics.register("leader_election_master_status", help, family);
    Leading(gauge)
}
