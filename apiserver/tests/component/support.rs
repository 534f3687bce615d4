//! Starts etcd and an API server with certificates of their own, and speaks REST and gRPC to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use apiserver::Config;
use apiserver::aggregation::front_proxy::{Client, Published};
use apiserver::auth::token::options::TokenOptions;
use apiserver::storage::EtcdConfig;
use apiserver::storage::etcd::EtcdTls;
use bytes::Bytes;
use component::clock::Clock;
use component::tasks::Tasks;
use component::tls::{ClientTls, ServerTls, client_config};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Who issues tokens.
pub const ISSUER: &str = "https://kubernetes.default.svc";

/// A certificate authority in memory.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes `name.crt` and `name.key` of a user, and `ca-name.crt`, its CA.
    pub fn issue(&self, dir: &Path, name: &str, user: &str, groups: &[&str]) {
        let mut params =
            CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into(), "remote.default.svc".into()])
                .unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(dir.join(format!("{name}.crt")), cert.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        std::fs::write(dir.join(format!("ca-{name}.crt")), &self.pem).unwrap();
    }
}

/// A running etcd, killed when dropped.
pub struct EtcdProcess {
    child: Child,
    dir: PathBuf,
    port: u16,
    peer: u16,
}

/// A port of loopback that nobody has bound. It lies below the range from which the kernel takes ports for
/// outgoing connections, so none of those takes it before etcd does; other test processes begin elsewhere.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = std::process::id().wrapping_mul(16).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + (next % 20_000) as u16;
        if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

impl EtcdProcess {
    fn start(dir: &Path) -> Self {
        let (port, peer) = (free_port(), free_port());
        Self { child: Self::spawn(dir, port, peer), dir: dir.to_owned(), port, peer }
    }

