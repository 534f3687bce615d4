//! Cluster IPs and node ports: which ones a Service takes.
//!
//! An address or port is owned through a key of its own in the store, which is created and deleted in the
//! same transaction as the Service: it can neither be handed out twice nor leak. What is here decides
//! which keys; the generic store puts them into its transaction. What this server knows to be taken only
//! saves it from trying in vain, so it may be incomplete or out of date.

pub mod repair;

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use api::Typed;
use api::meta::MetaExt;
use api::openapi::api::core::v1::{Service, ServiceSpec};
use api::status::StatusError;
use api::validation::FieldError;
use serde_json::json;

use super::core::service::{is_headless, needs_cluster_ip, needs_health_check, needs_node_ports, type_of};
use super::fields::set;

/// A key that a write must be the first to create.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Beneath the store's prefix, such as `ranges/serviceips/10.96.0.10` or `ranges/servicenodeports/30080`.
    pub key: String,
    /// The client chose this value: when it is taken already, the write fails with this error (422).
    /// `None`: it was chosen for the client, and another one is chosen.
    pub explicit: Option<FieldError>,
}

/// What a write takes and gives back in its transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims {
    /// Keys to create; the write fails when one exists.
    pub take: Vec<Claim>,
    /// Keys to delete.
    pub give: Vec<String>,
}

/// What all keys begin with, beneath the store's prefix.
pub const RANGES: &str = "ranges/";
const ADDRESSES: &str = "ranges/serviceips/";
const NODE_PORTS: &str = "ranges/servicenodeports/";

/// Chooses cluster IPs and node ports.
#[derive(Debug)]
pub struct Allocator {
    /// First and last usable address are derived from it; `10.96.0.0/12`.
    pub range: (Ipv4Addr, u8),
    /// `30000..=32767`.
    pub node_ports: RangeInclusive<u16>,
    /// Keys that were taken when this server last heard of them.
    known: Mutex<HashSet<String>>,
}

impl Allocator {
    /// An allocator that knows of no taken key yet.
    pub fn new(range: (Ipv4Addr, u8), node_ports: RangeInclusive<u16>) -> Self {
        Self { range, node_ports, known: Mutex::default() }
    }

    /// Gives a new (`old` is `None`) or changed Service the addresses and ports that it needs and has not,
    /// and says which keys that takes and gives back. Called after validation, before the write; on a dry run
    /// the claims are checked but not written. Prefers what it does not know to be taken.
    ///
    /// # Errors
    /// 422 when the client asked for what this cluster cannot give.
    pub fn allocate(&self, service: &mut Service, old: Option<&Service>) -> Result<Claims, StatusError> {
        let owned = old.map(keys).unwrap_or_default();
        let mut choice = Choice {
            allocator: self,
            owned: &owned,
            seed: seed(service),
            take: Vec::new(),
            errors: Vec::new(),
        };
        let spec = service.spec.get_or_insert_default();
        choice.address(spec);
        choice.ports(spec);
        let (take, errors) = (choice.take, choice.errors);
        if !errors.is_empty() {
            return Err(StatusError::invalid(Service::kind(), service.name(), &errors));
        }
        let give = owned.difference(&keys(service)).cloned().collect();
        Ok(Claims { take, give })
    }

    /// What the deletion of a Service gives back.
    pub fn release(&self, service: &Service) -> Claims {
        Claims { take: Vec::new(), give: keys(service).into_iter().collect() }
    }

    /// The keys exist: found at start, found taken by a failed write, or written.
    pub fn taken(&self, keys: &mut dyn Iterator<Item = String>) {
        self.known().extend(keys);
    }

    /// The keys were deleted.
    pub fn freed(&self, keys: &mut dyn Iterator<Item = String>) {
        let mut known = self.known();
        keys.for_each(|key| _ = known.remove(&key));
    }

