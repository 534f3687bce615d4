//! Ends sessions in which nothing has moved for hours.

use std::sync::Mutex;
use std::time::Duration;

use component::tasks::lock;
use tokio::time::Instant;

/// How long a session in which nothing moves is kept, as upstream's kubelet has it.
pub(super) const IDLE: Duration = Duration::from_secs(4 * 60 * 60);

/// When something last moved.
pub(super) struct Activity(Mutex<Instant>);

impl Activity {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Something moves now.
    pub(super) fn touch(&self) {
        *lock(&self.0) = Instant::now();
    }

    /// Resolves when nothing has moved for [`IDLE`].
    pub(super) async fn idle(&self) {
        loop {
            let deadline = *lock(&self.0) + IDLE;
            if Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_is_idle_four_hours_after_its_last_move() {
        let activity = Activity::new();
        let began = Instant::now();
        tokio::time::advance(Duration::from_secs(3600)).await;
        activity.touch();
        activity.idle().await;
        assert!(began.elapsed() >= IDLE + Duration::from_secs(3600));
    }
}
