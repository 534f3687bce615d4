//! ResourceQuotas: what is counted, and that what goes gives its share back.

use api::openapi::api::core::v1::{ConfigMap, ResourceQuota};
use api::openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::json;

use crate::support::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_counts_what_is_there_and_what_goes_gives_back() {
    let cluster = Cluster::start().await;
    cluster.control(cluster.config());
    // The controller of certificates makes a ConfigMap of its own in every namespace.
    let maps = cluster.client.namespaced::<ConfigMap>("default");
    eventually("certificates are published", || async {
        Ok(maps.get_opt("kube-root-ca.crt").await?.is_some())
    })
    .await;
    cluster.create::<ConfigMap>("default", json!({ "metadata": { "name": "a" } })).await;
    let quota =
        json!({ "metadata": { "name": "q" }, "spec": { "hard": { "configmaps": "3", "pods": "2" } } });
    cluster.create::<ResourceQuota>("default", quota).await;
    let quotas = cluster.client.namespaced::<ResourceQuota>("default");
    let counted = |wanted: &'static str| {
        let quotas = quotas.clone();
        move || {
            let quotas = quotas.clone();
            async move {
                let status = quotas.get("q").await?.status.unwrap_or_default();
                let used = status.used.unwrap_or_default();
                let zero = used.get("pods").is_some_and(|q| q.0 == "0");
                Ok(zero && used.get("configmaps").is_some_and(|q| q.0 == wanted))
            }
        }
    };
    eventually("what is there is counted", counted("2")).await;
    cluster.create::<ConfigMap>("default", json!({ "metadata": { "name": "b" } })).await;
    let one_more = serde_json::from_value(json!({ "metadata": { "name": "c" } })).unwrap();
    let refused = maps.create(&one_more).await.expect_err("the quota is used up");
    assert!(refused.to_string().contains("exceeded quota: q"), "{refused}");
    maps.delete("b", &DeleteOptions::default()).await.unwrap();
    eventually("what went is given back", counted("2")).await;
    maps.create(&one_more).await.unwrap();
    eventually("what came is counted", counted("3")).await;
}
