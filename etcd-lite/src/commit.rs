//! The one thread that writes: what waits is carried out together, made durable by one sync, and then answered.

use std::sync::Arc;

use bytes::Bytes;
use component::clock::Clock;
use rand::RngExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::{EngineError, Log};
use crate::metrics::StoreMetrics;
use crate::mvcc::write::Batch;
use crate::mvcc::{Error, Store};
use crate::pb::etcdserverpb::{
    AlarmType, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, TxnRequest, TxnResponse,
};

mod chores;

use chores::Chores;

/// Requests that may wait for the writer.
const QUEUE: usize = 4096;
/// Requests of one batch.
const BATCH: usize = 1024;
/// Bytes of one batch after which no further request joins it.
const BATCH_BYTES: usize = 4 << 20;
/// Room that is reserved on the disk at once.
const RESERVE: u64 = 1 << 20;

/// What a writer is asked for.
enum Request {
    Put(PutRequest, Reply<PutResponse>),
    Delete(DeleteRangeRequest, Reply<DeleteRangeResponse>),
    Txn(TxnRequest, Reply<TxnResponse>),
    /// Forget older revisions; answer at once, or when their records are dropped.
    Compact(i64, bool, Reply<i64>),
    /// Id, or 0, and seconds.
    Grant(i64, i64, Reply<(i64, i64)>),
    Revoke(i64, Reply<i64>),
    Renewed(i64, Reply<()>),
    /// End the leases whose time is over.
    Expire(Reply<()>),
    /// Raise or lower an alarm.
    Alarm(AlarmType, bool, Reply<()>),
    /// Rewrite everything, so that nothing dead remains.
    Defragment(Reply<()>),
    /// Make durable what is not.
    Sync(Reply<()>),
}

type Reply<T> = oneshot::Sender<Result<T, Error>>;
/// Tells those who asked, once what they asked for is durable.
type Answer = Box<dyn FnOnce() + Send>;

/// Where writes are handed in. Cheap to clone; the writer ends when the last one is dropped.
#[derive(Clone)]
pub struct Writes {
    queue: mpsc::Sender<Request>,
}

macro_rules! ask {
    ($self:ident, $variant:ident $(, $argument:expr)*) => {{
        let (reply, answered) = oneshot::channel();
        let request = Request::$variant($($argument,)* reply);
        $self.queue.send(request).await.map_err(|_| Error::Stopped)?;
        answered.await.map_err(|_| Error::Stopped)?
    }};
}

impl Writes {
    /// Writes a key. The request must have been checked.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Error> {
        ask!(self, Put, request)
    }

    /// Deletes a range of keys. The request must have been checked.
    pub async fn delete(&self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Error> {
        ask!(self, Delete, request)
    }

    /// Carries out a transaction. The request must have been checked.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        ask!(self, Txn, request)
    }

    /// Forgets revisions before this one; `physical` waits until their records are dropped from memory.
    pub async fn compact(&self, revision: i64, physical: bool) -> Result<i64, Error> {
        ask!(self, Compact, revision, physical)
    }

    /// Grants a lease; returns its id and seconds.
    pub async fn grant(&self, id: i64, ttl: i64) -> Result<(i64, i64), Error> {
        ask!(self, Grant, id, ttl)
    }

    /// Ends a lease and its keys; returns the revision.
    pub async fn revoke(&self, id: i64) -> Result<i64, Error> {
        ask!(self, Revoke, id)
    }

    /// Notes that a lease has been kept alive.
    pub async fn renewed(&self, id: i64) -> Result<(), Error> {
        ask!(self, Renewed, id)
    }

    /// Ends the leases whose time is over.
    pub async fn expire(&self) -> Result<(), Error> {
        ask!(self, Expire)
    }

    /// Raises or lowers an alarm.
    pub async fn alarm(&self, alarm: AlarmType, on: bool) -> Result<(), Error> {
        ask!(self, Alarm, alarm, on)
    }

    /// Makes the heartbeats durable that are not.
    pub async fn sync(&self) -> Result<(), Error> {
        ask!(self, Sync)
    }

    /// Rewrites everything, so that nothing dead remains; returns when that is done.
    pub async fn defragment(&self) -> Result<(), Error> {
        ask!(self, Defragment)
    }
}

/// What a writer is told.
pub(crate) struct WriterConfig {
    /// Bytes of live data beyond which writes are refused.
    pub quota: u64,
    /// What the keys of heartbeats begin with.
    pub heartbeats: Vec<Bytes>,
    pub clock: Clock,
    pub metrics: StoreMetrics,
}

