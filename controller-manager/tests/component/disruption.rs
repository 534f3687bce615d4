//! PodDisruptionBudgets: their status, and what evictions are told.

use api::openapi::api::apps::v1::Deployment;
use api::openapi::api::core::v1::{ConfigMap, Pod};
use api::openapi::api::policy::v1::PodDisruptionBudget;
use client::{Error, Patch};
use serde_json::{Value, json};

use crate::support::{Cluster, eventually, size, web};

fn budget(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["selector"] = json!({ "matchLabels": { "app": "web" } });
    json!({ "metadata": { "name": name }, "spec": spec })
}

/// Waits for (expected, desired, healthy, allowed).
async fn counts(cluster: &Cluster, name: &str, wanted: (i32, i32, i32, i32)) {
    let budgets = cluster.client.namespaced::<PodDisruptionBudget>("default");
    eventually(&format!("{name} says {wanted:?}"), || async {
        let budget = budgets.get(name).await?;
        let s = budget.status.unwrap_or_default();
        let seen = (s.expected_pods, s.desired_healthy, s.current_healthy, s.disruptions_allowed);
        Ok(seen == wanted && s.observed_generation == budget.metadata.generation)
    })
    .await;
}

async fn evict(cluster: &Cluster, name: &str) -> Result<Value, Error> {
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name } });
    cluster.client.namespaced::<Pod>("default").create_subresource(name, "eviction", &eviction).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_lets_one_pod_go_at_a_time() {
    let cluster = Cluster::start().await;
    let nodes = cluster.nodes(&["n1"]).await;
    cluster.control(cluster.config());
    cluster.create::<Deployment>("default", web(json!({}))).await;
    cluster.rolled_out("web").await;
    cluster.create::<PodDisruptionBudget>("default", budget("b", json!({ "maxUnavailable": 1 }))).await;
    counts(&cluster, "b", (3, 2, 3, 1)).await;

    // With the node silent, nobody deletes what is evicted, and nothing new becomes ready.
    nodes.stop("n1");
    let names: Vec<_> =
        cluster.pods().await.unwrap().into_iter().map(|p| p.metadata.name.expect("a name")).collect();
    evict(&cluster, &names[0]).await.expect("the first may go");
    let refused = evict(&cluster, &names[1]).await.expect_err("the second may not");
    let text = refused.to_string();
    assert!(text.contains("Cannot evict pod as it would violate the pod's disruption budget"), "{text}");
    counts(&cluster, "b", (3, 2, 2, 0)).await;
    let pod = cluster.client.namespaced::<Pod>("default").get(&names[0]).await.unwrap();
    let conditions = pod.status.and_then(|s| s.conditions);
    assert!(api::conditions::is_true(&conditions, "DisruptionTarget"), "{conditions:?}");

    // Once a successor is ready, the next may go.
    nodes.resume("n1").await;
    counts(&cluster, "b", (3, 2, 3, 1)).await;
    evict(&cluster, &names[1]).await.expect("the second may go now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_follows_its_pods_and_its_spec() {
    let cluster = Cluster::start().await;
    let _nodes = cluster.nodes(&["n1"]).await;
    cluster.control(cluster.config());
    let budgets = cluster.client.namespaced::<PodDisruptionBudget>("default");
    cluster.create::<PodDisruptionBudget>("default", budget("b", json!({ "minAvailable": "50%" }))).await;
    counts(&cluster, "b", (0, 0, 0, 0)).await;
    cluster.create::<Deployment>("default", web(json!({}))).await;
    counts(&cluster, "b", (3, 2, 3, 1)).await;
    let deployments = cluster.client.namespaced::<Deployment>("default");
    deployments.patch("web", &size(5)).await.unwrap();
    counts(&cluster, "b", (5, 3, 5, 2)).await;
    budgets.patch("b", &Patch::Merge(json!({ "spec": { "minAvailable": 5 } }))).await.unwrap();
    counts(&cluster, "b", (5, 5, 5, 0)).await;

    // A pod beside them whose controller cannot say how many it wants is counted by a budget that names a number.
    let owner = cluster.create::<ConfigMap>("default", json!({ "metadata": { "name": "owner" } })).await;
    let mut alone = json!({ "metadata": { "name": "alone", "labels": { "app": "web" } } });
    alone["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid, "controller": true,
    }]);
    alone["spec"] = json!({ "containers": [{ "name": "c", "image": "v1" }] });
    cluster.create::<Pod>("default", alone).await;
    counts(&cluster, "b", (6, 5, 6, 1)).await;
    // A percentage of what it wants is nothing that can be said, and nothing may be disrupted then.
    budgets.patch("b", &Patch::Merge(json!({ "spec": { "minAvailable": "10%" } }))).await.unwrap();
    eventually("the failure is told", || async {
        let status = budgets.get("b").await?.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        Ok(status.disruptions_allowed == 0 && conditions.iter().any(|c| c.reason == "SyncFailed"))
    })
    .await;
}
