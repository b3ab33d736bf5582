//! The chunk directory: which columns make up each series. Bytes: `docs/formats/metric-block.md`,
//! "Chunks".
//!
//! A *chunk* of a block is a run of samples of one series: a time column, which other chunks may
//! share, and a value column of its own. Rows (series in the order of `Labels`) come in groups of at
//! most [`GROUP_ROWS_MAX`], each group a handful of integer columns, so that one row is found by
//! decoding one small group, and a million series of one chunk each cost a few bits apiece.
//!
//! Invariants
//! - The value columns of a group lie back to back in the order of rows, then of time; so only lengths
//!   are stored.
//! - A time column stands either in the section of shared ones, by slot, or just before its value
//!   column.

use super::{
    item::{Item, put_integers},
    row_table::RowTableWriter,
    stats::{self, ChunkStats, StatsColumns},
};
use crate::{column::ColumnError, error::Error, varint::put_u64};

/// Rows of a group at most: what one look-up decodes.
pub(super) const GROUP_ROWS_MAX: usize = 256;
/// A group ends with the row that brings it to so many chunks.
const GROUP_CHUNKS: usize = 512;
/// Chunks of one group at most, which only a single row of more than eight billion samples could
/// reach. A reader makes room for no more.
const GROUP_CHUNKS_MAX: usize = 1 << 20;

/// Where the timestamps of a chunk stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimePlace {
    /// The column of this slot of the section of shared ones.
    Shared(u32),
    /// A column of so many bytes, just before the values.
    Inline(u32),
}

impl TimePlace {
    /// As the directory's column holds it: slots from 0 on, lengths negative.
    fn code(self) -> i64 {
        match self {
            Self::Shared(number) => number.into(),
            Self::Inline(bytes) => -i64::from(bytes),
        }
    }

    fn from_code(code: i64) -> Option<Self> {
        match u32::try_from(code) {
            Ok(number) => Some(Self::Shared(number)),
            Err(_) => Some(Self::Inline(u32::try_from(code.checked_neg()?).ok()?)),
        }
    }

    /// Bytes it takes in the section of values.
    fn inline_bytes(self) -> u64 {
        match self {
            Self::Shared(_) => 0,
            Self::Inline(bytes) => bytes.into(),
        }
    }
}

/// Collects the directory while value columns are written; holds it encoded.
#[derive(Default)]
pub(super) struct DirectoryWriter {
    rows: u32,
    chunks: u64,
    /// Where the next value column will lie.
    values_end_bytes: u64,
    group: GroupColumns,
    stats: StatsColumns,
    /// Encoded groups, one behind the other.
    encoded: Vec<u8>,
    /// First row of each encoded group, and where it ends in `encoded`.
    groups: Vec<(u32, usize)>,
    scratch: Vec<u8>,
}

#[derive(Debug, Default)]
struct GroupColumns {
    first_row: u32,
    values_start_bytes: u64,
    chunks_of_rows: Vec<i64>,
    times: Vec<i64>,
    value_bytes: Vec<i64>,
    stats: Vec<Option<ChunkStats>>,
}

impl DirectoryWriter {
    /// Starts the next row, which has no chunk yet.
    pub(super) fn start_row(&mut self) {
        let full = self.group.chunks_of_rows.len() == GROUP_ROWS_MAX
            || self.group.times.len() >= GROUP_CHUNKS;
        if full {
            self.end_group();
        }
        self.group.chunks_of_rows.push(0);
        self.rows += 1;
    }

    /// Adds a chunk, later than those before, to the row started last.
    pub(super) fn push(&mut self, time: TimePlace, value_bytes: u32, stats: Option<ChunkStats>) {
        if let Some(chunks) = self.group.chunks_of_rows.last_mut() {
            *chunks += 1;
        }
        self.group.times.push(time.code());
        self.group.value_bytes.push(value_bytes.into());
        self.group.stats.push(stats);
        self.values_end_bytes += time.inline_bytes() + u64::from(value_bytes);
        self.chunks += 1;
    }

