//! What can be said against a request without looking at the store. Pure.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Error, KeyRange};
use crate::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

/// Operations that one transaction may have, as etcd's default.
pub const MAX_TXN_OPS: usize = 128;
/// The largest request, as etcd's default.
pub const MAX_REQUEST_BYTES: usize = 1536 * 1024;

/// Checks a read.
pub fn check_range(request: &RangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    let known =
        SortOrder::try_from(request.sort_order).is_ok() && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(Error::InvalidSort) }
}

/// Checks a write.
pub fn check_put(request: &PutRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

/// Checks a deletion.
pub fn check_delete(request: &DeleteRangeRequest) -> Result<(), Error> {
    if request.key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction, and those within it.
pub fn check_txn(request: &TxnRequest) -> Result<(), Error> {
    check_parts(request)?;
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

fn check_parts(request: &TxnRequest) -> Result<(), Error> {
    let most = request.compare.len().max(request.success.len()).max(request.failure.len());
    if most > MAX_TXN_OPS {
        return Err(Error::TooManyOps);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => check_range(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_delete(delete)?,
            Some(Request::RequestTxn(txn)) => check_parts(txn)?,
            None => return Err(Error::KeyNotFound),
        }
    }
    Ok(())
}

/// The keys that a list of operations writes, and the ranges that it deletes. No key may be written twice, or written
/// and deleted: what the second write means would depend on an order that the API does not promise.
fn writes(ops: &[RequestOp]) -> Result<(BTreeSet<&Bytes>, Vec<KeyRange>), Error> {
    let mut deletes = Vec::new();
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            deletes.push(KeyRange::new(&delete.key, &delete.range_end));
        }
    }
    let mut puts: BTreeSet<&Bytes> = BTreeSet::new();
    for op in ops {
        let Some(Request::RequestTxn(txn)) = &op.request else { continue };
        // Only one of the two happens, so that they may write the same.
        let (mut inner, mut inner_deletes) = writes(&txn.success)?;
        let (others, other_deletes) = writes(&txn.failure)?;
        inner.extend(others);
        inner_deletes.extend(other_deletes);
        let clash = |key: &&Bytes| puts.contains(*key) || deletes.iter().any(|d| d.contains(key));
        if inner.iter().any(clash) || puts.iter().any(|key| inner_deletes.iter().any(|d| d.contains(key))) {
            return Err(Error::DuplicateKey);
        }
        puts.extend(inner);
        deletes.extend(inner_deletes);
    }
    for op in ops {
        let Some(Request::RequestPut(put)) = &op.request else { continue };
        if !puts.insert(&put.key) || deletes.iter().any(|d| d.contains(&put.key)) {
            return Err(Error::DuplicateKey);
        }
    }
    Ok((puts, deletes))
}

/// Whether a transaction writes nothing, whichever way it goes.
pub fn is_read_only(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|op| match &op.request {
        Some(Request::RequestRange(_)) | None => true,
        Some(Request::RequestTxn(txn)) => is_read_only(txn),
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str) -> RequestOp {
        RequestOp { request: Some(Request::RequestPut(PutRequest { key: key.into(), ..Default::default() })) }
    }

    fn delete(key: &'static str, end: &'static str) -> RequestOp {
        let delete = DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: false };
        RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
    }

    fn txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        let txn = TxnRequest { compare: Vec::new(), success, failure };
        RequestOp { request: Some(Request::RequestTxn(txn)) }
    }

    #[track_caller]
    fn check(ops: Vec<RequestOp>, fine: bool) {
        let result = check_txn(&TxnRequest { compare: Vec::new(), success: ops, failure: Vec::new() });
        assert_eq!(result.is_ok(), fine, "{result:?}");
    }

    #[test]
    fn a_transaction_writes_a_key_once() {
        check(vec![put("a"), put("b")], true);
        check(vec![put("a"), put("a")], false);
        check(vec![put("a"), delete("a", "")], false);
        check(vec![delete("a", "c"), put("b")], false);
        check(vec![delete("a", "c"), put("c")], true);
        check(vec![delete("a", ""), delete("a", "c")], true);
        check(vec![delete("a", "\0"), put("z")], false);
        check(vec![put("a"), txn(vec![put("a")], vec![])], false);
        check(vec![txn(vec![put("a")], vec![put("a")])], true);
        check(vec![txn(vec![put("a")], vec![]), txn(vec![], vec![put("a")])], false);
        check(vec![txn(vec![delete("a", "c")], vec![]), put("b")], false);
    }

    #[test]
    fn malformed_parts_are_refused() {
        check(vec![put("")], false);
        check(vec![delete("", "")], false);
        check(vec![RequestOp { request: None }], false);
        check((0..129).map(|_| delete("a", "")).collect(), false);
    }
}
