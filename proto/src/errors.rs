//! A Kubernetes `Status` inside a gRPC error.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status as KubeStatus;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

const KEY: &str = "kubernetes-status-bin";

/// The gRPC error that carries a Kubernetes `Status`, whose HTTP code chooses the gRPC code.
pub fn to_grpc(status: &KubeStatus) -> Status {
    let code = match (status.code.unwrap_or(500), status.reason.as_deref().unwrap_or_default()) {
        (400 | 405 | 413 | 415 | 422, _) => Code::InvalidArgument,
        (401, _) => Code::Unauthenticated,
        (403, _) => Code::PermissionDenied,
        (404, _) => Code::NotFound,
        (409, "AlreadyExists") => Code::AlreadyExists,
        (409, _) => Code::Aborted,
        (410, _) => Code::OutOfRange,
        (429, _) => Code::ResourceExhausted,
        (503, _) => Code::Unavailable,
        (504, _) => Code::DeadlineExceeded,
        _ => Code::Internal,
    };
    let mut error = Status::new(code, status.message.clone().unwrap_or_default());
    if let Ok(json) = serde_json::to_vec(status) {
        error.metadata_mut().insert_bin(KEY, MetadataValue::from_bytes(&json));
    }
    error
}

/// The Kubernetes `Status` that a gRPC error carries; none when the error arose below the API.
pub fn from_grpc(error: &Status) -> Option<KubeStatus> {
    let bytes = error.metadata().get_bin(KEY)?.to_bytes().ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_the_journey() {
        let status = KubeStatus { code: Some(409), reason: Some("Conflict".into()), ..KubeStatus::default() };
        let error = to_grpc(&status);
        assert_eq!(error.code(), Code::Aborted);
        assert_eq!(from_grpc(&error), Some(status));
        assert_eq!(from_grpc(&Status::unavailable("connection refused")), None);
    }
}
