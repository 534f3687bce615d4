//! `pods/proxy`, `services/proxy` and `nodes/proxy`, through the tunnel of a node.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Json, Response};
use component::tasks::{Spawner, Tasks};
use http::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use proto::tunnel_request::Request as Asked;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::node::Node;
use crate::support::{Http, Server, block_on, text};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A server that shows what it was asked, redirects, and speaks a protocol of its own after an upgrade.
async fn backend(tasks: &Tasks) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let spawner = tasks.spawner();
    let router = axum::Router::new().fallback(move |request: Request| answer(request, spawner.clone()));
    tasks.spawn("backend", async move { axum::serve(listener, router).await.expect("it serves") });
    address
}

async fn answer(mut request: Request, tasks: Spawner) -> Response {
    match request.uri().path() {
        "/redirect" => (StatusCode::FOUND, [("location", "/login"), ("access-control-allow-origin", "*")])
            .into_response(),
        "/up" => {
            let upgraded = hyper::upgrade::on(&mut request);
            tasks.spawn("echo", async move {
                let (mut read, mut write) =
                    tokio::io::split(TokioIo::new(upgraded.await.expect("an upgrade")));
                // It breaks when the client goes.
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
            (StatusCode::SWITCHING_PROTOCOLS, [("connection", "Upgrade"), ("upgrade", "echo")])
                .into_response()
        }
        _ => {
            let headers: serde_json::Map<_, _> = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap_or_default())))
                .collect();
            let (method, uri) = (request.method().to_string(), request.uri().to_string());
            let body = axum::body::to_bytes(Body::new(request.into_body()), 1 << 20).await.expect("a body");
            let body = String::from_utf8_lossy(&body).into_owned();
            Json(json!({"method": method, "uri": uri, "headers": headers, "body": body})).into_response()
        }
    }
}

/// Sends a request as it is written here; gives the head of the answer and the connection.
async fn raw(http: &Http, request: &str) -> (String, impl AsyncReadExt + AsyncWriteExt + Unpin + use<>) {
    let mut stream = http.raw().await.expect("a connection");
    stream.write_all(request.replace('\n', "\r\n").as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    (String::from_utf8(head).expect("text"), stream)
}

async fn objects(http: &Http) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "nodeName": "n1", "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 8080}]}]}});
    http.create(PODS, pod).await;
    let status =
        json!({"status": {"phase": "Running", "podIP": "10.244.0.7", "podIPs": [{"ip": "10.244.0.7"}]}});
    let (code, pod) = http.patch(&format!("{PODS}/p/status"), "merge", &status).await;
    assert_eq!(code, 200, "{pod}");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
    http.create("/api/v1/namespaces/default/services", service).await;
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.244.0.7"], "conditions": {"ready": true}, "nodeName": "n1",
            "targetRef": {"kind": "Pod", "namespace": "default", "name": "p", "uid": pod["metadata"]["uid"]}}]});
    http.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    http.create("/api/v1/nodes", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}))
        .await;
}

#[test]
fn requests_reach_pods_services_and_nodes() {
    block_on(async {
        let server = Server::start().await;
        let tasks = Tasks::new("backend");
        let http = server.http("admin");
        objects(&http).await;
        let web = "/api/v1/namespaces/default/services/web:80/proxy";
        let (code, error) = http.get(&format!("{web}/")).await;
        assert_eq!((code, text(&error, "/reason")), (503, "ServiceUnavailable"), "{error}");
        assert!(text(&error, "/message").contains("error trying to reach service"), "{error}");

        let node = Node::start("n1", server.grpc("n1"), backend(&tasks).await).await;
        every_method_and_part_of_a_request_arrives(&http, &node).await;
        for (path, uri) in [
            (format!("{web}/"), "/"),
            ("/api/v1/namespaces/default/services/web/proxy/a".into(), "/a"),
            ("/api/v1/namespaces/default/pods/http:p:9/proxy/metrics".into(), "/metrics"),
            ("/api/v1/nodes/n1/proxy/healthz".into(), "/healthz"),
            ("/api/v1/nodes/n1:9100/proxy/metrics".into(), "/metrics"),
        ] {
            let (code, seen) = http.get(&path).await;
            assert_eq!((code, text(&seen, "/uri")), (200, uri), "{path}: {seen}");
        }
        assert!(matches!(node.last().1, Asked::PortForward(p) if p.port == 9100 && p.pod.is_none()));
        for (name, code, told) in [
            ("services/web:81", 503, "no service port 81 found for service \\\"web\\\""),
            ("services/web:other", 503, "no endpoints available for service \\\"web:other\\\""),
            ("services/ftp:web:80", 400, "invalid service request"),
            ("services/nothing", 404, "not found"),
            ("pods/p:x", 400, "invalid port"),
        ] {
            let (seen, error) = http.get(&format!("/api/v1/namespaces/default/{name}/proxy/")).await;
            assert_eq!(seen, code, "{name}: {error}");
            assert!(error.to_string().contains(told), "{name}: {error}");
        }
        redirections_and_upgrades(&http).await;
        roles_say_who_may(&server).await;
    });
}

