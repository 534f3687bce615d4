//! Whoever serves a group in this server's place.

use std::sync::Arc;
use std::time::Duration;

use api::{Kind, Object, StatusError};
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use component::tls::{self, Trust};
use http::Request;
use http_body_util::{BodyExt, Limited};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Map, Value, json};

use super::front_proxy::Client;
use super::identity;
use crate::auth::User;
use crate::rest::proxy::dial::{self, Connection, unreachable};
use crate::rest::proxy::target::{Id, service_port};
use crate::rest::proxy::{self, forward};
use crate::server::App;

/// How long the list of what is served may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes that this list may have.
const MOST: usize = 8 << 20;

/// Whoever serves one version of a group.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The name of the APIService.
    pub name: String,
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// Whether requests are passed on.
    pub available: bool,
    /// What is served there, as in an APIResourceList; nothing before it was first available.
    pub resources: Vec<Value>,
    namespace: String,
    service: String,
    port: i64,
    tls: Result<Arc<ClientConfig>, String>,
}

/// What was found out about a [`Remote`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is available.
    pub available: bool,
    /// Upstream's reason.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Verdict {
    fn no(reason: &'static str, message: String) -> Self {
        Self { available: false, reason, message }
    }
}

impl Remote {
    /// Reads an APIService; nothing for what is served here.
    pub fn of(object: &Object, client: Option<&Client>) -> Option<Self> {
        let target = object.pointer("/spec/service").filter(|s| s.is_object())?;
        let text = |at: &str| target[at].as_str().unwrap_or_default().to_owned();
        let insecure = object.pointer("/spec/insecureSkipTLSVerify").and_then(Value::as_bool) == Some(true);
        let bundle = STANDARD.decode(object.str_at("/spec/caBundle")).unwrap_or_default();
        let trust = if insecure { Trust::Anybody } else { Trust::Pem(&bundle) };
        let own = client.map(|client| (client.cert.as_path(), client.key.as_path()));
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        let mut conditions = conditions.into_iter().flatten();
        Some(Self {
            name: object.name().to_owned(),
            group: object.str_at("/spec/group").to_owned(),
            version: object.str_at("/spec/version").to_owned(),
            available: conditions.any(|c| c["type"] == "Available" && c["status"] == "True"),
            resources: Vec::new(),
            namespace: text("namespace"),
            service: text("name"),
            port: target["port"].as_i64().unwrap_or(443),
            tls: tls::outgoing(trust, own).map_err(|e| with_sources(&e)),
        })
    }

    /// The name in its certificate.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// Connects to one of those who serve.
    ///
    /// # Errors
    /// 503 when nobody answers.
    pub async fn connect(&self, app: &App, user: &User) -> Result<Connection, StatusError> {
        let tls = self.tls.clone().map_err(unreachable)?;
        let whole = format!("{}:{}", self.service, self.port);
        let port = self.port.to_string();
        let id = Id { whole: &whole, scheme: "https", name: &self.service, port: &port };
        let kind = Kind::find("", "Service").ok_or_else(StatusError::no_such_path)?;
        let entry = app.registry.get(kind, &self.namespace, &self.service, "").await.map_err(unreachable)?;
        let service = Object::parse(&entry.json).map_err(StatusError::internal)?;
        let port = service_port(&service, &id)?;
        let place = proxy::service(app, &self.namespace, &id, &port).await?;
        let plain = dial::place(app, user, &place).await?;
        dial::tls(plain, tls, ServerName::try_from(self.host()).map_err(unreachable)?).await
    }

    /// Finds out whether it is available, and what it serves.
    pub async fn check(&mut self, app: &App) -> Verdict {
        let verdict = match tokio::time::timeout(PATIENCE, self.look(app)).await {
            Ok(Ok(resources)) => {
                self.resources = resources;
                Verdict { available: true, reason: "Passed", message: "all checks passed".into() }
            }
            Ok(Err(verdict)) => verdict,
            Err(_) => self.silent("it did not answer in time"),
        };
        self.available = verdict.available;
        verdict
    }

    fn silent(&self, why: impl std::fmt::Display) -> Verdict {
        let url = format!("https://{}:{}/apis/{}/{}", self.host(), self.port, self.group, self.version);
        Verdict::no("FailedDiscoveryCheck", format!("failing or missing response from {url}: {why}"))
    }

    async fn look(&self, app: &App) -> Result<Vec<Value>, Verdict> {
        let (name, namespace) = (&self.service, &self.namespace);
        let kind = Kind::find("", "Service").ok_or_else(|| self.silent("there are no Services"))?;
        let entry = match app.registry.get(kind, namespace, name, "").await {
            Ok(entry) => entry,
            Err(error) if error.is_not_found() => {
                let text = format!("service/{name} in {namespace:?} is not present");
                return Err(Verdict::no("ServiceNotFound", text));
            }
            Err(error) => return Err(self.silent(error)),
        };
        let service = Object::parse(&entry.json).map_err(|e| self.silent(e))?;
        let port = self.port.to_string();
        let id = Id { whole: name, scheme: "https", name, port: &port };
        let Ok(port_name) = service_port(&service, &id) else {
            let text = format!("service/{name} in {namespace:?} is not listening on port {port}");
            return Err(Verdict::no("ServicePortError", text));
        };
        if let Err(error) = proxy::service(app, namespace, &id, &port_name).await
            && error.code() == 503
        {
            let text = format!(
                "endpoints for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
            );
            return Err(Verdict::no("MissingEndpoints", text));
        }
        let list = self.discover(app).await.map_err(|e| self.silent(e))?;
        Ok(list["resources"].as_array().cloned().unwrap_or_default())
    }

