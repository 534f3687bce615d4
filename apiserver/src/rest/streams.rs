//! Logs, exec, attach and port-forward: what clients ask of a pod's node, through the node tunnel.
//!
//! [`serve`] is the one entry. The protocols towards clients are in [`websocket`] and [`spdy`]; who
//! is asked for what is decided in [`target`] before anything is upgraded.

use std::sync::Arc;

use api::decode::decode_json;
use api::openapi::api::core::v1::Pod;
use api::{StatusError, Subresource};
use axum::extract::Request;
use axum::response::Response;
use proto::PodRef;

use serde_json::{Value, json};

use super::path::ResourcePath;
use super::query::Parameters;
use crate::auth::User;
use crate::registry::store::Target;
use crate::server::{App, Peer};

mod activity;
mod channels;
mod logs;
mod pipe;
mod port_forward;
mod remote;
mod spdy;
mod target;
pub(super) mod websocket;

/// Who asks for what of which pod.
struct Asked<'a> {
    app: &'a App,
    user: &'a User,
    pod: &'a Pod,
    node: &'a str,
}

/// Answers a request for a stream of a pod, which is authorized already. `path.subresource` is one of
/// [`Subresource::Log`], [`Subresource::Exec`], [`Subresource::Attach`] and [`Subresource::PortForward`].
///
/// # Errors
/// 404 for a pod that does not exist, 400 for wrong parameters, 503 when its node is not connected, and
/// what the node itself refuses.
pub async fn serve(
    app: &Arc<App>,
    peer: &Peer,
    path: &ResourcePath,
    request: Request,
) -> Result<Response, StatusError> {
    let entry = app.registry.get(path.kind, &path.namespace, &path.name, "").await?;
    let pod: Pod = decode_json(&entry.json).map_err(StatusError::internal)?;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    if let Some(subresource) = path.subresource.filter(|sub| *sub != Subresource::Log) {
        let target = Target { kind: path.kind, namespace: &path.namespace, name: &path.name };
        let parameters = Parameters::parse(request.uri())?;
        let document = || options(subresource, &parameters);
        app.registry.admit_part(&peer.user, target, subresource, false, document).await?;
    }
    let asked = Asked { app, user: &peer.user, pod: &pod, node };
    match path.subresource {
        Some(Subresource::Log) => logs::serve(&asked, request.uri()).await,
        Some(Subresource::Exec) => remote::exec(&asked, request).await,
        Some(Subresource::Attach) => remote::attach(&asked, request).await,
        Some(Subresource::PortForward) => port_forward::serve(&asked, request).await,
        _ => Err(StatusError::no_such_path()),
    }
}

/// The parameters of a stream as the document that webhooks know.
fn options(subresource: Subresource, parameters: &Parameters) -> Value {
    let kind = match subresource {
        Subresource::Exec => "PodExecOptions",
        Subresource::Attach => "PodAttachOptions",
        _ => "PodPortForwardOptions",
    };
    let mut document = json!({"apiVersion": "v1", "kind": kind});
    if subresource == Subresource::PortForward {
        let ports: Vec<u16> = parameters.all("ports").filter_map(|p| p.parse().ok()).collect();
        document["ports"] = json!(ports);
        return document;
    }
    for flag in ["stdin", "stdout", "stderr", "tty"].into_iter().filter(|f| parameters.flag(f)) {
        document[flag] = true.into();
    }
    if !parameters.get("container").is_empty() {
        document["container"] = parameters.get("container").into();
    }
    if subresource == Subresource::Exec {
        document["command"] = parameters.all("command").collect::<Vec<_>>().into();
    }
    document
}

impl Asked<'_> {
    fn pod_ref(&self) -> PodRef {
        let meta = &self.pod.metadata;
        PodRef {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }

    /// Streams other than logs need a node.
    fn has_node(&self) -> Result<(), StatusError> {
        if self.node.is_empty() {
            let name = self.pod.metadata.name.as_deref().unwrap_or_default();
            return Err(StatusError::bad_request(format!("pod {name} does not have a host assigned")));
        }
        Ok(())
    }
}
