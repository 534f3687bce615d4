//! kube-controller-manager's command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};
use client::{ClientConfig, LeaderConfig};
use component::flags::{ClientArgs, LeaderArgs, ServeArgs, duration};
use component::jwt::SigningKey;
use component::memory::trimmed_after_start;
use component::{logging, shutdown};
use controller_manager::{Cidr, Config, ControllerSelection, NodeLifecycleConfig};

/// Runs the control loops that move the cluster's state towards what its objects ask for.
#[derive(Parser)]
#[command(name = "kube-controller-manager", version)]
struct Args {
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    leader: LeaderArgs,
    #[command(flatten)]
    serve: ServeArgs,
    #[command(flatten)]
    logging: logging::LoggingArgs,
    /// Name of the Lease.
    #[arg(long, default_value = "kube-controller-manager")]
    leader_elect_resource_name: String,
    /// Controllers to run: names, '-name' to leave one out, '*' for all.
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    controllers: Vec<String>,
    /// Allocate ranges of pod addresses to nodes.
    #[arg(long, default_value = "false", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    allocate_node_cidrs: bool,
    /// Range of pod addresses in the cluster. Requires --allocate-node-cidrs.
    #[arg(long)]
    cluster_cidr: Option<Cidr>,
    /// Prefix length of a node's range.
    #[arg(long, default_value_t = 24)]
    node_cidr_mask_size: u8,
    /// How often the nodes' heartbeats are looked at.
    #[arg(long, default_value = "5s", value_parser = duration)]
    node_monitor_period: Duration,
    /// How old a node's heartbeat may become before its state is unknown.
    #[arg(long, default_value = "50s", value_parser = duration)]
    node_monitor_grace_period: Duration,
    /// The same for a node that has not reported yet.
    #[arg(long, default_value = "1m0s", value_parser = duration)]
    node_startup_grace_period: Duration,
    /// Nodes a second whose pods are evicted in a healthy zone.
    #[arg(long, default_value_t = 0.1)]
    node_eviction_rate: f64,
    /// Nodes a second whose pods are evicted in a large zone that is partly lost.
    #[arg(long, default_value_t = 0.01)]
    secondary_node_eviction_rate: f64,
    /// From more than this many nodes on a zone is large.
    #[arg(long, default_value_t = 50)]
    large_cluster_size_threshold: usize,
    /// The share of lost nodes from which on a zone counts as partly lost.
    #[arg(long, default_value_t = 0.55)]
    unhealthy_zone_threshold: f64,
    /// Ended pods that are kept; 0 keeps all.
    #[arg(long, default_value_t = 12500)]
    terminated_pod_gc_threshold: usize,
    /// File of the CA certificates that are published to every namespace; by default, those by which
    /// the kubeconfig trusts the API servers.
    #[arg(long, value_name = "FILE")]
    root_ca_file: Option<PathBuf>,
    /// File of the private key with which the tokens in Secrets of service accounts are signed.
    #[arg(long, value_name = "FILE")]
    service_account_private_key_file: Option<PathBuf>,
    /// Whether each controller has a service account of its own; false is what there is.
    #[arg(long, default_value = "false", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    use_service_account_credentials: bool,
    /// Deployments that are worked on at a time.
    #[arg(long, default_value_t = 5)]
    concurrent_deployment_syncs: usize,
    /// ReplicaSets that are worked on at a time.
    #[arg(long, default_value_t = 5)]
    concurrent_replicaset_syncs: usize,
    /// Services whose Endpoints are worked on at a time.
    #[arg(long, default_value_t = 5)]
    concurrent_endpoint_syncs: usize,
    /// Services whose EndpointSlices are worked on at a time.
    #[arg(long, default_value_t = 5)]
    concurrent_service_endpoint_syncs: usize,
    /// Namespaces that are emptied at a time.
    #[arg(long, default_value_t = 10)]
    concurrent_namespace_syncs: usize,
    /// Objects that the garbage collector works on at a time.
    #[arg(long, default_value_t = 20)]
    concurrent_gc_syncs: usize,
    /// The most endpoints of one EndpointSlice.
    #[arg(long, default_value_t = 100)]
    max_endpoints_per_slice: usize,
}

