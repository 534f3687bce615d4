//! Somebody's position among the events of a resource.
//!
//! A watcher is that position and nothing else: a slow one holds no queue and makes nobody wait. It goes on
//! from its position, or is told that the position is gone (410) and lists again.

use std::sync::Arc;

use tokio::sync::Notify;

use super::cache::Cache;
use super::filter::{Filter, Scope};
use super::window::{Change, Expired};

/// Somebody's position in the window.
pub struct Watcher {
    cache: Arc<Cache>,
    cursor: u64,
    epoch: u64,
    /// Events up to this revision are not told: the client knows them already.
    after: i64,
    filter: Filter,
    scope: Scope,
    notify: Arc<Notify>,
}

impl Watcher {
    pub(super) fn new(
        cache: Arc<Cache>,
        position: (u64, u64),
        after: i64,
        filter: Filter,
        scope: Scope,
        notify: Arc<Notify>,
    ) -> Self {
        let (epoch, cursor) = position;
        Self { cache, cursor, epoch, after, filter, scope, notify }
    }

    /// The changes since the last call, at least one if there are any, and no more than make up `budget` bytes. With
    /// them the revision up to which everything has then been told, if that is known.
    pub fn poll(&mut self, budget: usize) -> Result<(Vec<Change>, Option<i64>), Expired> {
        let known_before = self.cache.known();
        let state = self.cache.read();
        if state.window.epoch != self.epoch {
            return Err(Expired);
        }
        let mut changes = Vec::new();
        let mut bytes = 0;
        let (filter, after) = (&self.filter, self.after);
        self.cursor = state.window.visit(&self.scope, self.cursor, |event| {
            if event.revision > after
                && let Some(change) = event.seen_by(filter)
            {
                bytes += change.entry().json.len();
                changes.push(change);
            }
            bytes < budget
        })?;
        let all = self.cursor == state.window.end();
        let revision = all.then(|| state.revision(known_before)).filter(|revision| *revision >= after);
        Ok((changes, revision))
    }

    /// How many watch the same part of the resource.
    pub fn company(&self) -> usize {
        self.cache.read().window.company(&self.scope)
    }

    /// Waits until there is something to poll.
    pub async fn changed(&mut self) {
        loop {
            let notified = self.notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let state = self.cache.read();
                if state.window.epoch != self.epoch || state.window.has_news(&self.scope, self.cursor) {
                    return;
                }
            }
            notified.await;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.cache.write().window.leave(&self.scope);
    }
}
