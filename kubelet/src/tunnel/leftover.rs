//! Ends a session whose process has ended and left its input unread.
//!
//! containerd (1.6 and 1.7) ends a session when its copying has ended, that of the input too. What a process did not
//! read fills the pipes on the way to it, and the shim keeps the last pipe open until containerd deletes the
//! process, which is what it does after the session: each waits for the other. Deleting the process breaks that up.
//! The exit code is known to containerd by then, and the output has been read.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use component::tasks::lock;
use tokio::time::Instant;
use tonic::{Code, Streaming};

use crate::containerd::{Envelope, delete_process, events};
use crate::runtime::Runtime;

const ADDED: &str = "/tasks/exec-added";
const EXITED: &str = "/tasks/exit";
/// How long containerd has to end a session by itself after the process or the output has ended.
const GRACE: Duration = Duration::from_secs(1);

/// Whether output still moves.
#[derive(Debug)]
pub(super) struct Activity(Mutex<(usize, Instant)>);

/// While this lives, output is being passed on.
pub(super) struct Passing<'a>(&'a Activity);

impl Activity {
    pub(super) fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    pub(super) fn passing(&self) -> Passing<'_> {
        lock(&self.0).0 += 1;
        Passing(self)
    }

    /// When output will have been at rest for [`GRACE`], as things are now.
    fn rest(&self, now: Instant) -> Instant {
        let (passing, last) = *lock(&self.0);
        if passing > 0 { now + GRACE } else { last + GRACE }
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.0);
        *state = (state.0 - 1, Instant::now());
    }
}

/// The commands that were begun in a container since the session began. One of them is the session's own; which
/// one, the runtime does not tell.
#[derive(Debug, Default)]
struct Commands {
    begun: BTreeSet<String>,
    ended: BTreeSet<String>,
}

impl Commands {
    fn observe(&mut self, container_id: &str, envelope: &Envelope) {
        let Some(task) = envelope.task().filter(|t| t.container_id == container_id) else { return };
        if envelope.topic == ADDED {
            self.begun.insert(task.id);
        } else if self.begun.remove(&task.id) {
            self.ended.insert(task.id);
        }
    }
}

/// Events from now on. None from a runtime that has no such events, which is one that needs no help.
///
/// containerd answers with the first event only: this resolves as late as that.
async fn subscribe(runtime: &Runtime) -> Option<Streaming<Envelope>> {
    match events(runtime, &[ADDED, EXITED]).await {
        Ok(events) => Some(events),
        Err(status) => {
            if status.code() != Code::Unimplemented {
                tracing::warn!(%status, "a command that leaves its input unread may not be seen to end");
            }
            None
        }
    }
}

/// Gives back the processes of commands that have ended while the session has not. Must be polled before the
/// session begins its command; runs until it is dropped.
pub(super) async fn release(runtime: &Runtime, container_id: &str, activity: &Activity) {
    let mut events = subscribe(runtime).await;
    let mut commands = Commands::default();
    let mut deadline = Instant::now();
    loop {
        let next = async {
            match &mut events {
                Some(stream) => stream.message().await.ok().flatten(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            envelope = next => match envelope {
                Some(envelope) => {
                    commands.observe(container_id, &envelope);
                    deadline = Instant::now() + GRACE;
                }
                // The runtime has gone, and the session with it.
                None => events = None,
            },
            () = tokio::time::sleep_until(deadline), if !commands.ended.is_empty() => {
                let now = Instant::now();
                deadline = activity.rest(now);
                if deadline <= now {
                    for id in std::mem::take(&mut commands.ended) {
                        delete(runtime, container_id, &id).await;
                    }
                }
            }
        }
    }
}

async fn delete(runtime: &Runtime, container_id: &str, id: &str) {
    match delete_process(runtime, container_id, id).await {
        Ok(()) => tracing::debug!(container_id, id, "a command ended and left input unread"),
        // The usual case: another session's, which has ended as it should.
        Err(status) if status.code() == Code::NotFound => {}
        Err(status) => {
            tracing::warn!(container_id, id, %status, "a process that has ended cannot be deleted")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_of_this_session_and_container_that_have_ended_are_given_back() {
        let mut commands = Commands::default();
        for (topic, container, id) in [
            (EXITED, "c", "earlier"),
            (ADDED, "c", "own"),
            (ADDED, "other", "theirs"),
            (EXITED, "other", "theirs"),
            (ADDED, "c", "running"),
            (EXITED, "c", "c"),
            (EXITED, "c", "own"),
        ] {
            commands.observe("c", &Envelope::of_task(topic, container, id));
        }
        assert_eq!(commands.ended, BTreeSet::from(["own".to_owned()]));
        assert_eq!(commands.begun, BTreeSet::from(["running".to_owned()]));
    }

    #[test]
    fn output_that_is_passed_on_is_not_at_rest() {
        let activity = Activity::new();
        let passing = activity.passing();
        let later = Instant::now() + GRACE * 10;
        assert!(activity.rest(later) > later);
        drop(passing);
        assert!(activity.rest(later) <= later);
        let before = Instant::now() - GRACE;
        assert!(activity.rest(before) > before);
    }
}
