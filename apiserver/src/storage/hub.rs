//! Feeds the copies of all resources from one watch of the store, and answers how current they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use api::Kind;
use arc_swap::ArcSwap;
use component::health::Check;
use component::tasks::Spawner;
use etcd_client::{EventType, WatchResponse, WatchStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::cache::Cache;
use super::copies::Copies;
use super::entry::Entry;
use super::etcd::{Etcd, EtcdError, Versioned};
use super::layout::{prefix_end, storage_kind, stored_kinds};
use super::version;

/// Objects read in one go when the copies are filled.
const LOAD_PAGE: i64 = 1000;
/// How many revisions before the present the copies begin, so that watches which were open before a restart
/// find their place in the window; the first that the store still has is taken.
const LOOK_BACK: &[i64] = &[1000, 200, 0];
/// How often events that are too old are looked for, while there are events.
const SWEEP: Duration = Duration::from_secs(60);
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
    copies: ArcSwap<Copies>,
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
        let mut copies = Copies::default();
        for kind in stored_kinds() {
            let cache = Arc::new(Cache::new(etcd.prefix(), kind, receiver.clone()));
            copies.feed(cache.clone());
            copies.show(cache);
        }
        let (questions, asked) = mpsc::unbounded_channel();
        let hub = Arc::new(Self {
            etcd: etcd.clone(),
            copies: ArcSwap::from_pointee(copies),
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

    /// The copy that holds the objects of a kind. One that is not followed has an empty copy.
    pub fn cache(&self, kind: &'static Kind) -> Arc<Cache> {
        let copies = self.copies.load();
        let found = copies.of(kind).cloned();
        let kind = storage_kind(kind);
        found.unwrap_or_else(|| Arc::new(Cache::new(self.etcd.prefix(), kind, self.revision.subscribe())))
    }

    /// Begins to follow a kind that appears while the server runs. When this returns, its copy is complete.
    ///
    /// # Errors
    /// When the store cannot be read; nothing has changed then.
    pub async fn add(&self, kind: &'static Kind) -> Result<(), EtcdError> {
        if self.copies.load().of(kind).is_some() {
            return Ok(());
        }
        self.renew(kind).await
    }

    /// As [`Hub::add`], for a kind whose rules have changed: a new copy takes the place of the one there is, whose
    /// watchers are told that their position is gone.
    ///
    /// # Errors
    /// When the store cannot be read; the kind is not followed then.
    pub async fn renew(&self, kind: &'static Kind) -> Result<(), EtcdError> {
        let kind = storage_kind(kind);
        let before = self.copies.load().of(kind).cloned();
        let cache = Arc::new(Cache::awaiting(self.etcd.prefix(), kind, self.revision.subscribe()));
        self.change(|copies| copies.feed(cache.clone()));
        match self.contents(&cache).await {
            Ok((entries, revision)) => {
                cache.fill(entries, revision);
                self.change(|copies| copies.show(cache.clone()));
                if let Some(before) = before {
                    before.reset(Vec::new(), revision);
                }
                Ok(())
            }
            Err(error) => {
                self.change(|copies| {
                    copies.show(cache.clone());
                    copies.remove(kind);
                });
                Err(error)
            }
        }
    }

    /// Follows a kind no longer. Its watchers are told that their position is gone.
    pub fn remove(&self, kind: &'static Kind) {
        let mut removed = None;
        self.change(|copies| removed = copies.remove(kind));
        if let Some(cache) = removed {
            cache.reset(Vec::new(), self.revision());
        }
    }

    fn change(&self, mut change: impl FnMut(&mut Copies)) {
        self.copies.rcu(|copies| {
            let mut copies = Copies::clone(copies);
            change(&mut copies);
            copies
        });
    }

    /// What stands in the store of one kind, and at which revision.
    async fn contents(&self, cache: &Cache) -> Result<(Vec<Arc<Entry>>, i64), EtcdError> {
        let revision = self.etcd.current_version().await?;
        let mut entries = Vec::new();
        self.read(cache.prefix(), revision, |key, item| {
            if let Some(key) = key.strip_prefix(cache.prefix()) {
                entries.extend(entry(cache, key, item));
            }
        })
        .await?;
        Ok((entries, revision))
    }

    /// Reads everything beneath a prefix as it stood at a revision.
    async fn read(
        &self,
        prefix: &str,
        revision: i64,
        mut each: impl FnMut(&str, &Versioned),
    ) -> Result<(), EtcdError> {
        let mut start = prefix.to_owned();
        loop {
            let page = self.etcd.range(&start, Some(prefix_end(prefix)), revision, LOAD_PAGE, false).await?;
            page.items.iter().for_each(|item| each(&item.key, item));
            match page.items.last() {
                Some(last) if page.more => start = format!("{}\0", last.key),
                _ => return Ok(()),
            }
        }
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
        let copies = self.copies.load_full();
        let mut contents: BTreeMap<&str, Vec<Arc<Entry>>> = BTreeMap::new();
        // One pass over everything is faster than one for each kind.
        let root = format!("{}/", self.etcd.prefix());
        self.read(&root, revision, |key, item| {
            if let Some((cache, key)) = copies.find(key) {
                contents.entry(cache.prefix()).or_default().extend(entry(cache, key, item));
            }
        })
        .await?;
        for cache in copies.all() {
            cache.reset(contents.remove(cache.prefix()).unwrap_or_default(), revision);
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
        let mut sweep = Instant::now() + SWEEP;
        loop {
            let message = tokio::select! {
                message = stream.message() => message,
                () = tokio::time::sleep_until(sweep) => {
                    // What is idle and swept needs no further looking after until something happens.
                    sweep = if self.sweep() { Instant::now() + SWEEP } else { Instant::now() + SWEEP * 1000 };
                    continue;
                }
            };
            let response = match message {
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
            sweep = sweep.min(Instant::now() + SWEEP);
        }
    }

    fn apply(&self, response: &WatchResponse) {
        let copies = self.copies.load();
        let mut reached = 0;
        let mut changes: BTreeMap<&str, (&Cache, Vec<(&str, Option<&[u8]>, i64)>)> = BTreeMap::new();
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            reached = reached.max(version::end(kv.mod_revision()));
            let Ok(key) = kv.key_str() else { continue };
            let at = version::of(key, kv.mod_revision());
            let Some((cache, key)) = copies.find(key) else { continue };
            let value = (event.event_type() == EventType::Put).then(|| kv.value());
            changes.entry(cache.prefix()).or_insert((cache, Vec::new())).1.push((key, value, at));
        }
        for (_, (cache, mut changes)) in changes {
            // The keys of one transaction come in the order in which it wrote them.
            changes.sort_by_key(|(_, _, at)| *at);
            cache.apply(changes.into_iter());
        }
        if response.events().is_empty() {
            // A notice of progress: its revision is behind every event that was sent before it.
            reached = version::end(response.header().map_or(0, |h| h.revision()));
        }
        if reached > self.applied.load(Ordering::Acquire) {
            self.reached(reached);
        }
    }

    /// Drops events that are too old from every window; whether there will be more to drop.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        self.copies.load().all().filter(|cache| cache.trim(now)).count() > 0
    }
}

/// The entry of a value in the store.
fn entry(cache: &Cache, key: &str, item: &Versioned) -> Option<Arc<Entry>> {
    let entry = Entry::new(&cache.layout, key, &item.value, item.version);
    if entry.is_none() {
        tracing::error!(key = item.key, "a value in the store is no object");
    }
    entry.map(Arc::new)
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
