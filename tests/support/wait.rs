//! Awaiting conditions.

use std::time::{Duration, Instant};

/// Looks again and again until `look` returns something; panics with what was awaited, and the last
/// reason against it, when `patience` ends.
#[track_caller]
pub fn until_some<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) if began.elapsed() > patience => panic!("{what}: not within {patience:?}: {why}"),
            Err(_) => pause(),
        }
    }
}

/// Like [`until_some`] for a plain condition.
#[track_caller]
pub fn until(what: &str, patience: Duration, mut look: impl FnMut() -> bool) {
    until_some(what, patience, || look().then_some(()).ok_or_else(|| "it does not hold".to_owned()));
}

#[allow(clippy::disallowed_methods, reason = "a test looks from outside, where no event reaches it")]
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}
