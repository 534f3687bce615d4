//! Forgets old revisions without being asked, by age or by number, as etcd's `--auto-compaction-mode` has it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::commit::Writes;
use crate::mvcc::{Error, Store};

/// Which revisions are forgotten without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// None.
    Off,
    /// Those that are older.
    Periodic(Duration),
    /// All but the newest so many.
    Revision(i64),
}

impl AutoCompaction {
    /// Understands the two flags: the mode, and its retention, which is a number or a duration; a bare number is hours
    /// where a duration is meant.
    ///
    /// # Errors
    /// A sentence that names the flag.
    pub fn parse(mode: &str, retention: &str) -> Result<Self, String> {
        let error = || format!("--auto-compaction-retention: {retention:?} is no retention for mode {mode}");
        let number = retention.parse::<u32>();
        match (mode, number) {
            ("periodic" | "revision", Ok(0)) => Ok(Self::Off),
            ("periodic", Ok(hours)) => Ok(Self::Periodic(Duration::from_secs(u64::from(hours) * 3600))),
            ("periodic", Err(_)) => match component::flags::duration(retention).map_err(|_| error())? {
                Duration::ZERO => Ok(Self::Off),
                age => Ok(Self::Periodic(age)),
            },
            ("revision", Ok(count)) => Ok(Self::Revision(count.into())),
            ("revision", Err(_)) => Err(error()),
            _ => Err(format!("--auto-compaction-mode: {mode:?} is neither periodic nor revision")),
        }
    }
}

/// How often revisions are counted, when all but a number of them are forgotten.
const COUNTED_EVERY: Duration = Duration::from_secs(300);

/// Compacts until it is dropped, or the writer ends.
pub(crate) async fn run(mode: AutoCompaction, store: Arc<Store>, writes: Writes) {
    let (interval, age) = match mode {
        AutoCompaction::Off => return,
        // Ten looks within the age keep what is forgotten close to it.
        AutoCompaction::Periodic(age) => ((age / 10).max(Duration::from_millis(100)), age),
        AutoCompaction::Revision(_) => (COUNTED_EVERY, Duration::ZERO),
    };
    let mut seen: VecDeque<(Instant, i64)> = VecDeque::new();
    loop {
        tokio::time::sleep(interval).await;
        let (now, revision) = (Instant::now(), store.revision());
        let target = match mode {
            AutoCompaction::Off => return,
            AutoCompaction::Revision(count) => Some(revision - count),
            AutoCompaction::Periodic(_) => {
                seen.push_back((now, revision));
                let mut old = None;
                while seen.front().is_some_and(|(at, _)| now.duration_since(*at) >= age) {
                    old = seen.pop_front().map(|(_, revision)| revision);
                }
                old
            }
        };
        let Some(target) = target.filter(|t| *t > store.read().compacted.max(1)) else { continue };
        match writes.compact(target, false).await {
            Ok(_) => tracing::info!(revision = target, "compacted"),
            // Somebody else was faster.
            Err(Error::Compacted) => {}
            Err(Error::Stopped) => return,
            Err(error) => tracing::warn!(%error, "could not compact"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_etcds() {
        let hours = |n: u64| AutoCompaction::Periodic(Duration::from_secs(n * 3600));
        assert_eq!(AutoCompaction::parse("periodic", "0"), Ok(AutoCompaction::Off));
        assert_eq!(AutoCompaction::parse("periodic", "2"), Ok(hours(2)));
        assert_eq!(AutoCompaction::parse("periodic", "120m"), Ok(hours(2)));
        assert_eq!(AutoCompaction::parse("revision", "1000"), Ok(AutoCompaction::Revision(1000)));
        for (mode, retention) in [("revision", "5m"), ("periodic", "x"), ("daily", "1")] {
            assert!(AutoCompaction::parse(mode, retention).is_err(), "{mode} {retention}");
        }
    }
}
