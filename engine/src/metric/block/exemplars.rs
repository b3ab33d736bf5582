//! The exemplars of a block, by row. Bytes: `docs/formats/metric-block.md`, "Exemplars".
//!
//! Few series have any, so rows are listed by number. The exemplars of a row stand in the order in
//! which they arrived. Items go to the section of values while it is written, so that a writer holds one
//! at most; the section of exemplars itself is a row table.

use roaring::RoaringBitmap;
use rootline_index::Labels;

use super::{
    item::Item,
    row_table::{RowTable, RowTableWriter},
    section::SectionReader,
};
use crate::{
    column::ColumnError,
    error::Error,
    id::{SpanId, TraceId},
    metric::Exemplar,
    time::Timestamp,
    varint::{put_bytes, put_i64, put_u64, take_i64},
};

const HAS_TRACE: u8 = 1;
const HAS_SPAN: u8 = 2;

/// An item ends with the row that brings it to so many bytes.
const ITEM_BYTES: usize = 16 * 1024;

/// Collects exemplars in the order of rows.
#[derive(Debug, Default)]
pub(super) struct ExemplarsWriter {
    table: RowTableWriter,
    /// The item that is open, without the row that is open.
    item: Vec<u8>,
    /// The row that is open, its exemplars, and how many.
    row: Option<u32>,
    of_row: Vec<u8>,
    count_of_row: u64,
    previous_time: i64,
    /// First row and last row of the item that is open.
    item_rows: Option<(u32, u32)>,
    label_bytes: Vec<u8>,
    count: u64,
}

impl ExemplarsWriter {
    /// Adds an exemplar to a row, which is at or above those before.
    pub(super) fn push(&mut self, row: u32, exemplar: &Exemplar) {
        if self.row != Some(row) {
            self.end_row();
            self.row = Some(row);
        }
        self.count_of_row += 1;
        self.count += 1;
        let out = &mut self.of_row;
        let time = exemplar.time.as_nanos();
        put_i64(out, time.wrapping_sub(self.previous_time));
        self.previous_time = time;
        out.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
        let trace = exemplar.trace_id.map_or(0, |_| HAS_TRACE);
        let span = exemplar.span_id.map_or(0, |_| HAS_SPAN);
        out.push(trace | span);
        if let Some(id) = exemplar.trace_id {
            out.extend_from_slice(id.as_bytes());
        }
        if let Some(id) = exemplar.span_id {
            out.extend_from_slice(id.as_bytes());
        }
        self.label_bytes.clear();
        exemplar.labels.encode_canonical(&mut self.label_bytes);
        put_bytes(out, &self.label_bytes);
    }

    /// Exemplars so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Bytes held.
    pub(super) fn heap_bytes(&self) -> usize {
        self.item.capacity() + self.of_row.capacity() + self.table.heap_bytes()
    }

    /// The item that is large enough to be written, or whatever there is if `all`: its bytes, to be
    /// given back by [`written`](Self::written). No more exemplars come for the rows before.
    pub(super) fn take_item(&mut self, all: bool) -> Option<Vec<u8>> {
        if self.item.len() + self.of_row.len() < ITEM_BYTES && !all {
            return None;
        }
        self.end_row();
        (!self.item.is_empty()).then(|| std::mem::take(&mut self.item))
    }

    /// Says where the item taken last was written.
    pub(super) fn written(&mut self, mut item: Vec<u8>, offset_bytes: u64) {
        if let Some((first, _)) = self.item_rows.take() {
            self.table.push(first, item.len(), offset_bytes);
        }
        item.clear();
        self.item = item;
    }

    /// Writes the section through `write`, which takes one item and says where it put it.
    pub(super) fn finish(
        self,
        rows: u32,
        write: &mut dyn FnMut(&[u8]) -> Result<u64, Error>,
    ) -> Result<(), Error> {
        self.table.finish(rows, self.count, 0, write)
    }

