//! A control plane of its own: the processes that `coxswain up` would start on the host, or upstream's in their place.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use component::clock::Clock;
use component::tls::{ClientTls, client_config};
use coxswain::cluster::{Cluster, Paths, Ports};
use coxswain::components::{Probe, Spec, Store, specs};
use coxswain::{certs, kubeconfig};
use tempfile::TempDir;

use crate::rest::{Protocol, Server};
use crate::upstream;

/// How long a process may take until it does its work.
const PATIENCE: Duration = Duration::from_secs(90);

/// Whose binaries are measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// Ours, from this folder.
    Coxswain(PathBuf),
    /// Upstream's, from this folder.
    Upstream(PathBuf),
}

impl Flavor {
    /// The name that the table shows.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Coxswain(_) => "coxswain",
            Self::Upstream(_) => "upstream",
        }
    }
}

struct Running {
    name: String,
    child: Child,
}

/// Processes with data, certificates and logs of their own. All of it is gone when dropped.
pub struct World {
    paths: Paths,
    cluster: Cluster,
    programs: Vec<Spec>,
    running: Vec<Running>,
    /// Removed with everything in it.
    _dir: TempDir,
}

impl World {
    /// A world in which nothing runs yet.
    pub fn new(flavor: &Flavor) -> Result<Self> {
        let dir = TempDir::with_prefix("coxswain-bench-").context("a folder for the data")?;
        let (Flavor::Coxswain(bin_dir) | Flavor::Upstream(bin_dir)) = flavor;
        let store = match flavor {
            Flavor::Coxswain(_) => Store::Lite,
            Flavor::Upstream(_) => Store::Etcd,
        };
        let cluster = Cluster {
            name: "bench".into(),
            bin_dir: std::fs::canonicalize(bin_dir).with_context(|| bin_dir.display().to_string())?,
            subnet: crate::netns::SUBNET.parse().map_err(anyhow::Error::msg)?,
            ports: Ports::DEFAULT,
            store,
            nodes: Vec::new(),
            egress: false,
            snapshotter: "overlayfs".into(),
            cni_bin_dir: "/usr/lib/cni".into(),
            dns_upstream: Vec::new(),
            extra_args: Default::default(),
        };
        let paths = Paths::new(dir.path(), "bench");
        certs::ensure(&cluster, &paths, Clock::system().now()).context("certificates")?;
        kubeconfig::write_all(&cluster, &paths).context("kubeconfigs")?;
        let mut programs = specs(&cluster, &paths);
        // The rows speak of the store by one name.
        programs.iter_mut().filter(|s| s.id == "etcd-lite").for_each(|s| s.id = "etcd".into());
        if let Flavor::Upstream(bin_dir) = flavor {
            programs.iter_mut().for_each(|spec| upstream::replace(spec, &cluster, &paths, bin_dir));
        }
        Ok(Self { paths, cluster, programs, running: Vec::new(), _dir: dir })
    }

    /// A world in which these run already.
    pub fn with(flavor: &Flavor, names: &[&str]) -> Result<Self> {
        let mut world = Self::new(flavor)?;
        for name in names {
            world.start(name)?;
            world.ready(name)?;
        }
        Ok(world)
    }

    /// The store and the API server: what rows about single requests need.
    pub fn api(flavor: &Flavor) -> Result<Self> {
        Self::with(flavor, &["etcd", "kube-apiserver"])
    }

    /// Gives a flag of a component that has not been started yet another value.
    pub fn set_flag(&mut self, component: &str, name: &str, value: &str) {
        for spec in self.programs.iter_mut().filter(|spec| spec.id == component) {
            let start = format!("--{name}=");
            spec.args.retain(|arg| !arg.starts_with(&start));
            spec.args.push(format!("{start}{value}"));
        }
    }

    /// Starts hollow nodes, which speak our gRPC.
    pub fn start_hollow(&mut self, nodes: usize) -> Result<()> {
        let apiserver = self.spec("kube-apiserver")?;
        let beside = std::env::current_exe()?;
        let program = beside.parent().context("a program lies in a folder")?.join("kubemark");
        let kubeconfig = self.paths.kubeconfig("admin").display().to_string();
        let args = vec![format!("--kubeconfig={kubeconfig}"), format!("--nodes={nodes}")];
        let log = self.paths.log("kubemark");
        let spec = Spec {
            id: "kubemark".into(),
            program,
            args,
            log,
            probe: Probe::Running,
            after: Vec::new(),
            ..apiserver
        };
        self.programs.push(spec);
        self.start("kubemark")
    }

