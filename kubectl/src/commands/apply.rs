//! `kubectl apply`: brings what is there to what manifests want.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::change::{ChangeArgs, DryRun};
use crate::apply::{self, LAST_APPLIED, MERGE, Patch};
use crate::error::{Error, Result};
use crate::manifest::FileArgs;
use crate::output::printer::{Format, without_managed_fields};
use crate::output::{print, warn};
use crate::resource::targets::{self, Target};
use crate::session::{Call, Session};

const ATTEMPTS: usize = 5;

/// Apply a configuration to a resource by file name or stdin
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Apply {
    #[command(subcommand)]
    pub command: Option<LastApplied>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Run apply in the server instead of the client
    #[arg(long)]
    pub server_side: bool,
    /// Take ownership of fields that others manage (with --server-side)
    #[arg(long)]
    pub force_conflicts: bool,
    /// Delete and create again what cannot be patched
    #[arg(long)]
    pub force: bool,
    /// Take the manifest's values where someone else has changed them
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub overwrite: bool,
    /// Must be one of: strict (or true), warn, ignore (or false)
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub validate: String,
    /// Apply only the manifests that match a label selector
    #[arg(long, short = 'l', default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Delete what is no longer in the manifests (not supported)
    #[arg(long)]
    pub prune: bool,
    /// Wait for objects that --force deletes to be gone
    #[arg(long)]
    pub wait: bool,
}

/// What was applied last.
#[derive(Subcommand, Debug)]
pub enum LastApplied {
    /// View the manifest that was applied last
    ViewLastApplied {
        /// TYPE NAME or TYPE/NAME
        args: Vec<String>,
        /// Output format: json or yaml
        #[arg(long, short = 'o', default_value = "yaml")]
        output: String,
    },
}

/// The `fieldValidation` parameter of the --validate flag.
pub fn field_validation(flag: &str) -> Result<&'static str> {
    match flag {
        "true" | "strict" => Ok("Strict"),
        "warn" => Ok("Warn"),
        "false" | "ignore" => Ok("Ignore"),
        other => Err(Error::message(format!(
            "invalid - validate option {other:?}; must be one of: strict (or true), warn, ignore (or false)"
        ))),
    }
}

/// What became of an object.
struct Applied {
    object: Value,
    what: &'static str,
}

impl Apply {
    /// Runs the command.
    pub async fn run(mut self, session: &Session) -> Result<()> {
        if let Some(LastApplied::ViewLastApplied { args, output }) = self.command.take() {
            return view_last_applied(session, &args, &output).await;
        }
        if self.files.is_empty() {
            return Err(Error::message("must specify one of -f and -k"));
        }
        if self.prune {
            return Err(Error::message(
                "--prune is not supported: delete what is no longer wanted with kubectl delete",
            ));
        }
        if self.server_side && self.change.dry_run == DryRun::Client {
            return Err(Error::message(
                "--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)",
            ));
        }
        if self.force_conflicts && !self.server_side {
            return Err(Error::message("--force-conflicts only works with --server-side"));
        }
        let validation = field_validation(&self.validate)?;
        let mut format = self.change.format()?;
        let (targets, mut errors) = targets::resolve(session, &[], &self.files, false).await?;
        let mut objects = Vec::new();
        let mut any = false;
        for target in targets {
            if !selected(&target, &self.selector)? {
                continue;
            }
            any = true;
            match self.apply(session, &target, validation).await {
                Ok(applied) if format.is_human() => {
                    self.change.print(&mut format, &applied.object, applied.what)?;
                }
                Ok(applied) => objects.push(applied.object),
                Err(e) => errors.push(e),
            }
        }
        print_all(&mut format, objects, self.change.show_managed_fields)?;
        if !any && errors.is_empty() {
            return Err(Error::message("no objects passed to apply"));
        }
        Error::from_list(errors)
    }

    async fn apply(&self, session: &Session, target: &Target, validation: &str) -> Result<Applied> {
        let (Some(document), Some(_)) = (&target.document, &target.name) else {
            let source = target.document.as_ref().map(|d| d.source.clone()).unwrap_or_default();
            return Err(Error::message(format!(
                "from {source}: cannot use generate name with apply, or metadata.name is missing"
            )));
        };
        if self.server_side {
            return self.apply_on_server(session, target, &document.value, validation).await;
        }
        let modified = apply::with_last_applied(&document.value);
        match session.json(&Call::get(target.path())).await {
            Ok(current) => self.update(session, target, &modified, current, validation).await,
            Err(e) if e.is_not_found() => self.create(session, target, &modified, validation).await,
            Err(e) => Err(e.when_retrieving(target)),
        }
    }

