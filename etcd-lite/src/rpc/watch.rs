//! The Watch service. Every stream follows the store by itself, at the pace at which its client reads.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::App;
use crate::mvcc::{Error, KeyRange, MAX_REQUEST_BYTES, Store};
use crate::pb::etcdserverpb::watch_request::RequestUnion;
use crate::pb::etcdserverpb::watch_server::Watch;
use crate::pb::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use crate::pb::mvccpb::event::EventType;
use crate::pb::mvccpb::{Event, KeyValue};
use crate::watch::{Watcher, Watchers, fragments, pieces};

/// Changes that are told at once, about.
const CHANGES: usize = 1000;
/// The size of a response beyond which the next revisions go into one of their own.
const PIECE: usize = 1 << 20;
/// The size of a response beyond which it is split even within a revision, for those who want that.
const FRAGMENT: usize = MAX_REQUEST_BYTES + (512 << 10);
/// The id in answers that concern the whole stream.
const NO_WATCH: i64 = -1;

type Responses = mpsc::Sender<Result<WatchResponse, Status>>;

#[tonic::async_trait]
impl Watch for App {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (out, responses) = mpsc::channel(16);
        let position = self.store.revision();
        let stream = Stream { store: self.store.clone(), watchers: Watchers::default(), position, out };
        let (token, interval) = (self.shutdown.clone(), self.progress_interval);
        self.tasks.spawn("watch stream", async move {
            tokio::select! {
                () = token.cancelled() => {}
                ended = stream.run(request.into_inner(), interval) => {
                    if let Err(Ended::Failed(error)) = ended {
                        tracing::warn!(%error, "a watch stream ended");
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

/// Why a stream ended.
enum Ended {
    /// The client is gone.
    Gone,
    /// The store cannot be read.
    Failed(Error),
}

struct Stream {
    store: Arc<Store>,
    watchers: Watchers,
    /// Every watcher was told everything up to this revision.
    position: i64,
    out: Responses,
}

impl Stream {
    async fn run(
        mut self,
        mut requests: Streaming<WatchRequest>,
        interval: std::time::Duration,
    ) -> Result<(), Ended> {
        let mut revisions = self.store.revisions();
        let mut progress = interval_at(Instant::now() + interval, interval);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let out = self.out.clone();
        // A client that sends no more requests may still want to hear what it asked for.
        let mut asking = true;
        loop {
            tokio::select! {
                request = requests.message(), if asking => match request {
                    Ok(Some(WatchRequest { request_union: Some(request) })) => self.request(request).await?,
                    Ok(Some(_)) => {}
                    Ok(None) => asking = false,
                    Err(_) => return Err(Ended::Gone),
                },
                // The sender lives as long as the store.
                _ = revisions.changed() => self.advance().await?,
                _ = progress.tick() => {
                    self.advance().await?;
                    for id in self.watchers.quiet() {
                        self.send(WatchResponse { watch_id: id, ..Default::default() }).await?;
                    }
                }
                () = out.closed() => return Err(Ended::Gone),
            }
        }
    }

    async fn send(&self, response: WatchResponse) -> Result<(), Ended> {
        self.send_at(self.position, response).await
    }

    async fn send_at(&self, revision: i64, response: WatchResponse) -> Result<(), Ended> {
        let response = WatchResponse { header: Some(self.store.header_at(revision)), ..response };
        self.out.send(Ok(response)).await.map_err(|_| Ended::Gone)
    }

    async fn request(&mut self, request: RequestUnion) -> Result<(), Ended> {
        match request {
            RequestUnion::CreateRequest(create) => self.create(&create).await,
            RequestUnion::CancelRequest(cancel) => {
                if self.watchers.remove(cancel.watch_id) {
                    let response =
                        WatchResponse { watch_id: cancel.watch_id, canceled: true, ..Default::default() };
                    self.send(response).await?;
                }
                Ok(())
            }
            RequestUnion::ProgressRequest(_) => {
                // What the answer says comes after everything that it speaks of.
                self.advance().await?;
                self.send(WatchResponse { watch_id: NO_WATCH, ..Default::default() }).await
            }
        }
    }

    async fn create(&mut self, request: &WatchCreateRequest) -> Result<(), Ended> {
        let now = self.store.revision();
        let from = if request.start_revision > 0 { request.start_revision } else { now + 1 };
        let watcher = Watcher::new(request, from);
        let refused = |reason: &str| WatchResponse {
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            cancel_reason: reason.into(),
            ..Default::default()
        };
        if let KeyRange::Between(start, end) = &watcher.range
            && start >= end
        {
            return self.send_at(now, refused("mvcc: watcher range is empty")).await;
        }
        let Some(id) = self.watchers.add(request.watch_id, watcher.clone()) else {
            return self.send_at(now, refused("mvcc: duplicate watch ID provided on the WatchStream")).await;
        };
        self.send_at(now, WatchResponse { watch_id: id, created: true, ..Default::default() }).await?;
        self.catch_up(id, &watcher).await?;
        // Changes from before this stream listened for them wake nobody.
        self.advance().await
    }

    /// Tells a new watcher what the others were told already.
    async fn catch_up(&mut self, id: i64, watcher: &Watcher) -> Result<(), Ended> {
        let mut from = watcher.from;
        while from <= self.position {
            let (store, range, to) = (self.store.clone(), watcher.range.clone(), self.position);
            let read = move || store.changes(&range, from, to, CHANGES);
            let (changes, reached) = match tokio::task::spawn_blocking(read).await {
                Ok(Err(Error::Compacted)) => return self.compacted(id).await,
                Ok(result) => result.map_err(Ended::Failed)?,
                Err(_) => return Err(Ended::Gone),
            };
            let events = changes.into_iter().map(|(version, kv)| event(version.is_deletion(), kv));
            let wanted: Vec<_> = events.filter(|event| watcher.wants(event)).collect();
            self.tell(id, reached, wanted).await?;
            from = reached + 1;
        }
        Ok(())
    }

    /// Tells a watcher that what it wants to hear is forgotten.
    async fn compacted(&mut self, id: i64) -> Result<(), Ended> {
        self.watchers.remove(id);
        let compact_revision = self.store.read().compacted;
        self.send(WatchResponse { watch_id: id, canceled: true, compact_revision, ..Default::default() })
            .await
    }

    /// Tells all watchers what happened since the last time.
    async fn advance(&mut self) -> Result<(), Ended> {
        loop {
            let now = self.store.revision();
            if self.position >= now {
                return Ok(());
            }
            if self.watchers.is_empty() {
                self.position = now;
                return Ok(());
            }
            let recent = self.store.recent().since(self.position, CHANGES);
            match recent {
                Some(batches) => {
                    let newest = batches.last().map_or(now, |batch| batch.last);
                    let position = self.position;
                    let new = |e: &&Event| e.kv.as_ref().is_some_and(|kv| kv.mod_revision > position);
                    let events = batches.iter().flat_map(|batch| &batch.events).filter(new);
                    let told = self.watchers.distribute(events);
                    self.tell_all(newest, told).await?;
                }
                None => self.advance_from_disk(now).await?,
            }
        }
    }

    /// This client reads slower than changes happen, so that those which it needs are no longer in memory.
    async fn advance_from_disk(&mut self, now: i64) -> Result<(), Ended> {
        let (store, from) = (self.store.clone(), self.position + 1);
        let all = KeyRange::From(bytes::Bytes::new());
        match tokio::task::spawn_blocking(move || store.changes(&all, from, now, CHANGES)).await {
            Ok(Ok((changes, reached))) => {
                let events: Vec<Event> =
                    changes.into_iter().map(|(version, kv)| event(version.is_deletion(), kv)).collect();
                let told = self.watchers.distribute(&events);
                self.tell_all(reached, told).await
            }
            Ok(Err(Error::Compacted)) => {
                for id in self.watchers.ids() {
                    self.compacted(id).await?;
                }
                self.position = now;
                Ok(())
            }
            Ok(Err(error)) => Err(Ended::Failed(error)),
            Err(_) => Err(Ended::Gone),
        }
    }

    async fn tell_all(
        &mut self,
        reached: i64,
        told: std::collections::BTreeMap<i64, Vec<Event>>,
    ) -> Result<(), Ended> {
        for (id, events) in told {
            self.tell(id, reached, events).await?;
        }
        self.position = reached;
        Ok(())
    }

    async fn tell(&mut self, id: i64, revision: i64, mut events: Vec<Event>) -> Result<(), Ended> {
        if events.is_empty() {
            return Ok(());
        }
        let Some(watcher) = self.watchers.get_mut(id) else { return Ok(()) };
        watcher.active = true;
        let (prev_kv, fragment) = (watcher.prev_kv, watcher.fragment);
        if prev_kv {
            self.add_previous(&mut events).await?;
        }
        for piece in pieces(events, PIECE) {
            let groups = if fragment { fragments(piece, FRAGMENT) } else { vec![piece] };
            let last = groups.len() - 1;
            for (n, events) in groups.into_iter().enumerate() {
                let response =
                    WatchResponse { watch_id: id, fragment: n < last, events, ..Default::default() };
                self.send_at(revision, response).await?;
            }
        }
        Ok(())
    }

    /// Adds to every event what its key was before; nothing when that is forgotten.
    async fn add_previous(&self, events: &mut Vec<Event>) -> Result<(), Ended> {
        let (store, mut filled) = (self.store.clone(), std::mem::take(events));
        let read = move || {
            for event in &mut filled {
                let Some(kv) = &event.kv else { continue };
                let before = kv.mod_revision - 1;
                if before >= store.read().compacted {
                    event.prev_kv = store.get_at(&kv.key, before)?;
                }
            }
            Ok(filled)
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(filled) => *events = filled.map_err(Ended::Failed)?,
            Err(_) => return Err(Ended::Gone),
        }
        Ok(())
    }
}

fn event(deletion: bool, kv: KeyValue) -> Event {
    let kind = if deletion { EventType::Delete } else { EventType::Put };
    Event { r#type: kind as i32, kv: Some(kv), prev_kv: None }
}
