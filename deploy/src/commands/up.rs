//! `coxswain up`: brings the cluster up, or to what is wanted now. Whatever is there already stays.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use component::clock::Clock;
use serde_json::{Value, json};

use super::{Target, nodes_ready, wait_for};
use crate::cluster::{Cluster, DEFAULT_NAME, DNS_IP, MAX_NODES, Ports, write_if_changed};
use crate::components::{self, Spec, Store, specs};
use crate::journal::{Change, Journal};
use crate::network::{self, Cidr};
use crate::rest::Rest;
use crate::steps::{Steps, seconds, tail};
use crate::supervise::{Client, Phase, Request, State};
use crate::{certs, cgroups, containerd, host, images, kubeconfig};

/// What is wanted of the cluster.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct UpArgs {
    /// How many nodes; without it three, or as many as there are.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MAX_NODES as u64))]
    pub nodes: Option<u64>,
    /// Where the components' binaries lie; without it beside this program.
    #[arg(long, value_name = "DIR", env = "COXSWAIN_BIN_DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Let packets leave the nodes for the world.
    #[arg(long)]
    pub egress: bool,
    /// The range of the bridge, a /24; without it one that nothing on this machine uses.
    #[arg(long, value_name = "CIDR", value_parser = network::subnet)]
    pub subnet: Option<Cidr>,
    /// The API server's port.
    #[arg(long)]
    pub api_port: Option<u16>,
    /// Keep the cluster's state in etcd, which must be installed, rather than in etcd-lite.
    #[arg(long, conflicts_with = "etcd_servers")]
    pub etcd: bool,
    /// Keep the cluster's state in an etcd that is there already: its URLs, comma separated. A cluster that goes down
    /// leaves it there.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// The CA of that etcd.
    #[arg(long, value_name = "FILE", requires_all = ["etcd_servers", "etcd_certfile", "etcd_keyfile"])]
    pub etcd_cafile: Option<PathBuf>,
    /// The certificate that it knows this cluster by.
    #[arg(long, value_name = "FILE", requires_all = ["etcd_cafile", "etcd_keyfile"])]
    pub etcd_certfile: Option<PathBuf>,
    /// The key of the certificate.
    #[arg(long, value_name = "FILE", requires_all = ["etcd_cafile", "etcd_certfile"])]
    pub etcd_keyfile: Option<PathBuf>,
    /// A flag for a component, such as kubelet=--max-pods=50; may be given several times and is remembered.
    #[arg(long = "extra-arg", value_name = "COMPONENT=FLAG", value_parser = extra_arg)]
    pub extra_args: Vec<(String, String)>,
    /// Leave the kubeconfig of the user alone.
    #[arg(long)]
    pub no_kubeconfig: bool,
    /// How many seconds to wait for the cluster.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub timeout: u64,
}

impl UpArgs {
    fn names_a_store(&self) -> bool {
        self.etcd || !self.etcd_servers.is_empty()
    }

    /// What the API server would refuse of the URLs and files.
    fn check_store(&self) -> anyhow::Result<()> {
        for url in &self.etcd_servers {
            match (url.split_once("://"), &self.etcd_cafile) {
                (Some(("https", _)), None) => {
                    bail!("{url} needs --etcd-cafile, --etcd-certfile and --etcd-keyfile")
                }
                (Some(("http", _)), Some(_)) => bail!("--etcd-cafile makes no sense for {url}"),
                (Some(("http" | "https", _)), _) => {}
                _ => bail!("--etcd-servers: {url:?} is no http:// or https:// URL"),
            }
        }
        Ok(())
    }

    fn store(&self) -> Store {
        let absolute = |file: &Option<PathBuf>| {
            file.as_ref().map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone()))
        };
        if self.etcd {
            Store::Etcd
        } else if self.etcd_servers.is_empty() {
            Store::Lite
        } else {
            Store::External {
                servers: self.etcd_servers.clone(),
                ca: absolute(&self.etcd_cafile),
                cert: absolute(&self.etcd_certfile),
                key: absolute(&self.etcd_keyfile),
            }
        }
    }
}

const COMPONENTS: [&str; 8] = [
    "etcd",
    "etcd-lite",
    "kube-apiserver",
    "kube-scheduler",
    "kube-controller-manager",
    "kubelet",
    "kube-proxy",
    "containerd",
];

