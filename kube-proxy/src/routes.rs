//! Keeps the routes to other nodes' pods, and the one that keeps Services' packets on this node.
//! Only routes with our own protocol number are ever touched.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use api::meta::MetaExt;
use api::openapi::api::core::v1::Node;
use futures::TryStreamExt;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::net::Cidr;

/// The number in `ip route … proto 215` by which our routes are known; iproute2 has no name for it.
pub const PROTOCOL: u8 = 215;

/// How packets get to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Another node's address.
    Gateway(Ipv4Addr),
    /// An interface of this node; packets of its own processes get this source address.
    Device {
        /// The interface's number.
        index: u32,
        /// The source address, if it is known.
        source: Option<Ipv4Addr>,
    },
}

/// Destinations and how to get there.
pub type Routes = BTreeMap<Cidr, Via>;

/// What the kernel answered.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The routes cannot be listed.
    #[error("routes cannot be listed")]
    List(#[source] rtnetlink::Error),
    /// One or more routes cannot be changed; all others were.
    #[error("{0}")]
    Change(String),
}

/// The first IPv4 `InternalIP` of a Node.
pub fn internal_ip(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().filter(|a| a.type_ == "InternalIP").find_map(|a| a.address.parse().ok())
}

/// The IPv4 ranges that a Node's pods get their addresses from.
pub fn pod_cidrs(node: &Node) -> Vec<Cidr> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let mut cidrs: Vec<Cidr> =
        spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr).filter_map(|c| c.parse().ok()).collect();
    cidrs.sort();
    cidrs.dedup();
    cidrs
}

/// The routes that this node should have to the pods of all others.
pub fn to_other_nodes(nodes: &[Arc<Node>], me: &str) -> Routes {
    let mut nodes: Vec<&Arc<Node>> = nodes.iter().filter(|node| node.name() != me).collect();
    nodes.sort_by(|a, b| a.name().cmp(b.name()));
    let mut routes = Routes::new();
    for node in nodes {
        let Some(gateway) = internal_ip(node) else { continue };
        for cidr in pod_cidrs(node) {
            routes.entry(cidr).or_insert(Via::Gateway(gateway));
        }
    }
    routes
}

/// What to remove and what to add, in this order.
pub fn plan(have: &Routes, want: &Routes) -> (Vec<Cidr>, Vec<(Cidr, Via)>) {
    let gone = have.iter().filter(|(cidr, via)| want.get(cidr) != Some(via)).map(|(cidr, _)| *cidr);
    let new = want.iter().filter(|(cidr, via)| have.get(cidr) != Some(via)).map(|(cidr, via)| (*cidr, *via));
    (gone.collect(), new.collect())
}

/// Brings the kernel's routes of ours to `want`. A route that fails does not keep the others back.
pub async fn apply(handle: &Handle, want: &Routes) -> Result<(), RouteError> {
    let present = ours(handle).await.map_err(RouteError::List)?;
    let have = present.iter().map(|(cidr, (via, _))| (*cidr, *via)).collect();
    let (gone, new) = plan(&have, want);
    let mut failures = Vec::new();
    for cidr in gone {
        let (via, message) = &present[&cidr];
        match handle.route().del(message.clone()).execute().await {
            Ok(()) => tracing::info!(%cidr, ?via, "route removed"),
            Err(error) => failures.push(format!("route to {cidr} cannot be removed: {error}")),
        }
    }
    for (cidr, via) in new {
        match handle.route().add(message(cidr, via)).execute().await {
            Ok(()) => tracing::info!(%cidr, ?via, "route added"),
            Err(error) => failures.push(format!("route to {cidr} by {via:?} cannot be added: {error}")),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(RouteError::Change(failures.join("; "))) }
}

fn message(cidr: Cidr, via: Via) -> RouteMessage {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(cidr.base(), cidr.prefix())
        .protocol(RouteProtocol::Other(PROTOCOL));
    match via {
        Via::Gateway(gateway) => route.gateway(gateway).build(),
        Via::Device { index, source } => {
            let route = route.output_interface(index).scope(RouteScope::Link);
            match source {
                Some(source) => route.pref_source(source).build(),
                None => route.build(),
            }
        }
    }
}

async fn ours(handle: &Handle) -> Result<BTreeMap<Cidr, (Via, RouteMessage)>, rtnetlink::Error> {
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let mut routes = BTreeMap::new();
    let mut stream = std::pin::pin!(handle.route().get(all).execute());
    while let Some(message) = stream.try_next().await? {
        if message.header.protocol == RouteProtocol::Other(PROTOCOL)
            && let Some((cidr, via)) = read(&message)
        {
            routes.insert(cidr, (via, message));
        }
    }
    Ok(routes)
}

fn read(message: &RouteMessage) -> Option<(Cidr, Via)> {
    let (mut base, mut gateway, mut device, mut source) = (Ipv4Addr::UNSPECIFIED, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => base = *address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(*address),
            RouteAttribute::Oif(index) => device = Some(*index),
            _ => {}
        }
    }
    let via = match (gateway, device) {
        (Some(gateway), _) => Via::Gateway(gateway),
        (None, Some(index)) => Via::Device { index, source },
        (None, None) => return None,
    };
    Some((Cidr::new(base, message.header.destination_prefix_length), via))
}

/// Removes every route of ours.
pub async fn remove(handle: &Handle) -> Result<(), RouteError> {
    apply(handle, &Routes::new()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::openapi::api::core::v1::{NodeAddress, NodeSpec, NodeStatus};

    fn node(name: &str, ip: &str, cidr: &str) -> Arc<Node> {
        let address = NodeAddress { type_: "InternalIP".into(), address: ip.into() };
        let host = NodeAddress { type_: "Hostname".into(), address: name.into() };
        let mut node = Node::default();
        node.metadata.name = Some(name.into());
        node.spec = Some(NodeSpec { pod_cidr: Some(cidr.into()), ..NodeSpec::default() });
        node.status = Some(NodeStatus { addresses: Some(vec![host, address]), ..NodeStatus::default() });
        Arc::new(node)
    }

    fn route(cidr: &str, gateway: &str) -> (Cidr, Via) {
        (cidr.parse().unwrap(), Via::Gateway(gateway.parse().unwrap()))
    }

    #[test]
    fn other_nodes_with_an_address_and_a_range_get_a_route() {
        let nodes = [
            node("a", "172.30.0.1", "10.244.0.0/24"),
            node("b", "172.30.0.2", "10.244.1.0/24"),
            node("c", "", "10.244.2.0/24"),
            node("d", "172.30.0.4", ""),
        ];
        assert_eq!(to_other_nodes(&nodes, "a"), [route("10.244.1.0/24", "172.30.0.2")].into());
    }

    #[test]
    fn a_changed_gateway_replaces_the_route_and_nothing_else() {
        let have = [route("10.244.1.0/24", "172.30.0.2"), route("10.244.2.0/24", "172.30.0.3")].into();
        let want = [route("10.244.1.0/24", "172.30.0.9"), route("10.244.2.0/24", "172.30.0.3")].into();
        let (gone, new) = plan(&have, &want);
        assert_eq!(gone, ["10.244.1.0/24".parse().unwrap()]);
        assert_eq!(new, [route("10.244.1.0/24", "172.30.0.9")]);
        assert_eq!(plan(&want, &want), (vec![], vec![]));
    }
}
