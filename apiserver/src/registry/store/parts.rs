//! Requests whose document stands for a change of an object, or for a stream to it: webhooks and policies see the
//! document.

use api::status::StatusError;
use api::{Object, Subresource};
use serde_json::Value;

use super::{Registry, Target};
use crate::admission::Operation;
use crate::admission::intent::{Change, Intent, Options};
use crate::auth::User;

impl Registry {
    /// Shows a document to whoever wants to see it. What they made of it; nothing when nobody is configured.
    ///
    /// # Errors
    /// Their refusal.
    pub async fn admit_part(
        &self,
        user: &User,
        target: Target<'_>,
        subresource: Subresource,
        dry_run: bool,
        document: impl FnOnce() -> Value,
    ) -> Result<Option<Value>, StatusError> {
        if self.admission.asks_nobody() {
            return Ok(None);
        }
        use Subresource::{Attach, Exec, PortForward};
        let connects = matches!(subresource, Attach | Exec | PortForward);
        let intent = Intent {
            user,
            kind: target.kind,
            subresource: Some(subresource),
            operation: if connects { Operation::Connect } else { Operation::Create },
            namespace: target.namespace,
            name: target.name,
            options: Options::DryRun(dry_run),
        };
        let Ok(mut object) = Object::new(document()) else {
            return Err(StatusError::bad_request("the request body is not a JSON object"));
        };
        self.admission.mutate_by_others(&intent, target.kind, &mut object, None).await?;
        self.admission.validate_by_others(&intent, Change { new: Some(&object), old: None }).await?;
        Ok(Some(object.into_value()))
    }
}