    fn spec(&self, name: &str) -> Result<Spec> {
        self.programs.iter().find(|s| s.id == name).cloned().with_context(|| format!("there is no {name}"))
    }

    /// Starts a process and does not wait for it.
    pub fn start(&mut self, name: &str) -> Result<()> {
        let spec = self.spec(name)?;
        let child = spawn(&spec)?;
        self.running.push(Running { name: name.to_owned(), child });
        Ok(())
    }

    /// Waits until a process does its work.
    pub fn ready(&mut self, name: &str) -> Result<()> {
        let spec = self.spec(name)?;
        let began = Instant::now();
        while let Err(error) = self.probe(&spec.probe) {
            self.alive(&spec)?;
            if began.elapsed() > PATIENCE {
                bail!("{name} is not ready after {PATIENCE:?}: {error:#}\n{}", tail(&spec.log));
            }
            crate::wait(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Starts again whatever has ended, as a supervisor would: some wait for an API server by failing.
    pub fn revive(&mut self) -> Result<()> {
        for at in 0..self.running.len() {
            if self.running[at].child.try_wait()?.is_some() {
                let spec = self.spec(&self.running[at].name)?;
                self.running[at].child = spawn(&spec)?;
            }
        }
        Ok(())
    }

    fn alive(&mut self, spec: &Spec) -> Result<()> {
        let running = self.running.iter_mut().find(|r| r.name == spec.id);
        match running.context("it was not started")?.child.try_wait()? {
            Some(status) => bail!("{} ended with {status}\n{}", spec.id, tail(&spec.log)),
            None => Ok(()),
        }
    }

    fn probe(&self, probe: &Probe) -> Result<()> {
        match probe {
            Probe::Https { port, path, ca, client } => Server::new(&self.paths, *port, ca, client)?.ok(path),
            Probe::Running | Probe::Containerd | Probe::NodeHttp { .. } => Ok(()),
        }
    }

    /// The API server, for the admin.
    pub fn server(&self, protocol: Protocol) -> Result<Server> {
        Ok(Server::new(&self.paths, self.cluster.ports.api, "ca", "admin")?.speaking(protocol))
    }

    /// The store's port, and who its only client is.
    pub fn store(&self) -> Result<(u16, Arc<rustls::ClientConfig>)> {
        let files = ClientTls {
            ca: self.paths.pki("etcd-ca.crt"),
            cert: self.paths.pki("apiserver-etcd-client.crt"),
            key: self.paths.pki("apiserver-etcd-client.key"),
        };
        let mut tls = (*client_config(&files).context("the store's client certificate")?).clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok((self.cluster.ports.etcd, Arc::new(tls)))
    }

    /// The kubeconfig of a component or of the admin.
    pub fn kubeconfig(&self, who: &str) -> PathBuf {
        self.paths.kubeconfig(who)
    }

    /// What runs, with its process id.
    pub fn processes(&self) -> Vec<(String, u32)> {
        self.running.iter().map(|r| (r.name.clone(), r.child.id())).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for running in self.running.iter_mut().rev() {
            // It may have ended already, which is what is wanted.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        if let Some(dir) = std::env::var_os("COXSWAIN_BENCH_LOGS") {
            let from = self.paths.state.join("logs");
            let copied = Command::new("cp").arg("-r").arg(from).arg(&dir).status();
            if !copied.is_ok_and(|status| status.success()) {
                eprintln!("the logs could not be copied to {}", Path::new(&dir).display());
            }
        }
    }
}

/// Starts a process that does not outlive this one.
fn spawn(spec: &Spec) -> Result<Child> {
    std::fs::create_dir_all(spec.log.parent().context("a log lies in a folder")?)?;
    let log = File::options().create(true).append(true).open(&spec.log)?;
    let mut command = Command::new(&spec.program);
    command.args(&spec.args).env_clear().envs(spec.env.iter().cloned());
    command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // The thread that starts them is the one that ends last.
    let die_too = || {
        let signal = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(signal).map_err(std::io::Error::from)
    };
    // SAFETY: prctl is a plain system call; nothing between fork and exec allocates or locks.
    unsafe { command.pre_exec(die_too) };
    command.spawn().with_context(|| format!("could not start {}", spec.program.display()))
}

fn tail(log: &Path) -> String {
    coxswain::steps::tail(log, 15)
}

/// The address at which servers are reached.
pub const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
