//! Groups that others serve: APIServices, the proxy to them, and discovery.

use axum::extract::Request;
use axum::response::Json;
use component::health::Peer;
use component::tasks::Tasks;
use component::tls::{ServerTls, server_config};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::node::Node;
use crate::support::{Http, Server, block_on, free_port, text};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const GROUP: &str = "/apis/things.example.org/v1";

/// Serves the group, and shows who asked and by which certificate.
async fn answer(request: Request) -> Json<Value> {
    if request.uri().path() == GROUP {
        return Json(
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "things.example.org/v1",
            "resources": [{"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing",
                "verbs": ["get", "list"]}]}),
        );
    }
    let by = match request.extensions().get::<Peer>() {
        Some(Peer::Known(identity)) => identity.user.clone(),
        _ => String::new(),
    };
    let header = |name: &str| {
        let all = request.headers().get_all(name).iter();
        all.map(|v| v.to_str().unwrap_or_default()).collect::<Vec<_>>().join(",")
    };
    Json(json!({"kind": "Thing", "apiVersion": "things.example.org/v1", "metadata": {"name": "t"}, "by": by,
        "user": header("x-remote-user"), "groups": header("x-remote-group"), "host": header("host"),
        "authorization": header("authorization"), "uri": request.uri().to_string()}))
}

async fn available(http: &Http, name: &str, status: &str, reason: &str) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let (_, service) = http.get(&format!("{SERVICES}/{name}")).await;
        let condition = &service["status"]["conditions"][0];
        if (text(condition, "/status"), text(condition, "/reason")) == (status, reason) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{name} is not {status} {reason}: {service}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[test]
fn a_group_is_served_by_others() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        available(&http, "v1.", "True", "Local").await;
        available(&http, "v1.apps", "True", "Local").await;
        let (code, map) =
            http.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await;
        assert_eq!((code, text(&map, "/data/client-ca-file")), (200, "PEM"), "{map}");

        let ca = std::fs::read(server.dir.path().join("ca-server.crt")).unwrap();
        let bundle = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, ca);
        let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": "v1.things.example.org"}, "spec": {"group": "things.example.org", "version": "v1",
            "groupPriorityMinimum": 1000, "versionPriority": 15, "caBundle": bundle,
            "service": {"namespace": "default", "name": "remote"}}});
        http.create(SERVICES, service).await;
        available(&http, "v1.things.example.org", "False", "ServiceNotFound").await;
        assert_eq!(http.get(&format!("{GROUP}/namespaces/default/things")).await.0, 503);

        let tasks = Tasks::new("remote");
        let node = remote(&server, &http, &tasks).await;
        available(&http, "v1.things.example.org", "True", "Passed").await;
        requests_are_passed_on(&server, &http).await;
        discovery_shows_it(&http).await;

        drop(node);
        available(&http, "v1.things.example.org", "False", "FailedDiscoveryCheck").await;
        let (code, error) = http.get(&format!("{GROUP}/namespaces/default/things/t")).await;
        assert_eq!((code, text(&error, "/message")), (503, "service unavailable"), "{error}");
        http.delete(&format!("{SERVICES}/v1.things.example.org"), "").await;
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        while http.get("/apis/things.example.org").await.0 != 404 {
            assert!(tokio::time::Instant::now() < deadline, "the group is still shown");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
}

/// The server of the group behind a Service, and the node that leads there.
async fn remote(server: &Server, http: &Http, tasks: &Tasks) -> Node {
    let file = |name: &str| server.dir.path().join(name);
    let tls = ServerTls {
        cert: file("server.crt"),
        key: file("server.key"),
        client_ca: Some(file("ca-front.crt")),
    };
    let (tls, address) = (server_config(&tls).unwrap(), ([127, 0, 0, 1], free_port()).into());
    let router = axum::Router::new().fallback(answer);
    tasks.spawn("backend", async move {
        component::health::serve(address, Some(tls), router, CancellationToken::new()).await.unwrap();
    });
    while tokio::net::TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "remote"},
        "spec": {"ports": [{"port": 443, "targetPort": 8443}]}});
    http.create("/api/v1/namespaces/default/services", service).await;
    let node = Node::start("n1", server.grpc("n1"), address).await;
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "remote-1", "labels": {"kubernetes.io/service-name": "remote"}},
        "ports": [{"name": "", "port": 8443, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.244.0.7"], "conditions": {"ready": true}, "nodeName": "n1",
            "targetRef": {"kind": "Pod", "namespace": "default", "name": "p", "uid": "u"}}]});
    http.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    node
}

async fn requests_are_passed_on(server: &Server, http: &Http) {
    let path = format!("{GROUP}/namespaces/default/things/t?watch=0");
    let (code, seen) = http.with("x-remote-user", "root").get(&path).await;
    assert_eq!(code, 200, "{seen}");
    let parts = ["/by", "/user", "/groups", "/host", "/uri"].map(|at| text(&seen, at));
    let groups = "system:masters,system:authenticated";
    assert_eq!(parts, ["front-proxy-client", "admin", groups, "remote.default.svc", path.as_str()]);
    let (code, error) = server.http("nobody").get(&path).await;
    assert_eq!(code, 403);
    let told =
        "cannot get resource \"things\" in API group \"things.example.org\" in the namespace \"default\"";
    assert!(text(&error, "/message").contains(told), "{error}");
}

async fn discovery_shows_it(http: &Http) {
    let (_, groups) = http.get("/apis").await;
    assert!(groups.to_string().contains("\"groupVersion\":\"things.example.org/v1\""), "{groups}");
    assert_eq!(text(&http.get("/apis/things.example.org").await.1, "/preferredVersion/version"), "v1");
    assert_eq!(text(&http.get(GROUP).await.1, "/resources/0/kind"), "Thing");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (_, all) = http.with("accept", accept).get("/apis").await;
    let own =
        all["items"].as_array().unwrap().iter().find(|i| text(i, "/metadata/name") == "things.example.org");
    let own = &own.expect("the group is shown")["versions"][0];
    assert_eq!((text(own, "/freshness"), text(own, "/resources/0/resource")), ("Current", "things"), "{own}");
}
