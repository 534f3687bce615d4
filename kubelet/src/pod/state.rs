//! What a pod's worker remembers between steps: where the pod is in its life, what is under way, and
//! what failed and when to try it again.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Why a pod's containers are to stop for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its deletion was asked for; the API object goes when nothing runs any more.
    Deleted,
    /// Its API object is gone already, by force or while nobody looked.
    Gone,
    /// Its containers have done what they were started for.
    Completed,
    /// The node ends or refuses it: the reason and message become those of its status.
    Failed {
        /// Such as `DeadlineExceeded` or `OutOfcpu`.
        reason: String,
        /// For people.
        message: String,
    },
}

/// The end of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Termination {
    /// What brought it about.
    pub why: Why,
    /// How long its containers may take in all.
    pub grace: Duration,
    /// When it began.
    pub since: Timestamp,
}

/// Where a pod is in its life on this node.
#[derive(Clone, Debug, PartialEq)]
pub enum Life {
    /// Its containers are kept as its spec wants them.
    Active,
    /// Its containers are being stopped.
    Terminating(Termination),
    /// Nothing runs; its sandbox, volumes and cgroup are being released.
    TearingDown(Termination),
    /// Everything is released; ended containers and logs are kept until it is deleted.
    Ended(Termination),
    /// It is deleted; the last records of it are being removed.
    Removing(Termination),
    /// Nothing of it is left on the node.
    Gone(Termination),
}

impl std::fmt::Display for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (word, end) = match self {
            Self::Active => return f.write_str("active"),
            Self::Terminating(end) => ("stopping the pod", end),
            Self::TearingDown(end) => ("releasing sandbox, volumes and cgroup", end),
            Self::Ended(end) => ("the pod has ended", end),
            Self::Removing(end) => ("removing the last records", end),
            Self::Gone(end) => ("nothing is left", end),
        };
        match &end.why {
            Why::Deleted => write!(f, "{word} (deleted, grace {})", go_duration(end.grace)),
            Why::Gone => write!(f, "{word} (not in the API)"),
            Why::Completed => write!(f, "{word} (completed)"),
            Why::Failed { reason, .. } => write!(f, "{word} ({reason})"),
        }
    }
}

impl Life {
    /// The end that has begun, if one has.
    pub fn termination(&self) -> Option<&Termination> {
        match self {
            Self::Active => None,
            Self::Terminating(t)
            | Self::TearingDown(t)
            | Self::Ended(t)
            | Self::Removing(t)
            | Self::Gone(t) => Some(t),
        }
    }

    /// Whether nothing of the pod will run again, and nothing does now.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Active | Self::Terminating(_) => false,
            Self::TearingDown(_) | Self::Ended(_) | Self::Removing(_) | Self::Gone(_) => true,
        }
    }
}

/// A failure that will be tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// A reason as a waiting container shows it, such as `ErrImagePull`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When it failed.
    pub at: Timestamp,
    /// Not to be tried again before then.
    pub until: Timestamp,
    /// How often it failed in a row.
    pub failures: u32,
}

/// Work that concerns the whole pod: mounting volumes, making the sandbox, tearing down.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Work {
    /// To be done when it is needed.
    #[default]
    Idle,
    /// Under way.
    Doing,
    /// Done.
    Done,
    /// Failed, and to be tried again.
    Failed(Trouble),
}

/// What is under way with a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ContainerOp {
    /// Nothing.
    #[default]
    Idle,
    /// Its image is pulled, or it is made and started.
    Starting,
    /// It is being stopped.
    Stopping {
        /// Which run.
        id: String,
        /// How long it was given.
        grace: Duration,
    },
}

/// The delay between a container's runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff(pub Duration);

impl Backoff {
    /// The first delay.
    pub const FIRST: Self = Self(Duration::from_secs(10));
    /// The longest delay.
    pub const MAX: Duration = Duration::from_secs(300);
    /// A run of this length forgets the crashes before it.
    pub const RESET: SignedDuration = SignedDuration::from_secs(600);

    /// The delay after one more crash.
    pub fn next(self) -> Self {
        Self((self.0 * 2).min(Self::MAX))
    }

    /// The delay that a container has come to after so many restarts, for a kubelet that saw none of them.
    pub fn after_restarts(count: u32) -> Option<Self> {
        let doublings = count.checked_sub(1)?.min(5);
        Some(Self((Self::FIRST.0 * 2u32.pow(doublings)).min(Self::MAX)))
    }
}

