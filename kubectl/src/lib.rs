//! kubectl: the command line client. It speaks REST only and works against any Kubernetes cluster;
//! output, columns, flags, exit codes and error texts are upstream's, so that scripts carry over.

pub mod age;
pub mod apply;
pub mod cli;
pub mod commands;
pub mod error;
pub mod jsonpath;
pub mod kubeconfig;
pub mod manifest;
pub mod output;
pub mod pods;
pub mod resource;
pub mod session;
pub mod streams;
pub mod watch;

use component::clock::Clock;

/// What requests say that they come from.
pub const USER_AGENT: &str = concat!("kubectl/", env!("CARGO_PKG_VERSION"), " (coxswain)");

/// Runs one command line and returns the exit code.
pub async fn run(args: impl IntoIterator<Item = std::ffi::OsString>) -> i32 {
    let outcome = match cli::Cli::from_args(args) {
        Ok(cli) => {
            let session = session::Session::new(cli.globals, Clock::system());
            commands::run(&session, cli.command).await
        }
        Err(e) => Err(e),
    };
    match outcome {
        Ok(()) => 0,
        Err(e) => {
            let report = e.report();
            if !report.is_empty() {
                output::warn(report);
            }
            e.exit_code()
        }
    }
}
