//! Section `SpanEdges` of a span block: who called whom, by minute, hour and day. Page:
//! `docs/formats/span-edges.md`.
//!
//! ```text
//! period of minutes | .. | period of hours | .. | period of days | .. | directory | trailer
//! ```
//!
//! A *period* is a minute, an hour or a day of UTC with at least one call. It lists its edges, each with
//! calls, errors, sum of durations and their histogram. The directory names the edges and says where
//! each period lies; the trailer says where the directory lies.
//!
//! Invariants
//! - The section says of the block's rows what they say themselves, hidden ones included: it may be left
//!   out, and what is damaged is counted from the rows.
//! - Decoders are total: no number is used before it was checked, nothing is allocated by a number alone.

use std::sync::Arc;

use super::{
    collect::{EdgeName, EdgeRow, EdgeRows},
    graph::{EdgeGraph, EdgeSlot, EdgeSums},
    kind::EdgeKind,
    period::{Cover, Level},
    sketch::BUCKETS,
};
use crate::{
    block::{Block, BlockWriter, PAGE_BYTES_MAX, Section, SectionKind},
    control::QueryControl,
    error::Error,
    varint::{put_bytes, put_i64, put_u64, take_bytes, take_i64, take_slice, take_u32, take_u64},
};

/// First byte of the directory.
const VERSION: u8 = 1;
/// Offset and length of the directory.
const TRAILER_BYTES: u64 = 16;
/// Rows between two looks at whether to go on.
const CHECK_EDGE_ROWS: usize = 64 * 1024;

const BAD_CELL: &str = "an edge of a period does not decode";
const BAD_DIRECTORY: &str = "the directory does not decode";

impl EdgeRows {
    /// Writes the section, which the caller has begun. No row: nothing is written.
    ///
    /// # Errors
    /// [`Error::Storage`]; what `ctl` returns.
    pub(crate) fn write(
        mut self,
        writer: &mut BlockWriter,
        ctl: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.rows.is_empty() {
            return Ok(());
        }
        ctl()?;
        let order = self.sort_edges();
        self.rows.sort_by_key(|row| row.minute);
        ctl()?;
        let mut directory = vec![VERSION];
        put_u64(&mut directory, order.len() as u64);
        for name in &self.edges {
            directory.push(name.kind as u8);
            put_bytes(&mut directory, name.caller.as_bytes());
            put_bytes(&mut directory, name.callee.as_bytes());
            put_bytes(&mut directory, name.system.as_bytes());
        }
        let mut sums = vec![EdgeSums::default(); self.edges.len()];
        let mut end = 0;
        for level in [Level::Minute, Level::Hour, Level::Day] {
            let mut periods = Vec::new();
            let mut count = 0u64;
            let mut last = 0i64;
            let of = |row: &EdgeRow| row.minute.div_euclid(level.ns() / Level::Minute.ns());
            for rows in self.rows.chunk_by(|a, b| of(a) == of(b)) {
                let Some(number) = rows.first().map(of) else {
                    continue;
                };
                let item = period(rows, &order, &mut sums, ctl)?;
                end = writer.write(&item)? + item.len() as u64;
                put_i64(&mut periods, number.wrapping_sub(last));
                put_u64(&mut periods, item.len() as u64);
                last = number;
                count += 1;
            }
            put_u64(&mut directory, count);
            directory.extend_from_slice(&periods);
        }
        for piece in directory.chunks(PAGE_BYTES_MAX) {
            writer.write(piece)?;
        }
        let mut trailer = end.to_le_bytes().to_vec();
        trailer.extend_from_slice(&(directory.len() as u64).to_le_bytes());
        writer.write(&trailer)?;
        Ok(())
    }

    /// Puts the edges in order of their names; returns the new number of each by its old one.
    fn sort_edges(&mut self) -> Vec<u32> {
        let mut by_name: Vec<u32> = (0..super::number(self.edges.len())).collect();
        let name = |i: &u32| {
            self.edges.get(*i as usize).map(|e| {
                (
                    e.kind,
                    Arc::clone(&e.caller),
                    Arc::clone(&e.callee),
                    Arc::clone(&e.system),
                )
            })
        };
        by_name.sort_by_cached_key(name);
        let mut order = vec![0; by_name.len()];
        let mut sorted = Vec::with_capacity(by_name.len());
        for (new, &old) in (0u32..).zip(&by_name) {
            sorted.extend(self.edges.get(old as usize).cloned());
            if let Some(order) = order.get_mut(old as usize) {
                *order = new;
            }
        }
        self.edges = sorted;
        order
    }
}

