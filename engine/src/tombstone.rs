//! A delete as blocks see it.
//!
//! Deletes are log records first; a cut of the log moves those that blocks still need into the manifest,
//! where they stand as this module writes them. Bytes: `docs/formats/manifest.md`.

use rootline_index::Matcher;
use rootline_wal::Lsn;

use crate::{
    record::{Part, Tag, deletes},
    time::TimeRange,
    varint::{put_bytes, put_u64, take_bytes, take_u64},
};

/// Hides the samples in `range` of the series that satisfy every matcher, as far as they are older
/// than `lsn`.
#[derive(Clone, Debug)]
pub(crate) struct Tombstone {
    /// The record that deletes.
    pub(crate) lsn: Lsn,
    /// Which series.
    pub(crate) matchers: Vec<Matcher>,
    /// Which times.
    pub(crate) range: TimeRange,
}

impl Tombstone {
    /// Appends its bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.lsn.0);
        let mut delete = Vec::new();
        deletes::encode_series(&mut delete, &self.matchers, self.range);
        put_bytes(out, &delete);
    }

    /// Takes what [`encode`](Self::encode) wrote off the front of `input`. `Err` says what is wrong.
    pub(crate) fn decode(input: &mut &[u8]) -> Result<Self, String> {
        let cut = || "tombstone cut short".to_owned();
        let lsn = Lsn(take_u64(input).ok_or_else(cut)?);
        let bytes = take_bytes(input).ok_or_else(cut)?;
        let part = Part {
            tag: Tag::DeleteSeries,
            bytes,
            lsn,
        };
        match deletes::decode_series(part).map_err(|error| error.to_string())? {
            deletes::Delete::Series { matchers, range } => Ok(Self {
                lsn,
                matchers,
                range,
            }),
            deletes::Delete::Trace(_) => Err("a delete of a trace as a tombstone".to_owned()),
        }
    }
}
