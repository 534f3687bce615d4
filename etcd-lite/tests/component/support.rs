//! Starts servers, in this process or in one of their own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use component::clock::Clock;
use component::tasks::Tasks;
use etcd_client::Client;
use etcd_lite::Config;
use etcd_lite::compactor::AutoCompaction;
use etcd_lite::server::{Address, ListenUrl, listen};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A server in this process, with a folder of its own.
pub struct Server {
    pub url: String,
    pub dir: TempDir,
    shutdown: CancellationToken,
    tasks: Tasks,
}

pub fn config(dir: &Path) -> Config {
    Config {
        name: "test".into(),
        data_dir: dir.to_owned(),
        listen_client_urls: Vec::new(),
        advertise_client_urls: vec!["http://127.0.0.1:2379".into()],
        listen_metrics_urls: Vec::new(),
        tls: None,
        client_cert_auth: false,
        auto_compaction: AutoCompaction::Off,
        quota_backend_bytes: etcd_lite::DEFAULT_QUOTA,
        unsafe_no_fsync: false,
        heartbeat_prefixes: Vec::new(),
        watch_progress_notify_interval: Duration::from_secs(600),
        clock: Clock::system(),
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(TempDir::new().unwrap(), change).await
    }

    pub async fn start_in(dir: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(dir.path());
        change(&mut config);
        let any = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = listen(&any).await.unwrap();
        let url = ListenUrl { tls: config.tls.is_some(), address: listener.address().unwrap() };
        let (shutdown, tasks) = (CancellationToken::new(), Tasks::new("test server"));
        let (token, text) = (shutdown.clone(), url.to_string());
        tasks.spawn("etcd-lite", async move {
            etcd_lite::run_on(config, vec![(url, listener)], token).await.expect("the server runs");
        });
        Self { url: text, dir, shutdown, tasks }
    }

    pub async fn client(&self) -> Client {
        Client::connect([&self.url], None).await.unwrap()
    }

    /// Ends the server and starts another one on its data.
    pub async fn restart(self) -> Self {
        let dir = self.stop().await;
        Self::start_in(dir, |_| {}).await
    }

    /// Ends the server; what it wrote stays.
    pub async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        assert!(self.tasks.drain(Duration::from_secs(30)).await, "the server ends");
        self.dir
    }
}

/// A server in a process of its own, killed when dropped.
pub struct Process {
    child: Child,
    pub url: String,
}

impl Process {
    pub fn start(data_dir: &Path, flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_etcd-lite"))
            .args(["--listen-client-urls", "http://127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .args(flags)
            .env_remove("COXSWAIN_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut seen = Vec::new();
        let url = log.find_map(|line| {
            let url = line.split_once("url=").map(|(_, url)| url.to_owned());
            seen.push(line);
            url
        });
        let url = url.unwrap_or_else(|| panic!("the server does not start: {seen:#?}"));
        Self { child, url }
    }

    /// Kills it where it stands.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a test on a runtime like the server's own.
pub fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

/// Waits for something that must happen.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.unwrap_or_else(|_| panic!("{what} in time"))
}
