//! The multi-version store: what every key was at every revision that is remembered.
//!
//! One thread writes ([`crate::commit`]); everybody reads, at revisions that are durable already.

mod check;
mod index;
mod open;
mod read;
mod txn;
pub(crate) mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use prost::Message;
use tokio::sync::{Notify, watch};

use crate::engine::{EngineError, Location, Segments};
use crate::lease::Leases;
use crate::pb::etcdserverpb::ResponseHeader;
use crate::pb::log;
use crate::pb::mvccpb::KeyValue;
use crate::watch::Recent;

pub use check::{
    MAX_REQUEST_BYTES, MAX_TXN_OPS, check_delete, check_put, check_range, check_txn, is_read_only,
};
pub use index::{Change, Index, Key, KeyRange, Version};
pub(crate) use open::{Opening, boot};
pub(crate) use read::{Everything, read_body};

/// Why a request is refused. The messages are etcd's, by which clients tell them apart.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no key in the request.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// The value or lease of a key is to be kept, but there is no key.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// A value is given and to be ignored.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// A lease is given and to be ignored.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// The transaction has too many operations.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// The transaction writes a key twice.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// The request is larger than is allowed.
    #[error("etcdserver: request is too large")]
    TooLarge,
    /// The order to sort in does not exist.
    #[error("etcdserver: invalid sort option")]
    InvalidSort,
    /// A field of the request has a value that its type does not have.
    #[error("etcdserver: {0}")]
    Invalid(&'static str),
    /// The revision is forgotten.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision is not yet written.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    Future,
    /// The store is as large as it may be.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// There is no such lease.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// There is a lease with this id.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// The life of the lease would be too long.
    #[error("etcdserver: too large lease TTL")]
    LeaseTooLong,
    /// The server ends.
    #[error("etcdserver: server stopped")]
    Stopped,
    /// The disk failed; the server ends.
    #[error("etcdserver: the store failed")]
    Engine(#[from] EngineError),
}

/// What is in a segment of the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Use {
    /// Its size in bytes.
    pub total: u64,
    /// Bytes of it that are still needed.
    pub live: u64,
}

/// Everything that is known without reading the disk.
#[derive(Debug, Default)]
pub(crate) struct Data {
    pub index: Index,
    pub leases: Leases,
    /// Replaced, never changed, so that readers hold on to it cheaply.
    pub segments: Arc<Segments>,
    pub uses: BTreeMap<u32, Use>,
    /// The newest revision that was applied; it may not be durable yet.
    pub revision: i64,
    /// Older revisions are forgotten.
    pub compacted: i64,
    /// Types of the alarms that are raised.
    pub alarms: BTreeSet<i32>,
    pub cluster_id: u64,
    pub member_id: u64,
    /// See `State` of the log.
    pub ceiling: i64,
    /// The boot of the machine that lasts.
    pub boot: String,
}

impl Data {
    pub(crate) fn live(&mut self, location: Location) {
        self.uses.entry(location.segment).or_default().live += location.footprint();
    }

    pub(crate) fn dead(&mut self, location: Location) {
        let used = self.uses.entry(location.segment).or_default();
        used.live = used.live.saturating_sub(location.footprint());
    }

    /// Bytes of the whole log, and bytes of it that are still needed.
    pub(crate) fn size(&self) -> Use {
        let sum = |total: Use, one: &Use| Use { total: total.total + one.total, live: total.live + one.live };
        self.uses.values().fold(Use::default(), sum)
    }

    pub(crate) fn state(&self) -> log::State {
        log::State {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision: self.revision,
            compacted: self.compacted,
            alarms: self.alarms.iter().copied().collect(),
            ceiling: self.ceiling,
            boot: if self.ceiling > 0 { self.boot.clone() } else { String::new() },
        }
    }

    /// Checks that a revision can be read.
    pub(crate) fn check_revision(&self, revision: i64, newest: i64) -> Result<(), Error> {
        if revision > newest {
            return Err(Error::Future);
        }
        if revision > 0 && revision < self.compacted {
            return Err(Error::Compacted);
        }
        Ok(())
    }
}

/// The store, shared by its writer and its readers.
pub struct Store {
    data: RwLock<Data>,
    /// The newest revision that is durable; readers see nothing newer.
    committed: watch::Sender<i64>,
    recent: Mutex<Recent>,
    /// Told when the next lease to end may have become another.
    pub(crate) leases_changed: Notify,
    cluster_id: u64,
    member_id: u64,
}

impl Store {
    pub(crate) fn new(data: Data) -> Self {
        Self {
            committed: watch::Sender::new(data.revision),
            recent: Mutex::new(Recent::new(data.revision)),
            leases_changed: Notify::new(),
            cluster_id: data.cluster_id,
            member_id: data.member_id,
            data: RwLock::new(data),
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Data> {
        self.data.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Data> {
        self.data.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        component::tasks::lock(&self.recent)
    }

    /// The newest revision that is durable.
    pub fn revision(&self) -> i64 {
        *self.committed.borrow()
    }

    /// Tells the newest durable revision, now and later.
    pub fn revisions(&self) -> watch::Receiver<i64> {
        self.committed.subscribe()
    }

    pub(crate) fn commit(&self, revision: i64) {
        self.committed.send_if_modified(|known| std::mem::replace(known, revision) != revision);
    }

    /// The id of this member, who is always the only one.
    pub fn member_id(&self) -> u64 {
        self.member_id
    }

    /// The header of a response that speaks of a revision.
    pub fn header_at(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision,
            // There is never another leader.
            raft_term: 1,
        }
    }

    /// The header of a response that speaks of the present.
    pub fn header(&self) -> ResponseHeader {
        self.header_at(self.revision())
    }
}

pub(crate) fn decode(body: Bytes) -> Result<KeyValue, EngineError> {
    Ok(KeyValue::decode(body)?)
}

#[cfg(test)]
mod tests;
