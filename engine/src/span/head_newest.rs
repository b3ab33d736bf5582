//! The newest traces of a shard of the head with spans that satisfy a filter.
//!
//! Rows stand in order of arrival, but of each page of them it is known when its latest span began, and
//! no trace begins after any of its spans. So pages are looked at by falling latest start, until enough
//! traces are found that begin after all that the pages left may hold. Only then are the matching spans
//! of the traces found counted.

use std::{cmp::Reverse, collections::BinaryHeap};

use hashbrown::HashMap;
use parking_lot::RwLock;

use super::{
    column::PAGE_ROWS,
    dictionary::number,
    filter::SpanFilter,
    head_part::HeadPart,
    part::{NewestTrace, newest_of},
    select::RowCursor,
    shard::{NONE, Shard},
};
use crate::{
    control::{CHECK_ROWS, QueryControl},
    error::Error,
    id::TraceId,
    time::Timestamp,
};

impl HeadPart {
    pub(crate) fn newest_traces(
        &self,
        filter: &SpanFilter,
        before: Option<(Timestamp, TraceId)>,
        limit: usize,
        ctl: &QueryControl,
    ) -> Result<Vec<NewestTrace>, Error> {
        let Some(lock) = self.lock() else {
            return Ok(Vec::new());
        };
        let mut cursor = RowCursor::of_pages(lock, self.catalog(), filter, self.view(), ctl)?;
        let mut found: HashMap<u32, NewestTrace> = HashMap::new();
        // The newest `limit` of those found, oldest on top.
        let mut newest: BinaryHeap<Reverse<(Timestamp, TraceId)>> = BinaryHeap::new();
        let mut rows = Vec::new();
        let mut traces = Vec::new();
        for (latest_ns, page) in self.pages_by_latest(lock) {
            let oldest = newest.peek().filter(|_| newest.len() >= limit);
            if oldest.is_some_and(|Reverse((start, _))| start.as_nanos() > latest_ns) {
                break;
            }
            ctl.check()?;
            {
                let shard = lock.read();
                let looked = cursor.page(&shard, self.catalog(), page, &mut rows);
                traces.clear();
                let idents = rows.iter().filter_map(|&row| shard.idents.get(row));
                traces.extend(idents.map(|ident| ident.trace));
                ctl.count_spans(looked as u64)?;
            }
            traces.sort_unstable();
            traces.dedup();
            for &trace in &traces {
                if found.contains_key(&trace) {
                    continue;
                }
                let newer = NewestTrace {
                    trace,
                    id: self.trace_id(trace)?,
                    start: self.trace_start(trace)?,
                    matched: 0,
                };
                let place = (newer.start, newer.id);
                if before.is_none_or(|before| place < before) {
                    newest.push(Reverse(place));
                    if newest.len() > limit {
                        newest.pop();
                    }
                }
                found.insert(trace, newer);
            }
        }
        let mut newest = newest_of(found.into_values().collect(), before, limit);
        for trace in &mut newest {
            trace.matched = self.count_matched(lock, trace.trace, &mut cursor, ctl)?;
        }
        Ok(newest)
    }

    /// Pages with the latest start of a row in each, latest first.
    fn pages_by_latest(&self, lock: &RwLock<Shard>) -> Vec<(i64, u32)> {
        let pages = self.row_bound().div_ceil(number(PAGE_ROWS)) as usize;
        let shard = lock.read();
        let latest = shard.bounds.iter_from(0).take(pages);
        let mut pages: Vec<(i64, u32)> = latest.map(|page| page.start_max).zip(0..).collect();
        pages.sort_unstable_by_key(|&page| Reverse(page));
        pages
    }

    /// How many rows of a trace match.
    fn count_matched(
        &self,
        lock: &RwLock<Shard>,
        trace: u32,
        cursor: &mut RowCursor<'_>,
        ctl: &QueryControl,
    ) -> Result<u64, Error> {
        let mut row = lock
            .read()
            .traces
            .get(trace)
            .map_or(NONE, |entry| entry.first);
        let mut matched = 0;
        while row < self.row_bound() {
            ctl.check()?;
            let shard = lock.read();
            let tables = self.catalog().read();
            for _ in 0..CHECK_ROWS {
                if row >= self.row_bound() {
                    break;
                }
                matched += u64::from(cursor.row_matches(&shard, &tables, row));
                row = shard.next_of_trace(row);
            }
        }
        Ok(matched)
    }
}
