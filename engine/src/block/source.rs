//! Where the bytes of a block come from.

use std::{borrow::Cow, fmt, ops::Range, path::Path, sync::Arc};

use rootline_wal::Storage;

use super::{
    map::MappedSource,
    pread::{OpenFiles, PreadSource},
};
use crate::error::Error;

/// The bytes of one file that nobody changes. Knows nothing of pages and checksums.
pub(super) trait BlockSource: Send + Sync + fmt::Debug {
    /// Length when it was opened.
    fn len_bytes(&self) -> u64;

    /// The bytes of a range: borrowed where they are mapped, read where not.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::CorruptBlock`] if the file ends before the range does.
    fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, Error>;

    /// Says that all of a range will be read at once.
    fn will_need(&self, range: Range<u64>);

    /// From now on the bytes stay readable when the file's name is removed.
    fn keep_open(&self) -> Result<(), Error>;

    #[cfg(test)]
    fn is_mapped(&self) -> bool;
}

/// Maps the file where it lies in the file system of this machine, if it does and can be mapped; else
/// reads it through `storage`.
pub(super) fn open(
    storage: &Arc<dyn Storage>,
    path: &Path,
    files: &Arc<OpenFiles>,
) -> Result<Box<dyn BlockSource>, Error> {
    open_at(storage.local_path(path).as_deref(), storage, path, files)
}

fn open_at(
    local: Option<&Path>,
    storage: &Arc<dyn Storage>,
    path: &Path,
    files: &Arc<OpenFiles>,
) -> Result<Box<dyn BlockSource>, Error> {
    if let Some(local) = local {
        // Not every file system can, and a process has only so many mappings.
        if let Some(mapped) = MappedSource::open(path, local)? {
            return Ok(Box::new(mapped));
        }
    }
    Ok(Box::new(PreadSource::open(storage, path, files)?))
}

/// The file has no such bytes any more.
pub(super) fn too_short(path: &Path, offset_bytes: u64) -> Error {
    Error::CorruptBlock {
        path: path.to_owned(),
        offset_bytes,
        reason: "the file ends here".to_owned(),
    }
}

/// A file operation failed.
pub(super) fn storage_error(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Storage {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use rootline_wal::PowerCutStorage;

    use super::*;

    #[test]
    fn a_file_that_cannot_be_mapped_is_read() {
        let storage: Arc<dyn Storage> = Arc::new(PowerCutStorage::new());
        let path = Path::new("/d/f");
        storage.create_dir_all(Path::new("/d")).unwrap();
        storage.create(path).unwrap().write_at(0, b"bytes").unwrap();
        let device = Path::new("/dev/null");
        let source = open_at(Some(device), &storage, path, &Arc::default()).unwrap();
        assert!(!source.is_mapped());
        assert_eq!(&*source.read(1..4).unwrap(), b"yte");
        assert!(source.read(1..6).is_err());
    }
}
