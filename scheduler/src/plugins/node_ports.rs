//! NodePorts: two pods cannot take one port of a node.

use api::openapi::api::core::v1::Container;

use crate::framework::{Cycle, Event, Filter, NODE_ADDED, POD_LEFT, PreFilter, Refusal};
use crate::pod::PodInfo;
use crate::snapshot::NodeState;

/// See the module.
pub struct NodePorts;

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The address; `0.0.0.0` for all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The number.
    pub port: i32,
}

impl HostPort {
    /// The node's ports that a container takes.
    pub fn of(container: &Container) -> impl Iterator<Item = Self> {
        let ports = container.ports.iter().flatten();
        ports.filter_map(|port| {
            let own = |text: &Option<String>, default: &str| match text.as_deref() {
                None | Some("") => default.to_owned(),
                Some(text) => text.to_owned(),
            };
            let number = port.host_port.filter(|p| *p > 0)?;
            Some(Self {
                ip: own(&port.host_ip, "0.0.0.0"),
                protocol: own(&port.protocol, "TCP"),
                port: number,
            })
        })
    }

    fn conflicts(&self, other: &Self) -> bool {
        let all = |ip: &str| ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || all(&self.ip) || all(&other.ip))
    }
}

/// The ports that are taken on one node; usually none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsedPorts(Vec<HostPort>);

impl UsedPorts {
    /// Takes a port.
    pub fn add(&mut self, port: &HostPort) {
        self.0.push(port.clone());
    }

    /// Gives a port back.
    pub fn remove(&mut self, port: &HostPort) {
        if let Some(position) = self.0.iter().position(|used| used == port) {
            self.0.swap_remove(position);
        }
    }

    /// Whether a port is taken.
    pub fn conflicts(&self, port: &HostPort) -> bool {
        self.0.iter().any(|used| used.conflicts(port))
    }
}

fn passes(pod: &PodInfo, node: &NodeState) -> bool {
    !pod.ports.iter().any(|port| node.rest.ports.conflicts(port))
}

impl Filter for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn pre_filter(&self, pod: &PodInfo, _cycle: &mut Cycle<'_>) -> PreFilter {
        if pod.ports.is_empty() { PreFilter::Skip } else { PreFilter::All }
    }

    fn filter(&self, pod: &PodInfo, node: &NodeState, _cycle: &Cycle<'_>) -> Result<(), Refusal> {
        if !passes(pod, node) {
            return Err(Refusal::because("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }

    fn events(&self) -> u16 {
        NODE_ADDED | POD_LEFT
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::NodeAdded(_) => true,
            Event::PodLeft { pod: left, .. } => {
                pod.ports.iter().any(|port| left.ports.iter().any(|freed| freed.conflicts(port)))
            }
            // A node's own update does not free a port.
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{node, pod};
    use crate::snapshot::Snapshot;

    #[track_caller]
    fn check(used: (&str, i32, &str), wanted: (&str, i32, &str), fits: bool) {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(&node("n").build());
        let holder = pod("holder").port(used.0, used.1, used.2).info();
        let asker = pod("asker").port(wanted.0, wanted.1, wanted.2).info();
        snapshot.set_pod(holder.clone(), "n", false);
        assert_eq!(passes(&asker, snapshot.node("n").unwrap()), fits);
        assert_eq!(NodePorts.hint(&asker, &Event::PodLeft { pod: &holder, node: None }), !fits);
        snapshot.remove_pod("holder-uid");
        assert!(passes(&asker, snapshot.node("n").unwrap()));
    }

    #[test]
    fn ports_conflict_on_the_same_address_and_protocol() {
        check(("", 80, "TCP"), ("", 80, "TCP"), false);
        check(("", 80, "TCP"), ("", 81, "TCP"), true);
        check(("", 80, "TCP"), ("", 80, "UDP"), true);
        check(("10.0.0.1", 80, "TCP"), ("10.0.0.2", 80, "TCP"), true);
        check(("10.0.0.1", 80, "TCP"), ("0.0.0.0", 80, "TCP"), false);
        check(("0.0.0.0", 80, ""), ("10.0.0.1", 80, "TCP"), false);
    }
}
