//! The names of Services, their endpoints and pods. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::model::{Backend, Kind, Protocol, ServiceModel};
use crate::net::Cidr;

/// What the specification calls the schema version.
const SCHEMA_VERSION: &str = "1.1.0";

/// The data of one record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// An address.
    A(Ipv4Addr),
    /// A port of a Service, at a name below.
    Srv {
        /// The port.
        port: u16,
        /// An absolute name without the final dot.
        target: String,
        /// The addresses of the target, to be added to the answer.
        addresses: Vec<Ipv4Addr>,
    },
    /// An absolute name without the final dot.
    Cname(String),
    /// An absolute name without the final dot.
    Ptr(String),
    /// Text.
    Txt(String),
    /// The name server of the zone.
    Ns(String),
}

/// What is known about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The name exists and has these records, perhaps none.
    Exists(Vec<Data>),
    /// The name is ours and does not exist.
    Missing,
    /// The name is none of ours.
    Elsewhere,
}

/// All names of the cluster, kept up to date Service by Service.
#[derive(Clone, Debug)]
pub struct Zone {
    domain: String,
    reverse: Vec<Cidr>,
    services: HashMap<String, Arc<ServiceModel>>,
    /// How many Services a namespace has.
    namespaces: HashMap<String, usize>,
    /// Which Services an address belongs to.
    addresses: HashMap<Ipv4Addr, BTreeSet<String>>,
    /// Counts changes.
    serial: u32,
    ready: bool,
}

impl Zone {
    /// An empty zone, which is not ready. `domain` is such as `cluster.local`; addresses in the
    /// `reverse` ranges are ours alone to name.
    pub fn new(domain: &str, reverse: Vec<Cidr>) -> Self {
        Self {
            domain: domain.trim_end_matches('.').to_ascii_lowercase(),
            reverse,
            services: HashMap::new(),
            namespaces: HashMap::new(),
            addresses: HashMap::new(),
            serial: 1,
            ready: false,
        }
    }

    /// The cluster's domain, in lower case and without dots around it.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The SOA's serial number.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Whether the first generation is complete; before, nothing is known not to exist.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The first generation is complete.
    pub fn set_ready(&mut self) {
        self.ready = true;
    }

