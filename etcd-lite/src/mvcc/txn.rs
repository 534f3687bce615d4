//! Transactions: which way each goes, and those that only read.

use bytes::Bytes;

use super::read::{fetch, read_body, select};
use super::{Data, Error, KeyRange, Store, Version, decode};
use crate::engine::{EngineError, Location};
use crate::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::response_op::Response;
use crate::pb::etcdserverpb::{Compare, RequestOp, ResponseOp, TxnRequest, TxnResponse};

/// The store as comparisons see it.
pub(super) struct View<'a> {
    pub data: &'a Data,
    /// The revision.
    pub at: i64,
    /// Reads the body of a record.
    pub body: &'a dyn Fn(Location) -> Result<Bytes, EngineError>,
}

/// The operations that a transaction carries out, by the next step of the way that was decided.
pub(super) fn chosen<'a>(request: &'a TxnRequest, path: &mut std::slice::Iter<'_, bool>) -> &'a [RequestOp] {
    if path.next().copied().unwrap_or(false) { &request.success } else { &request.failure }
}

fn holds(result: i32, ordering: std::cmp::Ordering) -> Result<bool, Error> {
    let result = CompareResult::try_from(result).map_err(|_| Error::Invalid("unknown comparison"))?;
    Ok(match result {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
    })
}

impl View<'_> {
    /// Which way a transaction goes, and then those within it that it will carry out, in their order. Every comparison
    /// sees what was there before the whole transaction.
    pub(super) fn decide(&self, request: &TxnRequest) -> Result<Vec<bool>, Error> {
        let mut path = Vec::new();
        self.decide_into(request, &mut path)?;
        Ok(path)
    }

    fn decide_into(&self, request: &TxnRequest, path: &mut Vec<bool>) -> Result<(), Error> {
        let mut succeeds = true;
        for compare in &request.compare {
            if !self.compare(compare)? {
                succeeds = false;
                break;
            }
        }
        path.push(succeeds);
        for op in if succeeds { &request.success } else { &request.failure } {
            if let Some(Request::RequestTxn(txn)) = &op.request {
                self.decide_into(txn, path)?;
            }
        }
        Ok(())
    }

    fn compare(&self, compare: &Compare) -> Result<bool, Error> {
        let by_value = compare.target == CompareTarget::Value as i32;
        let range = KeyRange::new(&compare.key, &compare.range_end);
        let mut any = false;
        for (_, version) in self.data.index.range(&range, self.at) {
            any = true;
            if !self.compare_one(compare, Some(version))? {
                return Ok(false);
            }
        }
        match any {
            true => Ok(true),
            // A key that is not there has no value, and zero in everything else.
            false if by_value => Ok(false),
            false => self.compare_one(compare, None),
        }
    }

    fn compare_one(&self, compare: &Compare, version: Option<&Version>) -> Result<bool, Error> {
        let target =
            CompareTarget::try_from(compare.target).map_err(|_| Error::Invalid("unknown comparison"))?;
        let number = |of: fn(&Version) -> i64| version.map_or(0, of);
        // A number that is left out is zero.
        let ordering = match (target, &compare.target_union) {
            (CompareTarget::Version, Some(TargetUnion::Version(wanted))) => number(|v| v.version).cmp(wanted),
            (CompareTarget::Version, _) => number(|v| v.version).cmp(&0),
            (CompareTarget::Create, Some(TargetUnion::CreateRevision(wanted))) => {
                number(|v| v.create).cmp(wanted)
            }
            (CompareTarget::Create, _) => number(|v| v.create).cmp(&0),
            (CompareTarget::Mod, Some(TargetUnion::ModRevision(wanted))) => {
                number(|v| v.revision).cmp(wanted)
            }
            (CompareTarget::Mod, _) => number(|v| v.revision).cmp(&0),
            (CompareTarget::Lease, Some(TargetUnion::Lease(wanted))) => number(|v| v.lease).cmp(wanted),
            (CompareTarget::Lease, _) => number(|v| v.lease).cmp(&0),
            (CompareTarget::Value, wanted) => {
                let value = match version {
                    Some(version) => decode((self.body)(version.location)?)?.value,
                    None => Bytes::new(),
                };
                match wanted {
                    Some(TargetUnion::Value(wanted)) => value.cmp(wanted),
                    _ => value.cmp(&Bytes::new()),
                }
            }
        };
        holds(compare.result, ordering)
    }

    fn read(
        &self,
        request: &TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
    ) -> Result<TxnResponse, Error> {
        let succeeded = path.as_slice().first().copied().unwrap_or(false);
        let mut responses = Vec::new();
        for op in chosen(request, path) {
            let response = match &op.request {
                Some(Request::RequestRange(range)) => {
                    self.data.check_revision(range.revision, self.at)?;
                    let at = if range.revision > 0 { range.revision } else { self.at };
                    let selection = select(self.data, range, at);
                    Response::ResponseRange(fetch(selection, range, |location| (self.body)(location))?)
                }
                Some(Request::RequestTxn(txn)) => Response::ResponseTxn(self.read(txn, path)?),
                Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => continue,
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(TxnResponse { header: None, succeeded, responses })
    }
}

impl Store {
    /// Carries out a transaction that only reads. Blocks, usually on the page cache only.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::Future`], and those of the disk.
    pub fn read_txn(&self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        let data = self.read();
        let at = self.revision();
        let segments = data.segments.clone();
        let body = |location| read_body(&segments, location);
        let view = View { data: &data, at, body: &body };
        let path = view.decide(request)?;
        let response = view.read(request, &mut path.iter())?;
        Ok(TxnResponse { header: Some(self.header_at(at)), ..response })
    }
}
