//! Tasks with an owner, a name, a span and an end.
//!
//! Dropping the owner ends its tasks, draining waits for them, and a panic reaches the owner.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

struct Inner {
    name: &'static str,
    tracker: TaskTracker,
    /// Asks tasks to finish.
    finish: CancellationToken,
    /// Drops tasks where they stand.
    abort: CancellationToken,
    failed: watch::Sender<Option<String>>,
}

/// The owner of a set of tasks. Dropping it ends every one of them.
pub struct Tasks(Arc<Inner>);

/// Starts tasks on behalf of an owner that may be gone already; then nothing starts.
#[derive(Clone)]
pub struct Spawner {
    inner: Weak<Inner>,
    finish: CancellationToken,
}

/// One running task. Dropping the handle leaves the task alone.
pub struct TaskHandle {
    abort: CancellationToken,
    done: watch::Receiver<bool>,
}

/// Ends its task when dropped.
pub struct AbortOnDrop(pub TaskHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl TaskHandle {
    /// Drops the task where it stands, at its next suspension point.
    pub fn abort(&self) {
        self.abort.cancel();
    }

    /// Whether the task has ended, in whichever way.
    pub fn is_finished(&self) -> bool {
        *self.done.borrow()
    }

    /// Waits until the task has ended.
    pub async fn finished(&self) {
        // The sender is dropped when the task ends before it ran; that is an end too.
        let _ = self.done.clone().wait_for(|done| *done).await;
    }
}

impl Tasks {
    /// An owner without tasks.
    pub fn new(name: &'static str) -> Self {
        Self(Arc::new(Inner {
            name,
            tracker: TaskTracker::new(),
            finish: CancellationToken::new(),
            abort: CancellationToken::new(),
            failed: watch::channel(None).0,
        }))
    }

    /// A handle that starts tasks for this owner and does not keep it alive.
    pub fn spawner(&self) -> Spawner {
        Spawner { inner: Arc::downgrade(&self.0), finish: self.0.finish.clone() }
    }

    /// Starts a task.
    pub fn spawn<F>(&self, name: impl Into<String>, future: F) -> TaskHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.spawn(name.into(), future)
    }

    /// Cancelled when the tasks are asked to finish.
    pub fn token(&self) -> CancellationToken {
        self.0.finish.clone()
    }

    /// Resolves with the name of the first task that panicked; never, if none does.
    pub async fn failed(&self) -> String {
        let mut failed = self.0.failed.subscribe();
        let name = failed.wait_for(Option::is_some).await.ok().and_then(|name| name.clone());
        match name {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }

    /// Asks all tasks to finish and waits for them; drops what has not finished after `patience`
    /// and then returns false.
    pub async fn drain(self, patience: Duration) -> bool {
        self.0.finish.cancel();
        self.0.tracker.close();
        tokio::time::timeout(patience, self.0.tracker.wait()).await.is_ok()
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.finish.cancel();
        self.0.abort.cancel();
    }
}

impl Spawner {
    /// Starts a task, unless the owner is gone.
    pub fn spawn<F>(&self, name: impl Into<String>, future: F) -> TaskHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self.inner.upgrade() {
            Some(inner) => inner.spawn(name.into(), future),
            None => TaskHandle { abort: CancellationToken::new(), done: watch::channel(true).1 },
        }
    }

    /// Cancelled when the tasks are asked to finish, or the owner is dropped.
    pub fn token(&self) -> CancellationToken {
        self.finish.clone()
    }
}

impl Inner {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that starts tasks")]
    fn spawn<F>(&self, name: String, future: F) -> TaskHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (done, done_receiver) = watch::channel(false);
        let abort = self.abort.child_token();
        let aborted = abort.clone();
        let failed = self.failed.clone();
        let span = tracing::debug_span!("task", owner = self.name, name = %name);
        let watched = async move {
            tokio::select! {
                biased;
                () = aborted.cancelled() => {}
                result = AssertUnwindSafe(future).catch_unwind() => {
                    if let Err(panic) = result {
                        tracing::error!(task = %name, panic = panic_text(&*panic), "task panicked");
                        failed.send_if_modified(|first| first.replace(name).is_none());
                    }
                }
            }
            done.send_replace(true);
        };
        tokio::spawn(self.tracker.track_future(watched.instrument(span)));
        TaskHandle { abort, done: done_receiver }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Locks a mutex whose data stay consistent even when a holder panicked.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dropping_the_owner_ends_its_tasks() {
        let tasks = Tasks::new("test");
        let spawner = tasks.spawner();
        let task = tasks.spawn("forever", std::future::pending());
        drop(tasks);
        task.finished().await;
        assert!(spawner.spawn("late", std::future::pending()).is_finished());
        assert!(spawner.token().is_cancelled());
    }

    #[tokio::test]
    async fn draining_waits_for_those_who_finish() {
        let tasks = Tasks::new("test");
        let token = tasks.token();
        let task = tasks.spawn("polite", async move { token.cancelled().await });
        assert!(tasks.drain(Duration::from_secs(5)).await);
        assert!(task.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn draining_loses_patience() {
        let tasks = Tasks::new("test");
        let task = tasks.spawn("stubborn", std::future::pending());
        assert!(!tasks.drain(Duration::from_secs(5)).await);
        task.finished().await;
    }

    #[tokio::test]
    async fn a_panic_reaches_the_owner() {
        let tasks = Tasks::new("test");
        tasks.spawn("clumsy", async { panic!("on purpose") });
        assert_eq!(tasks.failed().await, "clumsy");
    }

    #[tokio::test]
    async fn one_task_can_be_aborted() {
        let tasks = Tasks::new("test");
        let task = tasks.spawn("forever", std::future::pending());
        drop(AbortOnDrop(tasks.spawn("other", std::future::pending())));
        task.abort();
        task.finished().await;
        assert!(!tasks.token().is_cancelled());
    }
}
