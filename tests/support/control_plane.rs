//! A control plane without nodes: the store, the API server and, where asked for, the controller manager, as
//! `coxswain up` would start them, in a network namespace of their own.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use component::clock::Clock;
use coxswain::cluster::{Cluster, Paths, Ports};
use coxswain::components::{Spec, specs};
use coxswain::{certs, kubeconfig, steps};
use tempfile::TempDir;

use crate::cluster::{bin, bin_dir};
use crate::kubectl::Kubectl;
use crate::netns::Netns;

/// How long a process may take until it does its work, on a machine that builds meanwhile.
const PATIENCE: Duration = Duration::from_secs(90);

/// The cluster's own range, of which the API server announces the first address.
const SUBNET: &str = "172.30.255.0/24";

/// A store, an API server and perhaps more, with certificates, data and logs of their own. All of it is gone when
/// dropped.
pub struct ControlPlane {
    /// The namespace in which all of them run, and in which clients have to be started.
    pub netns: Netns,
    /// Our kubectl, as admin.
    pub kubectl: Kubectl,
    /// What a client may need a place for.
    pub scratch: PathBuf,
    name: String,
    paths: Paths,
    running: Vec<(Spec, Child)>,
    /// Removed with everything in it.
    _dir: TempDir,
}

impl ControlPlane {
    /// The store and the API server, ready, for the test of this name.
    pub fn api(test: &str) -> Self {
        let mut plane = Self::with(test, &["kube-apiserver"]);
        plane.ready();
        plane
    }

    /// The same with the controller manager, which may not lead yet.
    pub fn with_controllers(test: &str) -> Self {
        let mut plane = Self::with(test, &["kube-apiserver", "kube-controller-manager"]);
        plane.ready();
        plane
    }

    fn with(test: &str, names: &[&str]) -> Self {
        let name = format!("coxswain-test-{test}-{}", std::process::id());
        let dir = TempDir::with_prefix("coxswain-test-").expect("a temporary directory can be made");
        let cluster = Cluster {
            name: "clients".into(),
            bin_dir: bin_dir(),
            subnet: SUBNET.parse().expect("it is a range"),
            ports: Ports::DEFAULT,
            store: Default::default(),
            nodes: Vec::new(),
            egress: false,
            snapshotter: "overlayfs".into(),
            cni_bin_dir: "/usr/lib/cni".into(),
            dns_upstream: Vec::new(),
            extra_args: Default::default(),
        };
        let paths = Paths::new(dir.path(), "clients");
        certs::ensure(&cluster, &paths, Clock::system().now()).expect("certificates can be made");
        kubeconfig::write_all(&cluster, &paths).expect("kubeconfigs can be written");
        let scratch = dir.path().join("scratch");
        std::fs::create_dir(&scratch).expect("a folder can be made");
        let netns = Netns::create(&name);
        let kubectl =
            Kubectl { program: bin("kubectl"), kubeconfig: paths.kubeconfig("admin"), netns: netns.clone() };
        let mut plane = Self { netns, kubectl, scratch, name, paths, running: Vec::new(), _dir: dir };
        plane.run_ok("ip", &["address", "add", &format!("{}/32", cluster.gateway()), "dev", "lo"]);
        let all = specs(&cluster, &plane.paths);
        for name in cluster.store.process().iter().chain(names) {
            let spec = all.iter().find(|spec| spec.id == *name).expect("the launcher knows it").clone();
            let child = plane.spawn(&spec);
            plane.running.push((spec, child));
        }
        plane
    }

    /// Starts a process that does not outlive this thread.
    fn spawn(&self, spec: &Spec) -> Child {
        std::fs::create_dir_all(spec.log.parent().expect("a log lies in a folder"))
            .expect("a folder can be made");
        let log = File::options().create(true).append(true).open(&spec.log).expect("a log can be opened");
        let mut command = Command::new(&spec.program);
        command.args(&spec.args).env_clear().envs(spec.env.iter().cloned()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let die_too = || {
            let signal = Some(rustix::process::Signal::KILL);
            rustix::process::set_parent_process_death_signal(signal).map_err(std::io::Error::from)
        };
        // SAFETY: prctl is a plain system call; nothing between fork and exec allocates or locks.
        unsafe { command.pre_exec(die_too) };
        self.netns.enter(&mut command);
        command.spawn().unwrap_or_else(|e| panic!("{}: {e}", spec.program.display()))
    }

    /// Waits until the API server answers, starting again what has ended, as a supervisor would: some wait for
    /// others by failing.
    fn ready(&mut self) {
        let began = Instant::now();
        loop {
            let answer = self.kubectl.run(&["get", "--raw", "/readyz"]);
            if answer.code == 0 {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "no API server: {}{}", answer.stderr, self.logs());
            for at in 0..self.running.len() {
                if self.running[at].1.try_wait().expect("a child can be asked").is_some() {
                    self.running[at].1 = self.spawn(&self.running[at].0);
                }
            }
        }
    }

    /// The last lines of every log.
    fn logs(&self) -> String {
        self.running.iter().map(|(spec, _)| format!("\n{}", steps::tail(&spec.log, 15))).collect()
    }

    /// The admin's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubectl.kubeconfig
    }

    /// A file of the certificates' folder, such as `ca.crt` or `admin.key`.
    pub fn pki(&self, file: &str) -> PathBuf {
        self.paths.pki(file)
    }

    /// The API server's address for whoever runs in the namespace.
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", Ports::DEFAULT.api)
    }

    /// A foreign program in the namespace, with the admin's kubeconfig and a home of its own.
    pub fn client(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", &self.scratch).current_dir(&self.scratch);
        self.netns.enter(&mut command);
        command
    }

    /// Runs a command in the namespace; panics unless it succeeds. What it says.
    #[track_caller]
    pub fn run_ok(&self, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> String {
        let output = self.client(program.as_ref()).args(args).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|e| panic!("{}: {e}", program.as_ref().display()));
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{} {}: {out}{err}", program.as_ref().display(), args.join(" "));
        out.into_owned()
    }

    /// Another kubectl, as admin.
    pub fn kubectl_of(&self, program: &Path) -> Kubectl {
        Kubectl { program: program.to_owned(), ..self.kubectl.clone() }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}{}", self.name, self.logs());
        }
        for (_, child) in self.running.iter_mut().rev() {
            // It may have ended already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.netns.delete();
    }
}
