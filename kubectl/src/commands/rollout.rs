//! `kubectl rollout`: status, history, undo, restart, pause, resume.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::change::{ChangeArgs, send_patch};
use crate::apply::{Patch, two_way};
use crate::error::{Error, Result};
use crate::manifest::FileArgs;
use crate::output::print;
use crate::resource::targets::{self, Filter, Found, Target};
use crate::session::Session;

mod history;
mod status;
mod undo;

/// Manage the rollout of one or many resources
#[derive(Args, Debug)]
pub struct Rollout {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand, Debug)]
enum Sub {
    /// Show the status of the rollout
    Status(Status),
    /// View rollout history
    History(History),
    /// Undo a previous rollout
    Undo(Undo),
    /// Restart a resource
    Restart(Simple),
    /// Mark the provided resource as paused
    Pause(Simple),
    /// Resume a paused resource
    Resume(Simple),
}

#[derive(Args, Debug)]
struct Which {
    /// TYPE NAME or TYPE/NAME
    args: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// Selector (label query) to filter on
    #[arg(long, short = 'l', default_value = "", hide_default_value = true)]
    selector: String,
}

#[derive(Args, Debug)]
struct Status {
    #[command(flatten)]
    which: Which,
    /// Watch the status of the rollout until it's done
    #[arg(long, short = 'w', default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    watch: bool,
    /// Pin to a specific revision for showing its status; 0 means the latest
    #[arg(long, default_value_t = 0)]
    revision: i64,
    /// How long to wait before ending the watch; zero means never
    #[arg(long, default_value = "0", value_parser = crate::cli::timeout)]
    timeout: Duration,
}

#[derive(Args, Debug)]
struct History {
    #[command(flatten)]
    which: Which,
    /// See the details, including the pod template, of the revision
    #[arg(long, default_value_t = 0)]
    revision: i64,
    /// Output format: json, yaml or name
    #[arg(long, short = 'o', default_value = "", hide_default_value = true)]
    output: String,
}

#[derive(Args, Debug)]
struct Undo {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    change: ChangeArgs,
    /// The revision to roll back to; 0 means the one before
    #[arg(long, default_value_t = 0)]
    to_revision: i64,
}

#[derive(Args, Debug)]
struct Simple {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    change: ChangeArgs,
}

impl Rollout {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        match self.command {
            Sub::Status(c) => c.run(session).await,
            Sub::History(c) => c.run(session).await,
            Sub::Undo(c) => c.run(session).await,
            Sub::Restart(c) => c.run(session, "restarted", restart).await,
            Sub::Pause(c) => c.run(session, "paused", |o, _| set_paused(o, true)).await,
            Sub::Resume(c) => c.run(session, "resumed", |o, _| set_paused(o, false)).await,
        }
    }
}

impl Which {
    async fn targets(&self, session: &Session) -> Result<Vec<Target>> {
        if self.args.is_empty() && self.files.is_empty() {
            return Err(Error::message("required resource not specified"));
        }
        let (targets, errors) = targets::resolve(session, &self.args, &self.files, false).await?;
        Error::from_list(errors)?;
        Ok(targets)
    }

    async fn found(&self, session: &Session) -> Result<(Vec<Found>, Vec<Error>)> {
        let targets = self.targets(session).await?;
        let filter = Filter { labels: self.selector.clone(), ..Filter::default() };
        Ok(targets::fetch(session, &targets, &filter).await)
    }
}

impl Status {
    async fn run(self, session: &Session) -> Result<()> {
        let (found, mut errors) = self.which.found(session).await?;
        if found.is_empty() && errors.is_empty() {
            return Err(Error::message("no resources found"));
        }
        for one in found {
            if let Err(e) = self.follow(session, &one.target).await {
                errors.push(e);
            }
        }
        Error::from_list(errors)
    }

    async fn follow(&self, session: &Session, target: &Target) -> Result<()> {
        let kind = status::Kind::of(&target.resource)?;
        let limit = (!self.timeout.is_zero()).then_some(self.timeout);
        let outcome = crate::watch::until(session, target, limit, |object| {
            let object = object.ok_or_else(|| Error::message("object has been deleted"))?;
            let status = status::status(kind, object, self.revision).map_err(Error::message)?;
            print(&status.message)?;
            Ok((status.done || !self.watch).then_some(()))
        });
        match outcome.await? {
            Some(()) => Ok(()),
            None => Err(Error::message("timed out waiting for the condition")),
        }
    }
}

impl Simple {
    /// `mutate` changes the object or says why it cannot.
    async fn run(
        self,
        session: &Session,
        what: &str,
        mutate: impl Fn(&Found, jiff::Timestamp) -> Result<Value>,
    ) -> Result<()> {
        let mut format = self.change.format()?;
        let (found, mut errors) = self.which.found(session).await?;
        for one in found {
            let outcome = async {
                let after = mutate(&one, session.clock.now())?;
                let patch: Patch = two_way(&one.target.resource, &one.object, &after);
                send_patch(session, &self.change, one.target.path(), &patch, "kubectl-rollout", after).await
            };
            match outcome.await {
                Ok(object) => self.change.print(&mut format, &object, what)?,
                Err(e) => errors.push(e),
            }
        }
        Error::from_list(errors)
    }
}

fn qualified(found: &Found) -> String {
    format!("{} {:?}", found.target.resource.qualified(), found.target.name.as_deref().unwrap_or_default())
}

fn restart(found: &Found, now: jiff::Timestamp) -> Result<Value> {
    let kind = &found.target.resource.kind;
    if !matches!(kind.as_str(), "Deployment" | "DaemonSet" | "StatefulSet") {
        return Err(Error::message(format!("{} restarting is not supported", qualified(found))));
    }
    if found.object["spec"]["paused"] == true {
        return Err(Error::message(format!(
            "{} can't restart paused deployment (run rollout resume first)",
            qualified(found)
        )));
    }
    let mut after = found.object.clone();
    let stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let annotations = &mut after["spec"]["template"]["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations["kubectl.kubernetes.io/restartedAt"] = json!(stamp);
    Ok(after)
}

fn set_paused(found: &Found, paused: bool) -> Result<Value> {
    if found.target.resource.kind != "Deployment" {
        let verb = if paused { "pausing" } else { "resuming" };
        return Err(Error::message(format!("{} {verb} is not supported", qualified(found))));
    }
    let is = found.object["spec"]["paused"] == true;
    if is == paused {
        let state = if paused { "already paused" } else { "not paused" };
        return Err(Error::message(format!("{} is {state}", qualified(found))));
    }
    let mut after = found.object.clone();
    match after["spec"].as_object_mut() {
        Some(spec) if !paused => _ = spec.remove("paused"),
        Some(spec) => _ = spec.insert("paused".into(), json!(true)),
        None => return Err(Error::message(format!("{} has no spec", qualified(found)))),
    }
    Ok(after)
}

/// Whether two pod templates are the same but for what controllers add to one of them.
pub fn same_template(a: &Value, b: &Value) -> bool {
    let bare = |template: &Value| {
        let mut template = template.clone();
        if let Some(meta) = template["metadata"].as_object_mut() {
            meta.remove("creationTimestamp");
        }
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove("pod-template-hash");
        }
        template
    };
    bare(a) == bare(b)
}
