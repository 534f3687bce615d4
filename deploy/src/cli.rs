//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::boot::{self, Boot};
use crate::cluster::{Cluster, DEFAULT_NAME, Paths};
use crate::commands::{Target, backup, demo, down, image, logs, node, process, status, up};

/// Runs a Kubernetes cluster on this machine: each node with namespaces, a container runtime, a kubelet and a proxy of
/// its own.
#[derive(Parser, Debug)]
#[command(name = "coxswain", version)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args, Debug)]
struct Common {
    /// The cluster.
    #[arg(long, global = true, env = "COXSWAIN_NAME", default_value = DEFAULT_NAME)]
    name: String,
    /// Where clusters keep what survives a reboot.
    #[arg(
        long,
        global = true,
        env = "COXSWAIN_STATE_DIR",
        default_value = "/var/lib/coxswain",
        value_name = "DIR"
    )]
    state_dir: PathBuf,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Bring the cluster up, or to what is wanted now.
    Up(up::UpArgs),
    /// Take the cluster down and leave the host as it was.
    Down,
    /// Show every process, its health, memory and log, and every node.
    Status(status::StatusArgs),
    /// Write the cluster's state to a file.
    Backup(backup::FileArgs),
    /// Replace the cluster's state by that of a file which `backup` wrote.
    Restore(backup::FileArgs),
    /// Print the admin's kubeconfig.
    Kubeconfig,
    /// Print a component's log.
    Logs(logs::LogsArgs),
    /// Load images into the nodes.
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Stop and start nodes, to practise failures.
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Stop and start single processes.
    #[command(subcommand)]
    Process(process::ProcessCommand),
    /// Apply the sample, serve its page, and show what to try next.
    Demo(demo::DemoArgs),
    /// Own the cluster's processes; `up` starts this in the background.
    #[command(hide = true)]
    Supervise,
    /// Become the first process of a node.
    #[command(hide = true)]
    InitNode {
        /// What it is told, as JSON.
        boot: String,
    },
}

/// Does what the command line says.
///
/// # Errors
/// For people, with all causes.
pub fn run(cli: &Cli) -> anyhow::Result<()> {
    if let Command::InitNode { boot } = &cli.command {
        let boot: Boot = serde_json::from_str(boot)?;
        return Ok(boot::run(&boot)?);
    }
    Cluster::check_name(&cli.common.name)?;
    let root = std::path::absolute(&cli.common.state_dir)?;
    let root = std::fs::canonicalize(&root).unwrap_or(root);
    let target = Target { name: cli.common.name.clone(), paths: Paths::new(&root, &cli.common.name) };
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!("it needs root for namespaces, cgroups and keys: run it with sudo");
    }
    let program = std::env::current_exe()?;
    crate::host::join_machine_mounts(&[&target.paths.state, &target.paths.run, &program])?;
    let logging = component::logging::LoggingArgs {
        verbosity: if matches!(cli.command, Command::Supervise) { 2 } else { 0 },
        logging_format: "text".into(),
    };
    if matches!(cli.command, Command::Supervise) {
        component::logging::init(&logging, "coxswain");
    }
    // One thread is plenty, and a supervisor should be small.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build()?;
    runtime.block_on(dispatch(&cli.command, &target))
}

async fn dispatch(command: &Command, target: &Target) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => up::run(target, args).await,
        Command::Down => down::run(target).await,
        Command::Status(args) => status::run(target, args).await,
        Command::Backup(args) => backup::backup(target, args).await,
        Command::Restore(args) => backup::restore(target, args).await,
        Command::Kubeconfig => {
            target.cluster()?;
            print!("{}", std::fs::read_to_string(target.paths.kubeconfig("admin"))?);
            Ok(())
        }
        Command::Logs(args) => logs::run(target, args).await,
        Command::Image(command) => image::run(target, command).await,
        Command::Node(command) => node::run(target, command).await,
        Command::Process(command) => process::run(target, command).await,
        Command::Demo(args) => demo::run(target, args).await,
        Command::Supervise => crate::supervise::run(target.paths.clone(), &target.name).await,
        Command::InitNode { .. } => unreachable!("done before there was a runtime"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_node_is_not_taken_for_a_cluster() {
        for line in ["coxswain node stop node-2", "coxswain node start node-2", "coxswain process stop etcd"]
        {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.common.name, DEFAULT_NAME, "{line}");
        }
    }

    #[test]
    fn bad_numbers_of_nodes_are_refused() {
        for line in ["coxswain up --nodes 0", "coxswain up --nodes 201", "coxswain up --nodes x"] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
