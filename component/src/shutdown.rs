//! The end of a process: the first signal asks for a graceful one, the second ends it at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGINT or SIGTERM; the second one exits with 128 + signal.
///
/// Must be called within a tokio runtime.
///
/// # Panics
/// When the process may not install signal handlers at all.
#[allow(clippy::disallowed_methods, reason = "the signal task lives as long as the process and owns nothing")]
pub fn signals() -> CancellationToken {
    let token = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt()).expect("a process may handle its signals");
    let mut terminate = signal(SignalKind::terminate()).expect("a process may handle its signals");
    let cancelled = token.clone();
    tokio::spawn(async move {
        loop {
            let number = tokio::select! {
                _ = interrupt.recv() => libc::SIGINT,
                _ = terminate.recv() => libc::SIGTERM,
            };
            if cancelled.is_cancelled() {
                std::process::exit(128 + number);
            }
            tracing::info!(signal = number, "shutting down");
            cancelled.cancel();
        }
    });
    token
}
