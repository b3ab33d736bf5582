//! Writing to a section: items that lie on one page, and runs of bytes of any length.

use crate::{block::PAGE_BYTES_MAX, error::Error};

/// Appends an item to the section and gives its offset there.
pub(crate) type Sink<'a> = dyn FnMut(&[u8]) -> Result<u64, Error> + 'a;

/// Appends bytes that need not lie on one page; they can be read in one piece all the same.
///
/// # Errors
/// What the sink returned.
///
/// # Panics
/// If something else is written to the section in between.
pub(super) fn write_run(sink: &mut Sink<'_>, bytes: &[u8]) -> Result<u64, Error> {
    let mut start = None;
    let mut written = 0_u64;
    for item in bytes.chunks(PAGE_BYTES_MAX) {
        let at = sink(item)?;
        let start = *start.get_or_insert(at);
        assert_eq!(at, start + written, "a section has one writer");
        written += item.len() as u64;
    }
    match start {
        Some(start) => Ok(start),
        None => sink(&[]),
    }
}

/// Gathers small items, so that the section gets few large ones.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    bytes: Vec<u8>,
    /// Bytes before those that are held back, from the first item on.
    before: u64,
    start: Option<u64>,
}

impl Gathered {
    /// Appends the item that `write` appends; gives its offset from the first item. It lies on one page if
    /// it has at most [`PAGE_BYTES_MAX`] bytes.
    pub(super) fn push(
        &mut self,
        sink: &mut Sink<'_>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, Error> {
        let held = self.bytes.len();
        write(&mut self.bytes);
        if self.bytes.len() > PAGE_BYTES_MAX && held > 0 {
            let item = self.bytes.split_off(held);
            self.flush(sink)?;
            self.bytes = item;
            return Ok(self.before);
        }
        Ok(self.before + held as u64)
    }

    fn flush(&mut self, sink: &mut Sink<'_>) -> Result<(), Error> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let at = write_run(sink, &self.bytes)?;
        let start = *self.start.get_or_insert(at);
        assert_eq!(at, start + self.before, "a section has one writer");
        self.before += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }

    /// Writes what is held back; gives where the first item stands and the bytes of all.
    pub(super) fn finish(mut self, sink: &mut Sink<'_>) -> Result<(u64, u64), Error> {
        self.flush(sink)?;
        let start = match self.start {
            Some(start) => start,
            None => sink(&[])?,
        };
        Ok((start, self.before))
    }
}
