//! `kubectl delete`.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::change::DryRun;
use crate::error::{Error, Result};
use crate::manifest::FileArgs;
use crate::output::{println, warn};
use crate::resource::targets::{self, Filter, Target};
use crate::session::{Call, Session};

/// Delete resources by file names, stdin, resources and names, or by resources and label selector
#[derive(Args, Debug)]
pub struct Delete {
    /// TYPE[,TYPE...] [NAME...] or TYPE/NAME...
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// Selector (label query) to filter on
    #[arg(long, short = 'l', default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Selector (field query) to filter on
    #[arg(long, default_value = "", hide_default_value = true)]
    pub field_selector: String,
    /// Delete all resources of the given types
    #[arg(long)]
    pub all: bool,
    /// Across all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// Must be "background", "orphan", or "foreground"
    #[arg(long, default_value = "background", num_args = 0..=1, require_equals = true, default_missing_value = "background")]
    pub cascade: String,
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    pub dry_run: DryRun,
    /// Bypass graceful deletion (with --grace-period=0)
    #[arg(long)]
    pub force: bool,
    /// Period in seconds given to the resource to terminate gracefully; negative means the object's own
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub grace_period: i64,
    /// Resources are signalled for immediate shutdown (same as --grace-period=1)
    #[arg(long)]
    pub now: bool,
    /// Treat "resource not found" as a successful delete
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ignore_not_found: Option<bool>,
    /// Output mode: name
    #[arg(long, short = 'o', default_value = "", hide_default_value = true)]
    pub output: String,
    /// How long to wait before giving up on a delete; zero means to determine it from the object
    #[arg(long, default_value = "0", value_parser = crate::cli::patience)]
    pub timeout: Duration,
    /// Wait for resources to be gone before returning
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub wait: bool,
}

impl Delete {
    /// Runs the command.
    pub async fn run(mut self, session: &Session) -> Result<()> {
        if !matches!(self.output.as_str(), "" | "name") {
            return Err(Error::message(format!(
                "unexpected -o output mode: {}. We only support '-o name'",
                self.output
            )));
        }
        let selecting = !self.selector.is_empty() || !self.field_selector.is_empty();
        if self.args.is_empty() && self.files.is_empty() {
            return Err(Error::message(
                "You must provide one or more resources by argument or filename.\nExample resource specifications include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'\n   '<resource> <name>'\n   '<resource>'",
            ));
        }
        if self.all && selecting {
            return Err(Error::message("cannot set --all and --selector/--field-selector at the same time"));
        }
        let options = self.options()?;
        let (targets, mut errors) =
            targets::resolve(session, &self.args, &self.files, self.all_namespaces).await?;
        let bare = targets.iter().any(|t| t.name.is_none() && t.document.is_none());
        if bare && !self.all && !selecting {
            return Err(Error::message("resource(s) were provided, but no name was specified"));
        }
        // What is gone between a list and its delete is no failure.
        let ignore = self.ignore_not_found.unwrap_or(self.all || selecting);
        let (victims, failed) = self.victims(session, targets).await;
        errors.extend(failed);
        let mut pending = Vec::new();
        let mut any = false;
        for target in victims {
            match self.delete(session, &target, &options).await {
                Ok(answer) => {
                    any = true;
                    self.report(&target, session)?;
                    if self.wait && self.dry_run == DryRun::None {
                        pending.push((target, uid_of(&answer)));
                    }
                }
                Err(e) if e.is_not_found() && ignore => {}
                Err(e) => errors.push(match &target.document {
                    Some(document) => e.when("deleting", &document.source),
                    None => e,
                }),
            }
        }
        if !any && errors.is_empty() && !self.ignore_not_found.unwrap_or(false) {
            println("No resources found")?;
        }
        for (target, uid) in pending {
            if let Err(e) = self.await_gone(session, &target, uid.as_deref()).await {
                errors.push(e);
            }
        }
        Error::from_list(errors)
    }

