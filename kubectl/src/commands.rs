//! The commands: one file per verb, each a struct of arguments with `run(session)`.

pub mod api_resources;
pub mod apply;
pub mod attach;
pub mod auth;
pub mod change;
pub mod cluster_info;
pub mod config;
pub mod cordon;
pub mod create;
pub mod delete;
pub mod describe;
pub mod diff;
pub mod drain;
pub mod edit;
pub mod exec;
pub mod explain;
pub mod expose;
pub mod get;
pub mod label;
pub mod logs;
pub mod patch;
pub mod port_forward;
pub mod proxy;
pub mod replace;
pub mod rollout;
pub mod run;
pub mod scale;
pub mod set;
pub mod taint;
pub mod top;
pub mod version;
pub mod wait;
pub mod why;

use crate::cli::Command;
use crate::error::Result;
use crate::session::Session;

/// Runs a command.
pub async fn run(session: &Session, command: Command) -> Result<()> {
    match command {
        Command::Create(c) => c.run(session).await,
        Command::Expose(c) => c.run(session).await,
        Command::Run(c) => c.run(session).await,
        Command::Set(c) => c.run(session).await,
        Command::Explain(c) => c.run(session).await,
        Command::Get(c) => c.run(session).await,
        Command::Edit(c) => c.run(session).await,
        Command::Delete(c) => c.run(session).await,
        Command::Rollout(c) => c.run(session).await,
        Command::Scale(c) => c.run(session).await,
        Command::ClusterInfo(c) => c.run(session).await,
        Command::Top(c) => c.run(session).await,
        Command::Cordon(c) => c.run(session, true).await,
        Command::Uncordon(c) => c.run(session, false).await,
        Command::Drain(c) => c.run(session).await,
        Command::Taint(c) => c.run(session).await,
        Command::Describe(c) => c.run(session).await,
        Command::Logs(c) => c.run(session).await,
        Command::Attach(c) => c.run(session).await,
        Command::Exec(c) => c.run(session).await,
        Command::PortForward(c) => c.run(session).await,
        Command::Proxy(c) => c.run(session).await,
        Command::Auth(c) => c.run(session).await,
        Command::Diff(c) => c.run(session).await,
        Command::Apply(c) => c.run(session).await,
        Command::Patch(c) => c.run(session).await,
        Command::Replace(c) => c.run(session).await,
        Command::Wait(c) => c.run(session).await,
        Command::Why(c) => c.run(session).await,
        Command::Label(c) => c.run(session).await,
        Command::Annotate(c) => c.run(session).await,
        Command::ApiResources(c) => c.run(session).await,
        Command::ApiVersions(c) => c.run(session).await,
        Command::Config(c) => c.run(session),
        Command::Version(c) => c.run(session).await,
    }
}
