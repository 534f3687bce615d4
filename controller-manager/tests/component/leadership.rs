//! Only the leader works; another takes over; losing it ends nothing.

use std::time::Duration;

use api::openapi::api::apps::v1::Deployment;
use api::openapi::api::coordination::v1::Lease;
use serde_json::json;

use crate::support::{Census, Cluster, eventually, size, web};

async fn leader(cluster: &Cluster) -> Result<String, client::Error> {
    let leases = cluster.client.namespaced::<Lease>("kube-system");
    let lease = leases.get_opt("kube-controller-manager").await?;
    Ok(lease.and_then(|l| l.spec?.holder_identity).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_instance_takes_over() {
    let cluster = Cluster::start().await;
    let _nodes = cluster.nodes(&["n1"]).await;
    let start = |identity: &str| {
        let mut config = cluster.config();
        config.leader = Some(cluster.leader(identity));
        cluster.control(config)
    };
    let first = start("first");
    eventually("the first leads", || async { Ok(leader(&cluster).await? == "first") }).await;
    let _second = start("second");
    cluster.create::<Deployment>("default", web(json!({}))).await;
    cluster.rolled_out("web").await;
    assert_eq!(leader(&cluster).await.unwrap(), "first");
    first.cancel();
    eventually("the second leads", || async { Ok(leader(&cluster).await? == "second") }).await;
    cluster.client.namespaced::<Deployment>("default").patch("web", &size(7)).await.unwrap();
    cluster.rolled_out("web").await;
    assert_eq!(cluster.pods().await.unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_loses_the_api_server_steps_down_and_leads_again() {
    let mut cluster = Cluster::start().await;
    let _nodes = cluster.nodes(&["n1"]).await;
    let mut config = cluster.config();
    config.leader = Some(cluster.leader("only"));
    let token = cluster.control(config);
    cluster.create::<Deployment>("default", web(json!({}))).await;
    cluster.rolled_out("web").await;
    // Longer than the renew deadline.
    cluster.restart_apiserver(Duration::from_secs(4)).await;
    assert!(!token.is_cancelled());
    cluster.client.namespaced::<Deployment>("default").patch("web", &size(9)).await.unwrap();
    cluster.rolled_out("web").await;
    assert_eq!(cluster.pods().await.unwrap().len(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_dies_in_the_middle_costs_nothing() {
    let mut cluster = Cluster::start().await;
    let _nodes = cluster.nodes(&["n1", "n2"]).await;
    let token = cluster.control(cluster.config());
    let census = Census::start(&cluster).await;
    cluster.create::<Deployment>("default", web(json!({ "spec": { "replicas": 150 } }))).await;
    for round in 1..4 {
        let enough = 40 * round;
        eventually("some pods are made", || async { Ok(cluster.pods().await?.len() >= enough) }).await;
        cluster.restart_apiserver(Duration::from_millis(100)).await;
    }
    cluster.rolled_out("web").await;
    assert_eq!(cluster.pods().await.unwrap().len(), 150);
    assert_eq!(census.most(), 150, "not one too many at any time");
    assert!(!token.is_cancelled());
}
