//! Writes: what each does to the index and appends to the log. Carried out by the one thread that writes.

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use super::read::{deleted, fetch, read_body, select};
use super::txn::{View, chosen};
use super::{Data, Error, Key, KeyRange, Version, decode};
use crate::engine::{EngineError, Kind, Location, Log};
use crate::lease::MAX_TTL;
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::response_op::Response;
use crate::pb::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use crate::pb::log;
use crate::pb::mvccpb::event::EventType;
use crate::pb::mvccpb::{Event, KeyValue};

/// By how much a new ceiling lies above the newest revision: as many heartbeats go without a sync.
const CEILING: i64 = 100_000;

/// Bytes of a value from which on a small change is told as one, though reading it takes two steps then: a Node whose status is
/// confirmed is such.
const LARGE: usize = 2048;

/// A batch of writes that is being made. Nothing of it is visible before it is durable.
pub(crate) struct Batch<'a> {
    pub data: &'a mut Data,
    pub log: &'a mut Log,
    /// What is told to watchers when the batch is durable.
    pub events: &'a mut Vec<Event>,
    /// What the keys of heartbeats begin with.
    pub heartbeats: &'a [Bytes],
    pub now: Instant,
    pub wall: Timestamp,
}

/// The revision that a request makes, once it changes something.
struct Revision {
    /// The newest revision before.
    before: i64,
    /// Changes so far.
    changes: u32,
}

impl Revision {
    fn current(&self) -> i64 {
        self.before + i64::from(self.changes > 0)
    }

    fn next(&mut self) -> (i64, u32) {
        let order = self.changes;
        self.changes += 1;
        (self.before + 1, order)
    }
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

impl Batch<'_> {
    fn body(&self, location: Location) -> Result<Bytes, EngineError> {
        match self.log.pending_body(location)? {
            Some(body) => Ok(body),
            None => read_body(&self.data.segments, location),
        }
    }

    fn begin(&self) -> Revision {
        Revision { before: self.data.revision, changes: 0 }
    }

    fn end(&mut self, revision: &Revision) -> i64 {
        self.data.revision = revision.current();
        self.data.revision
    }

    /// Writes a key.
    pub(crate) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Error> {
        self.check_put(request)?;
        let mut revision = self.begin();
        let response = self.apply_put(request, &mut revision)?;
        self.end(&revision);
        Ok(response)
    }

    /// Deletes a range of keys.
    pub(crate) fn delete(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Error> {
        let mut revision = self.begin();
        let response = self.apply_delete(request, &mut revision)?;
        self.end(&revision);
        Ok(response)
    }

    /// Carries out a transaction: all of it, or nothing when it is refused.
    pub(crate) fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        // Every comparison sees what was there before the transaction.
        let body = |location| self.body(location);
        let path = View { data: self.data, at: i64::MAX, body: &body }.decide(request)?;
        self.check_ops(request, &mut path.iter())?;
        let mut revision = self.begin();
        let response = self.apply_txn(request, &mut path.iter(), &mut revision)?;
        self.end(&revision);
        Ok(response)
    }

