//! Runs a controller's reconcile function over a work queue.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use component::tasks::Spawner;

use crate::workqueue::WorkQueue;

/// What a reconcile leaves to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until the next event.
    Done,
    /// Look again after this time.
    RequeueAfter(Duration),
}

/// Starts `workers` tasks that take keys from the queue and reconcile them, until the owner of
/// `tasks` finishes. A key is never reconciled twice at once; one that fails is logged and comes
/// again with growing delay.
pub async fn run_workers<T, E, F, Fut>(queue: WorkQueue<T>, workers: usize, tasks: &Spawner, reconcile: F)
where
    T: Clone + Eq + Hash + Debug + Send + Sync + 'static,
    E: Display,
    F: Fn(T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Action, E>> + Send + 'static,
{
    let reconcile = Arc::new(reconcile);
    let handles: Vec<_> = (0..workers)
        .map(|i| {
            let (queue, reconcile) = (queue.clone(), reconcile.clone());
            tasks.spawn(format!("{} worker {i}", queue.name()), async move {
                while let Some(key) = queue.get().await {
                    let result = reconcile(key.clone()).await;
                    settle(&queue, key, result);
                }
            })
        })
        .collect();
    tasks.token().cancelled().await;
    queue.shut_down();
    for handle in handles {
        handle.finished().await;
    }
}

fn settle<T, E>(queue: &WorkQueue<T>, key: T, result: Result<Action, E>)
where
    T: Clone + Eq + Hash + Debug + Send + 'static,
    E: Display,
{
    match result {
        Ok(action) => {
            queue.forget(&key);
            if let Action::RequeueAfter(delay) = action {
                queue.add_after(key.clone(), delay);
            }
        }
        Err(error) => {
            let failures = queue.requeues(&key) + 1;
            if failures < 3 {
                tracing::debug!(queue = queue.name(), ?key, %error, failures, "reconcile failed");
            } else {
                tracing::warn!(queue = queue.name(), ?key, %error, failures, "reconcile failed");
            }
            queue.add_rate_limited(key.clone());
        }
    }
    queue.done(&key);
}

#[cfg(test)]
mod tests {
    use super::*;
    use component::tasks::Tasks;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_failed_key_comes_again_and_a_requeued_one_after_its_time() {
        let tasks = Tasks::new("test");
        let queue = WorkQueue::new("test");
        let calls = Arc::new(AtomicU32::new(0));
        queue.add("key".to_owned());
        let (spawner, seen) = (tasks.spawner(), calls.clone());
        let runner = run_workers(queue, 2, &spawner, move |_| {
            let call = seen.fetch_add(1, Ordering::SeqCst);
            async move {
                match call {
                    0 | 1 => Err("not yet"),
                    2 => Ok(Action::RequeueAfter(Duration::from_secs(10))),
                    _ => Ok(Action::Done),
                }
            }
        });
        let stop = async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            assert_eq!(calls.load(Ordering::SeqCst), 3);
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(calls.load(Ordering::SeqCst), 4);
            assert!(tasks.drain(Duration::from_secs(1)).await);
        };
        tokio::join!(runner, stop);
    }
}
