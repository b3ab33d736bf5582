//! What a snapshot does not see of a block.

use std::ops::Range;

use roaring::RoaringBitmap;

use super::block::SpanBlock;
use crate::{error::Error, id::TraceId};

/// Rows of a block that were superseded, deleted or have expired.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Hidden {
    /// The rows.
    pub(crate) rows: RoaringBitmap,
    /// Numbers of the traces of which some rows are hidden, but not all. What the block says of who is
    /// whose parent does not hold in them: it is found anew among the rows that are left.
    pub(crate) partial: RoaringBitmap,
}

impl Hidden {
    /// Whether all rows of a trace are hidden.
    pub(crate) fn hides_all(&self, rows: Range<u32>) -> bool {
        let count = u64::from(rows.end.saturating_sub(rows.start));
        self.rows.range_cardinality(rows) == count
    }

    /// Hides a whole trace, if the block has it. Returns whether that changed anything.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`].
    pub(crate) fn hide_trace(&mut self, block: &SpanBlock, id: TraceId) -> Result<bool, Error> {
        if !block.may_have_trace(id) {
            return Ok(false);
        }
        let Some(trace) = block.find_trace(id)? else {
            return Ok(false);
        };
        let rows = block.trace_rows(trace)?;
        self.partial.remove(trace);
        Ok(self.rows.insert_range(rows) > 0)
    }

    /// Hides rows.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`].
    pub(crate) fn hide_rows(
        &mut self,
        block: &SpanBlock,
        rows: &RoaringBitmap,
    ) -> Result<(), Error> {
        self.rows |= rows;
        // Rows of a trace follow each other.
        let mut known = 0..0;
        for row in rows {
            if known.contains(&row) {
                continue;
            }
            let trace = block.trace_of_row(row)?;
            known = block.trace_rows(trace)?;
            if self.hides_all(known.clone()) {
                self.partial.remove(trace);
            } else {
                self.partial.insert(trace);
            }
        }
        Ok(())
    }
}
