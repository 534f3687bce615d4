//! `Status` errors: what the API answers when it refuses, and what clients read from that.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::validation::FieldError;

/// A refusal in Kubernetes' terms: HTTP code, reason, message and causes per field.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .0.message.as_deref().unwrap_or("unknown error"))]
pub struct StatusError(pub Box<Status>);

impl StatusError {
    /// A refusal of any code and reason.
    pub fn new(code: i32, reason: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Status {
            code: Some(code),
            reason: Some(reason.into()),
            message: Some(message.into()),
            status: Some("Failure".into()),
            ..Status::default()
        }))
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        let details = self.0.details.get_or_insert_default();
        details.name = (!name.is_empty()).then(|| name.to_owned());
        details.group = (!kind.group.is_empty()).then(|| kind.group.to_owned());
        details.kind = Some(kind.plural.to_owned());
        self
    }

    /// 400 `BadRequest`.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401 `Unauthorized`.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403 `Forbidden`, in the wording of upstream's authorizers.
    pub fn forbidden(kind: &Kind, name: &str, message: impl std::fmt::Display) -> Self {
        Self::forbidden_resource(kind.group, kind.plural, name, message)
    }

    /// 403 `Forbidden` of a resource that need not be in the table.
    pub fn forbidden_resource(
        group: &str,
        resource: &str,
        name: &str,
        message: impl std::fmt::Display,
    ) -> Self {
        let qualified = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        let subject = if name.is_empty() { qualified } else { format!("{qualified} {name:?}") };
        let mut error = Self::new(403, "Forbidden", format!("{subject} is forbidden: {message}"));
        let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
        let details = error.0.details.get_or_insert_default();
        (details.name, details.group, details.kind) = (text(name), text(group), text(resource));
        error
    }

    /// 404 `NotFound` of an object.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", kind.qualified())).about(kind, name)
    }

    /// 404 of a path that the server does not serve.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 405 `MethodNotAllowed`.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 409 `AlreadyExists`.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", kind.qualified()))
            .about(kind, name)
    }

    /// 409 `Conflict` of an operation on an object.
    pub fn conflict(kind: &Kind, name: &str, message: impl std::fmt::Display) -> Self {
        let text = format!("Operation cannot be fulfilled on {} {name:?}: {message}", kind.qualified());
        Self::new(409, "Conflict", text).about(kind, name)
    }

    /// 409 `Conflict` of an update whose resourceVersion is stale.
    pub fn stale(kind: &Kind, name: &str) -> Self {
        let message =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, message)
    }

    /// 410 `Expired`: the resourceVersion or continue token is older than what is kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413 `RequestEntityTooLarge`.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 415 `UnsupportedMediaType`.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 422 `Invalid` with every wrong field.
    pub fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        Self::invalid_of(kind.group, kind.kind, name, errors)
    }

    /// 422 `Invalid` of a kind that is known by its names.
    pub fn invalid_of(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let list = match errors {
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut error = Self::new(422, "Invalid", format!("{qualified} {name:?} is invalid: {list}"));
        error.0.details = Some(StatusDetails {
            causes: Some(errors.iter().map(FieldError::cause).collect()),
            name: (!name.is_empty()).then(|| name.to_owned()),
            group: (!group.is_empty()).then(|| group.to_owned()),
            // Upstream names the kind, not the resource, in the details of an invalid object.
            kind: Some(kind.to_owned()),
            ..StatusDetails::default()
        });
        error
    }

    /// 500 `InternalError`.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let mut error = Self::new(500, "InternalError", format!("Internal error occurred: {message}"));
        let cause = StatusCause { message: Some(message.to_string()), ..StatusCause::default() };
        error.0.details = Some(StatusDetails { causes: Some(vec![cause]), ..StatusDetails::default() });
        error
    }

    /// 503 `ServiceUnavailable`; to be tried again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504 `Timeout`; to be tried again.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message)
    }

    /// The HTTP code.
    pub fn code(&self) -> u16 {
        self.0.code.and_then(|c| u16::try_from(c).ok()).unwrap_or(500)
    }

    /// The machine-readable reason, or the empty string.
    pub fn reason(&self) -> &str {
        self.0.reason.as_deref().unwrap_or_default()
    }

    /// Whether this is `NotFound`.
    pub fn is_not_found(&self) -> bool {
        self.reason() == "NotFound"
    }

    /// Whether this is `AlreadyExists`.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    /// Whether this is `Conflict`.
    pub fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }

    /// Whether this is 410: the watch must begin again with a list.
    pub fn is_expired(&self) -> bool {
        self.code() == 410
    }

    /// The document that is sent.
    pub fn to_value(&self) -> Value {
        // k8s-openapi's encoding of Status carries apiVersion and kind already.
        let mut value = serde_json::to_value(&*self.0).unwrap_or_else(|_| Value::Object(Map::new()));
        if let Some(map) = value.as_object_mut() {
            map.entry("metadata").or_insert_with(|| json!({}));
        }
        value
    }
}
