//! What is said on the supervisor's socket: a request and an answer, a line of JSON each.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// What the supervisor is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase")]
pub enum Request {
    /// How things stand.
    Status,
    /// How things stand once they are no longer as in this version.
    Wait {
        /// The version that is known.
        version: u64,
    },
    /// To read the description of the cluster again: new nodes, other flags, other binaries.
    Reload,
    /// To stop a process, or to cut a node's power.
    Stop {
        /// The process or the node.
        target: String,
    },
    /// To start a process or a node.
    Start {
        /// The process or the node.
        target: String,
    },
    /// To stop a process and start it again.
    Restart {
        /// The process.
        target: String,
    },
    /// To kill everything and end.
    Shutdown,
}

/// Where a process stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// It waits for another.
    #[default]
    Waiting,
    /// It runs, and does not do its work yet.
    Starting,
    /// It does its work.
    Ready,
    /// It ended or could not be started; it will be started again.
    Failed,
    /// It was stopped on request.
    Stopped,
}

/// A process, as the supervisor sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitState {
    /// Where it stands.
    pub phase: Phase,
    /// Its number while it runs.
    pub pid: Option<i32>,
    /// How often it was started again.
    pub restarts: u32,
    /// Why it ended, could not be started, or does not do its work yet.
    pub message: Option<String>,
}

/// All processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Grows with every change.
    pub version: u64,
    /// The processes by name.
    pub units: BTreeMap<String, UnitState>,
}

/// Why the supervisor gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// It does not run.
    #[error("the supervisor does not answer")]
    Absent(#[source] io::Error),
    /// It went away.
    #[error("the supervisor ended while it was asked; its log says why")]
    Ended,
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// It says what is not understood.
    #[error("the supervisor speaks another version of the protocol")]
    Garbled(#[source] serde_json::Error),
}

/// A connection to the supervisor.
pub struct Client {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Client {
    /// Connects to the supervisor that answers on `socket`.
    ///
    /// # Errors
    /// [`SupervisorError::Absent`].
    pub async fn connect(socket: &Path) -> Result<Self, SupervisorError> {
        let stream = UnixStream::connect(socket).await.map_err(SupervisorError::Absent)?;
        let (read, write) = stream.into_split();
        Ok(Self { lines: BufReader::new(read).lines(), write })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the supervisor says no, or nothing.
    pub async fn ask(&mut self, request: &Request) -> Result<State, SupervisorError> {
        let mut line = serde_json::to_vec(request).map_err(SupervisorError::Garbled)?;
        line.push(b'\n');
        self.write.write_all(&line).await.map_err(|_| SupervisorError::Ended)?;
        let answer = self.lines.next_line().await.map_err(|_| SupervisorError::Ended)?;
        let answer = answer.ok_or(SupervisorError::Ended)?;
        let answer: Result<State, String> =
            serde_json::from_str(&answer).map_err(SupervisorError::Garbled)?;
        answer.map_err(SupervisorError::Refused)
    }
}
