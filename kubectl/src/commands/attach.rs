//! `kubectl attach`.

use clap::Args;

use super::exec::{api, first_pod, name};
use crate::error::{Error, Result};
use crate::output::warn;
use crate::pods;
use crate::session::Session;
use crate::streams::{self, Wanted};

/// Attach to a process that is already running inside an existing container
#[derive(Args, Debug)]
pub struct Attach {
    /// POD or TYPE/NAME
    pub target: String,
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

impl Attach {
    /// Runs the command.
    pub async fn run(self, session: &Session) -> Result<()> {
        let pod = first_pod(session, &self.target).await?;
        let container = pods::container(&pod, self.container.as_deref(), self.quiet)?;
        let all = pod["spec"]["containers"].as_array().into_iter().flatten();
        let spec = all.into_iter().find(|c| c["name"] == container.as_str());
        if self.tty && spec.is_some_and(|c| c["tty"] != true) {
            warn(format!("error: Unable to use a TTY - container {container} did not allocate one"));
        }
        let tty = self.tty && spec.is_some_and(|c| c["tty"] == true);
        if pod["status"]["phase"] != "Running" {
            return Err(Error::message(format!("pod {} is not running", name(&pod))));
        }
        let wanted = Wanted { stdin: self.stdin, tty, quiet: self.quiet }.settled();
        if wanted.tty && !self.quiet {
            warn("If you don't see a command prompt, try pressing enter.");
        }
        let params = wanted.params(container);
        let process =
            api(session, &pod).await?.attach(name(&pod), &params).await.map_err(streams::refused)?;
        streams::connect(process, wanted).await
    }
}
