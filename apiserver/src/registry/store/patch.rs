//! Patches: what they are, and how they become updates.

use api::patch::{json_patch, merge_patch, strategic_merge};
use api::status::StatusError;
use api::{Kind, Object, Subresource};
use serde_json::Value;

use super::managed::Tracking;
use super::{Registry, Target, WriteOptions, Written};
use crate::auth::User;
use crate::registry::{meta, scale};

/// The sorts of patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, which knows the keys of lists.
    Strategic,
}

/// A patch as it was sent.
#[derive(Clone, Debug)]
pub struct Patch {
    /// Its sort.
    pub type_: PatchType,
    /// Its content.
    pub document: Value,
}

impl Patch {
    fn apply(&self, kind: &'static Kind, current: &Value) -> Result<Value, StatusError> {
        Ok(match self.type_ {
            PatchType::Json => json_patch(current, &self.document),
            PatchType::Merge => merge_patch(current, &self.document),
            PatchType::Strategic => strategic_merge(kind, current, &self.document),
        }?)
    }
}

impl Registry {
    /// Changes an object, or one of its subresources, by a patch.
    ///
    /// # Errors
    /// 400 for what is no patch, 422 for one that does not fit, and all that an update can refuse.
    pub async fn patch(
        &self,
        user: &User,
        target: Target<'_>,
        subresource: Option<Subresource>,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Written, StatusError> {
        if patch.type_ == PatchType::Strategic && target.kind.custom.is_some() && subresource.is_none() {
            // The lists of a custom kind have no patch tags.
            return Err(StatusError::unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            ));
        }
        let mut warnings = Vec::new();
        let written = self
            .modify(user, target, subresource, options, Tracking::Changes, |current| {
                if subresource == Some(Subresource::Scale) {
                    let view = scale::view(target.kind, current).into_value();
                    let type_ = match patch.type_ {
                        // A Scale has no lists, so both mean the same.
                        PatchType::Strategic => PatchType::Merge,
                        other => other,
                    };
                    let patched =
                        Patch { type_, document: patch.document.clone() }.apply(target.kind, &view)?;
                    let patched =
                        Object::new(patched).map_err(|e| StatusError::bad_request(e.to_string()))?;
                    return scale::apply(target.kind, &patched, current);
                }
                let patched = patch.apply(target.kind, &current.to_value())?;
                warnings = options.check(target.kind, &patched)?;
                let mut patched = meta::intake(target.kind, patched)?;
                if target.kind.namespaced && patched.namespace().is_empty() {
                    patched.set_meta_str("namespace", current.namespace());
                }
                Ok(patched)
            })
            .await?;
        Ok(Written { warnings, ..written })
    }
}
