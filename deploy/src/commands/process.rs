//! `coxswain process`: stops, starts and restarts a single process.

use super::Target;
use crate::components::find;
use crate::supervise::Request;

/// What to do with a process.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum ProcessCommand {
    /// Ask a process to end, and leave it so.
    Stop {
        /// The process, such as apiserver or kubelet@node-2.
        #[arg(value_name = "PROCESS")]
        process: String,
    },
    /// Start a process that was stopped.
    Start {
        /// The process.
        #[arg(value_name = "PROCESS")]
        process: String,
    },
    /// Stop a process and start it again.
    Restart {
        /// The process.
        #[arg(value_name = "PROCESS")]
        process: String,
    },
}

/// Does it.
///
/// # Errors
/// When the process is unknown or the supervisor does not answer.
pub async fn run(target: &Target, command: &ProcessCommand) -> anyhow::Result<()> {
    let mut supervisor = target.supervisor().await?;
    let state = supervisor.ask(&Request::Status).await?;
    let ids: Vec<_> = state.units.into_keys().collect();
    let id = |name: &str| find(&ids, name).map(str::to_owned).map_err(anyhow::Error::msg);
    let request = match command {
        ProcessCommand::Stop { process } => Request::Stop { target: id(process)? },
        ProcessCommand::Start { process } => Request::Start { target: id(process)? },
        ProcessCommand::Restart { process } => Request::Restart { target: id(process)? },
    };
    supervisor.ask(&request).await?;
    Ok(())
}
