//! How failures of the store are told to clients.

use api::status::StatusError;

use crate::storage::EtcdError;
use crate::storage::hub::HubError;

/// The `Status` of a failed store operation.
pub fn from_etcd(error: &EtcdError) -> StatusError {
    match error {
        EtcdError::Compacted => {
            StatusError::expired("The resourceVersion for the provided request is too old.")
        }
        EtcdError::TooLarge(_) => StatusError::new(413, "RequestEntityTooLarge", error.to_string()),
        EtcdError::Unavailable(_) => retry_after(StatusError::unavailable(error.to_string())),
        EtcdError::Refused(_) | EtcdError::File(..) | EtcdError::Config(_) => StatusError::internal(error),
    }
}

/// The `Status` when the copies do not become current in time.
pub fn from_hub(error: &HubError) -> StatusError {
    match error {
        HubError::Etcd(error) => from_etcd(error),
        HubError::TooNew { .. } => {
            let mut status = retry_after(StatusError::timeout(error.to_string()));
            if let Some(details) = status.0.details.as_mut() {
                details.causes = Some(vec![api::openapi::apimachinery::pkg::apis::meta::v1::StatusCause {
                    reason: Some("ResourceVersionTooLarge".into()),
                    message: Some("Too large resource version".into()),
                    field: None,
                }]);
            }
            status
        }
    }
}

/// Tells the client to come again in a second.
pub fn retry_after(mut status: StatusError) -> StatusError {
    status.0.details.get_or_insert_default().retry_after_seconds = Some(1);
    status
}
