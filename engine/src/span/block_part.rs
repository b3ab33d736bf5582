//! A block as a part of the span store: the columns of its rows, and who is whose parent.
//!
//! Rows of a trace stand in depth-first order: descendants are an interval, ancestors a chase, children
//! a walk from subtree to subtree. In *partial* traces, of which some rows are hidden, none of that holds;
//! there the parent rule is applied to the visible rows, once per call.
//!
//! Groups of rows are decoded once for rows that rise. Iterative and linear in what is touched.

use std::{collections::HashMap, ops::Range, sync::Arc};

use roaring::RoaringBitmap;

use super::{
    axis::Axis,
    block::{GROUP_ROWS, RowCursor, SpanBlock, SpanReader, TraceCursor},
    catalog::SymbolId,
    dictionary::number,
    family::{Family, covered_ns},
    hidden::Hidden,
    hit::SpanHit,
    model::{ServiceCount, SpanKind, StatusCode, Trace, TraceSummary},
    parents::{self, Node},
    part::SpanClass,
    rows::SpanRows,
};
use crate::{
    block::SectionKind,
    control::{CHECK_ROWS, QueryControl},
    error::Error,
    id::{SpanId, TraceId},
    time::{TimeRange, Timestamp},
};

/// No row, class or symbol.
pub(super) const NONE: u32 = u32::MAX;
/// From one row in so many on, whole columns are cheaper than walks from row to row.
const DENSE: u64 = 8;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct BlockPart {
    pub(super) block: Arc<SpanBlock>,
    pub(super) hidden: Arc<Hidden>,
}

/// Looks at the query's control every so many rows.
pub(super) struct Pace<'c> {
    ctl: &'c QueryControl,
    left: usize,
}

impl<'c> Pace<'c> {
    pub(super) fn new(ctl: &'c QueryControl) -> Result<Self, Error> {
        ctl.check()?;
        Ok(Self {
            ctl,
            left: CHECK_ROWS,
        })
    }

    /// Counts a row that is looked at.
    #[inline]
    pub(super) fn step(&mut self) -> Result<(), Error> {
        self.left -= 1;
        if self.left == 0 {
            self.left = CHECK_ROWS;
            self.ctl.count_spans(CHECK_ROWS as u64)?;
            self.ctl.check()?;
        }
        Ok(())
    }
}

impl BlockPart {
    pub(crate) fn new(block: Arc<SpanBlock>, hidden: Arc<Hidden>) -> Self {
        Self { block, hidden }
    }

    pub(crate) fn spans(&self) -> u64 {
        u64::from(self.block.rows())
    }

