//! Reads: which keys a range has at a revision, in which order, and their values.

use std::sync::Arc;

use bytes::Bytes;

use super::{Data, Error, Key, KeyRange, Store, Version, check_range, decode};
use crate::engine::{EngineError, Location, Segments};
use crate::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::pb::etcdserverpb::{RangeRequest, RangeResponse};
use crate::pb::mvccpb::KeyValue;

/// Bytes of changes after which no further revision is read along.
const CHANGES_BYTES: u64 = 2 << 20;

/// What a read found before values are fetched.
pub(crate) struct Selection {
    found: Vec<(Key, Version)>,
    count: i64,
    /// Whether the limit is still to be applied, after sorting by value.
    sort_values: bool,
    more: bool,
}

fn within(value: i64, min: i64, max: i64) -> bool {
    (min == 0 || value >= min) && (max == 0 || value <= max)
}

/// Finds the keys of a read at a revision.
pub(crate) fn select(data: &Data, request: &RangeRequest, at: i64) -> Selection {
    let range = KeyRange::new(&request.key, &request.range_end);
    let mut selection = Selection { found: Vec::new(), count: 0, sort_values: false, more: false };
    let all = data.index.range(&range, at);
    if request.count_only {
        selection.count = i64::try_from(all.count()).unwrap_or(i64::MAX);
        return selection;
    }
    let limit = usize::try_from(request.limit).ok().filter(|l| *l > 0).unwrap_or(usize::MAX);
    let order = SortOrder::try_from(request.sort_order).unwrap_or(SortOrder::None);
    let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
    let sorted = order == SortOrder::Descend || target != SortTarget::Key;
    let keep = |v: &Version| {
        within(v.revision, request.min_mod_revision, request.max_mod_revision)
            && within(v.create, request.min_create_revision, request.max_create_revision)
    };
    let enough = if sorted { usize::MAX } else { limit };
    for (key, version) in all {
        selection.count += 1;
        if !keep(version) {
            continue;
        }
        if selection.found.len() < enough {
            selection.found.push((key.clone(), *version));
        } else {
            selection.more = true;
        }
    }
    if sorted {
        let descend = order == SortOrder::Descend;
        match target {
            SortTarget::Key => {}
            SortTarget::Version => selection.found.sort_by_key(|(_, v)| v.version),
            SortTarget::Create => selection.found.sort_by_key(|(_, v)| v.create),
            SortTarget::Mod => selection.found.sort_by_key(|(_, v)| v.revision),
            SortTarget::Value => selection.sort_values = true,
        }
        if !selection.sort_values {
            if descend {
                selection.found.reverse();
            }
            selection.more = selection.found.len() > limit;
            selection.found.truncate(limit);
        }
    }
    selection
}

/// Fetches what a selection found.
pub(crate) fn fetch(
    selection: Selection,
    request: &RangeRequest,
    mut body: impl FnMut(Location) -> Result<Bytes, EngineError>,
) -> Result<RangeResponse, Error> {
    let Selection { found, count, sort_values, mut more } = selection;
    let mut kvs = Vec::with_capacity(found.len());
    for (key, version) in found {
        kvs.push(if request.keys_only && !sort_values {
            KeyValue {
                key: Bytes::copy_from_slice(&key),
                create_revision: version.create,
                mod_revision: version.revision,
                version: version.version,
                value: Bytes::new(),
                lease: version.lease,
            }
        } else {
            decode(body(version.location)?)?
        });
    }
    if sort_values {
        kvs.sort_by(|a, b| a.value.cmp(&b.value));
        if request.sort_order == SortOrder::Descend as i32 {
            kvs.reverse();
        }
        let limit = usize::try_from(request.limit).ok().filter(|l| *l > 0).unwrap_or(usize::MAX);
        more = kvs.len() > limit;
        kvs.truncate(limit);
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
    }
    Ok(RangeResponse { header: None, kvs, more, count })
}

/// Reads the body of a record.
pub(crate) fn read_body(segments: &Segments, location: Location) -> Result<Bytes, EngineError> {
    let segment = segments.get(&location.segment).expect("what the index names is not removed");
    segment.body(location)
}

