//! Which body a row has, and which rows a body has.
//!
//! A row is a value of the *lead* label (the metric's name) and a *body* (all its other labels).
//! Rows of one lead stand together, and their bodies rise: a *run*. The run of a metric that every
//! target has is a range of bodies; only where bodies are missing are they told one by one. The
//! bytes: `docs/formats/series-index.md`.

use std::borrow::Cow;
use std::ops::Range;

use super::Source;
use super::error::Error;
use super::packed::{pack, packed_len, unpack, width_of};
use super::region::Region;
use super::sink::Sink;

/// Rows of a group of a run.
const GROUP_ROWS: u32 = 128;
/// Bytes of a run in the table.
const RUN_BYTES: u64 = 20;
/// Bytes of a group in the table.
const GROUP_BYTES: u64 = 9;

/// Where the map lies in the index part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RowMapRef {
    /// Table of the runs, and a last entry for the end.
    pub(crate) runs_bytes: u64,
    /// Runs; 0 if a row is its own body.
    pub(crate) runs: u32,
    /// Whether leads rise from run to run.
    pub(crate) leads_rise: bool,
    /// Table of the groups of all runs.
    pub(crate) groups_bytes: u64,
    /// The packed groups.
    pub(crate) data_bytes: u64,
}

/// Rows of one lead whose bodies rise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) rows: Range<u32>,
    /// Code of the lead's value, 0 without one.
    pub(crate) lead: u32,
    pub(crate) first_body: u32,
    pub(crate) last_body: u32,
    /// The first of its groups.
    group: u32,
}

impl Run {
    /// Whether it has every body between its first and last.
    pub(crate) fn is_whole(&self) -> bool {
        u64::from(self.last_body) + 1 == u64::from(self.first_body) + self.rows.len() as u64
    }
}

/// Takes rows in order.
#[derive(Debug, Default)]
pub(crate) struct RowMapWriter {
    runs: Vec<Run>,
    /// Bodies of the last run.
    bodies: Vec<u32>,
    /// Least body, start and width of the packed group, of each group.
    groups: Vec<(u32, u32, u8)>,
    data: Vec<u8>,
}

impl RowMapWriter {
    pub(crate) fn push(&mut self, row: u32, lead: u32, body: u32) {
        let goes_on = self
            .runs
            .last()
            .is_some_and(|run| run.lead == lead && run.last_body < body);
        if !goes_on {
            self.end_run();
            self.runs.push(Run {
                rows: row..row,
                lead,
                first_body: body,
                last_body: body,
                group: u32::try_from(self.groups.len()).unwrap_or(u32::MAX),
            });
        }
        if let Some(run) = self.runs.last_mut() {
            run.rows.end = row + 1;
            run.last_body = body;
        }
        self.bodies.push(body);
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.len()
    }

    fn end_run(&mut self) {
        let is_whole = self.runs.last().is_none_or(Run::is_whole);
        if !is_whole {
            for group in self.bodies.chunks(GROUP_ROWS as usize) {
                let base = group.first().copied().unwrap_or_default();
                let above = (0..).zip(group).map(|(i, body)| u64::from(body - base - i));
                let width = width_of(above.clone().last().unwrap_or_default());
                let start = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
                self.groups.push((base, start, width));
                pack(above, width, &mut self.data);
            }
        }
        self.bodies.clear();
    }

    pub(crate) fn write<E>(mut self, sink: &mut Sink<'_, E>) -> Result<RowMapRef, E> {
        self.end_run();
        let mut bytes = Vec::new();
        let rows = self.runs.last().map_or(0, |run| run.rows.end);
        let groups = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        let end = [rows, 0, 0, 0, groups];
        let fields = |run: &Run| {
            [
                run.rows.start,
                run.lead,
                run.first_body,
                run.last_body,
                run.group,
            ]
        };
        for run in self.runs.iter().map(fields).chain([end]) {
            for field in run {
                bytes.extend_from_slice(&field.to_le_bytes());
            }
        }
        let runs_bytes = sink.push(&bytes)?;
        bytes.clear();
        for (base, start, width) in &self.groups {
            bytes.extend_from_slice(&base.to_le_bytes());
            bytes.extend_from_slice(&start.to_le_bytes());
            bytes.push(*width);
        }
        let groups_bytes = sink.push(&bytes)?;
        let data_bytes = sink.push(&self.data)?;
        Ok(RowMapRef {
            runs_bytes,
            runs: u32::try_from(self.runs.len()).unwrap_or(u32::MAX),
            leads_rise: self.runs.is_sorted_by(|a, b| a.lead <= b.lead),
            groups_bytes,
            data_bytes,
        })
    }
}

