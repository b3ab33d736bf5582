//! One shard of a generation of the head as a part of the span store.
//!
//! The shard's lock is held for at most `CHECK_ROWS` rows at a time: rows below the view's bound do not
//! change, but for links to rows above it, which count for nothing here. Where a trace is odd
//! (`shard.rs`) the parent rule is applied to its visible rows, once per call.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::RwLock;
use roaring::RoaringBitmap;
use rootline_wal::Lsn;

use super::{
    axis::Axis,
    catalog::{Catalog, SymbolId},
    dictionary::number,
    family::Family,
    filter::{SpanFilter, TagScope},
    head::SpanHead,
    hit::{OddTraces, SpanHit, hit_of},
    model::{Attributes, SpanKind, StatusCode, Trace, TraceSummary},
    parents::NO_PARENT,
    part::{RowValues, SpanClass},
    read,
    rows::SpanRows,
    select::{RowCursor, count_classes},
    shard::{Buffers, Ident, NONE, Shard, View},
};
use crate::{
    control::{CHECK_ROWS, QueryControl},
    error::Error,
    id::TraceId,
    time::{TimeRange, Timestamp},
    value::Value,
};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct HeadPart {
    head: Arc<SpanHead>,
    shard: usize,
    view: View,
}

/// Rows of several traces one after the other, as they are read under the lock.
#[derive(Debug, Default)]
struct Chunk {
    rows: Vec<u32>,
    /// The rows of the parents.
    linked: Vec<u32>,
    starts: Vec<i64>,
    durations: Vec<u64>,
    /// Traces that are complete, with where their rows end.
    ends: Vec<(u32, usize)>,
}

impl HeadPart {
    /// A shard as of `at`.
    pub(crate) fn new(head: &Arc<SpanHead>, shard: usize, at: Lsn) -> Self {
        let view = head.shard(shard).map(|lock| lock.read().view(at));
        Self {
            head: Arc::clone(head),
            shard,
            view: view.unwrap_or(View { at, rows: 0 }),
        }
    }

    /// `None` only for a shard that does not exist: such a part has no rows.
    pub(super) fn lock(&self) -> Option<&RwLock<Shard>> {
        self.head.shard(self.shard)
    }

    pub(super) fn catalog(&self) -> &Catalog {
        self.head.catalog()
    }

    /// What is seen of the shard.
    pub(super) fn view(&self) -> View {
        self.view
    }

    /// No row from here on is seen.
    pub(super) fn row_bound(&self) -> u32 {
        self.view.rows
    }

    /// Whether every row below the bound is visible.
    pub(super) fn sees_all_rows(&self) -> bool {
        self.lock().is_none_or(|lock| !lock.read().has_deletes())
    }

    pub(crate) fn spans(&self) -> u64 {
        u64::from(self.view.rows)
    }

    pub(crate) fn start_bounds(&self) -> Option<TimeRange> {
        let shard = self.lock()?.read();
        let pages = self.view.rows.div_ceil(number(super::column::PAGE_ROWS));
        let mut bounds: Option<(i64, i64)> = None;
        for page in shard.bounds.iter_from(0).take(pages as usize) {
            let (low, high) = bounds.unwrap_or((i64::MAX, i64::MIN));
            bounds = Some((low.min(page.start_min), high.max(page.start_max)));
        }
        let (low, high) = bounds?;
        TimeRange::new(Timestamp::from_nanos(low), Timestamp::from_nanos(high)).ok()
    }

    pub(crate) fn symbol(&self, id: SymbolId) -> Arc<str> {
        self.head.symbol(id)
    }

    pub(crate) fn class_count(&self) -> u32 {
        self.lock().map_or(0, |lock| lock.read().classes.rows())
    }

