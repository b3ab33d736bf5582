//! The seam to the disk: every file operation of the store goes through [`Storage`].
//!
//! What the log relies on, and what each implementation is tested for:
//! - Bytes written are read back at once through any handle, but survive a power cut only once
//!   [`StorageFile::sync`] on that file has returned `Ok`. Before that any part of them may, in any order.
//! - A name made, changed or removed survives a power cut only once [`Storage::sync_dir`] on its
//!   directory has returned `Ok`. Before that each change may or may not, in any order.
//!   Directories made by [`Storage::create_dir_all`] are durable when it returns.
//! - After a sync failed, nothing is known about the bytes it covered, and a later sync that succeeds
//!   proves nothing about them.
//! - [`Storage::rename`] is atomic: the new name stands for the old file or the new one, never neither.
//! - Space that [`StorageFile::preallocate`] has taken does not run out: writes inside it do not fail for
//!   lack of room. What was never written there reads as zeros.
//! - Removing a name leaves open handles working.

mod fault;
mod fs;
mod power_cut;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use fault::{Fault, FaultStorage, Operation};
pub use fs::FsStorage;
pub use power_cut::PowerCutStorage;

/// A place where files live.
///
/// Paths are absolute or relative as the implementation sees fit; the log passes on what it was
/// given. All calls may block.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Makes a directory and its parents, durably. Those that exist are left alone.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes an empty file and opens it for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Gives a file another name in the same file system, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken.
    fn link(&self, existing: &Path, link: &Path) -> io::Result<()>;

    /// Removes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in no order. Names that are not UTF-8 are left out: none of ours is.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Length of a file in bytes.
    fn len(&self, path: &Path) -> io::Result<u64>;

    /// Whether the name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Makes the file if missing and locks it against every other holder, in this process or another,
    /// until the guard is dropped or the process ends.
    ///
    /// # Errors
    /// `WouldBlock` if somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>>;

    /// Where a file lies in the file system of this machine, if it does: what may be mapped.
    fn local_path(&self, path: &Path) -> Option<PathBuf> {
        let _ = path;
        None
    }

    /// Bytes that are free for us on the file system that holds `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file. Calls may be made from any thread; concurrent ones to one range are the caller's to order.
pub trait StorageFile: Send + Sync + fmt::Debug {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, extending the file if needed. After an error any part of
    /// them may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Takes the space for the first `len` bytes and extends the file to it. Never shortens it.
    fn preallocate(&self, len: u64) -> io::Result<()>;

    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether there is nothing in the file.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Makes the content and length durable.
    fn sync(&self) -> io::Result<()>;
}

/// Keeps a lock until dropped.
pub trait LockGuard: Send + Sync + fmt::Debug {}

/// Whether an error says that there is no room.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
