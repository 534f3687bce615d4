//! `kubectl diff`: what an apply would change, shown by diff(1).

use clap::Args;
use serde_json::Value;

use crate::apply;
use crate::error::{Error, Result};
use crate::manifest::FileArgs;
use crate::output::printer::without_managed_fields;
use crate::output::yaml;
use crate::resource::targets::{self, Target};
use crate::session::{Call, Session};

/// Diff the live version against a would-be applied version
#[derive(Args, Debug)]
pub struct Diff {
    #[command(flatten)]
    pub files: FileArgs,
    /// Run the apply in the server instead of the client
    #[arg(long)]
    pub server_side: bool,
    /// Take ownership of fields that others manage (with --server-side)
    #[arg(long)]
    pub force_conflicts: bool,
}

impl Diff {
    /// Runs the command; exits with 1 if there are differences and with more if it fails.
    pub async fn run(self, session: &Session) -> Result<()> {
        let failed = |e: Error| {
            crate::output::warn(e.report());
            Error::Exit(2)
        };
        let (targets, errors) = targets::resolve(session, &[], &self.files, false).await.map_err(failed)?;
        Error::from_list(errors).map_err(failed)?;
        let folder =
            tempfile::Builder::new().prefix("kubectl-diff-").tempdir().map_err(|e| failed(e.into()))?;
        for target in &targets {
            let (live, merged) = self.states(session, target).await.map_err(failed)?;
            for (side, object) in [("LIVE", live), ("MERGED", merged)] {
                let place = folder.path().join(side);
                std::fs::create_dir_all(&place).map_err(|e| failed(e.into()))?;
                if object.is_null() {
                    continue;
                }
                let resource = &target.resource;
                let name = format!(
                    "{}.{}.{}.{}.{}",
                    resource.group,
                    resource.version,
                    resource.kind,
                    target.namespace,
                    target.name.as_deref().unwrap_or_default()
                );
                let name = name.trim_start_matches('.').to_owned();
                std::fs::write(place.join(name), shown(object)).map_err(|e| failed(e.into()))?;
            }
        }
        let program = std::env::var("KUBECTL_EXTERNAL_DIFF").ok().filter(|p| !p.trim().is_empty());
        let program = program.unwrap_or_else(|| "diff -u -N".into());
        let mut words = program.split_whitespace();
        let status = std::process::Command::new(words.next().unwrap_or("diff"))
            .args(words)
            .args([folder.path().join("LIVE"), folder.path().join("MERGED")])
            .status()
            .map_err(|e| failed(Error::message(format!("failed to run {program:?}: {e}"))))?;
        match status.code() {
            Some(0) => Ok(()),
            code => Err(Error::Exit(code.unwrap_or(2))),
        }
    }

    /// What is there (null if nothing is), and what an apply would make of it.
    async fn states(&self, session: &Session, target: &Target) -> Result<(Value, Value)> {
        let Some(document) = &target.document else { return Ok((Value::Null, Value::Null)) };
        let live = match session.json(&Call::get(target.path())).await {
            Ok(live) => live,
            Err(e) if e.is_not_found() => Value::Null,
            Err(e) => return Err(e),
        };
        let call = if self.server_side {
            Call::patch(
                target.path(),
                "application/apply-patch+yaml",
                document.value.to_string().into_bytes(),
            )
            .query("fieldManager", "kubectl")
            .query("force", self.force_conflicts.to_string())
        } else if live.is_null() {
            let modified = apply::with_last_applied(&document.value);
            Call::post(target.resource.path(&target.namespace), &modified)
        } else {
            let modified = apply::with_last_applied(&document.value);
            let patch = apply::plan(&target.resource, apply::last_applied(&live).as_ref(), &modified, &live);
            Call::patch(target.path(), patch.content_type, patch.body.to_string().into_bytes())
        };
        let merged = session.json(&call.query("dryRun", "All")).await?;
        Ok((live, merged))
    }
}

/// Without what differs for no reason; the data of Secrets is masked.
fn shown(mut object: Value) -> String {
    without_managed_fields(&mut object);
    let mut bare = apply::without_last_applied(&object);
    if bare["kind"] == "Secret" {
        for field in ["data", "stringData"] {
            for (_, value) in bare[field].as_object_mut().into_iter().flatten() {
                let digest = <sha2::Sha256 as sha2::Digest>::digest(value.to_string().as_bytes());
                *value = Value::from(format!("*** ({:02x}{:02x})", digest[0], digest[1]));
            }
        }
    }
    yaml::document(&bare)
}
