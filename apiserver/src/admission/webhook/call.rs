//! How a webhook is asked: HTTPS to a URL, or to a Service by way of [`Reach`].

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::trust;
use crate::reach::{Reach, ServicePort, Stream};

/// The bytes of an answer at most: that of the largest request.
const MAX_ANSWER: usize = 3 << 20;
/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30);

/// Where a webhook is, and who vouches for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    url: String,
    service: Option<ServicePort>,
    ca: Vec<u8>,
}

impl Endpoint {
    /// `clientConfig`.
    pub fn read(config: &Value) -> Self {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let ca = base64::engine::general_purpose::STANDARD.decode(text(&config["caBundle"]));
        let service = config.get("service").filter(|s| s.is_object()).map(|s| ServicePort {
            namespace: text(&s["namespace"]),
            name: text(&s["name"]),
            port: s["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(443),
        });
        let url = match &service {
            Some(s) => {
                let path = text(&config["service"]["path"]);
                let slash = if path.starts_with('/') { "" } else { "/" };
                format!("https://{}.{}.svc:{}{slash}{path}", s.name, s.namespace, s.port)
            }
            None => text(&config["url"]),
        };
        Self { url, service, ca: ca.unwrap_or_default() }
    }
}

/// Asks one webhook, over connections that are kept for the next time.
pub struct Caller {
    endpoint: Endpoint,
    client: OnceLock<Result<Client<Connector, Full<Bytes>>, String>>,
}

impl Caller {
    /// A caller that connects when it is first used.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, client: OnceLock::new() }
    }

    fn client(&self, reach: &Arc<Reach>) -> Result<&Client<Connector, Full<Bytes>>, String> {
        let made = self.client.get_or_init(|| {
            let tls = trust::config(&self.endpoint.ca)?;
            let connector = Connector { service: self.endpoint.service.clone(), tls, reach: reach.clone() };
            Ok(Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE)
                .pool_timer(TokioTimer::new())
                .build(connector))
        });
        made.as_ref().map_err(Clone::clone)
    }

    /// Sends a question and reads the answer's body.
    ///
    /// # Errors
    /// Why there is none, in a sentence.
    pub async fn ask(
        &self,
        reach: &Arc<Reach>,
        question: Vec<u8>,
        timeout: Duration,
    ) -> Result<Bytes, String> {
        let separator = if self.endpoint.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}timeout={}s", self.endpoint.url, timeout.as_secs());
        let failed = |why: &dyn std::fmt::Display| format!("failed to call webhook: Post {url:?}: {why}");
        let request = Request::post(&url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "kube-apiserver-admission")
            .body(Full::new(Bytes::from(question)))
            .map_err(|e| failed(&e))?;
        let client = self.client(reach).map_err(|e| failed(&e))?;
        let call = async {
            let response = client.request(request).await.map_err(|e| failed(&causes(&e)))?;
            let code = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|e| failed(&e))?.to_bytes();
            if code.is_success() {
                return Ok(body);
            }
            let said = String::from_utf8_lossy(&body[..body.len().min(1024)]).trim().to_owned();
            let said =
                if said.is_empty() { code.canonical_reason().unwrap_or("unknown").to_owned() } else { said };
            Err(format!("failed to call webhook: the server responded with {}: {said}", code.as_u16()))
        };
        match tokio::time::timeout(timeout, call).await {
            Ok(result) => result,
            Err(_) => Err(failed(&"context deadline exceeded")),
        }
    }
}

/// An error and what caused it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// Connects to one webhook.
#[derive(Clone)]
struct Connector {
    service: Option<ServicePort>,
    tls: Arc<rustls::ClientConfig>,
    reach: Arc<Reach>,
}

impl Connector {
    async fn connect(self, uri: Uri) -> std::io::Result<Secured> {
        let other = |text: String| std::io::Error::other(text);
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let stream = match &self.service {
            Some(service) => self.reach.service(service).await?,
            None => self.reach.host(&host, uri.port_u16().unwrap_or(443)).await?,
        };
        let name = ServerName::try_from(host.clone()).map_err(|e| other(format!("{host:?}: {e}")))?;
        let stream = TlsConnector::from(self.tls).connect(name, stream).await?;
        Ok(Secured(TokioIo::new(stream)))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Secured;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, std::io::Result<Secured>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connection that hyper's pool can keep.
struct Secured(TokioIo<TlsStream<Stream>>);

impl Connection for Secured {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        match self.0.inner().get_ref().1.alpn_protocol() {
            Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl hyper::rt::Read for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_endpoint_is_a_url_or_a_service() {
        let endpoint = Endpoint::read(&json!({"url": "https://a.b/c", "caBundle": "YWJj"}));
        assert_eq!((endpoint.url.as_str(), endpoint.ca.as_slice()), ("https://a.b/c", b"abc".as_slice()));
        let service = json!({"service": {"namespace": "n", "name": "s"}});
        assert_eq!(Endpoint::read(&service).url, "https://s.n.svc:443/");
        let service = json!({"service": {"namespace": "n", "name": "s", "path": "/p?q=1", "port": 8443}});
        assert_eq!(Endpoint::read(&service).url, "https://s.n.svc:8443/p?q=1");
    }
}
