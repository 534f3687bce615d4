//! The store on disk: an append-only log in segments, of which the oldest is emptied when too much in it is dead.
//!
//! Everything is appended to the newest segment and durable once [`Log::flush`] returns, but for batches that consist of
//! heartbeats alone ([`Log::append_heartbeat`]): these are durable with whatever is flushed next. A key's records stand in the
//! order of their revisions, those that are moved out of the oldest segment included (their successors are moved along),
//! so that whoever reads the log from its beginning never sees a key come back that was deleted.

pub mod delta;
pub mod frame;
mod segment;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rustix::fs::{FlockOperation, flock};

pub use frame::Kind;
pub use segment::{Found, Segment};

use crate::pb::log::Delta;

/// A segment is closed when it has grown to this size.
pub const SEGMENT_BYTES: u64 = 8 << 20;

/// What can go wrong with the store. None of it goes away by trying again.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The disk or the file system refuses.
    #[error("{what} {}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("the data directory {} is in use", .0.display())]
    Locked(PathBuf),
    /// The store holds what was never written.
    #[error("{} is damaged at byte {offset}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the first frame that cannot be read begins.
        offset: u64,
    },
    /// A record does not say what its kind must.
    #[error("a record in the log cannot be decoded")]
    Decode(#[from] prost::DecodeError),
    /// A difference does not fit the record that it names.
    #[error("a difference in the log does not fit its record")]
    Difference,
}

pub(crate) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EngineError {
    let path = path.to_owned();
    move |source| EngineError::Io { what, path, source }
}

/// Where the body of an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The segment's number.
    pub segment: u32,
    /// Bytes from its beginning.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
    /// Whether the body tells how the record differs from another one.
    pub delta: bool,
}

impl Location {
    /// The bytes that the entry takes of its segment.
    pub fn footprint(self) -> u64 {
        u64::from(self.length) + frame::ENTRY_HEADER as u64
    }
}

/// The open log: what is appended, and to where. Only one thread has it.
pub struct Log {
    dir: PathBuf,
    active: Arc<Segment>,
    /// Bytes of the active segment that are written.
    written: u64,
    /// The frame that is being made, empty between batches.
    pending: Vec<u8>,
    /// Whether anything is synced at all.
    durable: bool,
    /// Whether the batch that is being made holds anything but heartbeats.
    urgent: bool,
    /// Whether something was written since the last sync.
    unsynced: bool,
    /// Whether something was cut off when it was opened.
    torn: bool,
    /// Held until the log is dropped.
    _lock: File,
}

/// The segments, oldest first. Readers keep those that they read from.
pub type Segments = BTreeMap<u32, Arc<Segment>>;

fn path_of(dir: &Path, id: u32) -> PathBuf {
    dir.join(format!("{id:08x}.log"))
}

fn sync_dir(dir: &Path) -> Result<(), EngineError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(io_error("could not sync", dir))
}

/// The numbers of the segments in a folder.
fn list(dir: &Path) -> Result<Vec<u32>, EngineError> {
    let error = || io_error("could not list", dir);
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir).map_err(error())? {
        let name = entry.map_err(error())?.file_name();
        let id =
            name.to_str().and_then(|n| n.strip_suffix(".log")).and_then(|n| u32::from_str_radix(n, 16).ok());
        ids.extend(id);
    }
    ids.sort_unstable();
    Ok(ids)
}

