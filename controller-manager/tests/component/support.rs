//! A control plane for one test: etcd, kube-apiserver, the controllers, and hollow nodes.

mod census;
mod certs;
mod hollow;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use api::Typed;
use api::openapi::api::apps::v1::{Deployment, ReplicaSet};
use api::openapi::api::core::v1::Pod;
use client::{Client, ClientConfig, Error, LeaderConfig, ListParams};
use component::tasks::Tasks;
use controller_manager::{Config, ControllerSelection, NodeLifecycleConfig};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use census::Census;
pub use hollow::Hollow;

/// How long a condition may take to come true before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A process that ends with its owner.
pub struct Process(Child);

impl Process {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::File::create(log).expect("the test's folder is writable");
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log).spawn();
        Self(child.unwrap_or_else(|e| panic!("{command:?} does not start: {e}")))
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A control plane. Everything that it started ends with it.
pub struct Cluster {
    pub client: Client,
    pub tasks: Tasks,
    api_port: u16,
    apiserver: Process,
    _etcd: Process,
    etcd_port: u16,
    pub dir: TempDir,
}

/// A port of loopback that nobody has bound. It lies below the range from which the kernel takes ports for
/// outgoing connections, so none of those takes it before a server does; other test processes begin elsewhere.
fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = std::process::id().wrapping_mul(16).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + (next % 20_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// The binary beside this test's own; built when it is not there.
fn apiserver_binary() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let own = PathBuf::from(env!("CARGO_BIN_EXE_kube-controller-manager"));
        let binary = own.with_file_name("kube-apiserver");
        if !binary.exists() {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let status = Command::new(cargo).args(["build", "-q", "-p", "apiserver"]).status();
            assert!(status.is_ok_and(|s| s.success()), "kube-apiserver does not build");
        }
        binary
    };
    PATH.get_or_init(find).clone()
}

impl Cluster {
    /// Starts etcd and the API server, and waits until it serves.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let api_port = free_port();
        certs::write(dir.path(), api_port);
        let (etcd, etcd_port) = start_etcd(dir.path());
        let apiserver = start_apiserver(dir.path(), api_port, etcd_port);
        let config = client_config(dir.path(), "admin");
        let cluster = Self {
            client: Client::new(config),
            tasks: Tasks::new("test"),
            api_port,
            apiserver,
            _etcd: etcd,
            etcd_port,
            dir,
        };
        cluster.served().await;
        cluster
    }

    async fn served(&self) {
        eventually("the API server serves", || async {
            let namespaces = self.client.all::<api::openapi::api::core::v1::Namespace>();
            Ok(namespaces.get_opt("default").await?.is_some())
        })
        .await;
    }

    /// Ends the API server without warning and starts it again after a time.
    pub async fn restart_apiserver(&mut self, pause: Duration) {
        self.apiserver.kill();
        tokio::time::sleep(pause).await;
        self.apiserver = start_apiserver(self.dir.path(), self.api_port, self.etcd_port);
        self.served().await;
    }

    /// Settings that are quick where upstream's are patient.
    pub fn config(&self) -> Config {
        Config {
            client: client_config(self.dir.path(), "controller-manager"),
            leader: None,
            serving: None,
            controllers: ControllerSelection::new(&["*".into()]).expect("all of them"),
            concurrent_deployment_syncs: 5,
            concurrent_replicaset_syncs: 5,
            concurrent_endpoint_syncs: 5,
            concurrent_service_endpoint_syncs: 5,
            concurrent_namespace_syncs: 10,
            concurrent_gc_syncs: 20,
            max_endpoints_per_slice: 100,
            cluster_cidr: Some("10.244.0.0/16".parse().expect("a range")),
            node_cidr_mask_size: 24,
            node_lifecycle: NodeLifecycleConfig {
                monitor_period: Duration::from_millis(500),
                monitor_grace_period: Duration::from_secs(4),
                startup_grace_period: Duration::from_secs(60),
                eviction_rate: 10.0,
                secondary_eviction_rate: 0.01,
                large_cluster_size_threshold: 50,
                unhealthy_zone_threshold: 0.55,
            },
            terminated_pod_gc_threshold: 12500,
            root_ca: Some("certificates".into()),
            token_key: None,
        }
    }

    /// The Lease that several instances contend for.
    pub fn leader(&self, identity: &str) -> LeaderConfig {
        LeaderConfig {
            namespace: "kube-system".into(),
            name: "kube-controller-manager".into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(4),
            renew_deadline: Duration::from_secs(2),
            retry_period: Duration::from_millis(500),
        }
    }

    /// Runs the controllers within this process until the token is cancelled or the test ends.
    pub fn control(&self, config: Config) -> CancellationToken {
        let token = self.tasks.token().child_token();
        let stop = token.clone();
        self.tasks.spawn("controller manager", async move {
            controller_manager::run(config, stop)
                .await
                .expect("the controller manager ends when it is asked to");
        });
        token
    }

    /// Runs the binary as a process of its own.
    pub fn control_by_process(&self, name: &str) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kube-controller-manager"));
        command.arg("--kubeconfig").arg(self.dir.path().join("controller-manager.conf"));
        command.args(["--leader-elect-lease-duration", "4s", "--leader-elect-renew-deadline", "2s"]);
        command.args(["--leader-elect-retry-period", "500ms", "--v", "4"]);
        Process::start(&mut command, &self.dir.path().join(format!("{name}.log")))
    }

    /// Starts hollow nodes, and binds pods to them in turn.
    pub async fn nodes(&self, names: &[&str]) -> Hollow {
        Hollow::start(&self.client, &self.tasks, names).await
    }

    /// Creates an object that is given as JSON.
    pub async fn create<K: Typed>(&self, namespace: &str, json: Value) -> K {
        let object: K = serde_json::from_value(json).expect("the test's object is of its kind");
        self.client.namespaced::<K>(namespace).create(&object).await.expect("created")
    }

    /// The objects of a kind in a namespace.
    pub async fn list<K: Typed>(&self, namespace: &str) -> Result<Vec<K>, Error> {
        Ok(self.client.namespaced::<K>(namespace).list(&ListParams::default()).await?.items)
    }

    /// The pods of the namespace `default` that are not being deleted.
    pub async fn pods(&self) -> Result<Vec<Pod>, Error> {
        let mut pods = self.list::<Pod>("default").await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// Waits until a Deployment's pods are all of its present template and available.
    pub async fn rolled_out(&self, name: &str) -> Deployment {
        let deployments = self.client.namespaced::<Deployment>("default");
        eventually(&format!("{name} is rolled out"), || async {
            let deployment = deployments.get(name).await?;
            let desired = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
            let status = deployment.status.clone().unwrap_or_default();
            let count = |n: Option<i32>| n.unwrap_or(0) == desired;
            Ok(status.observed_generation == deployment.metadata.generation
                && count(status.replicas)
                && count(status.updated_replicas)
                && count(status.available_replicas))
        })
        .await;
        deployments.get(name).await.expect("it exists")
    }

    /// The ReplicaSets of `default` as (image, replicas), ordered by image.
    pub async fn sets(&self) -> Result<Vec<(String, i32)>, Error> {
        let sets = self.list::<ReplicaSet>("default").await?;
        let one = |set: ReplicaSet| {
            let spec = set.spec.expect("a spec");
            let containers = spec.template.and_then(|t| t.spec).expect("a template").containers;
            (containers[0].image.clone().unwrap_or_default(), spec.replicas.unwrap_or(1))
        };
        let mut sets: Vec<_> = sets.into_iter().map(one).collect();
        sets.sort();
        Ok(sets)
    }
}

