//! The `etcd-lite` binary: flags in, [`etcd_lite::run`], exit code out.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Parser, Subcommand};
use component::clock::Clock;
use component::flags::duration;
use component::logging::{self, LoggingArgs};
use component::memory::trimmed_after_start;
use component::shutdown;
use component::tls::{ClientTls, ServerTls};
use etcd_lite::Config;
use etcd_lite::backup::backup;
use etcd_lite::compactor::AutoCompaction;
use etcd_lite::server::ListenUrl;
use etcd_lite::snapshot::{RestoreOptions, restore};

/// A single-node server of the etcd v3 API.
#[derive(Parser, Debug)]
#[command(name = "etcd-lite", version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
    #[command(flatten)]
    logging: LoggingArgs,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Saves a snapshot of a running server, etcd-lite or etcd, to a file.
    Backup {
        /// The file.
        file: PathBuf,
        /// gRPC endpoints; the first one that answers is asked.
        #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
        endpoints: Vec<String>,
        /// Verify certificates of TLS-enabled secure servers using this CA bundle.
        #[arg(long, requires_all = ["cert", "key"])]
        cacert: Option<PathBuf>,
        /// Identify secure client using this TLS certificate file.
        #[arg(long)]
        cert: Option<PathBuf>,
        /// Identify secure client using this TLS key file.
        #[arg(long)]
        key: Option<PathBuf>,
    },
    /// Makes a data directory from a snapshot.
    Restore {
        /// The snapshot, as `etcdctl snapshot save` writes it from an etcd-lite.
        file: PathBuf,
        /// Path to the data directory, which must not hold data.
        #[arg(long, default_value = "default.etcd")]
        data_dir: PathBuf,
        /// How much to increase the latest revision after restore.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..=1 << 40))]
        bump_revision: i64,
        /// The least that the latest revision becomes.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..=1 << 42))]
        revision_at_least: i64,
        /// Mark the latest revision after restore as the point of scheduled compaction.
        #[arg(long)]
        mark_compacted: bool,
    },
}

#[derive(clap::Args, Debug)]
struct Serve {
    /// Human-readable name for this member.
    #[arg(long, default_value = "default")]
    name: String,
    /// Path to the data directory.
    #[arg(long, default_value = "default.etcd")]
    data_dir: PathBuf,
    /// List of URLs to listen on for client traffic.
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2379")]
    listen_client_urls: Vec<ListenUrl>,
    /// List of this member's client URLs to advertise to the public.
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2379")]
    advertise_client_urls: Vec<String>,
    /// List of URLs to listen on for the /metrics and /health endpoints.
    #[arg(long, value_delimiter = ',')]
    listen_metrics_urls: Vec<ListenUrl>,
    /// Path to the client server TLS cert file.
    #[arg(long)]
    cert_file: Option<PathBuf>,
    /// Path to the client server TLS key file.
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// Enable client cert authentication.
    #[arg(long, default_value = "false", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    client_cert_auth: bool,
    /// Path to the client server TLS trusted CA cert file.
    #[arg(long)]
    trusted_ca_file: Option<PathBuf>,
    /// Interpret 'auto-compaction-retention' one of: periodic|revision.
    #[arg(long, default_value = "periodic")]
    auto_compaction_mode: String,
    /// Auto compaction retention: an age for periodic (a bare number is hours), a number for revision. 0 means off.
    #[arg(long, default_value = "0")]
    auto_compaction_retention: String,
    /// Raise alarms when the data in use exceeds the given quota. 0 means 2 GiB.
    #[arg(long, default_value_t = 0)]
    quota_backend_bytes: u64,
    /// Disables fsync, unsafe, will cause data loss.
    #[arg(long)]
    unsafe_no_fsync: bool,
    /// Prefixes of keys that are updated all the time and whose last seconds may be lost when the machine dies (not when
    /// the process does): their updates do not wait for the disk. No revision is given out twice nevertheless.
    #[arg(long, value_delimiter = ',', value_name = "PREFIX")]
    heartbeat_prefixes: Vec<String>,
    /// Duration of periodical watch progress notification.
    #[arg(long, default_value = "10m", value_parser = duration)]
    experimental_watch_progress_notify_interval: Duration,
}

fn main() -> ExitCode {
    let args = Args::parse();
    logging::init(&args.logging, "etcd-lite");
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
    match args.command {
        None => {
            let config = config(args.serve)?;
            let serve = async { trimmed_after_start(etcd_lite::run(config, shutdown::signals())).await };
            runtime.block_on(serve).context("etcd-lite failed")
        }
        Some(Command::Restore { file, data_dir, bump_revision, revision_at_least, mark_compacted }) => {
            let options = RestoreOptions { bump_revision, revision_at_least, mark_compacted };
            let revision =
                restore(&file, &data_dir, options).context("the snapshot could not be restored")?;
            tracing::info!(revision, data_dir = %data_dir.display(), "restored");
            Ok(())
        }
        Some(Command::Backup { file, endpoints, cacert, cert, key }) => {
            let tls = match (cacert, cert, key) {
                (Some(ca), Some(cert), Some(key)) => Some(ClientTls { ca, cert, key }),
                _ => None,
            };
            let mut result = Err(anyhow!("--endpoints names none"));
            for url in &endpoints {
                result = runtime.block_on(backup(url, tls.as_ref(), &file)).context("there is no snapshot");
                if result.is_ok() {
                    break;
                }
            }
            tracing::info!(bytes = result?, file = %file.display(), "saved");
            Ok(())
        }
    }
}

fn config(args: Serve) -> anyhow::Result<Config> {
    let mut problems = Vec::new();
    let tls = match (args.cert_file, args.key_file) {
        (Some(cert), Some(key)) => Some(ServerTls { cert, key, client_ca: args.trusted_ca_file.clone() }),
        (None, None) => None,
        _ => {
            problems.push("--cert-file and --key-file must be given together".to_owned());
            None
        }
    };
    if args.client_cert_auth && args.trusted_ca_file.is_none() {
        problems.push("--client-cert-auth needs --trusted-ca-file".to_owned());
    }
    let compaction = AutoCompaction::parse(&args.auto_compaction_mode, &args.auto_compaction_retention);
    if let Err(problem) = &compaction {
        problems.push(problem.clone());
    }
    for url in args.listen_client_urls.iter().chain(&args.listen_metrics_urls) {
        if url.tls && tls.is_none() && problems.is_empty() {
            problems.push(format!("{url} needs --cert-file and --key-file"));
        }
    }
    let (true, Ok(auto_compaction)) = (problems.is_empty(), compaction) else {
        return Err(anyhow!(problems.join("; ")));
    };
    let quota =
        if args.quota_backend_bytes == 0 { etcd_lite::DEFAULT_QUOTA } else { args.quota_backend_bytes };
    Ok(Config {
        name: args.name,
        data_dir: args.data_dir,
        listen_client_urls: args.listen_client_urls,
        advertise_client_urls: args.advertise_client_urls,
        listen_metrics_urls: args.listen_metrics_urls,
        tls,
        client_cert_auth: args.client_cert_auth,
        auto_compaction,
        quota_backend_bytes: quota,
        unsafe_no_fsync: args.unsafe_no_fsync,
        heartbeat_prefixes: args.heartbeat_prefixes,
        watch_progress_notify_interval: args.experimental_watch_progress_notify_interval,
        clock: Clock::system(),
    })
}