    /// Ends the group, as `bytes` bytes of something else follow in the section of values.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.end_group();
        self.values_end_bytes += bytes as u64;
        self.group.values_start_bytes = self.values_end_bytes;
    }

    /// Whether the row started last takes another chunk.
    pub(super) fn has_room(&self) -> bool {
        self.group.times.len() < GROUP_CHUNKS_MAX
    }

    /// Rows so far.
    pub(super) fn rows(&self) -> u32 {
        self.rows
    }

    /// Where the next value column, or the time column before it, will lie.
    pub(super) fn values_end_bytes(&self) -> u64 {
        self.values_end_bytes
    }

    /// Bytes held.
    pub(super) fn heap_bytes(&self) -> usize {
        self.encoded.capacity() + self.groups.capacity() * size_of::<(u32, usize)>()
    }

    /// Writes the whole section through `write`, which takes one item and says where it put it.
    pub(super) fn finish(
        mut self,
        write: &mut dyn FnMut(&[u8]) -> Result<u64, Error>,
    ) -> Result<(), Error> {
        self.end_group();
        let mut table = RowTableWriter::default();
        let mut start = 0;
        let mut end_bytes = 0;
        for &(first_row, end) in &self.groups {
            let item = self.encoded.get(start..end).unwrap_or_default();
            let offset_bytes = write(item)?;
            table.push(first_row, item.len(), offset_bytes);
            end_bytes = offset_bytes + item.len() as u64;
            start = end;
        }
        table.finish(self.rows, self.chunks, end_bytes, write)
    }

    fn end_group(&mut self) {
        let group = &mut self.group;
        if group.chunks_of_rows.is_empty() {
            return;
        }
        let out = &mut self.encoded;
        put_u64(out, group.chunks_of_rows.len() as u64);
        put_u64(out, group.times.len() as u64);
        put_u64(out, group.values_start_bytes);
        put_integers(out, &group.chunks_of_rows, &mut self.scratch);
        put_integers(out, &group.times, &mut self.scratch);
        put_integers(out, &group.value_bytes, &mut self.scratch);
        self.stats.encode(&group.stats, out);
        self.groups.push((group.first_row, out.len()));
        group.chunks_of_rows.clear();
        group.times.clear();
        group.value_bytes.clear();
        group.stats.clear();
        group.first_row = self.rows;
        group.values_start_bytes = self.values_end_bytes;
    }
}

/// A group that was decoded; its memory is used again for the next one.
#[derive(Debug, Default)]
pub(super) struct ChunkGroup {
    first_row: u32,
    /// For each row its first chunk, and one more for the end.
    row_starts: Vec<usize>,
    times: Vec<i64>,
    value_bytes: Vec<i64>,
    /// For each chunk where its columns begin, and one more for the end.
    starts_bytes: Vec<u64>,
    /// Where the statistics begin in the item.
    stats_offset_bytes: usize,
}

/// What the directory says of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChunkPlace {
    pub(super) time: TimePlace,
    /// Where the time column lies in the section of values, if it is not shared, or else the values.
    pub(super) start_bytes: u64,
    /// Where the value column lies.
    pub(super) values_bytes: std::ops::Range<u64>,
}

impl ChunkGroup {
    /// Reads a group whose first row is known from the table. `rows` and `values_len_bytes` are what
    /// the block has of both.
    pub(super) fn decode(
        &mut self,
        bytes: &[u8],
        first_row: u32,
        rows: u32,
        values_len_bytes: u64,
    ) -> Result<(), ColumnError> {
        let mut item = Item::new(bytes);
        let rows_left = rows.saturating_sub(first_row) as usize;
        let rows = item.take_count(rows_left.min(GROUP_ROWS_MAX), "too many rows in a group")?;
        let chunks = item.take_count(GROUP_CHUNKS_MAX, "too many chunks in a group")?;
        let mut start_bytes = item.take_u64()?;
        self.first_row = first_row;

        item.take_integers(rows, &mut self.value_bytes)?;
        self.row_starts.clear();
        let mut chunk = 0usize;
        for &of_row in &self.value_bytes {
            self.row_starts.push(chunk);
            let of_row = usize::try_from(of_row)
                .ok()
                .filter(|n| *n <= chunks - chunk);
            chunk += of_row.ok_or_else(|| item.damaged("more chunks in rows than in the group"))?;
        }
        self.row_starts.push(chunk);
        if chunk != chunks {
            return Err(item.damaged("fewer chunks in rows than in the group"));
        }

        item.take_integers(chunks, &mut self.times)?;
        item.take_integers(chunks, &mut self.value_bytes)?;
        self.starts_bytes.clear();
        for (&time, &bytes) in self.times.iter().zip(&self.value_bytes) {
            self.starts_bytes.push(start_bytes);
            let inline = TimePlace::from_code(time).map(TimePlace::inline_bytes);
            let end = u64::try_from(bytes)
                .ok()
                .and_then(|bytes| start_bytes.checked_add(bytes)?.checked_add(inline?))
                .filter(|end| *end <= values_len_bytes);
            start_bytes = end.ok_or_else(|| item.damaged("a chunk reaches past the values"))?;
        }
        self.starts_bytes.push(start_bytes);
        self.stats_offset_bytes = item.offset_bytes();
        Ok(())
    }

    /// Memory held.
    pub(super) fn heap_bytes(&self) -> usize {
        let words = self.row_starts.capacity() + self.times.capacity();
        (words + self.value_bytes.capacity() + self.starts_bytes.capacity()) * 8
    }

