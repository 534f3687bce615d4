//! Server-side apply: an object, made or changed so that it has all that a manager wants.

use api::apply::{self, ApplyError, Managed};
use api::openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};
use api::status::StatusError;
use api::{Kind, Object, Subresource};
use serde_json::{Map, Value, json};

use super::managed::{self, Context, Tracking};
use super::{Registry, Target, WriteOptions, Written};
use crate::auth::User;
use crate::registry::{convert, meta};
use crate::storage::layout;

/// How often an apply begins anew because the object came or went in between.
const MAX_TURNS: usize = 5;

impl Registry {
    /// Applies a configuration. `may_create` is asked before an object is made.
    ///
    /// # Errors
    /// 409 when others own fields that would change, 400 for a configuration that does not fit its type, 404 for a
    /// subresource of what does not exist, and all that a create or an update can refuse.
    pub async fn apply(
        &self,
        user: &User,
        target: Target<'_>,
        subresource: Option<Subresource>,
        document: Value,
        options: &WriteOptions,
        may_create: &(dyn Fn() -> Result<(), StatusError> + Sync),
    ) -> Result<Written, StatusError> {
        let warnings = options.check_duplicates(target.kind)?;
        let wanted = wanted(target, subresource, document)?;
        for _ in 0..MAX_TURNS {
            let applied = self.apply_to_present(user, target, subresource, &wanted, options).await;
            match applied {
                Err(error) if error.is_not_found() && subresource.is_none() => {}
                applied => return applied.map(|written| Written { warnings, ..written }),
            }
            may_create()?;
            match self.apply_to_nothing(user, target, &wanted, options).await {
                Err(error) if error.is_already_exists() => {}
                created => return created.map(|written| Written { warnings, ..written }),
            }
        }
        Err(StatusError::stale(target.kind, target.name))
    }

    async fn apply_to_present(
        &self,
        user: &User,
        target: Target<'_>,
        subresource: Option<Subresource>,
        wanted: &Value,
        options: &WriteOptions,
    ) -> Result<Written, StatusError> {
        let kind = layout::storage_kind(target.kind);
        let of = managed::document_type(kind);
        let context = Context { kind, subresource, options, now: self.clock.now() };
        self.modify(user, target, subresource, options, Tracking::Stated, |current| {
            let mut present = convert::to_stored(target.kind, current.clone());
            let managed = Managed::of_request(None, managed::take(&mut present).as_ref());
            let present = present.into_value();
            let applied = context
                .writing(|w| apply::apply(of.root(), &present, wanted, managed, w, options.force))
                .map_err(|e| refusal(target, &e))?;
            let mut object = meta::intake(kind, applied.document)?;
            managed::put(&mut object, applied.managed.encode());
            Ok(convert::from_stored(target.kind, object))
        })
        .await
    }

    async fn apply_to_nothing(
        &self,
        user: &User,
        target: Target<'_>,
        wanted: &Value,
        options: &WriteOptions,
    ) -> Result<Written, StatusError> {
        if let Some(uid) = wanted.pointer("/metadata/uid").and_then(Value::as_str).filter(|u| !u.is_empty()) {
            return Err(StatusError::conflict(
                target.kind,
                target.name,
                format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                ),
            ));
        }
        let kind = layout::storage_kind(target.kind);
        let of = managed::document_type(kind);
        let context = Context { kind, subresource: None, options, now: self.clock.now() };
        let empty = of.root().empty();
        let applied = context
            .writing(|w| apply::apply(of.root(), &empty, wanted, Managed::default(), w, options.force))
            .map_err(|e| refusal(target, &e))?;
        let mut object = meta::intake(kind, applied.document)?;
        managed::put(&mut object, applied.managed.encode());
        let object = convert::from_stored(target.kind, object);
        self.create_tracked(user, target.kind, target.namespace, object, options, Tracking::Stated).await
    }
}

/// What the configuration says, as the stored kind says it, without what the path leaves alone.
fn wanted(
    target: Target<'_>,
    subresource: Option<Subresource>,
    document: Value,
) -> Result<Value, StatusError> {
    if document
        .pointer("/metadata/managedFields")
        .is_some_and(|m| m.as_array().is_some_and(|l| !l.is_empty()))
    {
        return Err(StatusError::bad_request("metadata.managedFields must be nil"));
    }
    let mut object = if subresource == Some(Subresource::Scale) {
        scaled(target.kind, &document)?
    } else {
        for field in ["apiVersion", "kind"] {
            if document.get(field).and_then(Value::as_str).unwrap_or_default().is_empty() {
                return Err(StatusError::bad_request(format!(
                    "the {field} of the applied configuration must be set"
                )));
            }
        }
        meta::intake(target.kind, document)?
    };
    meta::place(target.kind, &mut object, target.namespace)?;
    match object.name() {
        "" => object.set_meta_str("name", target.name),
        name if name != target.name => {
            return Err(StatusError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                target.name
            )));
        }
        _ => {}
    }
    match subresource {
        Some(Subresource::Status) => {
            object
                .as_map_mut()
                .retain(|f, _| matches!(f.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
            let identity = ["name", "namespace", "uid", "resourceVersion"];
            object.meta_mut().retain(|field, _| identity.contains(&field.as_str()));
        }
        None if target.kind.has(Subresource::Status) => _ = object.as_map_mut().remove("status"),
        _ => {}
    }
    Ok(convert::to_stored(target.kind, object).into_value())
}

/// A Scale as what it says about the object.
fn scaled(kind: &Kind, scale: &Value) -> Result<Object, StatusError> {
    let is_scale = scale["kind"] == "Scale" && scale["apiVersion"] == "autoscaling/v1";
    if !is_scale {
        return Err(StatusError::bad_request("the request body is not an autoscaling/v1 Scale"));
    }
    let mut meta = scale.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    meta.retain(|field, _| matches!(field.as_str(), "name" | "namespace" | "uid" | "resourceVersion"));
    let mut document = json!({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta});
    if let Some(replicas) = scale.pointer("/spec/replicas") {
        let spec: Map<String, Value> = [("replicas".to_owned(), replicas.clone())].into_iter().collect();
        document["spec"] = Value::Object(spec);
    }
    meta::intake(kind, document)
}

fn refusal(target: Target<'_>, error: &ApplyError) -> StatusError {
    match error {
        ApplyError::Conflicts(conflicts) => {
            let causes = conflicts.iter().map(|conflict| StatusCause {
                reason: Some("FieldManagerConflict".into()),
                message: Some(format!("conflict with {}", conflict.manager)),
                field: Some(conflict.field.clone()),
            });
            let details = StatusDetails { causes: Some(causes.collect()), ..StatusDetails::default() };
            let mut status = StatusError::new(409, "Conflict", error.to_string());
            status.0.details = Some(details);
            status
        }
        ApplyError::Malformed(problems) => {
            let Target { kind, namespace, name } = target;
            let version = if kind.group.is_empty() { kind.version } else { kind.api_version };
            StatusError::bad_request(format!(
                "failed to create typed patch object ({namespace}/{name}; {version}, Kind={}): {problems}",
                kind.kind
            ))
        }
    }
}