    pub(crate) fn class(&self, class: u32) -> SpanClass {
        let found = self
            .lock()
            .and_then(|lock| lock.read().classes.get(class).map(|entry| entry.class));
        let service = found.and_then(|class| {
            let tables = self.catalog().read();
            let resource = tables.resources.get(class.resource as usize);
            resource.map(|entry| entry.service)
        });
        SpanClass {
            service: service.unwrap_or(NONE),
            name: found.map_or(NONE, |class| class.name),
            kind: found.map_or(SpanKind::Unspecified, |class| class.kind),
            status: found.map_or(StatusCode::Unset, |class| class.status),
            resource: found.map_or(NONE, |class| class.resource),
        }
    }

    /// Calls `each` with the rows that satisfy a filter, in slices and under the lock, rising.
    pub(super) fn each_slice(
        &self,
        filter: &SpanFilter,
        ctl: &QueryControl,
        each: &mut dyn FnMut(&Shard, &[u32]),
    ) -> Result<(), Error> {
        let Some(lock) = self.lock() else {
            return Ok(());
        };
        let mut cursor = RowCursor::new(lock, self.catalog(), filter, self.view, ctl)?;
        let mut rows = Vec::new();
        loop {
            ctl.check()?;
            let shard = lock.read();
            let seen = cursor.next_slice(&shard, self.catalog(), &mut rows);
            if seen == 0 {
                return Ok(());
            }
            each(&shard, &rows);
            drop(shard);
            ctl.count_spans(seen as u64)?;
        }
    }

    pub(crate) fn select(
        &self,
        filter: &SpanFilter,
        ctl: &QueryControl,
    ) -> Result<SpanRows, Error> {
        let mut found = RoaringBitmap::new();
        self.each_slice(filter, ctl, &mut |_, rows| {
            // Slices rise, and rows within them.
            let _ = found.append(rows.iter().copied());
        })?;
        Ok(SpanRows::from_bitmap(found))
    }

    pub(crate) fn count(&self, filter: &SpanFilter, ctl: &QueryControl) -> Result<u64, Error> {
        if let Some(counts) = self.class_counts(filter, ctl)? {
            return Ok(counts.into_iter().map(|(_, count)| count).sum());
        }
        let mut count = 0;
        self.each_slice(filter, ctl, &mut |_, rows| count += rows.len() as u64)?;
        Ok(count)
    }

    /// Rows by class, where no row has to be looked at for them.
    fn class_counts(
        &self,
        filter: &SpanFilter,
        ctl: &QueryControl,
    ) -> Result<Option<Vec<(u32, u64)>>, Error> {
        match self.lock() {
            Some(lock) if self.sees_all_rows() => {
                count_classes(lock, self.catalog(), filter, self.view, ctl)
            }
            _ => Ok(None),
        }
    }

    pub(crate) fn count_by_class(
        &self,
        filter: &SpanFilter,
        ctl: &QueryControl,
    ) -> Result<Vec<(u32, u64)>, Error> {
        if let Some(counts) = self.class_counts(filter, ctl)? {
            return Ok(counts);
        }
        let mut counts: Vec<u64> = Vec::new();
        self.each_slice(filter, ctl, &mut |shard, rows| {
            counts.resize(shard.classes.len(), 0);
            for &class in rows.iter().filter_map(|&row| shard.class_of.get(row)) {
                if let Some(count) = counts.get_mut(class as usize) {
                    *count += 1;
                }
            }
        })?;
        let counted = (0u32..).zip(counts).filter(|&(_, count)| count > 0);
        Ok(counted.collect())
    }

    /// Calls `each` with every row and the shard.
    fn each_row(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        mut each: impl FnMut(&Shard, u32),
    ) -> Result<(), Error> {
        let Some(lock) = self.lock() else {
            return Ok(());
        };
        let mut rows = rows.iter().peekable();
        while rows.peek().is_some() {
            ctl.check()?;
            let shard = lock.read();
            for row in rows.by_ref().take(CHECK_ROWS) {
                each(&shard, row);
            }
        }
        Ok(())
    }

