//! `kubectl patch`.

use clap::Args;
use serde_json::Value;

use super::change::{ChangeArgs, DryRun, send_patch};
use crate::apply::{JSON_PATCH, MERGE, Patch as Body, STRATEGIC};
use crate::error::{Error, Result};
use crate::manifest::{FileArgs, parse_yaml};
use crate::resource::targets::{self, Target};
use crate::session::{Call, Session};

/// Update fields of a resource
#[derive(Args, Debug)]
pub struct Patch {
    /// TYPE NAME or TYPE/NAME
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// The patch, in JSON or YAML
    #[arg(long, short = 'p', allow_hyphen_values = true)]
    pub patch: Option<String>,
    /// A file with the patch
    #[arg(long)]
    pub patch_file: Option<String>,
    /// The type of patch: json, merge or strategic
    #[arg(long = "type", default_value = "strategic")]
    pub kind: String,
    /// Patch a subresource such as status or scale
    #[arg(long, default_value = "", hide_default_value = true)]
    pub subresource: String,
}

impl Patch {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        let content_type = match self.kind.as_str() {
            "json" => JSON_PATCH,
            "merge" => MERGE,
            "strategic" => STRATEGIC,
            other => {
                return Err(Error::message(format!(
                    "--type must be one of [json merge strategic], not {other:?}"
                )));
            }
        };
        let text = match (&self.patch, &self.patch_file) {
            (Some(text), None) => text.clone(),
            (None, Some(file)) => std::fs::read_to_string(file)
                .map_err(|e| Error::message(format!("unable to read patch file: {e}")))?,
            _ => return Err(Error::message("must specify exactly one of --patch or --patch-file")),
        };
        let body =
            parse_yaml(&text).map_err(|e| Error::message(format!("unable to parse {text:?}: yaml: {e}")))?;
        let patch = Body { content_type, body };
        let mut format = self.change.format()?;
        let (targets, mut errors) = targets::resolve(session, &self.args, &self.files, false).await?;
        if targets.is_empty() && errors.is_empty() {
            return Err(Error::message("you must provide one or more resources by argument or filename"));
        }
        for target in targets {
            match self.patch(session, &target, &patch).await {
                Ok((object, changed)) => {
                    self.change.print(
                        &mut format,
                        &object,
                        if changed { "patched" } else { "patched (no change)" },
                    )?;
                }
                Err(e) => errors.push(e),
            }
        }
        Error::from_list(errors)
    }

    async fn patch(&self, session: &Session, target: &Target, patch: &Body) -> Result<(Value, bool)> {
        if target.name.is_none() {
            return Err(Error::message("resource(s) were provided, but no name was specified"));
        }
        let mut path = target.path();
        let before = session.json(&Call::get(path.clone())).await?;
        if !self.subresource.is_empty() {
            path = format!("{path}/{}", self.subresource);
        }
        let expected = match self.change.dry_run {
            DryRun::Client => locally(patch, target, &before)?,
            _ => Value::Null,
        };
        let after = send_patch(session, &self.change, path, patch, "kubectl-patch", expected).await?;
        // The scale subresource answers a Scale, whose version is the object's too.
        let version = |o: &Value| o["metadata"]["resourceVersion"].clone();
        let changed = match self.change.dry_run {
            DryRun::None => version(&before) != version(&after),
            _ => before != after,
        };
        let shown = if after["kind"] == before["kind"] { after } else { before };
        Ok((shown, changed))
    }
}

/// What the patch makes of an object, without the server.
fn locally(patch: &Body, target: &Target, before: &Value) -> Result<Value> {
    let done = match patch.content_type {
        JSON_PATCH => api::patch::json_patch(before, &patch.body),
        MERGE => api::patch::merge_patch(before, &patch.body),
        _ => match api::Kind::find(&target.resource.group, &target.resource.kind) {
            Some(kind) => api::patch::strategic_merge(kind, before, &patch.body),
            None => api::patch::merge_patch(before, &patch.body),
        },
    };
    done.map_err(Error::message)
}
