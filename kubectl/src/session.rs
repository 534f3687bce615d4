//! One run of kubectl: flags, connection, discovery, and requests with upstream's wording of failures.

use std::time::{Duration, Instant};

use bytes::Bytes;
use component::clock::Clock;
use futures::{Stream, StreamExt};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::client::{Body, Client, ConfigExt};
use serde_json::Value;
use tokio::sync::{Mutex, OnceCell};
use tower::{BoxError, ServiceBuilder};

use crate::cli::Globals;
use crate::error::{Error, Result};
use crate::kubeconfig::{self, Target};
use crate::resource::{Catalog, Resource};

/// Media type of plain objects.
pub const JSON: &str = "application/json";
/// Asks for a table, and takes the object itself from servers that print none.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

/// One run of the program.
pub struct Session {
    /// The flags that every command has.
    pub globals: Globals,
    /// The time.
    pub clock: Clock,
    target: OnceCell<Target>,
    client: OnceCell<Client>,
    catalog: Mutex<Option<std::sync::Arc<Catalog>>>,
}

/// A request that is to be made.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    accept: &'static str,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: Vec::new(),
            accept: JSON,
            content_type: JSON,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }
    /// `GET`.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }
    /// `POST`.
    pub fn post(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::POST, path).body(JSON, body.to_string().into_bytes())
    }
    /// `PUT`.
    pub fn put(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::PUT, path).body(JSON, body.to_string().into_bytes())
    }
    /// `PATCH` with a media type of patch.
    pub fn patch(path: impl Into<String>, content_type: &'static str, body: Vec<u8>) -> Self {
        Self::new(Method::PATCH, path).body(content_type, body)
    }
    /// `DELETE` with options.
    pub fn delete(path: impl Into<String>, options: &Value) -> Self {
        Self::new(Method::DELETE, path).body(JSON, options.to_string().into_bytes())
    }
    fn body(mut self, content_type: &'static str, body: Vec<u8>) -> Self {
        self.content_type = content_type;
        self.body = body;
        self
    }
    /// Adds a parameter; an empty value is left out.
    pub fn query(mut self, key: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        if !value.is_empty() {
            self.query.push((key.into(), value));
        }
        self
    }
    /// What is asked for.
    pub fn accept(mut self, media: &'static str) -> Self {
        self.accept = media;
        self
    }
    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
    /// Path and query.
    pub fn uri(&self) -> String {
        let query: Vec<String> = self.query.iter().map(|(k, v)| format!("{k}={}", encode(v))).collect();
        if query.is_empty() {
            return self.path.clone();
        }
        let joint = if self.path.contains('?') { '&' } else { '?' };
        format!("{}{joint}{}", self.path, query.join("&"))
    }
}