async fn every_method_and_part_of_a_request_arrives(http: &Http, node: &Node) {
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let body = if method == Method::GET { "" } else { "hello" };
        let headers = [
            ("x-mine", "1"),
            ("accept", "application/json"),
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
        ];
        let path = format!("{PODS}/p/proxy/a//b%2Fc/?watch=maybe&x=%zz");
        let answer = http.try_call(method.clone(), &path, "text/plain", body.into(), &headers).await;
        let (code, seen) = answer.expect("an answer");
        let seen: Value = serde_json::from_slice(&seen).expect("what the backend shows");
        assert_eq!(code, 200, "{method}: {seen}");
        let parts = ["/method", "/uri", "/body", "/headers/x-mine", "/headers/x-forwarded-for"];
        let parts = parts.map(|at| text(&seen, at));
        assert_eq!(parts, [method.as_str(), "/a//b%2Fc/?watch=maybe&x=%zz", body, "1", "127.0.0.1"]);
        assert!(seen["headers"].get("x-hop").is_none(), "{seen}");
    }
    let (user, asked) = node.last();
    let Asked::PortForward(asked) = asked else { panic!("{asked:?}") };
    assert_eq!((user.as_str(), asked.address.as_str(), asked.port), ("admin", "10.244.0.7", 8080));
    assert_eq!(asked.pod.expect("the pod").name, "p");
}

async fn redirections_and_upgrades(http: &Http) {
    let own = format!("{PODS}/p/proxy");
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\nHost: api\n{more}\n");
    let (head, _) = raw(http, &get(&format!("{own}/redirect"), "")).await;
    assert!(
        head.starts_with("HTTP/1.1 302") && head.contains(&format!("location: {own}/login\r\n")),
        "{head}"
    );
    assert!(!head.contains("access-control"), "{head}");
    let (head, _) = raw(http, &get(&format!("{own}?a=b"), "")).await;
    assert!(
        head.starts_with("HTTP/1.1 301") && head.contains(&format!("location: {own}/?a=b\r\n")),
        "{head}"
    );
    let more = "Connection: Upgrade\nUpgrade: echo\n";
    let (head, mut stream) = raw(http, &get(&format!("{own}/up"), more)).await;
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("upgrade: echo"), "{head}");
    for word in ["ping", "pong"] {
        stream.write_all(word.as_bytes()).await.expect("sent");
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).await.expect("echoed");
        assert_eq!(&echo, word.as_bytes());
    }
}

/// The verb follows from the method, and the resource is the subresource.
async fn roles_say_who_may(server: &Server) {
    let (admin, nobody) = (server.http("admin"), server.http("nobody"));
    let path = format!("{PODS}/p/proxy/");
    let (code, error) = nobody.get(&path).await;
    assert_eq!(code, 403);
    let told = "cannot get resource \"pods/proxy\" in API group \"\" in the namespace \"default\"";
    assert!(text(&error, "/message").contains(told), "{error}");
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"},
        "rules": [{"verbs": ["create"], "apiGroups": [""], "resources": ["pods/proxy"], "resourceNames": ["p"]}]});
    admin.create(&format!("{roles}/roles"), role).await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "nobody"}]});
    admin.create(&format!("{roles}/rolebindings"), binding).await;
    // The server sees its own writes a moment later.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while nobody.post(&path, &json!({})).await.0 != 200 {
        assert!(tokio::time::Instant::now() < deadline, "the role takes no effect");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(nobody.get(&path).await.0, 403);
    assert_eq!(nobody.post(&format!("{PODS}/http:p:8080/proxy/"), &json!({})).await.0, 403);
}