    /// Earliest and latest start of all rows.
    pub(super) fn start_bounds_ns(&self) -> Option<(i64, i64)> {
        let groups = self.block.group_bounds().iter();
        groups
            .map(|group| (group.start_min_ns, group.start_max_ns))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    pub(crate) fn start_bounds(&self) -> Option<TimeRange> {
        let (low, high) = self.start_bounds_ns()?;
        TimeRange::new(Timestamp::from_nanos(low), Timestamp::from_nanos(high)).ok()
    }

    pub(crate) fn symbol(&self, id: SymbolId) -> Arc<str> {
        let text = self.block.symbols().get(id as usize).cloned();
        text.unwrap_or_else(|| Arc::from(""))
    }

    pub(crate) fn class_count(&self) -> u32 {
        number(self.block.classes().len())
    }

    pub(crate) fn class(&self, class: u32) -> SpanClass {
        match self.block.classes().get(class as usize) {
            Some(class) => SpanClass {
                service: class.service,
                name: class.name,
                kind: class.kind,
                status: class.status,
                resource: class.resource,
            },
            None => SpanClass {
                service: NONE,
                name: NONE,
                kind: SpanKind::Unspecified,
                status: StatusCode::Unset,
                resource: NONE,
            },
        }
    }

    /// Whether a row may be found.
    pub(super) fn is_visible(&self, row: u32) -> bool {
        !self.hidden.rows.contains(row)
    }

    fn no_span_id(&self) -> Error {
        let block = self.block.block();
        block.damage(SectionKind::SpanIds, 0, "a span without an id")
    }

    pub(super) fn no_such(trace: u32) -> Error {
        Error::NoSuchTrace { trace }
    }

    // ---- columns --------------------------------------------------------------------------------

    /// Appends one value of a column for each row; `load` decodes a group of it.
    fn gather<T: Copy + Default>(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<T>,
        mut load: impl FnMut(&SpanBlock, u32, &mut Vec<T>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut pace = Pace::new(ctl)?;
        let (mut group, mut values) = (NONE, Vec::new());
        out.reserve(usize::try_from(rows.len()).unwrap_or(0));
        for row in rows.iter() {
            pace.step()?;
            if row / GROUP_ROWS != group {
                group = row / GROUP_ROWS;
                load(&self.block, group, &mut values)?;
            }
            let value = values.get((row % GROUP_ROWS) as usize).copied();
            out.push(value.unwrap_or_default());
        }
        Ok(())
    }

    pub(crate) fn durations(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u64>,
    ) -> Result<(), Error> {
        self.gather(rows, ctl, out, SpanBlock::duration_group)
    }

    pub(crate) fn starts(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<i64>,
    ) -> Result<(), Error> {
        self.gather(rows, ctl, out, SpanBlock::start_group)
    }

    pub(crate) fn classes(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        self.gather(rows, ctl, out, SpanBlock::class_group)
    }

    pub(crate) fn traces(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let mut pace = Pace::new(ctl)?;
        let mut of_rows = TraceOfRows::new(&self.block);
        for row in rows.iter() {
            pace.step()?;
            out.push(of_rows.trace(row)?.0);
        }
        Ok(())
    }

    // ---- traces ---------------------------------------------------------------------------------

    pub(crate) fn trace_id(&self, trace: u32) -> Result<TraceId, Error> {
        if trace >= self.block.traces() {
            return Err(Self::no_such(trace));
        }
        self.block.trace_id(trace)
    }

    /// The rows of a trace, hidden or not.
    fn trace_rows(&self, trace: u32) -> Result<Range<u32>, Error> {
        if trace >= self.block.traces() {
            return Err(Self::no_such(trace));
        }
        self.block.trace_rows(trace)
    }

    /// Whether a range of rows has a visible one.
    fn any_visible(&self, rows: &Range<u32>) -> bool {
        let hidden = self.hidden.rows.range_cardinality(rows.clone());
        hidden < u64::from(rows.end - rows.start)
    }

    pub(crate) fn trace_start(&self, trace: u32) -> Result<Timestamp, Error> {
        let rows = self.trace_rows(trace)?;
        if !self.any_visible(&rows) {
            return Err(Self::no_such(trace));
        }
        let start = if self.hidden.partial.contains(trace) {
            self.earliest_visible(rows)?
        } else {
            Some(self.block.trace_bounds(trace)?.0)
        };
        let start = start.ok_or_else(|| Self::no_such(trace))?;
        Ok(Timestamp::from_nanos(start))
    }

    /// The earliest start of visible rows.
    pub(super) fn earliest_visible(&self, rows: Range<u32>) -> Result<Option<i64>, Error> {
        let mut cursor = RowCursor::new(&self.block);
        let mut earliest: Option<i64> = None;
        for row in rows.filter(|&row| self.is_visible(row)) {
            let start = cursor.start_ns(row)?;
            earliest = Some(earliest.map_or(start, |earliest| earliest.min(start)));
        }
        Ok(earliest)
    }

    pub(crate) fn find_trace(&self, id: TraceId, ctl: &QueryControl) -> Result<Option<u32>, Error> {
        ctl.check()?;
        let Some(trace) = self.block.find_trace(id)? else {
            return Ok(None);
        };
        let is_visible =
            self.hidden.rows.is_empty() || self.any_visible(&self.block.trace_rows(trace)?);
        Ok(is_visible.then_some(trace))
    }

    pub(crate) fn trace_count(&self, ctl: &QueryControl) -> Result<u64, Error> {
        let mut visible = u64::from(self.block.traces());
        let mut cursor = TraceCursor::default();
        let mut pace = Pace::new(ctl)?;
        // Traces with hidden rows alone may be hidden whole.
        let mut from = 0;
        while let Some(row) = self.hidden.rows.range(from..).next() {
            pace.step()?;
            let trace = self.block.trace_of_row_with(row, &mut cursor)?;
            let rows = self.block.trace_rows_with(trace, &mut cursor)?;
            visible -= u64::from(!self.any_visible(&rows));
            from = rows.end.max(row.saturating_add(1));
        }
        Ok(visible)
    }

    pub(crate) fn trace(&self, trace: u32, ctl: &QueryControl) -> Result<Option<Trace>, Error> {
        let rows = self.trace_rows(trace)?;
        if !self.any_visible(&rows) {
            return Ok(None);
        }
        ctl.count_spans(rows.len() as u64)?;
        self.block.trace(trace, &self.hidden, ctl).map(Some)
    }

    /// Those of some rows that lie in partial traces, by trace.
    fn partial_of(&self, rows: &SpanRows) -> Result<Vec<(u32, Range<u32>)>, Error> {
        let mut found = Vec::new();
        if self.hidden.partial.is_empty() {
            return Ok(found);
        }
        let mut cursor = TraceCursor::default();
        if rows.len() < self.hidden.partial.len() {
            let mut of_rows = TraceOfRows::new(&self.block);
            for row in rows.iter() {
                let (trace, range) = of_rows.trace(row)?;
                let is_new = found.last().is_none_or(|(last, _)| *last != trace);
                if is_new && self.hidden.partial.contains(trace) {
                    found.push((trace, range));
                }
            }
            return Ok(found);
        }
        for trace in &self.hidden.partial {
            let range = self.block.trace_rows_with(trace, &mut cursor)?;
            if rows.as_bitmap().range_cardinality(range.clone()) > 0 {
                found.push((trace, range));
            }
        }
        Ok(found)
    }

    /// The visible rows of a trace, with parents by the rule.
    fn family(&self, trace: u32, rows: Range<u32>, ctl: &QueryControl) -> Result<Family, Error> {
        let mut family = Family {
            trace,
            ..Family::default()
        };
        let mut sent: HashMap<u32, [u8; 8]> = HashMap::new();
        self.block.each_orphan(rows.clone(), |row, id| {
            sent.insert(row, id);
        })?;
        let mut ids = vec![[0; 8]; rows.len()];
        self.block.span_ids(rows.start, &mut ids)?;
        let id_of = |row: u32| ids.get((row - rows.start) as usize).copied();
        let mut cursor = RowCursor::new(&self.block);
        let mut pace = Pace::new(ctl)?;
        let mut nodes = Vec::new();
        for row in rows.clone().filter(|&row| self.is_visible(row)) {
            pace.step()?;
            let class = self.class(cursor.class(row)?);
            let parent_id = match cursor.parent(row)? {
                Some(parent) if parent >= rows.start => id_of(parent),
                _ => sent.get(&row).copied(),
            };
            let start_ns = cursor.start_ns(row)?;
            nodes.push(Node {
                span_id: id_of(row).unwrap_or_default(),
                parent_id: parent_id.unwrap_or_default(),
                start_ns,
                service: class.service,
                called_side: class.kind.is_called_side(),
            });
            family.rows.push(row);
            family.starts.push(start_ns);
            family.durations.push(cursor.duration_ns(row)?);
        }
        let mut failed = None;
        let visible = &family.rows;
        let mut hashes = ContentHashes::new(self, trace, rows);
        family.parents = parents::resolve(&nodes, |place| {
            let row = visible.get(place as usize).copied().unwrap_or(NONE);
            hashes.hash(row).unwrap_or_else(|error| {
                failed = Some(error);
                0
            })
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(family),
        }
    }

    /// Calls `each` with the families of the partial traces among rows, and returns the rows that are in
    /// none of them.
    fn each_family(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        mut each: impl FnMut(&Family) -> Result<(), Error>,
    ) -> Result<Option<SpanRows>, Error> {
        let partial = self.partial_of(rows)?;
        if partial.is_empty() {
            return Ok(None);
        }
        let mut whole = rows.as_bitmap().clone();
        for (trace, range) in partial {
            whole.remove_range(range.clone());
            each(&self.family(trace, range, ctl)?)?;
        }
        Ok(Some(SpanRows::from_bitmap(whole)))
    }

    // ---- relatives ------------------------------------------------------------------------------

    pub(crate) fn relatives(
        &self,
        rows: &SpanRows,
        axis: Axis,
        ctl: &QueryControl,
    ) -> Result<SpanRows, Error> {
        let mut apart = Vec::new();
        let whole = self.each_family(rows, ctl, |family| {
            family.relatives(rows.as_bitmap(), axis, &mut apart);
            Ok(())
        })?;
        let rows = whole.as_ref().unwrap_or(rows);
        let mut found = match axis {
            Axis::Child => self.children(rows, ctl)?,
            Axis::Descendant => self.descendants(rows, ctl)?,
            Axis::Parent => self.parents(rows, ctl)?,
            Axis::Ancestor => self.ancestors(rows, ctl)?,
            Axis::Sibling => self.siblings(rows, ctl)?,
        };
        found.extend(apart);
        Ok(SpanRows::from_bitmap(found))
    }

    fn descendants(&self, rows: &SpanRows, ctl: &QueryControl) -> Result<RoaringBitmap, Error> {
        let mut cursor = RowCursor::new(&self.block);
        let mut pace = Pace::new(ctl)?;
        let mut found = RoaringBitmap::new();
        // Below this all is taken: rows that are below one taken before add nothing.
        let mut taken = 0;
        for row in rows.iter() {
            pace.step()?;
            if row < taken {
                continue;
            }
            let end = row.saturating_add(1).saturating_add(cursor.subtree(row)?);
            found.insert_range(row + 1..end);
            taken = end;
        }
        Ok(found)
    }

    fn children(&self, rows: &SpanRows, ctl: &QueryControl) -> Result<RoaringBitmap, Error> {
        if rows.len().saturating_mul(DENSE) > self.spans() {
            return self.children_by_column(rows, ctl);
        }
        let mut cursor = RowCursor::new(&self.block);
        let mut pace = Pace::new(ctl)?;
        let mut found = Vec::new();
        for row in rows.iter() {
            pace.step()?;
            each_child(row, &mut cursor, |_, child| {
                found.push(child);
                pace.step()
            })?;
        }
        found.sort_unstable();
        Ok(found.into_iter().collect())
    }

    /// The children of many rows: those whose parent is one of them.
    fn children_by_column(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
    ) -> Result<RoaringBitmap, Error> {
        let mut found = RoaringBitmap::new();
        let words = Words::of(rows, self.block.rows());
        let mut distances = Vec::new();
        for group in 0..self.block.row_groups() {
            if group.is_multiple_of(4) {
                ctl.check()?;
            }
            self.block.parent_group(group, &mut distances)?;
            ctl.count_spans(distances.len() as u64)?;
            let first = group * GROUP_ROWS;
            let children = distances.iter().zip(first..).filter(|&(&distance, row)| {
                distance > 0 && words.contains(row.saturating_sub(distance))
            });
            // Rows rise.
            let _ = found.append(children.map(|(_, row)| row));
        }
        // Of partial traces no row is asked for, so that none of theirs is found.
        Ok(found)
    }

    fn parents(&self, rows: &SpanRows, ctl: &QueryControl) -> Result<RoaringBitmap, Error> {
        let mut cursor = RowCursor::new(&self.block);
        let mut pace = Pace::new(ctl)?;
        let mut found = Vec::new();
        for row in rows.iter() {
            pace.step()?;
            found.extend(cursor.parent(row)?);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found.into_iter().collect())
    }

    fn ancestors(&self, rows: &SpanRows, ctl: &QueryControl) -> Result<RoaringBitmap, Error> {
        let mut cursor = RowCursor::new(&self.block);
        let mut pace = Pace::new(ctl)?;
        let mut found = RoaringBitmap::new();
        for row in rows.iter() {
            let mut at = row;
            pace.step()?;
            while let Some(parent) = cursor.parent(at)? {
                pace.step()?;
                if !found.insert(parent) {
                    break;
                }
                at = parent;
            }
        }
        Ok(found)
    }

    fn siblings(&self, rows: &SpanRows, ctl: &QueryControl) -> Result<RoaringBitmap, Error> {
        let mut cursor = RowCursor::new(&self.block);
        let mut pace = Pace::new(ctl)?;
        let mut members = Vec::new();
        for row in rows.iter() {
            pace.step()?;
            members.extend(cursor.parent(row)?.map(|parent| (parent, row)));
        }
        members.sort_unstable();
        let mut found = Vec::new();
        for family in members.chunk_by(|a, b| a.0 == b.0) {
            let Some(&(parent, first)) = family.first() else {
                continue;
            };
            // One member is no sibling of itself; two are each other's.
            let lone = if family.len() == 1 { first } else { NONE };
            each_child(parent, &mut cursor, |_, child| {
                if child != lone {
                    found.push(child);
                }
                pace.step()
            })?;
        }
        found.sort_unstable();
        Ok(found.into_iter().collect())
    }

    // ---- what relatives say of a row ------------------------------------------------------------

    /// Appends a value for each row: `direct` where the columns hold, `of_family` in partial traces.
    fn by_row<'s, T: Copy + Default>(
        &'s self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<T>,
        of_family: impl Fn(&Family) -> Vec<T>,
        mut direct: impl FnMut(&mut RowCursor<'s>, &mut Pace<'_>, u32) -> Result<T, Error>,
    ) -> Result<(), Error> {
        let mut apart: HashMap<u32, T> = HashMap::new();
        self.each_family(rows, ctl, |family| {
            let values = of_family(family);
            let of_rows = family.rows.iter().copied().zip(values);
            apart.extend(of_rows.filter(|(row, _)| rows.contains(*row)));
            Ok(())
        })?;
        let mut cursor = RowCursor::new(&self.block);
        let mut pace = Pace::new(ctl)?;
        out.reserve(usize::try_from(rows.len()).unwrap_or(0));
        for row in rows.iter() {
            pace.step()?;
            let value = match apart.get(&row) {
                Some(&value) => value,
                None => direct(&mut cursor, &mut pace, row)?,
            };
            out.push(value);
        }
        Ok(())
    }

    pub(crate) fn parent_classes(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let class_of_parent = |family: &Family| {
            let parents = family.parents.iter();
            let rows = parents.map(|&parent| family.rows.get(parent as usize).copied());
            rows.map(|row| row.unwrap_or(NONE)).collect()
        };
        let first = out.len();
        // First the rows of the parents, then their classes.
        self.by_row(rows, ctl, out, class_of_parent, |cursor, _, row| {
            Ok(cursor.parent(row)?.unwrap_or(NONE))
        })?;
        let mut cursor = RowCursor::new(&self.block);
        for parent in out.iter_mut().skip(first).filter(|parent| **parent != NONE) {
            *parent = cursor.class(*parent)?;
        }
        Ok(())
    }

    pub(crate) fn own_times(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u64>,
    ) -> Result<(), Error> {
        let of_family = |family: &Family| {
            let wanted: Vec<bool> = family.rows.iter().map(|&row| rows.contains(row)).collect();
            family.own_times(&wanted)
        };
        let mut children: Vec<(i64, i64)> = Vec::new();
        self.by_row(rows, ctl, out, of_family, |cursor, pace, row| {
            children.clear();
            each_child(row, cursor, |cursor, child| {
                pace.step()?;
                let start = cursor.start_ns(child)?;
                let end = start.wrapping_add_unsigned(cursor.duration_ns(child)?);
                children.push((start, end));
                Ok(())
            })?;
            // Children come in the order of their starts.
            let (start, duration) = (cursor.start_ns(row)?, cursor.duration_ns(row)?);
            Ok(duration - covered_ns(start, duration, children.iter().copied()))
        })
    }

    pub(crate) fn child_counts(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        self.by_row(rows, ctl, out, Family::child_counts, |cursor, pace, row| {
            let mut count = 0;
            each_child(row, cursor, |_, _| {
                count += 1;
                pace.step()
            })?;
            Ok(count)
        })
    }

    pub(crate) fn depths(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        // The way up from the row before, lowest last, with depths: what lies above the next row in the
        // order of rows and was met before is on it.
        let mut above: Vec<u32> = Vec::new();
        let mut chase = Vec::new();
        self.by_row(rows, ctl, out, Family::depths, |cursor, pace, row| {
            chase.clear();
            let mut at = Some(row);
            while let Some(here) = at {
                while above.last().is_some_and(|&last| last > here) {
                    above.pop();
                }
                if above.last() == Some(&here) {
                    break;
                }
                pace.step()?;
                chase.push(here);
                at = cursor.parent(here)?;
            }
            if at.is_none() {
                above.clear();
            }
            above.extend(chase.iter().rev());
            Ok(number(above.len().saturating_sub(1)))
        })
    }

    // ---- answers about rows and traces ----------------------------------------------------------

    pub(crate) fn hits(&self, rows: &SpanRows, ctl: &QueryControl) -> Result<Vec<SpanHit>, Error> {
        let mut parents = Vec::new();
        self.parent_classes(rows, ctl, &mut parents)?;
        let mut pace = Pace::new(ctl)?;
        let mut cursor = RowCursor::new(&self.block);
        let mut parent_cursor = RowIds::new(&self.block);
        let mut ids = RowIds::new(&self.block);
        let mut of_rows = TraceOfRows::new(&self.block);
        let mut trace_cursor = TraceCursor::default();
        let mut last: Option<(u32, TraceId)> = None;
        let mut hits = Vec::with_capacity(parents.len());
        for (row, parent) in rows.iter().zip(parents) {
            pace.step()?;
            let class = self.class(cursor.class(row)?);
            let trace = of_rows.trace(row)?.0;
            let trace_id = match last {
                Some((known, id)) if known == trace => id,
                _ => self.block.trace_id_with(trace, &mut trace_cursor)?,
            };
            last = Some((trace, trace_id));
            let sent = match cursor.parent(row)? {
                Some(parent) => parent_cursor.id(parent)?,
                None => ids.orphan(row)?,
            };
            let span_id = SpanId::new(ids.id(row)?).ok_or_else(|| self.no_span_id())?;
            hits.push(SpanHit {
                trace_id,
                span_id,
                parent_span_id: SpanId::new(sent),
                name: class.name,
                service: class.service,
                parent_service: (parent != NONE).then(|| self.class(parent).service),
                start: Timestamp::from_nanos(cursor.start_ns(row)?),
                duration_ns: cursor.duration_ns(row)?,
                kind: class.kind,
                status: class.status,
            });
        }
        Ok(hits)
    }

    pub(crate) fn summary(&self, trace: u32, ctl: &QueryControl) -> Result<TraceSummary, Error> {
        let rows = self.trace_rows(trace)?;
        let family = if self.hidden.partial.contains(trace) {
            Some(self.family(trace, rows.clone(), ctl)?)
        } else {
            None
        };
        let mut cursor = RowCursor::new(&self.block);
        let mut pace = Pace::new(ctl)?;
        let mut services: HashMap<u32, (u64, u64)> = HashMap::new();
        let (mut start, mut end, mut errors, mut spans) = (i64::MAX, i64::MIN, 0, 0);
        for row in rows.clone().filter(|&row| self.is_visible(row)) {
            pace.step()?;
            let class = self.class(cursor.class(row)?);
            let error = u64::from(class.status == StatusCode::Error);
            let count = services.entry(class.service).or_default();
            *count = (count.0 + 1, count.1 + error);
            spans += 1;
            errors += error;
            let began = cursor.start_ns(row)?;
            start = start.min(began);
            end = end.max(began.wrapping_add_unsigned(cursor.duration_ns(row)?));
        }
        // Roots come in order, so the first row is the first of them.
        let root = match &family {
            Some(family) => self.first_root(family)?,
            None => Some(rows.start).filter(|_| spans > 0),
        };
        let root = root.ok_or_else(|| Self::no_such(trace))?;
        let class = self.class(cursor.class(root)?);
        let sent = self.block.parent_id_as_sent(root, &mut cursor)?;
        let mut services: Vec<ServiceCount> = services
            .into_iter()
            .map(|(service, (spans, errors))| ServiceCount {
                service: self.symbol(service),
                spans,
                errors,
            })
            .collect();
        services.sort_unstable_by(|a, b| a.service.cmp(&b.service));
        Ok(TraceSummary {
            id: self.block.trace_id(trace)?,
            root_service: self.symbol(class.service),
            root_name: self.symbol(class.name),
            root_is_orphan: sent != [0; 8],
            start: Timestamp::from_nanos(start),
            end: Timestamp::from_nanos(end),
            spans,
            errors,
            services,
        })
    }

    /// The root with the least (start, id, content hash).
    fn first_root(&self, family: &Family) -> Result<Option<u32>, Error> {
        let places = 0..number(family.rows.len());
        let rows = self.block.trace_rows(family.trace)?;
        let mut hashes = ContentHashes::new(self, family.trace, rows);
        let mut best: Option<(i64, [u8; 8], u32)> = None;
        for place in places.filter(|&place| family.parent(place).is_none()) {
            let (Some(&row), Some(&start)) = (
                family.rows.get(place as usize),
                family.starts.get(place as usize),
            ) else {
                continue;
            };
            let id = self.block.span_id(row)?;
            best = match best {
                Some(best) if (best.0, best.1) < (start, id) => Some(best),
                Some(best) if (best.0, best.1) == (start, id) => {
                    if hashes.hash(best.2)? <= hashes.hash(row)? {
                        Some(best)
                    } else {
                        Some((start, id, row))
                    }
                }
                _ => Some((start, id, row)),
            };
        }
        Ok(best.map(|(_, _, row)| row))
    }

    pub(crate) fn time_bounds(&self, ctl: &QueryControl) -> Result<Option<TimeRange>, Error> {
        let mut cursor = TraceCursor::default();
        let mut pace = Pace::new(ctl)?;
        let mut bounds: Option<(i64, i64)> = None;
        for trace in 0..self.block.traces() {
            pace.step()?;
            let own = if self.hidden.rows.is_empty() {
                Some(self.block.trace_bounds_with(trace, &mut cursor)?)
            } else {
                let rows = self.block.trace_rows_with(trace, &mut cursor)?;
                if self.hidden.partial.contains(trace) {
                    self.visible_bounds(rows)?
                } else if self.is_visible(rows.start) {
                    Some(self.block.trace_bounds_with(trace, &mut cursor)?)
                } else {
                    None
                }
            };
            bounds = match (bounds, own) {
                (Some(all), Some(own)) => Some((all.0.min(own.0), all.1.max(own.1))),
                (all, own) => all.or(own),
            };
        }
        let Some((min, max)) = bounds else {
            return Ok(None);
        };
        TimeRange::new(Timestamp::from_nanos(min), Timestamp::from_nanos(max)).map(Some)
    }

    fn visible_bounds(&self, rows: Range<u32>) -> Result<Option<(i64, i64)>, Error> {
        let mut cursor = RowCursor::new(&self.block);
        let mut bounds: Option<(i64, i64)> = None;
        for row in rows.filter(|&row| self.is_visible(row)) {
            let start = cursor.start_ns(row)?;
            let end = start.wrapping_add_unsigned(cursor.duration_ns(row)?);
            let (low, high) = bounds.unwrap_or((start, end));
            bounds = Some((low.min(start), high.max(end)));
        }
        Ok(bounds)
    }
}

/// Calls `each` with the children of a row, rising.
fn each_child<'b>(
    row: u32,
    cursor: &mut RowCursor<'b>,
    mut each: impl FnMut(&mut RowCursor<'b>, u32) -> Result<(), Error>,
) -> Result<(), Error> {
    let end = row.saturating_add(cursor.subtree(row)?);
    let mut child = row.saturating_add(1);
    while child <= end {
        // How far to go on is found first: `each` may turn to other groups.
        let next = child
            .saturating_add(1)
            .saturating_add(cursor.subtree(child)?);
        each(cursor, child)?;
        child = next;
    }
    Ok(())
}

/// Content hashes of the visible rows of one trace: asked for where spans share id and start, and then
/// worked out for all of them at once, because whole spans are read in order.
struct ContentHashes<'p> {
    part: &'p BlockPart,
    trace: u32,
    rows: Range<u32>,
    known: Option<HashMap<u32, u128>>,
}

impl<'p> ContentHashes<'p> {
    fn new(part: &'p BlockPart, trace: u32, rows: Range<u32>) -> Self {
        Self {
            part,
            trace,
            rows,
            known: None,
        }
    }