/// A map that can be read.
#[derive(Debug)]
pub(crate) struct RowMap<'a, S> {
    index: Region<'a, S>,
    at: RowMapRef,
    rows: u32,
}

impl<S> Clone for RowMap<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for RowMap<'_, S> {}

/// The `index`-th of numbers that stand one behind the other.
fn u32_field(bytes: &[u8], index: usize) -> u32 {
    let four = bytes.get(4 * index..).and_then(|rest| rest.first_chunk());
    four.map_or(0, |four| u32::from_le_bytes(*four))
}

/// Bodies of rows that stand together.
#[derive(Debug)]
struct Group<'a> {
    rows: Range<u32>,
    base: u32,
    width: u8,
    bytes: Cow<'a, [u8]>,
}

impl Group<'_> {
    fn body(&self, row: u32) -> u32 {
        let index = row.wrapping_sub(self.rows.start);
        let above = if self.width == 0 {
            0
        } else {
            unpack(&self.bytes, self.width, index as usize)
        };
        let above = u32::try_from(above).unwrap_or(u32::MAX);
        self.base.wrapping_add(index).wrapping_add(above)
    }
}

impl<'a, S: Source> RowMap<'a, S> {
    pub(crate) fn new(index: Region<'a, S>, at: RowMapRef, rows: u32) -> Self {
        Self { index, at, rows }
    }

    /// Whether a row is its own body.
    pub(crate) fn is_identity(self) -> bool {
        self.at.runs == 0
    }

    pub(crate) fn runs(self) -> u32 {
        self.at.runs
    }

    pub(crate) fn leads_rise(self) -> bool {
        self.at.leads_rise
    }

    pub(crate) fn run(self, index: u32) -> Result<Run, Error<S::Error>> {
        if index >= self.at.runs {
            return Err(self.damaged("a run beyond the table"));
        }
        let start = self
            .at
            .runs_bytes
            .saturating_add(u64::from(index) * RUN_BYTES);
        let bytes = self
            .index
            .read(start..start.saturating_add(2 * RUN_BYTES))?;
        let field = |index: usize| u32_field(&bytes, index);
        let run = Run {
            rows: field(0)..field(5),
            lead: field(1),
            first_body: field(2),
            last_body: field(3),
            group: field(4),
        };
        let span = run.last_body.checked_sub(run.first_body);
        let is_sound = run.rows.start < run.rows.end
            && run.rows.end <= self.rows
            && span.is_some_and(|span| u64::from(span) + 1 >= run.rows.len() as u64);
        if !is_sound {
            return Err(self.damaged("runs do not follow each other"));
        }
        Ok(run)
    }

