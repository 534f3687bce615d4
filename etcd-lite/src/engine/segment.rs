//! One file of the log.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;
use prost::Message;
use rustix::fs::{FallocateFlags, fallocate};

use super::frame::{self, Entry, FRAME_HEADER, Kind};
use super::{EngineError, Location, delta, io_error};
use crate::pb::log::Delta;

/// An entry, and where it stands.
#[derive(Debug)]
pub struct Found {
    /// The entry. A difference is told as the whole record that it stands for.
    pub entry: Entry,
    /// Where its body is.
    pub location: Location,
}

/// A file of the log. Reads may come from any thread.
#[derive(Debug)]
pub struct Segment {
    id: u32,
    path: PathBuf,
    file: File,
}

/// How reading a segment from its beginning ended.
enum End {
    /// At the end of a frame, which is the end of the file.
    Whole,
    /// At something that is no frame.
    Torn,
}

/// The whole record that an encoded difference stands for; `read` is asked for what it differs from.
pub(super) fn whole(
    body: Bytes,
    read: impl FnOnce(u32, u32) -> Result<Bytes, EngineError>,
) -> Result<Bytes, EngineError> {
    let delta = Delta::decode(body)?;
    let base = read(delta.base, delta.length)?;
    Ok(delta::apply(&base, &delta.runs).ok_or(EngineError::Difference)?.into())
}

impl Segment {
    /// Opens a file.
    pub(super) fn open(id: u32, path: PathBuf) -> Result<Self, EngineError> {
        let file = File::options().read(true).write(true).open(&path);
        Ok(Self { id, file: file.map_err(io_error("could not open", &path))?, path })
    }

    /// Makes an empty file. Its name is durable when the folder has been synced.
    pub(super) fn create(id: u32, path: PathBuf) -> Result<Self, EngineError> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        Ok(Self { id, file: file.map_err(io_error("could not make", &path))?, path })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its size in bytes.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn length(&self) -> Result<u64, EngineError> {
        Ok(self.file.metadata().map_err(io_error("could not look at", &self.path))?.len())
    }

    /// Reads the body of an entry, that of the whole record where it is a difference. Blocks, usually on the page cache only.
    ///
    /// # Errors
    /// Those of the file system, and when it cannot be decoded.
    pub fn body(&self, location: Location) -> Result<Bytes, EngineError> {
        let body = self.read(location.offset, location.length)?;
        if location.delta { whole(body, |offset, length| self.read(offset, length)) } else { Ok(body) }
    }

