//! One number for each of many rows, read at random: the codes of one label.
//!
//! Rows are cut into groups. A group is bit-packed against its least number; groups that hold one
//! same number are told once, however many there are. Since rows are sorted, most are. The bytes:
//! `docs/formats/series-index.md`.

use std::borrow::Cow;
use std::ops::Range;

use super::Source;
use super::error::Error;
use super::packed::{pack, packed_len, unpack, unpack_range, width_of};
use super::region::Region;
use super::sink::Sink;

/// Rows of a group.
pub(crate) const GROUP_ROWS: u32 = 1024;
/// Bytes of a full group for each bit of its width.
const UNIT_BYTES: u64 = GROUP_ROWS as u64 / 8;
/// Bytes of an entry of a column's table.
const ENTRY_BYTES: u64 = 12;

/// Where a column lies in the index part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ColumnRef {
    /// Its table: one entry for each group or run of equal groups, then a last one for the end.
    pub(crate) table_bytes: u64,
    /// Entries, without the last one.
    pub(crate) entries: u32,
    /// The packed groups.
    pub(crate) data_bytes: u64,
}

/// From `group` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    group: u32,
    /// The least number.
    base: u32,
    /// Start of the packed group in units. The next entry's start tells the width.
    units: u32,
}

impl Entry {
    const END: Self = Self {
        group: 0,
        base: 0,
        units: 0,
    };

    fn encode(self, out: &mut Vec<u8>) {
        for field in [self.group, self.base, self.units] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let field = |index: usize| {
            let four = bytes.get(4 * index..)?.first_chunk::<4>()?;
            Some(u32::from_le_bytes(*four))
        };
        Some(Self {
            group: field(0)?,
            base: field(1)?,
            units: field(2)?,
        })
    }
}

/// Takes the numbers of rising rows. Rows that are left out have 0.
#[derive(Debug, Default)]
pub(crate) struct ColumnWriter {
    entries: Vec<Entry>,
    data: Vec<u8>,
    units: u32,
    /// Numbers of the group that the next row belongs to, up to that row.
    group: Vec<u32>,
    /// The first row of `group`.
    first_row: u32,
}

impl ColumnWriter {
    pub(crate) fn push(&mut self, row: u32, number: u32) {
        self.fill_to(row);
        self.group.push(number);
        if self.group.len() == GROUP_ROWS as usize {
            self.end_group();
        }
    }

    /// Zeros up to a row.
    fn fill_to(&mut self, row: u32) {
        let mut next = self.first_row + u32::try_from(self.group.len()).unwrap_or(u32::MAX);
        while next < row {
            if self.group.is_empty() && row - next >= GROUP_ROWS {
                // Whole groups of zeros.
                let groups = (row - next) / GROUP_ROWS;
                self.constant(next / GROUP_ROWS, 0);
                self.first_row += groups * GROUP_ROWS;
                next = self.first_row;
                continue;
            }
            let end = row.min(self.first_row + GROUP_ROWS);
            self.group.resize((end - self.first_row) as usize, 0);
            if end == self.first_row + GROUP_ROWS {
                self.end_group();
            }
            next = end;
        }
    }

    fn constant(&mut self, group: u32, number: u32) {
        let is_same = self
            .entries
            .last()
            .is_some_and(|last| last.units == self.units && last.base == number);
        if !is_same {
            self.entries.push(Entry {
                group,
                base: number,
                units: self.units,
            });
        }
    }

    fn end_group(&mut self) {
        let group = self.first_row / GROUP_ROWS;
        let min = self.group.iter().copied().min().unwrap_or_default();
        let max = self.group.iter().copied().max().unwrap_or_default();
        let width = width_of(u64::from(max - min));
        if width == 0 {
            self.constant(group, min);
        } else {
            self.entries.push(Entry {
                group,
                base: min,
                units: self.units,
            });
            let above = self.group.iter().map(|number| u64::from(number - min));
            pack(above, width, &mut self.data);
            self.units += u32::from(width);
        }
        self.first_row += u32::try_from(self.group.len()).unwrap_or(u32::MAX);
        self.group.clear();
    }

