//! The `kube-scheduler` binary: parses, checks, runs.

use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Parser;
use client::{Client, ClientConfig, LeaderConfig};
use component::clock::Clock;
use component::flags::{ClientArgs, LeaderArgs, ServeArgs};
use component::logging::{self, LoggingArgs};
use component::shutdown;
use scheduler::Config;
use scheduler::profile::Profile;

/// Assigns pods to nodes.
#[derive(Parser)]
#[command(name = "kube-scheduler", version)]
struct Args {
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    leader: LeaderArgs,
    /// Name of the Lease that instances contend for.
    #[arg(long, default_value = "kube-scheduler")]
    leader_elect_resource_name: String,
    #[command(flatten)]
    serve: ServeArgs,
    /// The share of the nodes, in hundredths, that is enough to have found; 0 adapts it to their number.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    percentage_of_nodes_to_score: u8,
    /// The seed of the generator that breaks ties between nodes; by default a random one.
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    logging: LoggingArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    logging::init(&args.logging, "kube-scheduler");
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let config = config(args)?;
        scheduler::run(config, shutdown::signals()).await.context("kube-scheduler failed")
    })
}

fn config(args: Args) -> anyhow::Result<Config> {
    let serving = args.serve.check();
    let client =
        ClientConfig::from_kubeconfig(&args.client.kubeconfig, "kube-scheduler").context("--kubeconfig");
    let (serving, client) = match (serving, client) {
        (Ok(serving), Ok(client)) => (serving, client),
        (serving, client) => {
            let mut problems = serving.err().unwrap_or_default();
            problems.extend(client.err().map(|e| format!("{e:#}")));
            return Err(anyhow!(problems.join("; ")));
        }
    };
    let host =
        std::fs::read_to_string("/proc/sys/kernel/hostname").context("the host's name")?.trim().to_owned();
    let leader = args.leader.leader_elect.then(|| LeaderConfig {
        namespace: args.leader.leader_elect_resource_namespace.clone(),
        name: args.leader_elect_resource_name.clone(),
        identity: format!("{host}_{}", uuid::Uuid::new_v4()),
        lease_duration: args.leader.leader_elect_lease_duration,
        renew_deadline: args.leader.leader_elect_renew_deadline,
        retry_period: args.leader.leader_elect_retry_period,
    });
    let seed = args.seed.unwrap_or_else(rand::random);
    let percentage = args.percentage_of_nodes_to_score.into();
    let profiles = vec![Profile { percentage, ..Profile::default() }];
    tracing::info!(seed, "ties are broken with this seed");
    Ok(Config { client: Client::new(client), clock: Clock::system(), leader, serving, seed, profiles, host })
}