/// Starts the writer. When it fails, what it failed with is sent and `broken` is cancelled.
pub(crate) fn start(
    store: Arc<Store>,
    log: Log,
    config: WriterConfig,
    broken: CancellationToken,
) -> std::io::Result<(Writes, oneshot::Receiver<EngineError>, std::thread::JoinHandle<()>)> {
    let (queue, asked) = mpsc::channel(QUEUE);
    let (failed, failure) = oneshot::channel();
    let run = move || {
        let mut writer = Writer { store, log, config, asked, chores: Chores::default(), reserved: 0 };
        if let Err(error) = writer.run() {
            tracing::error!(%error, "the store failed");
            // Nobody listens any more when the server ends anyway.
            let _ = failed.send(error);
            broken.cancel();
        }
    };
    // Syncs block for milliseconds, all the time: a thread, not a task.
    let thread = std::thread::Builder::new().name("writer".into()).spawn(run)?;
    Ok((Writes { queue }, failure, thread))
}

struct Writer {
    store: Arc<Store>,
    log: Log,
    config: WriterConfig,
    asked: mpsc::Receiver<Request>,
    chores: Chores,
    /// Bytes of the active segment for which the disk has promised room.
    reserved: u64,
}

impl Writer {
    fn run(&mut self) -> Result<(), EngineError> {
        let mut batch = Vec::new();
        loop {
            let first = if self.chores.pending() {
                match self.asked.try_recv() {
                    Ok(first) => Some(first),
                    Err(mpsc::error::TryRecvError::Empty) => None,
                    Err(mpsc::error::TryRecvError::Disconnected) => return self.finish(),
                }
            } else {
                match self.asked.blocking_recv() {
                    Some(first) => Some(first),
                    None => return self.finish(),
                }
            };
            if let Some(first) = first {
                let mut bytes = size(&first);
                batch.push(first);
                while batch.len() < BATCH && bytes < BATCH_BYTES {
                    let Ok(next) = self.asked.try_recv() else { break };
                    bytes += size(&next);
                    batch.push(next);
                }
                self.commit(&mut batch, bytes as u64)?;
            }
            self.step()?;
        }
    }

    /// Leaves everything durable, and says so.
    fn finish(&mut self) -> Result<(), EngineError> {
        let mut data = self.store.write();
        if std::mem::take(&mut data.ceiling) > 0 {
            self.log.append(crate::engine::Kind::State, 0, &data.state());
        }
        drop(data);
        self.log.hurry();
        self.flush()
    }

    /// Carries out a batch, makes it durable, and answers.
    fn commit(&mut self, batch: &mut Vec<Request>, bytes: u64) -> Result<(), EngineError> {
        self.roll_if_full()?;
        let room = self.reserve(bytes);
        let mut events = Vec::new();
        let mut answers: Vec<Answer> = Vec::with_capacity(batch.len());
        let (store, quota) = (self.store.clone(), self.config.quota);
        let (first, revision) = {
            let mut data = store.write();
            let first = data.revision + 1;
            let mut writing = Batch {
                data: &mut data,
                log: &mut self.log,
                events: &mut events,
                heartbeats: &self.config.heartbeats,
                now: Instant::now(),
                wall: self.config.clock.now(),
            };
            if !room {
                raise_no_space(&mut writing);
            }
            for request in batch.drain(..) {
                let refused = grows(&request) && no_space(&mut writing, quota, size(&request) as u64);
                carry_out(&mut writing, request, refused, &mut self.chores, &mut answers)?;
            }
            writing.keep_below_ceiling();
            (first, data.revision)
        };
        self.flush()?;
        if !events.is_empty() {
            store.recent().push(first, revision, events);
        }
        store.commit(revision);
        self.config.metrics.committed(revision, answers.len());
        for answer in answers {
            answer();
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        let (began, waits) = (Instant::now(), self.log.may_wait());
        let written = self.log.flush()?;
        if written > 0 {
            self.config.metrics.written(written);
            if !waits {
                self.config.metrics.synced(began.elapsed());
            }
            let mut data = self.store.write();
            data.uses.entry(self.log.active()).or_default().total += written;
        }
        Ok(())
    }

    fn roll_if_full(&mut self) -> Result<(), EngineError> {
        if self.log.is_full() { self.roll() } else { Ok(()) }
    }

    /// Goes on in a new segment, whose first entry is the state of the store.
    fn roll(&mut self) -> Result<(), EngineError> {
        let segment = self.log.roll()?;
        self.reserved = 0;
        let mut data = self.store.write();
        let mut segments = (*data.segments).clone();
        segments.insert(segment.id(), segment.clone());
        data.segments = Arc::new(segments);
        data.uses.insert(segment.id(), Default::default());
        self.log.append(crate::engine::Kind::State, 0, &data.state());
        drop(data);
        self.flush()
    }

    /// Makes sure that the disk has room for a batch; false when it has not.
    fn reserve(&mut self, bytes: u64) -> bool {
        // Deletions and records of the store's own are small, but not nothing.
        let needed = self.log.written() + bytes * 2 + (256 << 10);
        if needed <= self.reserved {
            return true;
        }
        let more = (needed - self.log.written()).max(RESERVE);
        match self.log.reserve(more) {
            Ok(()) => {
                self.reserved = self.log.written() + more;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the disk is full; refusing writes");
                false
            }
        }
    }
}

/// The bytes that a request brings along, roughly.
fn size(request: &Request) -> usize {
    use prost::Message;
    match request {
        Request::Put(put, _) => put.encoded_len() + 64,
        Request::Txn(txn, _) => txn.encoded_len() + 64,
        _ => 64,
    }
}

/// Whether a request may make the store larger.
fn grows(request: &Request) -> bool {
    match request {
        Request::Put(..) | Request::Grant(..) => true,
        Request::Txn(txn, _) => has_put(txn),
        _ => false,
    }
}

fn has_put(txn: &TxnRequest) -> bool {
    use crate::pb::etcdserverpb::request_op::Request as Op;
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Op::RequestPut(_)) => true,
        Some(Op::RequestTxn(txn)) => has_put(txn),
        _ => false,
    })
}

