//! What a process holds of the machine's memory.

use std::pin::pin;
use std::time::Duration;

/// How long the start of a component takes with all that belongs to it: certificates, first lists, elections.
const SETTLED: Duration = Duration::from_secs(10);

/// Does a component's work, and once the start is over gives the machine back what only the start needed.
///
/// The allocator keeps freed memory between what is still in use, and gives whole pages of it back when it is asked to:
/// about a tenth of an API server that has just started.
pub async fn trimmed_after_start<F: Future>(work: F) -> F::Output {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        output = &mut work => return output,
        () = tokio::time::sleep(SETTLED) => trim(),
    }
    work.await
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: the call has no preconditions; it locks the heap that it walks.
    let released = unsafe { libc::malloc_trim(0) };
    tracing::debug!(released = released != 0, "memory of the start was given back");
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
