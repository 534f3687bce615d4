//! A work queue: each key at most once in the queue and at most once at work, delays, backoff.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use component::tasks::lock;
use tokio::sync::Notify;
use tokio::time::Instant;

const FIRST_BACKOFF: Duration = Duration::from_millis(5);
const LAST_BACKOFF: Duration = Duration::from_secs(60);

/// A queue of keys. Cheap to clone; clones share the queue.
pub struct WorkQueue<T = String>(Arc<Inner<T>>);

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<T> {
    name: &'static str,
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    ready: VecDeque<T>,
    /// In `ready`, or at work and to be queued again when done.
    dirty: HashSet<T>,
    working: HashSet<T>,
    /// Due times, told apart by a counter where two are equal.
    delayed: BTreeMap<(Instant, u64), T>,
    due: HashMap<T, (Instant, u64)>,
    counter: u64,
    failures: HashMap<T, u32>,
    shut_down: bool,
}

impl<T: Clone + Eq + Hash + Send + 'static> WorkQueue<T> {
    /// An empty queue; the name is for logs.
    pub fn new(name: &'static str) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            counter: 0,
            failures: HashMap::new(),
            shut_down: false,
        };
        Self(Arc::new(Inner { name, state: Mutex::new(state), changed: Notify::new() }))
    }

    /// The queue's name.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Queues a key, unless it is queued already. A key at work is queued again when it is done.
    pub fn add(&self, key: T) {
        lock(&self.0.state).add(key);
        self.0.changed.notify_one();
    }

    /// Queues a key after a delay, or earlier if it is due earlier already.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        lock(&self.0.state).add_at(key, Instant::now() + delay);
        self.0.changed.notify_one();
    }

    /// Queues a key after a delay that doubles with each call, from 5 ms to a minute, until
    /// [`Self::forget`].
    pub fn add_rate_limited(&self, key: T) {
        let failures = {
            let mut state = lock(&self.0.state);
            let failures = state.failures.entry(key.clone()).or_default();
            *failures += 1;
            *failures
        };
        let delay = FIRST_BACKOFF.saturating_mul(1 << (failures - 1).min(20)).min(LAST_BACKOFF);
        self.add_after(key, delay);
    }

    /// Ends a key's backoff.
    pub fn forget(&self, key: &T) {
        lock(&self.0.state).failures.remove(key);
    }

    /// How often a key was queued by [`Self::add_rate_limited`] since it was forgotten.
    pub fn requeues(&self, key: &T) -> u32 {
        lock(&self.0.state).failures.get(key).copied().unwrap_or(0)
    }

    /// Waits for a key to work on; `None` when the queue is shut down. Call [`Self::done`] afterwards.
    pub async fn get(&self) -> Option<T> {
        loop {
            let (key, wake_at, more) = {
                let mut state = lock(&self.0.state);
                if state.shut_down {
                    self.0.changed.notify_one();
                    return None;
                }
                state.move_due(Instant::now());
                let key = state.take();
                let wake_at = state.delayed.first_key_value().map(|((at, _), _)| *at);
                (key, wake_at, !state.ready.is_empty())
            };
            if let Some(key) = key {
                if more || wake_at.is_some() {
                    // Another worker takes the next, or keeps the time.
                    self.0.changed.notify_one();
                }
                return Some(key);
            }
            match wake_at {
                Some(at) => tokio::select! {
                    () = self.0.changed.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.0.changed.notified().await,
            }
        }
    }

    /// The work on a key has ended.
    pub fn done(&self, key: &T) {
        let mut state = lock(&self.0.state);
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            self.0.changed.notify_one();
        }
    }

    /// Lets every waiting [`Self::get`] return `None`.
    pub fn shut_down(&self) {
        lock(&self.0.state).shut_down = true;
        self.0.changed.notify_one();
    }

    /// The number of keys that wait for a worker, delayed ones not counted.
    pub fn len(&self) -> usize {
        lock(&self.0.state).ready.len()
    }

    /// Whether no key waits for a worker.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    fn add(&mut self, key: T) {
        if let Some(at) = self.due.remove(&key) {
            self.delayed.remove(&at);
        }
        if self.dirty.insert(key.clone()) && !self.working.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: T, at: Instant) {
        match self.due.get(&key) {
            Some((earlier, _)) if *earlier <= at => return,
            Some(later) => {
                self.delayed.remove(later);
            }
            None => {}
        }
        self.counter += 1;
        self.due.insert(key.clone(), (at, self.counter));
        self.delayed.insert((at, self.counter), key);
    }

    fn move_due(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_queued_once_and_worked_on_by_one() {
        let queue = WorkQueue::new("test");
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.get().await, Some("a"));
        queue.add("a");
        assert_eq!(queue.len(), 0, "it waits for its own work to end");
        queue.done(&"a");
        assert_eq!(queue.get().await, Some("a"));
        queue.done(&"a");
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn delayed_keys_come_when_they_are_due_and_the_earliest_wins() {
        let queue = WorkQueue::new("test");
        let began = Instant::now();
        queue.add_after("late", Duration::from_secs(9));
        queue.add_after("early", Duration::from_secs(3));
        queue.add_after("late", Duration::from_secs(5));
        queue.add_after("late", Duration::from_secs(7));
        assert_eq!(queue.get().await, Some("early"));
        assert_eq!(began.elapsed().as_secs(), 3);
        assert_eq!(queue.get().await, Some("late"));
        assert_eq!(began.elapsed().as_secs(), 5);
        queue.done(&"late");
        let nothing = tokio::time::timeout(Duration::from_secs(60), queue.get()).await;
        assert!(nothing.is_err(), "one delay is one turn");
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_doubles_until_forgotten() {
        let queue = WorkQueue::new("test");
        for expected in [5, 10, 20, 40] {
            let began = Instant::now();
            queue.add_rate_limited("a");
            assert_eq!(queue.get().await, Some("a"));
            assert_eq!(began.elapsed().as_millis(), expected);
            queue.done(&"a");
        }
        assert_eq!(queue.requeues(&"a"), 4);
        queue.forget(&"a");
        assert_eq!(queue.requeues(&"a"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn shutting_down_frees_every_worker() {
        let queue = WorkQueue::<String>::new("test");
        let workers = futures::future::join_all((0..5).map(|_| queue.get()));
        let stop = async { queue.shut_down() };
        let (results, ()) = tokio::join!(workers, stop);
        assert!(results.into_iter().all(|r| r.is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn several_workers_drain_a_burst() {
        let queue = WorkQueue::new("test");
        for i in 0..100 {
            queue.add(i);
        }
        queue.add_after(100, Duration::from_secs(1));
        let work = |_| {
            let queue = queue.clone();
            async move {
                let mut seen = Vec::new();
                while seen.last() != Some(&100) {
                    match tokio::time::timeout(Duration::from_secs(5), queue.get()).await {
                        Ok(Some(key)) => {
                            queue.done(&key);
                            seen.push(key);
                        }
                        _ => break,
                    }
                }
                seen
            }
        };
        let mut all: Vec<_> = futures::future::join_all((0..4).map(work)).await.concat();
        all.sort_unstable();
        assert_eq!(all, (0..=100).collect::<Vec<_>>());
    }
}