/// The bytes of a period. `sums` is as long as there are edges, and counts nothing before and after.
fn period(
    rows: &[EdgeRow],
    order: &[u32],
    sums: &mut [EdgeSums],
    ctl: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<Vec<u8>, Error> {
    let mut touched = Vec::new();
    for rows in rows.chunks(CHECK_EDGE_ROWS) {
        ctl()?;
        for row in rows {
            let edge = order.get(row.edge() as usize).copied().unwrap_or(u32::MAX);
            if let Some(sums) = sums.get_mut(edge as usize) {
                if sums.calls() == 0 {
                    touched.push(edge);
                }
                sums.add(row.duration_ns, row.error());
            }
        }
    }
    touched.sort_unstable();
    let (mut item, mut cell) = (Vec::new(), Vec::new());
    let mut next = 0;
    for edge in touched {
        let Some(sums) = sums.get_mut(edge as usize) else {
            continue;
        };
        cell.clear();
        put_cell(&mut cell, sums);
        put_u64(&mut item, u64::from(edge - next));
        put_bytes(&mut item, &cell);
        next = edge + 1;
        sums.clear();
    }
    Ok(item)
}

/// Calls, errors, sum, then the buckets that count something: distance and count.
fn put_cell(cell: &mut Vec<u8>, sums: &EdgeSums) {
    put_u64(cell, sums.calls());
    put_u64(cell, sums.errors());
    let sum = sums.duration_sum_ns();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half, then the high one"
    )]
    let (low, high) = (sum as u64, (sum >> 64) as u64);
    put_u64(cell, low);
    put_u64(cell, high);
    let mut next = 0u16;
    for (bucket, count) in sums.durations().buckets() {
        let distance = u64::from(bucket - next) << 1;
        if count == 1 {
            put_u64(cell, distance);
        } else {
            put_u64(cell, distance | 1);
            put_u64(cell, count - 2);
        }
        next = bucket + 1;
    }
}

/// Adds a cell to sums; `None` if it does not decode. What was added then is of no use.
fn take_cell(mut cell: &[u8], into: &mut EdgeSums) -> Option<u64> {
    let cell = &mut cell;
    let (calls, errors) = (take_u64(cell)?, take_u64(cell)?);
    let sum = u128::from(take_u64(cell)?) | u128::from(take_u64(cell)?) << 64;
    if errors > calls || i64::try_from(calls).is_err() {
        return None;
    }
    into.add_counts(calls, errors, sum);
    let (mut next, mut counted) = (0u64, 0u64);
    while !cell.is_empty() {
        let token = take_u64(cell)?;
        let count = match token & 1 {
            0 => 1,
            _ => take_u64(cell)?.checked_add(2)?,
        };
        let bucket = next.checked_add(token >> 1)?;
        counted = counted.checked_add(count)?;
        let place = u16::try_from(bucket).ok().filter(|b| *b < BUCKETS)?;
        into.add_bucket(place, i64::try_from(count).ok()?);
        next = bucket + 1;
    }
    (counted == calls).then_some(calls)
}

/// A period of the section.
#[derive(Clone, Copy, Debug)]
struct Period {
    number: i64,
    offset: u64,
    bytes: u64,
}

/// The directory of the section.
#[derive(Clone, Debug)]
pub(super) struct EdgeDirectory {
    edges: Vec<EdgeName>,
    /// Minutes, hours, days; each rising.
    levels: [Vec<Period>; 3],
}

impl EdgeDirectory {
    /// Reads it; `None` if the block has no such section.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`].
    pub(super) fn open(block: &Block) -> Result<Option<Self>, Error> {
        let section = block.section(SectionKind::SpanEdges)?;
        let len = section.len_bytes();
        if len == 0 {
            return Ok(None);
        }
        let damage = |offset, what: &str| block.damage(SectionKind::SpanEdges, offset, what);
        let at = len
            .checked_sub(TRAILER_BYTES)
            .ok_or_else(|| damage(0, "the section is too short for its trailer"))?;
        let trailer = section.bytes(at..len)?;
        let (offset, bytes) = trailer
            .split_first_chunk::<8>()
            .and_then(|(offset, rest)| {
                let bytes = rest.first_chunk::<8>()?;
                Some((u64::from_le_bytes(*offset), u64::from_le_bytes(*bytes)))
            })
            .ok_or_else(|| damage(at, "the trailer is cut short"))?;
        if offset.checked_add(bytes) != Some(at) {
            return Err(damage(
                at,
                "the directory does not end where the trailer begins",
            ));
        }
        let directory = section.bytes(offset..at)?;
        match Self::decode(&directory, offset) {
            Some(directory) => Ok(Some(directory)),
            None => Err(damage(offset, BAD_DIRECTORY)),
        }
    }