    fn end_row(&mut self) {
        let Some(row) = self.row.take() else { return };
        // The first row of an item is known from the table.
        let (first, last) = self.item_rows.unwrap_or((row, row));
        self.item_rows = Some((first, row));
        put_u64(&mut self.item, (row - last).into());
        put_u64(&mut self.item, self.count_of_row);
        put_u64(&mut self.item, self.of_row.len() as u64);
        self.item.extend_from_slice(&self.of_row);
        self.of_row.clear();
        self.count_of_row = 0;
        self.previous_time = 0;
    }
}

/// The exemplars of a row, in order of arrival.
pub(super) fn read(
    section: &SectionReader<'_>,
    values: &SectionReader<'_>,
    table: &RowTable,
    row: u32,
) -> Result<Vec<Exemplar>, Error> {
    let Some(item) = table.find(section, row)? else {
        return Ok(Vec::new());
    };
    let bytes = values.bytes(item.bytes.clone())?;
    let found = find_row(&bytes, item.first_row, row);
    values.placed(item.bytes.start, found)
}

/// Adds the rows of an item to `out`.
pub(super) fn rows(
    bytes: &[u8],
    first_row: u32,
    out: &mut RoaringBitmap,
) -> Result<(), ColumnError> {
    let mut item = Item::new(bytes);
    let mut at = u64::from(first_row);
    while !item.is_at_end() {
        at = at.saturating_add(item.take_u64()?);
        item.take_u64()?;
        item.take_bytes()?;
        // A row past the block's is no series' either.
        if let Ok(row) = u32::try_from(at) {
            out.insert(row);
        }
    }
    Ok(())
}

/// Looks for a row in an item and reads its list.
fn find_row(bytes: &[u8], first_row: u32, row: u32) -> Result<Vec<Exemplar>, ColumnError> {
    let mut item = Item::new(bytes);
    let mut at = u64::from(first_row);
    while !item.is_at_end() {
        at = at.saturating_add(item.take_u64()?);
        let count = item.take_u64()?;
        let start_bytes = item.offset_bytes();
        let list = item.take_bytes()?;
        if at < u64::from(row) {
            continue;
        }
        if at > u64::from(row) {
            break;
        }
        let exemplars = decode_list(list);
        let is_whole = exemplars
            .as_ref()
            .is_some_and(|list| list.len() as u64 == count);
        return match exemplars {
            Some(exemplars) if is_whole => Ok(exemplars),
            _ => Err(ColumnError::Damaged {
                offset_bytes: start_bytes,
                reason: "the exemplars of a series do not decode",
            }),
        };
    }
    Ok(Vec::new())
}

/// All exemplars of a list; its length bounds their number.
fn decode_list(mut list: &[u8]) -> Option<Vec<Exemplar>> {
    let mut out = Vec::new();
    let mut previous_time = 0i64;
    while !list.is_empty() {
        previous_time = previous_time.wrapping_add(take_i64(&mut list)?);
        let mut item = Item::new(list);
        let exemplar = take_exemplar(&mut item, previous_time)?;
        list = list.get(item.offset_bytes()..)?;
        out.push(exemplar);
    }
    Some(out)
}

fn take_exemplar(item: &mut Item<'_>, time_ns: i64) -> Option<Exemplar> {
    let bits = u64::from_le_bytes(item.take_slice(8).ok()?.try_into().ok()?);
    let flags = item.take_u8().ok()?;
    if flags & !(HAS_TRACE | HAS_SPAN) != 0 {
        return None;
    }
    let trace_id = match flags & HAS_TRACE {
        0 => None,
        _ => Some(TraceId::from_slice(item.take_slice(16).ok()?)?),
    };
    let span_id = match flags & HAS_SPAN {
        0 => None,
        _ => Some(SpanId::from_slice(item.take_slice(8).ok()?)?),
    };
    Some(Exemplar {
        time: Timestamp::from_nanos(time_ns),
        value: f64::from_bits(bits),
        trace_id,
        span_id,
        labels: Labels::decode_canonical(item.take_bytes().ok()?).ok()?,
    })
}
