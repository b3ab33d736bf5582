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
    collect::{EdgeKey, EdgeRow, EdgeRows},
    graph::{EdgeGraph, EdgeSlot, EdgeSums},
    kind::EdgeKind,
    period::{Cover, Level},
    sketch::BUCKETS,
};
use crate::{
    block::{Block, BlockWriter, PAGE_BYTES_MAX, SectionKind},
    control::QueryControl,
    error::Error,
    varint::{put_bytes, put_i64, put_u64, take_bytes, take_i64, take_slice, take_u32, take_u64},
};

/// First byte of the directory.
const VERSION: u8 = 1;
/// Offset and length of the directory.
const TRAILER_BYTES: usize = 16;
/// Rows between two looks at whether to go on.
const CHECK_EDGE_ROWS: usize = 64 * 1024;

impl EdgeRows {
    /// Writes the section, which the caller has begun. `service` gives the name of a service by the number
    /// that classes said.
    ///
    /// # Errors
    /// [`Error::Storage`]; what `ctl` returns.
    pub(crate) fn write(
        mut self,
        service: impl Fn(u32) -> Arc<str>,
        writer: &mut BlockWriter,
        ctl: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        ctl()?;
        let (names, order) = named(&self.edges, service);
        self.rows.sort_by_key(|row| row.minute);
        ctl()?;
        let mut directory = vec![VERSION];
        put_u64(&mut directory, names.len() as u64);
        for name in &names {
            directory.push(name.kind as u8);
            put_bytes(&mut directory, name.caller.as_bytes());
            put_bytes(&mut directory, name.callee.as_bytes());
            put_bytes(&mut directory, name.system.as_bytes());
        }
        let mut sums = vec![EdgeSums::default(); names.len()];
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
}

/// Edges by name, sorted, and for each key the number of its name.
fn named(keys: &[EdgeKey], service: impl Fn(u32) -> Arc<str>) -> (Vec<EdgeName>, Vec<u32>) {
    let mut by_name: Vec<(EdgeName, u32)> = keys
        .iter()
        .zip(0..)
        .map(|(key, number)| {
            let name = EdgeName {
                kind: key.kind,
                caller: service(key.caller),
                callee: service(key.callee),
                system: Arc::default(),
            };
            (name, number)
        })
        .collect();
    by_name.sort_unstable();
    let mut order = vec![0; keys.len()];
    for ((_, key), number) in by_name.iter().zip(0..) {
        if let Some(order) = order.get_mut(*key as usize) {
            *order = number;
        }
    }
    (by_name.into_iter().map(|(name, _)| name).collect(), order)
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
    let sum = sums.duration_sum_ns();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half, then the high one"
    )]
    let (low, high) = (sum as u64, (sum >> 64) as u64);
    put_u64(cell, sums.calls());
    put_u64(cell, sums.errors() << 1 | u64::from(high != 0));
    put_u64(cell, low);
    if high != 0 {
        put_u64(cell, high);
    }
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
    let (calls, flagged) = (take_u64(cell)?, take_u64(cell)?);
    let errors = flagged >> 1;
    let mut sum = u128::from(take_u64(cell)?);
    if flagged & 1 == 1 {
        sum |= u128::from(take_u64(cell)?) << 64;
    }
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

/// An edge of the section.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct EdgeName {
    kind: EdgeKind,
    caller: Arc<str>,
    callee: Arc<str>,
    system: Arc<str>,
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
            .checked_sub(TRAILER_BYTES as u64)
            .ok_or_else(|| damage(0, "the section is too short for its trailer"))?;
        let offset = take_trailer(&section.bytes(at..len)?, at)
            .ok_or_else(|| damage(at, "the directory does not end where the trailer begins"))?;
        let directory = section.bytes(offset..at)?;
        let directory = Self::decode(&directory, offset);
        directory
            .map(Some)
            .ok_or_else(|| damage(offset, "the directory does not decode"))
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
                let bytes = section.bytes(period.offset..period.offset + period.bytes)?;
                take_period(&bytes, &slots, into).ok_or_else(|| {
                    let reason = "an edge of a period does not decode";
                    block.damage(SectionKind::SpanEdges, period.offset, reason)
                })?;
            }
        }
        Ok(())
    }
}

/// Where the directory begins, of the trailer at `at`.
fn take_trailer(trailer: &[u8], at: u64) -> Option<u64> {
    let (offset, rest) = trailer.split_first_chunk::<8>()?;
    let (bytes, rest) = rest.split_first_chunk::<8>()?;
    let (offset, bytes) = (u64::from_le_bytes(*offset), u64::from_le_bytes(*bytes));
    (rest.is_empty() && offset.checked_add(bytes) == Some(at)).then_some(offset)
}