    fn hash(&mut self, row: u32) -> Result<u128, Error> {
        let known = match self.known.take() {
            Some(known) => known,
            None => self.read()?,
        };
        let hash = known.get(&row).copied().unwrap_or_default();
        self.known = Some(known);
        Ok(hash)
    }

    fn read(&self) -> Result<HashMap<u32, u128>, Error> {
        let block = &self.part.block;
        let id = block.trace_id(self.trace)?;
        let mut reader = SpanReader::new(block, id, &self.rows)?;
        let visible = self.rows.clone().filter(|&row| self.part.is_visible(row));
        visible
            .map(|row| Ok((row, reader.span(row)?.content_hash())))
            .collect()
    }
}

/// Finds the traces of rows that rise.
pub(super) struct TraceOfRows<'b> {
    block: &'b SpanBlock,
    cursor: TraceCursor,
    trace: u32,
    rows: Range<u32>,
}

impl<'b> TraceOfRows<'b> {
    pub(super) fn new(block: &'b SpanBlock) -> Self {
        Self {
            block,
            cursor: TraceCursor::default(),
            trace: NONE,
            rows: 0..0,
        }
    }

    /// The trace of a row, and its rows.
    #[inline]
    pub(super) fn trace(&mut self, row: u32) -> Result<(u32, Range<u32>), Error> {
        if !self.rows.contains(&row) {
            self.trace = self.block.trace_of_row_with(row, &mut self.cursor)?;
            self.rows = self.block.trace_rows_with(self.trace, &mut self.cursor)?;
        }
        Ok((self.trace, self.rows.clone()))
    }
}

