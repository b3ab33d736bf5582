//! Numbers in a section, in groups of 1,024 that are read one by one.
//!
//! The groups stand end to end (`crate::column::integers`). A directory of fixed-width entries says where
//! each starts and between which bounds its numbers lie, so that one is found without the others and
//! those that cannot hold what is looked for are not decoded. Bytes: `docs/formats/attribute-column.md`.

use std::borrow::Cow;

use roaring::RoaringBitmap;

use super::{
    head::{HeadReader, put_signed, put_unsigned},
    sink::{Gathered, Sink, write_run},
    source::ColumnSource,
    wanted::{Found, Wanted},
};
use crate::{
    column::integers::{self, GROUP},
    error::Error,
};

/// Where numbers lie in the section.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    count: u32,
    data_at: u64,
    data_bytes: u64,
    directory_at: u64,
    /// The least number of all.
    floor: i64,
    widths: Widths,
}

/// Bytes of the fields of a directory's entry.
#[derive(Clone, Copy, Debug, Default)]
struct Widths {
    offset: u8,
    low: u8,
    span: u8,
}

impl Widths {
    fn entry(self) -> usize {
        usize::from(self.offset) + usize::from(self.low) + usize::from(self.span)
    }
}

/// What the directory says of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupEntry {
    start: u64,
    end: u64,
    /// The least number.
    pub(super) low: i64,
    /// The greatest number.
    pub(super) high: i64,
}

/// The directory of some numbers, at hand.
#[derive(Debug)]
pub(super) struct Directory<'a> {
    numbers: &'a Numbers,
    source: &'a ColumnSource,
    bytes: Cow<'a, [u8]>,
}

/// The last group that was decoded.
#[derive(Debug, Default)]
pub(super) struct NumbersCursor {
    group: Option<u32>,
    values: Option<Box<[i64; GROUP]>>,
}

/// Bytes that a number up to `max` needs.
fn width_of(max: u64) -> u8 {
    #[expect(clippy::cast_possible_truncation, reason = "at most eight")]
    let width = (u64::BITS - max.leading_zeros()).div_ceil(8) as u8;
    width
}

fn above(value: i64, floor: i64) -> u64 {
    value.wrapping_sub(floor).cast_unsigned()
}

/// The group that a number with this place lies in, and its place there.
#[inline]
pub(super) fn place_of(index: u32) -> (u32, usize) {
    let group = GROUP as u32;
    (index / group, (index % group) as usize)
}

impl Numbers {
    /// Writes `values`, at most `u32::MAX` of them.
    pub(super) fn write(
        values: impl ExactSizeIterator<Item = i64>,
        sink: &mut Sink<'_>,
    ) -> Result<Self, Error> {
        let count = u32::try_from(values.len()).expect("a column has at most 2^32 values");
        let mut values = values;
        let mut data = Gathered::default();
        let mut entries = Vec::with_capacity(values.len().div_ceil(GROUP));
        let mut group = [0_i64; GROUP];
        let mut left = values.len();
        while left > 0 {
            let taken = left.min(GROUP);
            let (mut low, mut high) = (i64::MAX, i64::MIN);
            for (slot, value) in group.iter_mut().take(taken).zip(&mut values) {
                *slot = value;
                low = low.min(value);
                high = high.max(value);
            }
            let group = group.get(..taken).unwrap_or_default();
            let at = data.push(sink, |out| integers::encode_group(group, out))?;
            entries.push((at, low, high));
            left -= taken;
        }
        let (data_at, data_bytes) = data.finish(sink)?;
        let floor = entries.iter().map(|entry| entry.1).min().unwrap_or(0);
        let widest = |field: &dyn Fn(&(u64, i64, i64)) -> u64| {
            width_of(entries.iter().map(field).max().unwrap_or(0))
        };
        let widths = Widths {
            offset: widest(&|entry| entry.0),
            low: widest(&|entry| above(entry.1, floor)),
            span: widest(&|entry| above(entry.2, entry.1)),
        };
        let mut directory = Vec::with_capacity(entries.len() * widths.entry());
        for (at, low, high) in entries {
            put_fixed(&mut directory, at, widths.offset);
            put_fixed(&mut directory, above(low, floor), widths.low);
            put_fixed(&mut directory, above(high, low), widths.span);
        }
        let directory_at = write_run(sink, &directory)?;
        Ok(Self {
            count,
            data_at,
            data_bytes,
            directory_at,
            floor,
            widths,
        })
    }