    /// The rows of the group.
    pub(super) fn rows(&self) -> std::ops::Range<u32> {
        let rows = u32::try_from(self.row_starts.len().saturating_sub(1)).unwrap_or(0);
        self.first_row..self.first_row.saturating_add(rows)
    }

    /// The chunks of a row of this group, by rising time; none for other rows.
    pub(super) fn chunks_of(&self, row: u32) -> std::ops::Range<usize> {
        let index = row.checked_sub(self.first_row).map(|i| i as usize);
        let bounds = index.and_then(|i| self.row_starts.get(i..i + 2));
        match bounds {
            Some(&[start, end]) => start..end,
            _ => 0..0,
        }
    }

    /// Where the columns of a chunk lie.
    pub(super) fn chunk(&self, index: usize) -> Option<ChunkPlace> {
        let time = TimePlace::from_code(*self.times.get(index)?)?;
        let start_bytes = *self.starts_bytes.get(index)?;
        let end_bytes = *self.starts_bytes.get(index + 1)?;
        Some(ChunkPlace {
            time,
            start_bytes,
            values_bytes: start_bytes + time.inline_bytes()..end_bytes,
        })
    }

    /// The statistics of all chunks of the group, from the bytes it was decoded of.
    pub(super) fn stats(&self, bytes: &[u8]) -> Result<Vec<Option<ChunkStats>>, ColumnError> {
        let mut item = Item::new(bytes);
        item.take_slice(self.stats_offset_bytes)?;
        stats::decode(&mut item, self.times.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "tests"
    )]

    use proptest::prelude::*;

    use super::*;

    type Chunk = (TimePlace, u32, Option<ChunkStats>);

    fn chunk() -> impl Strategy<Value = Chunk> {
        let time = prop_oneof![
            4 => (0u32..50).prop_map(TimePlace::Shared),
            1 => (1u32..70_000).prop_map(TimePlace::Inline),
        ];
        let stats = prop::option::weighted(0.3, Just(ChunkStats::of(&[1.5, 0.25, 4.0])));
        (time, 1u32..70_000, stats)
    }

    /// Groups as written, each with its first row, and the length of the values.
    fn written(rows: &[Vec<Chunk>]) -> (Vec<(u32, Vec<u8>)>, u64) {
        let mut writer = DirectoryWriter::default();
        for row in rows {
            writer.start_row();
            for (time, bytes, stats) in row {
                writer.push(*time, *bytes, *stats);
            }
        }
        writer.end_group();
        let mut groups = Vec::new();
        let mut start = 0;
        for &(first_row, end) in &writer.groups {
            groups.push((first_row, writer.encoded[start..end].to_vec()));
            start = end;
        }
        (groups, writer.values_end_bytes())
    }

    proptest! {
        #[test]
        fn groups_come_back(
            rows in prop::collection::vec(prop::collection::vec(chunk(), 0..6), 0..700),
        ) {
            let (groups, values_bytes) = written(&rows);
            let mut group = ChunkGroup::default();
            let (mut row, mut offset) = (0u32, 0u64);
            for (first_row, bytes) in &groups {
                group.decode(bytes, *first_row, rows.len() as u32, values_bytes).unwrap();
                prop_assert_eq!(group.rows().start, row);
                let stats = group.stats(bytes).unwrap();
                for of_group in group.rows() {
                    let given = &rows[of_group as usize];
                    let chunks = group.chunks_of(of_group);
                    prop_assert_eq!(chunks.len(), given.len());
                    for (index, (time, bytes, given_stats)) in chunks.zip(given) {
                        let place = group.chunk(index).unwrap();
                        prop_assert_eq!(place.time, *time);
                        prop_assert_eq!(place.start_bytes, offset);
                        offset += time.inline_bytes();
                        prop_assert_eq!(place.values_bytes.start, offset);
                        offset += u64::from(*bytes);
                        prop_assert_eq!(place.values_bytes.end, offset);
                        prop_assert_eq!(stats[index], *given_stats);
                    }
                    row += 1;
                }
            }
            prop_assert_eq!(row as usize, rows.len());
            prop_assert_eq!(offset, values_bytes);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, first_row in 0u32..300) {
            let mut group = ChunkGroup::default();
            if group.decode(&bytes, first_row, 300, 1 << 20).is_ok() {
                for row in group.rows() {
                    for index in group.chunks_of(row) {
                        prop_assert!(group.chunk(index).unwrap().values_bytes.end <= 1 << 20);
                    }
                }
                let _ = group.stats(&bytes);
            }
        }
    }

    #[test]
    fn a_million_rows_of_one_chunk_cost_a_byte_each_at_most() {
        let mut writer = DirectoryWriter::default();
        let rows = 100_000u32;
        for row in 0..rows {
            writer.start_row();
            writer.push(TimePlace::Shared(row % 10_000), 18 + row * 7919 % 8, None);
        }
        writer.end_group();
        assert!(writer.encoded.len() < rows as usize);
    }
}
