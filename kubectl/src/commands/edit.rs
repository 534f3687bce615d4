//! `kubectl edit`: an object in the user's editor.

use std::io::Write;

use clap::Args;
use serde_json::Value;

use super::change::{ChangeArgs, send_patch};
use crate::apply::two_way;
use crate::error::{Error, Result};
use crate::manifest::{FileArgs, parse_yaml};
use crate::output::printer::without_managed_fields;
use crate::output::{println, warn, yaml};
use crate::resource::targets::{self, Filter, Found};
use crate::session::Session;

const HINT: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,\n# and an empty file will abort the edit. If an error occurs while saving this file will be\n# reopened with the relevant failures.\n#\n";

/// Edit a resource on the server
#[derive(Args, Debug)]
pub struct Edit {
    /// TYPE NAME or TYPE/NAME
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Edit a subresource such as status
    #[arg(long, default_value = "", hide_default_value = true)]
    pub subresource: String,
}

impl Edit {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        let (targets, errors) = targets::resolve(session, &self.args, &self.files, false).await?;
        Error::from_list(errors)?;
        if targets.is_empty() {
            return Err(Error::message("must provide one or more resources by argument or filename"));
        }
        let (found, mut errors) = targets::fetch(session, &targets, &Filter::default()).await;
        for one in found {
            if let Err(e) = self.edit(session, &one).await {
                errors.push(e);
            }
        }
        Error::from_list(errors)
    }

    /// Opens the editor until what it leaves is accepted, unchanged or empty.
    async fn edit(&self, session: &Session, found: &Found) -> Result<()> {
        let mut shown = found.object.clone();
        without_managed_fields(&mut shown);
        let mut text = format!("{HINT}{}", yaml::document(&shown));
        loop {
            let edited = in_editor(&text)?;
            if edited == text || bare(&edited) == bare(&text) && !text.contains("# error:") {
                return self.cancelled("no changes made");
            }
            if bare(&edited).trim().is_empty() {
                return self.cancelled("saved file was empty");
            }
            let failure = match parse_yaml(&edited) {
                Ok(after) => match self.save(session, found, &shown, &after).await {
                    Ok(()) => return Ok(()),
                    Err(e) => e.report(),
                },
                Err(e) => format!("yaml: {e}"),
            };
            if edited == text {
                return Err(Error::Plain(failure));
            }
            warn(format!("error: {failure}"));
            let marked: String = failure.lines().map(|l| format!("# error: {l}\n")).collect();
            text = format!("{HINT}{marked}#\n{}", bare(&edited));
        }
    }

    fn cancelled(&self, why: &str) -> Result<()> {
        println(format!("Edit cancelled, {why}."))
    }

    async fn save(&self, session: &Session, found: &Found, before: &Value, after: &Value) -> Result<()> {
        for field in ["/apiVersion", "/kind", "/metadata/name"] {
            if before.pointer(field) != after.pointer(field) {
                return Err(Error::message("At least one of apiVersion, kind and name was changed"));
            }
        }
        let patch = two_way(&found.target.resource, before, after);
        if patch.is_empty() {
            return self.cancelled("no changes made");
        }
        let mut path = found.target.path();
        if !self.subresource.is_empty() {
            path = format!("{path}/{}", self.subresource);
        }
        let object = send_patch(session, &self.change, path, &patch, "kubectl-edit", after.clone()).await?;
        self.change.print(&mut self.change.format()?, &object, "edited")
    }
}

fn bare(text: &str) -> String {
    text.lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l}\n")).collect()
}

/// What the user's editor makes of a text.
fn in_editor(text: &str) -> Result<String> {
    let editor =
        ["KUBE_EDITOR", "EDITOR"].iter().find_map(|v| std::env::var(v).ok().filter(|e| !e.trim().is_empty()));
    let editor = editor.unwrap_or_else(|| "vi".into());
    let mut file = tempfile::Builder::new().prefix("kubectl-edit-").suffix(".yaml").tempfile()?;
    file.write_all(text.as_bytes())?;
    let path = file.path().to_owned();
    // The variable may hold arguments, as in `code --wait`.
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(&path)
        .status()
        .map_err(|e| Error::message(format!("unable to launch the editor {editor:?}: {e}")))?;
    if !status.success() {
        return Err(Error::message(format!("there was a problem with the editor {editor:?}")));
    }
    std::fs::read_to_string(&path).map_err(|e| Error::message(format!("read the edited file: {e}")))
}