    fn spawn(dir: &Path, port: u16, peer: u16) -> Child {
        let file = |name: &str| dir.join(name).display().to_string();
        let (url, peer) = (format!("https://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
        Command::new("etcd")
            .args(["--data-dir", &file("etcd-data"), "--log-level", "error"])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(["--cert-file", &file("etcd.crt"), "--key-file", &file("etcd.key")])
            .args(["--client-cert-auth", "--trusted-ca-file", &file("ca-etcd.crt")])
            // Tests need no durability, and many run at once on the same disk.
            .arg("--unsafe-no-fsync")
            .env("ETCD_UNSUPPORTED_ARCH", "arm64")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is on PATH")
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.child = Self::spawn(&self.dir, self.port, self.peer);
    }
}

impl Drop for EtcdProcess {
    fn drop(&mut self) {
        // It may be dead already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// etcd, an API server and certificates.
pub struct Server {
    pub etcd: EtcdProcess,
    pub address: SocketAddr,
    pub dir: TempDir,
    shutdown: CancellationToken,
    tasks: Tasks,
}

impl Server {
    /// Starts both and waits until the server is ready.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = TempDir::new().unwrap();
        let (ca, etcd_ca) = (Ca::new(), Ca::new());
        ca.issue(dir.path(), "server", "kube-apiserver", &[]);
        ca.issue(dir.path(), "admin", "admin", &["system:masters"]);
        ca.issue(dir.path(), "n1", "system:node:n1", &["system:nodes"]);
        ca.issue(dir.path(), "scheduler", "system:kube-scheduler", &[]);
        ca.issue(dir.path(), "nobody", "nobody", &["nothing"]);
        ca.issue(dir.path(), "front", "front-proxy-client", &[]);
        etcd_ca.issue(dir.path(), "etcd", "etcd", &[]);
        std::fs::write(dir.path().join("sa.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let etcd = EtcdProcess::start(dir.path());
        let listener = apiserver::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = config(dir.path(), etcd.port);
        change(&mut config);
        let (shutdown, tasks) = (CancellationToken::new(), Tasks::new("test server"));
        let token = shutdown.clone();
        tasks.spawn("apiserver", async move {
            apiserver::run_on(config, vec![listener], token).await.expect("the server runs");
        });
        let server = Self { etcd, address, dir, shutdown, tasks };
        server.ready().await;
        server
    }

    /// A second API server on the same store.
    pub async fn another(&self) -> SocketAddr {
        let listener = apiserver::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (config, token) = (config(self.dir.path(), self.etcd.port), self.shutdown.clone());
        self.tasks.spawn("another apiserver", async move {
            apiserver::run_on(config, vec![listener], token).await.expect("the server runs");
        });
        ready(&self.http_at(address, Some("admin"))).await;
        address
    }

    /// Where its store is.
    pub fn store(&self) -> EtcdConfig {
        config(self.dir.path(), self.etcd.port).etcd
    }

    pub async fn ready(&self) {
        ready(&self.http("admin")).await;
    }

    /// A REST client with the certificate of a user.
    pub fn http(&self, user: &str) -> Http {
        self.http_at(self.address, Some(user))
    }

    /// A REST client without a certificate.
    pub fn anonymous(&self) -> Http {
        self.http_at(self.address, None)
    }

    pub fn http_at(&self, address: SocketAddr, user: Option<&str>) -> Http {
        Http { headers: Vec::new(), address, tls: self.tls(user), connection: Arc::default() }
    }

    fn tls(&self, user: Option<&str>) -> Arc<rustls::ClientConfig> {
        let file = |name: String| self.dir.path().join(name);
        let ca = file("ca-server.crt".into());
        match user {
            Some(user) => {
                let (cert, key) = (file(format!("{user}.crt")), file(format!("{user}.key")));
                client_config(&ClientTls { ca, cert, key }).unwrap()
            }
            None => {
                let mut roots = rustls::RootCertStore::empty();
                for cert in component::tls::read_certs(&ca).unwrap() {
                    roots.add(cert).unwrap();
                }
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let builder = rustls::ClientConfig::builder_with_provider(provider);
                let builder = builder.with_safe_default_protocol_versions().unwrap();
                Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
            }
        }
    }

    /// A gRPC client with the certificate of a user.
    pub fn grpc(&self, user: &str) -> client::Client {
        self.grpc_at(self.address, user)
    }

    pub fn grpc_at(&self, address: SocketAddr, user: &str) -> client::Client {
        client::Client::new(client::ClientConfig {
            servers: vec![format!("https://{address}")],
            tls: self.tls(Some(user)),
            user_agent: "test".into(),
        })
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        assert!(self.tasks.drain(Duration::from_secs(20)).await, "the server did not drain");
    }
}

fn config(dir: &Path, etcd_port: u16) -> Config {
    let file = |name: &str| dir.join(name);
    Config {
        etcd: EtcdConfig {
            servers: vec![format!("https://127.0.0.1:{etcd_port}")],
            tls: Some(EtcdTls { ca: file("ca-etcd.crt"), cert: file("etcd.crt"), key: file("etcd.key") }),
            prefix: "/registry".into(),
        },
        bind: Vec::new(),
        port: 6443,
        advertise: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        tls: ServerTls {
            cert: file("server.crt"),
            key: file("server.key"),
            client_ca: Some(file("ca-server.crt")),
        },
        service_range: (Ipv4Addr::new(10, 96, 0, 0), 12),
        node_ports: 30000..=32767,
        tokens: TokenOptions {
            issuers: vec![ISSUER.into()],
            signing_key_file: Some(file("sa.key")),
            ..TokenOptions::default()
        },
        front_proxy: Some(Client { cert: file("front.crt"), key: file("front.key") }),
        request_headers: Published { client_ca: "PEM".into(), ..Published::default() },
        // Nobody makes service accounts or looks after nodes here, and the sample of a LimitRange fits no sample of a Pod.
        disabled_admission: ["ServiceAccount", "TaintNodesByCondition", "LimitRanger"]
            .map(str::to_owned)
            .into(),
        max_reads: 400,
        max_writes: 200,
        event_ttl: Duration::from_secs(3600),
        compaction_interval: Duration::ZERO,
        clock: Clock::system(),
    }
}

async fn ready(http: &Http) {
    let wait = async {
        loop {
            match http.try_call(Method::GET, "/readyz", "", Bytes::new(), &[]).await {
                Ok((StatusCode::OK, _)) => return,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the server becomes ready");
}

/// A REST client that keeps one connection.
#[derive(Clone)]
pub struct Http {
    /// Sent with every request.
    headers: Vec<(String, String)>,
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    connection: Arc<Mutex<Option<(SendRequest<Full<Bytes>>, Tasks)>>>,
}

pub type CallError = Box<dyn std::error::Error + Send + Sync>;

impl Http {
    /// The same with another header in every request.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut http = self.clone();
        http.headers.push((name.to_owned(), value.to_owned()));
        http
    }

    /// The same over a connection of its own.
    pub fn fresh(&self) -> Self {
        Self { connection: Arc::default(), ..self.clone() }
    }

    /// A connection that speaks HTTP/1.1.
    pub async fn raw(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, CallError> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = rustls::pki_types::ServerName::try_from("localhost")?;
        Ok(tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await?)
    }

    async fn connect(&self) -> Result<(SendRequest<Full<Bytes>>, Tasks), CallError> {
        let stream = self.raw().await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let tasks = Tasks::new("http client");
        tasks.spawn("connection", async move {
            // It ends with an error when the server goes away, as tests make it do.
            let _ = connection.await;
        });
        Ok((sender, tasks))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        media: &str,
        body: Bytes,
        headers: &[(&str, &str)],
    ) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if !media.is_empty() {
            request = request.header("content-type", media);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(body)).expect("a request")
    }

    /// One call: the code and the body.
    pub async fn try_call(
        &self,
        method: Method,
        path: &str,
        media: &str,
        body: Bytes,
        headers: &[(&str, &str)],
    ) -> Result<(StatusCode, Bytes), CallError> {
        let mut slot = self.connection.lock().await;
        if slot.as_ref().is_none_or(|(sender, _)| sender.is_closed()) {
            *slot = Some(self.connect().await?);
        }
        let (sender, _) = slot.as_mut().expect("just connected");
        let result = async {
            sender.ready().await?;
            let response = sender.send_request(self.request(method, path, media, body, headers)).await?;
            let code = response.status();
            Ok::<_, CallError>((code, response.into_body().collect().await?.to_bytes()))
        };
        let result = tokio::time::timeout(Duration::from_secs(70), result).await;
        let result = result.unwrap_or_else(|_| Err("the server did not answer".into()));
        if result.is_err() {
            *slot = None;
        }
        result
    }

    /// One call with a body in JSON: the code and the headers.
    pub async fn headers(&self, method: Method, path: &str, body: &Value) -> (u16, http::HeaderMap) {
        let mut slot = self.connection.lock().await;
        if slot.as_ref().is_none_or(|(sender, _)| sender.is_closed()) {
            *slot = Some(self.connect().await.expect("a connection"));
        }
        let (sender, _) = slot.as_mut().expect("just connected");
        sender.ready().await.expect("a connection");
        let request = self.request(method, path, "application/json", body.to_string().into(), &[]);
        let response = sender.send_request(request).await.expect("an answer");
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        response.into_body().collect().await.expect("a body");
        (code, headers)
    }

    /// A call whose answer is JSON.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        media: &str,
        body: impl Into<Bytes>,
    ) -> (u16, Value) {
        let (code, bytes) = self.try_call(method, path, media, body.into(), &[]).await.expect("an answer");
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into()));
        (code.as_u16(), value)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, "", "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call(Method::POST, path, "application/json", body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call(Method::PUT, path, "application/json", body.to_string()).await
    }

    /// `type_`: `json`, `merge` or `strategic-merge`.
    pub async fn patch(&self, path: &str, type_: &str, body: &Value) -> (u16, Value) {
        self.call(Method::PATCH, path, &format!("application/{type_}-patch+json"), body.to_string()).await
    }

    pub async fn delete(&self, path: &str, body: &str) -> (u16, Value) {
        self.call(Method::DELETE, path, "application/json", body.to_owned()).await
    }

    /// Creates an object that must be accepted.
    #[track_caller]
    pub fn create<'a>(&'a self, path: &'a str, body: Value) -> impl Future<Output = Value> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let (code, value) = self.post(path, &body).await;
            assert_eq!(code, 201, "{caller}: POST {path}: {value}");
            value
        }
    }

    /// Opens a watch on a connection of its own.
    pub async fn watch(&self, path: &str) -> Result<Events, (u16, Value)> {
        self.watch_with(path, &[]).await
    }

    pub async fn watch_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Events, (u16, Value)> {
        let (mut sender, tasks) = self.connect().await.expect("a connection");
        let response = sender
            .send_request(self.request(Method::GET, path, "", Bytes::new(), headers))
            .await
            .expect("an answer");
        let code = response.status().as_u16();
        if code != 200 {
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            return Err((code, serde_json::from_slice(&body).expect("JSON")));
        }
        Ok(Events { body: response.into_body(), rest: Vec::new(), _sender: sender, _tasks: tasks })
    }
}

/// The events of a watch.
pub struct Events {
    body: Incoming,
    rest: Vec<u8>,
    _sender: SendRequest<Full<Bytes>>,
    _tasks: Tasks,
}

impl Events {
    /// The next event; nothing when the watch ended.
    pub async fn next(&mut self) -> Option<Value> {
        let next = async {
            loop {
                if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = self.rest.drain(..=end).collect();
                    return Some(serde_json::from_slice(&line).expect("a line of JSON"));
                }
                let frame = self.body.frame().await?.ok()?;
                if let Ok(data) = frame.into_data() {
                    self.rest.extend_from_slice(&data);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), next).await.expect("an event comes")
    }

    /// The next events in short: `ADDED name`.
    #[track_caller]
    pub fn expect<'a>(&'a mut self, wanted: &'a [&'a str]) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            for wanted in wanted {
                let event =
                    self.next().await.unwrap_or_else(|| panic!("{caller}: the watch ended before {wanted}"));
                let name = event.pointer("/object/metadata/name").and_then(Value::as_str).unwrap_or_default();
                let seen = format!("{} {name}", event["type"].as_str().unwrap_or_default());
                assert_eq!(seen, *wanted, "{caller}: {event}");
            }
        }
    }
}

/// The string at a pointer.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
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
