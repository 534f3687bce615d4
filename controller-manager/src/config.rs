//! The settings, after the flags were read.

use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use client::{ClientConfig, LeaderConfig};
use component::flags::Serving;
use component::jwt::SigningKey;

/// What the controller manager is told.
pub struct Config {
    /// The API servers, and this component's identity.
    pub client: ClientConfig,
    /// The Lease to contend for; `None` works at once, which is right for a single instance only.
    pub leader: Option<LeaderConfig>,
    /// Where health and metrics are shown.
    pub serving: Option<Serving>,
    /// Which controllers run.
    pub controllers: ControllerSelection,
    /// Deployments that are worked on at a time.
    pub concurrent_deployment_syncs: usize,
    /// ReplicaSets that are worked on at a time.
    pub concurrent_replicaset_syncs: usize,
    /// Services whose Endpoints are worked on at a time.
    pub concurrent_endpoint_syncs: usize,
    /// Services whose EndpointSlices are worked on at a time.
    pub concurrent_service_endpoint_syncs: usize,
    /// Namespaces that are emptied at a time.
    pub concurrent_namespace_syncs: usize,
    /// Objects that the garbage collector works on at a time.
    pub concurrent_gc_syncs: usize,
    /// The most endpoints of one EndpointSlice.
    pub max_endpoints_per_slice: usize,
    /// The range out of which nodes get theirs; `None` leaves nodes without.
    pub cluster_cidr: Option<Cidr>,
    /// The prefix length of a node's range.
    pub node_cidr_mask_size: u8,
    /// When nodes count as lost, and how fast their pods are evicted.
    pub node_lifecycle: NodeLifecycleConfig,
    /// Ended pods that are kept; 0 keeps all.
    pub terminated_pod_gc_threshold: usize,
    /// The CA certificates (PEM) that are published to every namespace.
    pub root_ca: Option<String>,
    /// The key with which tokens in Secrets are signed; `None` leaves such Secrets empty.
    pub token_key: Option<SigningKey>,
}

/// When nodes count as lost, and how fast their pods are evicted.
#[derive(Clone, Debug)]
pub struct NodeLifecycleConfig {
    /// How often the nodes' heartbeats are looked at.
    pub monitor_period: Duration,
    /// How old a heartbeat may become before the node's state is unknown.
    pub monitor_grace_period: Duration,
    /// The same for a node that has not reported yet.
    pub startup_grace_period: Duration,
    /// Nodes a second whose pods are evicted in a zone that is healthy.
    pub eviction_rate: f64,
    /// The same in a large zone that is partly lost.
    pub secondary_eviction_rate: f64,
    /// From how many nodes on a zone is large.
    pub large_cluster_size_threshold: usize,
    /// The share of lost nodes from which on a zone counts as partly lost.
    pub unhealthy_zone_threshold: f64,
}

/// The value of `--controllers`: names, `-name` to leave one out, `*` for all.
#[derive(Clone, Debug)]
pub struct ControllerSelection(Vec<String>);

impl ControllerSelection {
    /// Checks the names.
    ///
    /// # Errors
    /// A sentence for each name that no controller has.
    pub fn new(items: &[String]) -> Result<Self, Vec<String>> {
        let known = |item: &&String| {
            let name = item.strip_prefix('-').unwrap_or(item);
            name != "*" && crate::controllers::ALL.iter().all(|(n, _)| *n != name)
        };
        let unknown: Vec<_> = items
            .iter()
            .filter(known)
            .map(|i| format!("--controllers: {i:?} is not in the list of known controllers"))
            .collect();
        if unknown.is_empty() { Ok(Self(items.to_vec())) } else { Err(unknown) }
    }

    /// Whether a controller runs.
    pub fn selects(&self, name: &str) -> bool {
        let has = |item: &str| self.0.iter().any(|i| i == item);
        !has(&format!("-{name}")) && (has(name) || has("*"))
    }
}

/// An IPv4 range, such as `10.244.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    /// The first address.
    pub base: Ipv4Addr,
    /// How many leading bits all addresses share.
    pub prefix: u8,
}

/// Text that is no IPv4 range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid IPv4 CIDR")]
pub struct CidrError(String);

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError(text.to_owned());
        let (base, prefix) = text.split_once('/').ok_or_else(error)?;
        let base: Ipv4Addr = base.parse().map_err(|_| error())?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|p| digits && *p <= 32).ok_or_else(error)?;
        Ok(Self { base: Ipv4Addr::from_bits(base.to_bits() & mask(prefix)), prefix })
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl Cidr {
    /// How many ranges of a prefix length fit in.
    pub fn subnets(&self, prefix: u8) -> u32 {
        1u32.checked_shl(u32::from(prefix.saturating_sub(self.prefix))).unwrap_or(u32::MAX)
    }

    /// The range at an index.
    pub fn subnet(&self, prefix: u8, index: u32) -> Self {
        let offset = index.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        Self { base: Ipv4Addr::from_bits(self.base.to_bits().wrapping_add(offset)), prefix }
    }

    /// The first and last address, as numbers.
    pub fn bounds(&self) -> (u32, u32) {
        (self.base.to_bits(), self.base.to_bits() | !mask(self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_parse_and_divide() {
        let cluster: Cidr = "10.244.3.0/16".parse().unwrap();
        assert_eq!(cluster.to_string(), "10.244.0.0/16");
        assert_eq!(cluster.subnets(24), 256);
        assert_eq!(cluster.subnet(24, 255).to_string(), "10.244.255.0/24");
        assert_eq!("0.0.0.0/0".parse::<Cidr>().unwrap().bounds(), (0, u32::MAX));
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "::/0"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn controllers_are_selected_by_name() {
        let select = |items: &[&str]| {
            ControllerSelection::new(&items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
        };
        let all_but = select(&["*", "-namespace-controller"]).unwrap();
        assert!(all_but.selects("deployment-controller") && !all_but.selects("namespace-controller"));
        let one = select(&["namespace-controller"]).unwrap();
        assert!(!one.selects("deployment-controller") && one.selects("namespace-controller"));
        assert_eq!(select(&["*", "nonsense", "-rubbish"]).unwrap_err().len(), 2);
    }
}
