//! Feeds the copies of all resources from one watch of the store, and answers how current they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use api::Kind;
use component::health::Check;
use component::tasks::Spawner;
use etcd_client::{EventType, WatchResponse, WatchStream};
use tokio::sync::{mpsc, oneshot, watch};

use super::cache::{Cache, Entry};
use super::etcd::{Etcd, EtcdError};
use super::layout::{prefix_end, storage_kind, stored_kinds};
use super::version;

/// Objects read in one go when the copies are filled.
const LOAD_PAGE: i64 = 1000;
/// How many revisions before the present the copies begin, so that watches which were open before a restart
/// find their place in the window; the first that the store still has is taken.
const LOOK_BACK: &[i64] = &[1000, 200, 0];
/// The longest pause between attempts to reach etcd.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// How current the copies can be made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HubError {
    /// The store cannot tell its revision. Retryable.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// The copies did not reach the revision in time. Retryable.
    #[error("Too large resource version: {wanted}, current: {current}")]
    TooNew {
        /// The revision waited for.
        wanted: i64,
        /// The revision reached.
        current: i64,
    },
}

/// The copies of all resources.
pub struct Hub {
    etcd: Etcd,
    caches: Vec<Arc<Cache>>,
    /// Everything up to this revision has been applied to every copy. 0 until the copies are as new as the store
    /// was when they were filled.
    revision: watch::Sender<i64>,
    /// What has been applied so far, told or not.
    applied: AtomicI64,
    /// The first revision that is told.
    target: AtomicI64,
    questions: mpsc::UnboundedSender<oneshot::Sender<Result<i64, EtcdError>>>,
}

