//! The binary against a small API server on loopback: requests, output, exit codes, streams.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

/// What the server was asked, as `METHOD /path?query`.
type Asked = Arc<Mutex<Vec<String>>>;

struct Server {
    address: SocketAddr,
    asked: Asked,
    folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

fn discovery() -> Value {
    let resource = |name: &str, kind: &str, short: &str| {
        json!({"resource": name, "responseKind": {"kind": kind}, "scope": "Namespaced", "singularResource": kind.to_lowercase(),
               "shortNames": [short], "verbs": ["get", "list", "watch"], "categories": ["all"]})
    };
    json!({"kind": "APIGroupDiscoveryList", "items": [{"metadata": {"name": ""}, "versions": [
        {"version": "v1", "resources": [resource("pods", "Pod", "po"), resource("configmaps", "ConfigMap", "cm")]}]}]})
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default", "resourceVersion": "1"},
           "spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": {"phase": "Running"}})
}

fn table() -> Value {
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "1"},
           "columnDefinitions": [{"name": "Name", "type": "string", "format": "name"}, {"name": "Status", "type": "string"}],
           "rows": [{"cells": ["web", "Running"], "object": {"metadata": {"name": "web", "namespace": "default"}}}]})
}

fn not_found(kind: &str, name: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
                        "message": format!("{kind} \"{name}\" not found")});
    (StatusCode::NOT_FOUND, axum::Json(status)).into_response()
}

async fn answer(State(asked): State<Asked>, headers: HeaderMap, request: Request) -> Response {
    let uri = request.uri().to_string();
    asked.lock().unwrap().push(format!("{} {uri}", request.method()));
    let as_table = headers["accept"].to_str().unwrap().contains("as=Table");
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/api" => ([("etag", "\"1\"")], axum::Json(discovery())).into_response(),
        "/apis" => axum::Json(json!({"kind": "APIGroupDiscoveryList", "items": []})).into_response(),
        "/api/v1/namespaces/default/pods" if as_table => axum::Json(table()).into_response(),
        "/api/v1/namespaces/default/pods" => {
            axum::Json(json!({"kind": "PodList", "apiVersion": "v1", "items": [pod()]})).into_response()
        }
        "/api/v1/namespaces/default/pods/web" => axum::Json(pod()).into_response(),
        "/api/v1/namespaces/default/pods/web/log" => "line 1\nline 2\n".into_response(),
        "/api/v1/namespaces/default/configmaps" => (StatusCode::CREATED, request.into_body()).into_response(),
        other => not_found("pods", other.rsplit('/').next().unwrap_or_default()),
    }
}

/// Echoes standard input to standard output, says something on standard error, and ends with 7.
async fn exec(State(asked): State<Asked>, upgrade: WebSocketUpgrade, request: Request) -> Response {
    asked.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
    upgrade.protocols(["v5.channel.k8s.io"]).on_upgrade(process)
}

async fn process(mut socket: WebSocket) {
    let channel = |number: u8, text: &[u8]| Message::Binary([&[number], text].concat().into());
    socket.send(channel(2, b"warned\n")).await.unwrap();
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Binary(data) = message else { continue };
        match data.as_ref() {
            [0, text @ ..] => socket.send(channel(1, text)).await.unwrap(),
            [255, 0] => break,
            _ => {}
        }
    }
    let status = json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with non-zero exit code",
                        "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}});
    socket.send(channel(3, status.to_string().as_bytes())).await.unwrap();
    let _ = socket.send(Message::Close(None)).await;
}

