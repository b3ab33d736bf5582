//! The newest traces of a block with spans that satisfy a filter.
//!
//! Traces are numbered by (start, id), so the block is read from its end, in windows that grow, until
//! enough traces are found. Only partial traces may begin later than their number says, where their
//! first spans are hidden: those are looked at one by one beside.

use std::ops::Range;

use roaring::RoaringBitmap;

use super::{
    block::TraceCursor,
    block_part::{BlockPart, TraceOfRows},
    block_select::Plan,
    filter::SpanFilter,
    part::{NewestTrace, newest_of},
};
use crate::{
    control::{CHECK_ROWS, QueryControl},
    error::Error,
    id::TraceId,
    time::Timestamp,
};

/// Rows of the first window.
const FIRST_WINDOW_ROWS: u32 = 1 << 14;
/// How much larger than the one before each window is.
const WINDOW_GROWTH: u32 = 4;

impl BlockPart {
    pub(crate) fn newest_traces(
        &self,
        filter: &SpanFilter,
        before: Option<(Timestamp, TraceId)>,
        limit: usize,
        ctl: &QueryControl,
    ) -> Result<Vec<NewestTrace>, Error> {
        let plan = self.plan(filter, ctl)?;
        let mut found = self.newest_of_partial(&plan, ctl)?;
        let end = match before {
            Some(before) => self.first_trace_from(before)?,
            None => self.block.traces(),
        };
        let mut end_row = match end {
            0 => 0,
            end => self.block.trace_rows(end - 1)?.end,
        };
        let mut window = FIRST_WINDOW_ROWS;
        let mut whole = 0;
        while end_row > 0 && whole < limit {
            ctl.check()?;
            let mut first_row = end_row.saturating_sub(window);
            if first_row > 0 {
                let trace = self.block.trace_of_row(first_row)?;
                first_row = self.block.trace_rows(trace)?.start;
            }
            let rows = self.select_in(&plan, first_row..end_row, ctl)?;
            whole += self.take_newest(&rows, limit - whole, &mut found, ctl)?;
            end_row = first_row;
            // Where there is nothing among so many there is little elsewhere: all of it is one look.
            window = if rows.is_empty() {
                u32::MAX
            } else {
                window.saturating_mul(WINDOW_GROWTH)
            };
        }
        Ok(newest_of(found, before, limit))
    }

    /// Appends the newest of the traces that rows belong to, partial ones left out; at most `limit`.
    fn take_newest(
        &self,
        rows: &RoaringBitmap,
        limit: usize,
        found: &mut Vec<NewestTrace>,
        ctl: &QueryControl,
    ) -> Result<usize, Error> {
        let mut of_rows = TraceOfRows::new(&self.block);
        let mut cursor = TraceCursor::default();
        let mut taken = 0;
        let mut end = u32::MAX;
        // The last row of what is left, as long as there is one.
        while taken < limit
            && let Some(row) = rows.range(..end).next_back()
        {
            if taken % CHECK_ROWS == 0 {
                ctl.check()?;
            }
            let (trace, range) = of_rows.trace(row)?;
            end = range.start;
            if self.hidden.partial.contains(trace) {
                continue;
            }
            taken += 1;
            found.push(NewestTrace {
                trace,
                id: self.block.trace_id_with(trace, &mut cursor)?,
                start: Timestamp::from_nanos(self.block.trace_start_with(trace, &mut cursor)?),
                matched: rows.range_cardinality(range),
            });
        }
        Ok(taken)
    }

    /// All partial traces with rows that match.
    fn newest_of_partial(
        &self,
        plan: &Plan<'_>,
        ctl: &QueryControl,
    ) -> Result<Vec<NewestTrace>, Error> {
        let mut found = Vec::new();
        let mut cursor = TraceCursor::default();
        for trace in &self.hidden.partial {
            ctl.check()?;
            let rows: Range<u32> = self.block.trace_rows_with(trace, &mut cursor)?;
            let matched = self.select_in(plan, rows.clone(), ctl)?.len();
            if matched == 0 {
                continue;
            }
            if let Some(start) = self.earliest_visible(rows)? {
                found.push(NewestTrace {
                    trace,
                    id: self.block.trace_id_with(trace, &mut cursor)?,
                    start: Timestamp::from_nanos(start),
                    matched,
                });
            }
        }
        Ok(found)
    }

    /// The first trace that is not before (start, id).
    fn first_trace_from(&self, bound: (Timestamp, TraceId)) -> Result<u32, Error> {
        let mut cursor = TraceCursor::default();
        let (mut low, mut high) = (0, self.block.traces());
        while low < high {
            let middle = low + (high - low) / 2;
            let start = Timestamp::from_nanos(self.block.trace_start_with(middle, &mut cursor)?);
            let is_before = match start.cmp(&bound.0) {
                std::cmp::Ordering::Equal => {
                    self.block.trace_id_with(middle, &mut cursor)? < bound.1
                }
                order => order.is_lt(),
            };
            if is_before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}
