//! What the proxy knows about one Service: its addresses, ports and endpoints, normalised from the
//! Service and its EndpointSlices. Rules and names are both made from this and from nothing else.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use api::meta::MetaExt;
use api::openapi::api::core::v1::{Node, Service, ServicePort as ApiPort};
use api::openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};

/// The label by which an EndpointSlice names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// A Service that another proxy implements carries this label; it is left alone.
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// When set on an EndpointSlice: the time of the change that led to it.
pub const TRIGGER_TIME_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The transport protocols that a Service port may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `TCP`, the default.
    Tcp,
    /// `UDP`.
    Udp,
    /// `SCTP`.
    Sctp,
}

impl Protocol {
    /// The name in rules and in DNS: lower case.
    pub const fn lower(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Reads the API's upper-case name; an unset one is TCP.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// The node that this proxy runs on, as far as decisions depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalNode {
    /// The Node object's name.
    pub name: String,
    /// The label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
}

impl LocalNode {
    /// What a Node object says about the local node; without one, the name alone is known.
    pub fn of(name: &str, node: Option<&Node>) -> Self {
        let zone = node.and_then(|n| n.label("topology.kubernetes.io/zone")).map(str::to_owned);
        Self { name: name.to_owned(), zone }
    }
}

/// One address and port behind a Service port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address of the pod, or whatever else serves.
    pub ip: Ipv4Addr,
    /// The port there.
    pub port: u16,
    /// Takes new connections. Slices say so too for pods that are not ready when the Service
    /// publishes not-ready addresses.
    pub ready: bool,
    /// Passes its readiness probe, though it may be terminating.
    pub serving: bool,
    /// Is being deleted.
    pub terminating: bool,
    /// Runs on this node.
    pub local: bool,
    /// May run on this node: it does, or the slice does not say where it runs.
    pub maybe_local: bool,
    /// Hints allow this node or its zone; true without hints.
    pub hinted: bool,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The name; empty for the only port of a Service.
    pub name: String,
    /// The transport.
    pub protocol: Protocol,
    /// The port on the Service's addresses.
    pub port: u16,
    /// The port on every node, if there is one.
    pub node_port: Option<u16>,
    /// In order of address and port, each once.
    pub endpoints: Vec<Endpoint>,
}

/// An address behind a headless Service, for DNS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// The address.
    pub ip: Ipv4Addr,
    /// The name below the Service's name: the pod's hostname, or the address with dashes.
    pub hostname: String,
    /// (name, protocol, port) of every named port there.
    pub ports: Vec<(String, Protocol, u16)>,
}

/// How a Service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Through virtual addresses.
    Virtual {
        /// `spec.clusterIPs` of the IPv4 family.
        cluster_ips: Vec<Ipv4Addr>,
        /// `spec.externalIPs` and the load balancer's addresses.
        external_ips: Vec<Ipv4Addr>,
    },
    /// By the addresses of its endpoints, through DNS alone.
    Headless {
        /// Those that are published, in order.
        backends: Vec<Backend>,
    },
    /// An alias for another name.
    ExternalName(String),
}

/// A Service as rules and names need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceModel {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// How it is reached.
    pub kind: Kind,
    /// Its ports with their endpoints; for headless Services without endpoints.
    pub ports: Vec<ServicePort>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// Seconds for which a client stays with its endpoint (`sessionAffinity: ClientIP`).
    pub affinity: Option<u32>,
}

/// `namespace/name` of the Service that an EndpointSlice belongs to.
pub fn service_of_slice(slice: &EndpointSlice) -> Option<String> {
    let name = slice.label(SERVICE_NAME_LABEL).filter(|name| !name.is_empty())?;
    Some(api::meta::key_of(slice.namespace(), name))
}

/// Normalises one Service with all of its EndpointSlices. `None` when it is not for this proxy:
/// it is implemented by another one, or has no address yet.
pub fn service(service: &Service, slices: &[Arc<EndpointSlice>], node: &LocalNode) -> Option<ServiceModel> {
    let spec = service.spec.as_ref()?;
    if service.label(PROXY_NAME_LABEL).is_some() {
        return None;
    }
    let slices: Vec<&EndpointSlice> =
        slices.iter().map(Arc::as_ref).filter(|slice| slice.address_type == "IPv4").collect();
    let kind = match (spec.type_.as_deref(), spec.cluster_ip.as_deref()) {
        (Some("ExternalName"), _) => Kind::ExternalName(spec.external_name.clone().unwrap_or_default()),
        (_, Some("None")) => Kind::Headless { backends: backends(&slices) },
        _ => {
            let cluster_ips = cluster_ips(service);
            if cluster_ips.is_empty() {
                return None;
            }
            Kind::Virtual { cluster_ips, external_ips: external_ips(service) }
        }
    };
    let with_ports = matches!(kind, Kind::Virtual { .. });
    let ports = spec.ports.iter().flatten().filter(|_| with_ports);
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| affinity_seconds(service));
    Some(ServiceModel {
        namespace: service.namespace().to_owned(),
        name: service.name().to_owned(),
        kind,
        ports: ports.filter_map(|port| service_port(port, &slices, node)).collect(),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        affinity,
    })
}

impl ServiceModel {
    /// `namespace/name`.
    pub fn key(&self) -> String {
        api::meta::key_of(&self.namespace, &self.name)
    }
}

fn cluster_ips(service: &Service) -> Vec<Ipv4Addr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let mut ips: Vec<Ipv4Addr> =
        spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter_map(|ip| ip.parse().ok()).collect();
    ips.sort();
    ips.dedup();
    ips
}

