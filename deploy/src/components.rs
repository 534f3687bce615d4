//! The cluster's processes: what each is, with which flags it runs, and what it waits for.

mod store;

use std::path::{Path, PathBuf};

use crate::cluster::{
    CLUSTER_DOMAIN, Cluster, DNS_IP, NODE_PORT_RANGE, Node, POD_RANGE, Paths, SERVICE_RANGE, short_hash,
};

pub use store::Store;

/// How one finds out that a process does its work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// It does as soon as it runs.
    Running,
    /// A page answers 200 on a port of this host, over TLS, to this identity.
    Https {
        /// The port.
        port: u16,
        /// The page.
        path: &'static str,
        /// The name of the CA's files.
        ca: &'static str,
        /// The name of the client certificate's files.
        client: &'static str,
    },
    /// containerd answers on its socket and has the built-in images.
    Containerd,
    /// A page answers 200 without TLS in the node's network. Looked at for `status` only.
    NodeHttp {
        /// The port.
        port: u16,
    },
}

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A component on the host.
    Host,
    /// The first process of a node's namespaces: with it the node lives and dies.
    Machine,
    /// A component in a node's namespaces.
    OnNode,
}

/// A process of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Its name among all of them: `kube-apiserver`, `node-1/kubelet`.
    pub id: String,
    /// What it is.
    pub role: Role,
    /// The node to which it belongs.
    pub node: Option<String>,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// What it finds in its environment.
    pub env: Vec<(String, String)>,
    /// The cgroup in which it starts.
    pub cgroup: String,
    /// Its log.
    pub log: PathBuf,
    /// Those that must do their work before it starts.
    pub after: Vec<String>,
    /// How one finds out that it does its own.
    pub probe: Probe,
}

impl Spec {
    /// A mark of how it is started, by which a running one is told from what should run.
    pub fn mark(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// A mark of the program's file, by which `up` finds out that there is a newer one. A node's first process is the
    /// same whichever launcher started it.
    pub fn binary(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        use std::os::unix::fs::MetadataExt;
        let mut hasher = DefaultHasher::new();
        if self.role != Role::Machine
            && let Ok(file) = std::fs::metadata(&self.program)
        {
            (file.ino(), file.size(), file.mtime(), file.mtime_nsec()).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The component's name without its node.
    pub fn component(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or(&self.id)
    }
}

/// The name of a node's first process.
pub const MACHINE: &str = "machine";

/// Finds what the user means by the name of a component: `apiserver`, `kubelet@node-2`, `node-2/kubelet`.
///
/// # Errors
/// A sentence that names what there is.
pub fn find<'a>(ids: &'a [String], name: &str) -> Result<&'a str, String> {
    let wanted = match name.split_once('@') {
        Some((component, node)) => format!("{node}/{component}"),
        None => name.to_owned(),
    };
    let short = |id: &str| {
        let (node, component) = id.rsplit_once('/').map_or(("", id), |(node, component)| (node, component));
        let bare = component.strip_prefix("kube-").unwrap_or(component);
        if node.is_empty() { bare.to_owned() } else { format!("{node}/{bare}") }
    };
    let exact = ids.iter().find(|id| **id == wanted || short(id) == wanted);
    if let Some(id) = exact {
        return Ok(id);
    }
    let of_nodes: Vec<_> = ids
        .iter()
        .filter(|id| {
            id.contains('/')
                && (id.ends_with(&format!("/{wanted}")) || short(id).ends_with(&format!("/{wanted}")))
        })
        .collect();
    match of_nodes.as_slice() {
        [] => Err(format!("no component is called {name:?}; there are: {}", ids.join(", "))),
        [one] => Ok(one),
        several => {
            let names: Vec<_> = several.iter().map(|id| id.as_str()).collect();
            Err(format!("{name:?} runs on several nodes: say which of {}", names.join(", ")))
        }
    }
}

/// Everything that it takes to write down how the processes are started.
struct Writer<'a> {
    cluster: &'a Cluster,
    paths: &'a Paths,
}

/// All processes of the cluster.
pub fn specs(cluster: &Cluster, paths: &Paths) -> Vec<Spec> {
    let writer = Writer { cluster, paths };
    let mut all: Vec<Spec> = writer.store().into_iter().collect();
    all.extend([writer.apiserver(), writer.scheduler(), writer.controller_manager()]);
    for node in &cluster.nodes {
        all.extend([
            writer.machine(node),
            writer.containerd(node),
            writer.kubelet(node),
            writer.kube_proxy(node),
        ]);
    }
    all
}