    /// Appends where they lie.
    pub(super) fn put(&self, head: &mut Vec<u8>) {
        put_unsigned(head, u64::from(self.count));
        put_unsigned(head, self.data_at);
        put_unsigned(head, self.data_bytes);
        put_unsigned(head, self.directory_at);
        put_signed(head, self.floor);
        head.extend_from_slice(&[self.widths.offset, self.widths.low, self.widths.span]);
    }

    /// Reads what [`Self::put`] appended.
    pub(super) fn take(head: &mut HeadReader<'_>) -> Result<Self, Error> {
        let numbers = Self {
            count: head.count()?,
            data_at: head.unsigned()?,
            data_bytes: head.unsigned()?,
            directory_at: head.unsigned()?,
            floor: head.signed()?,
            widths: Widths {
                offset: head.byte()?,
                low: head.byte()?,
                span: head.byte()?,
            },
        };
        let Widths { offset, low, span } = numbers.widths;
        // A group has a byte at least, so what is allocated for all of them is bounded by the data.
        if offset.max(low).max(span) > 8 || u64::from(numbers.groups()) > numbers.data_bytes {
            return Err(head.damaged("numbers that cannot be where they are said to be"));
        }
        Ok(numbers)
    }

    /// How many there are.
    pub(super) fn len(&self) -> u32 {
        self.count
    }

    pub(super) fn groups(&self) -> u32 {
        self.count.div_ceil(GROUP as u32)
    }

    /// Bytes in the section.
    pub(super) fn section_bytes(&self) -> u64 {
        self.data_bytes + u64::from(self.groups()) * self.widths.entry() as u64
    }

    /// How many a group has.
    pub(super) fn group_len(&self, group: u32) -> usize {
        let start = u64::from(group) * GROUP as u64;
        usize::try_from(u64::from(self.count).saturating_sub(start))
            .unwrap_or(GROUP)
            .min(GROUP)
    }

