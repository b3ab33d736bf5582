//! What says where everything lies: a trailer of fixed size at the end of the index part, and a
//! record of fixed size for each label name. The bytes: `docs/formats/series-index.md`.

use super::Source;
use super::column::ColumnRef;
use super::dictionary::{BLOCK_STRINGS, DictionaryRef};
use super::error::Error;
use super::packed::PackedArray;
use super::postings::PostingsRef;
use super::region::Region;
use super::row_map::RowMapRef;
use super::shapes::ShapesRef;

/// First bytes of the trailer.
const MAGIC: [u8; 4] = *b"RLSI";
/// What is written now.
const VERSION: u8 = 1;
/// Bytes of the trailer.
pub(crate) const TRAILER_BYTES: usize =
    3 * 4 + DICTIONARY_BYTES + 8 + ROW_MAP_BYTES + SHAPES_BYTES + 1 + 4;
/// Bytes of a dictionary's place.
const DICTIONARY_BYTES: usize = 4 + 8 + 8 + 1;
/// Bytes of a column's place.
const COLUMN_BYTES: usize = 8 + 4 + 8;
/// Bytes of a row map's place.
const ROW_MAP_BYTES: usize = 8 + 4 + 1 + 8 + 8;
/// Bytes of the place of shapes.
const SHAPES_BYTES: usize = COLUMN_BYTES + 2 * (8 + 4 + 1);
/// Bytes of a name's record.
pub(crate) const RECORD_BYTES: usize = DICTIONARY_BYTES + 3 * COLUMN_BYTES + 3 * 4 + 8;
/// Rows of an index at most; more are damage. Bounds what a reader allocates.
pub const ROWS_MAX: u32 = 1 << 27;

/// The end of the index part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) rows: u32,
    /// Different bodies; as many as rows if a row is its own body.
    pub(crate) bodies: u32,
    /// Code of the name of the lead label; 0 if a row is its own body.
    pub(crate) lead: u32,
    pub(crate) names: DictionaryRef,
    /// Records of the names, in order.
    pub(crate) records_bytes: u64,
    pub(crate) row_map: RowMapRef,
    pub(crate) shapes: ShapesRef,
}

/// What is known of a label name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NameRecord {
    pub(crate) values: DictionaryRef,
    /// By body, the code of its value. Unused for the lead label.
    pub(crate) column: ColumnRef,
    pub(crate) postings: PostingsRef,
    /// Bodies that carry the label.
    pub(crate) bodies: u32,
    /// Rows that carry the label.
    pub(crate) rows: u32,
    /// Bytes of all its values, each once.
    pub(crate) value_bytes: u64,
}

impl Trailer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        for number in [self.rows, self.bodies, self.lead] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        push_dictionary(&self.names, &mut out);
        out.extend_from_slice(&self.records_bytes.to_le_bytes());
        let map = &self.row_map;
        out.extend_from_slice(&map.runs_bytes.to_le_bytes());
        out.extend_from_slice(&map.runs.to_le_bytes());
        out.push(u8::from(map.leads_rise));
        out.extend_from_slice(&map.groups_bytes.to_le_bytes());
        out.extend_from_slice(&map.data_bytes.to_le_bytes());
        push_column(&self.shapes.column, &mut out);
        for array in [&self.shapes.starts, &self.shapes.names] {
            let count = u32::try_from(array.count).unwrap_or(u32::MAX);
            out.extend_from_slice(&array.offset_bytes.to_le_bytes());
            out.extend_from_slice(&count.to_le_bytes());
            out.push(array.width);
        }
        out.push(VERSION);
        out.extend_from_slice(&MAGIC);
        debug_assert_eq!(out.len(), TRAILER_BYTES);
        out
    }

    /// Reads the trailer of an index part.
    pub(crate) fn read<S: Source>(index: Region<'_, S>) -> Result<Self, Error<S::Error>> {
        let end = index.len_bytes();
        let Some(start) = end.checked_sub(TRAILER_BYTES as u64) else {
            return Err(index.damaged(0, "shorter than its trailer"));
        };
        let bytes = index.read(start..end)?;
        let (fields, kind) = bytes.split_last_chunk::<5>().unwrap_or((&[], &[0; 5]));
        let [version, magic @ ..] = *kind;
        if magic != MAGIC {
            return Err(index.damaged(start, "no trailer at its end"));
        }
        if version != VERSION {
            return Err(Error::UnknownVersion { version });
        }
        let mut fields = Fields { bytes: fields };
        let mut read = || {
            Some(Self {
                rows: fields.u32()?,
                bodies: fields.u32()?,
                lead: fields.u32()?,
                names: fields.dictionary()?,
                records_bytes: fields.u64()?,
                row_map: fields.row_map()?,
                shapes: fields.shapes()?,
            })
        };
        let Some(trailer) = read() else {
            return Err(index.damaged(start, "its trailer ends early"));
        };
        let is_identity = trailer.row_map.runs == 0;
        let is_sound = trailer.rows <= ROWS_MAX
            && trailer.bodies <= trailer.rows
            && trailer.shapes.starts.count <= u64::from(trailer.bodies) + 1
            && trailer.lead <= trailer.names.count
            && is_identity == (trailer.lead == 0)
            && (!is_identity || trailer.bodies == trailer.rows);
        if !is_sound {
            return Err(index.damaged(start, "counts that do not go together"));
        }
        Ok(trailer)
    }
}

