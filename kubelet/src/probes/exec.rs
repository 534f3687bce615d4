//! Probes that run a command in the container.

use std::time::Duration;

use super::Outcome;
use crate::runtime::{Runtime, RuntimeError};

/// Success is an exit code of 0. Output counts as what the container said, up to 10 KiB.
pub async fn ask(runtime: &Runtime, id: &str, command: &[String], timeout: Duration) -> Outcome {
    match runtime.exec_sync(id, command, timeout).await {
        Ok(answer) if answer.exit_code == 0 => Outcome::Success,
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend(answer.stderr);
            output.truncate(10 * 1024);
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(RuntimeError::Call(status)) if status.code() == tonic::Code::DeadlineExceeded => {
            Outcome::Failure(format!(
                "command timed out: {command:?} timed out after {}",
                crate::pod::state::go_duration(timeout)
            ))
        }
        Err(error) if error.is_unreachable() => Outcome::Error(error.to_string()),
        // A command that is not there is the container's fault.
        Err(error) => Outcome::Failure(error.to_string()),
    }
}
