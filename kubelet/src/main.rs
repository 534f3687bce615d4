//! The kubelet's command line.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use api::quantity::Amount;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};
use component::flags::{ClientArgs, duration};
use component::logging::{self, LoggingArgs};
use component::memory::trimmed_after_start;
use k8s_openapi::api::core::v1::Taint;
use kubelet::Config;
use kubelet::config_file::KubeletConfiguration;
use kubelet::housekeeping::LogLimits;
use kubelet::node::eviction::Thresholds;

/// Runs the pods of a node.
#[derive(Parser, Debug)]
#[command(name = "kubelet", version = kubelet::node::status::VERSION, rename_all = "kebab-case")]
struct Args {
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    logging: LoggingArgs,
    /// A KubeletConfiguration; flags that are given override its settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The node's name; the host's name if it is not given.
    #[arg(long)]
    hostname_override: Option<String>,
    /// The container runtime's CRI socket.
    #[arg(long, default_value = "unix:///run/containerd/containerd.sock")]
    container_runtime_endpoint: String,
    /// Directory for pods' files.
    #[arg(long, default_value = "/var/lib/kubelet")]
    root_dir: PathBuf,
    /// Directory for pods' logs.
    #[arg(long, default_value = "/var/log/pods")]
    pod_log_dir: PathBuf,
    /// Addresses of the node, comma-separated; found out if not given.
    #[arg(long, value_delimiter = ',')]
    node_ip: Vec<IpAddr>,
    /// Addresses of the cluster's name servers, comma-separated.
    #[arg(long, value_delimiter = ',')]
    cluster_dns: Vec<IpAddr>,
    /// The cluster's domain.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// The control group beneath which all pods' groups are made.
    #[arg(long, default_value = "")]
    cgroup_root: String,
    /// How control groups are made; only `cgroupfs` is supported.
    #[arg(long, default_value = "cgroupfs")]
    cgroup_driver: String,
    /// Give pods control groups by their quality of service.
    #[arg(long, default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    cgroups_per_qos: bool,
    /// The resolver configuration that pods' are made from; empty for none.
    #[arg(long, default_value = "/etc/resolv.conf")]
    resolv_conf: String,
    /// The port of the health endpoint; 0 disables it.
    #[arg(long, default_value_t = 10248)]
    healthz_port: u16,
    /// The address of the health endpoint.
    #[arg(long, default_value = "127.0.0.1")]
    healthz_bind_address: IpAddr,
    /// The most pods that run at once.
    #[arg(long, default_value_t = 110)]
    max_pods: u32,
    /// Below what the node is under pressure: `signal<limit,…`, a limit being a quantity or a percentage.
    #[arg(long, default_value_t)]
    eviction_hard: Thresholds,
    /// Labels to register the node with: `key=value,…`.
    #[arg(long, default_value = "")]
    node_labels: String,
    /// Taints to register the node with: `key=value:effect,…`.
    #[arg(long, default_value = "")]
    register_with_taints: String,
    /// How often the node's status is computed.
    #[arg(long, default_value = "10s", value_parser = duration)]
    node_status_update_frequency: Duration,
    /// The size from which on a container's log file is put aside, such as 10Mi.
    #[arg(long, default_value = "10Mi")]
    container_log_max_size: String,
    /// How many files of a container's log are kept, at least two.
    #[arg(long, default_value_t = 5)]
    container_log_max_files: usize,
}

fn log_limits(args: &Args) -> Result<LogLimits, String> {
    let size = &args.container_log_max_size;
    let bytes = Amount::parse(size).ok().and_then(|a| u64::try_from(a.to_units()).ok()).filter(|b| *b > 0);
    let bytes = bytes.ok_or_else(|| format!("--container-log-max-size: {size:?} is no size above 0"))?;
    if args.container_log_max_files < 2 {
        return Err("--container-log-max-files: must be at least 2".into());
    }
    Ok(LogLimits { bytes, files: args.container_log_max_files })
}

fn labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    let pairs = parts.map(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let problems = [api::validation::qualified_name(key), api::validation::label_value(value)].concat();
        match problems.first() {
            None => Ok((key.to_owned(), value.to_owned())),
            Some(problem) => Err(format!("--node-labels: {part:?}: {problem}")),
        }
    });
    pairs.collect()
}

fn taints(text: &str) -> Result<Vec<Taint>, String> {
    let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    let taints = parts.map(|part| {
        let bad = || format!("--register-with-taints: {part:?}: expected <key>=<value>:<effect>");
        let (name, effect) = part.rsplit_once(':').ok_or_else(bad)?;
        if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            return Err(format!("--register-with-taints: {part:?}: unsupported effect {effect:?}"));
        }
        let (key, value) = name.split_once('=').map_or((name, None), |(k, v)| (k, Some(v)));
        if !api::validation::qualified_name(key).is_empty() {
            return Err(bad());
        }
        Ok(Taint {
            key: key.to_owned(),
            value: value.filter(|v| !v.is_empty()).map(str::to_owned),
            effect: effect.to_owned(),
            time_added: None,
        })
    });
    taints.collect()
}

