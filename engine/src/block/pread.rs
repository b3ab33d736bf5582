//! Blocks read through `Storage`, and the bound on how many of their files are open.
//!
//! Locks: [`OpenFiles`] has one, held over no file operation.

use std::{
    borrow::Cow,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use hashbrown::HashMap;
use parking_lot::Mutex;
use rootline_wal::{Storage, StorageFile};

use super::source::{BlockSource, storage_error, too_short};
use crate::error::Error;

/// Handles kept open at most. With the log's, a store stays well under 256 descriptors.
pub(crate) const OPEN_FILES_MAX: usize = 128;

/// The handles used last. One for all blocks of a store.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    next_key: u64,
    /// Rises with every use: the lowest stamp was used the longest ago.
    clock: u64,
    files: HashMap<u64, (Arc<dyn StorageFile>, u64)>,
}

impl OpenFiles {
    fn new_key(&self) -> u64 {
        let mut held = self.held.lock();
        held.next_key += 1;
        held.next_key
    }

    fn get(&self, key: u64) -> Option<Arc<dyn StorageFile>> {
        let mut held = self.held.lock();
        held.clock += 1;
        let now = held.clock;
        let (file, used) = held.files.get_mut(&key)?;
        *used = now;
        Some(Arc::clone(file))
    }

    fn keep(&self, key: u64, file: Arc<dyn StorageFile>) {
        let mut held = self.held.lock();
        held.clock += 1;
        let now = held.clock;
        let mut oldest = None;
        if held.files.len() >= OPEN_FILES_MAX && !held.files.contains_key(&key) {
            let found = held.files.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(key) = found.map(|(&key, _)| key) {
                oldest = held.files.remove(&key);
            }
        }
        held.files.insert(key, (file, now));
        drop(held);
        // Closing is a file operation.
        drop(oldest);
    }

    fn forget(&self, key: u64) {
        let file = self.held.lock().files.remove(&key);
        drop(file);
    }

    /// Handles open now.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.held.lock().files.len()
    }
}

/// A file that is read at each call.
#[derive(Debug)]
pub(super) struct PreadSource {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    len_bytes: u64,
    files: Arc<OpenFiles>,
    key: u64,
    /// Set once the name may go.
    pinned: OnceLock<Arc<dyn StorageFile>>,
}

impl PreadSource {
    pub(super) fn open(
        storage: &Arc<dyn Storage>,
        path: &Path,
        files: &Arc<OpenFiles>,
    ) -> Result<Self, Error> {
        let file = storage.open(path).map_err(storage_error("open", path))?;
        let len_bytes = file.len().map_err(storage_error("measure", path))?;
        let source = Self {
            storage: Arc::clone(storage),
            path: path.to_owned(),
            len_bytes,
            files: Arc::clone(files),
            key: files.new_key(),
            pinned: OnceLock::new(),
        };
        files.keep(source.key, file);
        Ok(source)
    }

    fn file(&self) -> Result<Arc<dyn StorageFile>, Error> {
        if let Some(file) = self.pinned.get() {
            return Ok(Arc::clone(file));
        }
        if let Some(file) = self.files.get(self.key) {
            return Ok(file);
        }
        let file = match (self.storage.open(&self.path), self.pinned.get()) {
            // `keep_open` came between: it pins before it forgets, and before the name goes.
            (_, Some(pinned)) => return Ok(Arc::clone(pinned)),
            (opened, None) => opened.map_err(storage_error("open", &self.path))?,
        };
        self.files.keep(self.key, Arc::clone(&file));
        Ok(file)
    }
}

impl BlockSource for PreadSource {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, Error> {
        if range.end > self.len_bytes {
            return Err(too_short(&self.path, self.len_bytes));
        }
        // No more than the file had: the number is good for an allocation.
        let wanted = usize::try_from(range.end.saturating_sub(range.start))
            .map_err(|_| too_short(&self.path, range.start))?;
        let mut bytes = vec![0; wanted];
        let file = self.file()?;
        let read = file.read_at(range.start, &mut bytes);
        let read = read.map_err(storage_error("read", &self.path))?;
        if read < wanted {
            return Err(too_short(&self.path, range.start + read as u64));
        }
        Ok(Cow::Owned(bytes))
    }

    fn will_need(&self, _range: Range<u64>) {}

    fn keep_open(&self) -> Result<(), Error> {
        let file = self.file()?;
        // Set already: that one is as good.
        let _ = self.pinned.set(file);
        self.files.forget(self.key);
        Ok(())
    }

    #[cfg(test)]
    fn is_mapped(&self) -> bool {
        false
    }
}

impl Drop for PreadSource {
    fn drop(&mut self) {
        self.files.forget(self.key);
    }
}
