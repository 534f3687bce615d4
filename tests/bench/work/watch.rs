//! The fan-out: many watchers of the same objects, over REST and over gRPC, while these are created.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::future::try_join_all;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use memchr::memchr;
use memchr::memmem::Finder;

use super::objects::{config_map, namespace, plain, rest};
use crate::Options;
use crate::load::{Latencies, Load};
use crate::report::Outcome;
use crate::rest::{Protocol, Server, request};
use crate::usage::Meter;
use crate::world::{Flavor, World};

const WATCHERS: usize = 100;
const EVENTS: usize = 1_000;
const PATH: &str = "/api/v1/namespaces/bench/configmaps";
/// How long the last event may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// When each object was sent, in microseconds since the beginning.
struct Sent {
    began: Instant,
    at: Vec<AtomicU32>,
}

impl Sent {
    fn new(events: usize) -> Self {
        Self { began: Instant::now(), at: (0..events).map(|_| AtomicU32::new(0)).collect() }
    }

    fn now(&self) -> u32 {
        u32::try_from(self.began.elapsed().as_micros()).unwrap_or(u32::MAX)
    }

    fn send(&self, number: usize) {
        self.at[number].store(self.now(), Ordering::Relaxed);
    }

    /// How long the object of this number has been on its way.
    fn lag(&self, number: usize) -> Result<u32> {
        let sent = self.at.get(number).context("an object that nobody has sent")?;
        Ok(self.now().saturating_sub(sent.load(Ordering::Relaxed)))
    }
}

/// What one watcher saw.
struct Seen {
    lags: Vec<u32>,
    ended: Instant,
}

/// `watch`.
pub fn rest_watch(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    let (world, server) = world(flavor, options)?;
    let list = server.get(PATH)?;
    let version = list["metadata"]["resourceVersion"].as_str().context("a list has a version")?;
    let path = format!("{PATH}?watch=true&resourceVersion={version}");
    fan_out(&world, &server, options, async |watchers, established, sent| {
        let open = (0..watchers).map(|_| watch(&server, &path));
        let opened = try_join_all(open).await;
        established();
        let read = opened?.into_iter().map(|(connection, body)| async {
            let seen = read(body, sent).await;
            drop(connection);
            seen
        });
        try_join_all(read).await
    })
}

fn world(flavor: &Flavor, options: &Options) -> Result<(World, Server)> {
    let world = World::api(flavor)?;
    let server = world.server(options.protocol())?;
    namespace(&plain(&world)?)?;
    Ok((world, server))
}

type Body = http_body_util::combinators::BoxBody<Bytes, hyper::Error>;

async fn watch(server: &Server, path: &str) -> Result<(crate::rest::Connection, Body)> {
    let mut connection = server.clone().speaking(Protocol::Http1).connect().await?;
    let response = connection.send(request(Method::GET, path, Bytes::new())).await?;
    ensure!(response.status() == StatusCode::OK, "watch: {}", response.status());
    Ok((connection, response.into_body().boxed()))
}

async fn read(mut body: Body, sent: &Sent) -> Result<Seen> {
    let name = Finder::new(b"\"name\":\"cm-");
    let mut lags = Vec::with_capacity(sent.at.len());
    let mut rest = BytesMut::new();
    while lags.len() < sent.at.len() {
        let frame = body.frame().await.context("the watch ended early")??;
        let Ok(data) = frame.into_data() else { continue };
        rest.extend_from_slice(&data);
        while let Some(end) = memchr(b'\n', &rest) {
            let line = rest.split_to(end + 1);
            if line.starts_with(b"{\"type\":\"BOOKMARK\"") {
                continue;
            }
            ensure!(line.starts_with(b"{\"type\":\"ADDED\""), "{}", String::from_utf8_lossy(&line));
            let at = name.find(&line).context("an event without a name")? + name.needle().len();
            lags.push(sent.lag(number(&line[at..])?)?);
        }
    }
    Ok(Seen { lags, ended: Instant::now() })
}

fn number(digits: &[u8]) -> Result<usize> {
    let digits = digits.get(..7).context("a short name")?;
    std::str::from_utf8(digits)?.parse().context("a name of somebody else")
}

