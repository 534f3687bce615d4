//! One cluster: brought up by the launcher in a network namespace of its own, taken down when dropped.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::http::{Answer, get_through};
use crate::kubectl::{Kubectl, Outcome};
use crate::netns::Netns;
use crate::wait::{until, until_some};

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

/// The folder of the binaries that cargo built beside this test.
pub fn bin_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its program");
    let dir = test.parent().expect("a file has a folder");
    if dir.ends_with("deps") { dir.parent().expect("deps/ has a parent").to_owned() } else { dir.to_owned() }
}

/// A binary of the workspace.
pub fn bin(name: &str) -> PathBuf {
    let path = bin_dir().join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins`", path.display());
    path
}

/// Upstream's kubectl, if there is one on PATH.
pub fn upstream_kubectl() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let program = std::env::split_paths(&path).map(|dir| dir.join("kubectl")).find(|p| p.is_file())?;
    // Ours is not upstream's, wherever it may have been installed.
    let version = Command::new(&program).args(["version", "--client", "-o", "json"]).output().ok()?;
    let upstream = String::from_utf8_lossy(&version.stdout).contains("\"goVersion\": \"go");
    upstream.then_some(program)
}

/// A running cluster.
pub struct Cluster {
    /// What `--name` says.
    pub name: String,
    /// The namespace that takes the part of the host.
    pub host: Netns,
    /// Our kubectl, as admin.
    pub kubectl: Kubectl,
    home: TempDir,
    netns: String,
}

impl Cluster {
    /// A cluster of some nodes, all Ready, for the test of this name.
    #[track_caller]
    pub fn up(test: &str, nodes: usize) -> Self {
        Self::up_with(test, nodes, &[])
    }

    /// Like [`Self::up`] with more flags for `coxswain up`.
    #[track_caller]
    pub fn up_with(test: &str, nodes: usize, flags: &[&str]) -> Self {
        Self::up_after(test, nodes, flags, |_| ())
    }

    /// Like [`Self::up_with`], after something has been done in the namespace that takes the part of the host.
    #[track_caller]
    pub fn up_after(test: &str, nodes: usize, flags: &[&str], prepare: impl FnOnce(&Netns)) -> Self {
        // Names of interfaces and sockets are short; the process id keeps concurrent runs apart.
        let name = format!("{test}-{}", std::process::id());
        let netns = format!("coxswain-test-{name}");
        let home = TempDir::with_prefix("coxswain-test-").expect("a temporary directory can be made");
        let host = Netns::create(&netns);
        let kubectl =
            Kubectl { program: bin("kubectl"), kubeconfig: home.path().join("config"), netns: host.clone() };
        let cluster = Self { name, host, kubectl, home, netns };
        prepare(&cluster.host);
        let nodes = nodes.to_string();
        let up = cluster.coxswain(&[&["up", "--nodes", &nodes], flags].concat());
        assert_eq!(up.code, 0, "coxswain up: {}{}", up.stdout, up.stderr);
        cluster
    }

    /// Runs the launcher on this cluster.
    pub fn coxswain(&self, args: &[&str]) -> Outcome {
        let output = self.launcher(args).output().expect("the launcher starts");
        Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs the launcher and panics unless it succeeds.
    #[track_caller]
    pub fn coxswain_ok(&self, args: &[&str]) -> String {
        let outcome = self.coxswain(args);
        assert_eq!(outcome.code, 0, "coxswain {}: {}{}", args.join(" "), outcome.stdout, outcome.stderr);
        outcome.stdout
    }

    fn launcher(&self, args: &[&str]) -> Command {
        let mut command = Command::new(bin("coxswain"));
        command
            .args(args)
            .args(["--name", &self.name, "--state-dir"])
            .arg(self.state())
            .env("KUBECONFIG", &self.kubectl.kubeconfig)
            .env("HOME", self.home.path())
            .env("COXSWAIN_BIN_DIR", bin_dir());
        self.host.enter(&mut command);
        command
    }

    /// The launcher's state directory.
    pub fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// Upstream's kubectl as admin, if there is one on PATH.
    pub fn upstream_kubectl(&self) -> Option<Kubectl> {
        upstream_kubectl().map(|program| Kubectl { program, ..self.kubectl.clone() })
    }

    /// The namespace of a node.
    pub fn node(&self, name: &str) -> Netns {
        Netns::named(&format!("coxswain-{}-{name}", self.name))
    }

    /// The names of the nodes.
    pub fn nodes(&self) -> Vec<String> {
        let items = self.kubectl.items(&["get", "nodes"]);
        items.iter().filter_map(|n| n["metadata"]["name"].as_str().map(str::to_owned)).collect()
    }

    /// A node's address.
    #[track_caller]
    pub fn node_ip(&self, name: &str) -> Ipv4Addr {
        let node = self.kubectl.json(&["get", "node", name]).expect("the node exists");
        let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
        let internal =
            addresses.iter().find(|a| a["type"] == "InternalIP").and_then(|a| a["address"].as_str());
        internal.and_then(|a| a.parse().ok()).expect("a node has an InternalIP")
    }

    /// Processes of the cluster, as `coxswain status -o json` lists them.
    pub fn processes(&self) -> Vec<Value> {
        let status: Value =
            serde_json::from_str(&self.coxswain_ok(&["status", "-o", "json"])).expect("status is JSON");
        status["processes"].as_array().cloned().unwrap_or_default()
    }

    /// The process id of a component, such as `apiserver` or `node-2/kubelet`.
    pub fn pid(&self, component: &str) -> Option<i32> {
        let process = self.processes().into_iter().find(|p| p["name"] == component)?;
        process["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok())
    }

    /// Sends SIGKILL to a component and waits until another process has taken its place.
    #[track_caller]
    pub fn kill(&self, component: &str) {
        let pid = self.pid(component).unwrap_or_else(|| panic!("{component} is not running"));
        let process = rustix::process::Pid::from_raw(pid).expect("a process id is positive");
        rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("it can be killed");
        until(&format!("{component} runs again"), Duration::from_secs(30), || {
            self.pid(component).is_some_and(|now| now != pid)
        });
    }

    /// Waits until every pod that a selector selects is Ready and none is going away; returns them.
    #[track_caller]
    pub fn ready_pods(
        &self,
        namespace: &str,
        selector: &str,
        count: usize,
        patience: Duration,
    ) -> Vec<Value> {
        until_some(&format!("{count} ready pods {selector} in {namespace}"), patience, || {
            let pods = self.kubectl.items(&["-n", namespace, "get", "pods", "-l", selector]);
            let good =
                pods.iter().filter(|p| is_ready(p) && p["metadata"]["deletionTimestamp"].is_null()).count();
            if good == count && pods.len() == count { Ok(pods) } else { Err(self.overview(namespace)) }
        })
    }

    /// The ClusterIP and port of a Service.
    #[track_caller]
    pub fn service(&self, namespace: &str, name: &str) -> SocketAddr {
        let service =
            self.kubectl.json(&["-n", namespace, "get", "service", name]).expect("the service exists");
        let ip = service["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
        let port = service["spec"]["ports"][0]["port"].as_u64().and_then(|p| u16::try_from(p).ok());
        SocketAddr::from((ip.expect("it has a ClusterIP"), port.expect("it has a port")))
    }

    /// The NodePort of a Service's first port.
    #[track_caller]
    pub fn node_port(&self, namespace: &str, name: &str) -> u16 {
        let service =
            self.kubectl.json(&["-n", namespace, "get", "service", name]).expect("the service exists");
        let port = service["spec"]["ports"][0]["nodePort"].as_u64().and_then(|p| u16::try_from(p).ok());
        port.expect("it has a NodePort")
    }

    /// Waits until a page is answered with 200 to a client on a node.
    #[track_caller]
    pub fn page(&self, node: &str, addr: SocketAddr, path: &str) -> Answer {
        let netns = self.node(node);
        until_some(&format!("{addr}{path} from {node}"), Duration::from_secs(20), || {
            get_through(&netns, addr, path)
                .and_then(|a| if a.code == 200 { Ok(a) } else { Err(format!("{}", a.code)) })
        })
    }

    /// What a user would look at to find out why.
    pub fn overview(&self, namespace: &str) -> String {
        let pods = self.kubectl.run(&["-n", namespace, "get", "pods", "-o", "wide"]).stdout;
        let events = self.kubectl.run(&["-n", namespace, "get", "events"]).stdout;
        format!("\n{pods}\n{events}")
    }

    fn keep_logs(&self) {
        let Some(dir) = std::env::var_os("COXSWAIN_TEST_LOGS") else { return };
        let target = Path::new(&dir).join(&self.name);
        let logs = self.state().join(&self.name).join("logs");
        let copied = std::fs::create_dir_all(&target).is_ok()
            && Command::new("cp").arg("-r").arg(logs).arg(&target).status().is_ok_and(|s| s.success());
        eprintln!(
            "logs of the cluster: {} ({})",
            target.display(),
            if copied { "copied" } else { "could not be copied" }
        );
    }
}

/// Whether a pod's Ready condition is True.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_logs();
        }
        if let Ok(output) = self.launcher(&["down"]).output()
            && !output.status.success()
        {
            eprintln!("coxswain down: {}", String::from_utf8_lossy(&output.stderr));
        }
        Netns::named(&self.netns).delete();
    }
}