    fn known(&self) -> MutexGuard<'_, HashSet<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first and the last address that a Service may have: neither the network's nor its broadcast's.
    fn addresses(&self) -> RangeInclusive<u32> {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.range.1.min(32))).unwrap_or(0);
        let base = u32::from(self.range.0) & mask;
        let last = base | !mask;
        if last - base < 3 { base..=last } else { base + 1..=last - 1 }
    }

    fn shown_range(&self) -> String {
        format!("{}/{}", self.range.0, self.range.1)
    }
}

/// The keys that a Service owns.
pub fn keys(service: &Service) -> BTreeSet<String> {
    let Some(spec) = &service.spec else { return BTreeSet::new() };
    let mut keys = BTreeSet::new();
    if needs_cluster_ip(spec) {
        let ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        keys.extend(ips.filter_map(|ip| ip.parse::<Ipv4Addr>().ok()).map(address_key));
    }
    if matches!(type_of(spec), "NodePort" | "LoadBalancer") {
        let ports =
            spec.ports.iter().flatten().filter_map(|p| p.node_port).chain(spec.health_check_node_port);
        keys.extend(ports.filter(|p| *p != 0).map(port_key));
    }
    keys
}

fn address_key(ip: Ipv4Addr) -> String {
    format!("{ADDRESSES}{ip}")
}

fn port_key(port: i32) -> String {
    format!("{NODE_PORTS}{port}")
}

/// Where the search for a free value begins: somewhere else for every Service, so that servers which
/// know nothing of each other seldom choose the same.
fn seed(service: &Service) -> u64 {
    let mut hasher = DefaultHasher::new();
    (service.uid(), service.namespace(), service.name()).hash(&mut hasher);
    hasher.finish()
}

struct Choice<'a> {
    allocator: &'a Allocator,
    owned: &'a BTreeSet<String>,
    seed: u64,
    take: Vec<Claim>,
    errors: Vec<FieldError>,
}

