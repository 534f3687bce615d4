//! What a cluster is made of: its name, nodes, addresses and ports, and where its files lie.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::components::Store;
use serde::{Deserialize, Serialize};

use crate::network::Cidr;

/// The range of pod addresses; every node gets a /24 of it.
pub const POD_RANGE: &str = "10.244.0.0/16";
/// The range of Service addresses.
pub const SERVICE_RANGE: &str = "10.96.0.0/12";
/// The address of the Service `kubernetes`.
pub const KUBERNETES_SERVICE_IP: &str = "10.96.0.1";
/// The address of the Service `kube-dns`.
pub const DNS_IP: &str = "10.96.0.10";
/// The domain of the cluster's names.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// The range of node ports.
pub const NODE_PORT_RANGE: &str = "30000-32767";
/// The name of a cluster that was not given one.
pub const DEFAULT_NAME: &str = "coxswain";
/// The most nodes that a cluster on one machine may have: their addresses are .11 and up in a /24.
pub const MAX_NODES: usize = 200;

/// What is wrong with a cluster's name or its file. Trying again does not help.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The name cannot be part of interface, namespace and file names.
    #[error(
        "cluster name {0:?} is not usable: use 1 to 24 lower-case letters, digits and '-', starting with a letter"
    )]
    Name(String),
    /// There is no such cluster.
    #[error("there is no cluster {name:?} in {}: create it with `coxswain up`", .dir.display())]
    Absent {
        /// The cluster's name.
        name: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// The file that describes the cluster cannot be read or written.
    #[error("could not use {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Where a cluster's files lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Holds clusters, each in a directory of its name.
    pub root: PathBuf,
    /// What survives a reboot: certificates, data, logs, the nodes' disks, the journal.
    pub state: PathBuf,
    /// What does not: sockets and pid files.
    pub run: PathBuf,
}

impl Paths {
    /// The paths of the cluster `name` below the state directory `root`.
    pub fn new(root: &Path, name: &str) -> Self {
        Self { root: root.to_owned(), state: root.join(name), run: Path::new("/run/coxswain").join(name) }
    }

    /// The file that describes the cluster.
    pub fn config(&self) -> PathBuf {
        self.state.join("cluster.json")
    }

    /// A file of the certificates' directory.
    pub fn pki(&self, file: &str) -> PathBuf {
        self.state.join("pki").join(file)
    }

    /// The kubeconfig of a component or of the admin.
    pub fn kubeconfig(&self, who: &str) -> PathBuf {
        self.state.join("kubeconfig").join(format!("{who}.conf"))
    }

    /// The log file of a process.
    pub fn log(&self, id: &str) -> PathBuf {
        self.state.join("logs").join(format!("{id}.log"))
    }

    /// A file or directory of a node's disk and settings.
    pub fn node(&self, node: &str) -> PathBuf {
        self.state.join("nodes").join(node)
    }

    /// The directory of a node's sockets.
    pub fn node_run(&self, node: &str) -> PathBuf {
        self.run.join(node)
    }

    /// The socket of a node's containerd.
    pub fn containerd_socket(&self, node: &str) -> PathBuf {
        self.node_run(node).join("containerd.sock")
    }

    /// The record of a running process.
    pub fn pid(&self, id: &str) -> PathBuf {
        self.run.join("pids").join(format!("{}.json", id.replace('/', "@")))
    }

    /// The supervisor's socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("supervisor.sock")
    }

    /// The journal of changes to the host.
    pub fn journal(&self) -> PathBuf {
        self.state.join("journal.jsonl")
    }

    /// The static program that holds a node's namespaces.
    pub fn pause(&self) -> PathBuf {
        self.state.join("bin").join("pause")
    }

    /// The mark of a node that the user has stopped.
    pub fn stopped(&self, node: &str) -> PathBuf {
        self.node(node).join("stopped")
    }
}

/// The ports on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The API server's.
    pub api: u16,
    /// etcd's, for clients.
    pub etcd: u16,
    /// etcd's, for its peers.
    pub etcd_peer: u16,
    /// The scheduler's health and metrics.
    pub scheduler: u16,
    /// The controller manager's health and metrics.
    pub controller_manager: u16,
}

impl Ports {
    /// Upstream's ports.
    pub const DEFAULT: Self =
        Self { api: 6443, etcd: 2379, etcd_peer: 2380, scheduler: 10259, controller_manager: 10257 };
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name, and its host name.
    pub name: String,
    /// Its address on the bridge.
    pub ip: Ipv4Addr,
}

/// A cluster: written by `up`, read by the supervisor and every command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Where the components' binaries lie.
    pub bin_dir: PathBuf,
    /// The range of the bridge.
    pub subnet: Cidr,
    /// The ports on the host.
    pub ports: Ports,
    /// What keeps the state.
    #[serde(default = "Store::of_old")]
    pub store: Store,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Whether packets may leave the nodes for the world.
    pub egress: bool,
    /// containerd's snapshotter: overlayfs, or native where an overlay cannot be stacked.
    pub snapshotter: String,
    /// The directory of the CNI plugins.
    pub cni_bin_dir: PathBuf,
    /// The servers that nodes ask for names outside of the cluster; none without egress.
    #[serde(default)]
    pub dns_upstream: Vec<std::net::IpAddr>,
    /// Flags that the user adds, per component.
    #[serde(default)]
    pub extra_args: BTreeMap<String, Vec<String>>,
}

