//! Many nodes and many pods: how fast they are scheduled, made and run, and what the control plane needs for that.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use memchr::memchr;
use memchr::memmem::find;
use serde_json::json;

use super::control_plane::{FOUR, start};
use super::objects::{plain, rest};
use crate::Options;
use crate::load::{Latencies, Load};
use crate::report::Outcome;
use crate::rest::{Server, request};
use crate::usage::{Meter, Usage};
use crate::world::{Flavor, World};

const PODS: &str = "/api/v1/namespaces/default/pods";
const PATIENCE: Duration = Duration::from_secs(240);

/// All four, told not to miss the heartbeats of nodes that have none.
fn control_plane(flavor: &Flavor) -> Result<World> {
    let mut world = World::new(flavor)?;
    for (name, value) in [
        ("node-monitor-grace-period", "2h"),
        ("node-startup-grace-period", "2h"),
        // As many ranges as there are nodes.
        ("cluster-cidr", "10.0.0.0/8"),
    ] {
        world.set_flag("kube-controller-manager", name, value);
    }
    world.set_flag("kube-apiserver", "service-cluster-ip-range", "172.20.0.0/16");
    start(&mut world)?;
    Ok(world)
}

fn node(number: usize) -> Bytes {
    let room = json!({"cpu": "32", "memory": "256Gi", "pods": "110", "ephemeral-storage": "100Gi"});
    let now = component::clock::Clock::system().time();
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "KubeletReady",
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    });
    let name = format!("node-{number:05}");
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
        }},
        "status": {"capacity": room, "allocatable": room, "conditions": [ready]},
    });
    Bytes::from(node.to_string())
}

fn template() -> serde_json::Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "main", "image": "registry.k8s.io/pause:3.9",
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        }],
    })
}

fn pod(number: usize) -> Bytes {
    let metadata = json!({"name": format!("pod-{number:07}"), "labels": {"app": "bench"}});
    Bytes::from(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template()}).to_string(),
    )
}

/// Creates nodes that nobody runs: what schedules pods on them sees no difference.
fn create_nodes(server: &Server, options: &Options, count: usize) -> Result<()> {
    let load = Load { count, time: PATIENCE, ..options.load(count) };
    let create = |n| request(Method::POST, "/api/v1/nodes", node(n));
    let tally = rest(server, &load, StatusCode::CREATED, create).context("creating nodes")?;
    ensure!(tally.done == count, "only {} of {count} nodes could be made in time", tally.done);
    Ok(())
}

/// Watches pods from now on and tells when each first shows a mark in its JSON; ends after `count` of them.
struct Seen(mpsc::Receiver<Result<(String, Instant)>>);

fn see(server: &Server, mark: &'static [u8], count: usize) -> Result<Seen> {
    let list = server.get(&format!("{PODS}?limit=1"))?;
    let version = list["metadata"]["resourceVersion"].as_str().context("a list has a version")?;
    let path = format!("{PODS}?watch=true&resourceVersion={version}&timeoutSeconds=600");
    let (sender, receiver) = mpsc::channel();
    let (server, (open, opened)) = (server.clone(), mpsc::channel());
    std::thread::spawn(move || {
        let watched = crate::block_on(tokio_timeout(watch(&server, &path, mark, count, &sender, &open)));
        if let Err(error) = watched {
            // Whoever waits for a pod hears of it; nobody does when all were seen.
            let _ = sender.send(Err(error));
        }
    });
    opened.recv_timeout(PATIENCE).context("the watch does not begin")?;
    Ok(Seen(receiver))
}

async fn tokio_timeout(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::time::timeout(PATIENCE, work).await.context("pods are missing")?
}