/// Takes settings of the file for the flags that are not given.
fn overlay(
    args: &mut Args,
    given: &ArgMatches,
    file: KubeletConfiguration,
) -> Result<Option<Vec<Taint>>, String> {
    fn set<T>(given: &ArgMatches, flag: &str, target: &mut T, value: Option<T>) {
        if given.value_source(flag) != Some(ValueSource::CommandLine) {
            value.into_iter().for_each(|v| *target = v);
        }
    }
    let frequency = file.node_status_update_frequency.as_deref().map(duration).transpose();
    let frequency = frequency.map_err(|e| format!("nodeStatusUpdateFrequency: {e}"))?;
    let eviction = file.eviction_hard.as_ref().map(|limits| {
        Thresholds::from_map(limits.iter().map(|(signal, limit)| (signal.as_str(), limit.as_str())))
    });
    let eviction = eviction.transpose().map_err(|e| format!("evictionHard: {e}"))?;
    set(
        given,
        "container_runtime_endpoint",
        &mut args.container_runtime_endpoint,
        file.container_runtime_endpoint,
    );
    set(given, "cluster_dns", &mut args.cluster_dns, file.cluster_dns);
    set(given, "cluster_domain", &mut args.cluster_domain, file.cluster_domain);
    set(given, "cgroup_root", &mut args.cgroup_root, file.cgroup_root);
    set(given, "cgroup_driver", &mut args.cgroup_driver, file.cgroup_driver);
    set(given, "cgroups_per_qos", &mut args.cgroups_per_qos, file.cgroups_per_qos);
    set(given, "resolv_conf", &mut args.resolv_conf, file.resolv_conf);
    set(given, "healthz_port", &mut args.healthz_port, file.healthz_port);
    set(given, "healthz_bind_address", &mut args.healthz_bind_address, file.healthz_bind_address);
    set(given, "max_pods", &mut args.max_pods, file.max_pods);
    set(given, "eviction_hard", &mut args.eviction_hard, eviction);
    set(given, "node_status_update_frequency", &mut args.node_status_update_frequency, frequency);
    set(given, "pod_log_dir", &mut args.pod_log_dir, file.pod_logs_dir);
    set(given, "container_log_max_size", &mut args.container_log_max_size, file.container_log_max_size);
    set(given, "container_log_max_files", &mut args.container_log_max_files, file.container_log_max_files);
    Ok(file.register_with_taints.filter(|_| args.register_with_taints.is_empty()))
}

/// Checks the flags; every problem is named.
fn config(mut args: Args, given: &ArgMatches) -> Result<Config, Vec<String>> {
    let mut problems = Vec::new();
    let file = args.config.as_deref().map(KubeletConfiguration::read).transpose();
    let file = file.unwrap_or_else(|e| {
        problems.push(e.to_string());
        None
    });
    let overlaid = file.map(|file| overlay(&mut args, given, file)).transpose();
    let file_taints = overlaid.unwrap_or_else(|e| {
        problems.push(e);
        None
    });
    let mut note = |problem: String| problems.push(problem);
    let node_labels = labels(&args.node_labels).unwrap_or_else(|p| {
        note(p);
        BTreeMap::new()
    });
    let taints = taints(&args.register_with_taints).unwrap_or_else(|p| {
        note(p);
        Vec::new()
    });
    let log_limits = log_limits(&args).unwrap_or_else(|p| {
        note(p);
        LogLimits::default()
    });
    if args.cgroup_driver != "cgroupfs" {
        note(format!("--cgroup-driver: {:?} is not supported, only \"cgroupfs\"", args.cgroup_driver));
    }
    if let Err(error) = kubelet::runtime::socket_path(&args.container_runtime_endpoint) {
        note(format!("--container-runtime-endpoint: {error}"));
    }
    let hostname = rustix::system::uname().nodename().to_string_lossy().trim().to_lowercase();
    let node_name = args.hostname_override.unwrap_or(hostname);
    if let Some(problem) = api::validation::dns_subdomain(&node_name).first() {
        note(format!("--hostname-override: {node_name:?}: {problem}"));
    }
    if args.node_status_update_frequency < Duration::from_secs(1) {
        note("--node-status-update-frequency: must be at least 1s".into());
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Config {
        kubeconfig: args.client.kubeconfig,
        node_name,
        runtime_endpoint: args.container_runtime_endpoint,
        root: args.root_dir,
        pod_log_dir: args.pod_log_dir,
        node_ips: args.node_ip,
        cluster_dns: args.cluster_dns,
        cluster_domain: args.cluster_domain,
        cgroup_mount: "/sys/fs/cgroup".into(),
        cgroup_root: args.cgroup_root,
        cgroups_per_qos: args.cgroups_per_qos,
        resolv_conf: (!args.resolv_conf.is_empty()).then(|| args.resolv_conf.into()),
        healthz: (args.healthz_port != 0)
            .then(|| SocketAddr::new(args.healthz_bind_address, args.healthz_port)),
        max_pods: args.max_pods.into(),
        eviction_hard: args.eviction_hard,
        node_labels,
        taints: file_taints.flatten().unwrap_or(taints),
        status_frequency: args.node_status_update_frequency,
        log_limits,
    })
}

fn main() -> ExitCode {
    let given = Args::command().get_matches();
    let args = Args::from_arg_matches(&given).unwrap_or_else(|error| error.exit());
    logging::init(&args.logging, "kubelet");
    let config = match config(args, &given) {
        Ok(config) => config,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("error: {problem}"));
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(async {
            trimmed_after_start(kubelet::run(config, component::shutdown::signals())).await
        }),
        Err(error) => {
            eprintln!("error: async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{:#}", anyhow::Error::new(error));
            ExitCode::FAILURE
        }
    }
}
