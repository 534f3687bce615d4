//! What containerd's event service tells of containers.

use crate::containerd::{Envelope, events};
use crate::runtime::{Runtime, RuntimeError};

const TOPICS: [&str; 5] =
    ["/tasks/start", "/tasks/exit", "/tasks/oom", "/tasks/delete", "/containers/delete"];

/// Whether an event tells of a container, rather than of a command that was run in one.
fn concerns_a_container(envelope: &Envelope) -> bool {
    envelope.topic != "/tasks/exit"
        || envelope.task().is_none_or(|e| e.id.is_empty() || e.id == e.container_id)
}

/// Wakes for each event of a pod's container; returns when the stream ends.
pub async fn listen(runtime: &Runtime, wake: impl Fn()) -> Result<(), RuntimeError> {
    let mut stream = events(runtime, &TOPICS).await?;
    while let Some(envelope) = stream.message().await? {
        if concerns_a_container(&envelope) {
            wake();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_command_in_a_container_is_no_news() {
        assert!(concerns_a_container(&Envelope::of_task("/tasks/exit", "c", "c")));
        assert!(!concerns_a_container(&Envelope::of_task("/tasks/exit", "c", "exec-1")));
        assert!(concerns_a_container(&Envelope::of_task("/tasks/start", "c", "")));
    }
}
