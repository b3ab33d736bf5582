//! Rows without a parent that were sent with one: it is not here, is the span itself, or would close a
//! cycle. Of all others, what was sent is the id of the parent's row.
//!
//! Their section: the rows (`sparse.rs`), then the ids, 8 bytes each.

use std::ops::Range;

use super::{
    directory::{HeadReader, Wrong},
    groups::GroupCache,
    sparse::{SparseRows, SparseWriter},
};
use crate::{
    block::{Block, BlockWriter, SectionKind},
    error::Error,
    varint,
};

pub(super) const SECTION: SectionKind = SectionKind::SpanOrphans;
const ID_BYTES: u64 = 8;

/// Writes them; the section has begun. Rows rise.
pub(super) fn write(
    writer: &mut BlockWriter,
    head: &mut Vec<u8>,
    orphans: &[(u32, [u8; 8])],
) -> Result<(), Error> {
    let mut rows = SparseWriter::new();
    for (row, _) in orphans {
        rows.push(writer, *row)?;
    }
    rows.finish(writer, head)?;
    let mut start_bytes = None;
    for (_, id) in orphans {
        let offset_bytes = writer.write(id)?;
        start_bytes.get_or_insert(offset_bytes);
    }
    varint::put_u64(head, start_bytes.unwrap_or(0));
    Ok(())
}

/// The rows and ids to read.
#[derive(Debug)]
pub(super) struct Orphans {
    rows: SparseRows,
    ids_bytes: u64,
}

impl Orphans {
    pub(super) fn open(head: &mut HeadReader<'_>, rows: u32) -> Result<Self, Wrong> {
        let rows = SparseRows::open(SECTION, rows, head)?;
        let ids_bytes = head.u64()?;
        let end = ids_bytes.checked_add(u64::from(rows.len()) * ID_BYTES);
        end.ok_or("ids of parents too long")?;
        Ok(Self { rows, ids_bytes })
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.rows.heap_bytes()
    }

    /// Calls `each` with the rows of a range that are in here, rising, and the ids.
    pub(super) fn each(
        &self,
        block: &Block,
        rows: Range<u32>,
        cursor: &mut GroupCache,
        mut each: impl FnMut(u32, [u8; 8]),
    ) -> Result<(), Error> {
        let items = self.rows.items_of(block, rows, cursor)?;
        if items.is_empty() {
            return Ok(());
        }
        let section = block.section(SECTION)?;
        for item in items {
            let row = self.rows.row(block, item, cursor)?;
            let at = self.ids_bytes + u64::from(item) * ID_BYTES;
            let bytes = section.bytes(at..at + ID_BYTES)?;
            each(row, bytes.first_chunk().copied().unwrap_or_default());
        }
        Ok(())
    }
}