/// Percent-encodes a path segment or a parameter.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl Session {
    /// A session that has not connected yet.
    pub fn new(globals: Globals, clock: Clock) -> Self {
        Self { globals, clock, target: OnceCell::new(), client: OnceCell::new(), catalog: Mutex::new(None) }
    }

    /// Where this session connects to.
    pub async fn target(&self) -> Result<&Target> {
        self.target.get_or_try_init(|| kubeconfig::target(&self.globals)).await
    }

    /// The namespace of requests that name none.
    pub async fn namespace(&self) -> Result<&str> {
        Ok(&self.target().await?.namespace)
    }

    /// Whether -n was given, so that manifests must agree with it.
    pub fn enforces_namespace(&self) -> bool {
        self.globals.namespace.is_some()
    }

    /// The client; made on first use.
    pub async fn client(&self) -> Result<&Client> {
        let target = self.target().await?;
        let make = || async { connect(&target.config).map_err(|e| Error::message(connect_cause(&e))) };
        self.client.get_or_try_init(make).await
    }

    /// `host:port` of the server.
    pub async fn server(&self) -> Result<String> {
        let url = &self.target().await?.config.cluster_url;
        Ok(url.authority().map(ToString::to_string).unwrap_or_default())
    }

    /// What the server serves, from the cache where that is fresh.
    pub async fn catalog(&self) -> Result<std::sync::Arc<Catalog>> {
        let mut held = self.catalog.lock().await;
        if let Some(catalog) = &*held {
            return Ok(catalog.clone());
        }
        let catalog = std::sync::Arc::new(crate::resource::discovery::load(self, false).await?);
        *held = Some(catalog.clone());
        Ok(catalog)
    }

    /// What the server serves now. Costs requests only once in a session.
    pub async fn fresh_catalog(&self) -> Result<std::sync::Arc<Catalog>> {
        let mut held = self.catalog.lock().await;
        if let Some(catalog) = held.as_ref().filter(|c| c.fresh) {
            return Ok(catalog.clone());
        }
        let catalog = std::sync::Arc::new(crate::resource::discovery::load(self, true).await?);
        *held = Some(catalog.clone());
        Ok(catalog)
    }

    /// The resource that a name, plural, short name or `name.group` means.
    pub async fn resource(&self, name: &str) -> Result<Resource> {
        if let Some(found) = self.catalog().await?.find(name) {
            return Ok(found.clone());
        }
        let fresh = self.fresh_catalog().await?;
        fresh
            .find(name)
            .cloned()
            .ok_or_else(|| Error::message(format!("the server doesn't have a resource type {name:?}")))
    }

    /// The resource of a document's `apiVersion` and `kind`, if the server has it.
    pub async fn resource_of_kind(&self, api_version: &str, kind: &str) -> Result<Option<Resource>> {
        if let Some(found) = self.catalog().await?.of_kind(api_version, kind) {
            return Ok(Some(found.clone()));
        }
        Ok(self.fresh_catalog().await?.of_kind(api_version, kind).cloned())
    }

    fn build(&self, call: &Call) -> Result<Request<Body>> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(call.uri())
            .header("Accept", call.accept)
            .header("User-Agent", crate::USER_AGENT);
        if !call.body.is_empty() {
            request = request.header("Content-Type", call.content_type);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        request
            .body(Body::from(call.body.clone()))
            .map_err(|e| Error::message(format!("invalid request: {e}")))
    }

    /// Sends a request as it is, without looking at the answer's code.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>> {
        let client = self.client().await?;
        let description = format!("{} {}", request.method(), request.uri());
        let began = Instant::now();
        let answer = client.send(request).await;
        if self.globals.v >= 6 {
            let code = answer.as_ref().map_or_else(|_| "failed".into(), |a| a.status().to_string());
            let millis = began.elapsed().as_millis();
            crate::output::warn(format!(
                "I {description} {code} in {millis} milliseconds (server {})",
                self.server().await?
            ));
        }
        match answer {
            Ok(answer) => Ok(answer),
            Err(e) => Err(self.unreachable(&e).await),
        }
    }

    /// The answer of a successful request, its body not read yet.
    pub async fn respond(&self, call: &Call) -> Result<Response<Body>> {
        let sent = self.send(self.build(call)?);
        let answer = match self.globals.request_timeout() {
            Some(limit) => tokio::time::timeout(limit, sent).await.unwrap_or_else(|_| Err(timed_out()))?,
            None => sent.await?,
        };
        for warning in answer.headers().get_all("warning") {
            if let Some(text) = warning.to_str().ok().and_then(warning_text) {
                crate::output::warn(format!("Warning: {text}"));
            }
        }
        let code = answer.status();
        if code.is_success() || code == http::StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        let body = answer.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        Err(refusal(code, &body, call))
    }

    /// The body of a successful request.
    pub async fn bytes(&self, call: &Call) -> Result<Bytes> {
        let answer = self.respond(call).await?;
        let read = answer.into_body().collect();
        let limit = self.globals.request_timeout().unwrap_or(Duration::MAX);
        match tokio::time::timeout(limit, read).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(e)) => Err(self.unreachable(&e).await),
            Err(_) => Err(timed_out()),
        }
    }

    /// The object that a request answers.
    pub async fn json(&self, call: &Call) -> Result<Value> {
        let bytes = self.bytes(call).await?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::message(format!("the server's answer to {} is not JSON: {e}", call.path)))
    }

    /// The events of a watch, one JSON document each, until the server ends it.
    pub async fn watch(&self, call: &Call) -> Result<Lines> {
        Ok(Lines { body: self.respond(call).await?.into_body(), buffer: Vec::new(), scanned: 0, done: false })
    }

    /// The body of a successful request as it comes in.
    pub async fn stream(&self, call: &Call) -> Result<impl Stream<Item = Result<Bytes>> + use<>> {
        let body = self.respond(call).await?.into_body();
        Ok(body.into_data_stream().map(|chunk| chunk.map_err(|e| Error::message(root_cause(&e)))))
    }

    async fn unreachable(&self, error: &kube::Error) -> Error {
        let server = self.server().await.unwrap_or_default();
        if has_io_kind(error, std::io::ErrorKind::ConnectionRefused) {
            return Error::Plain(format!(
                "The connection to the server {server} was refused - did you specify the right host or port?"
            ));
        }
        Error::Plain(format!("Unable to connect to the server: {}", root_cause(error)))
    }

    /// A manifest from this machine's own web server; no other address is fetched.
    pub async fn fetch_loopback(&self, url: &str) -> Result<String> {
        let fail = |e: &str| Error::message(format!("unable to read URL {url:?}: {e}"));
        let uri: http::Uri = url.parse().map_err(|e: http::uri::InvalidUri| fail(&e.to_string()))?;
        if !kubeconfig::is_loopback(uri.host().unwrap_or_default()) || uri.scheme_str() != Some("http") {
            return Err(fail(
                "manifests are not fetched over the network: download the file, look at it, and apply it with -f FILE",
            ));
        }
        let base = format!("http://{}", uri.authority().map(ToString::to_string).unwrap_or_default());
        let mut config = kube::Config::new(base.parse().map_err(|_| fail("invalid address"))?);
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|e| fail(&root_cause(&e)))?;
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let request = Request::get(path).body(Body::empty()).map_err(|e| fail(&e.to_string()))?;
        let answer = client.send(request).await.map_err(|e| fail(&root_cause(&e)))?;
        if !answer.status().is_success() {
            return Err(fail(&format!("server reported {}", answer.status())));
        }
        let body = answer.into_body().collect().await.map_err(|e| fail(&root_cause(&e)))?.to_bytes();
        String::from_utf8(body.to_vec()).map_err(|_| fail("not UTF-8"))
    }
}

