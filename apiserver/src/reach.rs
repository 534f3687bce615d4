//! How the server reaches a Service: through the node tunnel of a pod behind it, or at its address.
//!
//! A node needs no inbound port and may sit behind NAT, and the machine of an API server need not be a node that knows
//! the cluster's addresses. The tunnel is there in any case.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::{Kind, Object};
use bytes::Bytes;
use component::tasks::Spawner;
use proto::client_frame::Frame as ToNode;
use proto::node_frame::Frame;
use proto::tunnel_request::Request as Ask;
use proto::{PodRef, PortForwardRequest};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

use crate::auth::User;
use crate::storage::{Filter, Hub};
use crate::tunnel::{Tunnel, Tunnels};

/// Bytes that may wait between a connection and its tunnel, in either direction.
const BUFFER: usize = 64 << 10;

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// The namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The port, as the Service numbers it.
    pub port: u16,
}

/// Opens connections.
pub struct Reach {
    hub: Arc<Hub>,
    tunnels: Arc<Tunnels>,
    tasks: Spawner,
}

/// A way to a port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// Through the tunnel of a node, to a pod's own port.
    Pod { node: String, namespace: String, name: String, uid: String, port: u16 },
    /// To an address that is reached as any other.
    Address(String, u16),
}

impl Reach {
    /// Looks Services up in the copies.
    pub fn new(hub: Arc<Hub>, tunnels: Arc<Tunnels>, tasks: Spawner) -> Self {
        Self { hub, tunnels, tasks }
    }

    /// A connection to a host by name or address.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn host(&self, host: &str, port: u16) -> io::Result<Stream> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Stream::Direct(stream))
    }

    /// A connection to a Service.
    ///
    /// # Errors
    /// When there is none, none of its pods is ready, or it does not answer.
    pub async fn service(&self, target: &ServicePort) -> io::Result<Stream> {
        let kind = Kind::find("", "Service").expect("Service is in the table");
        let entry = self.hub.cache(kind).get(&api::meta::key_of(&target.namespace, &target.name));
        let entry = entry.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("service {:?} not found", target.name))
        })?;
        let service = Object::parse(&entry.json).map_err(io::Error::other)?;
        let connected = |node: &str| self.tunnels.connected(node);
        let way = way(&service, target, &self.slices(target), connected, |n| rand::random_range(0..n));
        match way.map_err(io::Error::other)? {
            Way::Address(host, port) => self.host(&host, port).await,
            Way::Pod { node, namespace, name, uid, port } => {
                let pod = PodRef { namespace, name, uid };
                let request = PortForwardRequest { pod: Some(pod), port: port.into(), ..Default::default() };
                let ask = Ask::PortForward(request);
                let tunnel = self.tunnels.open(&node, &User::apiserver(), ask).await;
                let tunnel = tunnel.map_err(|e| io::Error::new(io::ErrorKind::ConnectionRefused, e))?;
                let (near, far) = tokio::io::duplex(BUFFER);
                self.tasks.spawn("tunnelled connection", copy(tunnel, far));
                Ok(Stream::Tunnel(near))
            }
        }
    }

    fn slices(&self, target: &ServicePort) -> Vec<Value> {
        let kind = Kind::find("discovery.k8s.io", "EndpointSlice").expect("EndpointSlice is in the table");
        let labels = api::selector::Selector::from_map(
            &[("kubernetes.io/service-name".to_owned(), target.name.clone())].into(),
        );
        let filter = Filter { namespace: target.namespace.clone(), labels, ..Filter::default() };
        let entries = self.hub.cache(kind).list(&filter, 0, "").entries;
        entries.iter().filter_map(|entry| serde_json::from_slice(&entry.json).ok()).collect()
    }
}

