//! One connection to the API servers: mutual TLS, reconnect with backoff, failover.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::{Kind, Object, Typed};
use http::Uri;
use hyper_util::rt::TokioIo;
use proto::decisions_client::DecisionsClient;
use proto::node_tunnel_client::NodeTunnelClient;
use proto::resources_client::ResourcesClient;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::Endpoint;

use crate::api_handle::Api;
use crate::config::ClientConfig;

/// The HTTP/2 connection beneath a [`Client`].
pub type Channel = tonic::transport::Channel;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of the API servers. Cheap to clone; all clones share one connection, which is made when
/// the first request needs it and again whenever it broke.
#[derive(Clone)]
pub struct Client {
    config: ClientConfig,
    channel: Channel,
}

impl Client {
    /// A client that has not connected yet. Must be called within a tokio runtime.
    ///
    /// # Panics
    /// When the user agent holds characters that no header may hold.
    pub fn new(config: ClientConfig) -> Self {
        // TLS is the connector's own. With "https" tonic would insist on its TLS whenever another crate
        // of the same build enables that, so the scheme of requests is set apart.
        let endpoint = Endpoint::from_static("http://apiserver")
            .origin(Uri::from_static("https://apiserver"))
            .user_agent(config.user_agent.clone())
            .expect("a component's user agent is plain text")
            .connect_timeout(CONNECT_TIMEOUT)
            // A server that vanished without a word is noticed by unanswered pings.
            .http2_keep_alive_interval(Duration::from_secs(15))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            // Streams are bounded each; one that is not read must not hold up the others.
            .initial_connection_window_size(1 << 30);
        let connector = Connector::new(&config);
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move { connector.connect().await.map(TokioIo::new) }
        }));
        Self { config, channel }
    }

    /// A client for a channel that the caller has made, as tests do in memory.
    pub fn from_channel(config: ClientConfig, channel: Channel) -> Self {
        Self { config, channel }
    }

    /// A kind's objects in all namespaces, or a cluster-scoped kind's.
    pub fn all<K: Typed>(&self) -> Api<K> {
        Api::new(self, K::kind(), "")
    }

    /// A kind's objects in one namespace.
    pub fn namespaced<K: Typed>(&self, namespace: &str) -> Api<K> {
        Api::new(self, K::kind(), namespace)
    }

    /// Objects of a kind that is known only at run time. An empty namespace means all of them.
    pub fn dynamic(&self, kind: &'static Kind, namespace: &str) -> Api<Object> {
        Api::new(self, kind, namespace)
    }

    /// The objects of a kind in a form of the caller's own, such as one that keeps metadata alone.
    pub fn documents<K: api::object::Document>(&self, kind: &'static Kind, namespace: &str) -> Api<K> {
        Api::new(self, kind, namespace)
    }

    /// The node tunnel over the same connection.
    pub fn tunnel(&self) -> NodeTunnelClient<Channel> {
        NodeTunnelClient::new(self.channel.clone())
            .max_decoding_message_size(proto::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(proto::MAX_MESSAGE_BYTES)
    }

    /// The service through which a scheduler explains its decisions, over the same connection.
    pub fn decisions(&self) -> DecisionsClient<Channel> {
        DecisionsClient::new(self.channel.clone())
            .max_decoding_message_size(proto::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(proto::MAX_MESSAGE_BYTES)
    }

    /// One client for each API server, for what must be kept open to every one of them.
    pub fn per_server(&self) -> Vec<Self> {
        let one = |server: &String| {
            Self::new(ClientConfig { servers: vec![server.clone()], ..self.config.clone() })
        };
        self.config.servers.iter().map(one).collect()
    }

    /// The API servers' URLs.
    pub fn servers(&self) -> &[String] {
        &self.config.servers
    }

    pub(crate) fn resources(&self) -> ResourcesClient<Channel> {
        ResourcesClient::new(self.channel.clone())
            .max_decoding_message_size(proto::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(proto::MAX_MESSAGE_BYTES)
    }
}

/// Connects to the servers in turn, beginning with the one that worked last.
#[derive(Clone)]
struct Connector {
    servers: Arc<[String]>,
    next: Arc<AtomicUsize>,
    tls: TlsConnector,
}

impl Connector {
    fn new(config: &ClientConfig) -> Self {
        let mut tls = (*config.tls).clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            servers: config.servers.clone().into(),
            next: Arc::new(AtomicUsize::new(0)),
            tls: TlsConnector::from(Arc::new(tls)),
        }
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, std::io::Error> {
        let first = self.next.load(Ordering::Relaxed);
        let mut last_error = std::io::Error::other("no API server is configured");
        for i in 0..self.servers.len() {
            let at = (first + i) % self.servers.len();
            let server = &self.servers[at];
            match tokio::time::timeout(CONNECT_TIMEOUT, self.connect_to(server)).await {
                Ok(Ok(stream)) => {
                    self.next.store(at, Ordering::Relaxed);
                    return Ok(stream);
                }
                Ok(Err(error)) => {
                    tracing::debug!(%server, %error, "could not connect");
                    last_error = std::io::Error::new(error.kind(), format!("{server}: {error}"));
                }
                Err(_) => {
                    let message = format!("{server}: no answer within {CONNECT_TIMEOUT:?}");
                    last_error = std::io::Error::new(std::io::ErrorKind::TimedOut, message);
                }
            }
        }
        Err(last_error)
    }

    async fn connect_to(&self, server: &str) -> Result<TlsStream<TcpStream>, std::io::Error> {
        let uri: Uri = server.parse().map_err(std::io::Error::other)?;
        let host = uri.host().ok_or_else(|| std::io::Error::other("the URL has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        self.tls.connect(name, stream).await
    }
}