/// The API server's flags that say where the state lies.
pub fn store_flags(cluster: &Cluster, paths: &Paths) -> Vec<String> {
    Writer { cluster, paths }.store_flags()
}

/// Turns lines of `--flag` and `value` into arguments.
fn flags<const N: usize>(flags: [(&str, String); N]) -> Vec<String> {
    flags.into_iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

impl Writer<'_> {
    fn pki(&self, file: &str) -> String {
        text(self.paths.pki(file))
    }

    fn spec(&self, id: &str, program: PathBuf, args: Vec<String>, after: &[&str], probe: Probe) -> Spec {
        let mut args = args;
        let component = id.rsplit('/').next().unwrap_or(id);
        args.extend(self.cluster.extra_args.get(component).into_iter().flatten().cloned());
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        // Nothing of the caller's: what runs must not depend on who happened to start it.
        let env = [("PATH", path), ("HOME", "/root"), ("RUST_BACKTRACE", "1")];
        Spec {
            id: id.to_owned(),
            role: Role::Host,
            node: None,
            program,
            args,
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            cgroup: format!("{}/control-plane", self.cluster.cgroup()),
            log: self.paths.log(id),
            after: after.iter().map(ToString::to_string).collect(),
            probe,
        }
    }

    fn ours(&self, name: &str) -> PathBuf {
        self.cluster.bin_dir.join(name)
    }

    fn apiserver(&self) -> Spec {
        let gateway = self.cluster.gateway();
        let mut args = self.store_flags();
        args.extend(flags([
            ("bind-address", format!("127.0.0.1,{gateway}")),
            ("secure-port", self.cluster.ports.api.to_string()),
            ("advertise-address", gateway.to_string()),
            ("tls-cert-file", self.pki("apiserver.crt")),
            ("tls-private-key-file", self.pki("apiserver.key")),
            ("client-ca-file", self.pki("ca.crt")),
            ("proxy-client-cert-file", self.pki("front-proxy-client.crt")),
            ("proxy-client-key-file", self.pki("front-proxy-client.key")),
            ("requestheader-client-ca-file", self.pki("front-proxy-ca.crt")),
            ("requestheader-allowed-names", "front-proxy-client".into()),
            ("service-account-issuer", format!("https://kubernetes.default.svc.{CLUSTER_DOMAIN}")),
            ("service-account-key-file", self.pki("sa.pub")),
            ("service-account-signing-key-file", self.pki("sa.key")),
            ("service-cluster-ip-range", SERVICE_RANGE.into()),
            ("service-node-port-range", NODE_PORT_RANGE.into()),
        ]));
        let probe = Probe::Https { port: self.cluster.ports.api, path: "/readyz", ca: "ca", client: "admin" };
        self.spec(
            "kube-apiserver",
            self.ours("kube-apiserver"),
            args,
            self.cluster.store.process().as_slice(),
            probe,
        )
    }

    fn serving(&self, name: &str) -> Vec<String> {
        flags([
            ("tls-cert-file", self.pki(&format!("{name}-serving.crt"))),
            ("tls-private-key-file", self.pki(&format!("{name}-serving.key"))),
            ("client-ca-file", self.pki("ca.crt")),
        ])
    }

    fn scheduler(&self) -> Spec {
        let port = self.cluster.ports.scheduler;
        let mut args = flags([
            ("kubeconfig", text(self.paths.kubeconfig("scheduler"))),
            ("leader-elect", "true".into()),
            ("bind-address", "127.0.0.1".into()),
            ("secure-port", port.to_string()),
        ]);
        args.extend(self.serving("scheduler"));
        let probe = Probe::Https { port, path: "/healthz", ca: "ca", client: "admin" };
        self.spec("kube-scheduler", self.ours("kube-scheduler"), args, &["kube-apiserver"], probe)
    }

    fn controller_manager(&self) -> Spec {
        let port = self.cluster.ports.controller_manager;
        let mut args = flags([
            ("kubeconfig", text(self.paths.kubeconfig("controller-manager"))),
            ("leader-elect", "true".into()),
            ("bind-address", "127.0.0.1".into()),
            ("secure-port", port.to_string()),
            ("cluster-cidr", POD_RANGE.into()),
            ("allocate-node-cidrs", "true".into()),
            ("node-cidr-mask-size", "24".into()),
            ("root-ca-file", self.pki("ca.crt")),
            ("service-account-private-key-file", self.pki("sa.key")),
        ]);
        args.extend(self.serving("controller-manager"));
        let probe = Probe::Https { port, path: "/healthz", ca: "ca", client: "admin" };
        let program = self.ours("kube-controller-manager");
        self.spec("kube-controller-manager", program, args, &["kube-apiserver"], probe)
    }

    fn on_node(&self, node: &Node, spec: Spec) -> Spec {
        Spec {
            role: Role::OnNode,
            node: Some(node.name.clone()),
            cgroup: format!("{}/system", self.cluster.node_cgroup(&node.name)),
            ..spec
        }
    }

    fn machine(&self, node: &Node) -> Spec {
        let disk = self.paths.node(&node.name);
        let boot = crate::boot::Boot {
            netns: crate::network::netns_path(&self.cluster.netns(&node.name)),
            hostname: node.name.clone(),
            pause: self.paths.pause(),
            var_lib: disk.join("var-lib"),
            var_log: disk.join("var-log"),
            resolv_conf: disk.join("resolv.conf"),
            keep: vec![self.paths.state.clone(), self.paths.run.clone(), self.cluster.bin_dir.clone()],
        };
        let id = format!("{}/{MACHINE}", node.name);
        let args = vec!["init-node".into(), serde_json::to_string(&boot).expect("paths are text")];
        // This very program, also when its file has been replaced since.
        let spec = self.spec(&id, "/proc/self/exe".into(), args, &[], Probe::Running);
        Spec { role: Role::Machine, ..self.on_node(node, spec) }
    }

    fn containerd(&self, node: &Node) -> Spec {
        let config = text(self.paths.node(&node.name).join("containerd.toml"));
        let program = crate::host::find_program("containerd").unwrap_or_else(|| "/usr/bin/containerd".into());
        let (id, after) = (format!("{}/containerd", node.name), format!("{}/{MACHINE}", node.name));
        let spec = self.spec(&id, program, vec!["--config".into(), config], &[&after], Probe::Containerd);
        self.on_node(node, spec)
    }

    fn kubelet(&self, node: &Node) -> Spec {
        let name = &node.name;
        let args = flags([
            ("kubeconfig", text(self.paths.kubeconfig(&format!("kubelet-{name}")))),
            ("hostname-override", name.clone()),
            ("node-ip", node.ip.to_string()),
            ("container-runtime-endpoint", format!("unix://{}", text(self.paths.containerd_socket(name)))),
            ("root-dir", "/var/lib/kubelet".into()),
            ("cgroup-root", format!("/{}", self.cluster.node_cgroup(name))),
            ("cgroup-driver", "cgroupfs".into()),
            ("cgroups-per-qos", "true".into()),
            ("cluster-dns", DNS_IP.into()),
            ("cluster-domain", CLUSTER_DOMAIN.into()),
            ("resolv-conf", text(self.paths.node(name).join("resolv.conf"))),
            ("healthz-port", "10248".into()),
            // All nodes share this machine's disk; how full it is says nothing about them.
            ("eviction-hard", "memory.available<100Mi".into()),
        ]);
        let after = format!("{name}/containerd");
        let probe = Probe::NodeHttp { port: 10248 };
        let spec = self.spec(
            &format!("{name}/kubelet"),
            self.ours("kubelet"),
            args,
            &["kube-apiserver", &after],
            probe,
        );
        self.on_node(node, spec)
    }

    fn kube_proxy(&self, node: &Node) -> Spec {
        let name = &node.name;
        let args = flags([
            ("kubeconfig", text(self.paths.kubeconfig(&format!("kube-proxy-{name}")))),
            ("hostname-override", name.clone()),
            ("cluster-cidr", POD_RANGE.into()),
            ("cluster-dns", DNS_IP.into()),
            ("cluster-domain", CLUSTER_DOMAIN.into()),
            ("healthz-bind-address", "127.0.0.1:10256".into()),
            ("metrics-bind-address", "127.0.0.1:10249".into()),
        ]);
        let mut args = args;
        if !self.cluster.dns_upstream.is_empty() {
            let servers: Vec<_> = self.cluster.dns_upstream.iter().map(ToString::to_string).collect();
            args.push(format!("--dns-upstream={}", servers.join(",")));
        }
        let after = format!("{name}/{MACHINE}");
        let probe = Probe::NodeHttp { port: 10256 };
        let id = format!("{name}/kube-proxy");
        let spec = self.spec(&id, self.ours("kube-proxy"), args, &["kube-apiserver", &after], probe);
        self.on_node(node, spec)
    }
}

