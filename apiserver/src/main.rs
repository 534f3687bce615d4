//! The `kube-apiserver` binary: flags in, [`apiserver::run`], exit code out.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use apiserver::Config;
use apiserver::aggregation::front_proxy::{Client, Published};
use apiserver::auth::token::options::TokenOptions;
use apiserver::storage::EtcdConfig;
use apiserver::storage::etcd::EtcdTls;
use clap::Parser;
use component::clock::Clock;
use component::flags::duration;
use component::logging::LoggingArgs;
use component::tls::ServerTls;

/// The Kubernetes API server: REST and gRPC over etcd.
#[derive(Parser, Debug)]
#[command(name = "kube-apiserver", version)]
struct Args {
    /// List of etcd servers to connect with (scheme://ip:port), comma separated.
    #[arg(long, value_delimiter = ',', required = true)]
    etcd_servers: Vec<String>,
    /// SSL Certificate Authority file used to secure etcd communication.
    #[arg(long)]
    etcd_cafile: Option<PathBuf>,
    /// SSL certification file used to secure etcd communication.
    #[arg(long)]
    etcd_certfile: Option<PathBuf>,
    /// SSL key file used to secure etcd communication.
    #[arg(long)]
    etcd_keyfile: Option<PathBuf>,
    /// The prefix to prepend to all resource paths in etcd.
    #[arg(long, default_value = "/registry")]
    etcd_prefix: String,
    /// How often old revisions of the store are dropped; 0 never.
    #[arg(long, default_value = "5m0s", value_parser = duration)]
    etcd_compaction_interval: Duration,
    /// The IP addresses on which to listen, comma separated.
    #[arg(long, value_delimiter = ',', default_value = "0.0.0.0")]
    bind_address: Vec<IpAddr>,
    /// The port on which to serve HTTPS with authentication and authorization.
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    /// The IP address on which to advertise the apiserver to members of the cluster.
    #[arg(long)]
    advertise_address: Option<IpAddr>,
    /// File containing the x509 certificate for HTTPS.
    #[arg(long)]
    tls_cert_file: PathBuf,
    /// File containing the x509 private key matching --tls-cert-file.
    #[arg(long)]
    tls_private_key_file: PathBuf,
    /// Requests presenting a client certificate signed by one of the authorities in this file are authenticated.
    #[arg(long)]
    client_ca_file: PathBuf,
    /// Client certificate used to prove the identity of the aggregator when it must call out during a request.
    #[arg(long)]
    proxy_client_cert_file: Option<PathBuf>,
    /// Private key for --proxy-client-cert-file.
    #[arg(long)]
    proxy_client_key_file: Option<PathBuf>,
    /// Root certificate bundle by which those who serve other groups verify --proxy-client-cert-file.
    #[arg(long)]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Client certificate common names that may provide usernames in headers; any if empty.
    #[arg(long, value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// Request headers to inspect for usernames.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-User")]
    requestheader_username_headers: Vec<String>,
    /// Request headers to inspect for groups.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Group")]
    requestheader_group_headers: Vec<String>,
    /// Request header prefixes to inspect for everything else about a user.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Extra-")]
    requestheader_extra_headers_prefix: Vec<String>,
    /// Request headers to inspect for UIDs.
    #[arg(long, value_delimiter = ',')]
    requestheader_uid_headers: Vec<String>,
    /// A CIDR notation IP range from which to assign service cluster IPs.
    #[arg(long, default_value = "10.96.0.0/12", value_parser = cidr)]
    service_cluster_ip_range: (Ipv4Addr, u8),
    /// A port range to reserve for services with NodePort visibility, inclusive at both ends.
    #[arg(long, default_value = "30000-32767", value_parser = ports)]
    service_node_port_range: RangeInclusive<u16>,
    /// Identifier of the service account token issuer; may be given several times, the first one issues.
    #[arg(long)]
    service_account_issuer: Vec<String>,
    /// File containing PEM-encoded keys that verify service account tokens; may be given several times.
    #[arg(long)]
    service_account_key_file: Vec<PathBuf>,
    /// File that contains the private key with which service account tokens are signed.
    #[arg(long)]
    service_account_signing_key_file: Option<PathBuf>,
    /// Identifiers of the API, for which tokens are meant that reach it; the issuers unless given.
    #[arg(long, value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// The maximum validity duration of a token created by the service account token issuer.
    #[arg(long, value_parser = duration)]
    service_account_max_token_expiration: Option<Duration>,
    /// Extends the tokens of pods to a year, for clients that read theirs only once.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    service_account_extend_token_expiration: bool,
    /// Overrides the URI of the key set in the discovery document.
    #[arg(long)]
    service_account_jwks_uri: Option<String>,
    /// Ordered list of plug-ins to do authorization on secure port; Node,RBAC is what there is.
    #[arg(long, value_delimiter = ',', default_value = "Node,RBAC")]
    authorization_mode: Vec<String>,
    /// Admission plugins that should be disabled although they are in the default enabled plugins list.
    #[arg(long, value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// The maximum number of non-mutating requests in flight.
    #[arg(long, default_value_t = 400)]
    max_requests_inflight: usize,
    /// The maximum number of mutating requests in flight.
    #[arg(long, default_value_t = 200)]
    max_mutating_requests_inflight: usize,
    /// Amount of time to retain events; 0 keeps them.
    #[arg(long, default_value = "1h0m0s", value_parser = duration)]
    event_ttl: Duration,
    #[command(flatten)]
    logging: LoggingArgs,
}