/// Reads ids of rows, a group at a time.
struct RowIds<'b> {
    block: &'b SpanBlock,
    group: u32,
    ids: Vec<[u8; 8]>,
    orphan_group: u32,
    orphans: HashMap<u32, [u8; 8]>,
}

impl<'b> RowIds<'b> {
    fn new(block: &'b SpanBlock) -> Self {
        Self {
            block,
            group: NONE,
            ids: Vec::new(),
            orphan_group: NONE,
            orphans: HashMap::new(),
        }
    }

    fn rows_of(&self, group: u32) -> Range<u32> {
        let first = group.saturating_mul(GROUP_ROWS);
        first..first.saturating_add(GROUP_ROWS).min(self.block.rows())
    }

    /// The span id of a row.
    fn id(&mut self, row: u32) -> Result<[u8; 8], Error> {
        let group = row / GROUP_ROWS;
        if self.group != group {
            self.group = NONE;
            let rows = self.rows_of(group);
            self.ids.clear();
            self.ids.resize(rows.len(), [0; 8]);
            self.block.span_ids(rows.start, &mut self.ids)?;
            self.group = group;
        }
        let id = self.ids.get((row % GROUP_ROWS) as usize);
        Ok(id.copied().unwrap_or_default())
    }

    /// The parent id that a row without a parent was sent with; zeros for none.
    fn orphan(&mut self, row: u32) -> Result<[u8; 8], Error> {
        let group = row / GROUP_ROWS;
        if self.orphan_group != group {
            self.orphan_group = NONE;
            self.orphans.clear();
            let (rows, orphans) = (self.rows_of(group), &mut self.orphans);
            self.block.each_orphan(rows, |row, id| {
                orphans.insert(row, id);
            })?;
            self.orphan_group = group;
        }
        Ok(self.orphans.get(&row).copied().unwrap_or_default())
    }
}

/// A set of rows as plain bits: asked faster than a compressed one.
pub(super) struct Words(Vec<u64>);

impl Words {
    pub(super) fn of(rows: &SpanRows, count: u32) -> Self {
        let mut words = vec![0u64; (count as usize).div_ceil(64)];
        for row in rows.iter() {
            if let Some(word) = words.get_mut(row as usize / 64) {
                *word |= 1 << (row % 64);
            }
        }
        Self(words)
    }

    #[inline]
    pub(super) fn contains(&self, row: u32) -> bool {
        let word = self.0.get(row as usize / 64).copied().unwrap_or(0);
        word >> (row % 64) & 1 != 0
    }
}
