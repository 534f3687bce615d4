//! NamespaceLifecycle: nothing is created in a namespace that is missing or going, and the namespaces that a
//! cluster needs stay.

use api::openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use api::status::StatusError;
use api::{Kind, Object};

/// The namespaces that always exist.
pub const SYSTEM_NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Whether an object may be created in a namespace, given what that is.
///
/// # Errors
/// 404 when it does not exist, 403 when it is being terminated.
pub fn decide_create(
    kind: &Kind,
    namespace: &str,
    name: &str,
    found: Option<&Object>,
) -> Result<(), StatusError> {
    let namespaces = Kind::find("", "Namespace").expect("Namespace is in the table");
    let Some(found) = found else { return Err(StatusError::not_found(namespaces, namespace)) };
    if found.deletion_timestamp().is_none() && found.str_at("/status/phase") != "Terminating" {
        return Ok(());
    }
    let message =
        format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut error = StatusError::forbidden(kind, name, &message);
    let cause = StatusCause {
        reason: Some("NamespaceTerminating".into()),
        message: Some(format!("namespace {namespace} is being terminated")),
        field: Some("metadata.namespace".into()),
    };
    error.0.details.get_or_insert_default().causes = Some(vec![cause]);
    Err(error)
}

/// Whether an object may be deleted as far as its name says.
///
/// # Errors
/// 403 for a namespace that the cluster needs.
pub fn decide_delete(kind: &Kind, name: &str) -> Result<(), StatusError> {
    if kind.group.is_empty() && kind.kind == "Namespace" && SYSTEM_NAMESPACES.contains(&name) {
        return Err(StatusError::forbidden(kind, name, "this namespace may not be deleted"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn content_needs_a_living_namespace() {
        let pod = Kind::find("", "Pod").expect("a kind");
        let namespace = |v| Object::new(v).expect("a map");
        let decide = |found: Option<&Object>| decide_create(pod, "n", "p", found).map_err(|e| e.code());
        assert_eq!(decide(None), Err(404));
        assert_eq!(decide(Some(&namespace(json!({"status": {"phase": "Active"}})))), Ok(()));
        assert_eq!(decide(Some(&namespace(json!({"status": {"phase": "Terminating"}})))), Err(403));
        let dying = namespace(json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z"}}));
        let error = decide_create(pod, "n", "p", Some(&dying)).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "pods \"p\" is forbidden: unable to create new content in namespace n because it is being terminated"
        );
    }

    #[test]
    fn system_namespaces_stay() {
        let kind = Kind::find("", "Namespace").expect("a kind");
        assert_eq!(
            decide_delete(kind, "default").expect_err("refused").to_string(),
            "namespaces \"default\" is forbidden: this namespace may not be deleted"
        );
        assert!(decide_delete(kind, "mine").is_ok());
        assert!(decide_delete(Kind::find("", "Pod").expect("a kind"), "default").is_ok());
    }
}
