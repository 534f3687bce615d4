//! Carries out the writes of many requests in few transactions of the store.
//!
//! What a write costs the store is mostly the request, not the object. Writes that arrive while others are
//! under way wait for them and then go together: each is a transaction of its own within one request, so
//! that each succeeds or fails by itself. A single writer never waits for anybody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use component::tasks::{Spawner, lock};
use etcd_client::{KvClient, Txn, TxnOp, TxnOpResponse, TxnResponse};
use tokio::sync::oneshot;

use super::etcd::{EtcdError, Op, Outcome, Versioned, Write, attempt, transaction};
use super::version;

/// Writes in one request; etcd accepts 128 operations, and each write's own count too.
const MAX_WRITES: usize = 64;
/// Bytes of objects in one request; etcd accepts 1.5 MiB.
const MAX_BYTES: usize = 512 << 10;
/// Claims that a write may have and still go with others.
const MAX_CLAIMS: usize = 16;
/// Requests under way at once.
const LANES: usize = 2;

type Answer = oneshot::Sender<Result<Outcome, EtcdError>>;

struct Waiting {
    write: Write,
    place: i64,
    answer: Answer,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    lanes: usize,
}

/// Gathers writes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Batcher {
    kv: KvClient,
    queue: Arc<Mutex<Queue>>,
    tasks: Spawner,
}

impl Batcher {
    pub(super) fn new(kv: KvClient, tasks: Spawner) -> Self {
        Self { kv, queue: Arc::default(), tasks }
    }

    /// Carries out one write, with others if there are some.
    pub(super) async fn commit(&self, write: Write) -> Result<Outcome, EtcdError> {
        let (answer, answered) = oneshot::channel();
        let place = version::place(&write.key);
        let free = {
            let mut queue = lock(&self.queue);
            queue.waiting.push_back(Waiting { write, place, answer });
            let free = queue.lanes < LANES;
            queue.lanes += usize::from(free);
            free
        };
        if free {
            let this = self.clone();
            self.tasks.spawn("writer", async move { this.work().await });
        }
        answered.await.unwrap_or_else(|_| Err(EtcdError::Unavailable("the server is shutting down".into())))
    }

    /// Carries out what waits until nothing does.
    async fn work(&self) {
        let lane = Lane(&self.queue);
        loop {
            let batch = {
                let mut queue = lock(&self.queue);
                let batch = take(&mut queue.waiting);
                if batch.is_empty() {
                    // Given back before anybody else can find the queue empty and both lanes taken.
                    queue.lanes -= 1;
                    std::mem::forget(lane);
                    return;
                }
                batch
            };
            self.carry_out(batch).await;
        }
    }

    async fn carry_out(&self, batch: Vec<Waiting>) {
        if batch.len() > 1 {
            match attempt(self.together(&batch)).await {
                Ok(outcomes) => {
                    for (waiting, outcome) in batch.into_iter().zip(outcomes) {
                        answer(waiting.answer, Ok(outcome));
                    }
                    return;
                }
                Err(error) if error.is_transient() => {
                    for waiting in batch {
                        answer(waiting.answer, Err(error.clone()));
                    }
                    return;
                }
                // One of them is refused, and with it all; alone, each gets its own answer.
                Err(_) => {}
            }
        }
        for Waiting { write, answer: to, .. } in batch {
            answer(to, attempt(self.alone(&write)).await);
        }
    }

    async fn alone(&self, write: &Write) -> Result<Outcome, EtcdError> {
        let response = self.kv.clone().txn(transaction(write)).await?;
        Ok(outcome(write, &response, response.header().map_or(0, |h| h.revision())))
    }

    async fn together(&self, batch: &[Waiting]) -> Result<Vec<Outcome>, EtcdError> {
        let all: Vec<_> = batch.iter().map(|w| TxnOp::txn(transaction(&w.write))).collect();
        let response = self.kv.clone().txn(Txn::new().and_then(all)).await?;
        let revision = response.header().map_or(0, |h| h.revision());
        let outcomes: Vec<_> = batch
            .iter()
            .zip(response.op_responses())
            .filter_map(|(waiting, op)| match op {
                TxnOpResponse::Txn(inner) => Some(outcome(&waiting.write, &inner, revision)),
                _ => None,
            })
            .collect();
        if outcomes.len() == batch.len() {
            Ok(outcomes)
        } else {
            Err(EtcdError::Unavailable("the answer does not fit the transaction".into()))
        }
    }
}

/// Gives its lane back when the task ends early: by a panic, or because the server is dropped.
struct Lane<'a>(&'a Mutex<Queue>);

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        lock(self.0).lanes -= 1;
    }
}