    /// The numbers pushed are those of the first of `rows` rows.
    pub(crate) fn finish(mut self, rows: u32) -> FinishedColumn {
        self.fill_to(rows);
        if !self.group.is_empty() {
            self.end_group();
        }
        let end = Entry {
            group: rows.div_ceil(GROUP_ROWS),
            base: 0,
            units: self.units,
        };
        self.entries.push(end);
        FinishedColumn {
            entries: self.entries,
            data: self.data,
            rows,
        }
    }
}

/// A column's bytes.
#[derive(Debug)]
pub(crate) struct FinishedColumn {
    /// With the last one for the end.
    entries: Vec<Entry>,
    data: Vec<u8>,
    rows: u32,
}

impl FinishedColumn {
    /// A column of numbers that are all at hand.
    pub(crate) fn of(numbers: impl IntoIterator<Item = u32>) -> Self {
        let mut writer = ColumnWriter::default();
        let mut rows = 0;
        for number in numbers {
            writer.push(rows, number);
            rows += 1;
        }
        writer.finish(rows)
    }

    pub(crate) fn write<E>(&self, sink: &mut Sink<'_, E>) -> Result<ColumnRef, E> {
        let mut table = Vec::new();
        self.entries
            .iter()
            .for_each(|entry| entry.encode(&mut table));
        let table_bytes = sink.push(&table)?;
        let data_bytes = sink.push(&self.data)?;
        Ok(ColumnRef {
            table_bytes,
            entries: u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX),
            data_bytes,
        })
    }

    /// Every group.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.entries.windows(2).map(|pair| {
            let (entry, next) = match pair {
                [entry, next] => (*entry, *next),
                _ => (Entry::END, Entry::END),
            };
            let start = u64::from(entry.units) * UNIT_BYTES;
            let bytes = self
                .data
                .get(usize::try_from(start).unwrap_or(usize::MAX)..);
            let end = (u64::from(next.group) * u64::from(GROUP_ROWS)).min(u64::from(self.rows));
            Group {
                rows: entry.group * GROUP_ROWS..u32::try_from(end).unwrap_or(u32::MAX),
                base: entry.base,
                width: u8::try_from(next.units - entry.units).unwrap_or(0),
                bytes: Cow::Borrowed(bytes.unwrap_or_default()),
                start_bytes: 0,
            }
        })
    }
}

/// A column that can be read. Rows that rise are cheap: the last group is kept.
#[derive(Debug)]
pub(crate) struct Column<'a, S> {
    index: Region<'a, S>,
    at: ColumnRef,
    rows: u32,
    group: Group<'a>,
}

/// Rows whose numbers are packed in one width, or all the same.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) rows: Range<u32>,
    pub(crate) base: u32,
    width: u8,
    /// Empty until the numbers are asked for.
    bytes: Cow<'a, [u8]>,
    /// Where the bytes start in the part.
    start_bytes: u64,
}

impl Group<'_> {
    /// The number of all rows, if they have the same.
    pub(crate) fn constant(&self) -> Option<u32> {
        (self.width == 0).then_some(self.base)
    }

    /// The most that a number may be.
    pub(crate) fn max(&self) -> u32 {
        let above = (1_u64 << self.width.min(32)) - 1;
        self.base
            .saturating_add(u32::try_from(above).unwrap_or(u32::MAX))
    }

    #[inline]
    pub(crate) fn get(&self, row: u32) -> u32 {
        if self.width == 0 {
            return self.base;
        }
        let index = row.wrapping_sub(self.rows.start) as usize;
        self.base
            .wrapping_add(low_half(unpack(&self.bytes, self.width, index)))
    }

    /// Every row with its number.
    #[inline]
    pub(crate) fn each(&self, each: impl FnMut(u32, u32)) {
        self.each_of(self.rows.clone(), each);
    }

    /// Every row of a part of the group with its number.
    #[inline]
    pub(crate) fn each_of(&self, rows: Range<u32>, mut each: impl FnMut(u32, u32)) {
        if let Some(number) = self.constant() {
            return rows.for_each(|row| each(row, number));
        }
        let first = rows.start.wrapping_sub(self.rows.start) as usize;
        let mut row = rows.start;
        unpack_range(&self.bytes, self.width, first, rows.len(), |above| {
            each(row, self.base.wrapping_add(low_half(above)));
            row += 1;
        });
    }
}