impl Args {
    /// Checks all settings and reports everything that is wrong with them at once.
    fn config(self) -> Result<Config, Vec<String>> {
        let mut problems = Vec::new();
        let client = ClientConfig::from_kubeconfig(&self.client.kubeconfig, "kube-controller-manager");
        let client = note(&mut problems, client.map_err(|e| vec![format!("{:#}", anyhow::Error::from(e))]));
        let serving = note(&mut problems, self.serve.check()).flatten();
        let controllers = note(&mut problems, ControllerSelection::new(&self.controllers));
        let root_ca = match &self.root_ca_file {
            Some(file) => {
                std::fs::read_to_string(file).map_err(|e| format!("--root-ca-file {}: {e}", file.display()))
            }
            // What is wrong with the kubeconfig has been noted already.
            None => Ok(ClientConfig::trusted_by_kubeconfig(&self.client.kubeconfig).unwrap_or_default()),
        };
        let root_ca = note(&mut problems, root_ca.map_err(|e| vec![e])).filter(|pem| !pem.is_empty());
        let token_key =
            self.service_account_private_key_file.as_deref().map(SigningKey::from_file).transpose();
        let token_key = token_key.map_err(|e| vec![format!("--service-account-private-key-file: {e}")]);
        let token_key = note(&mut problems, token_key).flatten();
        if self.use_service_account_credentials {
            problems.push("--use-service-account-credentials: only false is supported".into());
        }
        self.check_numbers(&mut problems);
        let leader = self.leader.leader_elect.then(|| LeaderConfig {
            namespace: self.leader.leader_elect_resource_namespace,
            name: self.leader_elect_resource_name,
            identity: identity(),
            lease_duration: self.leader.leader_elect_lease_duration,
            renew_deadline: self.leader.leader_elect_renew_deadline,
            retry_period: self.leader.leader_elect_retry_period,
        });
        let (Some(client), Some(controllers), true) = (client, controllers, problems.is_empty()) else {
            return Err(problems);
        };
        Ok(Config {
            client,
            leader,
            serving,
            controllers,
            concurrent_deployment_syncs: self.concurrent_deployment_syncs,
            concurrent_replicaset_syncs: self.concurrent_replicaset_syncs,
            concurrent_endpoint_syncs: self.concurrent_endpoint_syncs,
            concurrent_service_endpoint_syncs: self.concurrent_service_endpoint_syncs,
            concurrent_namespace_syncs: self.concurrent_namespace_syncs,
            concurrent_gc_syncs: self.concurrent_gc_syncs,
            max_endpoints_per_slice: self.max_endpoints_per_slice,
            cluster_cidr: self.cluster_cidr.filter(|_| self.allocate_node_cidrs),
            node_cidr_mask_size: self.node_cidr_mask_size,
            node_lifecycle: NodeLifecycleConfig {
                monitor_period: self.node_monitor_period,
                monitor_grace_period: self.node_monitor_grace_period,
                startup_grace_period: self.node_startup_grace_period,
                eviction_rate: self.node_eviction_rate,
                secondary_eviction_rate: self.secondary_node_eviction_rate,
                large_cluster_size_threshold: self.large_cluster_size_threshold,
                unhealthy_zone_threshold: self.unhealthy_zone_threshold,
            },
            terminated_pod_gc_threshold: self.terminated_pod_gc_threshold,
            root_ca,
            token_key,
        })
    }

    fn check_numbers(&self, problems: &mut Vec<String>) {
        let mut refuse = |wrong: bool, message: String| wrong.then(|| problems.push(message));
        for (flag, value) in [
            ("--concurrent-deployment-syncs", self.concurrent_deployment_syncs),
            ("--concurrent-replicaset-syncs", self.concurrent_replicaset_syncs),
            ("--concurrent-endpoint-syncs", self.concurrent_endpoint_syncs),
            ("--concurrent-service-endpoint-syncs", self.concurrent_service_endpoint_syncs),
            ("--concurrent-namespace-syncs", self.concurrent_namespace_syncs),
            ("--concurrent-gc-syncs", self.concurrent_gc_syncs),
        ] {
            refuse(value == 0, format!("{flag} must be greater than 0"));
        }
        let slice = self.max_endpoints_per_slice;
        refuse(!(1..=1000).contains(&slice), "--max-endpoints-per-slice must be between 1 and 1000".into());
        refuse(self.node_monitor_period.is_zero(), "--node-monitor-period must be greater than 0".into());
        if self.allocate_node_cidrs {
            match self.cluster_cidr {
                None => problems.push("--allocate-node-cidrs needs --cluster-cidr".into()),
                Some(cidr) => {
                    let size = self.node_cidr_mask_size;
                    if !(cidr.prefix..=30).contains(&size) || size - cidr.prefix > 16 {
                        problems
                            .push(format!("--node-cidr-mask-size {size} does not fit --cluster-cidr {cidr}"));
                    }
                }
            }
        }
        let rates =
            [self.node_eviction_rate, self.secondary_node_eviction_rate, self.unhealthy_zone_threshold];
        if rates.iter().any(|rate| !rate.is_finite() || *rate < 0.0) {
            problems.push("rates and thresholds must not be negative".into());
        }
        if self.leader.leader_elect
            && self.leader.leader_elect_lease_duration <= self.leader.leader_elect_renew_deadline
        {
            problems.push(
                "--leader-elect-lease-duration must be greater than --leader-elect-renew-deadline".into(),
            );
        }
    }
}

fn note<T>(problems: &mut Vec<String>, result: Result<T, Vec<String>>) -> Option<T> {
    result.map_err(|more| problems.extend(more)).ok()
}

/// This instance among the contenders: the host, and something that no other process has.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let unique = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    format!("{}_{}", host.trim(), unique.trim())
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let logging = args.logging.clone();
    let config = match args.config() {
        Ok(config) => config,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("error: {problem}"));
            std::process::exit(1);
        }
    };
    logging::init(&logging, "kube-controller-manager");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        trimmed_after_start(controller_manager::run(config, shutdown::signals())).await
    })?;
    Ok(())
}
