//! What says where everything lies: a trailer of fixed size at the end of the index part, and a
//! record of fixed size for each label name. The bytes: `docs/formats/series-index.md`.

use super::Source;
use super::column::ColumnRef;
use super::dictionary::{BLOCK_STRINGS, DictionaryRef};
use super::error::Error;
use super::packed::PackedArray;
use super::region::Region;

/// First bytes of the trailer.
const MAGIC: [u8; 4] = *b"RLSI";
/// What is written now.
const VERSION: u8 = 1;
/// Bytes of the trailer.
pub(crate) const TRAILER_BYTES: usize = 4 + 1 + 4 + DICTIONARY_BYTES + 8;
/// Bytes of a dictionary's place.
const DICTIONARY_BYTES: usize = 4 + 8 + 8 + 1;
/// Bytes of a column's place.
const COLUMN_BYTES: usize = 8 + 4 + 8;
/// Bytes of a name's record.
pub(crate) const RECORD_BYTES: usize = DICTIONARY_BYTES + COLUMN_BYTES + 4 + 8;

/// The end of the index part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) rows: u32,
    pub(crate) names: DictionaryRef,
    /// Records of the names, in order.
    pub(crate) records_bytes: u64,
}

/// What is known of a label name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameRecord {
    pub(crate) values: DictionaryRef,
    pub(crate) column: ColumnRef,
    /// Rows that carry the label.
    pub(crate) rows: u32,
    /// Bytes of all its values, each once.
    pub(crate) value_bytes: u64,
}

impl Trailer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.rows.to_le_bytes());
        push_dictionary(&self.names, &mut out);
        out.extend_from_slice(&self.records_bytes.to_le_bytes());
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
        let mut fields = Fields { bytes: &bytes };
        let mut read = || {
            let magic = fields.array()?;
            let [version] = fields.array()?;
            Some((magic, version))
        };
        let (magic, version): ([u8; 4], u8) = read().unwrap_or_default();
        if magic != MAGIC {
            return Err(index.damaged(start, "no trailer at its end"));
        }
        if version != VERSION {
            return Err(Error::UnknownVersion { version });
        }
        let mut read = || {
            Some(Self {
                rows: fields.u32()?,
                names: fields.dictionary()?,
                records_bytes: fields.u64()?,
            })
        };
        read().ok_or_else(|| index.damaged(start, "its trailer ends early"))
    }
}

impl NameRecord {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        push_dictionary(&self.values, out);
        push_column(&self.column, out);
        out.extend_from_slice(&self.rows.to_le_bytes());
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
                rows: fields.u32()?,
                value_bytes: fields.u64()?,
            })
        };
        read().ok_or_else(|| index.damaged(start, "the record of a label ends early"))
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
}