impl Server {
    fn start() -> Self {
        let asked = Asked::default();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let app = Router::new()
            .route("/api/v1/namespaces/default/pods/web/exec", get(exec).post(exec))
            .fallback(answer)
            .with_state(asked.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let guard = runtime.enter();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await });
        tasks.detach_all();
        drop(guard);
        Self { address, asked, folder: tempfile::tempdir().unwrap(), _runtime: runtime }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl"));
        command
            .args(["--server", &format!("http://{}", self.address)])
            .args(args)
            .env("HOME", self.folder.path())
            .env_remove("KUBECONFIG")
            .env_remove("KUBECACHEDIR")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> (String, String, i32) {
        read(self.command(args).output().unwrap())
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn read(output: Output) -> (String, String, i32) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

#[test]
fn get_needs_one_request_once_discovery_is_known() {
    let server = Server::start();
    let want = ("NAME   STATUS\nweb    Running\n".to_owned(), String::new(), 0);
    assert_eq!(server.run(&["get", "pods"]), want);
    assert_eq!(server.asked().len(), 3);
    assert_eq!(server.run(&["get", "po"]), want);
    assert_eq!(server.asked(), ["GET /api/v1/namespaces/default/pods?limit=500"]);
}

#[test]
fn what_is_not_there_exits_with_1() {
    let server = Server::start();
    let want = (String::new(), "Error from server (NotFound): pods \"none\" not found\n".to_owned(), 1);
    assert_eq!(server.run(&["get", "pod", "none"]), want);
    assert_eq!(server.run(&["get", "pod", "none", "--ignore-not-found"]), (String::new(), String::new(), 0));
    assert_eq!(server.run(&["get", "foo"]).1, "error: the server doesn't have a resource type \"foo\"\n");
}

#[test]
fn objects_are_printed_as_asked() {
    let server = Server::start();
    assert_eq!(server.run(&["get", "pods", "-o", "name"]).0, "pod/web\n");
    assert_eq!(server.run(&["get", "pods", "-ojsonpath={.items[*].spec.containers[*].name}"]).0, "a b");
    assert!(
        server
            .run(&["get", "pods", "-o", "yaml"])
            .0
            .ends_with("kind: List\nmetadata:\n  resourceVersion: \"\"\n")
    );
    assert!(
        server
            .run(&["get", "pod/web", "-o=json"])
            .0
            .starts_with("{\n    \"apiVersion\": \"v1\",\n    \"kind\": \"Pod\",")
    );
}

#[test]
fn the_good_documents_are_applied_and_the_bad_ones_reported() {
    let server = Server::start();
    let file = server.folder.path().join("two.yaml");
    std::fs::write(&file, "a: [\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n").unwrap();
    let (out, err, code) = server.run(&["apply", "-f", file.to_str().unwrap()]);
    assert_eq!((out.as_str(), code), ("configmap/good created\n", 1));
    assert!(err.contains("two.yaml") && err.contains("line 1, column"), "{err}");
}

#[test]
fn logs_are_passed_through() {
    let server = Server::start();
    let (out, err, code) = server.run(&["logs", "web", "--tail=2"]);
    assert_eq!((out.as_str(), code), ("line 1\nline 2\n", 0));
    assert_eq!(err, "Defaulted container \"a\" out of: a, b\n");
    assert_eq!(
        server.asked().last().unwrap(),
        "GET /api/v1/namespaces/default/pods/web/log?container=a&tailLines=2"
    );
    assert_eq!(
        server.run(&["logs", "pod/web", "-c", "b", "--prefix"]).0,
        "[pod/web/b] line 1\n[pod/web/b] line 2\n"
    );
    assert_eq!(server.run(&["logs", "web", "-c", "x"]).1, "error: container x not found in pod web\n");
}

#[test]
fn exec_connects_the_streams_and_exits_as_the_command_did() {
    use std::io::Write;
    let server = Server::start();
    let mut child = server
        .command(&["exec", "-i", "web", "-c", "a", "--", "cat", "-n"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let (out, err, code) = read(child.wait_with_output().unwrap());
    assert_eq!(out, "through\n");
    assert_eq!(err, "warned\ncommand terminated with exit code 7\n");
    assert_eq!(code, 7);
    let asked = server.asked().pop().unwrap();
    for part in ["command=cat", "command=-n", "container=a", "stdin=true", "stdout=true", "stderr=true"] {
        assert!(asked.contains(part), "{asked} has no {part}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl"))
        .args(["--server", "127.0.0.1:1", "get", "pods"])
        .env("HOME", folder.path())
        .env_remove("KUBECONFIG")
        .output()
        .unwrap();
    let want =
        "The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?\n";
    assert_eq!(read(output), (String::new(), want.into(), 1));
}

#[test]
fn wrong_use_exits_with_1() {
    let server = Server::start();
    assert_eq!(
        server.run(&["nonsense"]),
        (String::new(), "error: unknown command \"nonsense\" for \"kubectl\"\n".into(), 1)
    );
    let (_, err, code) = server.run(&["get", "pods", "--nonsense"]);
    assert_eq!((err.lines().next().unwrap(), code), ("error: unknown flag: --nonsense", 1));
    assert_eq!(server.run(&["apply"]).2, 1);
}