    /// The run of a row.
    pub(crate) fn run_of(self, row: u32) -> Result<Run, Error<S::Error>> {
        let (mut low, mut high) = (0, self.at.runs);
        while low < high {
            let middle = low + (high - low) / 2;
            let run = self.run(middle)?;
            if run.rows.contains(&row) {
                return Ok(run);
            }
            if run.rows.start <= row {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Err(self.damaged("a row in no run"))
    }

    /// The first run from which on leads are not below a code. Asks for leads that rise.
    pub(crate) fn first_run(self, lead: u32) -> Result<u32, Error<S::Error>> {
        let (mut low, mut high) = (0, self.at.runs);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.run(middle)?.lead < lead {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn group(self, run: &Run, index: u32) -> Result<Group<'a>, Error<S::Error>> {
        let number = u64::from(run.group) + u64::from(index);
        let start = self.at.groups_bytes.saturating_add(number * GROUP_BYTES);
        let bytes = self.index.read(start..start.saturating_add(GROUP_BYTES))?;
        let (base, start) = (u32_field(&bytes, 0), u32_field(&bytes, 1));
        let width = bytes.last().copied();
        let first = index
            .checked_mul(GROUP_ROWS)
            .and_then(|first| run.rows.start.checked_add(first))
            .filter(|first| *first < run.rows.end);
        let (Some(width @ 0..=32), Some(first)) = (width, first) else {
            return Err(self.damaged("groups do not follow each other"));
        };
        let rows = first..first.saturating_add(GROUP_ROWS).min(run.rows.end);
        let start = self.at.data_bytes.saturating_add(u64::from(start));
        let len = packed_len(rows.len() as u64, width);
        Ok(Group {
            rows,
            base,
            width,
            bytes: self.index.read(start..start.saturating_add(len))?,
        })
    }

    /// The row of a run that has a body.
    pub(crate) fn row_of(self, run: &Run, body: u32) -> Result<Option<u32>, Error<S::Error>> {
        if body < run.first_body || body > run.last_body {
            return Ok(None);
        }
        if run.is_whole() {
            return Ok(Some(run.rows.start + (body - run.first_body)));
        }
        let groups = u32::try_from(run.rows.len())
            .unwrap_or(u32::MAX)
            .div_ceil(GROUP_ROWS);
        let (mut low, mut high) = (0, groups);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.group(run, middle)?.base <= body {
                low = middle;
            } else {
                high = middle;
            }
        }
        let group = self.group(run, low)?;
        let mut rows = group.rows.clone();
        while rows.start < rows.end {
            let middle = rows.start + (rows.end - rows.start) / 2;
            match group.body(middle).cmp(&body) {
                std::cmp::Ordering::Equal => return Ok(Some(middle)),
                std::cmp::Ordering::Less => rows.start = middle + 1,
                std::cmp::Ordering::Greater => rows.end = middle,
            }
        }
        Ok(None)
    }

    /// Every row of a part of a run with its body.
    pub(crate) fn each(
        self,
        run: &Run,
        rows: Range<u32>,
        mut each: impl FnMut(u32, u32),
    ) -> Result<(), Error<S::Error>> {
        let rows = rows.start.max(run.rows.start)..rows.end.min(run.rows.end);
        if run.is_whole() {
            for row in rows {
                each(row, run.first_body + (row - run.rows.start));
            }
            return Ok(());
        }
        let mut next = rows.start;
        while next < rows.end {
            let group = self.group(run, (next - run.rows.start) / GROUP_ROWS)?;
            let end = group.rows.end.min(rows.end);
            for row in next..end {
                each(row, group.body(row));
            }
            next = end;
        }
        Ok(())
    }

    fn damaged(self, reason: &'static str) -> Error<S::Error> {
        self.index.damaged(self.at.runs_bytes, reason)
    }
}

/// Finds the bodies of rows; rows that rise are cheap.
#[derive(Debug)]
pub(crate) struct BodyCursor<'a, S> {
    map: RowMap<'a, S>,
    run: Option<Run>,
    group: Option<Group<'a>>,
}

impl<'a, S: Source> BodyCursor<'a, S> {
    pub(crate) fn new(map: RowMap<'a, S>) -> Self {
        Self {
            map,
            run: None,
            group: None,
        }
    }

    /// Lead and body of a row.
    pub(crate) fn seek(&mut self, row: u32) -> Result<(u32, u32), Error<S::Error>> {
        if row >= self.map.rows {
            return Err(self.map.damaged("a row beyond the block"));
        }
        if self.map.is_identity() {
            return Ok((0, row));
        }
        let run = match self.run.take() {
            Some(run) if run.rows.contains(&row) => run,
            _ => self.map.run_of(row)?,
        };
        let run = self.run.insert(run);
        if run.is_whole() {
            return Ok((run.lead, run.first_body + (row - run.rows.start)));
        }
        let group = match self.group.take() {
            Some(group) if group.rows.contains(&row) => group,
            _ => self.map.group(run, (row - run.rows.start) / GROUP_ROWS)?,
        };
        let group = self.group.insert(group);
        Ok((run.lead, group.body(row)))
    }
}