fn raise_no_space(batch: &mut Batch<'_>) {
    if batch.data.alarms.insert(AlarmType::Nospace as i32) {
        tracing::warn!("the alarm NOSPACE is raised: writes are refused until it is disarmed");
        batch.note_state();
    }
}

/// Whether there is no room for so many bytes; raises the alarm when there is not.
fn no_space(batch: &mut Batch<'_>, quota: u64, bytes: u64) -> bool {
    if batch.data.alarms.contains(&(AlarmType::Nospace as i32)) {
        return true;
    }
    if batch.data.size().live + bytes <= quota {
        return false;
    }
    raise_no_space(batch);
    true
}

/// Keeps an answer until the batch is durable. Only what the disk did is the writer's own failure.
fn answer<T: Send + 'static>(
    answers: &mut Vec<Answer>,
    reply: Reply<T>,
    result: Result<T, Error>,
) -> Result<(), EngineError> {
    match result {
        Err(Error::Engine(error)) => Err(error),
        result => {
            // Who asked may have gone away.
            answers.push(Box::new(move || drop(reply.send(result))));
            Ok(())
        }
    }
}

fn carry_out(
    batch: &mut Batch<'_>,
    request: Request,
    refused: bool,
    chores: &mut Chores,
    answers: &mut Vec<Answer>,
) -> Result<(), EngineError> {
    let room = if refused { Err(Error::NoSpace) } else { Ok(()) };
    match request {
        Request::Put(put, reply) => answer(answers, reply, room.and_then(|()| batch.put(&put))),
        Request::Txn(txn, reply) => answer(answers, reply, room.and_then(|()| batch.txn(&txn))),
        Request::Delete(delete, reply) => answer(answers, reply, batch.delete(&delete)),
        Request::Grant(id, ttl, reply) => {
            let free = || rand::rng().random_range(1..=i64::MAX);
            answer(answers, reply, room.and_then(|()| batch.grant(id, ttl, free)))
        }
        Request::Revoke(id, reply) => answer(answers, reply, batch.revoke(id)),
        Request::Renewed(id, reply) => {
            batch.renewed(id);
            answer(answers, reply, Ok(()))
        }
        Request::Expire(reply) => {
            while batch.expire() && batch.log.pending() < BATCH_BYTES {}
            answer(answers, reply, Ok(()))
        }
        Request::Alarm(alarm, on, reply) => {
            let changed = match on {
                true => batch.data.alarms.insert(alarm as i32),
                false => batch.data.alarms.remove(&(alarm as i32)),
            };
            if changed {
                batch.note_state();
            }
            answer(answers, reply, Ok(()))
        }
        Request::Compact(revision, physical, reply) => {
            let result = compact(batch, revision);
            if result.is_ok() {
                chores.compact(revision);
            }
            match result {
                Ok(now) if physical => chores.when_compacted(Box::new(move || drop(reply.send(Ok(now))))),
                result => answer(answers, reply, result)?,
            }
            Ok(())
        }
        Request::Sync(reply) => {
            if batch.log.is_unsynced() {
                batch.log.hurry();
            }
            answer(answers, reply, Ok(()))
        }
        Request::Defragment(reply) => {
            chores.defragment(Box::new(move || drop(reply.send(Ok(())))));
            Ok(())
        }
    }
}

fn compact(batch: &mut Batch<'_>, revision: i64) -> Result<i64, Error> {
    if revision <= batch.data.compacted {
        return Err(Error::Compacted);
    }
    if revision > batch.data.revision {
        return Err(Error::Future);
    }
    batch.data.compacted = revision;
    batch.note_state();
    Ok(batch.data.revision)
}