impl Store {
    /// Answers a read. Blocks, usually on the page cache only.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::Future`], a malformed request, and those of the disk.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        check_range(request)?;
        let (selection, segments, newest) = {
            let data = self.read();
            let newest = self.revision();
            data.check_revision(request.revision, newest)?;
            let at = if request.revision > 0 { request.revision } else { newest };
            (select(&data, request, at), data.segments.clone(), newest)
        };
        let response = fetch(selection, request, |location| read_body(&segments, location))?;
        Ok(RangeResponse { header: Some(self.header_at(newest)), ..response })
    }

    /// A key as it was at a revision.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn get_at(&self, key: &[u8], at: i64) -> Result<Option<KeyValue>, Error> {
        let found = {
            let data = self.read();
            data.index.get(key, at).map(|v| (v.location, data.segments.clone()))
        };
        match found {
            Some((location, segments)) => Ok(Some(decode(read_body(&segments, location)?)?)),
            None => Ok(None),
        }
    }

    /// The changes of a range from one revision up to another one, at most about `limit` of them and a few MiB, but always
    /// whole revisions; and the revision up to which they reach.
    ///
    /// # Errors
    /// [`Error::Compacted`] when older revisions than `from` are no longer known, and those of the disk.
    pub fn changes(
        &self,
        range: &KeyRange,
        from: i64,
        to: i64,
        limit: usize,
    ) -> Result<(Vec<(Version, KeyValue)>, i64), Error> {
        let mut found: Vec<(Version, Key)> = Vec::new();
        let mut reached = to;
        let segments = {
            let data = self.read();
            if from < data.compacted {
                return Err(Error::Compacted);
            }
            let (mut looked, mut bytes, mut previous) = (0, 0, 0);
            for change in data.index.changes(from).take_while(|c| c.revision <= to) {
                // A long look ends as well, even if it finds little; either ends between two revisions.
                let enough = found.len() >= limit || looked >= 100_000 || bytes >= CHANGES_BYTES;
                if change.revision != previous && enough {
                    reached = previous;
                    break;
                }
                previous = change.revision;
                looked += 1;
                if !range.contains(&change.key) {
                    continue;
                }
                if let Some(version) = data.index.exact(&change.key, change.revision) {
                    bytes += version.location.footprint();
                    found.push((*version, change.key.clone()));
                }
            }
            data.segments.clone()
        };
        let mut changes = Vec::with_capacity(found.len());
        for (version, key) in found {
            let kv = if version.is_deletion() {
                deleted(&key, version.revision)
            } else {
                decode(read_body(&segments, version.location)?)?
            };
            changes.push((version, kv));
        }
        Ok((changes, reached))
    }

    /// A checksum over everything that can be read at a revision (0: now); also the revision.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::Future`], and those of the disk.
    pub fn hash(&self, revision: i64) -> Result<(u32, i64, i64), Error> {
        let (found, segments, at, compacted) = {
            let data = self.read();
            let newest = self.revision();
            data.check_revision(revision, newest)?;
            let at = if revision > 0 { revision } else { newest };
            let all = KeyRange::From(Bytes::new());
            let found: Vec<Location> = data.index.range(&all, at).map(|(_, v)| v.location).collect();
            (found, data.segments.clone(), at, data.compacted)
        };
        let mut hasher = crc32fast::Hasher::new();
        for location in found {
            hasher.update(&read_body(&segments, location)?);
        }
        Ok((hasher.finalize(), at, compacted))
    }

    /// Everything that is remembered, for a snapshot: its state, its leases, and where its records stand, in the order
    /// of their revisions.
    pub(crate) fn everything(&self) -> Everything {
        let data = self.read();
        let revision = self.revision();
        let mut records = Vec::new();
        for (_, versions) in data.index.keys() {
            let versions = versions.iter().filter(|v| v.revision <= revision);
            records.extend(versions.map(|v| (v.revision, v.order, v.is_deletion(), v.location)));
        }
        records.sort_unstable_by_key(|(revision, order, ..)| (*revision, *order));
        let leases = data.leases.iter().map(|(_, lease)| lease.record).collect();
        // A snapshot holds all that was given out up to its revision.
        let state = crate::pb::log::State { revision, ceiling: 0, boot: String::new(), ..data.state() };
        Everything { state, leases, records, segments: data.segments.clone() }
    }
}

/// See [`Store::everything`].
pub(crate) struct Everything {
    pub state: crate::pb::log::State,
    pub leases: Vec<crate::pb::log::Lease>,
    /// Revision, order, whether it is a deletion, and where it stands.
    pub records: Vec<(i64, u32, bool, Location)>,
    pub segments: Arc<Segments>,
}

/// What is told of a key that was deleted.
pub(crate) fn deleted(key: &[u8], revision: i64) -> KeyValue {
    KeyValue { key: Bytes::copy_from_slice(key), mod_revision: revision, ..KeyValue::default() }
}
