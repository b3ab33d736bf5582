//! Writes a span block, one column at a time. Bytes: `docs/formats/span-block.md`.
//!
//! Sealing and merging are one operation: *sources* (open blocks, rows in memory) and *runs* (in the
//! order of the new block, each some whole traces of one source). Traces move as they are: parents,
//! subtrees and durations unchanged, numbers of tables translated by arrays.
//!
//! 1. Count the rows of each class that are taken, unite the tables of owners, keep the class of each row.
//! 2. For each column: read it from the sources in the order of the runs, encode it, write it.
//! 3. Write the directory, and make the block durable.
//!
//! Owned by one thread. Dropped unfinished, it leaves nothing behind.

use std::{ops::Range, path::Path, sync::Arc};

use rootline_wal::{Lsn, Storage, StoreId};

use super::{
    super::edge::EdgeRows,
    attributes::{AttributeSource, ItemContext, ItemRun, write_attributes},
    directory::DirectoryWriter,
    groups::{GROUP_ROWS, GroupsWriter},
    loose::LooseRows,
    orphans,
    owners::{OwnerSource, Owners},
    reader::{RowCursor, SpanBlock},
    rows::{self, StartsWriter},
    satellites::{self, ItemSource, LooseItems, Satellites},
    traces::{self, TraceCursor, TraceRow},
};
use crate::{
    block::{BlockId, BlockMeta, BlockWriter, SectionKind, Signal},
    error::Error,
    id::TraceId,
    time::{TimeRange, Timestamp},
};

/// Rows that are read from a source at once.
const STEP_ROWS: u32 = 4 * GROUP_ROWS;

/// Where rows come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowSource<'a> {
    /// An open block.
    Block(&'a SpanBlock),
    /// Rows in memory.
    Loose(&'a LooseRows),
}

/// Whole traces of one source that stand together in the new block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowRun {
    /// Which source.
    pub(crate) source: u32,
    /// Its first row in that source.
    pub(crate) first_row: u32,
    /// How many rows.
    pub(crate) rows: u32,
}

impl RowRun {
    fn range(self) -> Range<u32> {
        self.first_row..self.first_row.saturating_add(self.rows)
    }
}

/// Where the content of a block comes from: what its writer cannot know.
#[derive(Clone, Debug)]
pub(crate) struct SpanBlockOrigin {
    /// The records it was made of lie between these two, both included.
    pub(crate) first_lsn: Lsn,
    /// See `first_lsn`.
    pub(crate) last_lsn: Lsn,
    /// Deletes up to here are applied in it.
    pub(crate) clean_lsn: Lsn,
    /// How often its content was merged.
    pub(crate) level: u8,
    /// The blocks it replaces.
    pub(crate) sources: Vec<BlockId>,
    /// Wall clock, ns since the Unix epoch.
    pub(crate) created_ns: i64,
}

/// Whether to go on; asked every few thousand rows.
pub(super) type Go<'c> = &'c mut dyn FnMut() -> Result<(), Error>;

