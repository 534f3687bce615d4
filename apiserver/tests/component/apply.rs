//! Server-side apply and the managers of fields, over REST and over gRPC.

use http::Method;
use serde_json::{Value, json};

use crate::samples::sample;
use crate::support::{Http, Server, block_on, text};
use api::Kind;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

async fn apply(http: &Http, path: &str, manager: &str, body: &Value) -> (u16, Value) {
    let separator = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{separator}fieldManager={manager}");
    http.call(Method::PATCH, &path, "application/apply-patch+yaml", body.to_string()).await
}

/// The entry of a manager.
fn entry<'a>(object: &'a Value, manager: &str, operation: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().map_or(&[][..], Vec::as_slice);
    let found = entries.iter().find(|e| e["manager"] == manager && e["operation"] == operation);
    found.unwrap_or_else(|| panic!("{manager} {operation} is not among {entries:?}"))
}

#[test]
fn an_apply_creates_changes_and_prunes() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let one = format!("{MAPS}/a");
        let (code, created) = apply(&http, &one, "one", &map("a", json!({"x": "1", "y": "1"}))).await;
        assert_eq!(code, 201, "{created}");
        assert_eq!(entry(&created, "one", "Apply")["fieldsV1"], json!({"f:data": {"f:x": {}, "f:y": {}}}));
        assert_eq!(entry(&created, "one", "Apply")["apiVersion"], "v1");
        // Nothing to do: nothing is written.
        let (code, same) = apply(&http, &one, "one", &map("a", json!({"x": "1", "y": "1"}))).await;
        assert_eq!((code, &same), (200, &created));
        let (code, conflict) = apply(&http, &one, "two", &map("a", json!({"x": "2"}))).await;
        assert_eq!((code, text(&conflict, "/reason")), (409, "Conflict"), "{conflict}");
        assert_eq!(conflict["message"], "Apply failed with 1 conflict: conflict with \"one\": .data.x");
        assert_eq!(
            conflict["details"]["causes"],
            json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.x"}])
        );
        let (code, forced) =
            apply(&http, &format!("{one}?force=true"), "two", &map("a", json!({"x": "2"}))).await;
        assert_eq!((code, &forced["data"]), (200, &json!({"x": "2", "y": "1"})), "{forced}");
        let (code, pruned) = apply(&http, &one, "one", &map("a", json!({}))).await;
        assert_eq!((code, &pruned["data"]), (200, &json!({"x": "2"})), "{pruned}");
        let (_, dry) = apply(&http, &format!("{one}?dryRun=All"), "two", &map("a", json!({"z": "2"}))).await;
        assert_eq!(dry["data"], json!({"z": "2"}));
        let (_, got) = http.get(&one).await;
        assert_eq!(got, pruned);
        // What asks for too little or too much.
        let (code, error) = http
            .call(Method::PATCH, &one, "application/apply-patch+yaml", map("a", json!({})).to_string())
            .await;
        assert_eq!(code, 422, "{error}");
        assert_eq!(
            error["message"],
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
        );
        let mut wrong = map("a", json!({}));
        wrong["foo"] = 1.into();
        let (code, error) = apply(&http, &one, "one", &wrong).await;
        assert_eq!(code, 400, "{error}");
        assert_eq!(
            error["message"],
            "failed to create typed patch object (default/a; v1, Kind=ConfigMap): .foo: field not declared in schema"
        );
        let mut wrong = map("a", json!({}));
        wrong["metadata"]["managedFields"] = json!([{}]);
        assert_eq!(
            apply(&http, &one, "one", &wrong).await.1["message"],
            "metadata.managedFields must be nil"
        );
        assert_eq!(apply(&http, &one, "one", &map("b", json!({}))).await.0, 400);
        let (code, _) = apply(
            &http,
            &format!("{DEPLOYMENTS}/none/status"),
            "one",
            &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "none"}}),
        )
        .await;
        assert_eq!(code, 404);
        // Whoever may patch but not create, makes nothing.
        assert_eq!(
            apply(&server.http("nobody"), &format!("{MAPS}/c"), "one", &map("c", json!({}))).await.0,
            403
        );
    });
}

