//! The Lease service.

use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::App;
use crate::commit::Writes;
use crate::mvcc::Store;
use crate::pb::etcdserverpb::lease_server::Lease;
use crate::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};

/// What keeps leases alive.
struct Keeper {
    store: Arc<Store>,
    writes: Writes,
}

impl Keeper {
    /// Begins the life of a lease anew; returns its time to live, 0 when there is no such lease.
    async fn keep_alive(&self, id: i64) -> Result<i64, Status> {
        let (kept, noted) = {
            let mut data = self.store.write();
            let kept = data.leases.keep_alive(id, Instant::now());
            (kept, data.leases.get(id).is_some_and(|l| l.record.renewed))
        };
        let Some(ttl) = kept else { return Ok(0) };
        if !noted {
            self.writes.renewed(id).await?;
        }
        Ok(ttl)
    }
}

impl App {
    fn keeper(&self) -> Keeper {
        Keeper { store: self.store.clone(), writes: self.writes.clone() }
    }
}

#[tonic::async_trait]
impl Lease for App {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let request = request.into_inner();
        let (id, ttl) = self.writes.grant(request.id, request.ttl).await?;
        self.store.leases_changed.notify_one();
        let header = Some(self.store.header());
        Ok(Response::new(LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let revision = self.writes.revoke(request.into_inner().id).await?;
        Ok(Response::new(LeaseRevokeResponse { header: Some(self.store.header_at(revision)) }))
    }

    type LeaseKeepAliveStream = ReceiverStream<Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let mut requests = request.into_inner();
        let (out, responses) = mpsc::channel(16);
        let keeper = self.keeper();
        let serve = async move {
            while let Some(Ok(request)) = requests.next().await {
                let header = Some(keeper.store.header());
                let response = match keeper.keep_alive(request.id).await {
                    Ok(ttl) => Ok(LeaseKeepAliveResponse { header, id: request.id, ttl }),
                    Err(status) => Err(status),
                };
                if out.send(response).await.is_err() {
                    return;
                }
            }
        };
        let token = self.shutdown.clone();
        self.tasks.spawn("lease keep-alive", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = serve => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        let header = Some(self.store.header());
        let data = self.store.read();
        let response = match data.leases.get(request.id) {
            None => LeaseTimeToLiveResponse { header, id: request.id, ttl: -1, ..Default::default() },
            Some(lease) => {
                let keys = lease.keys.iter().filter(|_| request.keys);
                LeaseTimeToLiveResponse {
                    header,
                    id: request.id,
                    ttl: lease.remaining(Instant::now()),
                    granted_ttl: lease.ttl,
                    keys: keys.map(|key| bytes::Bytes::copy_from_slice(key)).collect(),
                }
            }
        };
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        _: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let leases = self.store.read().leases.iter().map(|(id, _)| LeaseStatus { id: *id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: Some(self.store.header()), leases }))
    }
}