/// Writes block `id` of `store` in `dir`, which exists: the traces of `runs` in that order, which is by
/// (start, id). `superseded` are the ids of traces that are hidden in older blocks from now on, sorted.
/// `None` if there is no row and nothing superseded.
#[expect(clippy::too_many_arguments, reason = "what a block is made of")]
pub(crate) fn write_block(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    store: StoreId,
    id: BlockId,
    sources: &[RowSource<'_>],
    runs: &[RowRun],
    superseded: &[TraceId],
    origin: SpanBlockOrigin,
    ctl: Go<'_>,
) -> Result<Option<BlockMeta>, Error> {
    let all = Interleaved { sources, runs };
    let row_count = all.rows()?;
    if row_count == 0 && superseded.is_empty() {
        return Ok(None);
    }
    let traces = all.traces(ctl)?;
    let (owners, class_of) = all.owners(row_count, ctl)?;
    let mut writer = BlockWriter::create(storage, dir, store, id)?;
    let mut directory = DirectoryWriter::default();

    let mut head = Vec::new();
    owners.write(&mut writer, &mut head)?;
    directory.push(SectionKind::SpanOwners, head);

    let mut edges = EdgeRows::new(owners.edge_classes());
    let head = all.write_rows(&mut writer, &class_of, &mut edges, ctl)?;
    directory.push(SectionKind::SpanRows, head);

    writer.begin(SectionKind::SpanEdges)?;
    edges.write(|service| owners.symbol(service), &mut writer, ctl)?;

    all.write_ids(&mut writer, ctl)?;

    let mut head = Vec::new();
    writer.begin(SectionKind::SpanOrphans)?;
    orphans::write(&mut writer, &mut head, &all.orphans()?)?;
    directory.push(SectionKind::SpanOrphans, head);

    let trace_of = trace_of_rows(&traces, row_count);
    let head = all.write_attributes(&mut writer, &class_of, &trace_of, ctl)?;
    directory.push(SectionKind::SpanAttributes, head);
    drop(class_of);

    for (section, items) in SATELLITES {
        let head = all.write_items(&mut writer, section, items, &trace_of, ctl)?;
        directory.push(section, head.unwrap_or_default());
    }
    drop(trace_of);

    let mut head = Vec::new();
    traces::write(&mut writer, &mut head, &traces)?;
    directory.push(SectionKind::SpanTraces, head);

    let ids = superseded.iter().flat_map(|id| *id.as_bytes());
    directory.push(SectionKind::SpanSuperseded, ids.collect());
    directory.finish(&mut writer)?;
    let meta = writer.finish(BlockMeta {
        id,
        signal: Signal::Spans,
        first_lsn: origin.first_lsn,
        last_lsn: origin.last_lsn,
        clean_lsn: origin.clean_lsn,
        time: time_of(&traces, origin.created_ns)?,
        level: origin.level,
        series: traces.len() as u64,
        samples: row_count.into(),
        sources: origin.sources,
        created_ns: origin.created_ns,
        spanning: false,
        file_bytes: 0,
    })?;
    Ok(Some(meta))
}

/// The items of a source that hang on its rows.
#[derive(Clone, Copy)]
struct ItemsOf {
    loose: fn(&LooseRows) -> &LooseItems,
    block: fn(&SpanBlock) -> Option<&Satellites>,
}

/// The sections of what hangs on rows.
const SATELLITES: [(SectionKind, ItemsOf); 3] = [
    (
        SectionKind::SpanExtras,
        ItemsOf {
            loose: |rows| &rows.extras,
            block: SpanBlock::extras,
        },
    ),
    (
        SectionKind::SpanEvents,
        ItemsOf {
            loose: |rows| &rows.events,
            block: SpanBlock::events,
        },
    ),
    (
        SectionKind::SpanLinks,
        ItemsOf {
            loose: |rows| &rows.links,
            block: SpanBlock::links,
        },
    ),
];

/// The number of the trace of each row.
fn trace_of_rows(traces: &[TraceRow], rows: u32) -> Vec<u32> {
    let ends = traces.iter().skip(1).map(|trace| trace.first_row);
    let mut trace_of = Vec::with_capacity(rows as usize);
    for (trace, end) in (0u32..).zip(ends.chain([rows]).take(traces.len())) {
        trace_of.resize(end as usize, trace);
    }
    trace_of
}

/// From the earliest start to the latest end. A block without spans, which only hides others, counts as
/// of the moment it was written.
fn time_of(traces: &[TraceRow], created_ns: i64) -> Result<TimeRange, Error> {
    let start_ns = traces.iter().map(|trace| trace.start_ns).min();
    let end_ns = traces.iter().map(|trace| trace.end_ns).max();
    let start_ns = start_ns.unwrap_or(created_ns);
    TimeRange::new(
        Timestamp::from_nanos(start_ns),
        Timestamp::from_nanos(end_ns.unwrap_or(created_ns).max(start_ns)),
    )
}

/// The sources in the order of the runs.
struct Interleaved<'a> {
    sources: &'a [RowSource<'a>],
    runs: &'a [RowRun],
}

impl<'a> Interleaved<'a> {
    fn rows(&self) -> Result<u32, Error> {
        let rows: u64 = self.runs.iter().map(|run| u64::from(run.rows)).sum();
        u32::try_from(rows)
            .ok()
            .filter(|rows| *rows < u32::MAX)
            .ok_or(Error::Unsupported("a block of 2^32 spans"))
    }

