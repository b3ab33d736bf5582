//! A batch as one log record: a version byte, then tagged parts. Bytes: `docs/formats/batch-record.md`.
//!
//! Invariants
//! - A record is self-contained but for series: it defines every series it uses that was not known
//!   to be durable when it was written. Spans carry their own dictionaries.
//! - A reader refuses a version or a part it does not know; it never skips one.
//! - Parts of one kind occur at most once, deletes excepted.

pub(crate) mod definitions;
pub(crate) mod deletes;
pub(crate) mod exemplars;
pub(crate) mod metadata;
pub(crate) mod samples;
pub(crate) mod spans;

use rootline_wal::Lsn;

use crate::error::Error;

/// Kind of log record that holds a batch.
pub(crate) const KIND_BATCH: u8 = 1;
/// Version of the batch record's layout.
pub(crate) const VERSION: u8 = 1;

/// What a part of a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// Series definitions: reference and labels.
    Definitions = 1,
    /// Samples by series reference.
    Samples = 2,
    /// Exemplars by series reference.
    Exemplars = 3,
    /// Metadata by metric name.
    Metadata = 4,
    /// Spans with their dictionaries.
    Spans = 5,
    /// A delete of series by matchers and range.
    DeleteSeries = 6,
    /// A delete of one trace.
    DeleteTrace = 7,
    /// A delete of the spans that match a filter.
    DeleteSpans = 8,
}

impl Tag {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Definitions,
            2 => Self::Samples,
            3 => Self::Exemplars,
            4 => Self::Metadata,
            5 => Self::Spans,
            6 => Self::DeleteSeries,
            7 => Self::DeleteTrace,
            8 => Self::DeleteSpans,
            _ => return None,
        })
    }
}

/// Encodes the parts of one record into a buffer that is reused from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct RecordWriter {
    buffer: Vec<u8>,
}

impl RecordWriter {
    /// Forgets what was written, keeps the room.
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
    }

    /// Writes one part; `encode` appends its bytes. A part that stays empty is left out.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`] past 4 GiB in one part.
    pub(crate) fn part(
        &mut self,
        tag: Tag,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Error> {
        if self.buffer.is_empty() {
            self.buffer.push(VERSION);
        }
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[tag as u8, 0, 0, 0, 0]);
        let body = self.buffer.len();
        encode(&mut self.buffer);
        let bytes = self.buffer.len() - body;
        if bytes == 0 {
            self.buffer.truncate(start);
            return Ok(());
        }
        let length = u32::try_from(bytes).map_err(|_| Error::BatchTooLarge {
            bytes: bytes as u64,
            max_bytes: u64::from(u32::MAX),
        })?;
        if let Some(field) = self.buffer.get_mut(start + 1..body) {
            field.copy_from_slice(&length.to_le_bytes());
        }
        Ok(())
    }

    /// The record's payload; empty or a lone version byte if nothing was written.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.buffer
    }

    /// Bytes of room held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Whether no part was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.len() <= 1
    }
}

/// One part of a record being read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    /// What it holds.
    pub(crate) tag: Tag,
    /// Its bytes, checked by the log's checksum.
    pub(crate) bytes: &'a [u8],
    /// The record it is in.
    pub(crate) lsn: Lsn,
}

impl Part<'_> {
    /// The error for bytes that do not decode.
    pub(crate) fn corrupt(&self, reason: impl Into<String>) -> Error {
        Error::CorruptRecord {
            lsn: self.lsn.0,
            reason: reason.into(),
        }
    }
}

/// Reads the parts of a payload in order.
///
/// # Errors
/// [`Error::UnknownRecord`] for a version or part of a newer release, [`Error::CorruptRecord`] for
/// lengths that do not add up. The first error ends the iteration.
pub(crate) fn parts(lsn: Lsn, payload: &[u8]) -> impl Iterator<Item = Result<Part<'_>, Error>> {
    let mut rest = payload;
    let mut state = State::Version;
    std::iter::from_fn(move || {
        if state == State::Version {
            state = State::Parts;
            match rest.split_first() {
                Some((&VERSION, tail)) => rest = tail,
                Some((&found, _)) => {
                    state = State::Done;
                    return Some(Err(Error::UnknownRecord {
                        lsn: lsn.0,
                        what: "version",
                        found: found.into(),
                    }));
                }
                None => state = State::Done,
            }
        }
        if state == State::Done || rest.is_empty() {
            return None;
        }
        let part = next_part(lsn, &mut rest);
        if part.is_err() {
            state = State::Done;
        }
        Some(part)
    })
}

#[derive(PartialEq, Eq)]
enum State {
    Version,
    Parts,
    Done,
}

fn next_part<'a>(lsn: Lsn, rest: &mut &'a [u8]) -> Result<Part<'a>, Error> {
    let cut = |reason: &str| Error::CorruptRecord {
        lsn: lsn.0,
        reason: reason.to_owned(),
    };
    let (header, tail) = rest
        .split_first_chunk::<5>()
        .ok_or_else(|| cut("part header cut short"))?;
    let [tag, length @ ..] = *header;
    let tag = Tag::from_byte(tag).ok_or(Error::UnknownRecord {
        lsn: lsn.0,
        what: "part",
        found: tag.into(),
    })?;
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(|_| cut("part length"))?;
    let (bytes, tail) = tail
        .split_at_checked(length)
        .ok_or_else(|| cut("part cut short"))?;
    *rest = tail;
    Ok(Part { tag, bytes, lsn })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_come_back_in_order_and_empty_ones_are_left_out() {
        let mut writer = RecordWriter::default();
        writer
            .part(Tag::Samples, |out| out.extend_from_slice(b"abc"))
            .unwrap();
        writer.part(Tag::Metadata, |_| {}).unwrap();
        writer.part(Tag::Spans, |out| out.push(7)).unwrap();
        let read: Vec<_> = parts(Lsn(9), writer.payload())
            .map(|part| part.map(|p| (p.tag, p.bytes.to_vec())).unwrap())
            .collect();
        assert_eq!(
            read,
            [(Tag::Samples, b"abc".to_vec()), (Tag::Spans, vec![7])]
        );
    }

    #[test]
    fn an_unknown_version_or_part_is_refused_by_name() {
        let version = parts(Lsn(1), &[9]).next().unwrap();
        assert!(matches!(
            version,
            Err(Error::UnknownRecord {
                what: "version",
                found: 9,
                ..
            })
        ));
        let part = parts(Lsn(1), &[VERSION, 200, 0, 0, 0, 0]).next().unwrap();
        assert!(matches!(
            part,
            Err(Error::UnknownRecord {
                what: "part",
                found: 200,
                ..
            })
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let errors = parts(Lsn(1), &bytes).filter(Result::is_err).count();
            prop_assert!(errors <= 1);
        }
    }
}
