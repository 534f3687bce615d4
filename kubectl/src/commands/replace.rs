//! `kubectl replace`.

use clap::Args;
use serde_json::{Value, json};

use super::change::{ChangeArgs, DryRun};
use crate::error::{Error, Result};
use crate::manifest::FileArgs;
use crate::resource::targets::{self, Target};
use crate::session::{Call, Session};

/// Replace a resource by file name or stdin
#[derive(Args, Debug)]
pub struct Replace {
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Delete and create again
    #[arg(long)]
    pub force: bool,
    /// Keep the manifest in the annotation that kubectl apply reads
    #[arg(long)]
    pub save_config: bool,
    /// Must be one of: strict (or true), warn, ignore (or false)
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub validate: String,
}

impl Replace {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        if self.files.is_empty() {
            return Err(Error::message("must specify --filename to replace"));
        }
        let mut format = self.change.format()?;
        let (targets, mut errors) = targets::resolve(session, &[], &self.files, false).await?;
        for target in targets {
            match self.replace(session, &target).await {
                Ok(object) => self.change.print(&mut format, &object, "replaced")?,
                Err(e) => errors.push(e),
            }
        }
        Error::from_list(errors)
    }

    async fn replace(&self, session: &Session, target: &Target) -> Result<Value> {
        let (Some(document), Some(_)) = (&target.document, &target.name) else {
            return Err(Error::message("metadata.name is required to replace an object"));
        };
        let mut object = document.value.clone();
        if self.save_config {
            object = crate::apply::with_last_applied(&object);
        }
        if self.change.dry_run == DryRun::Client {
            return Ok(object);
        }
        let validation = super::apply::field_validation(&self.validate)?;
        let call = if self.force {
            let options = json!({"propagationPolicy": "Background", "gracePeriodSeconds": 0});
            match session.json(&self.change.dry_run.query(Call::delete(target.path(), &options))).await {
                Ok(_) if self.change.dry_run == DryRun::None => {
                    crate::watch::until(session, target, None, |o| Ok(o.is_none().then_some(()))).await?;
                }
                Ok(_) => {}
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e),
            }
            Call::post(target.resource.path(&target.namespace), &object)
        } else {
            Call::put(target.path(), &object)
        };
        let call = self.change.dress(call.query("fieldValidation", validation), "kubectl-replace");
        session.json(&call).await.map_err(|e| e.when("replacing", &document.source))
    }
}
