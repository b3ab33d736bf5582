//! Writes a block file from its first byte to its last, in constant memory.
//!
//! 1. `block-<id>.tmp` is made; pages are written behind the place of the first end.
//! 2. `finish` writes both footers and both ends, syncs the file, gives it its name, syncs the directory.
//!
//! Invariants
//! - A file has its final name only once it is whole and durable.
//! - A page ends between two items, but for an item larger than a page, which fills pages of its own.
//! - An error leaves nothing behind under the final name; the temporary file is removed if that can be.

use std::{
    mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use rootline_wal::{Storage, StorageFile, StoreId};

use super::{
    BlockId, BlockMeta, PAGE_BYTES_MAX, SectionKind, filenames,
    format::{END_BYTES, End, Footer, PageEntry, SectionEntry, Seed},
    source::storage_error,
};
use crate::error::Error;

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 << 10;

/// A block that is being written. Dropped unfinished, it removes its file if it can.
pub(crate) struct BlockWriter {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    path: PathBuf,
    temporary: PathBuf,
    file: Arc<dyn StorageFile>,
    store: StoreId,
    id: BlockId,
    seed: Seed,
    /// Ended pages that are not written yet, then the page that is open.
    buffer: Vec<u8>,
    /// Where in the buffer the open page starts.
    page_start: usize,
    /// Where in the file the buffer goes.
    offset: u64,
    sections: Vec<SectionEntry>,
    /// Bytes of the open section that lie before the open page.
    section_bytes: u64,
    pages: u32,
    finished: bool,
}

impl std::fmt::Debug for BlockWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockWriter")
            .field("path", &self.path)
            .field("pages", &self.pages)
            .finish_non_exhaustive()
    }
}

