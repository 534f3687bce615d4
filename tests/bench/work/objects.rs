//! Single requests about ConfigMaps: create, get, list, delete, over REST and over gRPC.

use anyhow::{Context, Result};
use api::Typed;
use api::object::Document;
use api::openapi::api::core::v1::ConfigMap;
use bytes::Bytes;
use client::{Api, Client, ListParams};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::Options;
use crate::load::{self, Caller, Load, Tally};
use crate::report::Outcome;
use crate::rest::{Connection, Protocol, Server, request};
use crate::usage::Meter;
use crate::world::{Flavor, World};

/// How many ConfigMaps are there when they are read.
const PRESENT: usize = 3_000;
const NAMESPACE: &str = "bench";
const PATH: &str = "/api/v1/namespaces/bench/configmaps";

/// A caller over REST that sends what a function makes of the number.
struct RestCaller<'a, F> {
    connection: Connection,
    make: &'a F,
    expected: StatusCode,
}

impl<F: Fn(usize) -> Request<Full<Bytes>>> Caller for RestCaller<'_, F> {
    async fn call(&mut self, number: usize) -> Result<usize> {
        self.connection.measure((self.make)(number), self.expected).await
    }
}

/// Sends requests over REST, a connection for each caller or, over HTTP/2, for each thread.
///
/// # Errors
/// The first answer with another code than `expected`.
pub fn rest<F>(server: &Server, load: &Load, expected: StatusCode, make: F) -> Result<Tally>
where
    F: Fn(usize) -> Request<Full<Bytes>> + Sync,
{
    load::run(load, async |callers| {
        let first = server.connect().await?;
        let mut all = Vec::with_capacity(callers);
        for _ in 1..callers {
            let connection = match first.share() {
                Some(shared) => shared,
                None => server.connect().await?,
            };
            all.push(RestCaller { connection, make: &make, expected });
        }
        all.push(RestCaller { connection: first, make: &make, expected });
        Ok(all)
    })
}

/// The name of a ConfigMap.
fn name(number: usize) -> String {
    format!("cm-{number:07}")
}

/// The ConfigMap of a number.
pub fn config_map(name: &str, size: usize) -> Bytes {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "data": { "payload": "x".repeat(size) },
    });
    Bytes::from(object.to_string())
}

fn create_request(number: usize, size: usize) -> Request<Full<Bytes>> {
    request(Method::POST, PATH, config_map(&name(number), size))
}

/// Makes the namespace that the ConfigMaps are in.
pub fn namespace(server: &Server) -> Result<()> {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    server.create("/api/v1/namespaces", &namespace).map(drop)
}

/// A fresh API server with some ConfigMaps in it.
fn filled(flavor: &Flavor, options: &Options, count: usize) -> Result<(World, Server)> {
    let world = World::api(flavor)?;
    let server = world.server(options.protocol())?;
    namespace(&server)?;
    let load = Load { count, time: options.patience(), ..options.load(count) };
    let tally = rest(&server, &load, StatusCode::CREATED, |n| create_request(n, options.size))
        .context("the objects that are worked on")?;
    anyhow::ensure!(tally.done == count, "only {} of {count} objects could be made in time", tally.done);
    Ok((world, server))
}

/// `create`.
pub fn create(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    let (world, server) = filled(flavor, options, 0)?;
    let meter = Meter::start(&world.processes());
    let load = options.load(30_000);
    let tally = rest(&server, &load, StatusCode::CREATED, |n| create_request(n, options.size))?;
    Ok(Outcome::rate(tally, meter.read()))
}

/// `get`.
pub fn get(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    let (world, server) = filled(flavor, options, PRESENT)?;
    let meter = Meter::start(&world.processes());
    let get = |n| request(Method::GET, &format!("{PATH}/{}", name(n % PRESENT)), Bytes::new());
    let tally = rest(&server, &options.load(150_000), StatusCode::OK, get)?;
    Ok(Outcome::rate(tally, meter.read()))
}