fn timed_out() -> Error {
    Error::Plain(
        "Unable to connect to the server: net/http: request canceled (Client.Timeout exceeded while awaiting headers)"
            .into(),
    )
}

/// The lines of a body that is still being written.
pub struct Lines {
    body: Body,
    buffer: Vec<u8>,
    scanned: usize,
    done: bool,
}

impl Lines {
    /// The next line as a JSON document; `None` once the body has ended, however it ended: a watch is
    /// then begun again from the last version seen.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.scanned + end).collect();
                self.scanned = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line).map(Some).map_err(|e| {
                    Error::message(format!("unable to decode an event from the watch stream: {e}"))
                });
            }
            self.scanned = self.buffer.len();
            if self.done {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) | None => self.done = true,
            }
        }
    }
}

/// The text of a `Warning: 299 - "text"` header.
fn warning_text(header: &str) -> Option<String> {
    let rest = header.strip_prefix("299 ")?;
    let quoted = rest[rest.find('"')? + 1..].trim_end();
    let quoted = quoted.strip_suffix('"').unwrap_or(quoted);
    Some(quoted.replace("\\\"", "\"").replace("\\\\", "\\"))
}

/// The error of an answer that is no success.
fn refusal(code: http::StatusCode, body: &[u8], call: &Call) -> Error {
    if let Ok(status) = serde_json::from_slice::<Value>(body)
        && status["kind"] == "Status"
        && let Ok(mut status) = serde_json::from_value::<Status>(status)
    {
        status.code.get_or_insert(i32::from(code.as_u16()));
        return Error::Status(Box::new(status));
    }
    let text = String::from_utf8_lossy(body);
    let (reason, message) = match code.as_u16() {
        401 => ("Unauthorized", "the server has asked for the client to provide credentials".to_owned()),
        403 => ("Forbidden", text.trim().to_owned()),
        404 => ("NotFound", "the server could not find the requested resource".into()),
        405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource".into()),
        406 => ("NotAcceptable", "the server was unable to respond with a content type that the client supports".into()),
        415 => ("UnsupportedMediaType", "the body of the request was in an unknown format".into()),
        429 => ("TooManyRequests", "the server has received too many requests and has asked us to try again later".into()),
        500 => ("InternalError", format!("an error on the server ({:?}) has prevented the request from succeeding", text.trim())),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request".into()),
        504 => ("Timeout", "the server was unable to return a response in the time allotted, but may still be processing the request".into()),
        _ => ("", format!("the server responded with the status code {} to {} {}", code.as_u16(), call.method, call.path)),
    };
    Error::Status(Box::new(Status {
        code: Some(i32::from(code.as_u16())),
        reason: Some(reason.into()),
        message: Some(message),
        ..Status::default()
    }))
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |e| e.source())
}

fn has_io_kind(error: &(dyn std::error::Error + 'static), kind: std::io::ErrorKind) -> bool {
    chain(error).any(|e| e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == kind))
}

/// The last cause of an error, which is the one that says something.
pub fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

/// A client that sends what it has at once: a small request after a handshake would otherwise wait for
/// the server's delayed acknowledgement.
fn connect(config: &kube::Config) -> std::result::Result<Client, kube::Error> {
    if config.proxy_url.is_some() {
        return Client::try_from(config.clone());
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(config.connect_timeout);
    let connector = config.rustls_https_connector_with_connector(tcp)?;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(config.extra_headers_layer()?)
        .option_layer(config.auth_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}

fn connect_cause(error: &kube::Error) -> String {
    format!("unable to use the kubeconfig: {}", root_cause(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_encoded_and_empty_ones_left_out() {
        let call = Call::get("/api/v1/pods").query("labelSelector", "a in (b,c)").query("fieldSelector", "");
        assert_eq!(call.uri(), "/api/v1/pods?labelSelector=a%20in%20%28b%2Cc%29");
        assert_eq!(Call::get("/x?a=1").query("b", "2").uri(), "/x?a=1&b=2");
    }

    #[test]
    fn warnings_are_unquoted() {
        assert_eq!(warning_text(r#"299 - "use \"x\" instead""#).unwrap(), "use \"x\" instead");
        assert_eq!(warning_text("199 - \"x\""), None);
    }

    #[test]
    fn an_answer_without_a_status_is_worded_by_its_code() {
        let error = refusal(http::StatusCode::NOT_FOUND, b"404 page not found", &Call::get("/x"));
        assert_eq!(
            error.report(),
            "Error from server (NotFound): the server could not find the requested resource"
        );
    }
}
