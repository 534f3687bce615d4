//! Nodes: ranges of pod addresses, loss, eviction and return.

use std::collections::BTreeSet;

use api::meta::MetaExt;
use api::openapi::api::apps::v1::Deployment;
use api::openapi::api::core::v1::{Node, Pod};
use api::openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::json;

use crate::support::{Cluster, eventually, web};

fn taints(node: &Node) -> BTreeSet<(String, String)> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    let short = |key: &str| key.trim_start_matches("node.kubernetes.io/").to_owned();
    taints.map(|t| (short(&t.key), t.effect.clone())).collect()
}

fn ready(node: &Node) -> (String, String) {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.clone());
    let condition = api::conditions::find(&conditions, "Ready");
    condition.map(|c| (c.status.clone(), c.reason.clone().unwrap_or_default())).unwrap_or_default()
}

fn on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node)
}

fn pair(a: &str, b: &str) -> (String, String) {
    (a.into(), b.into())
}

/// Pods that stay on an unreachable node for two seconds.
fn impatient() -> serde_json::Value {
    let toleration = json!({
        "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2,
    });
    web(json!({ "spec": { "replicas": 6, "template": { "spec": { "tolerations": [toleration] } } } }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_has_a_range_of_its_own() {
    let cluster = Cluster::start().await;
    let taken = json!({ "metadata": { "name": "old" }, "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"] } });
    let nodes = cluster.client.all::<Node>();
    nodes.create(&serde_json::from_value(taken).unwrap()).await.unwrap();
    let _nodes = cluster.nodes(&["n1", "n2", "n3"]).await;
    let token = cluster.control(cluster.config());
    let ranges = || async {
        let all = nodes.list(&Default::default()).await?.items;
        let range = |n: &Node| n.spec.as_ref().and_then(|s| s.pod_cidr.clone());
        Ok::<_, client::Error>(all.iter().filter_map(range).collect::<Vec<_>>())
    };
    eventually("all have one", || async { Ok(ranges().await?.len() == 4) }).await;
    let distinct: BTreeSet<_> = ranges().await.unwrap().into_iter().collect();
    assert_eq!(distinct.len(), 4, "{distinct:?}");
    token.cancel();

    // Another instance knows what was handed out.
    cluster.control(cluster.config());
    nodes.create(&serde_json::from_value(json!({ "metadata": { "name": "new" } })).unwrap()).await.unwrap();
    eventually("the new one has one", || async { Ok(ranges().await?.len() == 5) }).await;
    let distinct: BTreeSet<_> = ranges().await.unwrap().into_iter().collect();
    assert_eq!(distinct.len(), 5, "{distinct:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_a_lost_node_run_elsewhere_and_not_twice_when_it_returns() {
    let cluster = Cluster::start().await;
    let hollow = cluster.nodes(&["n1", "n2", "n3"]).await;
    cluster.control(cluster.config());
    cluster.create::<Deployment>("default", impatient()).await;
    cluster.rolled_out("web").await;
    assert!(cluster.pods().await.unwrap().iter().any(|p| on(p, "n3")));

    hollow.stop("n3");
    let nodes = cluster.client.all::<Node>();
    eventually("the node is unknown and tainted", || async {
        let node = nodes.get("n3").await?;
        let expected = [pair("unreachable", "NoExecute"), pair("unreachable", "NoSchedule")];
        Ok(ready(&node) == pair("Unknown", "NodeStatusUnknown") && taints(&node) == BTreeSet::from(expected))
    })
    .await;
    eventually("its pods are marked", || async {
        let pods = cluster.list::<Pod>("default").await?;
        let unready = |p: &&Pod| {
            !api::conditions::is_true(&p.status.as_ref().and_then(|s| s.conditions.clone()), "Ready")
        };
        Ok(pods.iter().filter(|p| on(p, "n3")).all(|p| unready(&p)))
    })
    .await;
    eventually("its pods are replaced", || async {
        let pods = cluster.pods().await?;
        Ok(pods.len() == 6 && pods.iter().all(|p| !on(p, "n3")))
    })
    .await;
    let evicted: Vec<_> =
        cluster.list::<Pod>("default").await.unwrap().into_iter().filter(|p| on(p, "n3")).collect();
    assert!(!evicted.is_empty() && evicted.iter().all(MetaExt::is_deleting), "they wait for their kubelet");
    let target = |p: &Pod| {
        let conditions = p.status.as_ref().and_then(|s| s.conditions.clone());
        api::conditions::find(&conditions, "DisruptionTarget").and_then(|c| c.reason.clone())
    };
    assert!(evicted.iter().all(|p| target(p).as_deref() == Some("DeletionByTaintManager")));
    cluster.rolled_out("web").await;

    hollow.resume("n3").await;
    eventually("the node is back", || async {
        let node = nodes.get("n3").await?;
        Ok(ready(&node).0 == "True" && taints(&node).is_empty())
    })
    .await;
    eventually("what was evicted has ended", || async {
        Ok(cluster.list::<Pod>("default").await?.iter().all(|p| !on(p, "n3")))
    })
    .await;
    assert_eq!(cluster.pods().await.unwrap().len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_evicted_while_all_nodes_are_lost() {
    let cluster = Cluster::start().await;
    let hollow = cluster.nodes(&["n1", "n2"]).await;
    cluster.control(cluster.config());
    cluster.create::<Deployment>("default", impatient()).await;
    cluster.rolled_out("web").await;
    let before: BTreeSet<_> = cluster.pods().await.unwrap().iter().map(|p| p.uid().to_owned()).collect();
    hollow.stop("n1");
    hollow.stop("n2");
    let nodes = cluster.client.all::<Node>();
    eventually("both are unknown", || async {
        let all = nodes.list(&Default::default()).await?.items;
        let lost = |n: &Node| {
            ready(n).0 == "Unknown" && taints(n) == BTreeSet::from([pair("unreachable", "NoSchedule")])
        };
        Ok(all.iter().all(lost))
    })
    .await;
    // Longer than the pods would stay.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    let after: BTreeSet<_> = cluster.pods().await.unwrap().iter().map(|p| p.uid().to_owned()).collect();
    assert_eq!(after, before);
    hollow.resume("n1").await;
    eventually("the other's pods leave it", || async {
        let pods = cluster.pods().await?;
        Ok(pods.len() == 6 && pods.iter().all(|p| on(p, "n1")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_a_node_that_is_out_of_service_are_removed() {
    let cluster = Cluster::start().await;
    let hollow = cluster.nodes(&["n1", "n2"]).await;
    cluster.control(cluster.config());
    cluster.create::<Deployment>("default", impatient()).await;
    cluster.rolled_out("web").await;
    hollow.stop("n2");
    let terminating = || async {
        let pods = cluster.list::<Pod>("default").await?;
        Ok::<_, client::Error>(pods.iter().filter(|p| on(p, "n2") && p.is_deleting()).count())
    };
    eventually("its pods wait for it", || async { Ok(terminating().await? == 3) }).await;
    let nodes = cluster.client.all::<Node>();
    let patch = client::Patch::Strategic(json!({ "spec": { "taints": [
        { "key": "node.kubernetes.io/out-of-service", "effect": "NoExecute", "value": "nodeshutdown" },
    ]}}));
    nodes.patch("n2", &patch).await.unwrap();
    eventually("its pods are gone", || async { Ok(terminating().await? == 0) }).await;
    nodes.delete("n2", &DeleteOptions::default()).await.unwrap();
    assert_eq!(cluster.pods().await.unwrap().len(), 6);
}
