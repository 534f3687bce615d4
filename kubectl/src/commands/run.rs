//! `kubectl run`: one pod.

use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::change::DryRun;
use super::create::{How, Words, submit};
use crate::error::{Error, Result};
use crate::resource::targets::Target;
use crate::session::{Call, Session};

/// Create and run a particular image in a pod
#[derive(Args, Debug)]
pub struct Run {
    /// The pod's name
    pub name: String,
    /// The image for the container to run
    #[arg(long)]
    pub image: String,
    /// The image pull policy for the container
    #[arg(long)]
    pub image_pull_policy: Option<String>,
    /// Environment variables to set in the container
    #[arg(long)]
    pub env: Vec<String>,
    /// The port that this container exposes
    #[arg(long)]
    pub port: Option<u16>,
    /// Labels to apply to the pod
    #[arg(long, short = 'l')]
    pub labels: Option<String>,
    /// The restart policy: Always, OnFailure, Never
    #[arg(long, default_value = "Always")]
    pub restart: String,
    /// Use the extra arguments as the command rather than its arguments
    #[arg(long)]
    pub command: bool,
    /// Keep stdin open on the container
    #[arg(long, short = 'i')]
    pub stdin: bool,
    /// Allocate a TTY for the container
    #[arg(long, short = 't')]
    pub tty: bool,
    /// Wait for the pod to start running, and then attach to it
    #[arg(long)]
    pub attach: bool,
    /// Delete the pod after it exits
    #[arg(long)]
    pub rm: bool,
    /// Suppress prompt messages
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// An inline override for the generated object, in JSON
    #[arg(long)]
    pub overrides: Option<String>,
    /// How long to wait for the pod to run
    #[arg(long, default_value = "1m0s", value_parser = crate::cli::timeout)]
    pub pod_running_timeout: Duration,
    /// Arguments for the container
    #[arg(trailing_var_arg = true)]
    pub args: Vec<String>,
    #[command(flatten)]
    pub how: How,
}

impl Run {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        let attach = self.attach || self.stdin;
        if self.rm && !attach {
            return Err(Error::message("--rm should only be used for attached containers"));
        }
        let pod = self.object()?;
        if !attach || self.how.change.dry_run != DryRun::None {
            return submit(session, &self.how, pod, Words { failed: "", done: "created" }).await;
        }
        let target = Target {
            resource: session.resource("pods").await?,
            name: Some(self.name.clone()),
            namespace: session.namespace().await?.to_owned(),
            document: None,
        };
        session
            .json(
                &Call::post(target.resource.path(&target.namespace), &pod)
                    .query("fieldManager", "kubectl-run"),
            )
            .await?;
        let outcome = self.follow(session, &target).await;
        if self.rm {
            session.json(&Call::delete(target.path(), &json!({"propagationPolicy": "Background"}))).await?;
            if !self.quiet {
                crate::output::println(format!("pod {:?} deleted", self.name))?;
            }
        }
        outcome
    }

    /// Attaches once the pod runs; the log tells of one that has ended already.
    async fn follow(&self, session: &Session, target: &Target) -> Result<()> {
        let phase = crate::watch::until(session, target, Some(self.pod_running_timeout), |pod| {
            let pod = pod.ok_or_else(|| Error::message("the pod was deleted"))?;
            let phase = pod["status"]["phase"].as_str().unwrap_or_default();
            Ok(matches!(phase, "Running" | "Succeeded" | "Failed").then(|| phase.to_owned()))
        });
        match phase.await?.as_deref() {
            None => return Err(Error::message("timed out waiting for the condition")),
            Some("Running") => {
                let attach = super::attach::Attach {
                    target: self.name.clone(),
                    container: None,
                    stdin: self.stdin,
                    tty: self.tty,
                    quiet: self.quiet,
                };
                attach.run(session).await?;
            }
            Some(_) => {
                let log = session.bytes(&Call::get(format!("{}/log", target.path()))).await?;
                crate::output::print(&String::from_utf8_lossy(&log))?;
            }
        }
        if self.restart == "Always" {
            return Ok(());
        }
        self.exit_code(session, target).await
    }

    async fn exit_code(&self, session: &Session, target: &Target) -> Result<()> {
        let code = crate::watch::until(session, target, Some(self.pod_running_timeout), |pod| {
            let Some(pod) = pod else { return Ok(Some(0)) };
            let status = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
            let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            Ok(ended.then(|| status["exitCode"].as_i64().unwrap_or(0)))
        });
        match code.await?.unwrap_or(0) {
            0 => Ok(()),
            code => Err(Error::Exit(i32::try_from(code).unwrap_or(1))),
        }
    }

    fn object(&self) -> Result<Value> {
        if !matches!(self.restart.as_str(), "Always" | "OnFailure" | "Never") {
            return Err(Error::message(format!("invalid restart policy: {}", self.restart)));
        }
        let mut container = json!({"name": self.name, "image": self.image, "resources": {}});
        if !self.args.is_empty() {
            container[if self.command { "command" } else { "args" }] = json!(self.args);
        }
        if let Some(policy) = &self.image_pull_policy {
            container["imagePullPolicy"] = json!(policy);
        }
        if let Some(port) = self.port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        if !self.env.is_empty() {
            let env: Result<Vec<Value>> = self
                .env
                .iter()
                .map(|e| super::change::pair(e).map(|(k, v)| json!({"name": k, "value": v})))
                .collect();
            container["env"] = json!(env?);
        }
        if self.stdin {
            container["stdin"] = json!(true);
            container["stdinOnce"] = json!(true);
        }
        if self.tty {
            container["tty"] = json!(true);
        }
        let labels: Map<String, Value> = match &self.labels {
            Some(text) => text
                .split(',')
                .map(|p| super::change::pair(p).map(|(k, v)| (k, json!(v))))
                .collect::<Result<_>>()?,
            None => [("run".to_owned(), json!(self.name))].into_iter().collect(),
        };
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "labels": labels},
            "spec": {"containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": self.restart},
            "status": {},
        });
        match &self.overrides {
            None => Ok(pod),
            Some(text) => {
                let overrides = crate::manifest::parse_yaml(text)
                    .map_err(|e| Error::message(format!("invalid --overrides: {e}")))?;
                api::patch::merge_patch(&pod, &overrides).map_err(Error::message)
            }
        }
    }
}