    pub(crate) fn durations(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u64>,
    ) -> Result<(), Error> {
        self.each_row(rows, ctl, |shard, row| {
            out.push(shard.durations.get(row).copied().unwrap_or_default());
        })
    }

    pub(crate) fn starts(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<i64>,
    ) -> Result<(), Error> {
        self.each_row(rows, ctl, |shard, row| {
            out.push(shard.starts.get(row).copied().unwrap_or_default());
        })
    }

    pub(crate) fn classes(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        self.each_row(rows, ctl, |shard, row| {
            out.push(shard.class_of.get(row).copied().unwrap_or(NONE));
        })
    }

    pub(crate) fn traces(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        self.each_row(rows, ctl, |shard, row| {
            out.push(shard.idents.get(row).map_or(NONE, |ident| ident.trace));
        })
    }

    /// The traces of rows, rising.
    fn traces_of(&self, rows: &SpanRows, ctl: &QueryControl) -> Result<Vec<u32>, Error> {
        let mut traces = Vec::new();
        self.traces(rows, ctl, &mut traces)?;
        traces.sort_unstable();
        traces.dedup();
        Ok(traces)
    }

    /// Calls `each` with every one of some traces, without the lock.
    fn each_family(
        &self,
        traces: &[u32],
        ctl: &QueryControl,
        each: &mut dyn FnMut(&Family) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(lock) = self.lock() else {
            return Ok(());
        };
        let mut chunk = Chunk::default();
        let mut family = Family::default();
        let mut traces = traces.iter().copied();
        // The trace being read, and its next row once it has begun.
        let mut open: Option<(u32, Option<u32>)> = None;
        loop {
            ctl.check()?;
            let mut odd = None;
            let mut exhausted = false;
            {
                let shard = lock.read();
                let mut seen = 0;
                while seen < CHECK_ROWS {
                    let next = || traces.next().map(|trace| (trace, None));
                    let Some((trace, row)) = open.take().or_else(next) else {
                        exhausted = true;
                        break;
                    };
                    let entry = shard.traces.get(trace);
                    if row.is_none() && entry.is_some_and(|entry| entry.odd) {
                        odd = Some(trace);
                        break;
                    }
                    let mut row = row.or(entry.map(|entry| entry.first)).unwrap_or(NONE);
                    seen += 1;
                    while row < self.view.rows && seen < CHECK_ROWS {
                        seen += 1;
                        if shard.is_visible(row, self.view) {
                            chunk.push(&shard, row);
                        }
                        row = shard.next_of_trace(row);
                    }
                    if row < self.view.rows {
                        open = Some((trace, Some(row)));
                    } else {
                        chunk.ends.push((trace, chunk.rows.len()));
                    }
                }
                ctl.count_spans(seen as u64)?;
            }
            chunk.take_families(&mut family, each)?;
            if let Some(trace) = odd {
                self.odd_family(lock, trace, &mut family, ctl)?;
                if !family.rows.is_empty() {
                    each(&family)?;
                }
            }
            if exhausted {
                return Ok(());
            }
        }
    }

    /// A trace whose own links do not say all.
    fn odd_family(
        &self,
        lock: &RwLock<Shard>,
        trace: u32,
        family: &mut Family,
        ctl: &QueryControl,
    ) -> Result<(), Error> {
        let light = read::light_rows(lock, self.catalog(), trace, self.view, ctl)?;
        family.clear();
        family.trace = trace;
        family.parents = read::parents(lock, self.catalog(), &light, true);
        for row in &light {
            family.rows.push(row.row);
            family.starts.push(row.node.start_ns);
            family.durations.push(row.duration_ns);
        }
        Ok(())
    }

