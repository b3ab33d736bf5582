//! Where in a column the occurrences of each group of items begin.
//!
//! A column of rising integers, one for each group of items, in chunks of 1,024 so that a chunk is read
//! alone. What is read is checked against its neighbour and the number of occurrences.

use super::{
    GROUP_ITEMS,
    placed::{Fields, Place, StretchWriter, placed},
};
use crate::{
    column::integers::{self, GROUP},
    error::Error,
    span::block::column::{ColumnSource, Sink},
    varint::put_u64,
};

/// Where the begins of a column lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Begins {
    /// Of each chunk.
    chunks: Vec<Place>,
    groups: u32,
    occurrences: u32,
}

impl Begins {
    /// Writes where the occurrences of each group begin: `begins` rise, one a group.
    pub(super) fn write_column(
        begins: &[u32],
        occurrences: u32,
        sink: &mut Sink<'_>,
    ) -> Result<Self, Error> {
        let mut stretch = StretchWriter::default();
        let mut chunks = Vec::new();
        for chunk in begins.chunks(GROUP) {
            let values: Vec<i64> = chunk.iter().map(|&begin| i64::from(begin)).collect();
            let mut bytes = 0;
            let start = stretch.push(sink, |out| {
                let before = out.len();
                integers::encode_group(&values, out);
                bytes = (out.len() - before) as u64;
            })?;
            chunks.push(Place { start, bytes });
        }
        let place = stretch.finish(sink)?;
        for chunk in &mut chunks {
            chunk.start += place.start;
        }
        Ok(Self {
            chunks,
            groups: u32::try_from(begins.len()).unwrap_or(u32::MAX),
            occurrences,
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put_u64(out, u64::from(self.occurrences));
        put_u64(out, self.chunks.first().map_or(0, |chunk| chunk.start));
        for chunk in &self.chunks {
            put_u64(out, chunk.bytes);
        }
    }

    /// Reads what [`Self::write`] wrote for a table of `items`.
    pub(super) fn read(input: &mut Fields<'_>, items: u32) -> Result<Self, Error> {
        let occurrences = input.number_to(u32::MAX, "a column has too many occurrences")?;
        let mut start = input.number()?;
        let groups = items.div_ceil(GROUP_ITEMS);
        let mut chunks = Vec::new();
        for _ in 0..(groups as usize).div_ceil(GROUP) {
            let bytes = input.number()?;
            chunks.push(Place { start, bytes });
            start = start
                .checked_add(bytes)
                .ok_or_else(|| input.damaged("a chunk of begins ends nowhere"))?;
        }
        Ok(Self {
            chunks,
            groups,
            occurrences,
        })
    }

    /// Bytes in the section.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    /// Of the column.
    pub(super) fn occurrences(&self) -> u32 {
        self.occurrences
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<Place>()
    }

    /// Appends the begins of a chunk.
    fn read_chunk(
        &self,
        source: &ColumnSource,
        chunk: usize,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let place = self.chunks.get(chunk).copied().unwrap_or_default();
        let count = (self.groups as usize).saturating_sub(chunk * GROUP);
        let count = count.min(GROUP);
        let bytes = place.read(source)?;
        let mut values = [0; GROUP];
        integers::decode_group(&bytes, count, &mut values)
            .map_err(|error| placed(source, place.start, error))?;
        let mut before = 0;
        for &value in values.get(..count).unwrap_or_default() {
            let begin = u32::try_from(value).ok();
            match begin.filter(|begin| *begin >= before && *begin <= self.occurrences) {
                Some(begin) => {
                    out.push(begin);
                    before = begin;
                }
                None => {
                    return Err(
                        source.damaged(place.start, "occurrences of a column begin nowhere")
                    );
                }
            }
        }
        Ok(())
    }

    /// Where each group's occurrences begin, and the number of all behind the last.
    pub(super) fn read_all(&self, source: &ColumnSource) -> Result<Vec<u32>, Error> {
        let mut begins = Vec::new();
        for chunk in 0..self.chunks.len() {
            self.read_chunk(source, chunk, &mut begins)?;
        }
        begins.push(self.occurrences);
        if !begins.is_sorted() {
            let at = self.chunks.first().map_or(0, |chunk| chunk.start);
            return Err(source.damaged(at, "occurrences of a column begin nowhere"));
        }
        Ok(begins)
    }

    /// Where the occurrences of one group begin.
    pub(super) fn read_one(&self, source: &ColumnSource, group: u32) -> Result<u32, Error> {
        let group = group as usize;
        let mut begins = Vec::with_capacity(GROUP);
        self.read_chunk(source, group / GROUP, &mut begins)?;
        Ok(begins
            .get(group % GROUP)
            .copied()
            .unwrap_or(self.occurrences))
    }
}
