//! The taints that follow from a node's conditions.

use api::openapi::api::core::v1::{Node, Taint};
use api::openapi::apimachinery::pkg::apis::meta::v1::Time;
use jiff::Timestamp;

use super::health::ready_status;

/// The node's kubelet reports that it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The node's kubelet is not heard of.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// Taints against scheduling that stand for a condition with a status.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Whether pods that do not tolerate it leave a node that is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// They leave.
    Allowed,
    /// Not yet: those that were told to leave already do so, no others.
    Deferred,
    /// All nodes are lost, which rather means that we are: nobody leaves.
    Suspended,
}

/// Whether the node would be tainted with NoExecute, but is not yet.
pub fn awaits_eviction(node: &Node) -> bool {
    let wanted = no_execute(node);
    wanted.is_some_and(|key| !present(node).iter().any(|t| is(t, key, "NoExecute")))
}

fn no_execute(node: &Node) -> Option<&'static str> {
    match ready_status(node) {
        "True" => None,
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    }
}

fn present(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

fn is(taint: &Taint, key: &str, effect: &str) -> bool {
    taint.key == key && taint.effect == effect
}

fn is_ours(taint: &Taint) -> bool {
    let by_condition = BY_CONDITION.iter().any(|(_, _, key)| taint.key == *key) || taint.key == UNSCHEDULABLE;
    match taint.effect.as_str() {
        "NoSchedule" => by_condition,
        "NoExecute" => taint.key == NOT_READY || taint.key == UNREACHABLE,
        _ => false,
    }
}

/// The taints that the node shall have, if they are others than it has. Those of other people stay.
pub fn plan(node: &Node, eviction: Eviction, now: Timestamp) -> Option<Vec<Taint>> {
    let wanted = wanted(node, eviction);
    let mut next: Vec<_> = present(node).to_vec();
    next.retain(|taint| !is_ours(taint) || wanted.contains(&(taint.key.as_str(), taint.effect.as_str())));
    for (key, effect) in wanted {
        if !next.iter().any(|t| is(t, key, effect)) {
            let time_added = Timestamp::from_second(now.as_second()).ok().map(Time);
            next.push(Taint { key: key.into(), effect: effect.into(), time_added, value: None });
        }
    }
    (next != present(node)).then_some(next)
}

fn wanted(node: &Node, eviction: Eviction) -> Vec<(&'static str, &'static str)> {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let has = |type_: &str, status: &str| {
        conditions.into_iter().flatten().any(|c| c.type_ == type_ && c.status == status)
    };
    let mut wanted: Vec<_> = BY_CONDITION
        .iter()
        .filter(|(type_, status, _)| has(type_, status))
        .map(|(_, _, key)| (*key, "NoSchedule"))
        .collect();
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    // A node that never reported is tainted by its registration; it has no pods to evict.
    let key = no_execute(node).filter(|_| conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready")));
    if let Some(key) = key {
        let tainted = present(node).iter().any(|t| t.effect == "NoExecute" && is_ours(t));
        match eviction {
            Eviction::Allowed => wanted.push((key, "NoExecute")),
            Eviction::Deferred if tainted => wanted.push((key, "NoExecute")),
            Eviction::Deferred | Eviction::Suspended => {}
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Builder, at, node};

    #[track_caller]
    fn check(node: Builder<Node>, eviction: Eviction, expected: Option<&[&str]>) {
        let found = plan(&node.build(), eviction, at(9));
        let words = |taints: Vec<Taint>| -> Vec<String> {
            let short = |key: &str| key.trim_start_matches("node.kubernetes.io/").to_owned();
            taints.iter().map(|t| format!("{} {}", short(&t.key), t.effect)).collect()
        };
        let expected: Option<Vec<String>> = expected.map(|e| e.iter().map(|s| (*s).to_owned()).collect());
        assert_eq!(found.map(words), expected);
    }

    #[test]
    fn taints_follow_the_conditions() {
        use Eviction::{Allowed, Deferred, Suspended};
        check(node("n", "True", 0), Allowed, None);
        check(node("n", "False", 0), Allowed, Some(&["not-ready NoSchedule", "not-ready NoExecute"]));
        check(node("n", "Unknown", 0), Allowed, Some(&["unreachable NoSchedule", "unreachable NoExecute"]));
        check(node("n", "Unknown", 0), Deferred, Some(&["unreachable NoSchedule"]));
        let tainted = |status: &str| {
            let n = node("n", status, 0).taint("mine", "NoExecute", 1).taint(UNREACHABLE, "NoSchedule", 1);
            n.taint(UNREACHABLE, "NoExecute", 1)
        };
        check(tainted("Unknown"), Allowed, None);
        check(tainted("Unknown"), Deferred, None);
        check(tainted("Unknown"), Suspended, Some(&["mine NoExecute", "unreachable NoSchedule"]));
        check(tainted("True"), Allowed, Some(&["mine NoExecute"]));
        check(
            tainted("False"),
            Deferred,
            Some(&["mine NoExecute", "not-ready NoSchedule", "not-ready NoExecute"]),
        );
        let mut cordoned = node("n", "True", 0);
        cordoned.0.spec.get_or_insert_default().unschedulable = Some(true);
        check(cordoned, Allowed, Some(&["unschedulable NoSchedule"]));
        check(node("n", "True", 0).taint(NOT_READY, "NoSchedule", 1), Allowed, Some(&[]));
    }
}