impl BlockWriter {
    /// Begins a block of `store` in `dir`, which exists.
    ///
    /// # Errors
    /// [`Error::Storage`], also if there is a block of this number.
    pub(crate) fn create(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        store: StoreId,
        id: BlockId,
    ) -> Result<Self, Error> {
        let path = filenames::block(dir, id);
        let temporary = filenames::temporary(dir, id);
        if storage
            .exists(&path)
            .map_err(storage_error("look for", &path))?
        {
            let taken = std::io::ErrorKind::AlreadyExists.into();
            return Err(storage_error("create", &path)(taken));
        }
        let file = match storage.create(&temporary) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                // Left behind by a writer that could not remove it. Numbers are given out once.
                storage
                    .remove(&temporary)
                    .and_then(|()| storage.create(&temporary))
            }
            other => other,
        };
        let file = file.map_err(storage_error("create", &temporary))?;
        Ok(Self {
            storage: Arc::clone(storage),
            dir: dir.to_owned(),
            path,
            temporary,
            file,
            store,
            id,
            seed: Seed::new(&store, id),
            buffer: Vec::with_capacity(BUFFER_BYTES + PAGE_BYTES_MAX),
            page_start: 0,
            offset: END_BYTES as u64,
            sections: Vec::new(),
            section_bytes: 0,
            pages: 0,
            finished: false,
        })
    }

    /// Ends the section that is open and begins another. Each kind comes once, in any order.
    ///
    /// # Errors
    /// [`Error::Storage`].
    ///
    /// # Panics
    /// If the kind came before.
    pub(crate) fn begin(&mut self, section: SectionKind) -> Result<(), Error> {
        self.end_page()?;
        let code = section as u8;
        assert!(
            self.sections.iter().all(|section| section.code != code),
            "a section is written once"
        );
        self.section_bytes = 0;
        self.sections.push(SectionEntry {
            code,
            pages: Vec::new(),
        });
        Ok(())
    }

    /// Appends an item to the section that is open and returns its offset in it. An item of up to
    /// [`PAGE_BYTES_MAX`] bytes lies on one page.
    ///
    /// # Errors
    /// [`Error::Storage`]. The block cannot be finished then.
    pub(crate) fn write(&mut self, item: &[u8]) -> Result<u64, Error> {
        if self.page_bytes() + item.len() > PAGE_BYTES_MAX {
            self.end_page()?;
        }
        let offset = self.section_bytes + self.page_bytes() as u64;
        let mut chunks = item.chunks(PAGE_BYTES_MAX).peekable();
        while let Some(chunk) = chunks.next() {
            self.buffer.extend_from_slice(chunk);
            if chunks.peek().is_some() {
                self.end_page()?;
            }
        }
        Ok(offset)
    }

    /// Makes the block durable under its name. What `meta` says of id and length is set right.
    ///
    /// # Errors
    /// [`Error::Storage`]: there is no block then. [`Error::NotABlock`] if
    /// `meta` contradicts itself.
    pub(crate) fn finish(mut self, meta: BlockMeta) -> Result<BlockMeta, Error> {
        self.end_page()?;
        self.flush()?;
        let mut footer = Footer {
            meta: BlockMeta {
                id: self.id,
                file_bytes: 0,
                ..meta
            },
            sections: mem::take(&mut self.sections),
        };
        let bytes = footer.encode();
        if let Err(reason) = Footer::decode(&bytes) {
            // The log is cut for what is sealed: what could not be read again must not get its name.
            return Err(Error::NotABlock {
                path: self.path.clone(),
                reason: format!("it could not be read again: {reason}"),
            });
        }
        let footer_bytes = u32::try_from(bytes.len()).map_err(|_| {
            let large = std::io::ErrorKind::FileTooLarge.into();
            storage_error("write the footer of", &self.temporary)(large)
        })?;
        let footer_offset = self.offset;
        let end = End {
            store: self.store,
            id: self.id,
            footer_offset,
            footer_bytes,
            footer_checksum: self.seed.footer(&bytes),
            file_bytes: footer_offset + 2 * u64::from(footer_bytes) + END_BYTES as u64,
        };
        debug_assert!(end.adds_up(), "a block is what its ends say");
        self.buffer.extend_from_slice(&bytes);
        self.buffer.extend_from_slice(&bytes);
        self.buffer.extend_from_slice(&end.encode());
        self.page_start = self.buffer.len();
        self.flush()?;
        self.file
            .write_at(0, &end.encode())
            .map_err(storage_error("write", &self.temporary))?;
        self.file
            .sync()
            .map_err(storage_error("sync", &self.temporary))?;
        self.storage
            .rename(&self.temporary, &self.path)
            .map_err(storage_error("rename", &self.temporary))?;
        if let Err(source) = self.storage.sync_dir(&self.dir) {
            // The name may be there after a power cut. It is in no manifest, and the number is spent.
            let _ = self.storage.remove(&self.path);
            return Err(storage_error("sync directory", &self.dir)(source));
        }
        self.finished = true;
        footer.meta.file_bytes = end.file_bytes;
        Ok(footer.meta)
    }

    fn page_bytes(&self) -> usize {
        self.buffer.len() - self.page_start
    }

    fn end_page(&mut self) -> Result<(), Error> {
        let page = self.buffer.get(self.page_start..).unwrap_or_default();
        if page.is_empty() {
            return Ok(());
        }
        let bytes = u32::try_from(page.len()).expect("a page has at most 64 KiB");
        let checksum = self.seed.page(self.pages, page);
        let section = self.sections.last_mut();
        let section = section.expect("a section is begun before it is written to");
        section.pages.push(PageEntry { bytes, checksum });
        self.pages += 1;
        self.section_bytes += u64::from(bytes);
        self.page_start = self.buffer.len();
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes all ended pages, which is all there is: no page is open.
    fn flush(&mut self) -> Result<(), Error> {
        debug_assert_eq!(self.page_bytes(), 0, "a page is written when it has ended");
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = self.buffer.len() as u64;
        self.file
            .write_at(self.offset, &self.buffer)
            .map_err(storage_error("write", &self.temporary))?;
        self.offset += bytes;
        self.buffer.clear();
        self.page_start = 0;
        Ok(())
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        if !self.finished {
            // The next open removes what is left.
            let _ = self.storage.remove(&self.temporary);
        }
    }
}