async fn watch(
    server: &Server,
    path: &str,
    mark: &[u8],
    count: usize,
    sender: &mpsc::Sender<Result<(String, Instant)>>,
    open: &mpsc::Sender<()>,
) -> Result<()> {
    let mut connection = server.connect().await?;
    let response = connection.send(request(Method::GET, path, Bytes::new())).await?;
    ensure!(response.status() == StatusCode::OK, "watch: {}", response.status());
    let _ = open.send(());
    let (mut body, mut rest) = (response.into_body(), BytesMut::new());
    let mut seen = std::collections::HashSet::new();
    while seen.len() < count {
        let frame = body.frame().await.context("the watch ended early")??;
        let Ok(data) = frame.into_data() else { continue };
        let now = Instant::now();
        rest.extend_from_slice(&data);
        while let Some(end) = memchr(b'\n', &rest) {
            let line = rest.split_to(end + 1);
            if find(&line, mark).is_none() {
                continue;
            }
            let needle = b"\"name\":\"";
            let at = find(&line, needle).context("an event without a name")? + needle.len();
            let name = line[at..].split(|b| *b == b'"').next().unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            if seen.insert(name.clone()) && sender.send(Ok((name, now))).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

impl Seen {
    /// Waits for so many pods and says when each was seen.
    fn wait(&self, count: usize) -> Result<BTreeMap<String, Instant>> {
        let mut all = BTreeMap::new();
        while all.len() < count {
            let (name, at) = self.0.recv_timeout(PATIENCE).context("a pod is missing")??;
            all.insert(name, at);
        }
        Ok(all)
    }
}

/// Schedules pods on nodes: from the first pod's creation to the last one's binding, as a watcher sees it.
fn schedule(flavor: &Flavor, options: &Options, nodes: usize, pods: usize) -> Result<Outcome> {
    let world = control_plane(flavor)?;
    let meter = Meter::start(&world.processes());
    schedule_on(&world, options, nodes, pods, &meter)
}

fn schedule_on(
    world: &World,
    options: &Options,
    nodes: usize,
    pods: usize,
    meter: &Meter,
) -> Result<Outcome> {
    let server = plain(world)?;
    create_nodes(&server, options, nodes)?;
    let seen = see(&server, b"\"nodeName\":\"", pods)?;
    let sent: Vec<std::sync::OnceLock<Instant>> = (0..pods).map(|_| std::sync::OnceLock::new()).collect();
    let began = Instant::now();
    let load = Load { count: pods, time: PATIENCE, ..options.load(pods) };
    let created = rest(&server, &load, StatusCode::CREATED, |n| {
        sent[n].get_or_init(Instant::now);
        request(Method::POST, PODS, pod(n))
    })?;
    let bound = seen.wait(pods)?;
    let ended = bound.values().max().copied().unwrap_or(began);
    let lag = |(name, at): (&String, &Instant)| {
        let number: usize = name.strip_prefix("pod-")?.parse().ok()?;
        u32::try_from(at.saturating_duration_since(*sent[number].get()?).as_micros()).ok()
    };
    let note =
        format!("{pods} pods in {:.2} s, created at {:.0} /s", (ended - began).as_secs_f64(), created.rate());
    let figure = pods as f64 / (ended - began).as_secs_f64();
    let latencies = Latencies::new(bound.iter().filter_map(lag).collect());
    Ok(Outcome { figure, latencies, usage: meter.read(), note, ..Outcome::default() })
}

/// `schedule-1000`.
pub fn schedule_1000(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    schedule(flavor, options, 1_000, options.count.unwrap_or(3_000))
}

/// `schedule-5000`.
pub fn schedule_5000(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    schedule(flavor, options, 5_000, options.count.unwrap_or(5_000))
}

fn sum(usage: &[Usage]) -> f64 {
    usage.iter().filter(|u| FOUR.contains(&u.name.as_str())).map(|u| u.peak as f64 / 1e6).sum()
}

/// `peak-memory`.
pub fn peak_memory(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    let outcome = schedule_5000(flavor, options)?;
    let figure = sum(&outcome.usage);
    Ok(Outcome { figure, latencies: Latencies::default(), ..outcome })
}

/// `deployment`.
pub fn deployment(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    let replicas = options.count.unwrap_or(1_000);
    let world = control_plane(flavor)?;
    let server = plain(&world)?;
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "bench"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "bench"}},
            "template": {"metadata": {"labels": {"app": "bench"}}, "spec": template()},
        },
    });
    let seen = see(&server, b"{\"type\":\"ADDED\"", replicas)?;
    let meter = Meter::start(&world.processes());
    let began = Instant::now();
    server.create("/apis/apps/v1/namespaces/default/deployments", &deployment)?;
    let pods = seen.wait(replicas)?;
    let took = pods.values().max().copied().unwrap_or(began) - began;
    let note = format!("{replicas} pods in {:.2} s", took.as_secs_f64());
    let figure = replicas as f64 / took.as_secs_f64();
    Ok(Outcome { figure, usage: meter.read(), note, ..Outcome::default() })
}

/// `hollow`: pods on hollow nodes, from creation until a watcher sees them run, and until they are gone again.
pub fn hollow(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    let (nodes, pods) = (options.nodes, options.count.unwrap_or(3_000));
    let mut world = control_plane(flavor)?;
    let began = Instant::now();
    world.start_hollow(nodes)?;
    let server = plain(&world)?;
    let registered = |server: &Server| -> Result<bool> {
        let list = server.get("/api/v1/nodes")?;
        Ok(list["items"].as_array().is_some_and(|items| items.len() >= nodes))
    };
    while !registered(&server)? {
        ensure!(began.elapsed() < PATIENCE, "the nodes do not register");
        crate::wait(Duration::from_millis(200));
    }
    let up = began.elapsed();
    let seen = see(&server, b"\"phase\":\"Running\"", pods)?;
    let meter = Meter::start(&world.processes());
    let sent: Vec<std::sync::OnceLock<Instant>> = (0..pods).map(|_| std::sync::OnceLock::new()).collect();
    let began = Instant::now();
    let load = Load { count: pods, time: PATIENCE, ..options.load(pods) };
    rest(&server, &load, StatusCode::CREATED, |n| {
        sent[n].get_or_init(Instant::now);
        request(Method::POST, PODS, pod(n))
    })?;
    let running = seen.wait(pods)?;
    let took = running.values().max().copied().unwrap_or(began) - began;
    let usage = meter.read();
    let lag = |(name, at): (&String, &Instant)| {
        let number: usize = name.strip_prefix("pod-")?.parse().ok()?;
        u32::try_from(at.saturating_duration_since(*sent[number].get()?).as_micros()).ok()
    };
    let latencies = Latencies::new(running.iter().filter_map(lag).collect());
    let gone = see(&server, b"{\"type\":\"DELETED\"", pods)?;
    let began = Instant::now();
    let (code, answer) = server.call(Method::DELETE, PODS, &serde_json::Value::Null)?;
    ensure!(code == StatusCode::OK, "DELETE {PODS}: {code} {answer}");
    gone.wait(pods)?;
    let note = format!(
        "{nodes} nodes in {:.1} s; {pods} pods run after {:.2} s, are gone after {:.2} s",
        up.as_secs_f64(),
        took.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    let figure = pods as f64 / took.as_secs_f64();
    Ok(Outcome { figure, latencies, usage, note, ..Outcome::default() })
}