    fn manager(&self) -> &'static str {
        if self.server_side { "kubectl" } else { "kubectl-client-side-apply" }
    }

    async fn create(
        &self,
        session: &Session,
        target: &Target,
        modified: &Value,
        validation: &str,
    ) -> Result<Applied> {
        if self.change.dry_run == DryRun::Client {
            return Ok(Applied { object: modified.clone(), what: "created" });
        }
        let call = Call::post(target.resource.path(&target.namespace), modified)
            .query("fieldValidation", validation);
        let source = source_of(target);
        let object = session
            .json(&self.change.dress(call, self.manager()))
            .await
            .map_err(|e| e.when("creating", source))?;
        Ok(Applied { object, what: "created" })
    }

    async fn update(
        &self,
        session: &Session,
        target: &Target,
        modified: &Value,
        mut current: Value,
        validation: &str,
    ) -> Result<Applied> {
        let annotation = &current["metadata"]["annotations"][LAST_APPLIED];
        if !annotation.is_string() && self.change.dry_run != DryRun::Client {
            warn(format!(
                "Warning: resource {}/{} is missing the {LAST_APPLIED} annotation which is required by kubectl apply. kubectl apply should only be used on resources created declaratively by either kubectl create --save-config or kubectl apply. The missing annotation will be patched automatically.",
                target.resource.plural,
                target.name.as_deref().unwrap_or_default()
            ));
        }
        let mut attempt = 1;
        loop {
            let original = apply::last_applied(&current);
            let mut patch = apply::plan(&target.resource, original.as_ref(), modified, &current);
            if patch.is_empty() {
                return Ok(Applied { object: current, what: "unchanged" });
            }
            if self.change.dry_run == DryRun::Client {
                return Ok(Applied { object: current, what: "configured" });
            }
            let mut outcome = self.send(session, target, &patch, validation).await;
            if matches!(&outcome, Err(e) if e.code() == 415) && patch.content_type != MERGE {
                let empty = json!({});
                let body = apply::merge_three_way(original.as_ref().unwrap_or(&empty), modified, &current);
                patch = Patch { content_type: MERGE, body };
                outcome = self.send(session, target, &patch, validation).await;
            }
            match outcome {
                Ok(object) => return Ok(Applied { object, what: "configured" }),
                Err(e) if e.is_conflict() && attempt < ATTEMPTS => {
                    attempt += 1;
                    current = session.json(&Call::get(target.path())).await?;
                }
                Err(e) if self.force && (e.is_conflict() || e.reason() == "Invalid") => {
                    return self.recreate(session, target, modified, validation).await;
                }
                Err(e) => return Err(e.when_patching(target, &patch)),
            }
        }
    }

    async fn send(
        &self,
        session: &Session,
        target: &Target,
        patch: &Patch,
        validation: &str,
    ) -> Result<Value> {
        let body = patch.body.to_string().into_bytes();
        let call = Call::patch(target.path(), patch.content_type, body).query("fieldValidation", validation);
        session.json(&self.change.dress(call, self.manager())).await
    }

    /// Deletes the object, waits until it is gone, and creates it again.
    async fn recreate(
        &self,
        session: &Session,
        target: &Target,
        modified: &Value,
        validation: &str,
    ) -> Result<Applied> {
        let call = Call::delete(target.path(), &json!({"propagationPolicy": "Background"}));
        session.json(&self.change.dry_run.query(call)).await?;
        if self.change.dry_run == DryRun::None {
            crate::watch::until(session, target, None, |o| Ok(o.is_none().then_some(()))).await?;
        }
        let applied = self.create(session, target, modified, validation).await?;
        Ok(Applied { what: "configured", ..applied })
    }

    async fn apply_on_server(
        &self,
        session: &Session,
        target: &Target,
        document: &Value,
        validation: &str,
    ) -> Result<Applied> {
        if document["metadata"]["managedFields"].is_array() {
            return Err(Error::message("metadata.managedFields must be nil"));
        }
        let body = document.to_string().into_bytes();
        let call = Call::patch(target.path(), "application/apply-patch+yaml", body)
            .query("fieldValidation", validation)
            .query("force", self.force_conflicts.to_string());
        let outcome = session.json(&self.change.dress(call, self.manager())).await;
        match outcome {
            Ok(object) => Ok(Applied { object, what: "serverside-applied" }),
            Err(e) if e.is_conflict() => Err(conflict_help(e)),
            Err(e) => Err(e),
        }
    }
}