impl Choice<'_> {
    fn address(&mut self, spec: &mut ServiceSpec) {
        if !needs_cluster_ip(spec) {
            return;
        }
        self.families(spec);
        if is_headless(spec) {
            return;
        }
        match set(spec.cluster_ip.as_deref()).map(str::to_owned) {
            None => {
                let range = self.allocator.addresses();
                let (low, high) = (u64::from(*range.start()), u64::from(*range.end()));
                let reserved = ((high - low + 2) / 16).clamp(16, 256);
                let of = |value: u64| address_key(Ipv4Addr::from(u32::try_from(value).unwrap_or(u32::MAX)));
                let chosen = self.free(low, high, reserved, of);
                let ip = Ipv4Addr::from(u32::try_from(chosen).unwrap_or(u32::MAX));
                self.claim(address_key(ip), None);
                spec.cluster_ip = Some(ip.to_string());
                spec.cluster_ips = Some(vec![ip.to_string()]);
            }
            Some(_) => {
                let ips = spec.cluster_ips.clone().unwrap_or_default();
                for ip in &ips {
                    self.explicit_address(ip, &ips);
                }
            }
        }
    }

    fn explicit_address(&mut self, ip: &str, all: &[String]) {
        let refuse = |why: String| {
            FieldError::invalid("spec.clusterIPs", json!(all), &format!("failed to allocate IP {ip}: {why}"))
        };
        match ip.parse::<Ipv4Addr>() {
            Ok(address) if self.allocator.addresses().contains(&u32::from(address)) => {
                let taken = refuse("provided IP is already allocated".into());
                self.claim(address_key(address), Some(taken));
            }
            _ => {
                let range = self.allocator.shown_range();
                self.errors.push(refuse(format!(
                    "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}"
                )));
            }
        }
    }

    /// This cluster has addresses of one family.
    fn families(&mut self, spec: &ServiceSpec) {
        for (i, family) in spec.ip_families.iter().flatten().enumerate().filter(|(_, f)| *f == "IPv6") {
            let detail = "not configured on this cluster";
            let field = format!("spec.ipFamilies[{i}]");
            self.errors.push(FieldError::invalid(field, family.as_str(), detail));
        }
        if spec.ip_family_policy.as_deref() == Some("RequireDualStack") {
            let detail = "this cluster is not configured for dual-stack services";
            self.errors.push(FieldError::invalid("spec.ipFamilyPolicy", "RequireDualStack", detail));
        }
    }

    fn ports(&mut self, spec: &mut ServiceSpec) {
        if !matches!(type_of(spec), "NodePort" | "LoadBalancer") {
            return;
        }
        let automatic = needs_node_ports(spec);
        let health_check = needs_health_check(spec);
        for (i, port) in spec.ports.iter().flatten().enumerate() {
            if let Some(node_port) = port.node_port.filter(|p| *p != 0) {
                self.explicit_port(&format!("spec.ports[{i}].nodePort"), node_port);
            }
        }
        if let Some(node_port) = spec.health_check_node_port.filter(|p| *p != 0) {
            self.explicit_port("spec.healthCheckNodePort", node_port);
        } else if health_check {
            spec.health_check_node_port = Some(self.free_port());
        }
        let ports = spec.ports.as_deref_mut().unwrap_or_default();
        for i in 0..ports.len() {
            if !automatic || ports[i].node_port.unwrap_or(0) != 0 {
                continue;
            }
            // One port for all protocols of a number, unless that protocol has it already.
            let twin = ports.iter().find(|p| {
                p.port == ports[i].port && p.protocol != ports[i].protocol && p.node_port.unwrap_or(0) != 0
            });
            let twin = twin.and_then(|p| p.node_port).filter(|node_port| {
                !ports.iter().any(|p| p.protocol == ports[i].protocol && p.node_port == Some(*node_port))
            });
            ports[i].node_port = Some(twin.unwrap_or_else(|| self.free_port()));
        }
    }

    fn explicit_port(&mut self, field: &str, node_port: i32) {
        let range = &self.allocator.node_ports;
        if u16::try_from(node_port).is_ok_and(|port| range.contains(&port)) {
            let taken = FieldError::invalid(field, node_port, "provided port is already allocated");
            self.claim(port_key(node_port), Some(taken));
        } else {
            let detail = format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.start(),
                range.end()
            );
            self.errors.push(FieldError::invalid(field, node_port, &detail));
        }
    }

    fn free_port(&mut self) -> i32 {
        let (low, high) = (*self.allocator.node_ports.start(), *self.allocator.node_ports.end());
        let count = u64::from(high.saturating_sub(low)) + 1;
        let reserved = (count / 32).clamp(16, 128);
        let number = |value: u64| i32::try_from(value).unwrap_or(i32::MAX);
        let chosen = self.free(u64::from(low), u64::from(high), reserved, |value| port_key(number(value)));
        self.claim(port_key(number(chosen)), None);
        number(chosen)
    }

    /// A value that is not known to be taken, from the upper band first: the lowest `reserved` values are for
    /// those who choose their own. When everything seems taken, that knowledge may be stale and is forgotten;
    /// the store has the last word.
    fn free(&self, low: u64, high: u64, reserved: u64, key: impl Fn(u64) -> String) -> u64 {
        let upper = low.saturating_add(reserved);
        let mut known = self.allocator.known();
        let is_free = |value: &u64| {
            let key = key(*value);
            !known.contains(&key) && !self.owned.contains(&key) && !self.take.iter().any(|c| c.key == key)
        };
        let bands =
            [(upper <= high).then_some((upper, high)), (low < upper).then_some((low, high.min(upper - 1)))];
        let found = bands.iter().flatten().find_map(|(low, high)| self.around(*low, *high).find(is_free));
        found.unwrap_or_else(|| {
            known.clear();
            self.around(low, high).next().unwrap_or(low)
        })
    }

    /// All values of a band once, from a place of this Service's own on.
    fn around(&self, low: u64, high: u64) -> impl Iterator<Item = u64> + use<> {
        let count = high - low + 1;
        let start = self.seed % count;
        (0..count).map(move |i| low + (start + i) % count)
    }

    fn claim(&mut self, key: String, explicit: Option<FieldError>) {
        if !self.owned.contains(&key) && !self.take.iter().any(|claim| claim.key == key) {
            self.take.push(Claim { key, explicit });
        }
    }
}

#[cfg(test)]
mod tests;
