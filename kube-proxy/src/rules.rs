//! What the kernel's table should hold, and the smallest transaction that gets it there. Pure.
//!
//! Chains and sets of a Service bear a hash of their content in their name, so they are never
//! changed: a new content is a new chain, and the map element that points to it is switched in the
//! same transaction. So the names alone tell what is in the kernel, also after a crash.

pub mod base;
pub mod service;
pub mod transaction;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

pub use base::base;
pub use service::service;
pub use transaction::Transaction;

use crate::net::Cidr;

/// The one table of ours, in the family `ip`.
pub const TABLE: &str = "coxswain";

/// What all rules depend on; fixed for the life of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Where pods' addresses come from (`--cluster-cidr`). Without one nothing is known to be a pod.
    pub cluster_cidrs: Vec<Cidr>,
    /// Where ClusterIPs come from; packets for it that match no Service are rejected.
    pub service_range: Cidr,
    /// Where this node itself answers DNS: exempt from all rules.
    pub cluster_dns: Option<Ipv4Addr>,
}

/// A chain of a Service. The name contains a hash of the rules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chain {
    /// Unique in the table.
    pub name: String,
    /// In nft's syntax, in order.
    pub rules: Vec<String>,
}

/// The clients of one endpoint that come back to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AffinitySet {
    /// Unique in the table.
    pub name: String,
    /// Seconds since the last connection after which a client is forgotten.
    pub timeout: u32,
}

/// The maps and sets of the table whose elements belong to Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// (address . protocol . port) → what to do with new connections.
    Services,
    /// (protocol . port) on any address of this node.
    NodePorts,
    /// As `Services`, for what has no endpoint: looked at after translation.
    NoEndpointServices,
    /// As `NodePorts`, for what has no endpoint: looked at after translation.
    NoEndpointNodePorts,
    /// (address . address) of endpoints that may be on this node and talk to themselves.
    Hairpin,
}

impl Slot {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Services, Self::NodePorts, Self::NoEndpointServices, Self::NoEndpointNodePorts, Self::Hairpin];

    /// The name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::NodePorts => "nodeports",
            Self::NoEndpointServices => "no-endpoint-services",
            Self::NoEndpointNodePorts => "no-endpoint-nodeports",
            Self::Hairpin => "hairpin",
        }
    }

    /// The slot of a name in the table.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|slot| slot.name() == name)
    }
}

/// Where an element is.
pub type Place = (Slot, String);

/// A UDP flow that conntrack may remember: its entry has to go when the endpoint goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UdpFlow {
    /// The address that clients use; `None` stands for every address of the node.
    pub address: Option<Ipv4Addr>,
    /// The port that clients use.
    pub port: u16,
    /// Where the packets go.
    pub endpoint: Ipv4Addr,
}

/// All that one Service puts into the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRules {
    /// In an order in which a chain comes after those that it goes to.
    pub chains: Vec<Chain>,
    /// Used by the chains.
    pub sets: Vec<AffinitySet>,
    /// Verdicts (`goto NAME`, `drop`); empty for members of a set.
    pub elements: BTreeMap<Place, String>,
    /// For conntrack.
    pub udp_flows: BTreeSet<UdpFlow>,
}

/// What is in the kernel, as far as Services are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Names of Services' chains.
    pub chains: BTreeSet<String>,
    /// Names of affinity sets.
    pub sets: BTreeSet<String>,
    /// The elements of all slots.
    pub elements: BTreeMap<Place, String>,
}

/// What should be in the kernel, kept up to date Service by Service.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    services: HashMap<String, ServiceRules>,
    /// Who wants which element. Two Services may claim one place for a moment, while an address
    /// moves from a deleted Service to a new one; the first in order of name has it.
    claims: BTreeMap<Place, BTreeMap<String, String>>,
}

