//! Decides which EndpointSlices a Service has, and which endpoints stand in each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::meta::{MetaExt, controller_ref};
use api::openapi::api::core::v1::{Pod, Service};
use api::openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use api::openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::informers::SERVICE_NAME;
use crate::pods::{is_ready, node_name};
use crate::service_pods::{
    HEADLESS, TRIGGER_TIME, addresses, hostname, is_headless, is_reachable, publishes_not_ready, target_port,
    target_ref,
};

/// The label that names who manages an EndpointSlice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// This controller's name in [`MANAGED_BY`].
pub const MANAGER: &str = "endpointslice-controller.k8s.io";

/// What is known of a node.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// The label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
}

/// One write.
#[derive(Debug, PartialEq)]
pub enum Op {
    /// A new slice.
    Create(EndpointSlice),
    /// A slice with other content, at the version that was observed.
    Update(EndpointSlice),
    /// A slice that is not needed any more.
    Delete(Arc<EndpointSlice>),
}

/// What a plan is made from.
pub struct Observed<'a> {
    /// The Service.
    pub service: &'a Service,
    /// The pods that it selects.
    pub pods: &'a [Arc<Pod>],
    /// The slices of the Service that this controller manages.
    pub slices: &'a [Arc<EndpointSlice>],
    /// The nodes that exist.
    pub nodes: &'a HashMap<String, NodeInfo>,
    /// The most endpoints of a slice.
    pub max: usize,
    /// When the change happened that led to this plan.
    pub trigger_time: Option<&'a str>,
}

/// Decides what to write so that the slices show the pods, with as few writes as possible.
pub fn plan(observed: &Observed<'_>) -> Vec<Op> {
    let families = families(observed.service);
    let mut ops = Vec::new();
    for slice in observed.slices.iter().filter(|s| !families.contains(&s.address_type.as_str())) {
        ops.push(Op::Delete(slice.clone()));
    }
    for family in families {
        ops.extend(Family::new(observed, family).plan());
    }
    ops
}

fn families(service: &Service) -> Vec<&'static str> {
    let known = service.spec.as_ref().and_then(|s| s.ip_families.as_deref()).unwrap_or_default();
    let families: Vec<_> = known
        .iter()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some("IPv4"),
            "IPv6" => Some("IPv6"),
            _ => None,
        })
        .collect();
    let of_address = match service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) {
        Some(ip) if ip.contains(':') => "IPv6",
        _ => "IPv4",
    };
    if families.is_empty() { vec![of_address] } else { families }
}

/// The ports of a slice in a form that can be compared, whatever their order.
type PortKey = Vec<(String, String, i32, String)>;

fn port_key(ports: &[EndpointPort]) -> PortKey {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let one =
        |p: &EndpointPort| (text(&p.name), text(&p.protocol), p.port.unwrap_or(0), text(&p.app_protocol));
    let mut key: PortKey = ports.iter().map(one).collect();
    key.sort();
    key
}

struct Group {
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

/// The slices of one address family.
struct Family<'a> {
    observed: &'a Observed<'a>,
    address_type: &'static str,
    create: Vec<EndpointSlice>,
    update: Vec<EndpointSlice>,
    delete: Vec<Arc<EndpointSlice>>,
}

impl<'a> Family<'a> {
    fn new(observed: &'a Observed<'a>, address_type: &'static str) -> Self {
        Self { observed, address_type, create: Vec::new(), update: Vec::new(), delete: Vec::new() }
    }

    fn plan(mut self) -> Vec<Op> {
        let desired = self.groups();
        let mut existing: BTreeMap<PortKey, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        let mine = self.observed.slices.iter().filter(|s| s.address_type == self.address_type);
        for slice in mine {
            let ports = slice.ports.as_deref().unwrap_or_default();
            existing.entry(port_key(ports)).or_default().push(slice.clone());
        }
        let empty = desired.is_empty();
        for (key, group) in desired {
            let slices = existing.remove(&key).unwrap_or_default();
            self.fill(group, slices);
        }
        self.delete.extend(existing.into_values().flatten());
        if empty {
            self.keep_placeholder();
        }
        self.recycle();
        let create = self.create.into_iter().map(Op::Create);
        let update = self.update.into_iter().map(Op::Update);
        create.chain(update).chain(self.delete.into_iter().map(Op::Delete)).collect()
    }

    /// The endpoints that there should be, by the ports that they serve.
    fn groups(&self) -> BTreeMap<PortKey, Group> {
        let mut groups = BTreeMap::new();
        for pod in self.observed.pods.iter().filter(|p| is_reachable(p)) {
            let Some(endpoint) = self.endpoint(pod) else { continue };
            let ports = ports(self.observed.service, pod);
            let group =
                groups.entry(port_key(&ports)).or_insert_with(|| Group { ports, endpoints: Vec::new() });
            group.endpoints.push(endpoint);
        }
        groups
    }

