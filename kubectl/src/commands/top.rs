//! `kubectl top`: refused, since nothing here serves metrics.

use clap::Args;

use crate::error::{Error, Result};
use crate::session::Session;

/// Display resource (CPU/memory) usage; needs the metrics API
#[derive(Args, Debug)]
pub struct Top {
    /// node or pod
    pub args: Vec<String>,
}

impl Top {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        let catalog = session.catalog().await?;
        Err(match catalog.versions.iter().any(|v| v.starts_with("metrics.k8s.io/")) {
            true => Error::message(
                "top is not supported by this client: use kubectl get --raw /apis/metrics.k8s.io/v1beta1/nodes",
            ),
            false => Error::message("Metrics API not available"),
        })
    }
}