#[test]
fn every_write_keeps_the_managers_of_fields() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let body = sample(Kind::find("apps", "Deployment").unwrap(), "web");
        let created = http.create(&format!("{DEPLOYMENTS}?fieldManager=maker"), body).await;
        let fields = &entry(&created, "maker", "Update")["fieldsV1"];
        assert_eq!(fields["f:spec"]["f:replicas"], json!({}), "{fields}");
        assert!(fields["f:spec"].get(".").is_none() && fields.get("f:status").is_none(), "{fields}");
        let one = format!("{DEPLOYMENTS}/web");
        let agent = [("user-agent", "scaler/v1.2 (linux)")];
        let body = json!({"spec": {"replicas": 5}}).to_string();
        let merge = "application/merge-patch+json";
        let scaled = http.try_call(Method::PATCH, &one, merge, body.clone().into(), &agent).await.unwrap().1;
        let scaled: Value = serde_json::from_slice(&scaled).unwrap();
        assert_eq!(entry(&scaled, "scaler", "Update")["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
        assert!(entry(&scaled, "maker", "Update")["fieldsV1"]["f:spec"].get("f:replicas").is_none());
        // The same once more writes nothing, whoever does it.
        let (_, again) = http
            .patch(&format!("{one}?fieldManager=other"), "merge", &json!({"spec": {"replicas": 5}}))
            .await;
        assert_eq!(again, scaled);
        let status = json!({"status": {"replicas": 3}});
        let (_, reported) =
            http.patch(&format!("{one}/status?fieldManager=controller"), "merge", &status).await;
        let own = entry(&reported, "controller", "Update");
        assert_eq!(own["subresource"], "status");
        assert_eq!(own["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
        let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 7}});
        let (code, answer) = apply(&http, &format!("{one}/scale?force=true"), "hpa", &scale).await;
        assert_eq!((code, &answer["spec"]["replicas"]), (200, &json!(7)), "{answer}");
        let (_, got) = http.get(&one).await;
        assert_eq!(entry(&got, "hpa", "Apply")["subresource"], "scale");
        let wanted = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 1}});
        let (code, conflict) = apply(&http, &one, "user", &wanted).await;
        assert_eq!(code, 409, "{conflict}");
        assert_eq!(
            conflict["message"],
            "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\": .spec.replicas"
        );
        // The status is no business of the main path.
        let mut wanted = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"paused": true}});
        wanted["status"] = json!({"replicas": 99});
        let (code, applied) = apply(&http, &one, "user", &wanted).await;
        assert_eq!((code, &applied["status"]["replicas"]), (200, &json!(3)), "{applied}");
        assert_eq!(entry(&applied, "user", "Apply")["fieldsV1"], json!({"f:spec": {"f:paused": {}}}));
        // A client forgets the managers, and an update brings none back.
        let reset = json!({"metadata": {"managedFields": [{}]}});
        let (_, reset) = http.patch(&one, "merge", &reset).await;
        assert!(reset["metadata"].get("managedFields").is_none(), "{reset}");
        let (_, paused) = http.patch(&one, "merge", &json!({"spec": {"paused": false}})).await;
        assert!(paused["metadata"].get("managedFields").is_none(), "{paused}");
        let wanted = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 1}});
        let (_, conflict) = apply(&http, &one, "user", &wanted).await;
        assert!(text(&conflict, "/message").contains("\"before-first-apply\" using apps/v1"), "{conflict}");
    });
}

#[test]
fn grpc_applies_as_rest_does() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let maps = server.grpc("admin").dynamic(Kind::find("", "ConfigMap").unwrap(), "default");
        let apply = |data: Value, manager: &str, force: bool| {
            let patch = client::Patch::Apply { document: map("g", data), manager: manager.into(), force };
            let maps = &maps;
            async move { maps.patch("g", &patch).await }
        };
        apply(json!({"a": "1"}), "one", false).await.expect("created");
        let conflict = apply(json!({"a": "2"}), "two", false).await.expect_err("a conflict");
        assert!(conflict.to_string().contains("conflict with \"one\": .data.a"), "{conflict}");
        apply(json!({"a": "2"}), "two", true).await.expect("forced");
        let (_, got) = http.get(&format!("{MAPS}/g")).await;
        assert_eq!(got["data"], json!({"a": "2"}));
        assert_eq!(entry(&got, "two", "Apply")["fieldsV1"], json!({"f:data": {"f:a": {}}}));
        assert!(apply(json!({}), "", false).await.is_err());
    });
}

#[test]
fn a_put_makes_what_may_be_made_so() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let lease = sample(Kind::find("coordination.k8s.io", "Lease").unwrap(), "l");
        let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
        let (code, made) = http.put(path, &lease).await;
        assert_eq!(code, 201, "{made}");
        let (code, _) = http.put(path, &made).await;
        assert_eq!(code, 200);
        assert_eq!(http.put(&format!("{MAPS}/none"), &map("none", json!({}))).await.0, 404);
        assert_eq!(server.http("nobody").put(&path.replace("/l", "/m"), &lease).await.0, 403);
    });
}
