//! Admission webhooks: a server of the test's own, over TLS, and what the API server makes of its answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use component::tasks::Tasks;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{Http, Server, block_on, text};

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

type Decide = dyn Fn(&str, &Value) -> Value + Send + Sync;

/// A webhook server. Its certificate vouches for itself, as that of many webhooks does.
struct Hooks {
    address: SocketAddr,
    ca: String,
    /// The paths and reviews that came.
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    _tasks: Tasks,
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

impl Hooks {
    /// Serves at an address; `decide` makes a `response` of a path and a `request`.
    async fn start(ip: Ipv4Addr, decide: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Self {
        let names = ["localhost", "127.0.0.1", "hook.default.svc"].map(str::to_owned);
        let key = KeyPair::generate().unwrap();
        let pem = CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
        let config =
            rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
                )
                .unwrap();
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (tasks, connections) = (Tasks::new("webhook"), Tasks::new("webhook connections"));
        let (decide, record): (Arc<Decide>, _) = (Arc::new(decide), seen.clone());
        tasks.spawn("webhook", async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, decide, record) = (acceptor.clone(), decide.clone(), record.clone());
                connections.spawn("connection", async move {
                    // A client that does not trust the certificate ends the handshake.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, decide.clone(), record.clone()));
                    let builder = auto::Builder::new(TokioExecutor::new());
                    // It ends with an error when the API server goes away.
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, ca: base64(pem), seen, _tasks: tasks }
    }

    fn url(&self, path: &str) -> Value {
        json!({"url": format!("https://localhost:{}{path}", self.address.port()), "caBundle": self.ca})
    }

    /// The requests that came to a path since the last look.
    fn take(&self, path: &str) -> Vec<Value> {
        let mut seen = self.seen.lock().unwrap();
        let (taken, left): (Vec<_>, Vec<_>) = seen.drain(..).partition(|(p, _)| p == path);
        *seen = left;
        taken.into_iter().map(|(_, request)| request).collect()
    }
}

async fn answer(
    request: Request<Incoming>,
    decide: Arc<Decide>,
    record: Arc<Mutex<Vec<(String, Value)>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    assert!(request.uri().query().unwrap_or_default().starts_with("timeout="));
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    let request = review["request"].clone();
    record.lock().unwrap().push((path.clone(), request.clone()));
    if path == "/slow" {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let mut response = decide(&path, &request);
    if response.is_null() {
        return Ok(Response::builder().status(500).body(Full::new("broken".into())).unwrap());
    }
    response["uid"] = request["uid"].clone();
    let review =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    Ok(Response::new(Full::new(review.to_string().into())))
}

fn hook(name: &str, client: Value, change: Value) -> Value {
    let mut hook = json!({"name": format!("{name}.example.com"), "admissionReviewVersions": ["v1"],
        "sideEffects": "None", "clientConfig": client,
        "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["configmaps"]}]});
    for (field, value) in change.as_object().unwrap() {
        hook[field] = value.clone();
    }
    hook
}

async fn configure(http: &Http, path: &str, name: &str, hooks: &[Value]) {
    let kind = if path == MUTATING { "Mutating" } else { "Validating" };
    let document = json!({"apiVersion": "admissionregistration.k8s.io/v1",
        "kind": format!("{kind}WebhookConfiguration"), "metadata": {"name": name}, "webhooks": hooks});
    http.create(path, document).await;
    // The copy that is asked is a moment behind the store; a list at the newest version is not.
    assert_eq!(http.get(path).await.0, 200);
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": base64(operations.to_string())})
}

#[test]
fn validating_webhooks_allow_refuse_and_warn() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let hooks = Hooks::start(Ipv4Addr::LOCALHOST, |path, request| match path {
            "/judge" if request["object"]["data"]["bad"].is_string() => {
                json!({"allowed": false, "status": {"message": "it is bad", "code": 403, "reason": "Forbidden"}})
            }
            "/judge" if request["operation"] == "DELETE" => json!({"allowed": false}),
            "/judge" => json!({"allowed": true, "warnings": ["think twice"], "auditAnnotations": {"a": "b"}}),
            _ => Value::Null,
        })
        .await;
        let all = json!({"rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["configmaps"], "scope": "Namespaced"}],
            "matchConditions": [{"name": "not-exempt", "expression":
                "request.operation == 'DELETE' || !object.metadata.name.startsWith('exempt-')"}]});
        configure(&http, VALIDATING, "judge", &[hook("judge", hooks.url("/judge"), all)]).await;
        let created = http.create(MAPS, map("good", json!({"a": "b"}))).await;
        let requests = hooks.take("/judge");
        let [request] = requests.as_slice() else { panic!("{requests:?}") };
        assert_eq!(request["operation"], "CREATE");
        assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
        assert_eq!(request["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
        assert_eq!((text(request, "/name"), text(request, "/namespace")), ("good", "default"));
        assert_eq!(request["userInfo"]["username"], "admin");
        assert_eq!(request["object"]["metadata"]["uid"], created["metadata"]["uid"]);
        assert_eq!((&request["oldObject"], &request["dryRun"]), (&Value::Null, &json!(false)));
        assert_eq!(request["options"]["kind"], "CreateOptions");

        let (code, refused) = http.post(MAPS, &map("worse", json!({"bad": "yes"}))).await;
        assert_eq!((code, text(&refused, "/reason")), (403, "Forbidden"));
        let by = "admission webhook \"judge.example.com\" denied the request";
        assert_eq!(text(&refused, "/message"), format!("{by}: it is bad"));
        http.create(MAPS, map("exempt-worse", json!({"bad": "yes"}))).await;

        hooks.take("/judge");
        let good = format!("{MAPS}/good");
        let (code, _) = http.patch(&good, "merge", &json!({"data": {"c": "d"}})).await;
        assert_eq!(code, 200);
        let requests = hooks.take("/judge");
        assert_eq!(requests[0]["object"]["data"], json!({"a": "b", "c": "d"}));
        assert_eq!(requests[0]["oldObject"]["data"], json!({"a": "b"}));
        let (code, refused) = http.delete(&good, "").await;
        assert_eq!((code, text(&refused, "/message")), (400, format!("{by} without explanation").as_str()));
        assert_eq!(http.get(&good).await.0, 200);
        let request = hooks.take("/judge").remove(0);
        assert_eq!((&request["object"], text(&request, "/oldObject/metadata/name")), (&Value::Null, "good"));

        // The configurations themselves are nobody's to refuse.
        let delete = format!("{VALIDATING}/judge");
        assert_eq!(http.delete(&delete, "").await.0, 200);
        assert_eq!(http.get(VALIDATING).await.1["items"], json!([]));
        assert_eq!(http.delete(&good, "").await.0, 200);
        server.stop().await;
    });
}

#[test]
fn mutating_webhooks_change_what_is_written_in_turn() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let hooks = Hooks::start(Ipv4Addr::LOCALHOST, |path, request| {
            let data = &request["object"]["data"];
            let step =
                |name: &str| patch(json!([{"op": "add", "path": format!("/data/{name}"), "value": "x"}]));
            match path {
                "/first" if data["first"].is_null() => step("first"),
                "/second" if data["first"].is_string() && data["second"].is_null() => step("second"),
                "/third" => patch(json!([{"op": "remove", "path": "/data/nothing"}])),
                _ => json!({"allowed": true}),
            }
        })
        .await;
        let again = json!({"reinvocationPolicy": "IfNeeded"});
        let labelled = json!({"objectSelector": {"matchLabels": {"third": "yes"}}});
        configure(&http, MUTATING, "b", &[hook("second", hooks.url("/second"), json!({}))]).await;
        configure(
            &http,
            MUTATING,
            "a",
            &[hook("first", hooks.url("/first"), again), hook("third", hooks.url("/third"), labelled)],
        )
        .await;
        let made = http.create(MAPS, map("m", json!({"a": "b"}))).await;
        assert_eq!(made["data"], json!({"a": "b", "first": "x", "second": "x"}));
        // The first of them is asked again, as the second changed the object after it.
        assert_eq!((hooks.take("/first").len(), hooks.take("/second").len()), (2, 1));
        assert!(hooks.take("/third").is_empty());
        // What they changed is the client's doing as far as fields have owners.
        assert!(made["metadata"]["managedFields"][0]["fieldsV1"]["f:data"]["f:second"].is_object());

        let mut third = map("third", json!({"a": "b"}));
        third["metadata"]["labels"] = json!({"third": "yes"});
        let (code, failed) = http.post(MAPS, &third).await;
        assert_eq!(code, 500, "{failed}");
        let applied = map("m", json!({"a": "c"})).to_string();
        let (code, applied) = http
            .call(
                Method::PATCH,
                &format!("{MAPS}/m?fieldManager=x&force=true"),
                "application/apply-patch+yaml",
                applied,
            )
            .await;
        assert_eq!((code, &applied["data"]["a"]), (200, &json!("c")), "{applied}");
        server.stop().await;
    });
}

#[test]
fn a_webhook_that_fails_is_left_out_or_stops_the_request() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let hooks = Hooks::start(Ipv4Addr::LOCALHOST, |_, _| Value::Null).await;
        let named = |name: &str, policy: &str| {
            json!({"failurePolicy": policy, "timeoutSeconds": 1,
                "namespaceSelector": {"matchLabels": {"fails": name}}})
        };
        let elsewhere = json!({"url": "https://localhost:9/x", "caBundle": hooks.ca});
        let stranger = json!({"url": hooks.url("/x")["url"], "caBundle": base64(
            CertificateParams::new(vec!["localhost".into()]).unwrap()
                .self_signed(&KeyPair::generate().unwrap()).unwrap().pem())});
        let mut all = Vec::new();
        let cases = [
            ("broken", hooks.url("/broken"), "the server responded with 500: broken"),
            ("slow", hooks.url("/slow"), "context deadline exceeded"),
            ("away", elsewhere, "refused"),
            ("stranger", stranger, "certificate"),
        ];
        for (name, client, _) in &cases {
            all.push(hook(name, client.clone(), named(name, "Fail")));
            all.push(hook(
                &format!("{name}-ignored"),
                client.clone(),
                named(&format!("{name}-ignored"), "Ignore"),
            ));
        }
        configure(&http, VALIDATING, "failing", &all).await;
        http.create(MAPS, map("nobody-cares", json!({}))).await;
        for (name, _, why) in cases {
            let namespaces = [name.to_owned(), format!("{name}-ignored")];
            for namespace in &namespaces {
                let document = json!({"metadata": {"name": namespace, "labels": {"fails": namespace}}});
                http.create("/api/v1/namespaces", document).await;
            }
            let [fails, ignored] = namespaces.map(|n| format!("/api/v1/namespaces/{n}/configmaps"));
            let (code, failed) = http.post(&fails, &map("m", json!({}))).await;
            let message = text(&failed, "/message");
            let begin = format!(
                "Internal error occurred: failed calling webhook \"{name}.example.com\": failed to call webhook: "
            );
            assert_eq!((code, text(&failed, "/reason")), (500, "InternalError"), "{failed}");
            assert!(message.starts_with(&begin) && message.contains(why), "{message}");
            http.create(&ignored, map("m", json!({}))).await;
        }
        server.stop().await;
    });
}

