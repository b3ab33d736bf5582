//! Segment files: made, prepared ahead, and what the running log knows about each.
//!
//! A segment gets its name only when its header is durable and its space is taken, and its name is made
//! durable before the first record goes in: a record is never acknowledged in a file that a power
//! cut could make disappear.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    checksum::Seed,
    error::Error,
    filenames,
    format::{SegmentHeader, align_up},
    storage::{Storage, StorageFile, is_disk_full},
    store_id::StoreId,
};

/// Size of the segment a new or emptied log consists of.
pub(crate) const SEGMENT_BYTES_BASE: u64 = 64 << 10;

/// An open segment that takes groups.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) seed: Seed,
    /// Bytes that are allocated. The last block is kept for a marker.
    pub(crate) capacity: u64,
}

/// What is known of a segment on disk.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    /// Highest LSN it may hold.
    pub(crate) last_lsn: u64,
    pub(crate) bytes: u64,
    /// A group in it is durable: from it alone the log would know where its numbers go on.
    pub(crate) anchored: bool,
}

/// A cut segment, waiting under a name that means nothing.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// How making a segment failed.
#[derive(Debug)]
pub(crate) enum MakeError {
    /// For lack of room, before anything was given out. The log can go on.
    Full(Error),
    /// In a way after which the disk cannot be trusted.
    Fatal(Error),
}

/// Where segments are made.
#[derive(Clone, Debug)]
pub(crate) struct Maker {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) dir: PathBuf,
    pub(crate) store: StoreId,
}

impl Maker {
    /// Makes segment `number` of at least `bytes`, durable in name and header. `fill` may write groups
    /// into it before it gets its name.
    pub(crate) fn make(
        &self,
        header: &SegmentHeader,
        bytes: u64,
        spare: Option<Spare>,
        fill: &mut dyn FnMut(&Segment) -> io::Result<()>,
    ) -> Result<Segment, MakeError> {
        let number = header.segment;
        let path = self.dir.join(filenames::segment(number));
        let (temporary, capacity, recycled) = match spare {
            Some(spare) => (spare.path, spare.bytes, true),
            None => (
                self.dir.join(filenames::prepared(number)),
                align_up(bytes),
                false,
            ),
        };
        let made = self.make_at(header, &temporary, &path, capacity, recycled, fill);
        if made.is_err() {
            // Whatever is left of it under this name counts for nothing and is removed at open.
            let _ = self.storage.remove(&temporary);
        }
        made
    }

    fn make_at(
        &self,
        header: &SegmentHeader,
        temporary: &Path,
        path: &Path,
        capacity: u64,
        recycled: bool,
        fill: &mut dyn FnMut(&Segment) -> io::Result<()>,
    ) -> Result<Segment, MakeError> {
        let full_or_fatal = |operation, path: &Path, source: io::Error| {
            if is_disk_full(&source) {
                let path = path.to_owned();
                MakeError::Full(Error::DiskFull {
                    path,
                    wanted_bytes: capacity,
                    source,
                })
            } else {
                MakeError::Fatal(Error::Io {
                    operation,
                    path: path.to_owned(),
                    source,
                })
            }
        };
        let file = if recycled {
            self.storage
                .open(temporary)
                .map_err(|e| full_or_fatal("open", temporary, e))?
        } else {
            let file = self
                .storage
                .create(temporary)
                .map_err(|e| full_or_fatal("create", temporary, e))?;
            file.preallocate(capacity)
                .map_err(|e| full_or_fatal("preallocate", temporary, e))?;
            file
        };
        let segment = Segment {
            number: header.segment,
            path: path.to_owned(),
            file,
            seed: Seed::new(&self.store, header.segment),
            capacity,
        };
        segment
            .file
            .write_at(0, &header.encode())
            .and_then(|()| fill(&segment))
            .map_err(|e| full_or_fatal("write", temporary, e))?;
        // A failed sync leaves nothing known; it is not tried again, whatever the reason it gives.
        let fatal = |operation, path: &Path, source| {
            MakeError::Fatal(Error::Io {
                operation,
                path: path.to_owned(),
                source,
            })
        };
        segment
            .file
            .sync()
            .map_err(|e| fatal("sync", temporary, e))?;
        self.storage
            .rename(temporary, path)
            .map_err(|e| full_or_fatal("rename", temporary, e))?;
        self.storage
            .sync_dir(&self.dir)
            .map_err(|e| fatal("sync directory", &self.dir, e))?;
        Ok(segment)
    }
}