/// The kubeconfig files of the components: file name, certificate, and whether the server is reached by the bridge.
pub fn kubeconfigs(cluster: &Cluster) -> Vec<(String, String, bool)> {
    let mut all = vec![
        ("scheduler".to_owned(), "scheduler".to_owned(), false),
        ("controller-manager".to_owned(), "controller-manager".to_owned(), false),
    ];
    for node in &cluster.nodes {
        let kubelet = format!("kubelet-{}", node.name);
        all.push((kubelet.clone(), kubelet, true));
        all.push((format!("kube-proxy-{}", node.name), "kube-proxy".to_owned(), true));
    }
    all
}

/// A number for a cluster by which the ports of several are spread.
pub fn port_offset(name: &str) -> u16 {
    if name == crate::cluster::DEFAULT_NAME {
        0
    } else {
        u16::try_from(short_hash(name) % 2000).expect("below 2000")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cluster::Ports;

    fn cluster() -> Cluster {
        let mut cluster = Cluster {
            name: "t".into(),
            bin_dir: "/opt/bin".into(),
            subnet: "172.30.0.0/24".parse().unwrap(),
            ports: Ports::DEFAULT,
            store: Default::default(),
            nodes: Vec::new(),
            egress: false,
            snapshotter: "overlayfs".into(),
            cni_bin_dir: "/usr/lib/cni".into(),
            dns_upstream: Vec::new(),
            extra_args: [("kubelet".to_owned(), vec!["--max-pods=7".to_owned()])].into(),
        };
        cluster.grow(2);
        cluster
    }

    fn all() -> Vec<Spec> {
        specs(&cluster(), &Paths::new(Path::new("/var/lib/coxswain"), "t"))
    }

    #[test]
    fn whoever_waits_waits_for_one_that_exists_and_comes_before() {
        let mut seen = BTreeSet::new();
        for spec in all() {
            for after in &spec.after {
                assert!(seen.contains(after), "{} waits for {after}", spec.id);
            }
            assert!(seen.insert(spec.id.clone()), "{} is there twice", spec.id);
        }
        assert_eq!(seen.len(), 4 + 2 * 4);
    }

    #[test]
    fn the_api_server_waits_for_the_store_that_was_chosen() {
        let of = |store: Store| {
            let mut cluster = cluster();
            cluster.store = store;
            specs(&cluster, &Paths::new(Path::new("/var/lib/coxswain"), "t"))
        };
        for (store, name) in [(Store::Lite, "etcd-lite"), (Store::Etcd, "etcd")] {
            let all = of(store);
            assert_eq!((all[0].id.as_str(), all[1].after.as_slice()), (name, &[name.to_owned()][..]));
        }
        let servers = vec!["http://10.0.0.1:2379".into(), "http://10.0.0.2:2379".into()];
        let all = of(Store::External { servers, ca: Some("/ca".into()), cert: None, key: None });
        assert_eq!((all[0].id.as_str(), all[0].after.len()), ("kube-apiserver", 0));
        let etcd: Vec<_> = all[0].args.iter().filter(|a| a.starts_with("--etcd")).collect();
        assert_eq!(etcd, ["--etcd-servers=http://10.0.0.1:2379,http://10.0.0.2:2379", "--etcd-cafile=/ca"]);
    }

    #[test]
    fn added_flags_reach_the_component_on_every_node() {
        for spec in all() {
            let has = spec.args.contains(&"--max-pods=7".to_owned());
            assert_eq!(has, spec.component() == "kubelet", "{}", spec.id);
        }
    }

    #[test]
    fn another_flag_gives_another_mark() {
        let spec = all().remove(1);
        let mut other = spec.clone();
        assert_eq!(spec.mark(), other.mark());
        other.args.push("--v=4".into());
        assert_ne!(spec.mark(), other.mark());
    }

    #[track_caller]
    fn check_find(name: &str, expected: Result<&str, &str>) {
        let ids: Vec<_> = all().into_iter().map(|s| s.id).chain(["supervisor".into()]).collect();
        match (find(&ids, name), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(message), Err(part)) => assert!(message.contains(part), "{message}"),
            (found, expected) => panic!("{name}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn components_are_found_by_the_names_that_people_use() {
        for name in ["apiserver", "kube-apiserver"] {
            check_find(name, Ok("kube-apiserver"));
        }
        for name in ["kubelet@node-2", "node-2/kubelet"] {
            check_find(name, Ok("node-2/kubelet"));
        }
        for name in ["kube-proxy@node-1", "proxy@node-1", "node-1/proxy"] {
            check_find(name, Ok("node-1/kube-proxy"));
        }
        check_find("supervisor", Ok("supervisor"));
        check_find("kubelet", Err("say which of node-1/kubelet, node-2/kubelet"));
        check_find("nonsense", Err("there are: etcd-lite, kube-apiserver"));
        check_find("kubelet@node-9", Err("no component is called"));
    }
}
