//! Deletion: grace, finalizers, preconditions, propagation, collections, namespaces.

use serde_json::{Value, json};

use api::Kind;

use crate::samples::sample;
use crate::support::{Server, block_on, text};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    sample(Kind::find("", "Pod").unwrap(), name)
}

#[test]
fn a_scheduled_pod_waits_for_its_kubelet_and_an_unscheduled_one_goes() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        http.create(PODS, pod("free")).await;
        assert_eq!(text(&http.delete(&format!("{PODS}/free"), "").await.1, "/status"), "Success");
        assert_eq!(http.get(&format!("{PODS}/free")).await.0, 404);
        let mut bound = pod("bound");
        bound["spec"]["nodeName"] = "n1".into();
        http.create(PODS, bound).await;
        let one = format!("{PODS}/bound");
        let (code, marked) = http.delete(&one, "").await;
        assert_eq!((code, &marked["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(30)), "{marked}");
        let (_, shorter) = http.delete(&one, r#"{"gracePeriodSeconds": 5}"#).await;
        assert_eq!(&shorter["metadata"]["deletionGracePeriodSeconds"], &json!(5), "{shorter}");
        let (_, longer) = http.delete(&one, r#"{"gracePeriodSeconds": 50}"#).await;
        assert_eq!(longer["metadata"], shorter["metadata"]);
        let kubelet = server.http("n1");
        let (code, gone) = kubelet.delete(&one, r#"{"gracePeriodSeconds": 0}"#).await;
        assert_eq!((code, text(&gone, "/status")), (200, "Success"), "{gone}");
        assert_eq!(http.get(&one).await.0, 404);
    });
}

#[test]
fn finalizers_hold_an_object_until_the_last_is_gone() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let one = format!("{MAPS}/f");
        http.create(
            MAPS,
            json!({"metadata": {"name": "f", "finalizers": ["example.com/a", "example.com/b"]}}),
        )
        .await;
        let (code, marked) = http.delete(&one, "").await;
        assert_eq!(code, 200);
        assert!(!text(&marked, "/metadata/deletionTimestamp").is_empty(), "{marked}");
        let (code, error) = http
            .patch(&one, "merge", &json!({"metadata": {"finalizers": ["example.com/a", "example.com/c"]}}))
            .await;
        assert_eq!((code, text(&error, "/details/causes/0/field")), (422, "metadata.finalizers"), "{error}");
        assert_eq!(
            http.patch(&one, "merge", &json!({"metadata": {"finalizers": ["example.com/b"]}})).await.0,
            200
        );
        assert_eq!(http.get(&one).await.0, 200);
        assert_eq!(http.patch(&one, "merge", &json!({"metadata": {"finalizers": null}})).await.0, 200);
        assert_eq!(http.get(&one).await.0, 404);
    });
}

#[test]
fn propagation_is_left_to_the_garbage_collector_as_finalizers() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
            http.create(MAPS, json!({"metadata": {"name": finalizer.to_lowercase()}})).await;
            let one = format!("{MAPS}/{}", finalizer.to_lowercase());
            let (code, marked) = http.delete(&format!("{one}?propagationPolicy={policy}"), "").await;
            assert_eq!((code, text(&marked, "/metadata/finalizers/0")), (200, finalizer), "{marked}");
        }
        http.create(MAPS, json!({"metadata": {"name": "background"}})).await;
        let (_, gone) =
            http.delete(&format!("{MAPS}/background"), r#"{"propagationPolicy":"Background"}"#).await;
        assert_eq!(text(&gone, "/status"), "Success");
        let (code, _) = http.delete(&format!("{MAPS}/orphan"), r#"{"propagationPolicy":"Sideways"}"#).await;
        assert_eq!(code, 422);
    });
}

#[test]
fn preconditions_guard_a_deletion() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let a = http.create(MAPS, json!({"metadata": {"name": "a"}})).await;
        let one = format!("{MAPS}/a");
        let (code, error) = http.delete(&one, r#"{"preconditions":{"uid":"other"}}"#).await;
        assert_eq!((code, text(&error, "/reason")), (409, "Conflict"), "{error}");
        let (code, _) = http.delete(&one, r#"{"preconditions":{"resourceVersion":"1"}}"#).await;
        assert_eq!(code, 409);
        let uid = text(&a, "/metadata/uid");
        assert_eq!(http.delete(&one, &json!({"preconditions": {"uid": uid}}).to_string()).await.0, 200);
    });
}

#[test]
fn a_collection_is_deleted_by_selector() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        for (name, color) in [("a", "red"), ("b", "blue"), ("c", "red")] {
            http.create(MAPS, json!({"metadata": {"name": name, "labels": {"color": color}}})).await;
        }
        let (code, list) = http.delete(&format!("{MAPS}?labelSelector=color%3Dred"), "").await;
        assert_eq!((code, list["items"].as_array().map(Vec::len)), (200, Some(2)), "{list}");
        let (_, left) = http.get(MAPS).await;
        assert_eq!(text(&left, "/items/0/metadata/name"), "b");
        assert_eq!(http.delete("/api/v1/configmaps", "").await.0, 405);
    });
}

#[test]
fn a_namespace_is_terminated_and_finalized() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let one = "/api/v1/namespaces/mine";
        let created = http.create("/api/v1/namespaces", json!({"metadata": {"name": "mine"}})).await;
        assert_eq!(
            (text(&created, "/status/phase"), text(&created, "/spec/finalizers/0")),
            ("Active", "kubernetes")
        );
        let (code, error) = http.delete("/api/v1/namespaces/default", "").await;
        assert_eq!((code, text(&error, "/reason")), (403, "Forbidden"), "{error}");
        let (code, marked) = http.delete(one, "").await;
        assert_eq!((code, text(&marked, "/status/phase")), (200, "Terminating"), "{marked}");
        let (code, error) =
            http.post(&format!("{one}/configmaps"), &json!({"metadata": {"name": "late"}})).await;
        assert_eq!(
            (code, text(&error, "/details/causes/0/reason")),
            (403, "NamespaceTerminating"),
            "{error}"
        );
        let mut finalized = marked.clone();
        finalized["spec"]["finalizers"] = json!([]);
        let (code, value) = http.put(&format!("{one}/finalize"), &finalized).await;
        assert_eq!(code, 200, "{value}");
        assert_eq!(http.get(one).await.0, 404);
        let (code, error) =
            http.post(&format!("{one}/configmaps"), &json!({"metadata": {"name": "late"}})).await;
        assert_eq!((code, text(&error, "/message")), (404, "namespaces \"mine\" not found"));
    });
}