impl NameRecord {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        push_dictionary(&self.values, out);
        push_column(&self.column, out);
        push_column(&self.postings.starts, out);
        push_column(&self.postings.bodies, out);
        for number in [self.postings.listed, self.bodies, self.rows] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.value_bytes.to_le_bytes());
    }

    /// Reads the record of the name with a code.
    pub(crate) fn read<S: Source>(
        index: Region<'_, S>,
        trailer: &Trailer,
        code: u32,
    ) -> Result<Self, Error<S::Error>> {
        let at = u64::from(code.wrapping_sub(1)) * RECORD_BYTES as u64;
        let start = trailer.records_bytes.saturating_add(at);
        let bytes = index.read(start..start.saturating_add(RECORD_BYTES as u64))?;
        let mut fields = Fields { bytes: &bytes };
        let mut read = || {
            Some(Self {
                values: fields.dictionary()?,
                column: fields.column()?,
                postings: PostingsRef {
                    starts: fields.column()?,
                    bodies: fields.column()?,
                    listed: fields.u32()?,
                },
                bodies: fields.u32()?,
                rows: fields.u32()?,
                value_bytes: fields.u64()?,
            })
        };
        let record = read();
        let Some(record) = record.filter(|r| r.postings.listed <= trailer.bodies) else {
            return Err(index.damaged(start, "a malformed record of a label"));
        };
        Ok(record)
    }
}

fn push_dictionary(dictionary: &DictionaryRef, out: &mut Vec<u8>) {
    out.extend_from_slice(&dictionary.count.to_le_bytes());
    out.extend_from_slice(&dictionary.text_bytes.to_le_bytes());
    out.extend_from_slice(&dictionary.starts.offset_bytes.to_le_bytes());
    out.push(dictionary.starts.width);
}

fn push_column(column: &ColumnRef, out: &mut Vec<u8>) {
    out.extend_from_slice(&column.table_bytes.to_le_bytes());
    out.extend_from_slice(&column.entries.to_le_bytes());
    out.extend_from_slice(&column.data_bytes.to_le_bytes());
}

/// Fields of fixed size, one behind the other.
struct Fields<'b> {
    bytes: &'b [u8],
}

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn dictionary(&mut self) -> Option<DictionaryRef> {
        let count = self.u32()?;
        let text_bytes = self.u64()?;
        let offset_bytes = self.u64()?;
        let [width] = self.array()?;
        let blocks = count.div_ceil(BLOCK_STRINGS);
        Some(DictionaryRef {
            count,
            text_bytes,
            starts: PackedArray {
                offset_bytes,
                count: if blocks == 0 {
                    0
                } else {
                    u64::from(blocks) + 1
                },
                width,
            },
        })
    }

    fn column(&mut self) -> Option<ColumnRef> {
        Some(ColumnRef {
            table_bytes: self.u64()?,
            entries: self.u32()?,
            data_bytes: self.u64()?,
        })
    }

    fn row_map(&mut self) -> Option<RowMapRef> {
        Some(RowMapRef {
            runs_bytes: self.u64()?,
            runs: self.u32()?,
            leads_rise: self.array()? != [0],
            groups_bytes: self.u64()?,
            data_bytes: self.u64()?,
        })
    }

    fn packed(&mut self) -> Option<PackedArray> {
        Some(PackedArray {
            offset_bytes: self.u64()?,
            count: u64::from(self.u32()?),
            width: u8::from_le_bytes(self.array()?),
        })
    }

    fn shapes(&mut self) -> Option<ShapesRef> {
        Some(ShapesRef {
            column: self.column()?,
            starts: self.packed()?,
            names: self.packed()?,
        })
    }
}
