//! A client's watch: the present objects if it wants them, then the changes, then bookmarks, until it ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use api::status::StatusError;
use tokio::time::Instant;

use api::validation::FieldError;

use super::read::{Version, filter, refuse};
use super::store::Registry;
use crate::storage::{Change, Entry, Watcher};

/// Bytes of objects handed over at once: what a watch may have in memory beside the shared copies.
const BUDGET: usize = 64 << 10;
/// From how many watchers of the same objects on news are gathered for a moment.
const CROWD: usize = 32;
/// For how long: a crowd that is woken for every single event does nothing else.
const GATHER: Duration = Duration::from_millis(4);
/// How often a quiet watch hears of its version.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// What a watch asks for, as it stands in the query.
#[derive(Clone, Debug, Default)]
pub struct WatchQuery {
    /// `labelSelector`.
    pub label_selector: String,
    /// `fieldSelector`.
    pub field_selector: String,
    /// `resourceVersion`.
    pub resource_version: String,
    /// `resourceVersionMatch`.
    pub resource_version_match: String,
    /// `allowWatchBookmarks`.
    pub allow_bookmarks: bool,
    /// `sendInitialEvents`.
    pub send_initial_events: Option<bool>,
    /// `timeoutSeconds`; without it the watch lasts until somebody ends it.
    pub timeout: Option<Duration>,
}

impl WatchQuery {
    /// Upstream's rules for the parameters of a watch.
    fn validate(&self) -> Result<(), StatusError> {
        const MATCH: &str = "resourceVersionMatch";
        let mut errors = Vec::new();
        let matching = self.resource_version_match.as_str();
        if self.send_initial_events.is_some() && matching != "NotOlderThan" {
            let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(FieldError::forbidden(MATCH, detail));
        }
        if !matching.is_empty() && self.send_initial_events.is_none() {
            let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(MATCH, detail));
        }
        if !matches!(matching, "" | "NotOlderThan") {
            errors.push(FieldError::not_supported(MATCH, matching, &["NotOlderThan"]));
        }
        refuse(&errors)
    }
}

/// What happens next in a watch.
#[derive(Debug)]
pub enum Step {
    /// Objects came, changed or went.
    Changes(Vec<Change>),
    /// Everything up to this revision has been told; `initial_end` after the present objects.
    Bookmark {
        /// The revision.
        revision: i64,
        /// Whether this is the bookmark that `sendInitialEvents` asks for.
        initial_end: bool,
    },
    /// The position is gone; the client must list again.
    Expired,
}

/// One watch in progress.
pub struct Session {
    initial: VecDeque<Arc<Entry>>,
    initial_end: Option<i64>,
    watcher: Watcher,
    bookmarks: bool,
    told: i64,
    /// When changes were last handed over.
    spoke: Instant,
    next_bookmark: Instant,
    ends: Option<Instant>,
    over: bool,
}

impl Registry {
    /// Begins a watch.
    ///
    /// # Errors
    /// 400 for a wrong query; 410 for a version older than the window; 504 for one that is not reached in time.
    pub async fn watch(
        &self,
        kind: &'static Kind,
        namespace: &str,
        query: &WatchQuery,
    ) -> Result<Session, StatusError> {
        let filter = filter(kind, namespace, &query.label_selector, &query.field_selector)?;
        query.validate()?;
        let version = Version::parse(&query.resource_version, &query.resource_version_match)?;
        // A version of the future is refused in the end: after the store was put back to an older state, whoever
        // waited for it in silence would miss what happens until then.
        self.reach(version).await?;
        let cache = self.hub.cache(kind);
        let now = Instant::now();
        let begin = |initial: Vec<Arc<Entry>>, initial_end, watcher| Session {
            initial: initial.into(),
            initial_end,
            watcher,
            bookmarks: query.allow_bookmarks,
            told: 0,
            spoke: now,
            next_bookmark: now + BOOKMARK_EVERY,
            ends: query.timeout.map(|t| now + t),
            over: false,
        };
        match (version, query.send_initial_events) {
            (Version::NotOlderThan(n) | Version::Exact(n), None | Some(false)) => {
                let watcher = cache.watch_after(filter, n).map_err(|_| too_old(n, self.hub.revision()))?;
                Ok(begin(Vec::new(), None, watcher))
            }
            (_, Some(false)) => Ok(begin(Vec::new(), None, cache.watch_from_now(filter).2)),
            (_, wanted) => {
                let (present, revision, watcher) = cache.watch_from_now(filter);
                let end = (wanted == Some(true) && query.allow_bookmarks).then_some(revision);
                Ok(begin(present, end, watcher))
            }
        }
    }
}

/// 410 for a version that the window no longer has.
fn too_old(wanted: i64, current: i64) -> StatusError {
    StatusError::expired(format!("too old resource version: {wanted} ({current})"))
}

/// The `Status` in the last event of a watch whose position is gone.
pub fn expired() -> StatusError {
    StatusError::expired("The resourceVersion for the provided watch is too old.")
}

impl Session {
    /// The next of the present objects.
    fn present(&mut self) -> Vec<Change> {
        let mut bytes = 0;
        let mut batch = Vec::new();
        while bytes < BUDGET
            && let Some(entry) = self.initial.pop_front()
        {
            bytes += entry.json.len();
            batch.push(Change::Added(entry));
        }
        batch
    }

    /// What happens next; nothing when the watch is over.
    pub async fn next(&mut self) -> Option<Step> {
        if self.over {
            return None;
        }
        if !self.initial.is_empty() {
            return Some(Step::Changes(self.present()));
        }
        if let Some(revision) = self.initial_end.take() {
            self.told = revision;
            return Some(Step::Bookmark { revision, initial_end: true });
        }
        loop {
            let known = match self.watcher.poll(BUDGET) {
                Err(_) => {
                    self.over = true;
                    return Some(Step::Expired);
                }
                Ok((changes, _)) if !changes.is_empty() => {
                    self.spoke = Instant::now();
                    return Some(Step::Changes(changes));
                }
                Ok((_, known)) => known,
            };
            tokio::select! {
                () = self.watcher.changed() => {
                    if self.spoke.elapsed() < GATHER && self.watcher.company() >= CROWD {
                        tokio::time::sleep_until(self.spoke + GATHER).await;
                    }
                }
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    // Told only when nothing came in between.
                    match self.watcher.poll(BUDGET) {
                        Ok((changes, _)) if !changes.is_empty() => return Some(Step::Changes(changes)),
                        Ok((_, Some(revision))) => {
                            self.told = revision;
                            return Some(Step::Bookmark { revision, initial_end: false });
                        }
                        _ => {}
                    }
                }
                () = sleep_until(self.ends) => {
                    self.over = true;
                    // A last word lets the client go on from here rather than from its last event.
                    return match known {
                        Some(revision) if self.bookmarks && revision > self.told => {
                            Some(Step::Bookmark { revision, initial_end: false })
                        }
                        _ => None,
                    };
                }
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
