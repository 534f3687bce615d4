//! Garbage collection, namespaces and what every namespace is given.

use api::Object;
use api::kinds::custom::served;
use api::meta::MetaExt;
use api::openapi::api::apps::v1::{Deployment, ReplicaSet};
use api::openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, ServiceAccount};
use api::openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use api::openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use client::{ListParams, Patch};
use serde_json::json;

use crate::support::{Cluster, eventually, web};

fn propagation(policy: &str) -> DeleteOptions {
    DeleteOptions { propagation_policy: Some(policy.into()), ..DeleteOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_reaches_the_dependents_as_it_was_asked_to() {
    let cluster = Cluster::start().await;
    let _nodes = cluster.nodes(&["n1"]).await;
    cluster.control(cluster.config());
    let deployments = cluster.client.namespaced::<Deployment>("default");
    let all_gone = || async {
        let sets = cluster.list::<ReplicaSet>("default").await?;
        Ok(sets.is_empty() && cluster.list::<Pod>("default").await?.is_empty())
    };

    cluster.create::<Deployment>("default", web(json!({}))).await;
    cluster.rolled_out("web").await;
    deployments.delete("web", &propagation("Background")).await.unwrap();
    eventually("all is gone in the background", all_gone).await;

    cluster.create::<Deployment>("default", web(json!({}))).await;
    cluster.rolled_out("web").await;
    let gone = deployments.delete("web", &propagation("Foreground")).await.unwrap();
    assert!(!gone, "it waits for its dependents");
    eventually("the owner goes last", || async { Ok(deployments.get_opt("web").await?.is_none()) }).await;
    assert!(all_gone().await.unwrap());

    cluster.create::<Deployment>("default", web(json!({}))).await;
    cluster.rolled_out("web").await;
    deployments.delete("web", &propagation("Orphan")).await.unwrap();
    eventually("the owner goes alone", || async { Ok(deployments.get_opt("web").await?.is_none()) }).await;
    let sets = cluster.list::<ReplicaSet>("default").await.unwrap();
    assert_eq!(sets.len(), 1);
    assert!(sets[0].controller().is_none());
    assert_eq!(cluster.pods().await.unwrap().len(), 3);
    // A new Deployment takes them over.
    cluster.create::<Deployment>("default", web(json!({}))).await;
    let adopted = || async { Ok(cluster.list::<ReplicaSet>("default").await?[0].controller().is_some()) };
    eventually("they are adopted", adopted).await;
    cluster.rolled_out("web").await;
    assert_eq!(cluster.list::<ReplicaSet>("default").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_are_verified_before_anything_is_deleted() {
    let cluster = Cluster::start().await;
    cluster.control(cluster.config());
    let owner = cluster.create::<ConfigMap>("default", json!({ "metadata": { "name": "owner" } })).await;
    let owned_by = |name: &str, owners: serde_json::Value| json!({ "metadata": { "name": name, "ownerReferences": owners } });
    let reference =
        |name: &str, uid: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid });
    let real = reference("owner", owner.uid());
    let wrong_uid = reference("owner", "0000");
    let missing = reference("missing", "1111");
    let unknown = json!({ "apiVersion": "example.com/v1", "kind": "Thing", "name": "x", "uid": "2222" });
    cluster.create::<Secret>("default", owned_by("kept", json!([real]))).await;
    cluster.create::<Secret>("default", owned_by("shared", json!([real, missing]))).await;
    cluster.create::<Secret>("default", owned_by("unknown", json!([unknown]))).await;
    cluster.create::<Secret>("default", owned_by("dangling", json!([missing]))).await;
    cluster.create::<Secret>("default", owned_by("mistaken", json!([wrong_uid]))).await;
    cluster.create::<Secret>("kube-public", owned_by("elsewhere", json!([real]))).await;
    let secrets = cluster.client.namespaced::<Secret>("default");
    let elsewhere = cluster.client.namespaced::<Secret>("kube-public");
    eventually("what has no owner is gone", || async {
        let gone = [secrets.get_opt("dangling").await?, secrets.get_opt("mistaken").await?];
        let gone_elsewhere = elsewhere.get_opt("elsewhere").await?.is_none();
        let shared = secrets.get("shared").await?.metadata.owner_references.unwrap_or_default();
        Ok(gone.iter().all(Option::is_none) && gone_elsewhere && shared.len() == 1)
    })
    .await;
    assert!(secrets.get_opt("kept").await.unwrap().is_some());
    assert!(secrets.get_opt("unknown").await.unwrap().is_some());
    let maps = cluster.client.namespaced::<ConfigMap>("default");
    maps.delete("owner", &DeleteOptions::default()).await.unwrap();
    eventually("the rest goes with its owner", || async {
        Ok(secrets.get_opt("kept").await?.is_none() && secrets.get_opt("shared").await?.is_none())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_gets_its_account_and_certificates_and_goes_with_all_its_content() {
    let cluster = Cluster::start().await;
    let _nodes = cluster.nodes(&["n1"]).await;
    cluster.control(cluster.config());
    let namespaces = cluster.client.all::<Namespace>();
    let created = serde_json::from_value(json!({ "metadata": { "name": "shop" } })).unwrap();
    namespaces.create(&created).await.unwrap();
    let accounts = cluster.client.namespaced::<ServiceAccount>("shop");
    let maps = cluster.client.namespaced::<ConfigMap>("shop");
    eventually("it is furnished", || async {
        let certificates = maps.get_opt("kube-root-ca.crt").await?;
        let published = certificates.and_then(|m| m.data).is_some_and(|d| d["ca.crt"] == "certificates");
        Ok(published && accounts.get_opt("default").await?.is_some())
    })
    .await;
    accounts.delete("default", &DeleteOptions::default()).await.unwrap();
    eventually("the account comes back", || async { Ok(accounts.get_opt("default").await?.is_some()) }).await;
    let emptied = Patch::Merge(json!({ "data": { "ca.crt": "forged" } }));
    maps.patch("kube-root-ca.crt", &emptied).await.unwrap();
    eventually("the certificates are restored", || async {
        let map = maps.get("kube-root-ca.crt").await?;
        Ok(map.data.is_some_and(|d| d["ca.crt"] == "certificates"))
    })
    .await;

    cluster.create::<Deployment>("shop", web(json!({}))).await;
    let held = json!({ "metadata": { "name": "held", "finalizers": ["example.com/hold"] } });
    cluster.create::<ConfigMap>("shop", held).await;
    eventually("pods are there", || async { Ok(cluster.list::<Pod>("shop").await?.len() == 3) }).await;
    namespaces.delete("shop", &DeleteOptions::default()).await.unwrap();
    eventually("only what is held remains", || async {
        let status = namespaces.get("shop").await?.status.unwrap_or_default();
        let held = api::conditions::find(&status.conditions, "NamespaceFinalizersRemaining");
        let told =
            held.is_some_and(|c| c.message.as_deref().is_some_and(|m| m.contains("example.com/hold in 1")));
        Ok(told
            && cluster.list::<Pod>("shop").await?.is_empty()
            && cluster.list::<ConfigMap>("shop").await?.len() == 1)
    })
    .await;
    let release = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    maps.patch("held", &release).await.unwrap();
    eventually("the namespace is gone", || async { Ok(namespaces.get_opt("shop").await?.is_none()) }).await;
    assert!(cluster.list::<Deployment>("shop").await.unwrap().is_empty());
    assert!(cluster.list::<ServiceAccount>("shop").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources_are_owners_and_go_with_their_namespace() {
    let cluster = Cluster::start().await;
    cluster.control(cluster.config());
    let definition = json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "boats.example.com" }, "spec": { "group": "example.com", "scope": "Namespaced",
            "names": { "plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList" },
            "versions": [{ "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object" } } }] } });
    let definition: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
    let definitions = cluster.client.all::<CustomResourceDefinition>();
    definitions.create(&definition).await.unwrap();
    eventually("the kind is served", || async {
        let Some(row) = served(&definitions.get("boats.example.com").await?) else { return Ok(false) };
        Ok(cluster.client.dynamic(row, "default").list(&ListParams::default()).await.is_ok())
    })
    .await;
    let row = served(&definitions.get("boats.example.com").await.unwrap()).expect("it is established");
    let boats = cluster.client.dynamic(row, "default");
    let boat = boats.create(&Object::named(row, "default", "a")).await.unwrap();
    let owner = json!({ "apiVersion": "example.com/v1", "kind": "Boat", "name": "a", "uid": boat.uid() });
    let owned = json!({ "metadata": { "name": "oars", "ownerReferences": [owner] } });
    cluster.create::<ConfigMap>("default", owned).await;
    boats.delete("a", &propagation("Background")).await.unwrap();
    let maps = cluster.client.namespaced::<ConfigMap>("default");
    eventually("what the boat owned is gone", || async { Ok(maps.get_opt("oars").await?.is_none()) }).await;

    let namespaces = cluster.client.all::<Namespace>();
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": "harbour" } })).unwrap();
    namespaces.create(&namespace).await.unwrap();
    let harbour = cluster.client.dynamic(row, "harbour");
    harbour.create(&Object::named(row, "harbour", "b")).await.unwrap();
    namespaces.delete("harbour", &DeleteOptions::default()).await.unwrap();
    eventually("the namespace is gone", || async { Ok(namespaces.get_opt("harbour").await?.is_none()) })
        .await;
    assert!(harbour.get_opt("b").await.unwrap().is_none(), "its boats went before it");
}
