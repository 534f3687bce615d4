//! Container logs: the files that the runtime writes, read as `kubectl logs` asks for them.
//!
//! [`line`] reads the format, [`tail`] finds where the last lines begin, [`follow`] waits for more
//! without polling, and [`source`] decides which container's file it is.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use k8s_cri::v1 as cri;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::runtime::{Runtime, RuntimeError};

pub mod follow;
pub mod line;
pub mod source;
pub mod tail;

/// The bytes that are read at once.
const BLOCK: usize = 32 * 1024;

/// Which part of a log is wanted and in which form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Go on until the container ends.
    pub follow: bool,
    /// Each line behind the time at which it was written.
    pub timestamps: bool,
    /// Only what was written then or later.
    pub since: Option<Timestamp>,
    /// Only the last lines.
    pub tail: Option<u64>,
    /// No more than so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Why a log cannot be read (any further).
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be opened or read.
    #[error("failed to read log file {path:?}: {error}")]
    Io {
        /// The log file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The runtime does not say whether the container has ended.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// `sinceTime` is no time.
    #[error("invalid time {0:?}: {1}")]
    Time(String, jiff::Error),
    /// Whoever reads the log is gone.
    #[error("the reader is gone")]
    Gone,
}

impl Options {
    /// The options of a request that came at `now`.
    pub fn of(request: &proto::LogRequest, now: Timestamp) -> Result<Self, LogError> {
        let at_least = |n: i64| u64::try_from(n).unwrap_or(0);
        let since = match (request.since_seconds, request.since_time.as_str()) {
            (Some(seconds), _) => {
                Some(now.saturating_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN))
            }
            (None, "") => None,
            (None, time) => Some(time.parse().map_err(|error| LogError::Time(time.to_owned(), error))?),
        };
        Ok(Self {
            follow: request.follow,
            timestamps: request.timestamps,
            since,
            tail: request.tail_lines.map(at_least),
            limit_bytes: request.limit_bytes.map(at_least),
        })
    }
}

/// A log that is open at the place from which it is to be read.
pub struct Log {
    path: Arc<Path>,
    file: File,
    lines: line::Lines,
    follow: Option<follow::Watch>,
}

impl Log {
    /// Opens the log of a container.
    pub async fn open(path: &str, options: &Options) -> Result<Self, LogError> {
        let path: Arc<Path> = Path::new(path).into();
        let failed = |error| LogError::Io { path: path.display().to_string(), error };
        // Watched before it is read, so that nothing between the two is missed.
        let follow = options.follow.then(|| follow::Watch::new(&path)).transpose().map_err(failed)?;
        let mut file = File::open(&path).await.map_err(failed)?;
        if let Some(lines) = options.tail {
            let handle = file.try_clone().await.map_err(failed)?.into_std().await;
            let start = tokio::task::spawn_blocking(move || tail::start(&handle, lines)).await;
            let start = start.map_err(|e| failed(std::io::Error::other(e)))?.map_err(failed)?;
            file.seek(std::io::SeekFrom::Start(start)).await.map_err(failed)?;
        }
        Ok(Self { path: path.clone(), file, lines: line::Lines::new(options), follow })
    }

    /// Reads the log to its end, or, when it is followed, to the end of the container.
    pub async fn send(
        mut self,
        runtime: &Runtime,
        container: &str,
        out: &mut impl AsyncSink,
    ) -> Result<(), LogError> {
        let Some(mut watch) = self.follow.take() else {
            self.drain(out).await?;
            return self.rest(out).await;
        };
        let mut ended = ended(runtime, container).await?;
        loop {
            if self.drain(out).await? {
                return Ok(());
            }
            // The log goes on in a new file. Until that was there, the old one was written to.
            if self.rotated().await {
                if self.drain(out).await? {
                    return Ok(());
                }
                self.file = self.reopen().await?;
                continue;
            }
            if ended {
                return self.rest(out).await;
            }
            watch.changed(|| self::ended(runtime, container)).await.map_err(|error| self.failed(error))?;
            if watch.closed() {
                ended = self::ended(runtime, container).await?;
            }
        }
    }

    /// Sends what the file holds now; true when the limit is reached.
    async fn drain(&mut self, out: &mut impl AsyncSink) -> Result<bool, LogError> {
        let mut block = vec![0; BLOCK];
        loop {
            let read = self.file.read(&mut block).await.map_err(|error| self.failed(error))?;
            if read == 0 {
                return Ok(false);
            }
            let mut text = Vec::with_capacity(read);
            let done = self.lines.push(&block[..read], &mut text);
            out.send(text.into()).await?;
            if done {
                return Ok(true);
            }
        }
    }

    /// Sends a last line that has no end.
    async fn rest(&mut self, out: &mut impl AsyncSink) -> Result<(), LogError> {
        let mut text = Vec::new();
        self.lines.finish(&mut text);
        out.send(text.into()).await
    }

    async fn rotated(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        match (self.file.metadata().await, tokio::fs::metadata(&self.path).await) {
            (Ok(ours), Ok(now)) => (ours.dev(), ours.ino()) != (now.dev(), now.ino()),
            // Moved away, and the new file is not there yet: its creation will be noticed.
            _ => false,
        }
    }

    async fn reopen(&self) -> Result<File, LogError> {
        File::open(&self.path).await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: std::io::Error) -> LogError {
        LogError::Io { path: self.path.display().to_string(), error }
    }
}

/// Where log text goes.
pub trait AsyncSink: Send {
    /// Sends text; waits while the reader takes no more.
    fn send(&mut self, text: Bytes) -> impl Future<Output = Result<(), LogError>> + Send;
}

/// Whether a container has ended, or is not there any more.
pub async fn ended(runtime: &Runtime, container: &str) -> Result<bool, RuntimeError> {
    match runtime.container_status(container).await {
        Ok(status) => Ok(status.state() == cri::ContainerState::ContainerExited),
        Err(error) if error.is_not_found() => Ok(true),
        // A runtime that restarts is asked again at the next event.
        Err(error) if error.is_unreachable() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