fn extra_arg(text: &str) -> Result<(String, String), String> {
    let (component, flag) = text.split_once('=').ok_or("it is COMPONENT=FLAG")?;
    if !COMPONENTS.contains(&component) {
        return Err(format!("no component is called {component:?}; there are: {}", COMPONENTS.join(", ")));
    }
    if !flag.starts_with('-') {
        return Err(format!("{flag:?} is no flag"));
    }
    Ok((component.to_owned(), flag.to_owned()))
}

/// Brings the cluster up.
///
/// # Errors
/// With the step that failed, why, and the end of its log.
pub async fn run(target: &Target, args: &UpArgs) -> anyhow::Result<()> {
    let steps = Steps::new();
    let patience = Duration::from_secs(args.timeout);
    let step = steps.begin("this machine");
    Cluster::check_name(&target.name)?;
    args.check_store()?;
    let cni = cni_bin_dir();
    let before = Cluster::load(&target.paths, &target.name).ok();
    let store = before.map_or_else(|| args.store(), |before| before.store);
    let problems = host::obstacles(&cni, store == Store::Etcd);
    if !problems.is_empty() {
        bail!("this machine is not prepared:\n  - {}", problems.join("\n  - "));
    }
    fs::create_dir_all(&target.paths.state)
        .with_context(|| format!("could not make {}", target.paths.state.display()))?;
    let _lock = target.lock().await?;
    let cluster = plan(target, args, cni)?;
    check_binaries(&cluster.bin_dir)?;
    // A second attempt after a failure goes on with the same ranges and ports.
    cluster.save(&target.paths)?;
    let mut journal = Journal::open(&target.paths.journal())?;
    step.done(format!("{} nodes on {}", cluster.nodes.len(), cluster.subnet));

    let step = steps.begin("network");
    // Before anything else, so that no packet for the cluster ever leaves by the host's default route.
    network::fence(&cluster, &mut journal)?;
    prepare_run_dir(target, &mut journal)?;
    cgroups::create_root(&cluster.cgroup(), &mut journal)?;
    network::bridge(&cluster, &mut journal)?;
    for node in &cluster.nodes {
        journal.record(Change::Namespace { name: cluster.netns(&node.name) })?;
    }
    if cluster.egress {
        network::open_egress(&cluster, &mut journal)?;
    }
    step.done(format!("the host is {}", cluster.gateway()));

    let step = steps.begin("certificates and settings");
    let made = certs::ensure(&cluster, &target.paths, Clock::system().now())?;
    kubeconfig::write_all(&cluster, &target.paths)?;
    write_settings(&cluster, target)?;
    step.done(match made.len() {
        0 => "all there".to_owned(),
        n => format!("{n} certificates made"),
    });

    let mut supervisor = start(target).await?;
    follow(&mut supervisor, &cluster, target, &steps, patience).await?;

    let rest = Rest::admin(&cluster, &target.paths)?;
    let step = steps.begin("cluster DNS");
    let made = create_dns(&rest).await.context("could not create the Service kube-dns")?;
    step.done(if made { format!("kube-dns at {DNS_IP}") } else { "kube-dns is there".into() });

    let step = steps.begin("nodes");
    let running = cluster.nodes.iter().map(|n| n.name.clone());
    let wanted: Vec<_> = running.filter(|name| !target.paths.stopped(name).exists()).collect();
    let ready = nodes_ready(&rest, &wanted, patience, |text| step.note(text)).await;
    ready.map_err(|error| with_node_logs(error, &wanted, target))?;
    step.done(format!("{} Ready", wanted.len()));

    if !args.no_kubeconfig {
        let step = steps.begin("kubeconfig");
        let file = kubeconfig::install(&cluster, &target.paths, &mut journal).await?;
        step.done(format!("context {} in {}", cluster.prefix(), file.display()));
    }
    eprintln!("the cluster {:?} is up after {}", cluster.name, seconds(steps.elapsed()));
    Ok(())
}

fn cni_bin_dir() -> PathBuf {
    let dirs = ["/usr/lib/cni", "/opt/cni/bin"].map(PathBuf::from);
    dirs.iter().find(|dir| dir.join("host-local").exists()).unwrap_or(&dirs[0]).clone()
}