impl Log {
    /// Opens the log in a folder, which is made if need be, and hands every entry to `found`, oldest first.
    ///
    /// What was being written when the process or the machine died is cut off; what stands before it is durable when
    /// this returns. Blocks.
    ///
    /// # Errors
    /// [`EngineError::Locked`], [`EngineError::Damaged`], and those of the file system.
    pub fn open(
        dir: &Path,
        mut found: impl FnMut(Found) -> Result<(), EngineError>,
    ) -> Result<(Self, Segments), EngineError> {
        make_private(dir)?;
        let lock_path = dir.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(io_error("could not open", &lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| EngineError::Locked(dir.to_owned()))?;
        let ids = list(dir)?;
        let (mut segments, mut torn) = (Segments::new(), false);
        for id in &ids {
            let last = Some(id) == ids.last();
            let segment = Segment::open(*id, path_of(dir, *id))?;
            torn |= segment.recover(last, &mut found)?;
            segments.insert(*id, Arc::new(segment));
        }
        let active = match segments.last_key_value() {
            Some((_, last)) => last.clone(),
            None => {
                let first = Arc::new(Segment::create(1, path_of(dir, 1))?);
                sync_dir(dir)?;
                segments.insert(1, first.clone());
                first
            }
        };
        // What is found is told to readers, so that it must not vanish any more.
        active.sync()?;
        let written = active.length()?;
        let log = Self {
            dir: dir.to_owned(),
            active,
            written,
            pending: Vec::new(),
            durable: true,
            urgent: false,
            unsynced: false,
            torn,
            _lock: lock,
        };
        Ok((log, segments))
    }

    /// Whether something was cut off when it was opened.
    pub fn was_torn(&self) -> bool {
        self.torn
    }

    /// Leaves it to the system when the disk gets what is written: a machine that dies loses some of it, and may lose all.
    pub fn give_up_durability(&mut self) {
        self.durable = false;
    }

    /// Appends an entry to the batch that is being made.
    pub fn append(&mut self, kind: Kind, order: u32, message: &impl Message) -> Location {
        self.urgent = true;
        self.push(kind, order, message)
    }

    /// Appends the record of a key that barely changes, as its difference from `previous`, its record before, where that
    /// is possible. A batch of such records alone is written by [`Log::flush`] and not synced: the process may die then, but
    /// not the machine.
    ///
    /// # Errors
    /// Those of the file system, and when what was written before cannot be decoded.
    pub fn append_heartbeat(
        &mut self,
        order: u32,
        record: &impl Message,
        previous: Location,
    ) -> Result<Location, EngineError> {
        Ok(match self.delta(record, previous)? {
            Some(delta) => self.push(Kind::Delta, order, &delta),
            None => self.push(Kind::Put, order, record),
        })
    }

    /// Appends the record of a key as its difference from `previous`, its record before, where that is possible.
    ///
    /// # Errors
    /// As [`Log::append_heartbeat`].
    pub fn append_update(
        &mut self,
        order: u32,
        record: &impl Message,
        previous: Location,
    ) -> Result<Location, EngineError> {
        self.urgent = true;
        self.append_heartbeat(order, record, previous)
    }

    fn delta(&self, record: &impl Message, previous: Location) -> Result<Option<Delta>, EngineError> {
        if previous.segment != self.active.id() {
            return Ok(None);
        }
        // Differences are told from whole records alone, so that reading one takes two steps at most.
        let (base, length) = match previous.delta {
            true => {
                let delta = Delta::decode(self.active_body(previous.offset, previous.length)?)?;
                (delta.base, delta.length)
            }
            false => (previous.offset, previous.length),
        };
        if record.encoded_len() != length as usize {
            return Ok(None);
        }
        let runs = delta::diff(&self.active_body(base, length)?, &record.encode_to_vec());
        Ok(runs.map(|runs| Delta { base, length, runs: runs.into() }))
    }

    /// Bytes of the active segment, be they written or not.
    fn active_body(&self, offset: u32, length: u32) -> Result<Bytes, EngineError> {
        match self.pending_bytes(offset, length) {
            Some(bytes) => Ok(Bytes::copy_from_slice(bytes)),
            None => self.active.read(offset, length),
        }
    }

    fn push(&mut self, kind: Kind, order: u32, message: &impl Message) -> Location {
        if self.pending.is_empty() {
            frame::begin(&mut self.pending);
        }
        let (at, length) = frame::push(&mut self.pending, kind, order, message);
        let narrow = |n: u64| u32::try_from(n).expect("segments are far smaller than 4 GiB");
        Location {
            segment: self.active.id(),
            offset: narrow(self.written + at as u64),
            length: narrow(length as u64),
            delta: kind == Kind::Delta,
        }
    }

    /// Bytes of the batch that is being made.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether the batch that is being made, if it is not empty, consists of heartbeats alone.
    pub fn may_wait(&self) -> bool {
        !self.urgent
    }

    /// Whether something was written that is not durable.
    pub fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    /// Has the next [`Log::flush`] make everything durable, whatever the batch holds.
    pub fn hurry(&mut self) {
        self.urgent = true;
    }

    /// The body of an entry of the batch that is being made, if it is one: that of the whole record.
    ///
    /// # Errors
    /// Those of the file system, and when what was written before cannot be decoded.
    pub fn pending_body(&self, location: Location) -> Result<Option<Bytes>, EngineError> {
        let found = self.pending_bytes(location.offset, location.length);
        let Some(body) = found.filter(|_| location.segment == self.active.id()) else { return Ok(None) };
        let body = Bytes::copy_from_slice(body);
        if !location.delta {
            return Ok(Some(body));
        }
        let whole = segment::whole(body, |offset, length| self.active_body(offset, length))?;
        Ok(Some(whole))
    }

    fn pending_bytes(&self, offset: u32, length: u32) -> Option<&[u8]> {
        let start = usize::try_from(u64::from(offset).checked_sub(self.written)?).ok()?;
        self.pending.get(start..start + length as usize)
    }

    /// Writes the batch, and makes it and everything before it durable unless it may wait. Blocks until the disk has it.
    /// Returns the bytes written.
    ///
    /// # Errors
    /// Those of the file system; the log must not be used any more then, since nobody knows what the disk holds.
    pub fn flush(&mut self) -> Result<u64, EngineError> {
        let written = self.pending.len() as u64;
        if written > 0 {
            frame::finish(&mut self.pending, 0);
            self.active.write(&self.pending, self.written)?;
            self.unsynced = true;
            self.written += written;
            self.pending.clear();
            // One enormous batch is no reason to keep its memory.
            self.pending.shrink_to(1 << 20);
        }
        if std::mem::take(&mut self.urgent) {
            self.sync()?;
        }
        Ok(written)
    }

    fn sync(&mut self) -> Result<(), EngineError> {
        if std::mem::take(&mut self.unsynced) && self.durable {
            self.active.sync()?;
        }
        Ok(())
    }

    /// The number of the segment that is appended to.
    pub fn active(&self) -> u32 {
        self.active.id()
    }

    /// Whether the active segment has its size, so that [`Log::roll`] is due.
    pub fn is_full(&self) -> bool {
        self.written >= SEGMENT_BYTES
    }

    /// Bytes of the active segment.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Begins a new segment. Must not be called while a batch is being made.
    ///
    /// # Errors
    /// Those of the file system. The log goes on in the old segment then.
    pub fn roll(&mut self) -> Result<Arc<Segment>, EngineError> {
        debug_assert!(self.pending.is_empty(), "a batch belongs to one segment");
        // Only the last segment may end in what was not written to its end.
        self.sync()?;
        let id = self.active.id() + 1;
        let segment = Arc::new(Segment::create(id, path_of(&self.dir, id))?);
        sync_dir(&self.dir)?;
        self.active = segment.clone();
        self.written = 0;
        Ok(segment)
    }

    /// Reserves room on the disk for a batch of this size, so that a full disk is noticed before anything is changed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn reserve(&self, bytes: u64) -> Result<(), EngineError> {
        self.active.reserve(self.written, bytes)
    }