    /// The APIResourceList that it answers.
    async fn discover(&self, app: &App) -> Result<Value, StatusError> {
        let user = User::of("system:kube-aggregator", &["system:masters"]);
        let connection = self.connect(app, &user).await?;
        let path = format!("/apis/{}/{}", self.group, self.version);
        let request = Request::get(&path).header("accept", "application/json").body(Body::empty());
        let route = forward::Route {
            path: path.clone(),
            host: self.host(),
            names_host: true,
            prefix: String::new(),
            client: std::net::Ipv4Addr::LOCALHOST.into(),
            headers: identity(&user),
        };
        let request = request.map_err(StatusError::internal)?;
        let answer = forward::forward(app, connection, route, request).await?;
        if !answer.status().is_success() {
            return Err(unreachable(format!("bad status from {path}: {}", answer.status().as_u16())));
        }
        let body = Limited::new(answer.into_body(), MOST).collect().await.map_err(unreachable)?.to_bytes();
        serde_json::from_slice(&body).map_err(unreachable)
    }

    /// What is served there, as the aggregated form of discovery has it.
    pub fn aggregated(&self) -> Vec<Value> {
        let name = |r: &Value| r["name"].as_str().unwrap_or_default().to_owned();
        let kind_of = |r: &Value| {
            let own = |field: &str, else_: &str| {
                r[field].as_str().filter(|t| !t.is_empty()).unwrap_or(else_).to_owned()
            };
            json!({"group": own("group", &self.group), "version": own("version", &self.version), "kind": r["kind"]})
        };
        let parts = |owner: &str| -> Vec<Value> {
            let own = self.resources.iter().filter_map(|r| {
                let subresource = name(r).strip_prefix(owner)?.strip_prefix('/')?.to_owned();
                Some(json!({"subresource": subresource, "responseKind": kind_of(r), "verbs": r["verbs"]}))
            });
            own.collect()
        };
        let whole = self.resources.iter().filter(|r| !name(r).contains('/'));
        whole
            .map(|r| {
                let mut value = Map::new();
                value.insert("resource".into(), r["name"].clone());
                value.insert("responseKind".into(), kind_of(r));
                let namespaced = r["namespaced"].as_bool() == Some(true);
                value.insert("scope".into(), if namespaced { "Namespaced" } else { "Cluster" }.into());
                value.insert("singularResource".into(), r["singularName"].clone());
                value.insert("verbs".into(), r["verbs"].clone());
                for field in ["shortNames", "categories"] {
                    if r[field].is_array() {
                        value.insert(field.into(), r[field].clone());
                    }
                }
                let parts = parts(&name(r));
                if !parts.is_empty() {
                    value.insert("subresources".into(), parts.into());
                }
                Value::Object(value)
            })
            .collect()
    }

    /// Whether discovery shows the same of both.
    pub fn same(&self, other: &Self) -> bool {
        (&self.name, self.available, &self.resources) == (&other.name, other.available, &other.resources)
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_serve_is_shown_as_what_is_served_here() {
        let object =
            Object::new(json!({"metadata": {"name": "v1.m.io"}, "spec": {"group": "m.io", "version": "v1",
            "insecureSkipTLSVerify": true, "service": {"namespace": "d", "name": "s", "port": 8443}}}));
        let mut remote = Remote::of(&object.expect("a map"), None).expect("it has a service");
        assert_eq!((remote.host().as_str(), remote.port, remote.available), ("s.d.svc", 8443, false));
        remote.resources = vec![
            json!({"name": "nodes", "singularName": "node", "namespaced": false, "kind": "N", "verbs": ["get"], "shortNames": ["n"]}),
            json!({"name": "nodes/scale", "namespaced": false, "kind": "Scale", "group": "autoscaling", "version": "v1", "verbs": ["get"]}),
        ];
        assert_eq!(
            remote.aggregated(),
            [json!({
                "resource": "nodes", "singularResource": "node", "scope": "Cluster", "verbs": ["get"], "shortNames": ["n"],
                "responseKind": {"group": "m.io", "version": "v1", "kind": "N"},
                "subresources": [{"subresource": "scale", "verbs": ["get"],
                    "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}}],
            })]
        );
        let local = Object::new(json!({"metadata": {"name": "v1.apps"}, "spec": {"group": "apps"}}));
        assert!(Remote::of(&local.expect("a map"), None).is_none());
    }
}
