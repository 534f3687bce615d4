//! Who may do what, on the wire.

use http::Method;
use serde_json::{Value, json};

use api::Kind;

use crate::samples::sample;
use crate::support::{Ca, Http, Server, block_on, text};

async fn check(http: &Http, who: &str, request: &str, body: Value, wanted: u16) {
    let (method, path) = request.split_once(' ').unwrap();
    let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (code, answer) = http.call(method.parse().unwrap(), path, media, body).await;
    assert_eq!(code, wanted, "{who}: {request}: {answer}");
    if wanted == 403 {
        assert_eq!(text(&answer, "/reason"), "Forbidden", "{answer}");
    }
}

#[test]
fn everybody_may_do_what_concerns_him_and_nothing_else() {
    block_on(async {
        let server = Server::start().await;
        let admin = server.http("admin");
        for (name, node) in [("mine", "n1"), ("theirs", "n2")] {
            let mut pod = sample(Kind::find("", "Pod").unwrap(), name);
            pod["spec"]["nodeName"] = node.into();
            pod["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": name}}]);
            admin.create("/api/v1/namespaces/default/pods", pod).await;
            let secret = json!({"metadata": {"name": name}});
            admin.create("/api/v1/namespaces/default/secrets", secret).await;
            admin.create("/api/v1/nodes", json!({"metadata": {"name": node}})).await;
        }
        let none = Value::Null;
        let anonymous = server.anonymous();
        for (request, code) in [
            ("GET /healthz", 200),
            ("GET /readyz", 200),
            ("GET /version", 200),
            ("GET /metrics", 403),
            ("GET /api", 403),
            ("GET /api/v1/pods", 403),
            ("DELETE /api/v1/namespaces/default", 403),
            ("GET /unicorns", 403),
        ] {
            check(&anonymous, "anonymous", request, none.clone(), code).await;
        }
        let nobody = server.http("nobody");
        for (request, code) in [
            ("GET /version", 200),
            ("GET /api/v1/pods", 403),
            ("GET /api/v1/namespaces/default/secrets/mine", 403),
            ("POST /api/v1/namespaces", 403),
        ] {
            check(&nobody, "nobody", request, none.clone(), code).await;
        }
        let scheduler = server.http("scheduler");
        check(&scheduler, "scheduler", "GET /api/v1/pods", none.clone(), 200).await;
        let kubelet = server.http("n1");
        for (request, body, code) in [
            ("GET /api/v1/nodes/n1", none.clone(), 200),
            ("GET /api/v1/nodes/n2", none.clone(), 403),
            ("GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1", none.clone(), 200),
            ("GET /api/v1/pods", none.clone(), 403),
            ("GET /api/v1/namespaces/default/pods/mine", none.clone(), 200),
            ("GET /api/v1/namespaces/default/pods/theirs", none.clone(), 403),
            ("GET /api/v1/namespaces/default/secrets/mine", none.clone(), 200),
            ("GET /api/v1/namespaces/default/secrets/theirs", none.clone(), 403),
            ("GET /api/v1/secrets", none.clone(), 403),
            ("PATCH /api/v1/nodes/n1/status", json!({"status": {"nodeInfo": null}}), 200),
            ("PATCH /api/v1/nodes/n2/status", json!({"status": {}}), 403),
            ("PATCH /api/v1/nodes/n1", json!({"metadata": {"labels": {"example.com/a": "b"}}}), 200),
            (
                "PATCH /api/v1/nodes/n1",
                json!({"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}),
                403,
            ),
            (
                "PATCH /api/v1/nodes/n1",
                json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
                403,
            ),
            (
                "PATCH /api/v1/namespaces/default/pods/mine/status",
                json!({"status": {"phase": "Running"}}),
                200,
            ),
            (
                "PATCH /api/v1/namespaces/default/pods/theirs/status",
                json!({"status": {"phase": "Running"}}),
                403,
            ),
            ("PATCH /api/v1/namespaces/default/pods/mine", json!({"metadata": {"labels": {"a": "b"}}}), 403),
            ("DELETE /api/v1/namespaces/default/pods/theirs", none.clone(), 403),
            (
                "POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
                json!({"metadata": {"name": "n1"}}),
                201,
            ),
            (
                "POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
                json!({"metadata": {"name": "n2"}}),
                403,
            ),
            (
                "POST /apis/coordination.k8s.io/v1/namespaces/default/leases",
                json!({"metadata": {"name": "n1"}}),
                403,
            ),
            ("GET /api/v1/services", none.clone(), 200),
            ("POST /api/v1/namespaces/default/pods", sample(Kind::find("", "Pod").unwrap(), "own"), 403),
            ("DELETE /api/v1/nodes/n1", none.clone(), 403),
            ("GET /apis/apps/v1/deployments", none.clone(), 403),
        ] {
            check(&kubelet, "kubelet", request, body, code).await;
        }
        let (_, error) = nobody.get("/api/v1/namespaces/default/pods").await;
        let wanted = "pods is forbidden: User \"nobody\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
        assert_eq!(text(&error, "/message"), wanted);
        let (_, error) = anonymous.get("/metrics").await;
        assert_eq!(
            text(&error, "/message"),
            "forbidden: User \"system:anonymous\" cannot get path \"/metrics\""
        );
    });
}

#[test]
fn a_certificate_of_another_authority_fails_the_handshake() {
    block_on(async {
        let server = Server::start().await;
        Ca::new().issue(server.dir.path(), "forged", "admin", &["system:masters"]);
        let forged = server.http("forged");
        let result = forged.try_call(Method::GET, "/version", "", "".into(), &[]).await;
        assert!(result.is_err(), "{result:?}");
        let grpc = server.grpc("nobody").all::<api::openapi::api::core::v1::Pod>();
        let refused = grpc.list(&client::ListParams::default()).await;
        assert!(refused.is_err_and(|error| error.is_forbidden()));
    });
}