    /// Checks, before anything is changed, what the operations on the chosen way ask of the store.
    fn check_ops(&self, request: &TxnRequest, path: &mut std::slice::Iter<'_, bool>) -> Result<(), Error> {
        for op in chosen(request, path) {
            match &op.request {
                Some(Request::RequestRange(range)) => {
                    self.data.check_revision(range.revision, self.data.revision)?;
                }
                Some(Request::RequestPut(put)) => self.check_put(put)?,
                Some(Request::RequestTxn(txn)) => self.check_ops(txn, path)?,
                Some(Request::RequestDeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }

    fn check_put(&self, request: &PutRequest) -> Result<(), Error> {
        let keeps = request.ignore_value || request.ignore_lease;
        if keeps && self.data.index.get(&request.key, i64::MAX).is_none() {
            return Err(Error::KeyNotFound);
        }
        if request.lease != 0 && self.data.leases.get(request.lease).is_none() {
            return Err(Error::LeaseNotFound);
        }
        Ok(())
    }

    fn apply_txn(
        &mut self,
        request: &TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
        revision: &mut Revision,
    ) -> Result<TxnResponse, Error> {
        let succeeded = path.as_slice().first().copied().unwrap_or(false);
        let mut responses = Vec::new();
        for op in chosen(request, path) {
            let response = match &op.request {
                Some(Request::RequestRange(range)) => {
                    Response::ResponseRange(self.apply_range(range, revision)?)
                }
                Some(Request::RequestPut(put)) => Response::ResponsePut(self.apply_put(put, revision)?),
                Some(Request::RequestDeleteRange(delete)) => {
                    Response::ResponseDeleteRange(self.apply_delete(delete, revision)?)
                }
                Some(Request::RequestTxn(txn)) => Response::ResponseTxn(self.apply_txn(txn, path, revision)?),
                None => continue,
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(TxnResponse { header: header(revision.current()), succeeded, responses })
    }

    fn apply_range(&self, request: &RangeRequest, revision: &Revision) -> Result<RangeResponse, Error> {
        let at = if request.revision > 0 { request.revision } else { i64::MAX };
        let selection = select(self.data, request, at);
        let response = fetch(selection, request, |location| self.body(location))?;
        Ok(RangeResponse { header: header(revision.current()), ..response })
    }

    fn apply_put(&mut self, request: &PutRequest, revision: &mut Revision) -> Result<PutResponse, Error> {
        let previous = self.data.index.get(&request.key, i64::MAX).copied();
        let mut prev_kv = None;
        if let Some(previous) = previous.filter(|_| request.prev_kv || request.ignore_value) {
            prev_kv = Some(decode(self.body(previous.location)?)?);
        }
        let value = match &prev_kv {
            Some(previous) if request.ignore_value => previous.value.clone(),
            _ => request.value.clone(),
        };
        let old_lease = previous.map_or(0, |p| p.lease);
        let (main, order) = revision.next();
        let kv = KeyValue {
            key: request.key.clone(),
            create_revision: previous.map_or(main, |p| p.create),
            mod_revision: main,
            version: previous.map_or(0, |p| p.version) + 1,
            value,
            lease: if request.ignore_lease { old_lease } else { request.lease },
        };
        let location = match previous {
            Some(previous) if self.heartbeats.iter().any(|prefix| kv.key.starts_with(prefix)) => {
                self.log.append_heartbeat(order, &kv, previous.location)?
            }
            Some(previous) if kv.value.len() >= LARGE => {
                self.log.append_update(order, &kv, previous.location)?
            }
            _ => self.log.append(Kind::Put, order, &kv),
        };
        let key = self.record(&kv, order, location);
        self.data.leases.attach(&key, old_lease, kv.lease);
        self.events.push(Event { r#type: EventType::Put as i32, kv: Some(kv), prev_kv: None });
        let prev_kv = prev_kv.filter(|_| request.prev_kv);
        Ok(PutResponse { header: header(revision.current()), prev_kv })
    }

    fn record(&mut self, kv: &KeyValue, order: u32, location: Location) -> Key {
        self.data.live(location);
        let version = Version {
            revision: kv.mod_revision,
            order,
            location,
            create: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
        };
        self.data.index.insert(&kv.key, version)
    }

    fn apply_delete(
        &mut self,
        request: &DeleteRangeRequest,
        revision: &mut Revision,
    ) -> Result<DeleteRangeResponse, Error> {
        let range = KeyRange::new(&request.key, &request.range_end);
        let found: Vec<(Key, Version)> =
            self.data.index.range(&range, i64::MAX).map(|(key, v)| (key.clone(), *v)).collect();
        let mut prev_kvs = Vec::new();
        if request.prev_kv {
            for (_, version) in &found {
                prev_kvs.push(decode(self.body(version.location)?)?);
            }
        }
        for (key, version) in &found {
            self.apply_deletion(key, version.lease, revision);
        }
        let deleted = i64::try_from(found.len()).unwrap_or(i64::MAX);
        Ok(DeleteRangeResponse { header: header(revision.current()), deleted, prev_kvs })
    }

    fn apply_deletion(&mut self, key: &Key, lease: i64, revision: &mut Revision) {
        let (main, order) = revision.next();
        let kv = deleted(key, main);
        let location = self.log.append(Kind::Delete, order, &kv);
        self.record(&kv, order, location);
        self.data.leases.attach(key, lease, 0);
        self.events.push(Event { r#type: EventType::Delete as i32, kv: Some(kv), prev_kv: None });
    }

    /// Grants a lease; 0 takes an id that is free. Returns id and time to live.
    pub(crate) fn grant(
        &mut self,
        id: i64,
        ttl: i64,
        free: impl FnMut() -> i64,
    ) -> Result<(i64, i64), Error> {
        if ttl > MAX_TTL {
            return Err(Error::LeaseTooLong);
        }
        let mut free = free;
        let id = if id == 0 {
            std::iter::repeat_with(&mut free)
                .find(|id| *id > 0 && self.data.leases.get(*id).is_none())
                .unwrap_or_default()
        } else {
            id
        };
        if self.data.leases.get(id).is_some() {
            return Err(Error::LeaseExists);
        }
        let ttl = ttl.max(1);
        let expires = self.wall.as_millisecond().saturating_add(ttl.saturating_mul(1000));
        let record = log::Lease { id, ttl, expires, renewed: false };
        let location = self.log.append(Kind::Lease, 0, &record);
        self.data.live(location);
        self.data.leases.grant(record, location, self.now);
        Ok((id, ttl))
    }

    /// Notes that a lease has been kept alive, so that a restart does not end it early.
    pub(crate) fn renewed(&mut self, id: i64) {
        let Some(lease) = self.data.leases.get(id).filter(|l| !l.record.renewed) else { return };
        let record = log::Lease { renewed: true, ..lease.record };
        let location = self.log.append(Kind::Lease, 0, &record);
        self.data.live(location);
        if let Some(old) = self.data.leases.rewritten(record, location) {
            self.data.dead(old);
        }
    }

    /// Ends a lease and deletes its keys, in one revision. Returns the revision.
    pub(crate) fn revoke(&mut self, id: i64) -> Result<i64, Error> {
        let lease = self.data.leases.end(id).ok_or(Error::LeaseNotFound)?;
        self.log.append(Kind::LeaseEnd, 0, &log::Lease { id, ..log::Lease::default() });
        self.data.dead(lease.location);
        let mut revision = self.begin();
        for key in &lease.keys {
            self.apply_deletion(key, id, &mut revision);
        }
        Ok(self.end(&revision))
    }

    /// Ends the leases whose time is over, some of them if they are many. Returns whether there may be more.
    pub(crate) fn expire(&mut self) -> bool {
        const MOST: usize = 64;
        let over = self.data.leases.expired(self.now, MOST);
        for id in &over {
            tracing::debug!(lease = id, "a lease has expired");
            // It was there a moment ago, and nobody else writes.
            let _ = self.revoke(*id);
        }
        over.len() == MOST
    }

    /// Sees to it that revisions which are given out before they are durable lie below a ceiling that is.
    pub(crate) fn keep_below_ceiling(&mut self) {
        if self.log.may_wait() && self.log.pending() > 0 && self.data.revision > self.data.ceiling {
            self.data.ceiling = self.data.revision + CEILING;
            self.note_state();
        }
    }

    /// Appends the state of the store as a whole.
    pub(crate) fn note_state(&mut self) {
        self.log.append(Kind::State, 0, &self.data.state());
    }
}