    fn source(&self, run: RowRun) -> RowSource<'a> {
        let source = self.sources.get(run.source as usize).copied();
        source.expect("a run is of one of the sources")
    }

    /// Reads a column: `load` appends the rows of a source, `take` gets them in the new order.
    fn each<T>(
        &self,
        ctl: Go<'_>,
        mut load: impl FnMut(usize, RowSource<'a>, Range<u32>, &mut Vec<T>) -> Result<(), Error>,
        mut take: impl FnMut(&mut Vec<T>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut values = Vec::new();
        let mut until_check = STEP_ROWS;
        for &run in self.runs {
            let source = self.source(run);
            let rows = run.range();
            for first in rows.clone().step_by(STEP_ROWS as usize) {
                let end = rows.end.min(first.saturating_add(STEP_ROWS));
                load(run.source as usize, source, first..end, &mut values)?;
                until_check = until_check.saturating_sub(end - first);
            }
            // Short runs are gathered.
            if until_check == 0 {
                take(&mut values)?;
                values.clear();
                ctl()?;
                until_check = STEP_ROWS;
            }
        }
        take(&mut values)
    }

    /// A cursor for each source that is a block.
    fn cursors(&self) -> Vec<Option<RowCursor<'a>>> {
        let cursor = |source: &RowSource<'a>| match *source {
            RowSource::Block(block) => Some(RowCursor::new(block)),
            RowSource::Loose(_) => None,
        };
        self.sources.iter().map(cursor).collect()
    }

    /// The traces with their rows in the new block.
    fn traces(&self, ctl: Go<'_>) -> Result<Vec<TraceRow>, Error> {
        let mut traces = Vec::new();
        let mut first_row = 0;
        let mut cursor_of: Vec<TraceCursor> = Vec::new();
        cursor_of.resize_with(self.sources.len(), TraceCursor::default);
        for &run in self.runs {
            ctl()?;
            let moved = |row: u32| row.wrapping_sub(run.first_row).wrapping_add(first_row);
            match (self.source(run), cursor_of.get_mut(run.source as usize)) {
                (RowSource::Loose(loose), _) => {
                    let from = loose
                        .traces()
                        .partition_point(|t| t.first_row < run.first_row);
                    let of_run = loose.traces().iter().skip(from);
                    let of_run = of_run.take_while(|t| run.range().contains(&t.first_row));
                    traces.extend(of_run.map(|trace| TraceRow {
                        first_row: moved(trace.first_row),
                        ..*trace
                    }));
                }
                (RowSource::Block(block), Some(cursor)) => {
                    let mut row = run.first_row;
                    while row < run.range().end {
                        let trace = block.trace_of_row_with(row, cursor)?;
                        let (start_ns, end_ns) = block.trace_bounds_with(trace, cursor)?;
                        traces.push(TraceRow {
                            id: block.trace_id_with(trace, cursor)?,
                            first_row: moved(row),
                            start_ns,
                            end_ns,
                        });
                        row = block.trace_rows_with(trace, cursor)?.end;
                    }
                }
                (RowSource::Block(_), None) => {}
            }
            first_row += run.rows;
        }
        Ok(traces)
    }

    /// The owners' tables, and the class of each row in them.
    fn owners(&self, rows: u32, ctl: Go<'_>) -> Result<(Owners, Vec<u32>), Error> {
        let sources: Vec<&dyn OwnerSource> = self
            .sources
            .iter()
            .map(|source| match *source {
                RowSource::Block(block) => block as &dyn OwnerSource,
                RowSource::Loose(loose) => loose,
            })
            .collect();
        let counts = sources.iter().map(|source| vec![0; source.classes().len()]);
        let mut counts: Vec<Vec<u64>> = counts.collect();
        let mut class_of: Vec<u32> = Vec::with_capacity(rows as usize);
        let mut cursors = self.cursors();
        self.each(
            ctl,
            |number, source, rows, out| {
                let from = out.len();
                let cursor = cursors.get_mut(number).and_then(Option::as_mut);
                load_classes(source, cursor, rows, out)?;
                if let Some(counts) = counts.get_mut(number) {
                    for &class in out.iter().skip(from) {
                        if let Some(count) = counts.get_mut(class as usize) {
                            *count += 1;
                        }
                    }
                }
                Ok(())
            },
            |classes| {
                class_of.append(classes);
                Ok(())
            },
        )?;
        let owners = Owners::unite(&sources, &counts)?;
        let mut of_run = class_of.as_mut_slice();
        for run in self.runs {
            let (classes, rest) = of_run.split_at_mut((run.rows as usize).min(of_run.len()));
            let map = owners.class_of.get(run.source as usize);
            for class in classes {
                let here = map.and_then(|map| map.get(*class as usize));
                *class = here.copied().unwrap_or(0);
            }
            of_run = rest;
        }
        Ok((owners, class_of))
    }

    fn write_rows(
        &self,
        writer: &mut BlockWriter,
        class_of: &[u32],
        edges: &mut EdgeRows,
        ctl: Go<'_>,
    ) -> Result<Vec<u8>, Error> {
        let mut head = Vec::new();
        writer.begin(SectionKind::SpanRows)?;
        let mut groups = GroupsWriter::new();
        for &class in class_of {
            groups.push(writer, class.into())?;
        }
        groups.finish(writer, &mut head)?;

        self.write_numbers(
            writer,
            &mut head,
            ctl,
            |cursor, row| cursor.parent_distance(row),
            |loose| &loose.parents,
        )?;
        self.write_numbers(
            writer,
            &mut head,
            ctl,
            |cursor, row| cursor.subtree(row),
            |loose| &loose.subtrees,
        )?;

        let mut cursors = self.cursors();
        let mut starts = StartsWriter::new();
        self.each(
            ctl,
            |number, source, rows, out| match (source, cursors.get_mut(number)) {
                (RowSource::Loose(loose), _) => {
                    let parents = slice_of(&loose.parents, rows.clone());
                    let starts = slice_of(&loose.starts_ns, rows);
                    out.extend(parents.iter().copied().zip(starts.iter().copied()));
                    Ok(())
                }
                (RowSource::Block(_), Some(Some(cursor))) => {
                    for row in rows {
                        out.push((cursor.parent_distance(row)?, cursor.start_ns(row)?));
                    }
                    Ok(())
                }
                (RowSource::Block(_), _) => Ok(()),
            },
            |rows| {
                rows.iter().try_for_each(|&(parent, start_ns)| {
                    edges.push_parent(class_of, parent);
                    edges.push_start(start_ns);
                    starts.push(writer, parent, start_ns)
                })
            },
        )?;
        starts.finish(writer, &mut head)?;

        let mut cursors = self.cursors();
        let mut durations = GroupsWriter::new();
        let mut longest_ns: Vec<u64> = Vec::new();
        let mut written = 0u32;
        self.each(
            ctl,
            |number, source, rows, out| match (source, cursors.get_mut(number)) {
                (RowSource::Loose(loose), _) => {
                    out.extend_from_slice(slice_of(&loose.durations_ns, rows));
                    Ok(())
                }
                (RowSource::Block(_), Some(Some(cursor))) => {
                    for row in rows {
                        out.push(cursor.duration_ns(row)?);
                    }
                    Ok(())
                }
                (RowSource::Block(_), _) => Ok(()),
            },
            |rows| {
                for &duration_ns in rows.iter() {
                    edges.push_duration(duration_ns);
                    if written.is_multiple_of(GROUP_ROWS) {
                        longest_ns.push(0);
                    }
                    written += 1;
                    if let Some(longest_ns) = longest_ns.last_mut() {
                        *longest_ns = duration_ns.max(*longest_ns);
                    }
                    durations.push(writer, duration_ns.cast_signed())?;
                }
                Ok(())
            },
        )?;
        durations.finish(writer, &mut head)?;
        rows::put_durations_max(&mut head, &longest_ns);
        Ok(head)
    }

    /// Writes a column of numbers as they are in the sources.
    fn write_numbers(
        &self,
        writer: &mut BlockWriter,
        head: &mut Vec<u8>,
        ctl: Go<'_>,
        of_block: impl Fn(&mut RowCursor<'a>, u32) -> Result<u32, Error>,
        of_loose: impl Fn(&'a LooseRows) -> &'a Vec<u32>,
    ) -> Result<(), Error> {
        let mut cursors = self.cursors();
        let mut groups = GroupsWriter::new();
        self.each(
            ctl,
            |number, source, rows, out| match (source, cursors.get_mut(number)) {
                (RowSource::Loose(loose), _) => {
                    out.extend_from_slice(slice_of(of_loose(loose), rows));
                    Ok(())
                }
                (RowSource::Block(_), Some(Some(cursor))) => {
                    for row in rows {
                        out.push(of_block(cursor, row)?);
                    }
                    Ok(())
                }
                (RowSource::Block(_), _) => Ok(()),
            },
            |rows: &mut Vec<u32>| {
                rows.iter()
                    .try_for_each(|&value| groups.push(writer, value.into()))
            },
        )?;
        groups.finish(writer, head)
    }

    fn write_ids(&self, writer: &mut BlockWriter, ctl: Go<'_>) -> Result<(), Error> {
        writer.begin(SectionKind::SpanIds)?;
        self.each(
            ctl,
            |_, source, rows, out: &mut Vec<[u8; 8]>| match source {
                RowSource::Loose(loose) => {
                    out.extend_from_slice(slice_of(&loose.span_ids, rows));
                    Ok(())
                }
                RowSource::Block(block) => {
                    let from = out.len();
                    out.resize(from + rows.len(), [0; 8]);
                    let room = out.get_mut(from..).unwrap_or_default();
                    block.span_ids(rows.start, room)
                }
            },
            // Ids of 8 bytes fill a page whole, so that none lies on two.
            |ids| ids.iter().try_for_each(|id| writer.write(id).map(|_| ())),
        )
    }

    fn write_attributes(
        &self,
        writer: &mut BlockWriter,
        class_of: &[u32],
        trace_of: &[u32],
        ctl: Go<'_>,
    ) -> Result<Vec<u8>, Error> {
        writer.begin(SectionKind::SpanAttributes)?;
        let source = |source: &RowSource<'a>| match *source {
            RowSource::Block(block) => AttributeSource::Table(block.attributes()),
            RowSource::Loose(loose) => AttributeSource::Loose(&loose.attributes),
        };
        let sources: Vec<AttributeSource<'a>> = self.sources.iter().map(source).collect();
        let run = |run: &RowRun| ItemRun {
            source: run.source,
            first: run.first_row,
            items: run.rows,
        };
        let runs: Vec<ItemRun> = self.runs.iter().map(run).collect();
        let context = ItemContext {
            class_of,
            owner_of: trace_of,
        };
        write_attributes(writer, &sources, &runs, &context, ctl)
    }

    fn write_items(
        &self,
        writer: &mut BlockWriter,
        section: SectionKind,
        items: ItemsOf,
        trace_of: &[u32],
        ctl: Go<'_>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let none = LooseItems::default();
        let source = |source: &RowSource<'a>| match *source {
            RowSource::Loose(loose) => ItemSource::Loose((items.loose)(loose)),
            RowSource::Block(block) => (items.block)(block)
                .map_or(ItemSource::Loose(&none), |items| {
                    ItemSource::Block(block.block(), items)
                }),
        };
        let sources: Vec<ItemSource<'_>> = self.sources.iter().map(source).collect();
        satellites::write(writer, section, &sources, self.runs, trace_of, ctl)
    }

    /// Orphans with their rows in the new block.
    fn orphans(&self) -> Result<Vec<(u32, [u8; 8])>, Error> {
        let mut orphans = Vec::new();
        let mut first_row = 0u32;
        for &run in self.runs {
            let rows = run.range();
            let moved = |row: u32| row.wrapping_sub(run.first_row).wrapping_add(first_row);
            match self.source(run) {
                RowSource::Loose(loose) => {
                    let from = loose.orphans.partition_point(|(row, _)| *row < rows.start);
                    let of_run = loose.orphans.iter().skip(from);
                    let of_run = of_run.take_while(|(row, _)| *row < rows.end);
                    orphans.extend(of_run.map(|(row, id)| (moved(*row), *id)));
                }
                RowSource::Block(block) => {
                    block.each_orphan(rows, |row, id| orphans.push((moved(row), id)))?;
                }
            }
            first_row += run.rows;
        }
        Ok(orphans)
    }
}

fn load_classes(
    source: RowSource<'_>,
    cursor: Option<&mut RowCursor<'_>>,
    rows: Range<u32>,
    out: &mut Vec<u32>,
) -> Result<(), Error> {
    match (source, cursor) {
        (RowSource::Loose(loose), _) => out.extend_from_slice(slice_of(&loose.class_of, rows)),
        (RowSource::Block(_), Some(cursor)) => {
            for row in rows {
                out.push(cursor.class(row)?);
            }
        }
        (RowSource::Block(_), None) => {}
    }
    Ok(())
}

fn slice_of<T>(values: &[T], rows: Range<u32>) -> &[T] {
    values
        .get(rows.start as usize..rows.end as usize)
        .unwrap_or_default()
}
