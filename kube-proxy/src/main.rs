//! The `kube-proxy` binary: parses, checks, runs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use client::{Client, ClientConfig};
use component::clock::Clock;
use component::logging::{self, LoggingArgs};
use component::memory::trimmed_after_start;
use component::shutdown;
use kube_proxy::net::Cidr;

/// Reflects Services as they are defined in the Kubernetes API on this node, answers DNS for them,
/// and keeps the routes to other nodes' pods.
#[derive(Parser)]
#[command(name = "kube-proxy", version)]
struct Args {
    /// Path to the kubeconfig file that names the API servers and this component's certificate.
    #[arg(long, value_name = "FILE", required_unless_present = "cleanup")]
    kubeconfig: Option<PathBuf>,
    /// The name of this node's Node object; by default the host's name.
    #[arg(long)]
    hostname_override: Option<String>,
    /// The range, or a comma-separated list of ranges, that pods' addresses come from.
    #[arg(long, default_value = "")]
    cluster_cidr: String,
    /// The range that ClusterIPs come from. What matches no Service is rejected on this node.
    #[arg(long, default_value = "10.96.0.0/12")]
    service_cluster_ip_range: String,
    /// The address on which this node answers the cluster's DNS; without it, it answers none.
    #[arg(long, value_name = "IP")]
    cluster_dns: Option<Ipv4Addr>,
    /// The domain of the cluster's names.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// Resolvers for all other names, as IP or IP:PORT. Without one, other names do not exist.
    #[arg(long, value_delimiter = ',', value_name = "IP[:PORT]")]
    dns_upstream: Vec<String>,
    /// Where /healthz and /livez are served; empty for nowhere.
    #[arg(long, default_value = "0.0.0.0:10256")]
    healthz_bind_address: String,
    /// Where /metrics is served; empty for nowhere.
    #[arg(long, default_value = "127.0.0.1:10249")]
    metrics_bind_address: String,
    /// Remove everything that a proxy has made on this node, and exit.
    #[arg(long)]
    cleanup: bool,
    #[command(flatten)]
    logging: LoggingArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    logging::init(&args.logging, "kube-proxy");
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
    if args.cleanup {
        return runtime
            .block_on(kube_proxy::cleanup())
            .map_err(|problems| anyhow::anyhow!(problems.join("; ")));
    }
    runtime.block_on(async {
        let config = config(args)?;
        trimmed_after_start(kube_proxy::run(config, shutdown::signals())).await.context("kube-proxy failed")
    })
}

fn config(args: Args) -> anyhow::Result<kube_proxy::Config> {
    let mut problems = Vec::new();
    let mut keep = |flag: &str, problem: String| problems.push(format!("--{flag}: {problem}"));
    let cluster_cidrs = Cidr::list(&args.cluster_cidr).unwrap_or_else(|e| {
        keep("cluster-cidr", e.to_string());
        Vec::new()
    });
    let service_range = match Cidr::list(&args.service_cluster_ip_range).as_deref() {
        Ok([range, ..]) => *range,
        Ok([]) | Err(_) => {
            keep(
                "service-cluster-ip-range",
                format!("invalid CIDR address: {:?}", args.service_cluster_ip_range),
            );
            Cidr::new(Ipv4Addr::UNSPECIFIED, 32)
        }
    };
    let mut bind = |flag: &str, text: &str| match bind_address(text) {
        Ok(address) => address,
        Err(problem) => {
            keep(flag, problem);
            None
        }
    };
    let healthz = bind("healthz-bind-address", &args.healthz_bind_address);
    let metrics = bind("metrics-bind-address", &args.metrics_bind_address);
    let mut dns_upstreams = Vec::new();
    for text in &args.dns_upstream {
        match upstream(text) {
            Some(address) if Some(address.ip()) == args.cluster_dns.map(IpAddr::V4) => {
                keep("dns-upstream", format!("{text:?} is the cluster's own DNS address"));
            }
            Some(address) => dns_upstreams.push(address),
            None => keep("dns-upstream", format!("{text:?} is no IP or IP:PORT")),
        }
    }
    let client = args
        .kubeconfig
        .as_deref()
        .context("--kubeconfig is required")
        .and_then(|path| ClientConfig::from_kubeconfig(path, "kube-proxy").context("--kubeconfig"));
    let client = match (client, problems.is_empty()) {
        (Ok(client), true) => Client::new(client),
        (Ok(_), false) => bail!("{}", problems.join("; ")),
        (Err(error), _) => {
            problems.push(format!("{error:#}"));
            bail!("{}", problems.join("; "));
        }
    };
    let node_name = match args.hostname_override.filter(|name| !name.is_empty()) {
        Some(name) => name,
        None => std::fs::read_to_string("/proc/sys/kernel/hostname").context("the host's name")?,
    };
    Ok(kube_proxy::Config {
        client,
        clock: Clock::system(),
        node_name: node_name.trim().to_lowercase(),
        cluster_cidrs,
        service_range,
        cluster_dns: args.cluster_dns,
        cluster_domain: args.cluster_domain,
        dns_upstreams,
        healthz,
        metrics,
    })
}

/// `IP:PORT`; empty, or with port 0, for nowhere.
fn bind_address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let address: SocketAddr = text.parse().map_err(|_| format!("{text:?} is no IP:PORT"))?;
    Ok((address.port() != 0).then_some(address))
}

fn upstream(text: &str) -> Option<SocketAddr> {
    let ip = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53));
    text.parse().ok().or_else(ip)
}
