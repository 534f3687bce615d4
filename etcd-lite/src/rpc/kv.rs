//! The KV service: reads from the store at once, writes through the writer.

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};

use super::{App, blocking};
use crate::mvcc::{Error, MAX_REQUEST_BYTES, check_delete, check_put, check_range, check_txn, is_read_only};
use crate::pb::etcdserverpb::kv_server::Kv;
use crate::pb::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse,
};

fn check_size(request: &impl Message) -> Result<(), Error> {
    if request.encoded_len() > MAX_REQUEST_BYTES { Err(Error::TooLarge) } else { Ok(()) }
}

impl App {
    /// The full header for what the writer answered, which knows the revision alone.
    fn header(&self, known: Option<ResponseHeader>) -> Option<ResponseHeader> {
        Some(self.store.header_at(known.map_or_else(|| self.store.revision(), |h| h.revision)))
    }
}

#[tonic::async_trait]
impl Kv for App {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        check_range(&request)?;
        // One key is read faster than a thread is woken.
        if request.range_end.is_empty() || request.count_only {
            return Ok(Response::new(self.store.range(&request)?));
        }
        let store = self.store.clone();
        Ok(Response::new(blocking(move || store.range(&request)).await?))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        check_put(&request)?;
        check_size(&request)?;
        let response = self.writes.put(request).await?;
        Ok(Response::new(PutResponse { header: self.header(response.header), ..response }))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        check_delete(&request)?;
        check_size(&request)?;
        let response = self.writes.delete(request).await?;
        Ok(Response::new(DeleteRangeResponse { header: self.header(response.header), ..response }))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = request.into_inner();
        check_txn(&request)?;
        check_size(&request)?;
        let response = if is_read_only(&request) {
            let store: Arc<_> = self.store.clone();
            blocking(move || store.read_txn(&request)).await?
        } else {
            self.writes.txn(request).await?
        };
        Ok(Response::new(TxnResponse { header: self.header(response.header), ..response }))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let request = request.into_inner();
        let revision = self.writes.compact(request.revision, request.physical).await?;
        Ok(Response::new(CompactionResponse { header: Some(self.store.header_at(revision)) }))
    }
}