    fn options(&mut self) -> Result<Value> {
        let mut options = json!({});
        if self.now {
            if self.grace_period != -1 {
                return Err(Error::message("--now and --grace-period cannot be specified together"));
            }
            self.grace_period = 1;
        }
        if self.grace_period == 0 && !self.force {
            // A delete without grace may leave the container running: it is asked for with --force.
            self.grace_period = 1;
        }
        if self.force && self.grace_period < 0 {
            self.grace_period = 0;
        }
        if self.force && self.grace_period == 0 {
            warn(
                "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely.",
            );
        }
        if self.grace_period >= 0 {
            options["gracePeriodSeconds"] = json!(self.grace_period);
        }
        options["propagationPolicy"] = json!(match self.cascade.as_str() {
            "background" | "true" => "Background",
            "foreground" => "Foreground",
            "orphan" | "false" => "Orphan",
            other => {
                return Err(Error::message(format!(
                    "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
                )));
            }
        });
        if self.dry_run == DryRun::Server {
            options["dryRun"] = json!(["All"]);
        }
        Ok(options)
    }

    /// One target per object.
    async fn victims(&self, session: &Session, targets: Vec<Target>) -> (Vec<Target>, Vec<Error>) {
        let filter = Filter { labels: self.selector.clone(), fields: self.field_selector.clone() };
        let (mut victims, mut errors) = (Vec::new(), Vec::new());
        for target in targets {
            match (&target.name, &target.document) {
                (Some(_), _) => victims.push(target),
                (None, Some(document)) => {
                    let message =
                        format!("error when deleting {:?}: resource name may not be empty", document.source);
                    errors.push(Error::message(message));
                }
                (None, None) => match targets::list(session, &target, &filter).await {
                    Ok(list) => {
                        victims.extend(targets::items(&list).iter().map(|i| targets::narrowed(&target, i)))
                    }
                    Err(e) => errors.push(e),
                },
            }
        }
        (victims, errors)
    }

    async fn delete(&self, session: &Session, target: &Target, options: &Value) -> Result<Value> {
        if self.dry_run == DryRun::Client {
            return session.json(&Call::get(target.path())).await;
        }
        session.json(&self.dry_run.query(Call::delete(target.path(), options))).await
    }

    fn report(&self, target: &Target, session: &Session) -> Result<()> {
        let _ = session;
        let name = target.name.as_deref().unwrap_or_default();
        if self.output == "name" {
            return println(target.resource.slashed(name));
        }
        let verb = match (self.force && self.grace_period == 0, self.dry_run) {
            (true, _) => "force deleted",
            (false, _) => "deleted",
        };
        println(format!("{} {name:?} {verb}{}", target.resource.singular_qualified(), self.dry_run.suffix()))
    }

    async fn await_gone(&self, session: &Session, target: &Target, uid: Option<&str>) -> Result<()> {
        let limit = (!self.timeout.is_zero()).then_some(self.timeout);
        let gone = crate::watch::until(session, target, limit, |object| {
            let same = object.is_some_and(|o| uid.is_none_or(|uid| o["metadata"]["uid"] == uid));
            Ok((!same).then_some(()))
        });
        match gone.await {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(Error::message(format!(
                "timed out waiting for the condition on {}/{}",
                target.resource.plural,
                target.name.as_deref().unwrap_or_default()
            ))),
            // Whoever may delete need not be allowed to watch.
            Err(e) if matches!(e.reason(), "Forbidden" | "MethodNotAllowed") => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// The uid that a delete's answer names: of the object, or in the details of a Status.
fn uid_of(answer: &Value) -> Option<String> {
    let uid = match answer["kind"] == "Status" {
        true => &answer["details"]["uid"],
        false => &answer["metadata"]["uid"],
    };
    uid.as_str().filter(|u| !u.is_empty()).map(str::to_owned)
}