fn answer(to: Answer, outcome: Result<Outcome, EtcdError>) {
    // Who asked may have gone away.
    let _ = to.send(outcome);
}

/// The next writes that can go together: none of them at the same place, so that no two get the same version.
fn take(waiting: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let mut batch: Vec<Waiting> = Vec::new();
    let mut later = VecDeque::new();
    let mut bytes = 0;
    while let Some(next) = waiting.pop_front() {
        let size = next.write.size();
        let alone = next.write.take.len() + next.write.give.len() + next.write.beside.len() > MAX_CLAIMS
            || size > MAX_BYTES;
        let fits = batch.is_empty() || (!alone && batch.len() < MAX_WRITES && bytes + size <= MAX_BYTES);
        if !fits {
            later.push_back(next);
            break;
        }
        let clash = |other: &Waiting| {
            other.place == next.place
                || shares_claims(&other.write, &next.write)
                || shares_places(&other.write, &next.write)
        };
        if batch.iter().any(clash) {
            later.push_back(next);
            continue;
        }
        bytes += size;
        batch.push(next);
        if alone {
            break;
        }
    }
    // What was passed over keeps its turn.
    while let Some(passed) = later.pop_back() {
        waiting.push_front(passed);
    }
    batch
}

/// Whether two writes touch the same keys beside their own, which one transaction cannot.
fn shares_claims(a: &Write, b: &Write) -> bool {
    let all = |w: &'_ Write| w.take.iter().chain(&w.give).cloned().collect::<Vec<_>>();
    let (a, b) = (all(a), all(b));
    !a.is_empty() && !b.is_empty() && a.iter().any(|key| b.contains(key))
}

/// Whether two writes have others beside them, and those or the writes themselves are at the same place.
fn shares_places(a: &Write, b: &Write) -> bool {
    if a.beside.is_empty() && b.beside.is_empty() {
        return false;
    }
    let places = |w: &Write| -> Vec<i64> {
        let beside = w.beside.iter().map(|b| version::place(&b.key));
        beside.chain([version::place(&w.key)]).collect()
    };
    let (a, b) = (places(a), places(b));
    a.iter().any(|place| b.contains(place))
}

fn outcome(write: &Write, response: &TxnResponse, revision: i64) -> Outcome {
    if response.succeeded() {
        return Outcome::Committed(match write.op {
            Op::Put(_) | Op::Delete => version::of(&write.key, revision),
        });
    }
    let mut found = response.op_responses().into_iter().map(|op| match op {
        TxnOpResponse::Get(mut get) => get.take_kvs().into_iter().next().map(Versioned::from),
        _ => None,
    });
    let now = found.next().flatten();
    if version::revision(now.as_ref().map_or(0, |n| n.version)) != version::revision(write.expect) {
        return Outcome::Changed(now);
    }
    let taken: Vec<String> = found.flatten().map(|v| v.key).collect();
    if taken.is_empty() && !write.beside.is_empty() { Outcome::Overtaken } else { Outcome::Taken(taken) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn waiting(key: &str, size: usize, claims: &[&str]) -> Waiting {
        let write = Write {
            key: key.into(),
            expect: 0,
            op: Op::Put(Bytes::from(vec![0; size])),
            take: claims.iter().map(|c| (*c).to_owned()).collect(),
            give: Vec::new(),
            beside: Vec::new(),
            lease: 0,
        };
        Waiting { place: version::place(&write.key), write, answer: oneshot::channel().0 }
    }

    #[track_caller]
    fn check(all: Vec<Waiting>, wanted: &[&[&str]]) {
        let mut all: VecDeque<_> = all.into();
        let mut seen = Vec::new();
        while !all.is_empty() {
            seen.push(take(&mut all).into_iter().map(|w| w.write.key).collect::<Vec<_>>());
        }
        assert_eq!(seen, wanted);
    }

    #[test]
    fn writes_of_one_key_follow_each_other_and_others_go_together() {
        let one = |key: &str| waiting(key, 10, &[]);
        check(vec![one("a"), one("b"), one("a"), one("c"), one("a")], &[&["a", "b", "c"], &["a"], &["a"]]);
    }

    #[test]
    fn what_is_large_or_claims_the_same_goes_apart() {
        let big = |key: &str| waiting(key, MAX_BYTES / 2, &[]);
        check(vec![big("a"), big("b"), big("c")], &[&["a"], &["b"], &["c"]]);
        check(
            vec![waiting("a", 1, &[]), waiting("b", MAX_BYTES, &[]), waiting("c", 1, &[])],
            &[&["a"], &["b"], &["c"]],
        );
        check(
            vec![waiting("a", 1, &["x"]), waiting("b", 1, &["y"]), waiting("c", 1, &["x"])],
            &[&["a", "b"], &["c"]],
        );
    }
}