impl Cluster {
    /// Checks a name: it becomes part of the names of files, cgroups and namespaces, and of socket paths, which
    /// hold 107 bytes.
    ///
    /// # Errors
    /// [`ClusterError::Name`].
    pub fn check_name(name: &str) -> Result<(), ClusterError> {
        let fine = (1..=24).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && !name.ends_with('-')
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fine { Ok(()) } else { Err(ClusterError::Name(name.to_owned())) }
    }

    /// Reads the description of a cluster.
    ///
    /// # Errors
    /// [`ClusterError::Absent`] when there is none.
    pub fn load(paths: &Paths, name: &str) -> Result<Self, ClusterError> {
        let path = paths.config();
        let error = |source| ClusterError::File { path: path.clone(), source };
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| error(e.into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(ClusterError::Absent { name: name.to_owned(), dir: paths.root.clone() })
            }
            Err(e) => Err(error(e)),
        }
    }

    /// Writes the description, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, paths: &Paths) -> Result<(), ClusterError> {
        let path = paths.config();
        let write = || {
            let text = serde_json::to_vec_pretty(self)?;
            write_atomically(&path, &text, 0o644)
        };
        write().map_err(|source| ClusterError::File { path: path.clone(), source })
    }

    /// What the names of namespaces, cgroups and contexts begin with.
    pub fn prefix(&self) -> String {
        prefix(&self.name)
    }

    /// The name of a node's network namespace.
    pub fn netns(&self, node: &str) -> String {
        format!("{}-{node}", self.prefix())
    }

    /// The name of the network namespace that holds the bridge.
    pub fn lan(&self) -> String {
        format!("{}-lan", self.prefix())
    }

    /// The host's address on the bridge, where nodes reach the API server.
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.host(1)
    }

    /// The cgroup of the cluster, below the root of every hierarchy.
    pub fn cgroup(&self) -> String {
        self.prefix()
    }

    /// The cgroup below which a node's pods live.
    pub fn node_cgroup(&self, node: &str) -> String {
        format!("{}/{node}", self.cgroup())
    }

    /// The node called `name`.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.name == name)
    }

    /// Adds nodes until there are `count`, named and addressed in order.
    pub fn grow(&mut self, count: usize) {
        for number in self.nodes.len() + 1..=count.min(MAX_NODES) {
            let host = u8::try_from(10 + number).expect("MAX_NODES keeps it below 255");
            self.nodes.push(Node { name: format!("node-{number}"), ip: self.subnet.host(host) });
        }
    }
}

/// What the names of a cluster's namespaces, cgroups and contexts begin with.
pub fn prefix(name: &str) -> String {
    if name.starts_with(DEFAULT_NAME) { name.to_owned() } else { format!("{DEFAULT_NAME}-{name}") }
}

/// A short number that differs between clusters, for names and metrics that must be short.
pub fn short_hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Writes a file so that a reader, or a crash, finds the old content or the new one.
///
/// # Errors
/// When the file or its directory cannot be written.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    replace(path, content, mode, true)
}

/// Replaces a file; `durably` waits until the content would survive the machine's power being cut.
fn replace(path: &Path, content: &[u8], mode: u32, durably: bool) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        if durably {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // The error that matters is the one of writing.
        let _ = fs::remove_file(&temporary);
    })
}

/// Writes a file that can be made again, unless it already says exactly this; returns whether it was written.
///
/// # Errors
/// When the file cannot be written.
pub fn write_if_changed(path: &Path, content: &[u8], mode: u32) -> io::Result<bool> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    replace(path, content, mode, false).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str) -> Cluster {
        Cluster {
            name: name.into(),
            bin_dir: "/bin".into(),
            subnet: "172.30.0.0/24".parse().unwrap(),
            ports: Ports::DEFAULT,
            store: Default::default(),
            nodes: Vec::new(),
            egress: false,
            snapshotter: "overlayfs".into(),
            cni_bin_dir: "/usr/lib/cni".into(),
            dns_upstream: Vec::new(),
            extra_args: BTreeMap::new(),
        }
    }

    #[test]
    fn names_that_break_paths_are_refused() {
        for name in ["coxswain", "a", "t-1", "abcdefghijklmnopqrstuvwx"] {
            assert!(Cluster::check_name(name).is_ok(), "{name}");
        }
        for name in ["", "..", "a/b", "A", "1a", "a-", "a.b", "abcdefghijklmnopqrstuvwxy", "-a", "ä"] {
            assert!(Cluster::check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn everything_of_a_cluster_begins_with_its_prefix() {
        assert_eq!(cluster("coxswain").netns("node-1"), "coxswain-node-1");
        assert_eq!(cluster("t1").netns("node-1"), "coxswain-t1-node-1");
        assert_eq!(cluster("t1").node_cgroup("node-2"), "coxswain-t1/node-2");
    }

    #[test]
    fn a_grown_cluster_keeps_the_nodes_that_it_had() {
        let mut cluster = cluster("coxswain");
        cluster.grow(2);
        let before = cluster.nodes.clone();
        cluster.grow(3);
        assert_eq!(cluster.nodes[..2], before);
        assert_eq!(cluster.nodes[2], Node { name: "node-3".into(), ip: Ipv4Addr::new(172, 30, 0, 13) });
        cluster.grow(1);
        assert_eq!(cluster.nodes.len(), 3);
    }

    #[test]
    fn the_longest_socket_path_fits_a_socket_address() {
        let paths = Paths::new(Path::new("/var/lib/coxswain"), &"n".repeat(24));
        assert!(paths.containerd_socket("node-200").as_os_str().len() + ".ttrpc".len() < 108);
    }
}
