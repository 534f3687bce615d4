//! What can go wrong with a request, and whether trying again helps.

use api::StatusError;
use tonic::Code;

/// The outcome of a failed request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, and says why. Retryable when its code is 429, 500, 503 or 504.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The request did not reach an API server, or the connection broke. Retryable; a write may
    /// have happened all the same.
    #[error("API server is not reachable: {}", .0.message())]
    Transport(#[source] Box<tonic::Status>),
    /// The answer is of a type that was not expected. Not retryable.
    #[error("object {name} cannot be decoded")]
    Decode {
        /// `namespace/name` of the object.
        name: String,
        /// Where the JSON deviates.
        #[source]
        source: serde_json::Error,
    },
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        match proto::errors::from_grpc(&status) {
            Some(refusal) => Self::Status(StatusError(Box::new(refusal))),
            None => Self::Transport(Box::new(status)),
        }
    }
}

impl Error {
    fn status(&self) -> Option<&StatusError> {
        match self {
            Self::Status(status) => Some(status),
            _ => None,
        }
    }

    /// 404: no such object.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(StatusError::is_not_found)
    }

    /// 409 `Conflict`: the object changed since it was read, or a precondition failed.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(StatusError::is_conflict)
    }

    /// 409 `AlreadyExists`.
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(StatusError::is_already_exists)
    }

    /// 410: the version is older than what the server keeps.
    pub fn is_expired(&self) -> bool {
        self.status().is_some_and(StatusError::is_expired)
    }

    /// 422: a field is wrong.
    pub fn is_invalid(&self) -> bool {
        self.status().is_some_and(|s| s.reason() == "Invalid")
    }

    /// 403.
    pub fn is_forbidden(&self) -> bool {
        self.status().is_some_and(|s| s.reason() == "Forbidden")
    }

    /// Whether the namespace is being deleted, so that nothing can be created in it any more.
    pub fn is_namespace_terminating(&self) -> bool {
        let causes = self.status().and_then(|s| s.0.details.as_ref()).and_then(|d| d.causes.as_ref());
        causes.into_iter().flatten().any(|c| c.reason.as_deref() == Some("NamespaceTerminating"))
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Status(status) => matches!(status.code(), 429 | 500 | 503 | 504),
            Self::Transport(status) => !matches!(status.code(), Code::Unimplemented | Code::InvalidArgument),
            Self::Decode { .. } => false,
        }
    }
}
