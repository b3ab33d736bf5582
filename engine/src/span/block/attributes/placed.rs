//! Stretches of a section: many small items written end to end, and numbers read back from them.

use std::borrow::Cow;

use crate::{
    block::PAGE_BYTES_MAX,
    column::{ColumnError, integers},
    error::Error,
    span::block::column::{ColumnSource, Sink},
    varint::{put_u64, take_slice, take_u64},
};

/// Where a stretch lies in its section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start: u64,
    pub(super) bytes: u64,
}

impl Place {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        put_u64(out, self.start);
        put_u64(out, self.bytes);
    }

    /// The bytes of it.
    pub(super) fn read(self, source: &ColumnSource) -> Result<Cow<'_, [u8]>, Error> {
        source.read_at(self.start, self.bytes)
    }
}

/// Writes a stretch. Each item of at most 64 KiB lies on one page.
#[derive(Debug, Default)]
pub(super) struct StretchWriter {
    held: Vec<u8>,
    place: Option<Place>,
}

impl StretchWriter {
    /// Appends the item that `write` appends to what it is given; gives where it begins in the stretch.
    pub(super) fn push(
        &mut self,
        sink: &mut Sink<'_>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, Error> {
        let before = self.held.len();
        write(&mut self.held);
        if self.held.len() > PAGE_BYTES_MAX && before > 0 {
            let item = self.held.split_off(before);
            self.flush(sink)?;
            self.held = item;
        }
        let item_bytes = if self.held.len() > before {
            self.held.len() - before
        } else {
            self.held.len()
        };
        let written = self.place.map_or(0, |place| place.bytes);
        let start = written + (self.held.len() - item_bytes) as u64;
        if self.held.len() >= PAGE_BYTES_MAX {
            self.flush(sink)?;
        }
        Ok(start)
    }

    fn flush(&mut self, sink: &mut Sink<'_>) -> Result<(), Error> {
        for item in self.held.chunks(PAGE_BYTES_MAX) {
            let at = sink(item)?;
            let place = self.place.get_or_insert(Place {
                start: at,
                bytes: 0,
            });
            assert_eq!(at, place.start + place.bytes, "a section has one writer");
            place.bytes += item.len() as u64;
        }
        self.held.clear();
        Ok(())
    }

    /// Writes what is held back; gives where the stretch lies.
    pub(super) fn finish(mut self, sink: &mut Sink<'_>) -> Result<Place, Error> {
        self.flush(sink)?;
        Ok(self.place.unwrap_or_default())
    }
}

/// Writes bytes as a stretch that is read in one piece.
pub(super) fn write_bytes(sink: &mut Sink<'_>, bytes: &[u8]) -> Result<Place, Error> {
    let stretch = StretchWriter {
        held: bytes.to_vec(),
        place: None,
    };
    stretch.finish(sink)
}

/// Numbers and bytes of a stretch, from front to back.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    source: &'a ColumnSource,
    end: u64,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// `bytes` start at `start` of the section.
    pub(super) fn new(source: &'a ColumnSource, start: u64, bytes: &'a [u8]) -> Self {
        Self {
            source,
            end: start.saturating_add(bytes.len() as u64),
            rest: bytes,
        }
    }

    /// How many bytes are left: what a count of things that take a byte each cannot pass.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    #[cold]
    pub(super) fn damaged(&self, reason: &str) -> Error {
        let at = self.end.saturating_sub(self.rest.len() as u64);
        self.source.damaged(at, reason)
    }

    #[inline]
    pub(super) fn number(&mut self) -> Result<u64, Error> {
        match take_u64(&mut self.rest) {
            Some(number) => Ok(number),
            None => Err(self.damaged("a number of the attribute table is cut short")),
        }
    }

    /// A number that is at most `max`.
    #[inline]
    pub(super) fn number_to(&mut self, max: u32, reason: &str) -> Result<u32, Error> {
        let number = u32::try_from(self.number()?).ok();
        match number.filter(|number| *number <= max) {
            Some(number) => Ok(number),
            None => Err(self.damaged(reason)),
        }
    }

    /// A count of things that take at least a byte each.
    pub(super) fn count(&mut self) -> Result<usize, Error> {
        let count = usize::try_from(self.number()?).ok();
        match count.filter(|count| *count <= self.rest.len()) {
            Some(count) => Ok(count),
            None => Err(self.damaged("a count of the attribute table is larger than it")),
        }
    }

    pub(super) fn slice(&mut self, bytes: usize) -> Result<&'a [u8], Error> {
        match take_slice(&mut self.rest, bytes) {
            Some(slice) => Ok(slice),
            None => Err(self.damaged("bytes of the attribute table are cut short")),
        }
    }

    /// A length and that many bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let bytes = self.count()?;
        self.slice(bytes)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Error> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged("a key is not UTF-8"))
    }

    pub(super) fn place(&mut self) -> Result<Place, Error> {
        Ok(Place {
            start: self.number()?,
            bytes: self.number()?,
        })
    }
}

/// Reads a stretch that is one column of `count` integers; the caller has bounded `count`.
pub(super) fn read_integers(
    source: &ColumnSource,
    place: Place,
    count: usize,
) -> Result<Vec<i64>, Error> {
    let bytes = place.read(source)?;
    let mut out = Vec::new();
    integers::decode(&bytes, count, &mut out)
        .map_err(|error| placed(source, place.start, error))?;
    Ok(out)
}

/// The error of decoding what starts at `start` of the section.
#[cold]
pub(super) fn placed(source: &ColumnSource, start: u64, error: ColumnError) -> Error {
    match error {
        ColumnError::Damaged {
            offset_bytes,
            reason,
        } => source.damaged(start.saturating_add(offset_bytes as u64), reason),
    }
}

/// A number of bytes as an index; out of all bounds if it is none.
pub(super) fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