    pub(crate) fn relatives(
        &self,
        rows: &SpanRows,
        axis: Axis,
        ctl: &QueryControl,
    ) -> Result<SpanRows, Error> {
        let mut found = Vec::new();
        if matches!(axis, Axis::Parent | Axis::Ancestor) {
            self.above(rows, axis, ctl, &mut found)?;
        } else {
            let traces = self.traces_of(rows, ctl)?;
            self.each_family(&traces, ctl, &mut |family| {
                family.relatives(rows.as_bitmap(), axis, &mut found);
                Ok(())
            })?;
        }
        found.sort_unstable();
        Ok(found.into_iter().collect())
    }

    /// Parents and ancestors, by following links; odd traces are looked at whole.
    fn above(
        &self,
        rows: &SpanRows,
        axis: Axis,
        ctl: &QueryControl,
        found: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let Some(lock) = self.lock() else {
            return Ok(());
        };
        let mut odd = Vec::new();
        let mut taken = RoaringBitmap::new();
        let mut rows_left = rows.iter();
        let mut open = None;
        loop {
            ctl.check()?;
            let shard = lock.read();
            let mut seen = 0;
            while seen < CHECK_ROWS {
                seen += 1;
                let Some(row) = open.take().or_else(|| rows_left.next()) else {
                    drop(shard);
                    odd.sort_unstable();
                    odd.dedup();
                    return self.each_family(&odd, ctl, &mut |family| {
                        family.relatives(rows.as_bitmap(), axis, found);
                        Ok(())
                    });
                };
                let Some(ident) = shard.idents.get(row) else {
                    continue;
                };
                if shard.traces.get(ident.trace).is_some_and(|t| t.odd) {
                    odd.push(ident.trace);
                } else if let Some(parent) = ident.first_parent()
                    && shard.is_visible(parent, self.view)
                    && taken.insert(parent)
                {
                    found.push(parent);
                    if axis == Axis::Ancestor {
                        open = Some(parent);
                    }
                }
            }
            ctl.count_spans(seen as u64)?;
        }
    }

