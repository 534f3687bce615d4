//! Probes that ask the standard gRPC health service.

use std::time::Duration;

use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{Outcome, authority};

/// Success is `SERVING`.
pub async fn ask(host: &str, port: u16, service: &str, limit: Duration) -> Outcome {
    let address = authority(host, port);
    let question = async {
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).map_err(|e| Outcome::Error(e.to_string()))?;
        let channel = endpoint.connect().await.map_err(|_| {
            Outcome::Failure(format!(
                "timeout: failed to connect service {address:?} within {}: context deadline exceeded",
                crate::pod::state::go_duration(limit)
            ))
        })?;
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(channel).check(request).await;
        answer.map_err(|e| Outcome::Failure(format!("error: health rpc probe failed: {e}")))
    };
    match tokio::time::timeout(limit, question).await {
        Ok(Ok(answer)) => match answer.into_inner().status() {
            ServingStatus::Serving => Outcome::Success,
            other => {
                Outcome::Failure(format!("service unhealthy (responded with {:?})", other.as_str_name()))
            }
        },
        Ok(Err(outcome)) => outcome,
        Err(_) => Outcome::Failure(format!(
            "timeout: health rpc did not complete within {}",
            crate::pod::state::go_duration(limit)
        )),
    }
}