    /// `end`: where the periods end.
    fn decode(mut input: &[u8], end: u64) -> Option<Self> {
        let input = &mut input;
        if take_slice(input, 1)? != [VERSION] {
            return None;
        }
        let mut edges = Vec::new();
        for _ in 0..take_u64(input)? {
            let kind = take_slice(input, 1)?.first().copied()?;
            let mut text = || Some(Arc::from(std::str::from_utf8(take_bytes(input)?).ok()?));
            edges.push(EdgeName {
                kind: EdgeKind::from_code(kind)?,
                caller: text()?,
                callee: text()?,
                system: text()?,
            });
        }
        let mut levels: [Vec<Period>; 3] = Default::default();
        let mut offset = 0u64;
        for periods in &mut levels {
            let mut last = 0i64;
            for i in 0..take_u64(input)? {
                let step = take_i64(input)?;
                let number = last.checked_add(step).filter(|_| i == 0 || step > 0)?;
                let bytes = take_u64(input)?;
                periods.push(Period {
                    number,
                    offset,
                    bytes,
                });
                offset = offset.checked_add(bytes).filter(|offset| *offset <= end)?;
                last = number;
            }
        }
        (input.is_empty() && offset == end).then_some(Self { edges, levels })
    }

    /// Adds what the periods of a cover say of the edges that `wanted` chooses.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`]: the graph is then of no use. The query's bounds.
    pub(super) fn add(
        &self,
        block: &Block,
        cover: &Cover,
        wanted: &dyn Fn(EdgeKind, &str, &str) -> bool,
        ctl: &QueryControl,
        into: &mut EdgeGraph,
    ) -> Result<(), Error> {
        let section = block.section(SectionKind::SpanEdges)?;
        let slots: Vec<Option<EdgeSlot>> = self
            .edges
            .iter()
            .map(|e| {
                wanted(e.kind, &e.caller, &e.callee)
                    .then(|| into.slot(e.kind, &e.caller, &e.callee, &e.system))
            })
            .collect();
        if slots.iter().all(Option::is_none) {
            return Ok(());
        }
        for &(level, first, last) in &cover.periods {
            let [minutes, hours, days] = &self.levels;
            let periods = match level {
                Level::Minute => minutes,
                Level::Hour => hours,
                Level::Day => days,
            };
            let from = periods.partition_point(|period| period.number < first);
            let chosen = periods.iter().skip(from);
            for period in chosen.take_while(|period| period.number <= last) {
                ctl.check()?;
                add_period(block, &section, *period, &slots, into)?;
            }
        }
        Ok(())
    }
}

