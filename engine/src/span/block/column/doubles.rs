//! Doubles in a section, in groups of 1,024 (`crate::column::values`) that are read one by one.

use super::{
    head::{HeadReader, put_unsigned},
    numbers::{GROUP_LEN, place_of, put_fixed, take_fixed},
    sink::{Gathered, Sink, write_run},
    source::ColumnSource,
};
use crate::{
    column::{
        integers::GROUP,
        values::{self, Encoder},
    },
    error::Error,
};

/// Where doubles lie in the section.
#[derive(Clone, Debug)]
pub(super) struct Doubles {
    count: u32,
    data_at: u64,
    data_bytes: u64,
    directory_at: u64,
    offset_width: u8,
}

/// The last group that was decoded.
#[derive(Debug, Default)]
pub(super) struct DoublesCursor {
    group: Option<u32>,
    values: Vec<f64>,
}

impl Doubles {
    pub(super) fn write(doubles: &[f64], sink: &mut Sink<'_>) -> Result<Self, Error> {
        let count = u32::try_from(doubles.len()).expect("a column has at most 2^32 values");
        let mut encoder = Encoder::default();
        let mut data = Gathered::default();
        let mut starts = Vec::with_capacity(doubles.len().div_ceil(GROUP));
        for group in doubles.chunks(GROUP) {
            starts.push(data.push(sink, |out| encoder.encode(group, out))?);
        }
        let (data_at, data_bytes) = data.finish(sink)?;
        let max = starts.last().copied().unwrap_or(0);
        let offset_width =
            u8::try_from((u64::BITS - max.leading_zeros()).div_ceil(8)).expect("at most eight");
        let mut directory = Vec::with_capacity(starts.len() * usize::from(offset_width));
        for start in starts {
            put_fixed(&mut directory, start, offset_width);
        }
        Ok(Self {
            count,
            data_at,
            data_bytes,
            directory_at: write_run(sink, &directory)?,
            offset_width,
        })
    }

    pub(super) fn put(&self, head: &mut Vec<u8>) {
        put_unsigned(head, u64::from(self.count));
        put_unsigned(head, self.data_at);
        put_unsigned(head, self.data_bytes);
        put_unsigned(head, self.directory_at);
        head.push(self.offset_width);
    }

    pub(super) fn take(head: &mut HeadReader<'_>) -> Result<Self, Error> {
        let doubles = Self {
            count: head.count()?,
            data_at: head.unsigned()?,
            data_bytes: head.unsigned()?,
            directory_at: head.unsigned()?,
            offset_width: head.byte()?,
        };
        if doubles.offset_width > 8 || u64::from(doubles.groups()) > doubles.data_bytes {
            return Err(head.damaged("doubles that cannot be where they are said to be"));
        }
        Ok(doubles)
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }

    fn groups(&self) -> u32 {
        self.count.div_ceil(GROUP_LEN)
    }

    #[cfg(test)]
    pub(super) fn section_bytes(&self) -> u64 {
        self.data_bytes + u64::from(self.groups()) * u64::from(self.offset_width)
    }

    #[inline]
    pub(super) fn get(
        &self,
        source: &ColumnSource,
        cursor: &mut DoublesCursor,
        index: u32,
    ) -> Result<f64, Error> {
        let (group, at) = place_of(index);
        if cursor.group != Some(group) {
            cursor.group = None;
            cursor.values.clear();
            self.decode(source, group, &mut cursor.values)?;
            cursor.group = Some(group);
        }
        let value = cursor.values.get(at).copied();
        value.ok_or_else(|| source.damaged(self.data_at, "a double beyond the last"))
    }

    /// Appends the doubles of a group.
    fn decode(&self, source: &ColumnSource, group: u32, out: &mut Vec<f64>) -> Result<(), Error> {
        let wrong = || source.damaged(self.directory_at, "a group's place is wrong");
        if group >= self.groups() {
            return Err(wrong());
        }
        let is_last = group + 1 == self.groups();
        let width = u64::from(self.offset_width);
        let at = (self.directory_at).saturating_add(u64::from(group) * width);
        let entries = source.read_at(at, if is_last { width } else { 2 * width })?;
        let mut rest = &*entries;
        let start = take_fixed(&mut rest, self.offset_width).ok_or_else(wrong)?;
        let end = if is_last {
            self.data_bytes
        } else {
            take_fixed(&mut rest, self.offset_width).ok_or_else(wrong)?
        };
        if start > end || end > self.data_bytes {
            return Err(wrong());
        }
        let before = u64::from(group) * GROUP as u64;
        let count = usize::try_from(u64::from(self.count) - before).unwrap_or(GROUP);
        let at = self.data_at.saturating_add(start);
        let bytes = source.read_at(at, end - start)?;
        values::decode(&bytes, count.min(GROUP), out)
            .map_err(|error| source.damaged(at, &error.to_string()))
    }

    /// Calls `visit` with every group's doubles and the place of its first.
    pub(super) fn each_group(
        &self,
        source: &ColumnSource,
        mut visit: impl FnMut(u32, &[f64]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut values = Vec::with_capacity(GROUP);
        for group in 0..self.groups() {
            values.clear();
            self.decode(source, group, &mut values)?;
            visit(group * GROUP_LEN, &values)?;
        }
        Ok(())
    }
}
