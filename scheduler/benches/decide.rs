//! What one decision costs: filters and scores over a thousand and five thousand nodes.
//!
//! `cargo bench -p scheduler`

use std::sync::Arc;

use api::openapi::api::core::v1::{Node, Pod};
use divan::Bencher;
use divan::counter::ItemsCount;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use scheduler::cluster::Cluster;
use scheduler::framework::Cycle;
use scheduler::pod::PodInfo;
use scheduler::profile::Profile;
use scheduler::schedule::{Nominated, Scheduler};
use scheduler::snapshot::Snapshot;
use serde_json::{Value, json};

fn main() {
    divan::main();
}

fn node(i: usize) -> Node {
    let node = json!({
        "metadata": {"name": format!("node-{i}"), "labels": {
            "kubernetes.io/hostname": format!("node-{i}"),
            "topology.kubernetes.io/zone": format!("zone-{}", i % 3)}},
        "status": {"allocatable": {"cpu": "32", "memory": "64Gi", "pods": "110"}}});
    serde_json::from_value(node).expect("a node")
}

fn pod(i: usize, more: Value) -> Arc<PodInfo> {
    let mut pod = json!({
        "metadata": {"name": format!("pod-{i}"), "namespace": "default", "uid": format!("uid-{i}"),
            "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "app",
            "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}}}]}});
    if let (Some(spec), Value::Object(more)) = (pod["spec"].as_object_mut(), more) {
        spec.extend(more);
    }
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    Arc::new(PodInfo::new(Arc::new(pod)))
}

/// One pod on every node.
fn snapshot(nodes: usize) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for i in 0..nodes {
        snapshot.set_node(&node(i));
        snapshot.set_pod(pod(i, json!({})), &format!("node-{i}"), false);
    }
    snapshot
}

fn constraints() -> Value {
    let one = |key: &str, when: &str| {
        json!({"maxSkew": 5, "topologyKey": key, "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": "web"}}})
    };
    json!({"topologySpreadConstraints": [
        one("topology.kubernetes.io/zone", "DoNotSchedule"), one("kubernetes.io/hostname", "ScheduleAnyway")]})
}

fn affinity() -> Value {
    json!({"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "podAffinityTerm": {"topologyKey": "topology.kubernetes.io/zone",
            "labelSelector": {"matchLabels": {"app": "web"}}}}]}}})
}

fn decide(bencher: Bencher<'_, '_>, nodes: usize, more: Value) {
    let (snapshot, cluster, nominated) = (snapshot(nodes), Cluster::default(), Nominated::default());
    let (profile, pod) = (Profile::default(), pod(nodes, more));
    let mut scheduler = Scheduler::new(SmallRng::seed_from_u64(1));
    bencher.bench_local(|| scheduler.decide(&pod, &profile, &snapshot, &cluster, &nominated).is_ok());
}

#[divan::bench(args = [1000, 5000])]
fn decision_plain(bencher: Bencher<'_, '_>, nodes: usize) {
    decide(bencher, nodes, json!({}));
}

#[divan::bench(args = [1000, 5000])]
fn decision_spread(bencher: Bencher<'_, '_>, nodes: usize) {
    decide(bencher, nodes, constraints());
}

#[divan::bench(args = [1000, 5000])]
fn decision_affinity(bencher: Bencher<'_, '_>, nodes: usize) {
    decide(bencher, nodes, affinity());
}

/// All filters over every node: the figure per item is that of one node.
#[divan::bench(args = [1000, 5000])]
fn filters_per_node(bencher: Bencher<'_, '_>, nodes: usize) {
    let (snapshot, cluster) = (snapshot(nodes), Cluster::default());
    let (profile, pod) = (Profile::default(), pod(nodes, constraints()));
    let mut cycle = Cycle::new(&snapshot, &cluster);
    profile.filters.iter().for_each(|filter| drop(filter.pre_filter(&pod, &mut cycle)));
    bencher.counter(ItemsCount::new(nodes)).bench_local(|| {
        let passes =
            |node: &&_| profile.filters.iter().all(|filter| filter.filter(&pod, node, &cycle).is_ok());
        snapshot.nodes().iter().filter(passes).count()
    });
}

/// All scores over every node: the figure per item is that of one node.
#[divan::bench(args = [1000, 5000])]
fn scores_per_node(bencher: Bencher<'_, '_>, nodes: usize) {
    let (snapshot, cluster) = (snapshot(nodes), Cluster::default());
    let (profile, pod) = (Profile::default(), pod(nodes, constraints()));
    let all: Vec<usize> = (0..nodes).collect();
    let mut cycle = Cycle::new(&snapshot, &cluster);
    let scores = profile.scores.iter();
    let scores: Vec<_> = scores.filter(|s| s.plugin.pre_score(&pod, &all, &mut cycle)).collect();
    bencher.counter(ItemsCount::new(nodes)).bench_local(|| {
        let of = |node| scores.iter().map(|s| s.plugin.score(&pod, node, &cycle) * s.weight).sum::<i64>();
        snapshot.nodes().iter().map(of).max()
    });
}
