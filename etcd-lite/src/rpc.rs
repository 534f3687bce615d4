//! The services of etcd's v3 API, each a thin front over the store.

mod cluster;
mod kv;
mod lease;
mod maintenance;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use component::tasks::Spawner;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::commit::Writes;
use crate::mvcc::{Error, Store};
use crate::pb::etcdserverpb::cluster_server::ClusterServer;
use crate::pb::etcdserverpb::kv_server::KvServer;
use crate::pb::etcdserverpb::lease_server::LeaseServer;
use crate::pb::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::pb::etcdserverpb::watch_server::WatchServer;

/// The version of etcd whose behaviour is served; clients decide by it what they may ask for.
pub const ETCD_VERSION: &str = "3.5.21";
/// A message may be this large; what a request may be is checked after it was read, so that the answer says so.
const MAX_MESSAGE: usize = 64 << 20;

/// What every service needs.
pub(crate) struct App {
    pub store: Arc<Store>,
    pub writes: Writes,
    pub tasks: Spawner,
    /// Cancelled when the server shuts down: streams end.
    pub shutdown: CancellationToken,
    /// The member's name and the URLs that it tells to clients.
    pub name: String,
    pub client_urls: Vec<String>,
    /// How often watches hear that nothing happened.
    pub progress_interval: Duration,
}

/// All services, health included.
pub(crate) async fn router(app: Arc<App>) -> Router {
    let (reporter, health) = tonic_health::server::health_reporter();
    for service in ["etcdserverpb.KV", "etcdserverpb.Watch", "etcdserverpb.Lease"] {
        reporter.set_service_status(service, tonic_health::ServingStatus::Serving).await;
    }
    let mut routes = tonic::service::Routes::builder();
    routes
        .add_service(health)
        .add_service(KvServer::from_arc(app.clone()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(WatchServer::from_arc(app.clone()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(LeaseServer::from_arc(app.clone()))
        .add_service(MaintenanceServer::from_arc(app.clone()))
        .add_service(ClusterServer::from_arc(app));
    routes.routes().prepare().into_axum_router()
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::EmptyKey
            | Error::KeyNotFound
            | Error::ValueProvided
            | Error::LeaseProvided
            | Error::TooManyOps
            | Error::DuplicateKey
            | Error::TooLarge
            | Error::InvalidSort
            | Error::Invalid(_) => Code::InvalidArgument,
            Error::Compacted | Error::Future | Error::LeaseTooLong => Code::OutOfRange,
            Error::NoSpace => Code::ResourceExhausted,
            Error::LeaseNotFound => Code::NotFound,
            Error::LeaseExists => Code::FailedPrecondition,
            Error::Stopped | Error::Engine(_) => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

/// Runs a read that may take a while where it holds nobody up.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}
