//! The launcher's own small client of the API server, and of anything else that answers HTTP over TLS.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use component::tls::{ClientTls, TlsError, client_config};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cluster::{Cluster, Paths};

/// Why an answer could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No connection. Trying again may help.
    #[error("could not connect to {addr}")]
    Connect {
        /// Where to.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke. Trying again may help.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// The server said no.
    #[error("the API server answered {status}: {message}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// What it said.
        message: String,
    },
    /// The answer is no JSON.
    #[error("the answer is not JSON")]
    Json(#[source] serde_json::Error),
    /// No answer in time.
    #[error("no answer from {0} in time")]
    Timeout(SocketAddr),
}

/// A server on this host, and who asks.
#[derive(Clone)]
pub struct Rest {
    addr: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
}

/// Long enough for a loaded machine, short enough to notice a server that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

impl Rest {
    /// A client of the server at `127.0.0.1:port`, with the certificate `client` and the CA `ca` of the cluster.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn new(paths: &Paths, port: u16, ca: &str, client: &str) -> Result<Self, RestError> {
        let pki = |name: &str, ending: &str| paths.pki(&format!("{name}.{ending}"));
        let files = ClientTls { ca: pki(ca, "crt"), cert: pki(client, "crt"), key: pki(client, "key") };
        let mut tls = Arc::unwrap_or_clone(client_config(&files)?);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), tls: Arc::new(tls) })
    }

    /// A client of the cluster's API server, as its admin.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn admin(cluster: &Cluster, paths: &Paths) -> Result<Self, RestError> {
        Self::new(paths, cluster.ports.api, "ca", "admin")
    }

    /// Makes a connection. Its driver ends with it.
    async fn connect(&self) -> Result<(SendRequest<Full<Bytes>>, Driver), RestError> {
        let error = |source| RestError::Connect { addr: self.addr, source };
        let stream = TcpStream::connect(self.addr).await.map_err(error)?;
        stream.set_nodelay(true).map_err(error)?;
        let name = rustls::pki_types::ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await.map_err(error)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(RestError::Broken)?;
        let tasks = component::tasks::Tasks::new("rest");
        tasks.spawn("connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        Ok((sender, Driver { _tasks: tasks }))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Result<(Response<Incoming>, Driver), RestError> {
        let (mut sender, driver) = self.connect().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.addr.to_string())
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "coxswain")
            .header(header::CONTENT_TYPE, kind)
            .body(Full::new(Bytes::from(body)))
            .expect("paths and types are the launcher's own");
        let response = sender.send_request(request).await.map_err(RestError::Broken)?;
        Ok((response, driver))
    }

    /// The status and the body of an answer, whatever the status is.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), RestError> {
        let exchange = async {
            let (response, _driver) = self.send(method, path, kind, body).await?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(RestError::Broken)?;
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or(Err(RestError::Timeout(self.addr)))
    }

    /// An object or a list.
    ///
    /// # Errors
    /// When there is no answer, or it is no success.
    pub async fn get(&self, path: &str) -> Result<Value, RestError> {
        let (status, body) = self.ask(Method::GET, path, "application/json", Vec::new()).await?;
        json(status, &body)
    }

    /// Creates an object; one that exists already stays as it is. Returns whether it was created.
    ///
    /// # Errors
    /// When there is no answer, or it is neither a success nor a conflict with one of that name.
    pub async fn create(&self, path: &str, object: &Value) -> Result<bool, RestError> {
        let body = object.to_string().into_bytes();
        let (status, body) = self.ask(Method::POST, path, "application/json", body).await?;
        if status == StatusCode::CONFLICT {
            return Ok(false);
        }
        json(status, &body).map(|_| true)
    }

    /// Follows a watch until `enough` says so for an event. Returns when the server ends it, with false.
    ///
    /// # Errors
    /// When there is no answer, or it is no success.
    pub async fn watch(&self, path: &str, mut enough: impl FnMut(&Value) -> bool) -> Result<bool, RestError> {
        let (response, _driver) = self.send(Method::GET, path, "application/json", Vec::new()).await?;
        let status = response.status();
        let mut body = response.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Some(bytes) = frame.map_err(RestError::Broken)?.data_ref() {
                pending.extend_from_slice(bytes);
            }
            if !status.is_success() {
                continue;
            }
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                if enough(&serde_json::from_slice(&line).map_err(RestError::Json)?) {
                    return Ok(true);
                }
            }
        }
        if status.is_success() { Ok(false) } else { json(status, &pending).map(|_| false) }
    }

    /// Whether a page answers 200; otherwise why not.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub async fn healthy(&self, path: &str) -> Result<(), String> {
        match self.ask(Method::GET, path, "text/plain", Vec::new()).await {
            Ok((StatusCode::OK, _)) => Ok(()),
            Ok((status, body)) => Err(format!("{status}: {}", String::from_utf8_lossy(&body).trim())),
            Err(error) => Err(chain(&error)),
        }
    }
}

/// Keeps a connection going.
struct Driver {
    _tasks: component::tasks::Tasks,
}

fn json(status: StatusCode, body: &[u8]) -> Result<Value, RestError> {
    let value: Result<Value, _> = serde_json::from_slice(body);
    if status.is_success() {
        return value.map_err(RestError::Json);
    }
    let message = match &value {
        Ok(value) if value["message"].is_string() => value["message"].as_str().unwrap_or_default().to_owned(),
        _ => String::from_utf8_lossy(body).trim().to_owned(),
    };
    Err(RestError::Refused { status, message })
}

/// An error with all its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Asks a page of a server in a node's network, without TLS, and says whether it answers 200. Blocks.
///
/// # Errors
/// What is wrong, in words.
pub fn healthy_on_node(machine: i32, port: u16, path: &str) -> Result<(), String> {
    use std::io::{Read, Write};
    let ask = || -> io::Result<Vec<u8>> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = std::net::TcpStream::connect_timeout(&addr, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(64 << 10).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = crate::process::within_network(machine, ask).map_err(|e| e.to_string())?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split_whitespace().nth(1).unwrap_or("nothing");
    if status == "200" { Ok(()) } else { Err(format!("{path} answers {status}")) }
}
