//! The load: so many callers, each with one request in flight, until a count or a time is reached.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

/// How much load, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Callers at a time.
    pub in_flight: usize,
    /// Threads that share the callers.
    pub threads: usize,
    /// No more requests than this.
    pub count: usize,
    /// No request is begun after this.
    pub time: Duration,
}

/// What a load did.
#[derive(Clone, Debug)]
pub struct Tally {
    /// The requests that were answered as expected; another answer ends the load.
    pub done: usize,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// The time of each request.
    pub latencies: Latencies,
    /// What was received.
    pub bytes: usize,
}

impl Tally {
    /// Requests in a second.
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64()
    }
}

/// Times, sorted.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    /// From microseconds in any order.
    pub fn new(mut micros: Vec<u32>) -> Self {
        micros.sort_unstable();
        Self(micros)
    }

    /// The time below which a share (0 to 1) of the requests stayed; none without requests.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let last = self.0.len().checked_sub(1)?;
        let at = (share * self.0.len() as f64).ceil() as usize;
        Some(Duration::from_micros(self.0[at.saturating_sub(1).min(last)].into()))
    }
}

/// One caller.
#[allow(async_fn_in_trait, reason = "callers stay on the thread that made them")]
pub trait Caller {
    /// Makes the request of this number and returns how many bytes were answered.
    async fn call(&mut self, number: usize) -> Result<usize>;
}

/// What the threads of one load share.
struct Shared {
    next: AtomicUsize,
    failed: AtomicBool,
    barrier: Barrier,
    began: Mutex<Option<Instant>>,
}

/// Makes the callers of one thread, then lets all threads begin at once. Blocks until the load has ended.
///
/// # Errors
/// The first request that fails ends the load.
pub fn run<C, F>(load: &Load, connect: F) -> Result<Tally>
where
    C: Caller,
    F: AsyncFn(usize) -> Result<Vec<C>> + Sync,
{
    let threads = load.threads.clamp(1, load.in_flight.max(1));
    let shared = Shared {
        next: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        barrier: Barrier::new(threads),
        began: Mutex::new(None),
    };
    let (shared, connect) = (&shared, &connect);
    let results: Vec<Result<(Instant, Vec<u32>, usize)>> = std::thread::scope(|scope| {
        let start = |at: usize| {
            let callers = load.in_flight / threads + usize::from(at < load.in_flight % threads);
            scope.spawn(move || crate::block_on(thread(load, shared, connect, callers)))
        };
        let running: Vec<_> = (0..threads).map(start).collect();
        running.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    });
    let began = shared.began.lock().expect("no holder panics").context("no thread began")?;
    let (mut micros, mut ended, mut bytes) = (Vec::new(), began, 0);
    for result in results {
        let (end, of_thread, received) = result?;
        micros.extend(of_thread);
        ended = ended.max(end);
        bytes += received;
    }
    let done = micros.len();
    Ok(Tally { done, elapsed: ended - began, latencies: Latencies::new(micros), bytes })
}

async fn thread<C, F>(
    load: &Load,
    shared: &Shared,
    connect: &F,
    callers: usize,
) -> Result<(Instant, Vec<u32>, usize)>
where
    C: Caller,
    F: AsyncFn(usize) -> Result<Vec<C>>,
{
    let connected = connect(callers).await;
    // Also after a failure: the others wait here.
    shared.barrier.wait();
    let deadline = {
        let mut began = shared.began.lock().expect("no holder panics");
        *began.get_or_insert_with(Instant::now) + load.time
    };
    let mut running: FuturesUnordered<_> =
        connected?.into_iter().map(|caller| drive(caller, load, shared, deadline)).collect();
    let (mut micros, mut bytes) = (Vec::new(), 0);
    while let Some(result) = running.next().await {
        let (of_caller, received) = result.inspect_err(|_| shared.failed.store(true, Ordering::Relaxed))?;
        micros.extend(of_caller);
        bytes += received;
    }
    Ok((Instant::now(), micros, bytes))
}

async fn drive(
    mut caller: impl Caller,
    load: &Load,
    shared: &Shared,
    deadline: Instant,
) -> Result<(Vec<u32>, usize)> {
    let (mut micros, mut bytes) = (Vec::new(), 0);
    let mut now = Instant::now();
    while now < deadline && !shared.failed.load(Ordering::Relaxed) {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= load.count {
            break;
        }
        let began = now;
        bytes += caller.call(number).await.with_context(|| format!("request {number}"))?;
        now = Instant::now();
        micros.push(u32::try_from((now - began).as_micros()).unwrap_or(u32::MAX));
    }
    Ok((micros, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counts<'a>(&'a AtomicUsize);

    impl Caller for Counts<'_> {
        async fn call(&mut self, number: usize) -> Result<usize> {
            tokio::task::yield_now().await;
            self.0.fetch_add(number, Ordering::Relaxed);
            anyhow::ensure!(number != 5000, "number 5000");
            Ok(2)
        }
    }

    fn load(count: usize) -> Load {
        Load { in_flight: 5, threads: 2, count, time: Duration::from_secs(600) }
    }

    #[test]
    fn every_number_is_called_once() {
        let sum = AtomicUsize::new(0);
        let tally = run(&load(1000), async |n| Ok((0..n).map(|_| Counts(&sum)).collect())).unwrap();
        assert_eq!((tally.done, tally.bytes, sum.into_inner()), (1000, 2000, 499_500));
    }

    #[test]
    fn a_failed_request_fails_the_load() {
        let sum = AtomicUsize::new(0);
        let error = run(&load(10_000), async |n| Ok((0..n).map(|_| Counts(&sum)).collect())).unwrap_err();
        assert_eq!(format!("{error:#}"), "request 5000: number 5000");
    }

    #[test]
    fn quantiles_are_of_the_nearest_rank() {
        let latencies = Latencies::new((1..=200).rev().collect());
        assert_eq!(latencies.quantile(0.5), Some(Duration::from_micros(100)));
        assert_eq!(latencies.quantile(0.99), Some(Duration::from_micros(198)));
        assert_eq!(latencies.quantile(1.0), Some(Duration::from_micros(200)));
        assert_eq!(Latencies::default().quantile(0.5), None);
    }
}
