//! A node dies, and comes back.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use support::{Cluster, Load, get_through, repository, until};

const PATIENCE: Duration = Duration::from_secs(90);
/// Shorter than upstream's 50 s, so that the test ends sooner; longer than the 10 s between two heartbeats.
const GRACE: &str = "--extra-arg=kube-controller-manager=--node-monitor-grace-period=16s";

fn node_ready(cluster: &Cluster, node: &str) -> String {
    let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    cluster.kubectl.ok(&["get", "node", node, "-o", path])
}

fn on<'a>(pods: &'a [Value], node: &str) -> Vec<&'a str> {
    pods.iter()
        .filter(|p| p["spec"]["nodeName"] == node)
        .filter_map(|p| p["metadata"]["name"].as_str())
        .collect()
}

#[test]
fn a_dead_nodes_pods_run_elsewhere() {
    let cluster = Cluster::up_with("node", 3, &[GRACE]);
    let sample =
        std::fs::read_to_string(repository().join("deploy/samples/web.yaml")).expect("the sample exists");
    cluster.kubectl.apply(&sample);
    // Evict from a dead node after seconds, not after the default five minutes.
    let tolerate = r#"{"spec":{"template":{"spec":{"tolerations":[
        {"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":2},
        {"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":2}]}}}}"#;
    cluster.kubectl.ok(&["-n", "web", "patch", "deployment", "web", "-p", tolerate]);
    cluster.kubectl.ok(&["-n", "web", "rollout", "status", "deployment/web", "--timeout=90s"]);
    let pods = cluster.ready_pods("web", "app=web", 3, PATIENCE);
    let lost: BTreeSet<String> = on(&pods, "node-2").into_iter().map(str::to_owned).collect();
    assert!(!lost.is_empty(), "a pod runs on node-2: {}", cluster.overview("web"));
    let service = cluster.service("web", "web");
    cluster.page("node-1", service, "/");

    cluster.coxswain_ok(&["node", "stop", "node-2"]);
    until("node-2 is marked", PATIENCE, || node_ready(&cluster, "node-2") == "Unknown");
    let taints = cluster.kubectl.ok(&["get", "node", "node-2", "-o", "jsonpath={.spec.taints[*].key}"]);
    assert!(taints.contains("node.kubernetes.io/unreachable"), "{taints}");
    // Once the node is marked, its endpoints leave the Service; from then on no request fails.
    until("the dead pods' endpoints are gone", PATIENCE, || {
        let path = "jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].nodeName}";
        !cluster.kubectl.ok(&["-n", "web", "get", "endpointslices", "-o", path]).contains("node-2")
    });
    until("the proxies have followed", PATIENCE, || {
        (0..20).all(|_| get_through(&cluster.node("node-1"), service, "/").is_ok_and(|a| a.code == 200))
    });
    let load = Load::start(&cluster.node("node-1"), service, "/");
    until("three pods run on the living nodes", PATIENCE, || {
        let pods = cluster.kubectl.items(&["-n", "web", "get", "pods", "-l", "app=web"]);
        let living = pods.iter().filter(|p| p["spec"]["nodeName"] != "node-2" && support::is_ready(p));
        living.count() == 3
    });

    cluster.coxswain_ok(&["node", "start", "node-2"]);
    until("node-2 is Ready again", PATIENCE, || node_ready(&cluster, "node-2") == "True");
    // What was evicted while the node was away is stopped there, and goes.
    cluster.ready_pods("web", "app=web", 3, PATIENCE);
    let taints = cluster.kubectl.ok(&["get", "node", "node-2", "-o", "jsonpath={.spec.taints[*].key}"]);
    assert_eq!(taints, "", "the taints are gone");
    let tally = load.stop();
    assert!(tally.failed.is_empty(), "{} of {} failed: {:?}", tally.failed.len(), tally.ok(), tally.failed);
    assert!(tally.served.keys().all(|server| !lost.contains(server)), "a dead pod has answered: {tally:?}");
    let addr = SocketAddr::from((cluster.node_ip("node-2"), cluster.node_port("web", "web")));
    cluster.page("node-2", addr, "/");
}
