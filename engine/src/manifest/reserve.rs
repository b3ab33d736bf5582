//! Room on disk that is kept for the one edit that makes room.
//!
//! A full disk is emptied by dropping blocks and cutting the log, and both are edits first. If the
//! manifest has no room left for such an edit, this file gives its own.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rootline_wal::Storage;

/// Its name. The log leaves it alone.
const NAME: &str = "reserve";

/// A file of which nothing but its size counts.
#[derive(Debug)]
pub(super) struct Reserve {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    bytes: u64,
    is_held: bool,
}

impl Reserve {
    pub(super) fn new(storage: Arc<dyn Storage>, dir: &Path, bytes: u64) -> Self {
        Self {
            storage,
            path: dir.join(NAME),
            bytes,
            is_held: false,
        }
    }

    /// Sets the room aside, if there is any.
    pub(super) fn hold(&mut self) {
        if self.is_held {
            return;
        }
        let file = match self.storage.create(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                self.storage.open(&self.path)
            }
            other => other,
        };
        self.is_held = file.and_then(|file| file.preallocate(self.bytes)).is_ok();
        if !self.is_held {
            // An empty file helps nobody.
            let _ = self.storage.remove(&self.path);
        }
    }

    /// Gives the room to the file system. Returns whether there was any.
    pub(super) fn release(&mut self) -> bool {
        let was_held = std::mem::take(&mut self.is_held);
        was_held && self.storage.remove(&self.path).is_ok()
    }
}