    /// Reads some bytes. Blocks, usually on the page cache only.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read(&self, offset: u32, length: u32) -> Result<Bytes, EngineError> {
        let mut body = vec![0; length as usize];
        let read = self.file.read_exact_at(&mut body, offset.into());
        read.map_err(io_error("could not read", &self.path))?;
        Ok(body.into())
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), EngineError> {
        self.file.write_all_at(bytes, offset).map_err(io_error("could not write to", &self.path))
    }

    pub(super) fn sync(&self) -> Result<(), EngineError> {
        self.file.sync_data().map_err(io_error("could not sync", &self.path))
    }

    pub(super) fn remove(&self) -> Result<(), EngineError> {
        std::fs::remove_file(&self.path).map_err(io_error("could not remove", &self.path))
    }

    pub(super) fn reserve(&self, offset: u64, bytes: u64) -> Result<(), EngineError> {
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, bytes) {
            // The file system cannot; then only writing shows whether there is room.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(error) => Err(io_error("could not reserve room for", &self.path)(error.into())),
        }
    }

    /// Hands every entry to `found`, in order. Frames that are not whole are an error, unless this is the last
    /// segment: there they are what was being written at the end, and are cut off. Returns whether any were.
    pub(super) fn recover(
        &self,
        last: bool,
        found: &mut impl FnMut(Found) -> Result<(), EngineError>,
    ) -> Result<bool, EngineError> {
        let (end, offset) = self.scan(|_, entries| entries.into_iter().try_for_each(&mut *found))?;
        match end {
            End::Whole => Ok(false),
            End::Torn if last => {
                let cut = self.length()?.saturating_sub(offset);
                tracing::warn!(segment = %self.path.display(), bytes = cut, "dropping what was not written to its end");
                self.file.set_len(offset).map_err(io_error("could not cut", &self.path))?;
                self.file.sync_all().map_err(io_error("could not sync", &self.path))?;
                Ok(true)
            }
            End::Torn => Err(EngineError::Damaged { path: self.path.clone(), offset }),
        }
    }

    /// The frames from an offset on, one per call.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] for what is no frame.
    pub fn frame_at(&self, offset: u64) -> Result<Option<(Vec<Found>, u64)>, EngineError> {
        let damaged = || EngineError::Damaged { path: self.path.clone(), offset };
        let error = |source: io::Error| io_error("could not read", &self.path)(source);
        let mut header = [0; FRAME_HEADER];
        match self.file.read_exact_at(&mut header, offset) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && offset == self.length()? => {
                return Ok(None);
            }
            other => other.map_err(error)?,
        }
        let (length, crc) = frame::parse_header(header);
        if offset + (FRAME_HEADER + length) as u64 > self.length()? {
            return Err(damaged());
        }
        let mut payload = vec![0; length];
        self.file.read_exact_at(&mut payload, offset + FRAME_HEADER as u64).map_err(error)?;
        let entries = self.parse(payload, crc, offset)?.ok_or_else(damaged)?;
        Ok(Some((entries, offset + (FRAME_HEADER + length) as u64)))
    }

    /// The entries of a frame; `None` when it is none.
    fn parse(&self, payload: Vec<u8>, crc: u32, offset: u64) -> Result<Option<Vec<Found>>, EngineError> {
        if payload.is_empty() || crc32fast::hash(&payload) != crc {
            return Ok(None);
        }
        let narrow = |n: u64| u32::try_from(n).ok();
        let place = |entry: Entry| {
            let at = offset + (FRAME_HEADER + entry.offset) as u64;
            let (length, delta) = (narrow(entry.body.len() as u64)?, entry.kind == Kind::Delta);
            Some(Found { location: Location { segment: self.id, offset: narrow(at)?, length, delta }, entry })
        };
        let Some(entries) = frame::entries(&payload.into()) else { return Ok(None) };
        let Some(mut all) = entries.into_iter().map(place).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        for found in all.iter_mut().filter(|found| found.location.delta) {
            found.entry.body = self.body(found.location)?;
            found.entry.kind = Kind::Put;
        }
        Ok(Some(all))
    }

    /// Reads from the beginning; returns how and where that ended.
    fn scan(
        &self,
        mut frame: impl FnMut(u64, Vec<Found>) -> Result<(), EngineError>,
    ) -> Result<(End, u64), EngineError> {
        let size = self.length()?;
        let mut reader = BufReader::with_capacity(256 << 10, &self.file);
        let mut offset = 0;
        while offset < size {
            let mut header = [0; FRAME_HEADER];
            if size - offset < FRAME_HEADER as u64 {
                return Ok((End::Torn, offset));
            }
            reader.read_exact(&mut header).map_err(io_error("could not read", &self.path))?;
            let (length, crc) = frame::parse_header(header);
            if size - offset - (FRAME_HEADER as u64) < length as u64 {
                return Ok((End::Torn, offset));
            }
            let mut payload = vec![0; length];
            reader.read_exact(&mut payload).map_err(io_error("could not read", &self.path))?;
            let Some(entries) = self.parse(payload, crc, offset)? else { return Ok((End::Torn, offset)) };
            frame(offset, entries)?;
            offset += (FRAME_HEADER + length) as u64;
        }
        Ok((End::Whole, offset))
    }
}
