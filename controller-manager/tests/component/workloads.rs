//! Deployments and ReplicaSets.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::meta::MetaExt;
use api::openapi::api::apps::v1::{Deployment, ReplicaSet};
use api::openapi::api::core::v1::{Event, Pod};
use client::{Informer, ListParams, Patch};
use component::tasks::lock;
use serde_json::json;

use crate::support::{Census, Cluster, eventually, image, size, web};

fn condition(deployment: &Deployment, type_: &str) -> (String, String) {
    let conditions = deployment.status.as_ref().and_then(|s| s.conditions.clone());
    let condition = api::conditions::find(&conditions, type_);
    condition.map(|c| (c.status.clone(), c.reason.clone().unwrap_or_default())).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_out_and_back_within_its_bounds() {
    let cluster = Cluster::start().await;
    let _nodes = cluster.nodes(&["n1", "n2"]).await;
    cluster.control(cluster.config());
    let annotated = json!({ "metadata": { "annotations": { "kubernetes.io/change-cause": "first" } } });
    cluster.create::<Deployment>("default", web(annotated)).await;
    let first = cluster.rolled_out("web").await;
    assert_eq!(first.annotation("deployment.kubernetes.io/revision"), Some("1"));
    assert_eq!(condition(&first, "Available"), ("True".into(), "MinimumReplicasAvailable".into()));
    eventually("progress is told", || async {
        let now = cluster.client.namespaced::<Deployment>("default").get("web").await?;
        Ok(condition(&now, "Progressing") == ("True".into(), "NewReplicaSetAvailable".into()))
    })
    .await;

    let census = Census::start(&cluster).await;
    let deployments = cluster.client.namespaced::<Deployment>("default");
    deployments.patch("web", &image("v2")).await.unwrap();
    let second = cluster.rolled_out("web").await;
    assert_eq!(second.annotation("deployment.kubernetes.io/revision"), Some("2"));
    assert_eq!(cluster.sets().await.unwrap(), [("v1".into(), 0), ("v2".into(), 3)]);

    deployments.patch("web", &image("v1")).await.unwrap();
    let third = cluster.rolled_out("web").await;
    assert_eq!(third.annotation("deployment.kubernetes.io/revision"), Some("3"));
    assert_eq!(
        cluster.sets().await.unwrap(),
        [("v1".into(), 3), ("v2".into(), 0)],
        "the old set is used again"
    );
    // 25 % of three: one more may exist, and none may be missing.
    assert!(census.most() <= 4, "{} pods at a time", census.most());
    assert!(census.fewest_ready() >= 3, "only {} pods ready at a time", census.fewest_ready());
    assert_eq!(census.pods.store().list().iter().filter(|p| !p.is_deleting()).count(), 3);

    eventually("the scaling is told", || async {
        let events = cluster.list::<Event>("default").await?;
        let told = |text: &str| {
            let of = |e: &&Event| e.reason.as_deref() == Some("ScalingReplicaSet");
            events.iter().filter(of).any(|e| e.message.as_deref().is_some_and(|m| m.ends_with(text)))
        };
        Ok(told("from 0 to 3") && told("from 0 to 1") && told("from 1 to 0"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_image_stalls_and_the_old_pods_go_on() {
    let cluster = Cluster::start().await;
    let _nodes = cluster.nodes(&["n1", "n2"]).await;
    cluster.control(cluster.config());
    cluster.create::<Deployment>("default", web(json!({ "spec": { "progressDeadlineSeconds": 2 } }))).await;
    cluster.rolled_out("web").await;
    let census = Census::start(&cluster).await;
    let deployments = cluster.client.namespaced::<Deployment>("default");
    deployments.patch("web", &image("bad")).await.unwrap();
    eventually("the deadline passes", || async {
        let now = deployments.get("web").await?;
        Ok(condition(&now, "Progressing") == ("False".into(), "ProgressDeadlineExceeded".into()))
    })
    .await;
    assert_eq!(cluster.sets().await.unwrap(), [("bad".into(), 1), ("v1".into(), 3)]);
    assert_eq!(census.fewest_ready(), 3);
    deployments.patch("web", &image("v1")).await.unwrap();
    cluster.rolled_out("web").await;
    eventually("it recovers", || async {
        let now = deployments.get("web").await?;
        Ok(condition(&now, "Progressing").1 == "NewReplicaSetAvailable")
    })
    .await;
    assert_eq!(cluster.sets().await.unwrap(), [("bad".into(), 0), ("v1".into(), 3)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recreate_never_runs_two_templates_at_once() {
    let cluster = Cluster::start().await;
    let _nodes = cluster.nodes(&["n1", "n2"]).await;
    cluster.control(cluster.config());
    cluster
        .create::<Deployment>("default", web(json!({ "spec": { "strategy": { "type": "Recreate" } } })))
        .await;
    cluster.rolled_out("web").await;
    let pods = Informer::new(cluster.client.namespaced::<Pod>("default"), ListParams::default());
    pods.start(&cluster.tasks.spawner());
    pods.synced().await;
    let mixed = Arc::new(Mutex::new(false));
    let (store, m) = (pods.store(), mixed.clone());
    pods.on_change(move |_| {
        let image = |p: &Arc<Pod>| p.spec.as_ref().and_then(|s| s.containers[0].image.clone());
        let images: BTreeSet<_> = store.list().iter().map(image).collect();
        *lock(&m) |= images.len() > 1;
    });
    cluster.client.namespaced::<Deployment>("default").patch("web", &image("v2")).await.unwrap();
    cluster.rolled_out("web").await;
    assert!(!*lock(&mixed));
    assert_eq!(cluster.sets().await.unwrap(), [("v1".into(), 0), ("v2".into(), 3)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_as_many_pods_are_made_as_were_asked_for() {
    let cluster = Cluster::start().await;
    let _nodes = cluster.nodes(&["n1", "n2"]).await;
    cluster.control(cluster.config());
    let census = Census::start(&cluster).await;
    let made = Arc::new(Mutex::new(BTreeSet::new()));
    let m = made.clone();
    census.pods.on_change(move |change| {
        lock(&m).insert(change.object().uid().to_owned());
    });
    cluster.create::<Deployment>("default", web(json!({ "spec": { "replicas": 60 } }))).await;
    cluster.rolled_out("web").await;
    let deployments = cluster.client.namespaced::<Deployment>("default");
    deployments.patch("web", &size(5)).await.unwrap();
    cluster.rolled_out("web").await;
    deployments.patch("web", &size(40)).await.unwrap();
    cluster.rolled_out("web").await;
    assert_eq!(census.most(), 60);
    assert_eq!(lock(&made).len(), 60 + 35);
    deployments.patch("web", &size(0)).await.unwrap();
    eventually("all pods are gone", || async { Ok(cluster.list::<Pod>("default").await?.is_empty()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_goes_on_where_it_was() {
    let cluster = Cluster::start().await;
    let _nodes = cluster.nodes(&["n1", "n2"]).await;
    cluster.create::<Deployment>("default", web(json!({ "spec": { "replicas": 80 } }))).await;
    for round in 0..4 {
        let mut process = cluster.control_by_process(&format!("kcm-{round}"));
        // Long enough to begin, too short to end.
        let enough = 15 * (round + 1);
        eventually("some pods are made", || async { Ok(cluster.pods().await?.len() >= enough) }).await;
        process.kill();
    }
    let _process = cluster.control_by_process("kcm-last");
    cluster.rolled_out("web").await;
    assert_eq!(cluster.pods().await.unwrap().len(), 80);
    assert_eq!(cluster.sets().await.unwrap(), [("v1".into(), 80)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_adopted_and_released_by_their_labels() {
    let cluster = Cluster::start().await;
    let _nodes = cluster.nodes(&["n1"]).await;
    cluster.control(cluster.config());
    let bare = json!({
        "metadata": { "name": "bare", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": "v1" }] },
    });
    cluster.create::<Pod>("default", bare).await;
    let set = json!({
        "metadata": { "name": "set" },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": "v1" }] },
            },
        },
    });
    let set = cluster.create::<ReplicaSet>("default", set).await;
    let pods = cluster.client.namespaced::<Pod>("default");
    eventually("the pod is adopted and one more is made", || async {
        let bare = pods.get("bare").await?;
        Ok(bare.is_controlled_by(set.uid()) && cluster.pods().await?.len() == 2)
    })
    .await;
    let relabel = Patch::Merge(json!({ "metadata": { "labels": { "app": "debug" } } }));
    pods.patch("bare", &relabel).await.unwrap();
    eventually("the pod is released and replaced", || async {
        let bare = pods.get("bare").await?;
        Ok(bare.controller().is_none() && cluster.pods().await?.len() == 3)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_count_as_available_after_min_ready_seconds() {
    let cluster = Cluster::start().await;
    let _nodes = cluster.nodes(&["n1"]).await;
    cluster.control(cluster.config());
    cluster.create::<Deployment>("default", web(json!({ "spec": { "minReadySeconds": 3 } }))).await;
    let deployments = cluster.client.namespaced::<Deployment>("default");
    eventually("all are ready", || async {
        let status = deployments.get("web").await?.status.unwrap_or_default();
        Ok(status.ready_replicas == Some(3))
    })
    .await;
    let status = deployments.get("web").await.unwrap().status.unwrap();
    assert_eq!(status.available_replicas, None);
    let began = tokio::time::Instant::now();
    cluster.rolled_out("web").await;
    assert!(began.elapsed() > Duration::from_secs(1), "available after {:?}", began.elapsed());
}