fn external_ips(service: &Service) -> Vec<Ipv4Addr> {
    let listed = service.spec.iter().flat_map(|spec| spec.external_ips.iter().flatten()).cloned();
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|b| b.ingress.as_ref()).into_iter().flatten();
    let virtual_ = ingress.filter(|i| i.ip_mode.as_deref() != Some("Proxy")).filter_map(|i| i.ip.clone());
    let mut ips: Vec<Ipv4Addr> = listed.chain(virtual_).filter_map(|ip| ip.parse().ok()).collect();
    ips.sort();
    ips.dedup();
    ips
}

fn affinity_seconds(service: &Service) -> u32 {
    let config = service.spec.as_ref().and_then(|spec| spec.session_affinity_config.as_ref());
    let seconds = config.and_then(|c| c.client_ip.as_ref()).and_then(|c| c.timeout_seconds);
    seconds.and_then(|s| u32::try_from(s).ok()).filter(|s| *s > 0).unwrap_or(10_800)
}

fn port_number(port: Option<i32>) -> Option<u16> {
    port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0)
}

fn service_port(port: &ApiPort, slices: &[&EndpointSlice], node: &LocalNode) -> Option<ServicePort> {
    let name = port.name.clone().unwrap_or_default();
    let protocol = Protocol::parse(port.protocol.as_deref())?;
    let mut endpoints: BTreeMap<(Ipv4Addr, u16), Endpoint> = BTreeMap::new();
    for slice in slices {
        let same = slice.ports.iter().flatten().filter(|p| {
            p.name.as_deref().unwrap_or_default() == name
                && Protocol::parse(p.protocol.as_deref()) == Some(protocol)
        });
        for number in same.filter_map(|p| port_number(p.port)) {
            for endpoint in slice.endpoints.iter().filter_map(|e| endpoint(e, number, node)) {
                let kept = endpoints.entry((endpoint.ip, number)).or_insert_with(|| endpoint.clone());
                // A pod that moves between slices is in both for a moment; the better news counts.
                if (endpoint.ready, endpoint.serving) > (kept.ready, kept.serving) {
                    *kept = endpoint;
                }
            }
        }
    }
    Some(ServicePort {
        name,
        protocol,
        port: port_number(Some(port.port))?,
        node_port: port_number(port.node_port),
        endpoints: endpoints.into_values().collect(),
    })
}

fn endpoint(endpoint: &ApiEndpoint, port: u16, node: &LocalNode) -> Option<Endpoint> {
    let ip = usable(endpoint)?;
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let local = endpoint.node_name.as_deref() == Some(node.name.as_str());
    Some(Endpoint {
        ip,
        port,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        local,
        maybe_local: local || endpoint.node_name.is_none(),
        hinted: hinted(endpoint, node),
    })
}

/// The first address, which alone counts; loopback and link-local ones are never endpoints.
fn usable(endpoint: &ApiEndpoint) -> Option<Ipv4Addr> {
    let ip: Ipv4Addr = endpoint.addresses.first()?.parse().ok()?;
    let bad = ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast();
    (!bad).then_some(ip)
}

fn hinted(endpoint: &ApiEndpoint, node: &LocalNode) -> bool {
    let Some(hints) = &endpoint.hints else { return true };
    let nodes = hints.for_nodes.iter().flatten();
    let zones = hints.for_zones.iter().flatten();
    if hints.for_nodes.as_ref().is_some_and(|n| !n.is_empty()) {
        return nodes.map(|n| &n.name).any(|name| *name == node.name);
    }
    match &node.zone {
        Some(zone) if hints.for_zones.as_ref().is_some_and(|z| !z.is_empty()) => {
            zones.map(|z| &z.name).any(|name| name == zone)
        }
        _ => true,
    }
}

fn backends(slices: &[&EndpointSlice]) -> Vec<Backend> {
    let mut found: BTreeMap<(Ipv4Addr, String), Backend> = BTreeMap::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten().filter_map(|p| {
            let name = p.name.clone().filter(|name| !name.is_empty())?;
            Some((name, Protocol::parse(p.protocol.as_deref())?, port_number(p.port)?))
        });
        let ports: Vec<_> = ports.collect();
        for endpoint in &slice.endpoints {
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
            let Some(ip) = usable(endpoint).filter(|_| ready) else { continue };
            let hostname = endpoint.hostname.clone().filter(|h| !h.is_empty());
            let hostname = hostname.unwrap_or_else(|| ip.to_string().replace('.', "-")).to_lowercase();
            let backend =
                found.entry((ip, hostname.clone())).or_insert(Backend { ip, hostname, ports: vec![] });
            backend.ports.extend(ports.iter().cloned());
            backend.ports.sort();
            backend.ports.dedup();
        }
    }
    found.into_values().collect()
}

impl ServicePort {
    /// The endpoints for traffic that may go to any node: the ready ones that hints allow; without
    /// usable hints all ready ones; without ready ones those that terminate and still serve (KEP-1669).
    pub fn cluster_endpoints(&self) -> Vec<&Endpoint> {
        let ready: Vec<&Endpoint> = self.endpoints.iter().filter(|e| e.ready).collect();
        let near: Vec<&Endpoint> = ready.iter().copied().filter(|e| e.hinted).collect();
        if !near.is_empty() {
            return near;
        }
        if !ready.is_empty() {
            return ready;
        }
        self.endpoints.iter().filter(|e| e.serving && e.terminating).collect()
    }

    /// The endpoints for traffic that must stay on this node, with the same fall-back.
    pub fn local_endpoints(&self) -> Vec<&Endpoint> {
        let local = || self.endpoints.iter().filter(|e| e.local);
        let ready: Vec<&Endpoint> = local().filter(|e| e.ready).collect();
        if ready.is_empty() { local().filter(|e| e.serving && e.terminating).collect() } else { ready }
    }
}

#[cfg(test)]
mod tests;