fn cidr(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let (address, length) = text.split_once('/').ok_or("expected ADDRESS/LENGTH")?;
    let address = address.parse().map_err(|_| format!("{address:?} is no IPv4 address"))?;
    match length.parse() {
        Ok(length) if (8..=30).contains(&length) => Ok((address, length)),
        _ => Err(format!("the length of the prefix must be between 8 and 30, not {length:?}")),
    }
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').ok_or("expected FIRST-LAST")?;
    let parse = |t: &str| t.parse::<u16>().map_err(|_| format!("{t:?} is no port"));
    match (parse(first)?, parse(last)?) {
        (first, last) if 0 < first && first <= last => Ok(first..=last),
        _ => Err("the first port must be positive and not above the last".into()),
    }
}

impl Args {
    fn request_headers(&self, problems: &mut Vec<String>) -> Published {
        let mut read = |path: &PathBuf| match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                problems.push(format!("could not read {}: {error}", path.display()));
                String::new()
            }
        };
        Published {
            client_ca: read(&self.client_ca_file),
            ca: self.requestheader_client_ca_file.as_ref().map(&mut read),
            allowed_names: self.requestheader_allowed_names.clone(),
            username_headers: self.requestheader_username_headers.clone(),
            group_headers: self.requestheader_group_headers.clone(),
            extra_prefixes: self.requestheader_extra_headers_prefix.clone(),
            uid_headers: self.requestheader_uid_headers.clone(),
        }
    }

    fn config(&self) -> Result<Config, Vec<String>> {
        let mut problems = Vec::new();
        let tls = match (&self.etcd_cafile, &self.etcd_certfile, &self.etcd_keyfile) {
            (Some(ca), Some(cert), Some(key)) => {
                Some(EtcdTls { ca: ca.clone(), cert: cert.clone(), key: key.clone() })
            }
            (None, None, None) => None,
            _ => {
                problems
                    .push("--etcd-cafile, --etcd-certfile and --etcd-keyfile must be given together".into());
                None
            }
        };
        if tls.is_none() && self.etcd_servers.iter().any(|s| s.starts_with("https://")) {
            problems.push(
                "--etcd-servers with https:// needs --etcd-cafile, --etcd-certfile and --etcd-keyfile".into(),
            );
        }
        if tls.is_some() && self.etcd_servers.iter().any(|s| s.starts_with("http://")) {
            problems.push("--etcd-cafile makes no sense for --etcd-servers with http://".into());
        }
        if !self.etcd_prefix.starts_with('/') {
            problems.push(format!("--etcd-prefix {:?} must begin with '/'", self.etcd_prefix));
        }
        let mut modes = self.authorization_mode.clone();
        modes.sort();
        if modes != ["Node", "RBAC"] {
            problems.push("--authorization-mode must be Node,RBAC".into());
        }
        if self.service_account_signing_key_file.is_some() && self.service_account_issuer.is_empty() {
            problems.push("--service-account-signing-key-file needs --service-account-issuer".into());
        }
        let front_proxy = match (&self.proxy_client_cert_file, &self.proxy_client_key_file) {
            (Some(cert), Some(key)) => Some(Client { cert: cert.clone(), key: key.clone() }),
            (None, None) => None,
            _ => {
                problems.push(
                    "--proxy-client-cert-file and --proxy-client-key-file must be given together".into(),
                );
                None
            }
        };
        let request_headers = self.request_headers(&mut problems);
        let specific = self.bind_address.iter().find(|a| !a.is_unspecified() && !a.is_loopback());
        let advertise = self.advertise_address.or(specific.copied()).or(self.bind_address.first().copied());
        let advertise = advertise.filter(|a| !a.is_unspecified());
        if advertise.is_none() {
            problems.push(
                "--advertise-address is needed when --bind-address names no address of the machine".into(),
            );
        }
        match (problems.is_empty(), advertise) {
            (true, Some(advertise)) => Ok(Config {
                etcd: EtcdConfig {
                    servers: self.etcd_servers.clone(),
                    tls,
                    prefix: self.etcd_prefix.clone(),
                },
                bind: self.bind_address.clone(),
                port: self.secure_port,
                advertise,
                tls: ServerTls {
                    cert: self.tls_cert_file.clone(),
                    key: self.tls_private_key_file.clone(),
                    client_ca: Some(self.client_ca_file.clone()),
                },
                service_range: self.service_cluster_ip_range,
                node_ports: self.service_node_port_range.clone(),
                tokens: TokenOptions {
                    issuers: self.service_account_issuer.clone(),
                    api_audiences: self.api_audiences.clone(),
                    key_files: self.service_account_key_file.clone(),
                    signing_key_file: self.service_account_signing_key_file.clone(),
                    max_expiration: self
                        .service_account_max_token_expiration
                        .and_then(|d| jiff::SignedDuration::try_from(d).ok()),
                    extend_expiration: self.service_account_extend_token_expiration,
                    jwks_uri: self.service_account_jwks_uri.clone(),
                },
                front_proxy,
                request_headers,
                disabled_admission: self.disable_admission_plugins.clone(),
                max_reads: self.max_requests_inflight,
                max_writes: self.max_mutating_requests_inflight,
                event_ttl: self.event_ttl,
                compaction_interval: self.etcd_compaction_interval,
                clock: Clock::system(),
            }),
            _ => Err(problems),
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    component::logging::init(&args.logging, "kube-apiserver");
    let config = match args.config() {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                eprintln!("error: {problem}");
            }
            return ExitCode::FAILURE;
        }
    };
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Documents nest, and what reads them recurses. Stack that is not used costs address space alone.
        .thread_stack_size(8 << 20)
        .worker_threads(2)
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    runtime.block_on(async {
        let shutdown = component::shutdown::signals();
        component::memory::trimmed_after_start(apiserver::run(config, shutdown))
            .await
            .context("the API server stopped")
    })
}