    /// Reads the directory.
    pub(super) fn directory<'a>(
        &'a self,
        source: &'a ColumnSource,
    ) -> Result<Directory<'a>, Error> {
        let bytes = u64::from(self.groups()) * self.widths.entry() as u64;
        Ok(Directory {
            numbers: self,
            source,
            bytes: source.read_at(self.directory_at, bytes)?,
        })
    }

    /// The number with this place; the group is decoded once.
    #[inline]
    pub(super) fn get(
        &self,
        source: &ColumnSource,
        cursor: &mut NumbersCursor,
        index: u32,
    ) -> Result<i64, Error> {
        let (group, at) = place_of(index);
        self.group(source, cursor, group)?
            .get(at)
            .copied()
            .ok_or_else(|| source.damaged(self.data_at, "a number beyond the last"))
    }

    /// A group's numbers.
    #[inline]
    pub(super) fn group<'c>(
        &self,
        source: &ColumnSource,
        cursor: &'c mut NumbersCursor,
        group: u32,
    ) -> Result<&'c [i64], Error> {
        if cursor.group != Some(group) {
            self.load_group(source, cursor, group)?;
        }
        let values = cursor.values.as_deref().map_or(&[][..], |values| values);
        Ok(values.get(..self.group_len(group)).unwrap_or_default())
    }

    fn load_group(
        &self,
        source: &ColumnSource,
        cursor: &mut NumbersCursor,
        group: u32,
    ) -> Result<(), Error> {
        cursor.group = None;
        if group >= self.groups() {
            return Err(source.damaged(self.directory_at, "a group beyond the last"));
        }
        let width = self.widths.entry();
        let is_last = group + 1 == self.groups();
        let entries = if is_last { 1 } else { 2 };
        let at = (self.directory_at).saturating_add(u64::from(group) * width as u64);
        let bytes = source.read_at(at, entries * width as u64)?;
        let entry = self.entry(source, &bytes, 0, is_last)?;
        let values = cursor.values.get_or_insert_with(|| Box::new([0; GROUP]));
        self.decode(source, &entry, self.group_len(group), values)?;
        cursor.group = Some(group);
        Ok(())
    }

    /// The `index`th of some entries.
    fn entry(
        &self,
        source: &ColumnSource,
        entries: &[u8],
        index: usize,
        is_last: bool,
    ) -> Result<GroupEntry, Error> {
        let Widths { offset, low, span } = self.widths;
        let mut at = entries.get(index * self.widths.entry()..).unwrap_or(&[]);
        let start = take_fixed(&mut at, offset);
        let low = take_fixed(&mut at, low).map(|low| self.floor.wrapping_add(low.cast_signed()));
        let span = take_fixed(&mut at, span);
        let end = if is_last {
            Some(self.data_bytes)
        } else {
            take_fixed(&mut at, offset)
        };
        match (start, end, low, span) {
            (Some(start), Some(end), Some(low), Some(span))
                if start <= end && end <= self.data_bytes =>
            {
                Ok(GroupEntry {
                    start,
                    end,
                    low,
                    high: low.wrapping_add(span.cast_signed()),
                })
            }
            _ => Err(source.damaged(self.directory_at, "a group's place is wrong")),
        }
    }

    fn decode(
        &self,
        source: &ColumnSource,
        entry: &GroupEntry,
        count: usize,
        out: &mut [i64; GROUP],
    ) -> Result<(), Error> {
        let at = self.data_at.saturating_add(entry.start);
        let bytes = source.read_at(at, entry.end - entry.start)?;
        match integers::decode_group(&bytes, count, out) {
            Ok(_) => Ok(()),
            Err(error) => Err(source.damaged(at, &error.to_string())),
        }
    }

    /// Appends all of them.
    pub(super) fn load(&self, source: &ColumnSource, out: &mut Vec<i64>) -> Result<(), Error> {
        let directory = self.directory(source)?;
        let mut values = Box::new([0; GROUP]);
        for group in 0..self.groups() {
            let entry = directory.entry(group)?;
            let count = self.group_len(group);
            self.decode(source, &entry, count, &mut values)?;
            out.extend_from_slice(values.get(..count).unwrap_or_default());
        }
        Ok(())
    }

    /// Calls `visit` with the place and the numbers of each group whose bounds `wanted` says yes to.
    pub(super) fn each_group(
        &self,
        source: &ColumnSource,
        mut wanted: impl FnMut(u32, &GroupEntry) -> Result<bool, Error>,
        mut visit: impl FnMut(u32, &[i64]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let directory = self.directory(source)?;
        let mut values = Box::new([0; GROUP]);
        for group in 0..self.groups() {
            let entry = directory.entry(group)?;
            if wanted(group, &entry)? {
                let count = self.group_len(group);
                self.decode(source, &entry, count, &mut values)?;
                visit(group, values.get(..count).unwrap_or_default())?;
            }
        }
        Ok(())
    }

    /// The places of those that are wanted.
    pub(super) fn find(
        &self,
        source: &ColumnSource,
        wanted: &Wanted,
        check: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<RoaringBitmap, Error> {
        let mut found = Found::default();
        let directory = self.directory(source)?;
        let mut values = Box::new([0; GROUP]);
        for group in 0..self.groups() {
            let entry = directory.entry(group)?;
            if !wanted.touches(entry.low, entry.high) {
                continue;
            }
            check()?;
            let (start, count) = (group * GROUP as u32, self.group_len(group));
            if wanted.covers(entry.low, entry.high) {
                found.push_range(start, start + count as u32);
                continue;
            }
            self.decode(source, &entry, count, &mut values)?;
            let values = values.get(..count).unwrap_or_default();
            found.push_group(group, &wanted.among(values));
        }
        Ok(found.finish())
    }

    /// How many of them are less than `bound` or, with `or_equal`, not above it. They rise.
    pub(super) fn rank(
        &self,
        source: &ColumnSource,
        cursor: &mut NumbersCursor,
        bound: i64,
        or_equal: bool,
    ) -> Result<u32, Error> {
        let is_before = |value: i64| value < bound || or_equal && value == bound;
        let directory = self.directory(source)?;
        let (mut low, mut high) = (0, self.groups());
        // The first group whose greatest number is not before the bound.
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(directory.entry(middle)?.high) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if low == self.groups() {
            return Ok(self.count);
        }
        let values = self.group(source, cursor, low)?;
        let inside = values.partition_point(|&value| is_before(value));
        #[expect(clippy::cast_possible_truncation, reason = "at most 1,024")]
        Ok(low * GROUP as u32 + inside as u32)
    }
}

impl Directory<'_> {
    pub(super) fn entry(&self, group: u32) -> Result<GroupEntry, Error> {
        let is_last = group + 1 >= self.numbers.groups();
        (self.numbers).entry(self.source, &self.bytes, group as usize, is_last)
    }
}

/// Appends the low `width` bytes.
pub(super) fn put_fixed(out: &mut Vec<u8>, value: u64, width: u8) {
    let bytes = value.to_le_bytes();
    out.extend_from_slice(bytes.get(..usize::from(width)).unwrap_or(&bytes));
}

/// Takes a number of `width` bytes, at most eight.
#[inline]
pub(super) fn take_fixed(input: &mut &[u8], width: u8) -> Option<u64> {
    let (bytes, rest) = input.split_at_checked(usize::from(width))?;
    *input = rest;
    let mut eight = [0; 8];
    eight.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(eight))
}
