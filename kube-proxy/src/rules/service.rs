//! The rules of one Service.

use std::net::Ipv4Addr;

use super::base::{MARK, REJECT, hash};
use super::{AffinitySet, Chain, Params, ServiceRules, Slot, UdpFlow};
use crate::model::{Endpoint, Kind, Protocol, ServiceModel, ServicePort};

/// Up to this many endpoints a chain tries them in turn, each with its share of the chance; beyond,
/// one map lookup is better than the rules (an anonymous map is dear to create, a rule is not).
const SERIAL: usize = 8;
/// nft's limit is 128.
const NAME_LIMIT: usize = 120;

/// What one Service puts into the table.
pub fn service(model: &ServiceModel, params: &Params) -> ServiceRules {
    let mut rules = ServiceRules::default();
    let Kind::Virtual { cluster_ips, external_ips } = &model.kind else { return rules };
    for port in &model.ports {
        Builder { model, params, port, rules: &mut rules }.port(cluster_ips, external_ips);
    }
    rules
}

struct Builder<'a> {
    model: &'a ServiceModel,
    params: &'a Params,
    port: &'a ServicePort,
    rules: &'a mut ServiceRules,
}

impl Builder<'_> {
    fn port(&mut self, cluster_ips: &[Ipv4Addr], external_ips: &[Ipv4Addr]) {
        let cluster = self.port.cluster_endpoints();
        let local = self.port.local_endpoints();
        let internal = if self.model.internal_local { &local } else { &cluster };
        match self.balance(internal) {
            Some(chain) => {
                for ip in cluster_ips {
                    self.element(Slot::Services, Some(*ip), format!("goto {chain}"));
                }
            }
            None => {
                // Within the range everything that matches nothing is refused anyway.
                for ip in cluster_ips.iter().filter(|ip| !self.params.service_range.contains(**ip)) {
                    self.element(Slot::NoEndpointServices, Some(*ip), format!("goto {REJECT}"));
                }
            }
        }
        self.flows(cluster_ips.iter().map(|ip| (Some(*ip), self.port.port)).collect(), internal);
        if self.port.node_port.is_some() || !external_ips.is_empty() {
            self.external(external_ips, &cluster, &local);
        }
        let used = cluster.iter().chain(&local).filter(|e| e.maybe_local);
        for ip in used.map(|e| e.ip) {
            self.rules.elements.insert((Slot::Hairpin, format!("{ip} . {ip}")), String::new());
        }
    }

    /// NodePorts, external addresses and load balancers' addresses.
    fn external(&mut self, ips: &[Ipv4Addr], cluster: &[&Endpoint], local: &[&Endpoint]) {
        let mut places: Vec<(Option<Ipv4Addr>, u16)> =
            ips.iter().map(|ip| (Some(*ip), self.port.port)).collect();
        places.extend(self.port.node_port.map(|port| (None, port)));
        if let Some(chain) = self.external_chain(cluster, local) {
            for (ip, _) in &places {
                let slot = if ip.is_some() { Slot::Services } else { Slot::NodePorts };
                self.element(slot, *ip, format!("goto {chain}"));
            }
        }
        let refused = match (cluster.is_empty(), self.model.external_local && local.is_empty()) {
            (true, _) => Some(format!("goto {REJECT}")),
            // Load balancers find out by their own probes which nodes have endpoints.
            (false, true) => Some("drop".to_owned()),
            (false, false) => None,
        };
        for (ip, _) in places.iter().filter(|_| refused.is_some()) {
            let slot = if ip.is_some() { Slot::NoEndpointServices } else { Slot::NoEndpointNodePorts };
            self.element(slot, *ip, refused.clone().unwrap_or_default());
        }
        self.flows(places, cluster);
    }

    fn external_chain(&mut self, cluster: &[&Endpoint], local: &[&Endpoint]) -> Option<String> {
        let to_cluster = self.balance(cluster)?;
        if !self.model.external_local {
            return Some(self.chain("ext", vec![format!("jump {MARK}"), format!("goto {to_cluster}")]));
        }
        // From within the cluster the policy does not count: there is no client address to keep.
        let mut rules = Vec::new();
        for pods in &self.params.cluster_cidrs {
            rules.push(format!("ip saddr {pods} jump {MARK}"));
            rules.push(format!("ip saddr {pods} goto {to_cluster}"));
        }
        rules.push(format!("fib saddr type local jump {MARK}"));
        rules.push(format!("fib saddr type local goto {to_cluster}"));
        rules.extend(self.balance(local).map(|chain| format!("goto {chain}")));
        Some(self.chain("ext", rules))
    }

    /// A chain that chooses one of the endpoints; `None` without endpoints.
    fn balance(&mut self, endpoints: &[&Endpoint]) -> Option<String> {
        if endpoints.is_empty() {
            return None;
        }
        let rules = match self.model.affinity {
            Some(timeout) => self.sticky(endpoints, timeout),
            None => self.random(endpoints),
        };
        Some(self.chain("svc", rules))
    }

    fn random(&self, endpoints: &[&Endpoint]) -> Vec<String> {
        let protocol = self.port.protocol.lower();
        let n = endpoints.len();
        if n > SERIAL {
            let item = |(i, e): (usize, &&Endpoint)| format!("{i} : {} . {}", e.ip, e.port);
            let map: Vec<String> = endpoints.iter().enumerate().map(item).collect();
            let map = map.join(", ");
            return vec![format!(
                "meta l4proto {protocol} dnat ip addr . port to numgen random mod {n} map {{ {map} }}"
            )];
        }
        let rule = |(i, e): (usize, &&Endpoint)| {
            format!("meta l4proto {protocol} {}dnat to {}:{}", chance(n - i), e.ip, e.port)
        };
        endpoints.iter().enumerate().map(rule).collect()
    }

    /// Each endpoint has a chain that notes the client, and a set of the clients to send there again.
    fn sticky(&mut self, endpoints: &[&Endpoint], timeout: u32) -> Vec<String> {
        let protocol = self.port.protocol.lower();
        let mut chains = Vec::new();
        let mut rules = Vec::new();
        for endpoint in endpoints {
            let identity = format!("{}:{} {timeout}", endpoint.ip, endpoint.port);
            let set = self.name("aff", &identity);
            if !self.rules.sets.iter().any(|s| s.name == set) {
                self.rules.sets.push(AffinitySet { name: set.clone(), timeout });
            }
            let note = format!("update @{set} {{ ip saddr }}");
            let go = format!("meta l4proto {protocol} dnat to {}:{}", endpoint.ip, endpoint.port);
            let chain = self.chain("ep", vec![note, go]);
            rules.push(format!("ip saddr @{set} goto {chain}"));
            chains.push(chain);
        }
        let n = chains.len();
        if n > SERIAL {
            let items: Vec<String> =
                chains.iter().enumerate().map(|(i, chain)| format!("{i} : goto {chain}")).collect();
            rules.push(format!("numgen random mod {n} vmap {{ {} }}", items.join(", ")));
        } else {
            rules
                .extend(chains.iter().enumerate().map(|(i, chain)| format!("{}goto {chain}", chance(n - i))));
        }
        rules
    }

    fn chain(&mut self, prefix: &str, rules: Vec<String>) -> String {
        let name = self.name(prefix, &rules.join("\n"));
        if !self.rules.chains.iter().any(|c| c.name == name) {
            self.rules.chains.push(Chain { name: name.clone(), rules });
        }
        name
    }

    fn name(&self, prefix: &str, content: &str) -> String {
        let ServiceModel { namespace, name, .. } = self.model;
        let (protocol, port) = (self.port.protocol.lower(), self.port.port);
        let whose = format!("{namespace}/{name}/{protocol}/{port}");
        let mut full = format!("{prefix}-{}-{whose}", hash(&format!("{prefix} {whose}\n{content}")));
        full.truncate(NAME_LIMIT);
        full
    }

    fn element(&mut self, slot: Slot, ip: Option<Ipv4Addr>, value: String) {
        let protocol = self.port.protocol.lower();
        let key = match (ip, self.port.node_port) {
            (Some(ip), _) => format!("{ip} . {protocol} . {}", self.port.port),
            (None, Some(port)) => format!("{protocol} . {port}"),
            (None, None) => return,
        };
        self.rules.elements.insert((slot, key), value);
    }

    fn flows(&mut self, places: Vec<(Option<Ipv4Addr>, u16)>, endpoints: &[&Endpoint]) {
        if self.port.protocol != Protocol::Udp {
            return;
        }
        for (address, port) in places {
            let flow = |e: &&Endpoint| UdpFlow { address, port, endpoint: e.ip };
            self.rules.udp_flows.extend(endpoints.iter().map(flow));
        }
    }
}

/// The condition that is true once in `n`; nothing for the last one, which takes the rest.
fn chance(n: usize) -> String {
    if n > 1 { format!("numgen random mod {n} 0 ") } else { String::new() }
}