impl Desired {
    /// Replaces (or with `None` removes) the rules of Services and says what that changes, in time
    /// that does not depend on the number of other Services. Also returns the UDP flows that ended.
    pub fn change(&mut self, changes: BTreeMap<String, Option<ServiceRules>>) -> (Transaction, Vec<UdpFlow>) {
        let mut transaction = Transaction::default();
        let mut before: BTreeMap<Place, Option<String>> = BTreeMap::new();
        let (mut ended, mut begun) = (BTreeSet::new(), BTreeSet::new());
        for (key, new) in changes {
            let old = self.services.remove(&key).unwrap_or_default();
            let new = new.unwrap_or_default();
            if old != new {
                for place in old.elements.keys().chain(new.elements.keys()) {
                    if !before.contains_key(place) {
                        before.insert(place.clone(), self.element(place).map(str::to_owned));
                    }
                }
                self.reclaim(&key, &old, &new);
                transaction.replace_chains(&old, &new);
                ended.extend(old.udp_flows.iter().cloned());
                begun.extend(new.udp_flows.iter().cloned());
            }
            if new != ServiceRules::default() {
                self.services.insert(key, new);
            }
        }
        for (place, old) in before {
            transaction.replace_element(&place, old.as_deref(), self.element(&place));
        }
        (transaction, ended.difference(&begun).cloned().collect())
    }

    /// What brings a table that holds `have` to this.
    pub fn from_state(&self, have: &State) -> Transaction {
        let mut transaction = Transaction::default();
        let mut keys: Vec<&String> = self.services.keys().collect();
        keys.sort();
        for rules in keys.into_iter().map(|key| &self.services[key]) {
            let new_chains = rules.chains.iter().filter(|c| !have.chains.contains(&c.name));
            transaction.add_chains.extend(new_chains.cloned());
            let new_sets = rules.sets.iter().filter(|s| !have.sets.contains(&s.name));
            transaction.add_sets.extend(new_sets.cloned());
        }
        let want = self.state();
        transaction.remove_chains = have.chains.difference(&want.chains).cloned().collect();
        transaction.remove_sets = have.sets.difference(&want.sets).cloned().collect();
        let places: BTreeSet<&Place> = have.elements.keys().chain(want.elements.keys()).collect();
        for place in places {
            let (old, new) = (have.elements.get(place), want.elements.get(place));
            transaction.replace_element(place, old.map(String::as_str), new.map(String::as_str));
        }
        transaction
    }

    /// The whole of it, as the kernel should show it.
    pub fn state(&self) -> State {
        let mut state = State::default();
        for rules in self.services.values() {
            state.chains.extend(rules.chains.iter().map(|c| c.name.clone()));
            state.sets.extend(rules.sets.iter().map(|s| s.name.clone()));
        }
        for (place, claims) in &self.claims {
            if let Some(value) = claims.values().next() {
                state.elements.insert(place.clone(), value.clone());
            }
        }
        state
    }

    /// All UDP flows that lead to an endpoint.
    pub fn udp_flows(&self) -> BTreeSet<UdpFlow> {
        self.services.values().flat_map(|rules| rules.udp_flows.iter().cloned()).collect()
    }

    /// How many Services have rules.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether no Service has rules.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    fn element(&self, place: &Place) -> Option<&str> {
        self.claims.get(place)?.values().next().map(String::as_str)
    }

    fn reclaim(&mut self, key: &str, old: &ServiceRules, new: &ServiceRules) {
        for place in old.elements.keys() {
            if let Some(claims) = self.claims.get_mut(place) {
                claims.remove(key);
                if claims.is_empty() {
                    self.claims.remove(place);
                }
            }
        }
        for (place, value) in &new.elements {
            self.claims.entry(place.clone()).or_default().insert(key.to_owned(), value.clone());
        }
    }
}

/// What turns one desired state into another.
pub fn diff(old: &Desired, new: &Desired) -> Transaction {
    new.from_state(&old.state())
}

#[cfg(test)]
mod tests;