    /// A pod as an endpoint; `None` when it has no address of the family, or its node is not known.
    fn endpoint(&self, pod: &Pod) -> Option<Endpoint> {
        let wants_v6 = self.address_type == "IPv6";
        let addresses: Vec<_> =
            addresses(pod).filter(|ip| ip.contains(':') == wants_v6).map(str::to_owned).collect();
        let service = self.observed.service;
        let publish = publishes_not_ready(service);
        let node = self.observed.nodes.get(node_name(pod));
        if addresses.is_empty() || (node.is_none() && !publish) {
            return None;
        }
        let (serving, terminating) = (is_ready(pod), pod.is_deleting());
        Some(Endpoint {
            addresses,
            conditions: Some(EndpointConditions {
                ready: Some(publish || (serving && !terminating)),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hostname: hostname(pod, service),
            node_name: Some(node_name(pod).to_owned()).filter(|n| !n.is_empty()),
            target_ref: Some(target_ref(pod)),
            zone: node.and_then(|n| n.zone.clone()),
            ..Endpoint::default()
        })
    }

    /// Spreads the endpoints of one set of ports over slices: those that stay keep their slice, new
    /// ones go first to slices that are written anyway, then to new slices or one with room.
    fn fill(&mut self, group: Group, slices: Vec<Arc<EndpointSlice>>) {
        let mut fresh: Vec<(String, Endpoint)> =
            group.endpoints.into_iter().map(|e| (identity(&e), e)).collect();
        let mut by_identity: HashMap<String, Endpoint> = fresh.iter().cloned().collect();
        let mut unchanged = Vec::new();
        let mut changed = Vec::new();
        for slice in slices {
            let kept: Vec<_> =
                slice.endpoints.iter().filter_map(|e| by_identity.remove(&identity(e))).collect();
            let same = kept.len() <= self.observed.max && kept == slice.endpoints && self.is_labelled(&slice);
            let next = EndpointSlice { endpoints: kept, ..EndpointSlice::clone(&slice) };
            if same { unchanged.push(next) } else { changed.push((slice, next)) }
        }
        fresh.retain(|(identity, _)| by_identity.contains_key(identity));
        let mut fresh: Vec<Endpoint> = fresh.into_iter().map(|(_, e)| e).collect();
        for (_, next) in &mut changed {
            // A slice may be over the limit when that was lowered.
            if next.endpoints.len() > self.observed.max {
                fresh.extend(next.endpoints.split_off(self.observed.max));
            }
            let room = self.observed.max - next.endpoints.len();
            next.endpoints.extend(fresh.drain(..room.min(fresh.len())));
        }
        while fresh.len() >= self.observed.max {
            let rest = fresh.split_off(self.observed.max);
            self.create.push(self.slice(&group.ports, std::mem::replace(&mut fresh, rest)));
        }
        if !fresh.is_empty() {
            let room = |s: &&mut EndpointSlice| s.endpoints.len() + fresh.len() <= self.observed.max;
            match unchanged.iter_mut().filter(room).max_by_key(|s| s.endpoints.len()) {
                Some(slice) => {
                    slice.endpoints.extend(fresh);
                    let slice = slice.clone();
                    self.update.push(self.labelled(slice));
                }
                None => self.create.push(self.slice(&group.ports, fresh)),
            }
        }
        for (slice, next) in changed {
            if next.endpoints.is_empty() {
                self.delete.push(slice)
            } else {
                self.update.push(self.labelled(next))
            }
        }
    }

    /// A Service without endpoints has one empty slice, so that it can be told from one that nobody
    /// has looked at.
    fn keep_placeholder(&mut self) {
        let is_placeholder = |s: &Arc<EndpointSlice>| {
            s.endpoints.is_empty() && s.ports.as_deref().unwrap_or_default().is_empty() && self.is_labelled(s)
        };
        match self.delete.iter().position(is_placeholder) {
            Some(at) => drop(self.delete.remove(at)),
            None => self.create.push(self.slice(&[], Vec::new())),
        }
    }

    /// Writes what is new into what would be deleted.
    fn recycle(&mut self) {
        while let (Some(_), Some(_)) = (self.create.last(), self.delete.last()) {
            let (Some(new), Some(old)) = (self.create.pop(), self.delete.pop()) else { break };
            let mut slice = EndpointSlice::clone(&old);
            slice.endpoints = new.endpoints;
            slice.ports = new.ports;
            let slice = self.labelled(slice);
            self.update.push(slice);
        }
    }

    fn slice(&self, ports: &[EndpointPort], endpoints: Vec<Endpoint>) -> EndpointSlice {
        let service = self.observed.service;
        let metadata = ObjectMeta {
            generate_name: Some(format!("{}-", service.name())),
            namespace: service.metadata.namespace.clone(),
            owner_references: Some(vec![controller_ref(service)]),
            ..ObjectMeta::default()
        };
        let slice = EndpointSlice {
            metadata,
            address_type: self.address_type.into(),
            ports: Some(ports.to_vec()),
            endpoints,
        };
        self.labelled(slice)
    }

    fn is_labelled(&self, slice: &EndpointSlice) -> bool {
        slice.metadata.labels.as_ref() == Some(&labels(self.observed.service))
    }

    fn labelled(&self, mut slice: EndpointSlice) -> EndpointSlice {
        slice.metadata.labels = Some(labels(self.observed.service));
        let annotations = slice.metadata.annotations.get_or_insert_default();
        match self.observed.trigger_time {
            Some(time) => drop(annotations.insert(TRIGGER_TIME.into(), time.into())),
            None => drop(annotations.remove(TRIGGER_TIME)),
        }
        if annotations.is_empty() {
            slice.metadata.annotations = None;
        }
        slice
    }
}

/// The Service's own labels and those that say what the slice is.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(SERVICE_NAME.into(), service.name().to_owned());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

/// What tells one endpoint from another.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|r| r.uid.as_deref()).unwrap_or_default();
    format!("{uid}/{}", endpoint.addresses.join(","))
}

/// The Service's ports as a pod serves them; a named port that the pod lacks is left out.
fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target_port(pod, port)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