/// Chooses a way: a ready pod whose node is connected, else the Service's own address.
fn way(
    service: &Object,
    target: &ServicePort,
    slices: &[Value],
    connected: impl Fn(&str) -> bool,
    pick: impl Fn(usize) -> usize,
) -> Result<Way, String> {
    if service.str_at("/spec/type") == "ExternalName" {
        return Ok(Way::Address(service.str_at("/spec/externalName").to_owned(), target.port));
    }
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let port = ports.into_iter().flatten().find(|p| p["port"] == target.port);
    let Some(port) = port else {
        return Err(format!("no service port {} found for service {:?}", target.port, target.name));
    };
    let (mut pods, mut addresses) = (Vec::new(), Vec::new());
    for slice in slices {
        let name = port["name"].as_str().unwrap_or_default();
        let ports = slice["ports"].as_array();
        let found = ports.into_iter().flatten().find(|p| p["name"].as_str().unwrap_or_default() == name);
        let number = found.and_then(|p| p["port"].as_u64()).and_then(|p| u16::try_from(p).ok());
        let Some(number) = number else { continue };
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        for endpoint in endpoints.filter(|e| e["conditions"]["ready"] != false) {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let (node, pod) = (text(&endpoint["nodeName"]), &endpoint["targetRef"]);
            if pod["kind"] == "Pod" && connected(&node) {
                pods.push(Way::Pod {
                    node,
                    namespace: text(&pod["namespace"]),
                    name: text(&pod["name"]),
                    uid: text(&pod["uid"]),
                    port: number,
                });
            }
            addresses.push(Way::Address(text(&endpoint["addresses"][0]), number));
        }
    }
    if !pods.is_empty() {
        return Ok(pods.swap_remove(pick(pods.len())));
    }
    let own = service.str_at("/spec/clusterIP");
    if !matches!(own, "" | "None") {
        return Ok(Way::Address(own.to_owned(), target.port));
    }
    if addresses.is_empty() {
        return Err(format!("no endpoints available for service {:?}", target.name));
    }
    Ok(addresses.swap_remove(pick(addresses.len())))
}

/// Copies between a connection and a tunnel until both directions are closed, or one breaks.
async fn copy(tunnel: Tunnel, near: DuplexStream) {
    let Tunnel { mut output, input } = tunnel;
    let (mut read, mut write) = tokio::io::split(near);
    let up = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            match read.read(&mut buffer).await {
                Ok(0) => return input.send(ToNode::StdinClosed(true)).await.is_ok(),
                Ok(n) => {
                    if input.data(Bytes::copy_from_slice(&buffer[..n])).await.is_err() {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
    };
    let down = async {
        loop {
            match output.next().await {
                Some(Frame::Stdout(bytes)) => {
                    if write.write_all(&bytes).await.is_err() {
                        return false;
                    }
                }
                Some(Frame::StdoutClosed(_)) => return write.shutdown().await.is_ok(),
                Some(Frame::Status(_)) | None => return false,
                Some(_) => {}
            }
        }
    };
    tokio::pin!(up, down);
    tokio::select! {
        sent = &mut up => if sent { down.await; },
        received = &mut down => if received { up.await; },
    }
}

/// A connection, however it goes.
#[derive(Debug)]
pub enum Stream {
    /// As any other.
    Direct(TcpStream),
    /// Through a node's tunnel.
    Tunnel(DuplexStream),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tunnel(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tunnel(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_flush(context),
            Self::Tunnel(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tunnel(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(spec: Value, slices: &[Value], nodes: &[&str], port: u16, wanted: &str) {
        let service = Object::new(json!({"metadata": {"name": "s"}, "spec": spec})).expect("a map");
        let target = ServicePort { namespace: "n".into(), name: "s".into(), port };
        let seen = match way(&service, &target, slices, |node| nodes.contains(&node), |_| 0) {
            Err(why) => why,
            Ok(Way::Address(host, port)) => format!("{host}:{port}"),
            Ok(Way::Pod { node, name, port, .. }) => format!("{name}@{node}:{port}"),
        };
        assert_eq!(seen, wanted);
    }

    #[test]
    fn a_service_is_reached_through_the_tunnel_of_a_ready_pod_or_at_its_address() {
        let ports = json!([{"name": "https", "port": 443, "targetPort": 8443}]);
        let spec = json!({"clusterIP": "10.96.0.7", "ports": ports});
        let headless = json!({"clusterIP": "None", "ports": ports});
        let endpoint = |pod: &str, node: &str, ready: bool| {
            json!({"addresses": ["10.244.0.9"], "conditions": {"ready": ready}, "nodeName": node,
                "targetRef": {"kind": "Pod", "namespace": "n", "name": pod, "uid": "u"}})
        };
        let slice = json!({"ports": [{"name": "https", "port": 8443}],
            "endpoints": [endpoint("a", "n1", false), endpoint("b", "n2", true)]});
        let slices = [slice];
        check(spec.clone(), &slices, &["n1", "n2"], 443, "b@n2:8443");
        check(spec.clone(), &slices, &["n1"], 443, "10.96.0.7:443");
        check(spec.clone(), &[], &["n1"], 443, "10.96.0.7:443");
        check(spec, &slices, &[], 80, "no service port 80 found for service \"s\"");
        check(headless.clone(), &slices, &[], 443, "10.244.0.9:8443");
        check(headless, &[], &[], 443, "no endpoints available for service \"s\"");
        check(json!({"type": "ExternalName", "externalName": "a.b"}), &[], &[], 443, "a.b:443");
    }
}
