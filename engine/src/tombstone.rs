//! Deletes as blocks see them.
//!
//! Deletes are log records first; a cut of the log moves those that blocks still need into the manifest,
//! where they stand as this module writes them. Bytes: `docs/formats/manifest.md`.

use rootline_index::Matcher;
use rootline_wal::Lsn;

use crate::{
    id::TraceId,
    record::{Part, Tag, deletes},
    span::SpanFilter,
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
            _ => Err("a delete of spans as a tombstone of series".to_owned()),
        }
    }
}

/// Which spans a delete hides.
#[derive(Clone, Debug)]
pub(crate) enum SpanDelete {
    /// All of one trace.
    Trace(TraceId),
    /// Those that match.
    Matching(SpanFilter),
}

/// Hides spans, as far as they are older than `lsn`.
#[derive(Clone, Debug)]
pub(crate) struct SpanTombstone {
    /// The record that deletes.
    pub(crate) lsn: Lsn,
    /// Which spans.
    pub(crate) delete: SpanDelete,
}

impl SpanTombstone {
    /// Of a delete that concerns spans.
    pub(crate) fn of(lsn: Lsn, delete: &deletes::Delete) -> Option<Self> {
        let delete = match delete {
            deletes::Delete::Series { .. } => return None,
            deletes::Delete::Trace(id) => SpanDelete::Trace(*id),
            deletes::Delete::Spans(filter) => SpanDelete::Matching(filter.clone()),
        };
        Some(Self { lsn, delete })
    }

    /// Appends its bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.lsn.0);
        let mut delete = Vec::new();
        match &self.delete {
            SpanDelete::Trace(id) => {
                out.push(Tag::DeleteTrace as u8);
                delete.extend_from_slice(id.as_bytes());
            }
            SpanDelete::Matching(filter) => {
                out.push(Tag::DeleteSpans as u8);
                deletes::encode_spans(&mut delete, filter);
            }
        }
        put_bytes(out, &delete);
    }

    /// Takes what [`encode`](Self::encode) wrote off the front of `input`. `Err` says what is wrong.
    pub(crate) fn decode(input: &mut &[u8]) -> Result<Self, String> {
        let cut = || "tombstone of spans cut short".to_owned();
        let lsn = Lsn(take_u64(input).ok_or_else(cut)?);
        let (&tag, rest) = input.split_first().ok_or_else(cut)?;
        *input = rest;
        let bytes = take_bytes(input).ok_or_else(cut)?;
        let part = |tag| Part { tag, bytes, lsn };
        let delete = match tag {
            tag if tag == Tag::DeleteTrace as u8 => deletes::decode_trace(part(Tag::DeleteTrace)),
            tag if tag == Tag::DeleteSpans as u8 => deletes::decode_spans(part(Tag::DeleteSpans)),
            other => return Err(format!("tombstone of spans of kind {other}")),
        };
        let delete = delete.map_err(|error| error.to_string())?;
        Self::of(lsn, &delete).ok_or_else(cut)
    }
}
