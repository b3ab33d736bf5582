//! Blocks mapped into memory. The one module of blocks with `unsafe`.
//!
//! Invariants that the mapping rests on
//! - A block file is never changed once it has its name: the writer syncs and renames it, and nothing
//!   in the store opens it for writing afterwards. Removing it removes the name; the mapping stays.
//! - The mapping is read-only, and lives as long as the source that lends slices of it.
//!
//! Limits, documented in `docs/formats/block.md`: if another process cuts the file short, or the medium
//! fails under it, the kernel ends the process with SIGBUS when such a byte is read.
//!
//! A mapping keeps no descriptor: the file is closed when it is made.
#![expect(
    unsafe_code,
    reason = "mapping a file is unsafe; the invariants are above"
)]

use std::{
    borrow::Cow,
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
};

use memmap2::{Advice, Mmap};

use super::source::{BlockSource, storage_error, too_short};
use crate::error::Error;

/// A mapped file.
#[derive(Debug)]
pub(super) struct MappedSource {
    path: PathBuf,
    map: Mmap,
}

impl MappedSource {
    /// Maps the file at `local`; `path` is what errors name. `None` if it is there and cannot be mapped.
    pub(super) fn open(path: &Path, local: &Path) -> Result<Option<Self>, Error> {
        let file = File::open(local).map_err(storage_error("open", path))?;
        // SAFETY: the file is a block under its final name, which nobody changes (see above), and the
        // map is neither writable nor handed out.
        let Ok(map) = (unsafe { Mmap::map(&file) }) else {
            return Ok(None);
        };
        // Reading around a point query would fetch what nobody asked for; `will_need` fetches what is.
        // Advice that is not taken costs speed only.
        let _ = map.advise(Advice::Random);
        Ok(Some(Self {
            path: path.to_owned(),
            map,
        }))
    }
}

impl BlockSource for MappedSource {
    fn len_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    #[inline]
    fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, Error> {
        let ends = (usize::try_from(range.start), usize::try_from(range.end));
        let bytes = match ends {
            (Ok(start), Ok(end)) => self.map.get(start..end),
            _ => None,
        };
        bytes
            .map(Cow::Borrowed)
            .ok_or_else(|| too_short(&self.path, self.len_bytes()))
    }

    fn will_need(&self, range: Range<u64>) {
        if let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end))
            && start < end
            && end <= self.map.len()
        {
            let _ = self.map.advise_range(Advice::WillNeed, start, end - start);
        }
    }

    fn keep_open(&self) -> Result<(), Error> {
        Ok(())
    }

    #[cfg(test)]
    fn is_mapped(&self) -> bool {
        true
    }
}
