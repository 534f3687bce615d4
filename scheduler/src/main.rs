//! The `kube-scheduler` binary: parses, checks, runs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Parser;
use client::{Client, ClientConfig, LeaderConfig};
use component::clock::Clock;
use component::flags::{ClientArgs, LeaderArgs, ServeArgs};
use component::logging::{self, LoggingArgs};
use component::memory::trimmed_after_start;
use component::shutdown;
use scheduler::Config;
use scheduler::config::{self, FileConfig, Leader};
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
    /// A KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1; what it states goes before flags.
    #[arg(long)]
    config: Option<PathBuf>,
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
        trimmed_after_start(scheduler::run(config, shutdown::signals()))
            .await
            .context("kube-scheduler failed")
    })
}

fn config(args: Args) -> anyhow::Result<Config> {
    let serving = args.serve.check();
    let client =
        ClientConfig::from_kubeconfig(&args.client.kubeconfig, "kube-scheduler").context("--kubeconfig");
    let file = file(&args);
    let (serving, client, file) = match (serving, client, file) {
        (Ok(serving), Ok(client), Ok(file)) => (serving, client, file),
        (serving, client, file) => {
            let mut problems = serving.err().unwrap_or_default();
            problems.extend(client.err().map(|e| format!("{e:#}")));
            problems.extend(file.err().map(|e| format!("{e:#}")));
            return Err(anyhow!(problems.join("; ")));
        }
    };
    let host =
        std::fs::read_to_string("/proc/sys/kernel/hostname").context("the host's name")?.trim().to_owned();
    let Leader { elect, name, namespace, lease_duration, renew_deadline, retry_period } = file.leader;
    let flags = &args.leader;
    let leader = elect.unwrap_or(flags.leader_elect).then(|| LeaderConfig {
        namespace: namespace.unwrap_or_else(|| flags.leader_elect_resource_namespace.clone()),
        name: name.unwrap_or_else(|| args.leader_elect_resource_name.clone()),
        identity: format!("{host}_{}", uuid::Uuid::new_v4()),
        lease_duration: lease_duration.unwrap_or(flags.leader_elect_lease_duration),
        renew_deadline: renew_deadline.unwrap_or(flags.leader_elect_renew_deadline),
        retry_period: retry_period.unwrap_or(flags.leader_elect_retry_period),
    });
    let seed = args.seed.unwrap_or_else(rand::random);
    tracing::info!(seed, "ties are broken with this seed");
    let (profiles, backoff) = (file.profiles, file.backoff);
    let (client, clock) = (Client::new(client), Clock::system());
    Ok(Config { client, clock, leader, serving, seed, profiles, backoff, host })
}

/// What `--config` states, or the default profile.
fn file(args: &Args) -> anyhow::Result<FileConfig> {
    let Some(path) = &args.config else {
        let percentage = args.percentage_of_nodes_to_score.into();
        let profiles = vec![Profile { percentage, ..Profile::default() }];
        return Ok(FileConfig { profiles, backoff: scheduler::queue::BACKOFF, leader: Leader::default() });
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("--config: {}", path.display()))?;
    config::parse(&text).with_context(|| format!("--config: {}", path.display()))
}
