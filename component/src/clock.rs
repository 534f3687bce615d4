//! The wall clock, handed to whoever needs one, so that time can be simulated.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use tokio::time::Instant;

/// A source of wall-clock time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Simulated { start: Timestamp, began: Instant },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` now and advances with tokio's time, which a test may pause.
    pub fn simulated(start: Timestamp) -> Self {
        Self(Source::Simulated { start, began: Instant::now() })
    }

    /// The current time.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::now(),
            Source::Simulated { start, began } => {
                let elapsed = SignedDuration::try_from(began.elapsed()).unwrap_or(SignedDuration::MAX);
                start.checked_add(elapsed).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// The current time in whole seconds, as most fields of the API have it.
    pub fn time(&self) -> Time {
        Time(Timestamp::from_second(self.now().as_second()).unwrap_or(Timestamp::MAX))
    }

    /// The current time in microseconds, as Leases and Events have it.
    pub fn micro_time(&self) -> MicroTime {
        MicroTime(Timestamp::from_microsecond(self.now().as_microsecond()).unwrap_or(Timestamp::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn simulated_time_advances_with_tokio() {
        let clock = Clock::simulated(Timestamp::UNIX_EPOCH);
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(clock.now().as_millisecond(), 1500);
        assert_eq!(clock.time().0.as_millisecond(), 1000);
    }
}