fn add_period(
    block: &Block,
    section: &Section<'_>,
    period: Period,
    slots: &[Option<EdgeSlot>],
    into: &mut EdgeGraph,
) -> Result<(), Error> {
    let bytes = section.bytes(period.offset..period.offset + period.bytes)?;
    let damage = || block.damage(SectionKind::SpanEdges, period.offset, BAD_CELL);
    let mut input = &bytes[..];
    let input = &mut input;
    let (mut next, mut calls) = (0u32, 0u64);
    while !input.is_empty() {
        let edge = take_u32(input).and_then(|distance| next.checked_add(distance));
        let (Some(edge), Some(cell)) = (edge, take_bytes(input)) else {
            return Err(damage());
        };
        let Some(slot) = slots.get(edge as usize) else {
            return Err(damage());
        };
        if let Some(sums) = slot.and_then(|slot| into.sums_mut(slot)) {
            calls = calls.saturating_add(take_cell(cell, sums).ok_or_else(damage)?);
        }
        next = edge.checked_add(1).ok_or_else(damage)?;
    }
    into.count_coarse(calls);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use std::{collections::BTreeMap, path::Path};

    use proptest::{collection::vec, prelude::*};
    use rootline_wal::{FsStorage, Lsn, Storage, StoreId, SystemClock};

    use super::*;
    use crate::{
        block::{BlockId, BlockMeta, Signal},
        control::QueryLimits,
        span::edge::{ClassOwner, DurationSketch},
        time::{TimeRange, Timestamp},
    };

    const STORE: StoreId = StoreId::from_bytes([7; 16]);

    #[derive(Clone, Debug)]
    struct Row {
        class: u32,
        parent: u32,
        start_ns: i64,
        duration_ns: u64,
    }

    fn any_rows() -> impl Strategy<Value = Vec<Row>> {
        let starts = prop_oneof![
            0..200_000_000_000i64,
            -200_000_000_000_000i64..400_000_000_000_000,
        ];
        let row = (
            0u32..6,
            0u32..4,
            starts,
            prop_oneof![0u64..1_000, any::<u64>()],
        );
        vec(row, 0..120).prop_map(|rows| {
            let rows = (0u32..)
                .zip(rows)
                .map(|(i, (class, parent, start_ns, duration_ns))| Row {
                    class,
                    parent: parent.min(i),
                    start_ns,
                    duration_ns,
                });
            rows.collect()
        })
    }

    /// Class `c` belongs to service `c / 2` and is an error if odd.
    fn write(dir: &Path, rows: &[Row]) -> Arc<Block> {
        let storage: Arc<dyn Storage> = Arc::new(FsStorage);
        let classes: Vec<ClassOwner> = (0..6)
            .map(|class| ClassOwner {
                service: class / 2,
                error: class % 2 == 1,
            })
            .collect();
        let class_of: Vec<u32> = rows.iter().map(|row| row.class).collect();
        let parents: Vec<u32> = rows.iter().map(|row| row.parent).collect();
        let service = |service: u32| format!("s{service}").into();
        let mut edges = EdgeRows::of_calls(&classes, service, &class_of, &parents);
        edges.set_starts(|row| rows[row as usize].start_ns);
        edges.set_durations(|row| rows[row as usize].duration_ns);
        let mut writer = BlockWriter::create(&storage, dir, STORE, BlockId(1)).unwrap();
        writer.begin(SectionKind::SpanRows).unwrap();
        writer.write(b"something before").unwrap();
        writer.begin(SectionKind::SpanEdges).unwrap();
        edges.write(&mut writer, &mut || Ok(())).unwrap();
        let meta = BlockMeta {
            id: BlockId(1),
            signal: Signal::Spans,
            first_lsn: Lsn(1),
            last_lsn: Lsn(1),
            clean_lsn: Lsn(1),
            time: TimeRange::ALL,
            level: 0,
            series: 1,
            samples: rows.len() as u64,
            sources: Vec::new(),
            created_ns: 0,
            spanning: false,
            file_bytes: 0,
        };
        writer.finish(meta).unwrap();
        Arc::new(Block::open(&storage, dir, Some(STORE), BlockId(1), &Arc::default()).unwrap())
    }

    type Plain = BTreeMap<(String, String), (u64, u64, u128, DurationSketch)>;

    fn plain(rows: &[Row], range: TimeRange) -> Plain {
        let mut found = Plain::new();
        for (i, row) in rows.iter().enumerate() {
            let parent = &rows[i - row.parent as usize];
            let inside = range.contains(Timestamp::from_nanos(row.start_ns));
            if row.parent == 0 || parent.class / 2 == row.class / 2 || !inside {
                continue;
            }
            let name = (
                format!("s{}", parent.class / 2),
                format!("s{}", row.class / 2),
            );
            let sums = found.entry(name).or_default();
            sums.0 += 1;
            sums.1 += u64::from(row.class % 2);
            sums.2 += u128::from(row.duration_ns);
            sums.3.add(row.duration_ns);
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_cover_counts_what_the_rows_say(
            rows in any_rows(), from in -4_000i64..7_000, minutes in 1i64..8_000,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let block = write(dir.path(), &rows);
            let control = QueryControl::new(
                Arc::new(SystemClock::default()), None, QueryLimits::default(),
            );
            let minute = 60_000_000_000;
            let range = TimeRange::new(
                Timestamp::from_nanos(from * minute),
                Timestamp::from_nanos((from + minutes) * minute - 1),
            ).unwrap();
            for range in [range, TimeRange::ALL] {
                let mut graph = EdgeGraph::new(0);
                if let Some(directory) = EdgeDirectory::open(&block).unwrap() {
                    let all = |_: EdgeKind, _: &str, _: &str| true;
                    directory.add(&block, &Cover::of(range), &all, &control, &mut graph).unwrap();
                }
                let found: Plain = graph.into_edges().map(|edge| {
                    let sums = &edge.sums;
                    let figures = (
                        sums.calls(), sums.errors(), sums.duration_sum_ns(), sums.durations().clone(),
                    );
                    ((edge.caller.to_string(), edge.callee.to_string()), figures)
                }).collect();
                prop_assert_eq!(found, plain(&rows, range));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..80), end in 0u64..100) {
            let mut version = vec![VERSION];
            version.extend_from_slice(&bytes);
            let _ = EdgeDirectory::decode(&version, end);
            let _ = take_cell(&bytes, &mut EdgeSums::default());
        }
    }
}