#[expect(clippy::cast_possible_truncation, reason = "widths are at most 32")]
fn low_half(number: u64) -> u32 {
    number as u32
}

impl<'a, S: Source> Column<'a, S> {
    pub(crate) fn new(index: Region<'a, S>, at: ColumnRef, rows: u32) -> Self {
        Self {
            index,
            at,
            rows,
            group: Group {
                rows: 0..0,
                base: 0,
                width: 0,
                bytes: Cow::Borrowed(&[]),
                start_bytes: 0,
            },
        }
    }

    /// The number of a row.
    #[inline]
    pub(crate) fn get(&mut self, row: u32) -> Result<u32, Error<S::Error>> {
        Ok(self.numbers_of(row)?.get(row))
    }

    /// The group of a row, to look at its bounds.
    #[inline]
    pub(crate) fn group_of(&mut self, row: u32) -> Result<&Group<'a>, Error<S::Error>> {
        if !self.group.rows.contains(&row) {
            self.group = self.read_group(row)?;
        }
        Ok(&self.group)
    }

    /// The group of a row, with its numbers.
    #[inline]
    pub(crate) fn numbers_of(&mut self, row: u32) -> Result<&Group<'a>, Error<S::Error>> {
        self.group_of(row)?;
        if self.group.width != 0 && self.group.bytes.is_empty() {
            let start = self.group.start_bytes;
            let len = packed_len(self.group.rows.len() as u64, self.group.width);
            self.group.bytes = self.index.read(start..start.saturating_add(len))?;
        }
        Ok(&self.group)
    }

    fn read_group(&self, row: u32) -> Result<Group<'a>, Error<S::Error>> {
        if row >= self.rows {
            return Err(self.damaged("a row beyond the column"));
        }
        let wanted = row / GROUP_ROWS;
        // A column without runs has the entry of a group at the group's place.
        let mut low = 0;
        let mut high = self.at.entries;
        if self.at.entries == self.rows.div_ceil(GROUP_ROWS) {
            low = wanted;
            high = wanted + 1;
        }
        let mut pair = self.entries_at(low)?;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let entries = self.entries_at(middle)?;
            if entries.0.group <= wanted {
                low = middle;
                pair = entries;
            } else {
                high = middle;
            }
        }
        let (entry, next) = pair;
        let width = next.units.wrapping_sub(entry.units);
        let groups = entry.group..next.group;
        let is_sound = groups.contains(&wanted) && width <= 32 && (width == 0 || groups.len() == 1);
        let (true, Ok(width)) = (is_sound, u8::try_from(width)) else {
            return Err(self.damaged("entries of a column's table do not follow each other"));
        };
        let first = entry.group.checked_mul(GROUP_ROWS);
        let Some(first) = first.filter(|first| *first <= row) else {
            return Err(self.damaged("a group beyond the column"));
        };
        let end = u64::from(next.group) * u64::from(GROUP_ROWS);
        let end = u32::try_from(end).unwrap_or(u32::MAX).min(self.rows);
        let rows = first..end;
        let start = u64::from(entry.units) * UNIT_BYTES;
        Ok(Group {
            rows,
            base: entry.base,
            width,
            bytes: Cow::Borrowed(&[]),
            start_bytes: self.at.data_bytes.saturating_add(start),
        })
    }

    /// An entry and the one behind it.
    fn entries_at(&self, index: u32) -> Result<(Entry, Entry), Error<S::Error>> {
        if index >= self.at.entries {
            return Err(self.damaged("a column without groups"));
        }
        let start = self
            .at
            .table_bytes
            .checked_add(u64::from(index) * ENTRY_BYTES);
        let Some((start, end)) = start.and_then(|s| Some((s, s.checked_add(2 * ENTRY_BYTES)?)))
        else {
            return Err(self.damaged("a column's table lies beyond the part"));
        };
        let bytes = self.index.read(start..end)?;
        let (first, second) = bytes.split_at_checked(12).unwrap_or_default();
        match (Entry::decode(first), Entry::decode(second)) {
            (Some(entry), Some(next)) => Ok((entry, next)),
            _ => Err(self.damaged("a column's table ends early")),
        }
    }

    fn damaged(&self, reason: &'static str) -> Error<S::Error> {
        self.index.damaged(self.at.table_bytes, reason)
    }
}
