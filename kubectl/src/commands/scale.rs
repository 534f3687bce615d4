//! `kubectl scale`.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::change::{ChangeArgs, DryRun};
use crate::apply::MERGE;
use crate::error::{Error, Result};
use crate::manifest::FileArgs;
use crate::resource::targets::{self, Filter, Found};
use crate::session::{Call, Session};

/// Set a new size for a deployment, replica set, or replication controller
#[derive(Args, Debug)]
pub struct Scale {
    /// TYPE NAME or TYPE/NAME...
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// The new desired number of replicas
    #[arg(long, allow_negative_numbers = true)]
    pub replicas: Option<i64>,
    /// Precondition for current size
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub current_replicas: i64,
    /// Precondition for resource version
    #[arg(long, default_value = "", hide_default_value = true)]
    pub resource_version: String,
    /// Selector (label query) to filter on
    #[arg(long, short = 'l', default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Scale all resources of the given type
    #[arg(long)]
    pub all: bool,
    /// How long to wait for the scaling to be done; zero means not to wait
    #[arg(long, default_value = "0", value_parser = crate::cli::timeout)]
    pub timeout: Duration,
}

impl Scale {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        let replicas = match self.replicas {
            Some(n) if n >= 0 => n,
            Some(_) | None => {
                return Err(Error::message(
                    "The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0",
                ));
            }
        };
        let mut format = self.change.format()?;
        let (targets, mut errors) = targets::resolve(session, &self.args, &self.files, false).await?;
        if targets.is_empty() && errors.is_empty() {
            return Err(Error::message("you must provide one or more resources by argument or filename"));
        }
        let bare = targets.iter().any(|t| t.name.is_none());
        if bare && !self.all && self.selector.is_empty() {
            return Err(Error::message("resource(s) were provided, but no name was specified"));
        }
        let filter = Filter { labels: self.selector.clone(), ..Filter::default() };
        let (found, failed) = targets::fetch(session, &targets, &filter).await;
        errors.extend(failed);
        if found.is_empty() {
            let why: Vec<String> = errors
                .iter()
                .map(|e| match e {
                    Error::Status(status) => status.message.clone().unwrap_or_default(),
                    other => other.report(),
                })
                .collect();
            return Err(Error::message(format!("no objects passed to scale {}", why.join(", ")).trim_end()));
        }
        for one in found {
            match self.scale(session, &one, replicas).await {
                Ok(()) => self.change.print(&mut format, &one.object, "scaled")?,
                Err(e) => errors.push(e),
            }
        }
        Error::from_list(errors)
    }

    async fn scale(&self, session: &Session, found: &Found, replicas: i64) -> Result<()> {
        let target = &found.target;
        let name = target.name.as_deref().unwrap_or_default();
        let path = format!("{}/scale", target.path());
        let guarded = self.current_replicas >= 0 || !self.resource_version.is_empty();
        let mut body = json!({"spec": {"replicas": replicas}});
        if guarded {
            let now = session.json(&Call::get(path.clone())).await?;
            self.check(&now)?;
            body["metadata"] = json!({"resourceVersion": now["metadata"]["resourceVersion"]});
        }
        if self.change.dry_run == DryRun::Client {
            return Ok(());
        }
        let call = Call::patch(path, MERGE, body.to_string().into_bytes());
        session.json(&self.change.dress(call, "kubectl-scale")).await?;
        if self.timeout.is_zero() || self.change.dry_run != DryRun::None {
            return Ok(());
        }
        let done = crate::watch::until(session, target, Some(self.timeout), |object| {
            let object = object
                .ok_or_else(|| Error::message(format!("{} was deleted", target.resource.slashed(name))))?;
            let status = &object["status"];
            let seen = status["observedGeneration"].as_i64() >= object["metadata"]["generation"].as_i64();
            Ok((seen && status["replicas"].as_i64().unwrap_or(0) == replicas).then_some(()))
        });
        match done.await? {
            Some(()) => Ok(()),
            None => Err(Error::message("timed out waiting for the condition")),
        }
    }

    fn check(&self, now: &Value) -> Result<()> {
        let have = now["spec"]["replicas"].as_i64().unwrap_or(0);
        if self.current_replicas >= 0 && have != self.current_replicas {
            return Err(Error::message(format!(
                "Expected replicas to be {}, was {have}",
                self.current_replicas
            )));
        }
        let version = now["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !self.resource_version.is_empty() && version != self.resource_version {
            return Err(Error::message(format!(
                "Expected resource version to be {}, was {version}",
                self.resource_version
            )));
        }
        Ok(())
    }
}
