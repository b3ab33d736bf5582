//! Copies of a store: a snapshot is a data directory of its own, made beside the running one or
//! restored somewhere else.
//!
//! Blocks never change, so they get a second name (a hard link) where both directories are on one file
//! system, and are copied otherwise. Log and manifest are appended to and reused, so they are copied
//! byte by byte. The copy of a log that is being written to ends in a torn tail at worst, which
//! opening takes for what it is: it was not acknowledged when the copy began.
//!
//! The manifest is copied last. A copy that was cut short has none, or not all of it, and if it is not
//! cleaned away it opens as an empty or a damaged store, never as one that lost data in silence.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rootline_wal::Storage;

use crate::{
    block::{self, BlockId},
    error::Error,
    filenames::{BLOCKS_DIR, LOG_DIR, MANIFEST_DIR},
    manifest::Manifest,
    verify::{Verified, verify},
};

/// Read and written at once.
const COPY_BYTES: usize = 1 << 20;

/// What a copy took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Where it is.
    pub dir: PathBuf,
    /// Blocks in it.
    pub blocks: u64,
    /// Bytes of files that share their space with the original.
    pub linked_bytes: u64,
    /// Bytes that were copied.
    pub copied_bytes: u64,
}

/// Makes a data directory `dir` of the snapshot in `from`, which stays as it is and is verified first.
///
/// # Errors
/// [`Error::AlreadyExists`] if `dir` has something in it. [`Error::DamagedSnapshot`] if a checksum in
/// `from` does not hold: nothing is made then. [`Error::NotAStore`], [`Error::Storage`].
pub fn restore(storage: &Arc<dyn Storage>, from: &Path, dir: &Path) -> Result<Copied, Error> {
    let Verified { damage, .. } = verify(storage, from, &mut |_, _| Ok(()))?;
    if let Some(damage) = damage.into_iter().next() {
        return Err(Error::DamagedSnapshot {
            path: damage.path,
            offset_bytes: damage.offset_bytes,
            reason: damage.reason,
        });
    }
    let (version, _) = Manifest::read(storage, &from.join(MANIFEST_DIR))?;
    copy(storage, from, dir, &mut version.blocks.keys().copied())
}

/// Copies the store in `from` to `dir`, which must not exist or be empty. The caller sees to it that
/// no block of `blocks` is removed, no edit is made and the log is not cut meanwhile.
///
/// # Errors
/// [`Error::AlreadyExists`], [`Error::Storage`]; what was made is removed again, best effort.
pub(crate) fn copy(
    storage: &Arc<dyn Storage>,
    from: &Path,
    dir: &Path,
    blocks: &mut dyn Iterator<Item = BlockId>,
) -> Result<Copied, Error> {
    let copying = Copying {
        storage,
        made: Vec::new(),
        copied: Copied {
            dir: dir.to_owned(),
            ..Copied::default()
        },
    };
    copying.run(from, dir, blocks)
}

fn failed<'p>(operation: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> Error + 'p {
    move |source| Error::Storage {
        operation,
        path: path.to_owned(),
        source,
    }
}

struct Copying<'c> {
    storage: &'c Arc<dyn Storage>,
    /// Files made so far, to be removed should it fail.
    made: Vec<PathBuf>,
    copied: Copied,
}

impl Copying<'_> {
    fn run(
        mut self,
        from: &Path,
        dir: &Path,
        blocks: &mut dyn Iterator<Item = BlockId>,
    ) -> Result<Copied, Error> {
        for name in [LOG_DIR, MANIFEST_DIR, BLOCKS_DIR] {
            let path = dir.join(name);
            let exists = self
                .storage
                .exists(&path)
                .map_err(failed("look for", &path))?;
            if exists
                && !self
                    .storage
                    .list(&path)
                    .map_err(failed("list", &path))?
                    .is_empty()
            {
                return Err(Error::AlreadyExists { path });
            }
        }
        match self.fill(from, dir, blocks) {
            Ok(()) => Ok(self.copied),
            Err(error) => {
                for path in &self.made {
                    let _ = self.storage.remove(path);
                }
                Err(error)
            }
        }
    }

    /// The manifest comes last: without it the directory is no store that could be opened by mistake.
    fn fill(
        &mut self,
        from: &Path,
        dir: &Path,
        blocks: &mut dyn Iterator<Item = BlockId>,
    ) -> Result<(), Error> {
        let blocks_dir = dir.join(BLOCKS_DIR);
        self.make_dir(&blocks_dir)?;
        for id in blocks {
            let source = block::path(&from.join(BLOCKS_DIR), id);
            self.link(&source, &block::path(&blocks_dir, id))?;
            self.copied.blocks += 1;
        }
        self.sync_dir(&blocks_dir)?;
        for name in [LOG_DIR, MANIFEST_DIR] {
            let (source, target) = (from.join(name), dir.join(name));
            self.make_dir(&target)?;
            for file in self
                .storage
                .list(&source)
                .map_err(failed("list", &source))?
            {
                if is_part_of_log(&file) {
                    self.copy_file(&source.join(&file), &target.join(&file))?;
                }
            }
            self.sync_dir(&target)?;
        }
        self.sync_dir(dir)
    }

    fn make_dir(&self, dir: &Path) -> Result<(), Error> {
        self.storage
            .create_dir_all(dir)
            .map_err(failed("create directory", dir))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), Error> {
        self.storage
            .sync_dir(dir)
            .map_err(failed("sync directory", dir))
    }

    fn link(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        match self.storage.link(from, to) {
            Ok(()) => {
                self.made.push(to.to_owned());
                self.copied.linked_bytes += self.storage.len(to).map_err(failed("look at", to))?;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(failed("link", from)(error))
            }
            // Another file system, or one without links.
            Err(_) => self.copy_file(from, to),
        }
    }

    fn copy_file(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        let source = match self.storage.open(from) {
            Ok(source) => source,
            // A spare segment that became another.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("open", from)(error)),
        };
        let target = self.storage.create(to).map_err(failed("create", to))?;
        self.made.push(to.to_owned());
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = 0;
        loop {
            let count = source
                .read_at(at, &mut buffer)
                .map_err(failed("read", from))?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            target.write_at(at, bytes).map_err(failed("write", to))?;
            at += count as u64;
        }
        target.sync().map_err(failed("sync", to))?;
        self.copied.copied_bytes += at;
        Ok(())
    }
}

/// Whether a file of a log's directory holds records.
fn is_part_of_log(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "wal")
}