fn conflict_help(error: Error) -> Error {
    let Error::Status(status) = &error else { return error };
    Error::message(format!(
        "{}\nPlease review the fields above--they currently have other managers. Here\nare the ways you can resolve this warning:\n* If you intend to manage all of these fields, please re-run the apply\n  command with the `--force-conflicts` flag.\n* If you do not intend to manage all of the fields, please edit your\n  manifest to remove references to the fields that should keep their\n  current managers.\n* You may co-own fields by updating your manifest to match the existing\n  value; in this case, you'll become the manager if the other manager(s)\n  stop managing the field (remove it from their configuration).\nSee https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts",
        status.message.as_deref().unwrap_or_default()
    ))
}

/// Whether a manifest's labels match a selector.
pub fn selected(target: &Target, selector: &str) -> Result<bool> {
    if selector.is_empty() {
        return Ok(true);
    }
    let parsed = api::selector::Selector::parse(selector).map_err(Error::message)?;
    let labels = target.document.as_ref().map(|d| &d.value["metadata"]["labels"]);
    let labels = labels.and_then(Value::as_object).into_iter().flatten();
    let labels = labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
    Ok(parsed.matches(&labels))
}

fn source_of(target: &Target) -> &str {
    target.document.as_ref().map(|d| d.source.as_str()).unwrap_or_default()
}

/// Prints objects: one as it is, several as a list.
pub fn print_all(format: &mut Format, mut objects: Vec<Value>, managed_fields: bool) -> Result<()> {
    let mut document = match objects.len() {
        0 => return Ok(()),
        1 => objects.remove(0),
        _ => json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": objects}),
    };
    if !managed_fields {
        without_managed_fields(&mut document);
    }
    print(&format.render(&document)?)
}

impl Error {
    fn when_retrieving(self, target: &Target) -> Self {
        let place = place(target);
        self.wrapped(|text| {
            format!(
                "error when retrieving current configuration of:\n{place}\nfrom server for: {:?}: {text}",
                source_of(target)
            )
        })
    }

    fn when_patching(self, target: &Target, patch: &Patch) -> Self {
        let place = place(target);
        let source = source_of(target);
        let shown = crate::output::json::compact(&patch.body);
        self.wrapped(|text| {
            format!("error when applying patch:\n{shown}\nto:\n{place}\nfor: {source:?}: error when patching {source:?}: {text}")
        })
    }

    fn wrapped(self, wrap: impl FnOnce(&str) -> String) -> Self {
        match self {
            Self::Status(mut status) => {
                status.message = Some(wrap(status.message.as_deref().unwrap_or_default()));
                Self::Status(status)
            }
            Self::Message(text) => Self::Message(wrap(&text)),
            other => other,
        }
    }
}

fn place(target: &Target) -> String {
    let resource = &target.resource;
    let version = resource.api_version();
    format!(
        "Resource: \"{version}, Resource={}\", GroupVersionKind: \"{version}, Kind={}\"\nName: {:?}, Namespace: {:?}",
        resource.plural,
        resource.kind,
        target.name.as_deref().unwrap_or_default(),
        target.namespace
    )
}

async fn view_last_applied(session: &Session, args: &[String], output: &str) -> Result<()> {
    let (targets, errors) = targets::resolve(session, args, &FileArgs::default(), false).await?;
    Error::from_list(errors)?;
    let (found, errors) = targets::fetch(session, &targets, &targets::Filter::default()).await;
    let mut format = Format::parse(output, Default::default())?;
    for found in found {
        let name = found.target.name.as_deref().unwrap_or_default();
        let Some(last) = apply::last_applied(&found.object) else {
            return Err(Error::message(format!(
                "no last-applied-configuration annotation found on resource: {name}"
            )));
        };
        print(&format.render(&last)?)?;
    }
    Error::from_list(errors)
}
