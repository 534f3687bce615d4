//! The store alone, for orientation: puts of 1 KiB over its gRPC API, as many in flight as for `create`.

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_prost::ProstCodec;

use crate::Options;
use crate::load::{self, Caller};
use crate::report::Outcome;
use crate::usage::Meter;
use crate::world::{Flavor, LOCALHOST, World};

/// `etcdserverpb.PutRequest`, as far as it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

struct Put {
    client: Grpc<Channel>,
    value: Vec<u8>,
}

impl Caller for Put {
    async fn call(&mut self, number: usize) -> Result<usize> {
        let key = format!("/bench/{number:09}").into_bytes();
        let request = tonic::Request::new(PutRequest { key, value: self.value.clone() });
        self.client.ready().await.context("the store's connection")?;
        let codec = ProstCodec::<PutRequest, PutResponse>::default();
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        self.client.unary(request, path, codec).await.context("put")?;
        Ok(0)
    }
}

/// `store-put`.
pub fn put(flavor: &Flavor, options: &Options) -> Result<Outcome> {
    let world = World::with(flavor, &["etcd"])?;
    let (port, tls) = world.store()?;
    let meter = Meter::start(&world.processes());
    let size = options.size;
    let tally = load::run(&options.load(40_000), async |callers| {
        let tls = TlsConnector::from(tls.clone());
        let connect = tower::service_fn(move |_: Uri| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect((LOCALHOST, port)).await?;
                stream.set_nodelay(true)?;
                tls.connect(ServerName::IpAddress(LOCALHOST.into()), stream).await.map(TokioIo::new)
            }
        });
        let channel = Endpoint::from_static("http://store").connect_with_connector(connect).await?;
        let caller = |_| Put { client: Grpc::new(channel.clone()), value: vec![b'x'; size] };
        Ok((0..callers).map(caller).collect())
    })?;
    Ok(Outcome::rate(tally, meter.read()))
}