#[test]
fn a_service_is_asked_and_dry_runs_and_parts_are_told_apart() {
    block_on(async {
        // Services have addresses of loopback here, so that one can stand for the server.
        let server =
            Server::start_with(|config| config.service_range = (Ipv4Addr::new(127, 77, 0, 0), 16)).await;
        let http = server.http("admin");
        let ip = Ipv4Addr::new(127, 77, 3, 4);
        let hooks = Hooks::start(ip, |_, request| {
            json!({"allowed": request["subResource"].is_null() || request["subResource"] != "scale"})
        })
        .await;
        let service = json!({"metadata": {"name": "hook"}, "spec": {"clusterIP": ip.to_string(),
            "ports": [{"port": hooks.address.port()}]}});
        http.create("/api/v1/namespaces/default/services", service).await;
        let client = json!({"caBundle": hooks.ca, "service":
            {"namespace": "default", "name": "hook", "path": "/svc", "port": hooks.address.port()}});
        let rules = |resource: &str, operation: &str| {
            json!([{"operations": [operation], "apiGroups": ["", "apps", "autoscaling"], "apiVersions": ["*"],
                "resources": [resource]}])
        };
        let parts = json!({"rules": rules("*/scale", "UPDATE")});
        let older = json!([{"operations": ["*"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"],
            "resources": ["horizontalpodautoscalers"]}]);
        configure(
            &http,
            VALIDATING,
            "service",
            &[
                hook("maps", client.clone(), json!({})),
                hook("scales", client.clone(), parts),
                hook("older", client.clone(), json!({"rules": older})),
                hook("exact", client, json!({"rules": older, "matchPolicy": "Exact"})),
            ],
        )
        .await;
        http.create(&format!("{MAPS}?dryRun=All"), map("m", json!({}))).await;
        let request = hooks.take("/svc").remove(0);
        assert_eq!((&request["dryRun"], &request["options"]["dryRun"]), (&json!(true), &json!(["All"])));
        assert_eq!(http.get(&format!("{MAPS}/m")).await.0, 404);

        let sets = "/apis/apps/v1/namespaces/default/replicasets";
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let set = json!({"metadata": {"name": "s"}, "spec": {"replicas": 1, "template": template,
            "selector": {"matchLabels": {"a": "b"}}}});
        http.create(sets, set).await;
        let scale = json!({"spec": {"replicas": 5}});
        let (code, _) = http.patch(&format!("{sets}/s/scale"), "merge", &scale).await;
        assert_eq!(code, 400);
        let request = hooks.take("/svc").remove(0);
        assert_eq!((text(&request, "/kind/kind"), text(&request, "/subResource")), ("Scale", "scale"));
        assert_eq!(
            (&request["object"]["spec"], &request["oldObject"]["spec"]),
            (&scale["spec"], &json!({"replicas": 1}))
        );

        // Rules about one version hold for the others, and the object is shown in the version of the rule.
        let scaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "s"}}});
        http.create("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", scaler).await;
        let requests = hooks.take("/svc");
        assert_eq!(requests.len(), 1, "{requests:?}");
        let versions =
            ["/object/apiVersion", "/kind/version", "/requestKind/version"].map(|p| text(&requests[0], p));
        assert_eq!(versions, ["autoscaling/v1", "v1", "v2"]);
        server.stop().await;
    });
}
