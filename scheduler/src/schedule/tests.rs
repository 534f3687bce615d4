use rand::SeedableRng;
use serde_json::json;

use super::*;
use crate::fixtures::{NodeFixture, PodFixture, node, pod};

fn snapshot(nodes: Vec<NodeFixture>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.set_node(&node.build());
    }
    snapshot
}

fn scheduler() -> Scheduler {
    Scheduler::new(SmallRng::seed_from_u64(1))
}

fn decide(
    scheduler: &mut Scheduler,
    pod: &Arc<PodInfo>,
    snapshot: &Snapshot,
) -> Result<Placement, Box<Diagnosis>> {
    scheduler.decide(pod, &Profile::default(), snapshot, &Cluster::default(), &Nominated::default())
}

#[track_caller]
fn check(pod: PodFixture, nodes: Vec<NodeFixture>, expected: Result<&str, &str>) {
    let decided = decide(&mut scheduler(), &pod.info(), &snapshot(nodes));
    let seen = decided.map(|p| p.node.to_string()).map_err(|d| d.to_string());
    assert_eq!(seen.as_deref().map_err(String::as_str), expected);
}

#[test]
fn the_reasons_are_counted_and_ordered_as_upstream_does() {
    check(pod("p"), vec![], Err("no nodes available to schedule pods"));
    let tainted = |name| node(name).taint("key", "value", "NoSchedule");
    check(
        pod("p").cpu("5"),
        vec![node("a"), tainted("b"), tainted("c")],
        Err("0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s)."),
    );
    check(
        pod("p").cpu("5").request("memory", "9Gi"),
        vec![node("a"), node("b").spec(json!({"unschedulable": true}))],
        Err(
            "0/2 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 node(s) were unschedulable.",
        ),
    );
}

#[test]
fn the_node_that_fits_is_found() {
    check(pod("p").cpu("3"), vec![node("a").cpu("2"), node("b"), node("c").cpu("1")], Ok("b"));
    check(
        pod("p").set("nodeSelector", json!({"disk": "ssd"})),
        vec![node("a"), node("b").label("disk", "ssd")],
        Ok("b"),
    );
    check(pod("p"), vec![node("a").taint("x", "", "PreferNoSchedule"), node("b")], Ok("b"));
}

#[test]
fn nodes_that_are_named_are_found_without_looking_at_others() {
    let field = |name: &str| {
        let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]);
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}})
    };
    check(pod("p").set("affinity", field("b")), vec![node("a"), node("b")], Ok("b"));
    check(
        pod("p").cpu("5").set("affinity", field("b")),
        vec![node("a"), node("b"), node("c")],
        Err(
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity].",
        ),
    );
}

#[test]
fn ties_are_broken_at_random_and_the_same_way_from_the_same_seed() {
    let run = || {
        let mut scheduler = scheduler();
        let snapshot = snapshot((0..5).map(|i| node(&format!("n{i}"))).collect());
        let pod = pod("p").info();
        (0..50).map(|_| decide(&mut scheduler, &pod, &snapshot).unwrap().node.to_string()).collect::<Vec<_>>()
    };
    let first = run();
    assert_eq!(first, run());
    assert_eq!(first.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
}

#[test]
fn pods_that_ask_for_next_to_nothing_spread() {
    let mut scheduler = scheduler();
    let mut snapshot = snapshot((0..3).map(|i| node(&format!("n{i}"))).collect());
    for i in 0..9 {
        let pod = pod(&format!("p{i}")).cpu("1m").request("memory", "1").info();
        let placement = decide(&mut scheduler, &pod, &snapshot).unwrap();
        snapshot.set_pod(pod, &placement.node, true);
    }
    assert!(snapshot.nodes().iter().all(|node| node.requested.pods == 3));
}

#[test]
fn in_large_clusters_a_share_of_the_nodes_is_looked_at_in_turn() {
    for (total, wanted) in
        [(50, 50), (99, 99), (100, 100), (300, 144), (1000, 420), (5000, 500), (10_000, 500)]
    {
        assert_eq!(super::wanted(0, total), wanted, "{total}");
    }
    assert_eq!((super::wanted(100, 1000), super::wanted(1, 1000)), (1000, 100));
    let mut scheduler = scheduler();
    let snapshot = snapshot((0..1000).map(|i| node(&format!("n{i}"))).collect());
    let pod = pod("p").info();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let entries = decide(&mut scheduler, &pod, &snapshot).unwrap().findings.entries;
        assert_eq!(entries.len(), 420);
        seen.extend(entries.into_iter().map(|entry| entry.node));
    }
    assert_eq!(seen.len(), 1000);
}
