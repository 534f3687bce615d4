//! The older channel protocols over a WebSocket, which clients other than kubectl speak.

use std::time::Duration;

use component::tls::{ClientTls, client_config};
use coxswain::cluster::Paths;
use futures::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use serde_json::Value;
use support::Cluster;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const PATIENCE: Duration = Duration::from_secs(60);

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Runs commands in a pod with the binary and the textual form of version 4.
pub fn check(cluster: &Cluster, pod: &str) {
    cluster.host.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime starts").block_on(async {
            let both = async {
                version_four(cluster, pod).await;
                version_four_as_text(cluster, pod).await;
            };
            tokio::time::timeout(PATIENCE, both).await.expect("the sessions end");
        });
    });
}

async fn open(cluster: &Cluster, pod: &str, protocol: &str, script: &str) -> Socket {
    let paths = Paths::new(&cluster.state(), &cluster.name);
    let config = coxswain::cluster::Cluster::load(&paths, &cluster.name).expect("the cluster has a file");
    let pki = |file: &str| paths.pki(file);
    let files = ClientTls { ca: pki("ca.crt"), cert: pki("admin.crt"), key: pki("admin.key") };
    let mut tls = (*client_config(&files).expect("the admin has a certificate")).clone();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", config.ports.api)).await.expect("the server listens");
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls));
    let stream = tls.connect(name, stream).await.expect("the server is trusted");
    let script: String = script.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let url = format!(
        "wss://localhost/api/v1/namespaces/default/pods/{pod}/exec?stdin=true&stdout=true&stderr=true\
         &command=/bin/busybox&command=sh&command=-c&command={script}"
    );
    let mut request = url.into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().expect("a header"));
    let (socket, answer) =
        tokio_tungstenite::client_async(request, stream).await.expect("the server upgrades");
    assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
    socket
}

/// What the process wrote, by channel, until the server says farewell.
async fn collect(socket: &mut Socket, read: impl Fn(Message) -> Option<(u8, Vec<u8>)>) -> [Vec<u8>; 4] {
    let mut channels: [Vec<u8>; 4] = Default::default();
    while let Some(message) = socket.next().await {
        let message = message.expect("the session ends with a farewell");
        if message.is_close() {
            break;
        }
        if let Some((channel, data)) = read(message) {
            channels[usize::from(channel)].extend(data);
        }
    }
    channels
}

const SCRIPT: &str = "read line; echo heard $line; echo aside >/dev/stderr; exit 3";

#[track_caller]
fn check_channels([_, out, err, status]: [Vec<u8>; 4]) {
    assert_eq!((out.as_slice(), err.as_slice()), (&b"heard hello\n"[..], &b"aside\n"[..]));
    let status: Value = serde_json::from_slice(&status).expect("the last channel carries a Status");
    assert_eq!(
        (&status["status"], &status["reason"]),
        (&"Failure".into(), &"NonZeroExitCode".into()),
        "{status}"
    );
    assert_eq!(status["details"]["causes"][0]["message"], "3", "{status}");
}

async fn version_four(cluster: &Cluster, pod: &str) {
    let mut socket = open(cluster, pod, "v4.channel.k8s.io", SCRIPT).await;
    socket.send(Message::binary(&b"\0hello\n"[..])).await.expect("the server listens");
    let binary = |message: Message| match message {
        Message::Binary(data) => Some((data[0], data[1..].to_vec())),
        _ => None,
    };
    check_channels(collect(&mut socket, binary).await);
}

async fn version_four_as_text(cluster: &Cluster, pod: &str) {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    let mut socket = open(cluster, pod, "v4.base64.channel.k8s.io", SCRIPT).await;
    let hello = format!("0{}", BASE64_STANDARD.encode("hello\n"));
    socket.send(Message::text(hello)).await.expect("the server listens");
    let text = |message: Message| match message {
        Message::Text(text) => {
            let (channel, data) = text.split_at(1);
            Some((channel.parse().ok()?, BASE64_STANDARD.decode(data).ok()?))
        }
        _ => None,
    };
    check_channels(collect(&mut socket, text).await);
}