    /// Replaces a Service, or removes it.
    pub fn set(&mut self, key: &str, model: Option<Arc<ServiceModel>>) {
        if self.services.get(key) == model.as_ref() {
            return;
        }
        self.serial = self.serial.wrapping_add(1);
        if let Some(old) = self.services.remove(key) {
            for address in addresses(&old) {
                if let Some(keys) = self.addresses.get_mut(&address) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.addresses.remove(&address);
                    }
                }
            }
            if let Some(count) = self.namespaces.get_mut(&old.namespace) {
                *count -= 1;
                if *count == 0 {
                    self.namespaces.remove(&old.namespace);
                }
            }
        }
        let Some(model) = model else { return };
        for address in addresses(&model) {
            self.addresses.entry(address).or_default().insert(key.to_owned());
        }
        *self.namespaces.entry(model.namespace.clone()).or_default() += 1;
        self.services.insert(key.to_owned(), model);
    }

    /// Looks up a name in lower case without the final dot.
    pub fn lookup(&self, name: &str) -> Lookup {
        if let Some(reverse) = name.strip_suffix(".in-addr.arpa") {
            return self.reverse(reverse);
        }
        let below = match name.strip_suffix(self.domain.as_str()) {
            Some("") => "",
            Some(below) => match below.strip_suffix('.') {
                Some(below) => below,
                None => return Lookup::Elsewhere,
            },
            None => return Lookup::Elsewhere,
        };
        let labels: Vec<&str> = if below.is_empty() { Vec::new() } else { below.split('.').collect() };
        self.node(&labels).map_or(Lookup::Missing, Lookup::Exists)
    }

    /// The records at a name below the domain; `None` when it does not exist.
    fn node(&self, labels: &[&str]) -> Option<Vec<Data>> {
        match labels {
            [] => Some(vec![Data::Ns(format!("ns.dns.{}", self.domain))]),
            ["dns-version"] => Some(vec![Data::Txt(SCHEMA_VERSION.into())]),
            ["svc" | "pod"] => Some(Vec::new()),
            [namespace, "svc" | "pod"] => self.namespaces.contains_key(*namespace).then(Vec::new),
            [address, _, "pod"] => Some(vec![Data::A(dashed(address)?)]),
            [name, namespace, "svc"] => {
                let service = self.service(namespace, name)?;
                Some(match &service.kind {
                    Kind::Virtual { cluster_ips, .. } => cluster_ips.iter().copied().map(Data::A).collect(),
                    Kind::Headless { backends } => a_records(backends.iter()),
                    Kind::ExternalName(target) => {
                        vec![Data::Cname(target.trim_end_matches('.').to_ascii_lowercase())]
                    }
                })
            }
            [label, name, namespace, "svc"] => {
                let service = self.service(namespace, name)?;
                match label.strip_prefix('_') {
                    Some(protocol) => has_protocol(service, protocol).then(Vec::new),
                    None => {
                        let Kind::Headless { backends } = &service.kind else { return None };
                        let found = a_records(backends.iter().filter(|b| b.hostname == *label));
                        (!found.is_empty()).then_some(found)
                    }
                }
            }
            [port, protocol, name, namespace, "svc"] => {
                let service = self.service(namespace, name)?;
                let found = self.srv(service, port.strip_prefix('_')?, protocol.strip_prefix('_')?);
                (!found.is_empty()).then_some(found)
            }
            _ => None,
        }
    }

    fn service(&self, namespace: &str, name: &str) -> Option<&Arc<ServiceModel>> {
        self.services.get(&api::meta::key_of(namespace, name))
    }

    fn srv(&self, service: &ServiceModel, port: &str, protocol: &str) -> Vec<Data> {
        let base = self.name_of(service);
        match &service.kind {
            Kind::Virtual { cluster_ips, .. } => {
                let ports = service.ports.iter().filter(|p| p.name == port && p.protocol.lower() == protocol);
                let srv =
                    |number| Data::Srv { port: number, target: base.clone(), addresses: cluster_ips.clone() };
                ports.map(|p| srv(p.port)).collect()
            }
            Kind::Headless { backends } => {
                let mut found = Vec::new();
                for backend in backends {
                    let ports = backend.ports.iter().filter(|(n, p, _)| n == port && p.lower() == protocol);
                    found.extend(ports.map(|(_, _, number)| Data::Srv {
                        port: *number,
                        target: format!("{}.{base}", backend.hostname),
                        addresses: vec![backend.ip],
                    }));
                }
                found
            }
            Kind::ExternalName(_) => Vec::new(),
        }
    }

    fn name_of(&self, service: &ServiceModel) -> String {
        format!("{}.{}.svc.{}", service.name, service.namespace, self.domain)
    }

    fn reverse(&self, name: &str) -> Lookup {
        let octets: Vec<&str> = name.split('.').rev().collect();
        let address = (octets.len() == 4).then(|| octets.join(".").parse::<Ipv4Addr>().ok()).flatten();
        let Some(address) = address else { return Lookup::Elsewhere };
        let keys = self.addresses.get(&address).into_iter().flatten();
        let mut found: Vec<Data> = Vec::new();
        for service in keys.filter_map(|key| self.services.get(key)) {
            let base = self.name_of(service);
            match &service.kind {
                Kind::Headless { backends } => {
                    let here = backends.iter().filter(|b| b.ip == address);
                    found.extend(here.map(|b| Data::Ptr(format!("{}.{base}", b.hostname))));
                }
                Kind::Virtual { .. } | Kind::ExternalName(_) => found.push(Data::Ptr(base)),
            }
        }
        if !found.is_empty() {
            return Lookup::Exists(found);
        }
        let ours = self.reverse.iter().any(|range| range.contains(address));
        if ours { Lookup::Missing } else { Lookup::Elsewhere }
    }
}

fn addresses(service: &ServiceModel) -> BTreeSet<Ipv4Addr> {
    match &service.kind {
        Kind::Virtual { cluster_ips, .. } => cluster_ips.iter().copied().collect(),
        Kind::Headless { backends } => backends.iter().map(|b| b.ip).collect(),
        Kind::ExternalName(_) => BTreeSet::new(),
    }
}

fn a_records<'a>(backends: impl Iterator<Item = &'a Backend>) -> Vec<Data> {
    let addresses: BTreeSet<Ipv4Addr> = backends.map(|b| b.ip).collect();
    addresses.into_iter().map(Data::A).collect()
}

fn has_protocol(service: &ServiceModel, protocol: &str) -> bool {
    let is = |p: &Protocol| p.lower() == protocol;
    match &service.kind {
        Kind::Virtual { .. } => service.ports.iter().any(|p| !p.name.is_empty() && is(&p.protocol)),
        Kind::Headless { backends } => backends.iter().any(|b| b.ports.iter().any(|(_, p, _)| is(p))),
        Kind::ExternalName(_) => false,
    }
}

/// `10-244-1-3` as an address.
fn dashed(label: &str) -> Option<Ipv4Addr> {
    if label.contains('.') { None } else { label.replace('-', ".").parse().ok() }
}

#[cfg(test)]
pub(crate) mod tests;
