//! Snapshots: everything that is remembered, in one stream, and a store made from it.
//!
//! The form: sixteen bytes of magic, frames as in the log, zeros up to a multiple of 512, and the SHA-256 of all of it,
//! which is where etcdctl looks for one.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::engine::frame::{self, FRAME_HEADER};
use crate::engine::{EngineError, Kind, Rebuild};
use crate::mvcc::{Error, Everything, decode, read_body};
use crate::pb::log;

const MAGIC: &[u8; 16] = b"coxswain-etcd-1\n";
const BLOCK: usize = 512;
const SUM: usize = 32;
/// Bytes of a frame's payload after which the next frame begins.
const FRAME: usize = 256 << 10;

/// Makes the parts of a snapshot, one after another.
pub(crate) struct Parts {
    everything: Everything,
    next: usize,
    state: Progress,
    hasher: Sha256,
    sent: usize,
}

enum Progress {
    Head,
    Records,
    Sum,
    Done,
}

impl Parts {
    pub(crate) fn new(everything: Everything) -> Self {
        Self { everything, next: 0, state: Progress::Head, hasher: Sha256::new(), sent: 0 }
    }

    /// Bytes that are still to come, as far as can be told without making them.
    pub(crate) fn remaining(&self) -> u64 {
        let rest = self.everything.records.iter().skip(self.next);
        rest.map(|(.., location)| location.footprint()).sum::<u64>() + (BLOCK + SUM) as u64
    }

    /// The next part; nothing after the last one. Blocks.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut part = Vec::new();
        match self.state {
            Progress::Head => {
                part.extend(MAGIC);
                let start = part.len();
                frame::begin(&mut part);
                frame::push(&mut part, Kind::State, 0, &self.everything.state);
                for lease in &self.everything.leases {
                    frame::push(&mut part, Kind::Lease, 0, lease);
                }
                frame::finish(&mut part, start);
                self.state = Progress::Records;
            }
            Progress::Records if self.next < self.everything.records.len() => self.records(&mut part)?,
            Progress::Records => {
                let padding = (self.sent + FRAME_HEADER).next_multiple_of(BLOCK) - self.sent;
                part.resize(padding, 0);
                self.state = Progress::Sum;
            }
            Progress::Sum => {
                self.state = Progress::Done;
                return Ok(Some(Bytes::copy_from_slice(&self.hasher.finalize_reset())));
            }
            Progress::Done => return Ok(None),
        }
        self.hasher.update(&part);
        self.sent += part.len();
        Ok(Some(part.into()))
    }

    fn records(&mut self, part: &mut Vec<u8>) -> Result<(), Error> {
        frame::begin(part);
        while part.len() < FRAME {
            let Some((_, order, deletion, location)) = self.everything.records.get(self.next) else { break };
            let kind = if *deletion { Kind::Delete } else { Kind::Put };
            let body = read_body(&self.everything.segments, *location)?;
            frame::push(part, kind, *order, &decode(body)?);
            self.next += 1;
        }
        frame::finish(part, 0);
        Ok(())
    }
}

/// Why a snapshot cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file cannot be read.
    #[error("could not read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// The file is no snapshot of an etcd-lite, or not all of one.
    #[error("{} is no whole snapshot of an etcd-lite", .0.display())]
    Damaged(PathBuf),
    /// The folder is not empty, or cannot be written.
    #[error("could not write the store")]
    Engine(#[from] EngineError),
}

/// How a store is made from a snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreOptions {
    /// Added to the revision, so that it is beyond all that were given out after the snapshot was taken.
    pub bump_revision: i64,
    /// The least that the revision becomes.
    pub revision_at_least: i64,
    /// Forget all revisions before, so that watches which know a later one begin anew.
    pub mark_compacted: bool,
}

/// Makes a store in a data directory, which must not hold one, from a snapshot file. Returns its revision. Blocks.
///
/// # Errors
/// [`RestoreError`]; the folder may hold a part of the store then.
pub fn restore(file: &Path, data_dir: &Path, options: RestoreOptions) -> Result<i64, RestoreError> {
    let damaged = || RestoreError::Damaged(file.to_owned());
    let read = |e| RestoreError::Read(file.to_owned(), e);
    verify(file)?;
    let mut input = BufReader::with_capacity(1 << 20, File::open(file).map_err(read)?);
    input.read_exact(&mut [0; MAGIC.len()]).map_err(read)?;
    let mut log = Rebuild::begin(&crate::log_dir(data_dir))?;
    let mut revision = 0;
    loop {
        let mut header = [0; FRAME_HEADER];
        input.read_exact(&mut header).map_err(read)?;
        let (length, crc) = frame::parse_header(header);
        if length == 0 {
            break;
        }
        let mut payload = vec![0; length];
        input.read_exact(&mut payload).map_err(read)?;
        if crc32fast::hash(&payload) != crc {
            return Err(damaged());
        }
        for entry in frame::entries(&payload.into()).ok_or_else(damaged)? {
            match entry.kind {
                Kind::State => {
                    let mut state = log::State::decode(entry.body).map_err(EngineError::from)?;
                    state.revision =
                        (state.revision + options.bump_revision.max(0)).max(options.revision_at_least);
                    if options.mark_compacted {
                        state.compacted = state.revision;
                    }
                    revision = state.revision;
                    log.append(Kind::State, 0, &state)?;
                }
                Kind::Lease | Kind::LeaseEnd => {
                    log.append(entry.kind, 0, &log::Lease::decode(entry.body).map_err(EngineError::from)?)?;
                }
                // A snapshot's records are whole.
                Kind::Delta => return Err(damaged()),
                Kind::Put | Kind::Delete => log.append(entry.kind, entry.order, &decode(entry.body)?)?,
            }
        }
    }
    log.finish()?;
    Ok(revision)
}

/// Checks that a file begins and ends as a snapshot does, and that nothing between is changed.
fn verify(file: &Path) -> Result<(), RestoreError> {
    let damaged = || RestoreError::Damaged(file.to_owned());
    let read = |e| RestoreError::Read(file.to_owned(), e);
    let input = File::open(file).map_err(read)?;
    let size = input.metadata().map_err(read)?.len();
    if size < (BLOCK + SUM) as u64 || size % BLOCK as u64 != SUM as u64 {
        return Err(damaged());
    }
    let mut body = input.take(size - SUM as u64);
    let (mut hasher, mut buffer, mut first) = (Sha256::new(), vec![0; 256 << 10], true);
    loop {
        let count = body.read(&mut buffer).map_err(read)?;
        if count == 0 {
            break;
        }
        if std::mem::take(&mut first) && !buffer[..count].starts_with(MAGIC) {
            return Err(damaged());
        }
        hasher.update(&buffer[..count]);
    }
    let mut sum = [0; SUM];
    body.into_inner().read_exact(&mut sum).map_err(read)?;
    if hasher.finalize()[..] == sum { Ok(()) } else { Err(damaged()) }
}
