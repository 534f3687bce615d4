//! The REST client of the load generator: connections that are kept, and nothing per request that can be saved.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use component::tasks::Tasks;
use component::tls::{ClientTls, client_config};
use coxswain::cluster::Paths;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::world::LOCALHOST;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which HTTP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A connection for each request in flight.
    Http1,
    /// A connection for each thread, as client-go has one for each process.
    Http2,
}

/// A server on loopback, and who asks.
#[derive(Clone)]
pub struct Server {
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    /// What [`Self::connect`] speaks.
    pub protocol: Protocol,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An open connection, closed when the last handle to it is dropped.
pub struct Connection {
    sender: Sender,
    driver: Arc<Tasks>,
}

impl Server {
    /// A server at a port, with the cluster's certificate of a client.
    pub fn new(paths: &Paths, port: u16, ca: &str, client: &str) -> Result<Self> {
        let pki = |name: &str, ending: &str| paths.pki(&format!("{name}.{ending}"));
        let files = ClientTls { ca: pki(ca, "crt"), cert: pki(client, "crt"), key: pki(client, "key") };
        let address = SocketAddr::from((LOCALHOST, port));
        let tls = client_config(&files).context("the client's certificate")?;
        Ok(Self { address, tls, protocol: Protocol::Http1 }.speaking(Protocol::Http1))
    }

    /// The same over another HTTP.
    pub fn speaking(mut self, protocol: Protocol) -> Self {
        let alpn: &[u8] = match protocol {
            Protocol::Http1 => b"http/1.1",
            Protocol::Http2 => b"h2",
        };
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = vec![alpn.to_vec()];
        self.tls = Arc::new(tls);
        self.protocol = protocol;
        self
    }

    /// Opens a connection. Its driver runs on the runtime of the caller.
    pub async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.address).await.with_context(|| self.address.to_string())?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(LOCALHOST.into());
        let stream = TokioIo::new(TlsConnector::from(self.tls.clone()).connect(name, stream).await?);
        let tasks = Tasks::new("rest");
        let sender = match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                // A broken connection fails the request that is on it.
                tasks.spawn("connection", async move { drop(connection.await) });
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.timer(TokioTimer::new());
                builder.initial_stream_window_size(4 << 20).initial_connection_window_size(16 << 20);
                let (sender, connection) = builder.handshake(stream).await?;
                tasks.spawn("connection", async move { drop(connection.await) });
                Sender::Http2(sender)
            }
        };
        Ok(Connection { sender, driver: Arc::new(tasks) })
    }

    /// One request on a connection of its own, from outside of any runtime.
    pub fn call(&self, method: Method, path: &str, body: &Value) -> Result<(StatusCode, Value)> {
        crate::block_on(async {
            let mut connection = self.connect().await?;
            let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
            let (code, text) = connection.call(request(method, path, body)).await?;
            Ok((code, serde_json::from_slice(&text).unwrap_or(Value::Null)))
        })
    }

    /// Creates an object.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value> {
        let (code, answer) = self.call(Method::POST, path, object)?;
        ensure!(code == StatusCode::CREATED, "POST {path}: {code} {answer}");
        Ok(answer)
    }

    /// Reads an object or a list.
    pub fn get(&self, path: &str) -> Result<Value> {
        let (code, answer) = self.call(Method::GET, path, &Value::Null)?;
        ensure!(code == StatusCode::OK, "GET {path}: {code} {answer}");
        Ok(answer)
    }

    /// Whether a page answers 200.
    pub fn ok(&self, path: &str) -> Result<()> {
        let (code, _) = self.call(Method::GET, path, &Value::Null)?;
        ensure!(code == StatusCode::OK, "GET {path}: {code}");
        Ok(())
    }
}

impl Connection {
    /// Another handle, where requests can share a connection.
    pub fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => {
                Some(Self { sender: Sender::Http2(sender.clone()), driver: self.driver.clone() })
            }
        }
    }

    /// Sends a request and returns the answer's head.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        Ok(match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        })
    }

    /// Sends a request and reads the whole answer.
    pub async fn call(&mut self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes)> {
        let answer = async {
            let response = self.send(request).await?;
            let code = response.status();
            Ok::<_, anyhow::Error>((code, response.into_body().collect().await?.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, answer).await.context("no answer in time")?
    }

    /// Sends a request, reads the answer without keeping it, and returns its length in bytes. Anything but
    /// `expected` is an error.
    pub async fn measure(&mut self, request: Request<Full<Bytes>>, expected: StatusCode) -> Result<usize> {
        let mut response = self.send(request).await?;
        let code = response.status();
        if code != expected {
            let text = response.into_body().collect().await?.to_bytes();
            anyhow::bail!("{code}, not {expected}: {}", String::from_utf8_lossy(&text));
        }
        let mut length = 0;
        while let Some(frame) = response.body_mut().frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(length)
    }
}

/// A request with a JSON body, or with none.
pub fn request(method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(format!("https://localhost{path}"));
    let request = request.header("host", "localhost").header("accept", "application/json");
    let request = request.header("content-type", "application/json").header("user-agent", "bench");
    request.body(Full::new(body)).expect("paths are the benchmark's own")
}