/// `grpc-watch`.
pub fn grpc_watch(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    let (world, server) = world(flavor, options)?;
    let list = server.get(PATH)?;
    let version = list["metadata"]["resourceVersion"].as_str().context("a list has a version")?;
    let kubeconfig = world.kubeconfig("admin");
    fan_out(&world, &server, options, async |watchers, established, sent| {
        let open = (0..watchers).map(|_| async {
            let config = client::ClientConfig::from_kubeconfig(&kubeconfig, "bench")?;
            let api = client::Client::new(config).documents::<Name>(kind(), "bench");
            Ok::<_, anyhow::Error>(Box::pin(api.watch(&Default::default(), version).await?))
        });
        let opened = try_join_all(open).await;
        established();
        let read = opened?.into_iter().map(|mut events| async move {
            let mut lags = Vec::with_capacity(sent.at.len());
            while lags.len() < sent.at.len() {
                match events.next().await.context("the watch ended early")?? {
                    client::WatchEvent::Added(Name(number)) => lags.push(sent.lag(number)?),
                    client::WatchEvent::Bookmark(_) => {}
                    other => bail!("unexpected {other:?}"),
                }
            }
            Ok(Seen { lags, ended: Instant::now() })
        });
        try_join_all(read).await
    })
}

fn kind() -> &'static api::Kind {
    <api::openapi::api::core::v1::ConfigMap as api::Typed>::kind()
}

/// The number in a ConfigMap's name; the rest is not read.
#[derive(Clone, Debug, PartialEq)]
struct Name(usize);

impl api::object::Document for Name {
    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }
    fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        use serde::de::Error;
        let needle = b"\"name\":\"cm-";
        let at = memchr::memmem::find(bytes, needle).map(|at| at + needle.len());
        let digits = at.and_then(|at| bytes.get(at..)).unwrap_or_default();
        number(digits).map(Self).map_err(Error::custom)
    }
    fn document_key(&self) -> String {
        format!("bench/cm-{:07}", self.0)
    }
    fn document_namespace(&self) -> &str {
        "bench"
    }
    fn document_name(&self) -> &str {
        ""
    }
    fn document_version(&self) -> &str {
        ""
    }
}

/// Watches on threads of their own, creates when all watch, and counts from the first object that is sent to the
/// last event that arrives.
fn fan_out<F>(world: &World, server: &Server, options: &Options, watch: F) -> Result<Outcome>
where
    F: AsyncFn(usize, &(dyn Fn() + Sync), &Sent) -> Result<Vec<Seen>> + Sync,
{
    let threads = options.threads.clamp(1, WATCHERS);
    let sent = Arc::new(Sent::new(EVENTS));
    let (barrier, watching) = (Barrier::new(threads + 1), AtomicUsize::new(0));
    let established = || {
        watching.fetch_add(1, Ordering::Relaxed);
        barrier.wait();
    };
    let (results, began, tally, usage) = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|at| {
                let share = WATCHERS / threads + usize::from(at < WATCHERS % threads);
                let (watch, established, sent) = (&watch, &established, &sent);
                scope.spawn(move || {
                    crate::block_on(async {
                        let all = watch(share, established, sent);
                        tokio::time::timeout(PATIENCE, all).await.context("events are missing")?
                    })
                })
            })
            .collect();
        barrier.wait();
        let meter = Meter::start(&world.processes());
        let began = Instant::now();
        let load = Load { count: EVENTS, time: PATIENCE, threads: 1, ..options.load(EVENTS) };
        let tally = rest(server, &load, StatusCode::CREATED, |n| {
            sent.send(n);
            request(Method::POST, PATH, config_map(&format!("cm-{n:07}"), options.size))
        });
        let results: Vec<Result<Vec<Seen>>> = running
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        (results, began, tally, meter.read())
    });
    let (mut lags, mut ended) = (Vec::new(), began);
    for result in results {
        for seen in result? {
            lags.extend(seen.lags);
            ended = ended.max(seen.ended);
        }
    }
    let created = tally?;
    let note = format!(
        "{WATCHERS} × {EVENTS} in {:.2} s; created at {:.0} /s",
        (ended - began).as_secs_f64(),
        created.rate()
    );
    let figure = lags.len() as f64 / (ended - began).as_secs_f64();
    Ok(Outcome { figure, latencies: Latencies::new(lags), usage, note, ..Outcome::default() })
}
