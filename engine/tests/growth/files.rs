//! Files of a store as the system sees them, and a storage that leaves out what only a power cut would
//! tell.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rootline_wal::{FsStorage, LockGuard, Storage, StorageFile};

/// All files below `dir` and their lengths.
pub(crate) fn files_in(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let Ok(entry) = entry else { continue };
        // One that was removed meanwhile does not count.
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(files_in(&entry.path())),
            Ok(metadata) => found.push((entry.path(), metadata.len())),
            Err(_) => {}
        }
    }
    found
}

/// Descriptors of this process that stand for files below `dir`; 0 where there is no `/proc`.
pub(crate) fn descriptors_under(dir: &Path) -> usize {
    let dir = dir.canonicalize().unwrap();
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    open.flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|target| target.starts_with(&dir))
        .count()
}

/// Real files that are never synced. Mapped, or read through descriptors.
#[derive(Debug)]
pub(crate) struct Unsynced {
    files: FsStorage,
    maps: bool,
}

impl Unsynced {
    pub(crate) fn mapped() -> Self {
        Self {
            files: FsStorage,
            maps: true,
        }
    }

    pub(crate) fn read() -> Self {
        Self {
            files: FsStorage,
            maps: false,
        }
    }
}

impl Storage for Unsynced {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(UnsyncedFile(self.files.create(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(UnsyncedFile(self.files.open(path)?)))
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        self.files.link(existing, link)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.files.list(dir)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.files.len(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.files.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.files.lock(path)
    }

    fn local_path(&self, path: &Path) -> Option<PathBuf> {
        self.files.local_path(path).filter(|_| self.maps)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.files.free_bytes(dir)
    }
}

#[derive(Debug)]
struct UnsyncedFile(Arc<dyn StorageFile>);

impl StorageFile for UnsyncedFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.0.preallocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
