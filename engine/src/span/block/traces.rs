//! The section of traces: ids sorted, where each trace's rows begin, when it starts and ends, and the
//! filter over the ids.
//!
//! Traces are numbered in the order of rows: by (start, id). Ids stand apart, sorted and raw, 4,096 to
//! a page; two columns lead from a number to the place of its id and back.
//!
//! Invariants
//! - First rows rise, the first is 0: every row belongs to exactly one trace, every trace has a row.
//! - The first id of each page of ids is held in memory, so a lookup reads one page of ids.
//! - A filter that is damaged lets every id pass: slower, not wrong.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use super::{
    directory::{HeadReader, Wrong, put_integers},
    fuse::FuseFilter,
    groups::{self, GROUP_ROWS, GroupCache, Groups, group_of},
};
use crate::{
    block::{Block, BlockWriter, PAGE_BYTES_MAX, SectionKind},
    error::Error,
    id::TraceId,
    varint,
};

const SECTION: SectionKind = SectionKind::SpanTraces;
const ID_BYTES: usize = 16;
/// Ids of a page: it begins with the section, and ids fill it.
const IDS_PER_PAGE: usize = PAGE_BYTES_MAX / ID_BYTES;

/// A trace of a block that is being written, or of rows in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceRow {
    /// Its id.
    pub(crate) id: TraceId,
    /// Its first row; the others follow.
    pub(crate) first_row: u32,
    /// Earliest start, ns since the epoch.
    pub(crate) start_ns: i64,
    /// Latest end, ns since the epoch.
    pub(crate) end_ns: i64,
}

/// What filters know an id by.
fn key_of(id: TraceId) -> u64 {
    xxh3_64(id.as_bytes())
}

/// Writes the section and its head. `traces` stand in the order of their rows.
pub(super) fn write(
    writer: &mut BlockWriter,
    head: &mut Vec<u8>,
    traces: &[TraceRow],
) -> Result<(), Error> {
    writer.begin(SECTION)?;
    let mut sorted: Vec<(TraceId, i64)> = traces.iter().map(|trace| trace.id).zip(0..).collect();
    sorted.sort_unstable();
    let mut item = Vec::with_capacity(PAGE_BYTES_MAX);
    for page in sorted.chunks(IDS_PER_PAGE) {
        item.clear();
        for (id, _) in page {
            item.extend_from_slice(id.as_bytes());
        }
        writer.write(&item)?;
    }
    varint::put_u64(head, traces.len() as u64);
    for page in sorted.chunks(IDS_PER_PAGE) {
        if let Some((id, _)) = page.first() {
            head.extend_from_slice(id.as_bytes());
        }
    }
    groups::write(writer, head, sorted.iter().map(|(_, number)| *number))?;
    let mut places = vec![0i64; traces.len()];
    for ((_, number), place) in sorted.iter().zip(0i64..) {
        let slot = usize::try_from(*number).ok();
        if let Some(slot) = slot.and_then(|number| places.get_mut(number)) {
            *slot = place;
        }
    }
    groups::write(writer, head, places.into_iter())?;
    let firsts = traces.iter().map(|trace| i64::from(trace.first_row));
    groups::write(writer, head, firsts.clone())?;
    put_integers(head, firsts.step_by(GROUP_ROWS as usize));
    groups::write(writer, head, traces.iter().map(|trace| trace.start_ns))?;
    let lasted = |trace: &TraceRow| trace.end_ns.wrapping_sub(trace.start_ns);
    groups::write(writer, head, traces.iter().map(lasted))?;
    let mut keys: Vec<u64> = traces.iter().map(|trace| key_of(trace.id)).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut bytes = Vec::new();
    if let Some(filter) = FuseFilter::build(&keys) {
        filter.encode(&mut bytes);
    }
    let offset_bytes = writer.write(&bytes)?;
    varint::put_u64(head, offset_bytes);
    varint::put_u64(head, bytes.len() as u64);
    Ok(())
}

/// The section to read.
#[derive(Debug)]
pub(crate) struct Traces {
    count: u32,
    rows: u32,
    /// First id of each page of ids.
    page_ids: Vec<[u8; ID_BYTES]>,
    numbers: Groups,
    places: Groups,
    firsts: Groups,
    /// First row of every 1,024th trace.
    group_firsts: Vec<u32>,
    starts: Groups,
    lasted: Groups,
    filter: FuseFilter,
}

/// A reader's groups of the columns of traces.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceCursor {
    numbers: GroupCache,
    places: GroupCache,
    firsts: GroupCache,
    starts: GroupCache,
    lasted: GroupCache,
}

impl Traces {
    pub(super) fn open(block: &Block, mut head: HeadReader<'_>, rows: u32) -> Result<Self, Error> {
        let damaged = |reason| block.damage(SectionKind::SpanDirectory, 0, reason);
        let mut traces = Self::open_columns(&mut head, rows).map_err(damaged)?;
        let place = head
            .u64()
            .and_then(|start| Ok(start..start.saturating_add(head.u64()?)));
        let place = place.map_err(damaged)?;
        head.end().map_err(damaged)?;
        if place.start < place.end {
            let bytes = block.section(SECTION)?.bytes(place);
            let filter = bytes.ok().and_then(|bytes| FuseFilter::decode(&bytes).ok());
            traces.filter = filter.unwrap_or_default();
        }
        Ok(traces)
    }

