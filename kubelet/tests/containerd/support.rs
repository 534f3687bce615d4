//! A real containerd for a test, in a network namespace of its own, with an image made of busybox.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Client, ClientConfig, Informer, ListParams, Recorder};
use component::clock::Clock;
use component::tasks::Tasks;
use k8s_openapi::api::core::v1::Service;
use kubelet::cgroups::Cgroups;
use kubelet::context::{Context, Ctx};
use kubelet::runtime::Runtime;
use sha2::{Digest, Sha256};

/// The image that tests run.
pub const IMAGE: &str = "docker.io/library/test:1";
const PAUSE: &str = "registry.k8s.io/pause:3.6";

/// Whether this test can run here; says why not. Only the want of privileges is a reason.
pub fn privileged() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: containers need root");
    }
    root
}

/// Runs a command that must succeed.
#[track_caller]
pub fn must(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A node: containerd, its network namespace, its control groups and its directories.
pub struct Node {
    pub dir: tempfile::TempDir,
    pub runtime: Runtime,
    netns: String,
    cgroup: String,
    containerd: Child,
}

fn hex(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|b| format!("{b:02x}")).collect()
}

/// A docker-archive of busybox.
fn image(name: &str, command: &[&str]) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    layer.append_path_with_name("/usr/bin/busybox", "bin/busybox").expect("busybox-static is installed");
    for applet in ["sh", "sleep", "echo", "cat", "true", "false", "httpd"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let config =
        serde_json::json!({"architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": command},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]}})
        .to_string();
    let config_name = format!("{}.json", hex(config.as_bytes()));
    let manifest =
        serde_json::json!([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();
    let mut archive = tar::Builder::new(Vec::new());
    for (name, data) in [
        (config_name.as_str(), config.as_bytes()),
        ("layer.tar", &layer),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, data).unwrap();
    }
    archive.into_inner().unwrap()
}

fn configuration(dir: &Path) -> String {
    let path = |name: &str| dir.join(name).display().to_string();
    format!(
        r#"version = 2
root = "{}"
state = "{}"
[grpc]
  address = "{}"
[ttrpc]
  address = "{}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{}"
    conf_template = "{}"
"#,
        path("root"),
        path("state"),
        path("c.sock"),
        path("c.ttrpc"),
        path("cni"),
        path("template")
    )
}

fn network(dir: &Path) -> String {
    let data = dir.join("ipam").display().to_string();
    serde_json::json!({"cniVersion": "0.4.0", "name": "test", "plugins": [{"type": "bridge", "bridge": "cni0",
        "isGateway": true, "hairpinMode": true, "ipam": {"type": "host-local", "dataDir": data,
        "ranges": [[{"subnet": "{{.PodCIDR}}"}]]}}]})
    .to_string()
}

impl Node {
    /// Starts containerd and waits until its network is ready.
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("kubelet-test").tempdir().unwrap();
        let name = format!("kt{:08x}", rand::random::<u32>());
        must("ip", &["netns", "add", &name]);
        must("ip", &["-n", &name, "link", "set", "lo", "up"]);
        let at = dir.path();
        std::fs::create_dir_all(at.join("cni")).unwrap();
        std::fs::write(at.join("conf.toml"), configuration(at)).unwrap();
        std::fs::write(at.join("template"), network(at)).unwrap();
        let log = std::fs::File::create(at.join("containerd.log")).unwrap();
        let containerd = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{name}"))
            .args(["containerd", "-c"])
            .arg(at.join("conf.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd is installed");
        let runtime = Runtime::new(&format!("unix://{}", at.join("c.sock").display())).unwrap();
        let node = Self { dir, runtime, cgroup: format!("/{name}"), netns: name, containerd };
        eventually("containerd answers", || async { node.runtime.version().await.is_ok() }).await;
        node.import(PAUSE, &["/bin/sleep", "1000000"]);
        node.import(IMAGE, &["/bin/sh"]);
        node.runtime.set_pod_cidr("10.250.0.0/24").await.unwrap();
        eventually("the network is ready", || async {
            node.runtime.status().await.is_ok_and(|s| s.conditions.iter().all(|c| c.status))
        })
        .await;
        node
    }

    fn import(&self, name: &str, command: &[&str]) {
        let socket = self.dir.path().join("c.sock").display().to_string();
        let mut import = Command::new("ctr")
            .args(["-a", &socket, "-n", "k8s.io", "images", "import", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("ctr is installed");
        import.stdin.take().unwrap().write_all(&image(name, command)).unwrap();
        assert!(import.wait().unwrap().success());
    }

    /// The tools of a kubelet whose API server cannot be reached.
    pub fn context(&self, tasks: &Tasks) -> Ctx {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let servers = vec!["https://127.0.0.1:1".to_owned()];
        let client = Client::new(ClientConfig { servers, tls: Arc::new(tls), user_agent: "test".into() });
        let clock = Clock::system();
        let cgroups = Cgroups::new(Path::new("/sys/fs/cgroup"), &self.cgroup, true);
        cgroups.prepare(1 << 30, 1000).unwrap();
        Arc::new(Context {
            recorder: Recorder::new(&client, "kubelet", "node", clock.clone(), &tasks.spawner()),
            objects: kubelet::objects::Objects::new(&client, &clock, &tasks.spawner()),
            images: kubelet::images::Images::new(self.runtime.clone()),
            services: Informer::new(client.all::<Service>(), ListParams::default()).store(),
            reporter: kubelet::report::Reporter::new(&client, &tasks.spawner()),
            runtime: self.runtime.clone(),
            meters: Default::default(),
            root: self.path("kubelet"),
            node: kubelet::pod::sandbox::Node {
                name: "node".into(),
                log_root: self.path("logs").display().to_string(),
                ..Default::default()
            },
            host_ips: vec!["127.0.0.1".into()],
            allocatable: Default::default(),
            memory_capacity: 1 << 30,
            cgroups,
            client,
            clock,
        })
    }

    /// A path in the node's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Whether a control group of a pod is there, in any hierarchy.
    pub fn has_cgroup(&self, uid: &str) -> bool {
        Cgroups::new(Path::new("/sys/fs/cgroup"), &self.cgroup, true).pods().iter().any(|u| u == uid)
    }
}

fn remove_cgroups(name: &str) {
    let dirs = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path());
    for root in dirs.chain(["/sys/fs/cgroup".into()]) {
        for part in ["/kubepods/besteffort", "/kubepods/burstable", "/kubepods", ""] {
            let _ = std::fs::remove_dir(root.join(format!("{}{part}", name.trim_start_matches('/'))));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Shims outlive containerd; a test that failed may have left some.
        let socket = self.dir.path().join("c.sock").display().to_string();
        let ctr =
            |args: &[&str]| Command::new("ctr").args(["-a", &socket, "-n", "k8s.io"]).args(args).output();
        let tasks = ctr(&["task", "ls", "-q"]).map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        for task in tasks.unwrap_or_default().lines() {
            let _ = ctr(&["task", "rm", "-f", task]);
        }
        let _ = self.containerd.kill();
        let _ = self.containerd.wait();
        let _ = kubelet::volumes::mounts::unmount_beneath(self.dir.path());
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).status();
        remove_cgroups(&self.cgroup);
    }
}

/// Waits for a condition, for half a minute.
#[track_caller]
pub fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        while !condition().await {
            assert!(begun.elapsed() < Duration::from_secs(30), "not in time: {what} ({caller})");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