/// Adds a period to the edges that have a slot; `None` if it does not decode. What was added then is of
/// no use.
fn take_period(mut input: &[u8], slots: &[Option<EdgeSlot>], into: &mut EdgeGraph) -> Option<()> {
    let input = &mut input;
    let (mut next, mut calls) = (0u32, 0u64);
    while !input.is_empty() {
        let edge = next.checked_add(take_u32(input)?)?;
        let cell = take_bytes(input)?;
        let slot = *slots.get(edge as usize)?;
        if let Some(sums) = slot.and_then(|slot| into.sums_mut(slot)) {
            calls = calls.saturating_add(take_cell(cell, sums)?);
        }
        next = edge.checked_add(1)?;
    }
    into.count_coarse(calls);
    Some(())
}

/// Decodes bytes as the section of a block, as answering a question does. For fuzzing.
///
/// # Errors
/// What is wrong with them.
#[doc(hidden)]
pub fn check_span_edges(bytes: &[u8]) -> Result<(), &'static str> {
    let (front, trailer) = bytes
        .split_last_chunk::<TRAILER_BYTES>()
        .ok_or("too short")?;
    let offset = take_trailer(trailer, front.len() as u64).ok_or("no trailer")?;
    let (periods, directory) = usize::try_from(offset)
        .ok()
        .and_then(|offset| front.split_at_checked(offset))
        .ok_or("no directory")?;
    let directory = EdgeDirectory::decode(directory, offset).ok_or("bad directory")?;
    let mut graph = EdgeGraph::new(0);
    let slots: Vec<_> = directory
        .edges
        .iter()
        .map(|e| Some(graph.slot(e.kind, &e.caller, &e.callee, &e.system)))
        .collect();
    let mut rest = periods;
    for period in directory.levels.iter().flatten() {
        let bytes = usize::try_from(period.bytes).map_err(|_| "a long period")?;
        let item = take_slice(&mut rest, bytes).ok_or("a period behind the directory")?;
        take_period(item, &slots, &mut graph).ok_or("bad period")?;
    }
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
        let service = |service: u32| format!("s{service}").into();
        let mut edges = EdgeRows::new(classes);
        rows.iter()
            .for_each(|row| edges.push_parent(&class_of, row.parent));
        rows.iter().for_each(|row| edges.push_start(row.start_ns));
        rows.iter()
            .for_each(|row| edges.push_duration(row.duration_ns));
        let mut writer = BlockWriter::create(&storage, dir, STORE, BlockId(1)).unwrap();
        writer.begin(SectionKind::SpanRows).unwrap();
        writer.write(b"something before").unwrap();
        writer.begin(SectionKind::SpanEdges).unwrap();
        edges.write(service, &mut writer, &mut || Ok(())).unwrap();
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

    #[test]
    fn version_one_reads_the_same_for_ever() {
        let golden: &[u8] = include_bytes!("../../../tests/golden/v1/span-edges.bin");
        let minute = 60_000_000_000;
        let row = |class, parent, minutes: i64, duration_ns| Row {
            class,
            parent,
            start_ns: minutes * minute + 5,
            duration_ns,
        };
        let rows = [
            row(0, 0, 28_000_000, 9_000_000),
            row(2, 1, 28_000_000, 1_000_000),
            row(3, 2, 28_000_000, 1_000_001),
            row(5, 3, 28_000_001, 63),
            row(1, 1, 28_000_100, 0),
            row(4, 1, 28_001_500, u64::MAX),
            row(4, 2, -1, u64::MAX),
        ];
        let dir = tempfile::tempdir().unwrap();
        let block = write(dir.path(), &rows);
        let section = block.section(SectionKind::SpanEdges).unwrap();
        let bytes = section.bytes(0..section.len_bytes()).unwrap();
        check_span_edges(golden).unwrap();
        assert_eq!(&*bytes, golden);
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

        #[test]
        fn a_changed_byte_is_read_or_refused(
            rows in any_rows(), at in any::<proptest::sample::Index>(), byte: u8,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let block = write(dir.path(), &rows);
            let section = block.section(SectionKind::SpanEdges).unwrap();
            let mut bytes = section.bytes(0..section.len_bytes()).unwrap().into_cow().into_owned();
            if !bytes.is_empty() {
                check_span_edges(&bytes).unwrap();
                let at = at.index(bytes.len());
                bytes[at] = byte;
                let _ = check_span_edges(&bytes);
            }
        }
    }
}
