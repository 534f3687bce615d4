//! `kubectl exec`.

use clap::Args;
use kube::api::Api;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::pods;
use crate::session::Session;
use crate::streams::{self, Wanted};

/// Execute a command in a container
#[derive(Args, Debug)]
pub struct Exec {
    /// POD or TYPE/NAME
    pub target: String,
    /// Words before `--`, which are refused
    #[arg(hide = true)]
    pub stray: Vec<String>,
    /// COMMAND [args...]
    #[arg(last = true)]
    pub command: Vec<String>,
    /// Container name
    #[arg(long, short = 'c')]
    pub container: Option<String>,
    /// Pass stdin to the container
    #[arg(long, short = 'i')]
    pub stdin: bool,
    /// Stdin is a TTY
    #[arg(long, short = 't')]
    pub tty: bool,
    /// Only print output from the remote session
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

impl Exec {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        if !self.stray.is_empty() {
            return Err(Error::message(
                "exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead",
            ));
        }
        if self.command.is_empty() {
            return Err(Error::message("you must specify at least one command for the container"));
        }
        let wanted = Wanted { stdin: self.stdin, tty: self.tty, quiet: self.quiet }.settled();
        let pod = first_pod(session, &self.target).await?;
        let container = pods::container(&pod, self.container.as_deref(), self.quiet)?;
        let params = wanted.params(container);
        let process = api(session, &pod)
            .await?
            .exec(name(&pod), self.command, &params)
            .await
            .map_err(streams::refused)?;
        streams::connect(process, wanted).await
    }
}

/// A pod's name.
pub fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

/// The pod that a target means; one that has ended takes no commands.
pub async fn first_pod(session: &Session, text: &str) -> Result<Value> {
    let target = pods::target(session, &[text.to_owned()]).await?;
    let mut found = pods::pods_of(session, &target).await?;
    let pod = found.swap_remove(0);
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(Error::message(format!(
            "cannot exec into a container in a completed pod; current phase is {phase}"
        )));
    }
    Ok(pod)
}

/// The streams of a pod's namespace.
pub async fn api(session: &Session, pod: &Value) -> Result<Api<k8s_openapi::api::core::v1::Pod>> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default");
    Ok(Api::namespaced(session.client().await?.clone(), namespace))
}
