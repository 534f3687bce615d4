//! Nodes: what is refused, what may change, how a row looks.

use serde_json::json;

use super::*;
use crate::registry::testing::{invalid, invalid_update, row, stored, updated};

#[test]
fn ranges_agree_and_allocatable_is_capacity_unless_told() {
    let node = stored(
        &NodeStrategy,
        json!({"spec": {"podCIDR": "10.244.1.0/24"}, "status": {"capacity": {"cpu": "2000m", "memory": "1024Ki"}}}),
    );
    assert_eq!(node["spec"], json!({"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}));
    assert_eq!(node["status"]["allocatable"], json!({"cpu": "2", "memory": "1Mi"}));
}

#[test]
fn wrong_taints_ranges_and_amounts_are_refused() {
    invalid(
        &NodeStrategy,
        json!({"spec": {"podCIDR": "10.0.0.0", "taints": [{"key": "a", "effect": "Never"}, {"key": "a", "effect": "NoSchedule"},
            {"key": "a", "value": "x", "effect": "NoSchedule"}]},
            "status": {"capacity": {"cpu": "-1"}, "allocatable": {"cpu": "1"}, "addresses": [{"type": "InternalIP", "address": "1.1.1.1"},
                {"type": "InternalIP", "address": "1.1.1.1"}]}}),
        &[
            "spec.podCIDRs[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            "spec.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"PreferNoSchedule\"",
            "spec.taints[2]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}",
            "status.capacity[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            "status.addresses[1]: Duplicate value: {\"address\":\"1.1.1.1\",\"type\":\"InternalIP\"}",
        ],
    );
}

#[test]
fn a_range_is_given_once() {
    let range = |r: &str| json!({"spec": {"podCIDR": r}});
    assert_eq!(updated(&NodeStrategy, json!({"spec": {}}), range("10.244.1.0/24")).1, Vec::<String>::new());
    invalid_update(
        &NodeStrategy,
        range("10.244.1.0/24"),
        range("10.244.2.0/24"),
        &["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"],
    );
}

#[test]
fn the_main_path_leaves_the_status_alone() {
    let (node, _) = updated(
        &NodeStrategy,
        json!({"status": {"phase": "old"}}),
        json!({"spec": {"unschedulable": true}, "status": {"phase": "new"}}),
    );
    assert_eq!(node.status.unwrap().phase.as_deref(), Some("old"));
    assert_eq!(node.spec.unwrap().unschedulable, Some(true));
}

#[test]
fn a_node_is_shown_with_its_roles_and_system() {
    row(
        &NodeStrategy,
        json!({"metadata": {"name": "n1", "creationTimestamp": "2025-12-31T00:00:00Z",
            "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "x"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}],
                "nodeInfo": {"kubeletVersion": "v1.35.0", "osImage": "Debian", "kernelVersion": "6.1", "containerRuntimeVersion": "containerd://1.6"}}}),
        &[
            "n1",
            "NotReady,SchedulingDisabled",
            "control-plane,worker,x",
            "24h",
            "v1.35.0",
            "10.0.0.2",
            "<none>",
            "Debian",
            "6.1",
            "containerd://1.6",
        ],
    );
    row(
        &NodeStrategy,
        json!({"metadata": {"name": "n2"}}),
        &[
            "n2",
            "Unknown",
            "<none>",
            "<unknown>",
            "",
            "<none>",
            "<none>",
            "<unknown>",
            "<unknown>",
            "<unknown>",
        ],
    );
}