fn start_etcd(dir: &Path) -> (Process, u16) {
    let (port, peer) = (free_port(), free_port());
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(dir.join("etcd")).arg("--unsafe-no-fsync");
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    (Process::start(&mut command, &dir.join("etcd.log")), port)
}

fn start_apiserver(dir: &Path, port: u16, etcd_port: u16) -> Process {
    let mut command = Command::new(apiserver_binary());
    command.args(["--bind-address", "127.0.0.1", "--secure-port", &port.to_string()]);
    command.args(["--etcd-servers", &format!("http://127.0.0.1:{etcd_port}")]);
    let file = |name: &str| dir.join(name);
    command.arg("--tls-cert-file").arg(file("server.crt"));
    command.arg("--tls-private-key-file").arg(file("server.key"));
    command.arg("--client-ca-file").arg(file("ca.crt"));
    Process::start(&mut command, &dir.join("apiserver.log"))
}

fn client_config(dir: &Path, user: &str) -> ClientConfig {
    ClientConfig::from_kubeconfig(&dir.join(format!("{user}.conf")), "test").expect("a kubeconfig")
}

/// Waits until a condition holds. Errors of the API server are no reason to give up before time.
///
/// # Panics
/// When it does not hold in [`PATIENCE`].
#[track_caller]
pub fn eventually<F, Fut>(what: &str, condition: F) -> impl Future<Output = ()>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<bool, Error>>,
{
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let last = condition().await;
            if matches!(last, Ok(true)) {
                return;
            }
            assert!(Instant::now() < deadline, "{caller}: not in time: {what} ({last:?})");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A Deployment `web` of three pods; `change` is merged into it.
pub fn web(change: Value) -> Value {
    let mut object = serde_json::json!({
        "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": {
            "replicas": 3,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "c", "image": "v1", "ports": [{ "name": "http", "containerPort": 8080 }],
                    }],
                },
            },
        },
    });
    merge(&mut object, change);
    object
}

fn merge(object: &mut Value, change: Value) {
    match (object, change) {
        (Value::Object(object), Value::Object(change)) => {
            for (key, value) in change {
                merge(object.entry(key).or_insert(Value::Null), value);
            }
        }
        (object, change) => *object = change,
    }
}

/// A patch that sets the image of the only container.
pub fn image(name: &str) -> client::Patch {
    let containers = serde_json::json!([{ "name": "c", "image": name }]);
    client::Patch::Strategic(
        serde_json::json!({ "spec": { "template": { "spec": { "containers": containers } } } }),
    )
}

/// A patch that sets the size.
pub fn size(replicas: i32) -> client::Patch {
    client::Patch::Merge(serde_json::json!({ "spec": { "replicas": replicas } }))
}