/// `list`.
pub fn list(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    let (world, server) = filled(flavor, options, PRESENT)?;
    let meter = Meter::start(&world.processes());
    let list = |_| request(Method::GET, PATH, Bytes::new());
    let tally = rest(&server, &options.load(2_000), StatusCode::OK, list)?;
    let each = tally.bytes as f64 / tally.done.max(1) as f64 / 1e6;
    let mut outcome = Outcome::rate(tally, meter.read());
    outcome.note = format!("{}, {each:.1} MB each", outcome.note);
    Ok(outcome)
}

/// `delete`.
pub fn delete(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    let load = options.load(20_000);
    let (world, server) = filled(flavor, options, load.count)?;
    let meter = Meter::start(&world.processes());
    let delete = |n| request(Method::DELETE, &format!("{PATH}/{}", name(n)), Bytes::new());
    let tally = rest(&server, &load, StatusCode::OK, delete)?;
    Ok(Outcome::rate(tally, meter.read()))
}

/// A ConfigMap that is sent and received as bytes: what is measured is the server.
#[derive(Clone)]
struct Raw {
    name: String,
    json: Bytes,
}

impl Document for Raw {
    fn encode(&self) -> Vec<u8> {
        self.json.to_vec()
    }
    fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(Self { name: String::new(), json: Bytes::copy_from_slice(bytes) })
    }
    fn document_key(&self) -> String {
        format!("{NAMESPACE}/{}", self.name)
    }
    fn document_namespace(&self) -> &str {
        NAMESPACE
    }
    fn document_name(&self) -> &str {
        &self.name
    }
    fn document_version(&self) -> &str {
        ""
    }
}

/// What is asked over gRPC.
#[derive(Clone, Copy)]
enum Verb {
    Create,
    Get,
    List,
    Delete,
}

struct GrpcCaller {
    api: Api<Raw>,
    verb: Verb,
    size: usize,
}

impl Caller for GrpcCaller {
    async fn call(&mut self, number: usize) -> Result<usize> {
        Ok(match self.verb {
            Verb::Create => {
                let name = name(number);
                let json = config_map(&name, self.size);
                self.api.create(&Raw { name, json }).await?.json.len()
            }
            Verb::Get => self.api.get(&name(number % PRESENT)).await?.json.len(),
            Verb::List => {
                let list = self.api.list(&ListParams::default()).await?;
                anyhow::ensure!(list.items.len() == PRESENT, "{} items", list.items.len());
                list.items.iter().map(|item| item.json.len()).sum()
            }
            Verb::Delete => {
                self.api.delete(&name(number), &Default::default()).await?;
                0
            }
        })
    }
}

fn grpc(world: &World, load: &Load, verb: Verb, size: usize) -> Result<Tally> {
    let kubeconfig = world.kubeconfig("admin");
    load::run(load, async |callers| {
        let config = client::ClientConfig::from_kubeconfig(&kubeconfig, "bench")?;
        let api = Client::new(config).documents::<Raw>(ConfigMap::kind(), NAMESPACE);
        // The connection is made by the first request, which must not be one that counts.
        api.get_opt("none").await?;
        Ok((0..callers).map(|_| GrpcCaller { api: api.clone(), verb, size }).collect())
    })
}

fn over_grpc(flavor: &Flavor, options: &Options, verb: Verb, count: usize) -> Result<Outcome> {
    let load = options.load(count);
    let present = match verb {
        Verb::Create => 0,
        Verb::Get | Verb::List => PRESENT,
        Verb::Delete => load.count,
    };
    let (world, _) = filled(flavor, options, present)?;
    let meter = Meter::start(&world.processes());
    let tally = grpc(&world, &load, verb, options.size)?;
    Ok(Outcome::rate(tally, meter.read()))
}

/// `grpc-create`.
pub fn grpc_create(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    over_grpc(flavor, options, Verb::Create, 30_000)
}

/// `grpc-get`.
pub fn grpc_get(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    over_grpc(flavor, options, Verb::Get, 150_000)
}

/// `grpc-list`.
pub fn grpc_list(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    over_grpc(flavor, options, Verb::List, 2_000)
}

/// `grpc-delete`.
pub fn grpc_delete(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    over_grpc(flavor, options, Verb::Delete, 20_000)
}

/// The server over HTTP/1.1, for requests beside the load.
pub fn plain(world: &World) -> Result<Server> {
    world.server(Protocol::Http1)
}
