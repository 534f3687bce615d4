//! Pods on a real node, one at a time: from creation until a watcher sees the pod run, and from deletion until it is gone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use coxswain::cluster::Paths;
use coxswain::images::{Image, write};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use memchr::memchr;
use serde_json::{Value, json};
use support::Cluster;

use crate::Options;
use crate::report::Outcome;
use crate::rest::{Server, request};
use crate::world::Flavor;

const IMAGE: &str = "bench.local/busybox:1";
const PODS: &str = "/api/v1/namespaces/default/pods";
/// How many pods; the median counts.
const TIMES: usize = 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of one node that has the image, and its API server as seen from the cluster's own host.
fn cluster() -> Result<(Cluster, Server)> {
    let cluster = Cluster::up("bench-pods", 1);
    let program = std::fs::read("/bin/busybox").context("the package busybox-static is not installed")?;
    let image = Image {
        name: IMAGE.into(),
        program: program.leak(),
        path: "bin/busybox".into(),
        user: "0:0".into(),
        port: None,
        dirs: vec!["bin".into(), "etc".into(), "tmp".into()],
    };
    let path = cluster.state().join("busybox.tar");
    write(&[image], std::fs::File::create(&path)?)?;
    cluster.coxswain_ok(&["image", "load", &path.display().to_string()]);
    let paths = Paths::new(&cluster.state(), &cluster.name);
    let port = coxswain::cluster::Cluster::load(&paths, &cluster.name)?.ports.api;
    let server = Server::new(&paths, port, "ca", "admin")?;
    Ok((cluster, server))
}

fn pod(name: &str) -> Value {
    // Deaf to the signal that asks it to end.
    let script = "trap '' TERM; while true; do sleep 1000; done";
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": IMAGE, "imagePullPolicy": "Never",
            "command": ["/bin/busybox", "sh", "-c", script]}]},
    })
}

/// Sends a request and waits until a watch that began before shows what is awaited.
async fn until(
    server: &Server,
    act: (Method, &str, Bytes),
    shown: impl Fn(&Value) -> bool,
) -> Result<Duration> {
    let mut connection = server.connect().await?;
    let (code, list) = connection.call(request(Method::GET, PODS, Bytes::new())).await?;
    ensure!(code == StatusCode::OK, "list: {code}");
    let list: Value = serde_json::from_slice(&list)?;
    let version = list["metadata"]["resourceVersion"].as_str().context("a list has a version")?;
    let path = format!("{PODS}?watch=true&resourceVersion={version}");
    let mut watching = server.connect().await?;
    let mut body = watching.send(request(Method::GET, &path, Bytes::new())).await?.into_body();
    let began = Instant::now();
    let (code, answer) = connection.call(request(act.0, act.1, act.2)).await?;
    ensure!(code.is_success(), "{code}: {}", String::from_utf8_lossy(&answer));
    let mut rest = BytesMut::new();
    loop {
        let frame = body.frame().await.context("the watch ended early")??;
        let Ok(data) = frame.into_data() else { continue };
        rest.extend_from_slice(&data);
        while let Some(end) = memchr(b'\n', &rest) {
            let event: Value = serde_json::from_slice(&rest.split_to(end + 1))?;
            if shown(&event) {
                return Ok(began.elapsed());
            }
        }
    }
}

/// Starts and deletes pods in turn.
fn lives(options: &Options) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (cluster, server) = cluster()?;
    let times = options.count.unwrap_or(TIMES);
    let all = async {
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for number in 0..times {
            let name = format!("pod-{number}");
            let create = (Method::POST, PODS, Bytes::from(pod(&name).to_string()));
            let runs = |e: &Value| e["object"]["status"]["phase"] == "Running";
            starts.push(tokio::time::timeout(PATIENCE, until(&server, create, runs)).await??);
            let path = format!("{PODS}/{name}");
            let delete = (Method::DELETE, path.as_str(), Bytes::new());
            let gone = |e: &Value| e["type"] == "DELETED";
            ends.push(tokio::time::timeout(PATIENCE, until(&server, delete, gone)).await??);
        }
        Ok((starts, ends))
    };
    cluster.host.run(|| crate::block_on(all))
}

/// `pod-start`.
pub fn start(_: &Flavor, options: &Options) -> Result<Outcome> {
    let (starts, _) = lives(options)?;
    Ok(Outcome::times(&starts, Vec::new(), "the runtime's own share is not told apart".into()))
}

/// `pod-delete`.
pub fn delete(_: &Flavor, options: &Options) -> Result<Outcome> {
    let (_, ends) = lives(options)?;
    Ok(Outcome::times(&ends, Vec::new(), "a grace of 1 s, a process that ignores SIGTERM".into()))
}