    /// Removes the oldest segment, of which nothing is needed any more. It is gone for good when this returns.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove(&mut self, segment: &Segment) -> Result<(), EngineError> {
        // What takes the place of its last records may be heartbeats that are not durable.
        self.sync()?;
        segment.remove()?;
        sync_dir(&self.dir)
    }
}

fn make_private(dir: &Path) -> Result<(), EngineError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(io_error("could not make", dir))
}

/// Writes a log anew, for a restored snapshot. The folder must hold no log.
pub struct Rebuild(Log);

impl Rebuild {
    /// Begins a log in a folder.
    ///
    /// # Errors
    /// Those of [`Log::open`]; [`EngineError::Locked`] also when there is a log already.
    pub fn begin(dir: &Path) -> Result<Self, EngineError> {
        if dir.exists() && !list(dir)?.is_empty() {
            return Err(EngineError::Locked(dir.to_owned()));
        }
        Ok(Self(Log::open(dir, |_| Ok(()))?.0))
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn append(&mut self, kind: Kind, order: u32, message: &impl Message) -> Result<(), EngineError> {
        if self.0.pending() >= 1 << 20 {
            self.0.flush()?;
            if self.0.is_full() {
                self.0.roll()?;
            }
        }
        self.0.append(kind, order, message);
        Ok(())
    }

    /// Makes everything durable.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(mut self) -> Result<(), EngineError> {
        self.0.flush().map(drop)
    }
}

#[cfg(test)]
mod tests;