    fn open_columns(head: &mut HeadReader<'_>, rows: u32) -> Result<Self, Wrong> {
        let count = head.u32()?;
        if count > rows {
            return Err("more traces than rows");
        }
        let mut page_ids = Vec::new();
        for _ in 0..(count as usize).div_ceil(IDS_PER_PAGE) {
            page_ids.push(head.array()?);
        }
        let numbers = Groups::open(SECTION, count, head)?;
        let places = Groups::open(SECTION, count, head)?;
        let firsts = Groups::open(SECTION, count, head)?;
        let group_firsts = head.numbers(count.div_ceil(GROUP_ROWS), rows)?;
        if !group_firsts.is_sorted() || group_firsts.first().is_some_and(|&first| first != 0) {
            return Err("first rows of traces do not rise");
        }
        Ok(Self {
            count,
            rows,
            page_ids,
            numbers,
            places,
            firsts,
            group_firsts,
            starts: Groups::open(SECTION, count, head)?,
            lasted: Groups::open(SECTION, count, head)?,
            filter: FuseFilter::default(),
        })
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let columns = [
            &self.numbers,
            &self.places,
            &self.firsts,
            &self.starts,
            &self.lasted,
        ];
        columns
            .iter()
            .map(|groups| groups.heap_bytes())
            .sum::<usize>()
            + self.page_ids.capacity() * ID_BYTES
            + self.group_firsts.capacity() * size_of::<u32>()
            + self.filter.heap_bytes()
    }

    /// Whether the block may have the trace; reads nothing.
    #[inline]
    pub(super) fn may_have(&self, id: TraceId) -> bool {
        self.count > 0 && self.filter.contains(key_of(id))
    }

    /// The number of a trace, if the block has it.
    pub(super) fn find(
        &self,
        block: &Block,
        id: TraceId,
        cursor: &mut TraceCursor,
    ) -> Result<Option<u32>, Error> {
        if !self.may_have(id) {
            return Ok(None);
        }
        let after = self
            .page_ids
            .partition_point(|first| first <= id.as_bytes());
        let Some(page) = after.checked_sub(1) else {
            return Ok(None);
        };
        let first = page * IDS_PER_PAGE;
        let end = (first + IDS_PER_PAGE).min(self.count as usize);
        let range = (first * ID_BYTES) as u64..(end * ID_BYTES) as u64;
        let bytes = block.section(SECTION)?.bytes(range)?;
        let (ids, _) = bytes.as_chunks::<ID_BYTES>();
        let Ok(place) = ids.binary_search(id.as_bytes()) else {
            return Ok(None);
        };
        let place = u32::try_from(first + place).unwrap_or(u32::MAX);
        let number = cursor.numbers.get(&self.numbers, block, place)?;
        self.number(block, number).map(Some)
    }

    fn number(&self, block: &Block, number: i64) -> Result<u32, Error> {
        let number = u32::try_from(number).ok().filter(|n| *n < self.count);
        number.ok_or_else(|| block.damage(SECTION, 0, "a trace number past the last"))
    }

    /// A trace's id.
    pub(super) fn id(
        &self,
        block: &Block,
        trace: u32,
        cursor: &mut TraceCursor,
    ) -> Result<TraceId, Error> {
        let place = cursor.places.get(&self.places, block, trace)?;
        let place = u64::from(self.number(block, place)?) * ID_BYTES as u64;
        let bytes = block
            .section(SECTION)?
            .bytes(place..place + ID_BYTES as u64)?;
        TraceId::from_slice(&bytes)
            .ok_or_else(|| block.damage(SECTION, place, "a trace id of zeros"))
    }

    /// A trace's rows: at least one.
    pub(super) fn rows(
        &self,
        block: &Block,
        trace: u32,
        cursor: &mut TraceCursor,
    ) -> Result<Range<u32>, Error> {
        let first = cursor.firsts.get(&self.firsts, block, trace)?;
        let end = match trace + 1 {
            // Of the next group the directory knows the first, so that one group is decoded.
            next if next < self.count && next.is_multiple_of(GROUP_ROWS) => {
                let first = self.group_firsts.get(group_of(next) as usize);
                i64::from(first.copied().unwrap_or(0))
            }
            next if next < self.count => cursor.firsts.get(&self.firsts, block, next)?,
            _ => i64::from(self.rows),
        };
        let row = |row: i64| u32::try_from(row).ok().filter(|row| *row <= self.rows);
        match (row(first), row(end)) {
            (Some(first), Some(end)) if first < end => Ok(first..end),
            _ => Err(block.damage(SECTION, 0, "first rows of traces do not rise")),
        }
    }

    /// The trace that a row belongs to.
    pub(super) fn of_row(
        &self,
        block: &Block,
        row: u32,
        cursor: &mut TraceCursor,
    ) -> Result<u32, Error> {
        let after = self.group_firsts.partition_point(|&first| first <= row);
        let group = u32::try_from(after.saturating_sub(1)).unwrap_or(u32::MAX);
        let firsts = cursor.firsts.group(&self.firsts, block, group)?;
        let before = firsts.partition_point(|&first| first <= i64::from(row));
        let before = u32::try_from(before).ok().and_then(|n| n.checked_sub(1));
        match before {
            Some(before) if row < self.rows => Ok(group * GROUP_ROWS + before),
            _ => Err(block.damage(SECTION, 0, "a row of no trace")),
        }
    }

    /// Earliest start and latest end, ns since the epoch.
    pub(super) fn bounds(
        &self,
        block: &Block,
        trace: u32,
        cursor: &mut TraceCursor,
    ) -> Result<(i64, i64), Error> {
        let start_ns = cursor.starts.get(&self.starts, block, trace)?;
        let lasted_ns = cursor.lasted.get(&self.lasted, block, trace)?;
        Ok((start_ns, start_ns.wrapping_add(lasted_ns)))
    }

    /// The earliest start of a trace, ns since the epoch.
    pub(super) fn start_ns(
        &self,
        block: &Block,
        trace: u32,
        cursor: &mut TraceCursor,
    ) -> Result<i64, Error> {
        cursor.starts.get(&self.starts, block, trace)
    }
}
