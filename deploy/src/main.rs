//! `coxswain`: a Kubernetes cluster on this machine.

use std::process::ExitCode;

use clap::Parser;
use coxswain::cli::{Cli, run};

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coxswain: {error:#}");
            ExitCode::FAILURE
        }
    }
}