    pub(crate) fn parent_classes(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let first = out.len();
        // Places of rows in odd traces, with their traces.
        let mut odd: Vec<(u32, u32, usize)> = Vec::new();
        let mut place = first;
        self.each_row(rows, ctl, |shard, row| {
            let ident = shard.idents.get(row);
            let mut class = NONE;
            if let Some(ident) = ident {
                if shard.traces.get(ident.trace).is_some_and(|t| t.odd) {
                    odd.push((ident.trace, row, place));
                } else if let Some(parent) = ident.first_parent()
                    && shard.is_visible(parent, self.view)
                {
                    class = shard.class_of.get(parent).copied().unwrap_or(NONE);
                }
            }
            out.push(class);
            place += 1;
        })?;
        let Some(lock) = self.lock() else {
            return Ok(());
        };
        odd.sort_unstable();
        for of_trace in odd.chunk_by(|a, b| a.0 == b.0) {
            let traces: Vec<u32> = of_trace.iter().take(1).map(|odd| odd.0).collect();
            self.each_family(&traces, ctl, &mut |family| {
                for &(_, row, place) in of_trace {
                    let parent = family.place_of(row).and_then(|place| family.parent(place));
                    let parent = parent.and_then(|parent| family.rows.get(parent as usize));
                    if let (Some(&parent), Some(class)) = (parent, out.get_mut(place)) {
                        *class = lock.read().class_of.get(parent).copied().unwrap_or(NONE);
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Appends for each row what `each` works out for all places of its trace.
    fn by_family<T: Copy + Default>(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<T>,
        each: impl Fn(&Family) -> Vec<T>,
    ) -> Result<(), Error> {
        let first = out.len();
        let mut traces = Vec::new();
        self.traces(rows, ctl, &mut traces)?;
        traces.sort_unstable();
        traces.dedup();
        out.resize(
            first + usize::try_from(rows.len()).unwrap_or(usize::MAX),
            T::default(),
        );
        self.each_family(&traces, ctl, &mut |family| {
            let values = each(family);
            for (&row, value) in family.rows.iter().zip(values) {
                if rows.contains(row) {
                    // How many come before it, less itself.
                    let place = rows.as_bitmap().rank(row).saturating_sub(1);
                    let place = first + usize::try_from(place).unwrap_or(usize::MAX);
                    if let Some(slot) = out.get_mut(place) {
                        *slot = value;
                    }
                }
            }
            Ok(())
        })
    }

    pub(crate) fn own_times(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u64>,
    ) -> Result<(), Error> {
        self.by_family(rows, ctl, out, |family| {
            let wanted: Vec<bool> = family.rows.iter().map(|&row| rows.contains(row)).collect();
            family.own_times(&wanted)
        })
    }

    pub(crate) fn depths(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        self.by_family(rows, ctl, out, Family::depths)
    }

    pub(crate) fn child_counts(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        self.by_family(rows, ctl, out, Family::child_counts)
    }

    pub(crate) fn trace_id(&self, trace: u32) -> Result<TraceId, Error> {
        let found = self.lock().and_then(|lock| {
            let shard = lock.read();
            shard.traces.get(trace).map(|entry| entry.id)
        });
        found.ok_or(Error::NoSuchTrace { trace })
    }

    pub(crate) fn trace_start(&self, trace: u32) -> Result<Timestamp, Error> {
        let missing = Error::NoSuchTrace { trace };
        let Some(lock) = self.lock() else {
            return Err(missing);
        };
        let mut row = lock
            .read()
            .traces
            .get(trace)
            .map_or(NONE, |entry| entry.first);
        let mut start: Option<i64> = None;
        while row < self.view.rows {
            let shard = lock.read();
            (row, start) = self.earliest_start(&shard, row, start);
        }
        start.map(Timestamp::from_nanos).ok_or(missing)
    }

    /// Goes on looking for the earliest start of a trace from one of its rows, for so many rows as may
    /// be looked at under the lock; returns where to go on.
    fn earliest_start(
        &self,
        shard: &Shard,
        mut row: u32,
        mut start: Option<i64>,
    ) -> (u32, Option<i64>) {
        for _ in 0..CHECK_ROWS {
            if row >= self.view.rows {
                break;
            }
            if shard.is_visible(row, self.view)
                && let Some(&own) = shard.starts.get(row)
            {
                start = Some(start.map_or(own, |start| start.min(own)));
            }
            row = shard.next_of_trace(row);
        }
        (row, start)
    }

    pub(crate) fn values(
        &self,
        rows: &SpanRows,
        key: &str,
        of: TagScope,
        ctl: &QueryControl,
    ) -> Result<RowValues, Error> {
        let mut values = ValueCodes {
            key,
            symbol: self.catalog().read().find(key).unwrap_or(NONE),
            by_tag: HashMap::new(),
            by_owner: HashMap::new(),
            by_value: HashMap::new(),
            found: RowValues::default(),
        };
        let mut buffers = Buffers::default();
        self.each_row(rows, ctl, |shard, row| {
            let code = values.code_of(shard, self.catalog(), row, of, &mut buffers);
            values.found.codes.push(code.unwrap_or(NONE));
        })?;
        ctl.count_spans(rows.len())?;
        Ok(values.found)
    }

    pub(crate) fn hits(&self, rows: &SpanRows, ctl: &QueryControl) -> Result<Vec<SpanHit>, Error> {
        let Some(lock) = self.lock() else {
            return Ok(Vec::new());
        };
        let mut hits = Vec::new();
        let mut open = Vec::new();
        self.each_row(rows, ctl, |shard, row| {
            let tables = self.catalog().read();
            if let Some((hit, unsettled)) = hit_of(shard, &tables, row, self.view) {
                open.extend(unsettled.map(|odd| (hits.len(), odd)));
                hits.push(hit);
            }
        })?;
        let mut odd = OddTraces::default();
        for (place, row) in open {
            let parent = odd.parent_service(lock, self.catalog(), self.view, row, ctl)?;
            if let Some(hit) = hits.get_mut(place) {
                hit.parent_service = parent;
            }
        }
        ctl.count_spans(rows.len())?;
        Ok(hits)
    }

    pub(crate) fn find_trace(&self, id: TraceId, ctl: &QueryControl) -> Result<Option<u32>, Error> {
        ctl.check()?;
        let Some(lock) = self.lock() else {
            return Ok(None);
        };
        let found = lock.read().find_trace(id);
        Ok(found.filter(|&trace| self.has_visible(lock, trace)))
    }

    pub(crate) fn trace_count(&self, ctl: &QueryControl) -> Result<u64, Error> {
        let Some(lock) = self.lock() else {
            return Ok(0);
        };
        // Traces are numbered in the order of their first rows.
        let bound = {
            let shard = lock.read();
            shard.traces.partition_point(|t| t.first < self.view.rows)
        };
        if self.sees_all_rows() {
            return Ok(u64::from(bound));
        }
        let mut visible = 0;
        for trace in 0..bound {
            ctl.check()?;
            visible += u64::from(self.has_visible(lock, trace));
        }
        Ok(visible)
    }

    /// Whether a row of a trace is visible.
    fn has_visible(&self, lock: &RwLock<Shard>, trace: u32) -> bool {
        let mut row = lock
            .read()
            .traces
            .get(trace)
            .map_or(NONE, |entry| entry.first);
        while row < self.view.rows {
            let shard = lock.read();
            for _ in 0..CHECK_ROWS {
                if shard.is_visible(row, self.view) {
                    return true;
                }
                row = shard.next_of_trace(row);
            }
        }
        false
    }

    pub(crate) fn trace(&self, trace: u32, ctl: &QueryControl) -> Result<Option<Trace>, Error> {
        let Some(lock) = self.lock() else {
            return Ok(None);
        };
        self.head.trace_of(lock, trace, self.view, ctl)
    }

    pub(crate) fn time_bounds(&self, ctl: &QueryControl) -> Result<Option<TimeRange>, Error> {
        let mut bounds: Option<(i64, i64)> = None;
        let mut widen = |min: i64, max: i64| {
            let (low, high) = bounds.unwrap_or((min, max));
            bounds = Some((low.min(min), high.max(max)));
        };
        let Some(lock) = self.lock() else {
            return Ok(None);
        };
        let mut row = 0;
        while row < self.view.rows {
            ctl.check()?;
            let shard = lock.read();
            row = read::page_bounds(&shard, self.view, row, &mut widen);
        }
        let Some((min, max)) = bounds else {
            return Ok(None);
        };
        TimeRange::new(Timestamp::from_nanos(min), Timestamp::from_nanos(max)).map(Some)
    }

    pub(crate) fn summary(&self, trace: u32, ctl: &QueryControl) -> Result<TraceSummary, Error> {
        let missing = Error::NoSuchTrace { trace };
        let Some(lock) = self.lock() else {
            return Err(missing);
        };
        let entry = lock
            .read()
            .traces
            .get(trace)
            .map(|entry| (entry.id, entry.odd));
        let Some((id, odd)) = entry else {
            return Err(missing);
        };
        read::summary_of(lock, self.catalog(), trace, id, self.view, odd, ctl)?.ok_or(missing)
    }
}

/// What edges need.
impl HeadPart {
    /// Of the rows that satisfy a filter, those whose parent was sent by another resource: the classes
    /// of parent and row, and the row's duration. Rows of odd traces are returned instead: their parents
    /// are to be found first.
    pub(crate) fn calls_between_resources(
        &self,
        filter: &SpanFilter,
        ctl: &QueryControl,
        found: &mut Vec<(u32, u32, u64)>,
    ) -> Result<SpanRows, Error> {
        let mut odd = RoaringBitmap::new();
        self.each_slice(filter, ctl, &mut |shard, rows| {
            for &row in rows {
                let Some(ident) = shard.idents.get(row) else {
                    continue;
                };
                let Some(parent) = ident.first_parent() else {
                    continue;
                };
                if shard.traces.get(ident.trace).is_some_and(|t| t.odd) {
                    // Rows rise.
                    let _ = odd.try_push(row);
                    continue;
                }
                let (Some(&own), Some(&above)) =
                    (shard.class_of.get(row), shard.class_of.get(parent))
                else {
                    continue;
                };
                let resource = |class| shard.classes.get(class).map(|entry| entry.class.resource);
                if own != above
                    && resource(own) != resource(above)
                    && shard.is_visible(parent, self.view)
                {
                    let duration_ns = shard.durations.get(row).copied().unwrap_or_default();
                    found.push((above, own, duration_ns));
                }
            }
        })?;
        Ok(SpanRows::from_bitmap(odd))
    }

    /// Calls `each` with every link of rows, under the lock: the row, the trace and the span pointed to,
    /// zeros for what was not sent.
    pub(crate) fn each_link(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        each: &mut dyn FnMut(u32, [u8; 16], [u8; 8]),
    ) -> Result<(), Error> {
        let mut buffers = Buffers::default();
        self.each_row(rows, ctl, |shard, row| {
            shard.rest_of(row, &mut buffers);
            for link in &buffers.rest.links {
                each(row, link.trace_id, link.span_id);
            }
        })
    }

    /// Calls `each` with every visible span of a trace: its id, its start and its class.
    pub(crate) fn each_span_of(
        &self,
        id: TraceId,
        ctl: &QueryControl,
        each: &mut dyn FnMut([u8; 8], i64, u32),
    ) -> Result<(), Error> {
        let Some(lock) = self.lock() else {
            return Ok(());
        };
        let trace = lock.read().find_trace(id);
        let Some(trace) = trace else {
            return Ok(());
        };
        let first = lock.read().traces.get(trace).map(|entry| entry.first);
        let mut row = first.unwrap_or(NONE);
        let mut found = Vec::new();
        while row < self.view.rows {
            ctl.check()?;
            {
                let shard = lock.read();
                for _ in 0..CHECK_ROWS {
                    if row >= self.view.rows {
                        break;
                    }
                    if shard.is_visible(row, self.view)
                        && let (Some(ident), Some(&start), Some(&class)) = (
                            shard.idents.get(row),
                            shard.starts.get(row),
                            shard.class_of.get(row),
                        )
                    {
                        found.push((ident.span_id, start, class));
                    }
                    row = shard.next_of_trace(row);
                }
            }
            // Without the lock: the caller may ask the part again.
            for (span, start, class) in found.drain(..) {
                each(span, start, class);
            }
        }
        Ok(())
    }
}

impl Chunk {
    fn push(&mut self, shard: &Shard, row: u32) {
        let linked = shard.idents.get(row).and_then(Ident::first_parent);
        self.rows.push(row);
        self.linked.push(linked.unwrap_or(NONE));
        self.starts
            .push(shard.starts.get(row).copied().unwrap_or_default());
        self.durations
            .push(shard.durations.get(row).copied().unwrap_or_default());
    }

    /// Calls `each` with the traces that are complete and keeps the rows of the one that is not.
    fn take_families(
        &mut self,
        family: &mut Family,
        each: &mut dyn FnMut(&Family) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut from = 0;
        for (trace, to) in std::mem::take(&mut self.ends) {
            family.clear();
            family.trace = trace;
            family
                .rows
                .extend_from_slice(self.rows.get(from..to).unwrap_or_default());
            family
                .starts
                .extend_from_slice(self.starts.get(from..to).unwrap_or_default());
            family
                .durations
                .extend_from_slice(self.durations.get(from..to).unwrap_or_default());
            let linked = self.linked.get(from..to).unwrap_or_default();
            // A link to a row that is not visible leads nowhere.
            let place = |&row: &u32| family.rows.binary_search(&row).map_or(NO_PARENT, number);
            let parents: Vec<u32> = linked.iter().map(place).collect();
            family.parents.extend(parents);
            from = to;
            if !family.rows.is_empty() {
                each(family)?;
            }
        }
        self.rows.drain(..from);
        self.linked.drain(..from);
        self.starts.drain(..from);
        self.durations.drain(..from);
        Ok(())
    }
}

/// Values of one key, each distinct one decoded once.
struct ValueCodes<'k> {
    key: &'k str,
    symbol: u32,
    by_tag: HashMap<u32, u32>,
    /// By resource or scope.
    by_owner: HashMap<u32, Option<u32>>,
    by_value: HashMap<Vec<u8>, u32>,
    found: RowValues,
}

impl ValueCodes<'_> {
    fn code_of(
        &mut self,
        shard: &Shard,
        catalog: &Catalog,
        row: u32,
        of: TagScope,
        buffers: &mut Buffers,
    ) -> Option<u32> {
        let class = &shard.class_entry(row)?.class;
        let resource = |tables: &super::catalog::Tables| {
            let entry = tables.resources.get(class.resource as usize)?;
            Some(Arc::clone(&entry.resource))
        };
        match of {
            TagScope::Resource => self.code_of_owner(class.resource, || {
                Some(resource(&catalog.read())?.attributes.clone())
            }),
            TagScope::Scope => self.code_of_owner(class.scope, || {
                let scope = catalog.read().scopes.get(class.scope as usize).cloned();
                Some(scope?.attributes.clone())
            }),
            TagScope::Event | TagScope::Link => {
                shard.rest_alone(row, &mut buffers.rest);
                let tags = match of {
                    TagScope::Event => &buffers.rest.event_tags,
                    _ => &buffers.rest.link_tags,
                };
                self.code_of_tags(shard, tags)
            }
            TagScope::Any | TagScope::Span => {
                shard.tags_of(row, &mut buffers.tags);
                let found = self.code_of_tags(shard, &buffers.tags);
                if found.is_none() && of == TagScope::Any {
                    return self.code_of_owner(class.resource, || {
                        Some(resource(&catalog.read())?.attributes.clone())
                    });
                }
                found
            }
        }
    }

    fn code_of_tags(&mut self, shard: &Shard, tags: &[u32]) -> Option<u32> {
        let &tag = tags
            .iter()
            .find(|&&tag| shard.tags.key(tag) == self.symbol)?;
        if let Some(&code) = self.by_tag.get(&tag) {
            return Some(code);
        }
        let encoded = shard.tags.get(tag).1;
        let code = self.code_of_value(encoded);
        self.by_tag.insert(tag, code);
        Some(code)
    }

    fn code_of_owner(
        &mut self,
        owner: u32,
        attributes: impl FnOnce() -> Option<Attributes>,
    ) -> Option<u32> {
        if let Some(&known) = self.by_owner.get(&owner) {
            return known;
        }
        let attributes = attributes().unwrap_or_default();
        let value = attributes.iter().find(|(key, _)| &**key == self.key);
        let code = value.map(|(_, value)| {
            let mut encoded = Vec::new();
            // What was stored is not nested too deep.
            let _ = value.as_ref().encode(&mut encoded);
            self.code_of_value(&encoded)
        });
        self.by_owner.insert(owner, code);
        code
    }

    fn code_of_value(&mut self, encoded: &[u8]) -> u32 {
        if let Some(&code) = self.by_value.get(encoded) {
            return code;
        }
        let code = number(self.found.values.len());
        let value = Value::decode(&mut { encoded }).unwrap_or_default();
        self.found.values.push(value);
        self.by_value.insert(encoded.to_vec(), code);
        code
    }
}