impl Hub {
    /// Empty copies, and the tasks that fill them. `check` tells whether they follow the store.
    pub fn start(etcd: Etcd, tasks: &Spawner, check: Check) -> Arc<Self> {
        let (revision, receiver) = watch::channel(0);
        let caches =
            stored_kinds().map(|kind| Arc::new(Cache::new(etcd.prefix(), kind, receiver.clone()))).collect();
        let (questions, asked) = mpsc::unbounded_channel();
        let hub = Arc::new(Self {
            etcd: etcd.clone(),
            caches,
            revision,
            applied: AtomicI64::new(0),
            target: AtomicI64::new(0),
            questions,
        });
        let token = tasks.token();
        tasks.spawn("revision reader", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = answer_revisions(etcd, asked) => {}
            }
        });
        let feeding = hub.clone();
        let token = tasks.token();
        tasks.spawn("cache feeder", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = feeding.feed(check) => {}
            }
        });
        hub
    }

    /// The copy that holds the objects of a kind.
    pub fn cache(&self, kind: &'static Kind) -> &Arc<Cache> {
        let stored = storage_kind(kind);
        self.caches.iter().find(|c| std::ptr::eq(c.kind, stored)).expect("every stored kind has a cache")
    }

    /// The revision up to which everything is known.
    pub fn revision(&self) -> i64 {
        *self.revision.borrow()
    }

    /// Waits until the copies have been filled once.
    pub async fn filled(&self) {
        // The sender lives in self.
        let _ = self.revision.subscribe().wait_for(|r| *r > 0).await;
    }

    /// Waits until everything that was acknowledged before this call is in the copies.
    pub async fn most_recent(&self, patience: Duration) -> Result<i64, HubError> {
        let (answer, answered) = oneshot::channel();
        let gone = || EtcdError::Unavailable("the server is shutting down".into());
        self.questions.send(answer).map_err(|_| gone())?;
        let revision = answered.await.map_err(|_| gone())??;
        self.reach(revision, patience).await?;
        Ok(revision)
    }

    /// Waits until everything up to a revision is in the copies.
    pub async fn reach(&self, wanted: i64, patience: Duration) -> Result<(), HubError> {
        let mut revision = self.revision.subscribe();
        let reached = revision.wait_for(|r| *r >= wanted);
        match tokio::time::timeout(patience, reached).await {
            Ok(_) => Ok(()),
            Err(_) => Err(HubError::TooNew { wanted, current: self.revision() }),
        }
    }

    async fn feed(&self, check: Check) {
        let mut pause = Duration::from_millis(50);
        let mut loaded = false;
        loop {
            if !loaded {
                match self.load().await {
                    Ok(()) => loaded = true,
                    Err(error) => {
                        check.failed(error.to_string());
                        tracing::warn!(%error, "could not read the store; trying again");
                    }
                }
            }
            if loaded {
                match self.follow(&check).await {
                    Followed::Reload(why) => {
                        tracing::warn!(why, "the copies begin anew");
                        loaded = false;
                        pause = Duration::from_millis(50);
                        continue;
                    }
                    Followed::Broken { why, progressed } => {
                        check.failed(why.clone());
                        tracing::warn!(
                            why,
                            revision = self.revision(),
                            "the watch of the store broke; resuming"
                        );
                        if progressed {
                            pause = Duration::from_millis(50);
                        }
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Fills every copy with what stood in the store a moment ago; what happened since is followed.
    async fn load(&self) -> Result<(), EtcdError> {
        let current = self.etcd.current_version().await?;
        for back in LOOK_BACK {
            let revision = version::back(current, *back);
            match self.load_at(revision).await {
                // Only the present itself cannot have been compacted, unless much happens this moment.
                Err(EtcdError::Compacted) if *back > 0 => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    self.target.store(current, Ordering::Release);
                    self.revision.send_replace(0);
                    self.reached(revision);
                    tracing::info!(revision, current, "the copies are filled");
                    return Ok(());
                }
            }
        }
        Err(EtcdError::Compacted)
    }

    async fn load_at(&self, revision: i64) -> Result<(), EtcdError> {
        let mut contents = Vec::new();
        for cache in &self.caches {
            let mut entries = BTreeMap::new();
            let mut start = cache.prefix().to_owned();
            loop {
                let end = prefix_end(cache.prefix());
                let page = self.etcd.range(&start, Some(end), revision, LOAD_PAGE, false).await?;
                for item in &page.items {
                    let Some(key) = item.key.strip_prefix(cache.prefix()) else { continue };
                    match Entry::new(cache.kind, key, &item.value, item.version) {
                        Some(entry) => {
                            entries.insert(entry.key.clone(), Arc::new(entry));
                        }
                        None => tracing::error!(key = item.key, "a value in the store is no object"),
                    }
                }
                match page.items.last() {
                    Some(last) if page.more => start = format!("{}\0", last.key),
                    _ => break,
                }
            }
            contents.push((cache, entries));
        }
        for (cache, entries) in contents {
            cache.reset(entries, revision);
        }
        Ok(())
    }

    /// Everything up to a revision has been applied; tells those who wait, once the copies are current.
    fn reached(&self, revision: i64) {
        self.applied.store(revision, Ordering::Release);
        if revision >= self.target.load(Ordering::Acquire) {
            self.revision.send_if_modified(|known| {
                let newer = revision > *known;
                *known = revision.max(*known);
                newer
            });
        }
    }

    async fn follow(&self, check: &Check) -> Followed {
        let mut progressed = false;
        let known = self.applied.load(Ordering::Acquire);
        let broken = |why: String, progressed| Followed::Broken { why, progressed };
        let mut stream: WatchStream = match self.etcd.watch_all(known).await {
            Ok(stream) => stream,
            Err(error) => return broken(error.to_string(), progressed),
        };
        loop {
            let response = match stream.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return broken("etcd closed the stream".into(), progressed),
                Err(error) => return broken(EtcdError::from(error).to_string(), progressed),
            };
            if response.canceled() || response.compact_revision() > 0 {
                return Followed::Reload("the revision has been compacted");
            }
            let revision = version::end(response.header().map_or(0, |h| h.revision()));
            if response.created() {
                if revision < known {
                    return Followed::Reload("the store went back to an older revision");
                }
                check.ok();
                continue;
            }
            progressed = true;
            self.apply(&response);
        }
    }

    fn apply(&self, response: &WatchResponse) {
        let mut reached = 0;
        let mut changes: BTreeMap<usize, Vec<(&str, Option<&[u8]>, i64)>> = BTreeMap::new();
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            reached = reached.max(version::end(kv.mod_revision()));
            let Ok(key) = kv.key_str() else { continue };
            let at = version::of(key, kv.mod_revision());
            let found =
                self.caches.iter().enumerate().find_map(|(i, c)| Some((i, key.strip_prefix(c.prefix())?)));
            let Some((index, key)) = found else { continue };
            let value = (event.event_type() == EventType::Put).then(|| kv.value());
            changes.entry(index).or_default().push((key, value, at));
        }
        for (index, mut changes) in changes {
            // The keys of one transaction come in the order in which it wrote them.
            changes.sort_by_key(|(_, _, at)| *at);
            self.caches[index].apply(changes.into_iter());
        }
        if response.events().is_empty() {
            // A notice of progress: its revision is behind every event that was sent before it.
            reached = version::end(response.header().map_or(0, |h| h.revision()));
        }
        if reached > self.applied.load(Ordering::Acquire) {
            self.reached(reached);
        }
    }
}

enum Followed {
    Broken { why: String, progressed: bool },
    Reload(&'static str),
}

/// Reads the store's revision for everybody who asked before the read began.
async fn answer_revisions(
    etcd: Etcd,
    mut asked: mpsc::UnboundedReceiver<oneshot::Sender<Result<i64, EtcdError>>>,
) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, usize::MAX).await > 0 {
        let revision = etcd.current_version().await;
        for answer in waiting.drain(..) {
            // Who asked may have gone away.
            let _ = answer.send(revision.clone());
        }
    }
}