/// A run that its probes have given up on.
#[derive(Clone, Debug, PartialEq)]
pub struct Doomed {
    /// Which run.
    pub id: String,
    /// The sentence that says why.
    pub message: String,
    /// The probe's own grace, where it has one.
    pub grace: Option<Duration>,
}

/// What is remembered of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerMemory {
    /// What is under way.
    pub op: ContainerOp,
    /// Why it could not be started.
    pub trouble: Option<Trouble>,
    /// The delay that the next restart has to keep after the last run's end.
    pub backoff: Option<Backoff>,
    /// A run that must be replaced.
    pub doomed: Option<Doomed>,
    /// The run whose startup probe has succeeded.
    pub started: Option<String>,
    /// The run whose readiness probe succeeds.
    pub ready: Option<String>,
    /// The run whose crash loop was announced.
    pub announced: Option<String>,
}

/// Everything that a pod's worker remembers.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Where the pod is in its life.
    pub life: Life,
    /// Mounting the volumes.
    pub volumes: Work,
    /// Making the sandbox.
    pub sandbox: Work,
    /// Releasing what the pod holds, or removing its last records.
    pub release: Work,
    /// Per container, by name.
    pub containers: BTreeMap<String, ContainerMemory>,
    /// Objects (sandboxes, ended containers) whose removal is under way or has failed, by id.
    pub removing: BTreeMap<String, Work>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            life: Life::Active,
            volumes: Work::Idle,
            sandbox: Work::Idle,
            release: Work::Idle,
            containers: BTreeMap::new(),
            removing: BTreeMap::new(),
        }
    }
}

impl Memory {
    /// What is remembered of a container.
    pub fn container(&mut self, name: &str) -> &mut ContainerMemory {
        if !self.containers.contains_key(name) {
            self.containers.insert(name.to_owned(), ContainerMemory::default());
        }
        self.containers.get_mut(name).expect("it was just inserted")
    }

    /// What is under way with a container.
    pub fn op(&self, name: &str) -> &ContainerOp {
        self.containers.get(name).map_or(&ContainerOp::Idle, |c| &c.op)
    }

    /// Whether something is under way that must end before the pod can.
    pub fn is_busy(&self) -> bool {
        self.volumes == Work::Doing
            || self.sandbox == Work::Doing
            || self.containers.values().any(|c| c.op != ContainerOp::Idle)
    }
}

/// The time of the next try after so many failures: doubling from `first` up to `max`.
pub fn retry_at(now: Timestamp, failures: u32, first: Duration, max: Duration) -> Timestamp {
    let delay = first.saturating_mul(2u32.saturating_pow(failures.min(16))).min(max);
    SignedDuration::try_from(delay).ok().and_then(|d| now.checked_add(d).ok()).unwrap_or(Timestamp::MAX)
}

/// A duration as Go prints it: `10s`, `2m40s`, `1h0m0s`.
pub fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_five_minutes() {
        let delays: Vec<_> =
            std::iter::successors(Some(Backoff::FIRST), |b| Some(b.next())).take(7).collect();
        let seconds: Vec<_> = delays.iter().map(|b| b.0.as_secs()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(Backoff::after_restarts(0), None);
        assert_eq!(Backoff::after_restarts(1), Some(Backoff::FIRST));
        assert_eq!(Backoff::after_restarts(3).map(|b| b.0.as_secs()), Some(40));
        assert_eq!(Backoff::after_restarts(u32::MAX).map(|b| b.0.as_secs()), Some(300));
    }

    #[test]
    fn durations_read_as_in_go() {
        let text = |s| go_duration(Duration::from_secs(s));
        assert_eq!([text(10), text(160), text(300), text(3600)], ["10s", "2m40s", "5m0s", "1h0m0s"]);
    }

    #[test]
    fn retries_slow_down_to_a_limit() {
        let at = |failures| {
            let next =
                retry_at(Timestamp::UNIX_EPOCH, failures, Duration::from_secs(1), Duration::from_secs(10));
            next.as_second()
        };
        assert_eq!([at(0), at(1), at(3), at(4), at(u32::MAX)], [1, 2, 8, 10, 10]);
    }
}
