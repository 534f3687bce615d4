//! Hollow nodes in one process, to see how a control plane bears many: flags in, [`kubelet::hollow::run`], exit code out.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use api::quantity::Amount;
use clap::Parser;
use client::{Client, ClientConfig};
use component::clock::Clock;
use component::logging::{self, LoggingArgs};
use kubelet::hollow::{self, Config};

/// Runs nodes that have no machine: they register, renew their leases, and say that their pods run.
#[derive(Parser, Debug)]
#[command(name = "kubemark", version = kubelet::node::status::VERSION)]
struct Args {
    /// Path to the kubeconfig file of somebody who may write any node and pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// What the nodes' names begin with.
    #[arg(long, default_value = "hollow-node-")]
    name_prefix: String,
    /// Processors of each node.
    #[arg(long, default_value_t = 32)]
    cpu: i64,
    /// Memory of each node.
    #[arg(long, default_value = "256Gi")]
    memory: String,
    /// The most pods of each node.
    #[arg(long, default_value_t = 110)]
    max_pods: i64,
    #[command(flatten)]
    logging: LoggingArgs,
}

fn config(args: &Args) -> anyhow::Result<Config> {
    let client = ClientConfig::from_kubeconfig(&args.kubeconfig, "kubemark").context("--kubeconfig")?;
    let memory = Amount::parse(&args.memory).with_context(|| format!("--memory {:?}", args.memory))?;
    Ok(Config {
        client: Client::new(client),
        nodes: args.nodes,
        prefix: args.name_prefix.clone(),
        cpus: args.cpu,
        memory: memory.to_units(),
        max_pods: args.max_pods,
        clock: Clock::system(),
    })
}

fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let ready = || println!("{} hollow nodes are registered", args.nodes);
        Ok(hollow::run(config(args)?, ready, component::shutdown::signals()).await?)
    })
}

fn main() -> ExitCode {
    let args = Args::parse();
    logging::init(&args.logging, "kubemark");
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
