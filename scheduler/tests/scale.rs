//! The scheduling loop alone, without an API server: every pod is placed, and the rate is printed.
//!
//! `cargo test -p scheduler --release --test scale -- --include-ignored --nocapture`

use std::sync::Arc;
use std::time::Duration;

use api::openapi::api::core::v1::{Node, Pod};
use scheduler::core::{Core, Step};
use scheduler::profile::Profile;
use serde_json::{Value, json};
use tokio::time::Instant;

fn node(i: usize) -> Node {
    let node = json!({
        "metadata": {"name": format!("node-{i}"), "labels": {
            "kubernetes.io/hostname": format!("node-{i}"),
            "topology.kubernetes.io/zone": format!("zone-{}", i % 3)}},
        "status": {"allocatable": {"cpu": "32", "memory": "64Gi", "pods": "110"}}});
    serde_json::from_value(node).expect("a node")
}

fn pod(i: usize, more: &Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": format!("pod-{i}"), "namespace": "default", "uid": format!("uid-{i}"),
            "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "app",
            "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}}}]}});
    if let (Some(spec), Some(more)) = (pod["spec"].as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    Arc::new(serde_json::from_value(pod).expect("a pod"))
}

/// Places all pods and shows each back as the API would; prints how long the decisions took.
fn check(what: &str, nodes: usize, pods: usize, more: &Value) {
    let now = Instant::now();
    let mut core = Core::new(1, vec![Profile::default()]);
    for i in 0..nodes {
        core.set_node(&node(i), now);
    }
    for i in 0..pods {
        core.set_pod(&pod(i, more), now);
    }
    let (mut placed, mut took) = (0, Duration::ZERO);
    loop {
        let began = std::time::Instant::now();
        let step = core.step(now, String::new);
        let Some(step) = step else { break };
        let Step::Bind { queued, node } = step else { panic!("{step:?}") };
        let mut shown = queued.pod.pod.as_ref().clone();
        if let Some(spec) = &mut shown.spec {
            spec.node_name = Some(node.to_string());
        }
        let shown = Arc::new(shown);
        core.set_pod(&shown, now);
        took += began.elapsed();
        placed += 1;
    }
    assert_eq!(placed, pods);
    assert_eq!(core.snapshot().pods(), pods);
    println!("{what}: {pods} pods on {nodes} nodes, {:.0} pods/s", pods as f64 / took.as_secs_f64());
}

fn spread() -> Value {
    let labels = json!({"matchLabels": {"app": "web"}});
    json!({"topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": labels},
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": labels}]})
}

fn apart() -> Value {
    json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}})
}

#[test]
fn a_thousand_nodes_take_their_pods() {
    check("plain", 1000, 1000, &json!({}));
    check("spread", 1000, 300, &spread());
    check("anti-affinity", 1000, 300, &apart());
}

#[test]
#[ignore = "a measurement, worth its time with --release"]
fn five_thousand_nodes_take_their_pods() {
    check("plain", 1000, 3000, &json!({}));
    check("plain", 5000, 5000, &json!({}));
    check("spread", 5000, 5000, &spread());
    check("anti-affinity", 5000, 5000, &apart());
}
