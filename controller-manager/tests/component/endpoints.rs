//! EndpointSlices and Endpoints.

use std::time::Duration;

use api::meta::MetaExt;
use api::openapi::api::apps::v1::Deployment;
use api::openapi::api::core::v1::{Endpoints, Pod, Service};
use api::openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use client::{Informer, ListParams, Patch};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Cluster, eventually, size, web};

fn service(spec: Value) -> Value {
    json!({ "metadata": { "name": "web", "labels": { "team": "a" } }, "spec": spec })
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true)
}

/// The ready addresses of all slices, and those of the Endpoints.
async fn addresses(cluster: &Cluster) -> Result<(usize, usize), client::Error> {
    let slices = cluster.list::<EndpointSlice>("default").await?;
    let of_web = slices.iter().filter(|s| s.label("kubernetes.io/service-name") == Some("web"));
    let ready = of_web.flat_map(|s| &s.endpoints).filter(|e| is_ready(e));
    let endpoints = cluster.client.namespaced::<Endpoints>("default").get_opt("web").await?;
    let subsets = endpoints.and_then(|e| e.subsets).unwrap_or_default();
    let in_subsets = subsets.iter().map(|s| s.addresses.as_ref().map_or(0, Vec::len)).sum();
    Ok((ready.count(), in_subsets))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_follow_the_pods_of_a_service() {
    let cluster = Cluster::start().await;
    let _nodes = cluster.nodes(&["n1", "n2"]).await;
    cluster.control(cluster.config());
    let spec = json!({ "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] });
    cluster.create::<Service>("default", service(spec)).await;
    eventually("there is an empty slice", || async {
        let slices = cluster.list::<EndpointSlice>("default").await?;
        Ok(slices.iter().any(|s| s.metadata.name.as_deref().is_some_and(|n| n.starts_with("web-"))))
    })
    .await;
    cluster.create::<Deployment>("default", web(json!({}))).await;
    cluster.rolled_out("web").await;
    eventually("three are there", || async { Ok(addresses(&cluster).await? == (3, 3)) }).await;

    let slices = cluster.list::<EndpointSlice>("default").await.unwrap();
    let slice = slices.iter().find(|s| s.label("kubernetes.io/service-name") == Some("web")).unwrap();
    assert_eq!(
        slice.label("endpointslice.kubernetes.io/managed-by"),
        Some("endpointslice-controller.k8s.io")
    );
    assert_eq!(slice.label("team"), Some("a"));
    assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));
    assert!(slice.annotation("endpoints.kubernetes.io/last-change-trigger-time").is_some());
    assert_eq!(slice.controller().map(|o| o.kind.as_str()), Some("Service"));
    let endpoint = &slice.endpoints[0];
    assert!(
        endpoint.node_name.is_some() && endpoint.target_ref.as_ref().unwrap().kind.as_deref() == Some("Pod")
    );

    // A pod that stops being ready is out of the slice at once.
    let changes = Informer::new(cluster.client.namespaced::<EndpointSlice>("default"), ListParams::default());
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    changes.start(&cluster.tasks.spawner());
    changes.synced().await;
    changes.on_change(move |change| {
        let endpoints = &change.object().endpoints;
        let ready = endpoints.iter().filter(|e| is_ready(e)).count();
        let _ = sender.send((ready, Instant::now()));
    });
    let pods = cluster.pods().await.unwrap();
    let mut pod = pods[0].clone();
    pod.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "False".into();
    let began = Instant::now();
    cluster.client.namespaced::<Pod>("default").update_status(&pod).await.unwrap();
    let wait = async {
        loop {
            if let Some((2, at)) = receiver.recv().await {
                return at;
            }
        }
    };
    let at = tokio::time::timeout(Duration::from_secs(5), wait).await.expect("the slice changes");
    println!("a pod's readiness is in the slice after {:?}", at - began);

    cluster.client.namespaced::<Deployment>("default").patch("web", &size(0)).await.unwrap();
    eventually("none is there", || async { Ok(addresses(&cluster).await? == (0, 0)) }).await;
    let services = cluster.client.namespaced::<Service>("default");
    services.delete("web", &Default::default()).await.unwrap();
    eventually("what belonged to the service is gone", || async {
        let slices = cluster.list::<EndpointSlice>("default").await?;
        let endpoints = cluster.client.namespaced::<Endpoints>("default").get_opt("web").await?;
        Ok(endpoints.is_none() && slices.iter().all(|s| s.label("kubernetes.io/service-name") != Some("web")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_stand_in_several_slices() {
    let cluster = Cluster::start().await;
    let _nodes = cluster.nodes(&["n1", "n2"]).await;
    let mut config = cluster.config();
    config.max_endpoints_per_slice = 10;
    cluster.control(config);
    let spec = json!({ "selector": { "app": "web" }, "clusterIP": "None" });
    cluster.create::<Service>("default", service(spec)).await;
    cluster.create::<Deployment>("default", web(json!({ "spec": { "replicas": 35 } }))).await;
    cluster.rolled_out("web").await;
    eventually("all are there", || async { Ok(addresses(&cluster).await?.0 == 35) }).await;
    let slices = cluster.list::<EndpointSlice>("default").await.unwrap();
    let of_web: Vec<_> =
        slices.iter().filter(|s| s.label("service.kubernetes.io/headless").is_some()).collect();
    assert!(of_web.len() >= 4 && of_web.iter().all(|s| s.endpoints.len() <= 10));
    let mut uids: Vec<_> =
        of_web.iter().flat_map(|s| &s.endpoints).map(|e| e.target_ref.clone().unwrap().uid).collect();
    uids.sort();
    uids.dedup();
    assert_eq!(uids.len(), 35, "no pod stands twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_without_a_selector_is_left_alone() {
    let cluster = Cluster::start().await;
    cluster.control(cluster.config());
    cluster.create::<Service>("default", service(json!({ "ports": [{ "port": 80 }] }))).await;
    let own = json!({
        "metadata": { "name": "web" },
        "subsets": [{ "addresses": [{ "ip": "192.0.2.7" }], "ports": [{ "port": 80 }] }],
    });
    let own = cluster.create::<Endpoints>("default", own).await;
    // When a later Service has been dealt with, this one has been as well.
    let marker = json!({ "metadata": { "name": "later" }, "spec": { "selector": { "a": "b" }, "ports": [{ "port": 1 }] } });
    cluster.create::<Service>("default", marker).await;
    let endpoints = cluster.client.namespaced::<Endpoints>("default");
    eventually("the later one has endpoints", || async { Ok(endpoints.get_opt("later").await?.is_some()) })
        .await;
    assert_eq!(endpoints.get("web").await.unwrap(), own);
    let relabel = Patch::Merge(json!({ "metadata": { "labels": { "touched": "yes" } } }));
    cluster.client.namespaced::<Service>("default").patch("web", &relabel).await.unwrap();
    cluster.client.namespaced::<Service>("default").delete("web", &Default::default()).await.unwrap();
    cluster.client.namespaced::<Service>("default").delete("later", &Default::default()).await.unwrap();
    eventually("the later one's are gone", || async { Ok(endpoints.get_opt("later").await?.is_none()) })
        .await;
    assert!(endpoints.get_opt("web").await.unwrap().is_some(), "they are their maker's");
}