/// The cluster as it is wanted.
fn plan(target: &Target, args: &UpArgs, cni_bin_dir: PathBuf) -> anyhow::Result<Cluster> {
    let bin_dir = match &args.bin_dir {
        Some(dir) => fs::canonicalize(dir).with_context(|| format!("could not find {}", dir.display()))?,
        None => std::env::current_exe()?.parent().unwrap_or(Path::new("/")).to_owned(),
    };
    let before = match Cluster::load(&target.paths, &target.name) {
        Ok(cluster) => Some(cluster),
        Err(crate::cluster::ClusterError::Absent { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let mut cluster = match &before {
        Some(before) => keep(before.clone(), args)?,
        None => Cluster {
            name: target.name.clone(),
            bin_dir: bin_dir.clone(),
            subnet: args.subnet.map_or_else(network::choose_subnet, Ok)?,
            ports: choose_ports(&target.name, args.api_port)?,
            store: args.store(),
            nodes: Vec::new(),
            egress: args.egress,
            snapshotter: if host::overlay_works(&target.paths.state) { "overlayfs" } else { "native" }.into(),
            cni_bin_dir,
            dns_upstream: if args.egress { upstream_servers() } else { Vec::new() },
            extra_args: BTreeMap::new(),
        },
    };
    cluster.bin_dir = bin_dir;
    let default = if before.is_some() { cluster.nodes.len() } else { 3 };
    let nodes = args.nodes.map_or(default, |n| usize::try_from(n).unwrap_or(MAX_NODES));
    if nodes < cluster.nodes.len() {
        bail!(
            "the cluster has {} nodes and cannot shrink to {nodes}: stop one with `coxswain node stop`, or begin anew \
             with `coxswain down`",
            cluster.nodes.len()
        );
    }
    cluster.grow(nodes);
    if !args.extra_args.is_empty() {
        cluster.extra_args.clear();
        for (component, flag) in &args.extra_args {
            cluster.extra_args.entry(component.clone()).or_default().push(flag.clone());
        }
    }
    Ok(cluster)
}

/// Refuses what cannot be changed on a cluster that exists.
fn keep(cluster: Cluster, args: &UpArgs) -> anyhow::Result<Cluster> {
    let fixed = [
        ("--subnet", args.subnet.is_some_and(|subnet| subnet != cluster.subnet)),
        ("--api-port", args.api_port.is_some_and(|port| port != cluster.ports.api)),
        ("--egress", args.egress && !cluster.egress),
        ("--etcd or --etcd-servers", args.names_a_store() && args.store() != cluster.store),
    ];
    for (flag, changed) in fixed {
        if changed {
            bail!("{flag} cannot be changed on a cluster that exists: begin anew with `coxswain down`");
        }
    }
    Ok(cluster)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// The host's ports: upstream's, or the next that are free. The API server's is changed only for a cluster that was
/// given a name, as people know it.
fn choose_ports(name: &str, api: Option<u16>) -> anyhow::Result<Ports> {
    let mut taken = Vec::new();
    let mut next = |first: u16| -> anyhow::Result<u16> {
        let port = (first..first.saturating_add(2000)).find(|port| !taken.contains(port) && is_free(*port));
        let port = port.with_context(|| format!("no port from {first} on is free"))?;
        taken.push(port);
        Ok(port)
    };
    let default = Ports::DEFAULT;
    let api = match api {
        Some(port) => port,
        None if name == DEFAULT_NAME => default.api,
        None => next(default.api)?,
    };
    if !is_free(api) {
        bail!("port {api} is in use on this machine: name another with --api-port");
    }
    Ok(Ports {
        api,
        etcd: next(default.etcd)?,
        etcd_peer: next(default.etcd_peer)?,
        scheduler: next(default.scheduler)?,
        controller_manager: next(default.controller_manager)?,
    })
}

/// The host's name servers that a node can reach: none on the host's own loopback.
fn upstream_servers() -> Vec<IpAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok());
    servers.filter(|ip: &IpAddr| !ip.is_loopback()).collect()
}

fn check_binaries(dir: &Path) -> anyhow::Result<()> {
    // etcd-lite makes the backups, whatever keeps the state.
    let ours = COMPONENTS.iter().filter(|name| name.starts_with("kube") || **name == "etcd-lite");
    let missing: Vec<_> = ours.filter(|name| !dir.join(name).exists()).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "{} lack in {}: build them with `cargo build --release`, or say where they are with --bin-dir",
        missing.join(", "),
        dir.display()
    )
}

fn prepare_run_dir(target: &Target, journal: &mut Journal) -> anyhow::Result<()> {
    let run = &target.paths.run;
    if let Some(parent) = run.parent() {
        journal.record(Change::Directory { path: parent.to_owned() })?;
    }
    journal.record(Change::Tree { path: run.clone() })?;
    fs::create_dir_all(run).with_context(|| format!("could not make {}", run.display()))
}

/// Writes what the nodes read: the built-in images, the program that holds a node, and each node's settings.
fn write_settings(cluster: &Cluster, target: &Target) -> anyhow::Result<()> {
    let paths = &target.paths;
    write_if_changed(&paths.pause(), images::pause_program(), 0o755)?;
    let (archive, written) = images::built_in_archive()?;
    let dir = paths.state.join("images");
    write_if_changed(&dir.join("built-in.tar"), &archive, 0o644)?;
    write_if_changed(&dir.join("built-in.json"), &serde_json::to_vec(&written)?, 0o644)?;
    let servers = cluster.dns_upstream.iter().map(|ip| format!("nameserver {ip}\n"));
    let resolv_conf: String = servers.collect();
    for node in &cluster.nodes {
        let dir = paths.node(&node.name);
        let settings = containerd::settings(cluster, paths, &node.name);
        write_if_changed(&dir.join("containerd.toml"), settings.as_bytes(), 0o644)?;
        write_if_changed(&dir.join("network.json.tmpl"), containerd::network_template().as_bytes(), 0o644)?;
        write_if_changed(&dir.join("resolv.conf"), resolv_conf.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Connects to the supervisor, starting one if need be, and has it look at the cluster anew.
async fn start(target: &Target) -> anyhow::Result<Client> {
    let mut client = match Client::connect(&target.paths.socket()).await {
        Ok(client) => client,
        Err(_) => target.start_supervisor().await?,
    };
    client.ask(&Request::Reload).await?;
    Ok(client)
}

/// The processes behind a step of the display.
fn stages(all: &[Spec]) -> Vec<(&'static str, Vec<&Spec>)> {
    let of =
        |wanted: &[&str]| all.iter().filter(|spec| wanted.contains(&spec.component())).collect::<Vec<_>>();
    vec![
        ("etcd", of(&["etcd"])),
        ("etcd-lite", of(&["etcd-lite"])),
        ("API server", of(&["kube-apiserver"])),
        ("container runtimes", of(&[components::MACHINE, "containerd"])),
        ("control plane", of(&["kube-scheduler", "kube-controller-manager"])),
        ("kubelets and proxies", of(&["kubelet", "kube-proxy"])),
    ]
}

/// How often a process may die in the course of `up` before that is a failure.
const DEATHS: u32 = 3;

/// Follows the processes until all of them do their work.
async fn follow(
    supervisor: &mut Client,
    cluster: &Cluster,
    target: &Target,
    steps: &Steps,
    patience: Duration,
) -> anyhow::Result<()> {
    let all = specs(cluster, &target.paths);
    let first = supervisor.ask(&Request::Status).await?;
    let deaths = |state: &State, id: &str| state.units.get(id).map_or(0, |unit| unit.restarts);
    for (name, specs) in stages(&all).into_iter().filter(|(_, specs)| !specs.is_empty()) {
        let step = steps.begin(name);
        let check = |state: &State| {
            let mut waiting = Vec::new();
            for spec in &specs {
                let unit = state.units.get(&spec.id).cloned().unwrap_or_default();
                if unit.phase == Phase::Failed && unit.restarts >= deaths(&first, &spec.id) + DEATHS {
                    let why = unit.message.unwrap_or_default();
                    bail!("{} does not stay up: {why}; {}", spec.id, tail(&spec.log, 15));
                }
                if !matches!(unit.phase, Phase::Ready | Phase::Stopped) {
                    waiting.push(match unit.message {
                        Some(message) => format!("{}: {message}", spec.id),
                        None => spec.id.clone(),
                    });
                }
            }
            step.note(waiting.join(", "));
            Ok(waiting.is_empty().then_some(specs.len()))
        };
        let count = wait_for(supervisor, patience, check).await.with_context(|| {
            let logs: Vec<_> = specs.iter().map(|spec| spec.log.display().to_string()).collect();
            format!("{name} did not come up (logs: {})", logs.join(", "))
        })?;
        step.done(if count > 1 { format!("{count} processes") } else { String::new() });
    }
    Ok(())
}

fn with_node_logs(error: anyhow::Error, nodes: &[String], target: &Target) -> anyhow::Error {
    let text = format!("{error:#}");
    let guilty = nodes.iter().find(|node| text.contains(node.as_str()));
    match guilty {
        Some(node) => {
            let id = format!("{node}/kubelet");
            anyhow::anyhow!("{text}\n{id}: {}", tail(&target.paths.log(&id), 15))
        }
        None => error,
    }
}

/// The Service by which habits know the cluster's DNS. kube-proxy answers at its address on every node.
fn dns_service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true"},
        },
        "spec": {
            "clusterIP": DNS_IP,
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    })
}

async fn create_dns(rest: &Rest) -> anyhow::Result<bool> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}});
    rest.create("/api/v1/namespaces", &namespace).await?;
    Ok(rest.create("/api/v1/namespaces/kube-system/services", &dns_service()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_flags_name_a_component_and_a_flag() {
        assert_eq!(extra_arg("kubelet=--max-pods=7"), Ok(("kubelet".into(), "--max-pods=7".into())));
        for (bad, part) in
            [("kubelet", "COMPONENT=FLAG"), ("cubelet=--v=4", "there are"), ("kubelet=v", "no flag")]
        {
            assert!(extra_arg(bad).unwrap_err().contains(part), "{bad}");
        }
    }

    #[test]
    fn urls_of_an_etcd_go_with_their_certificates() {
        let cases = [
            ("http://10.0.0.1:2379", false, Ok(())),
            ("https://10.0.0.1:2379", true, Ok(())),
            ("https://10.0.0.1:2379", false, Err("needs --etcd-cafile")),
            ("http://10.0.0.1:2379", true, Err("makes no sense")),
            ("10.0.0.1:2379", false, Err("is no http:// or https:// URL")),
        ];
        for (url, certificates, expected) in cases {
            let file = |name: &str| certificates.then(|| PathBuf::from(name));
            let args = UpArgs {
                etcd_servers: vec![url.into()],
                etcd_cafile: file("ca"),
                etcd_certfile: file("cert"),
                etcd_keyfile: file("key"),
                ..UpArgs::default()
            };
            match (args.check_store(), expected) {
                (Ok(()), Ok(())) => {}
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{url}: {error}"),
                (result, _) => panic!("{url} {certificates}: {result:?}"),
            }
        }
    }

    #[test]
    fn what_a_cluster_is_built_on_stays() {
        let mut cluster = Cluster {
            name: "t".into(),
            bin_dir: "/".into(),
            subnet: "172.30.0.0/24".parse().unwrap(),
            ports: Ports::DEFAULT,
            store: Store::default(),
            nodes: Vec::new(),
            egress: true,
            snapshotter: "overlayfs".into(),
            cni_bin_dir: "/usr/lib/cni".into(),
            dns_upstream: Vec::new(),
            extra_args: BTreeMap::new(),
        };
        let same = UpArgs { subnet: Some(cluster.subnet), egress: true, ..UpArgs::default() };
        assert!(keep(cluster.clone(), &same).is_ok());
        assert!(keep(cluster.clone(), &UpArgs::default()).is_ok());
        let port = UpArgs { api_port: Some(1), ..UpArgs::default() };
        assert!(keep(cluster.clone(), &port).unwrap_err().to_string().contains("--api-port"));
        let etcd = UpArgs { etcd: true, ..UpArgs::default() };
        assert!(keep(cluster.clone(), &etcd).unwrap_err().to_string().contains("--etcd"));
        cluster.store = Store::Etcd;
        assert!(keep(cluster.clone(), &etcd).is_ok() && keep(cluster.clone(), &UpArgs::default()).is_ok());
        cluster.egress = false;
        assert!(keep(cluster, &same).unwrap_err().to_string().contains("--egress"));
    }
}
