//! Where a writer puts the bytes of a part: gathered into items, so that what is read together lies
//! on one page of the container.

/// Most bytes of an item made of several pieces. Two fill a container's page of 64 KiB.
const ITEM_BYTES_MAX: usize = 32 * 1024;

/// What takes the items of a part and says at which offset each lies.
pub type ItemWriter<'a, E> = &'a mut dyn FnMut(&[u8]) -> Result<u64, E>;

/// A part being written.
pub(crate) struct Sink<'a, E> {
    write: ItemWriter<'a, E>,
    item: Vec<u8>,
    /// Bytes given away so far.
    written_bytes: u64,
}

impl<'a, E> Sink<'a, E> {
    pub(crate) fn new(write: ItemWriter<'a, E>) -> Self {
        Self {
            write,
            item: Vec::new(),
            written_bytes: 0,
        }
    }

    /// Where the next piece will lie.
    pub(crate) fn offset_bytes(&self) -> u64 {
        self.written_bytes + self.item.len() as u64
    }

    /// Appends a piece, kept in one item if it is no larger than an item. Returns its offset.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<u64, E> {
        if self.item.len() + piece.len() > ITEM_BYTES_MAX {
            self.flush()?;
        }
        let offset_bytes = self.offset_bytes();
        let mut rest = piece;
        while rest.len() > ITEM_BYTES_MAX {
            let (item, behind) = rest.split_at(ITEM_BYTES_MAX);
            self.item.extend_from_slice(item);
            self.flush()?;
            rest = behind;
        }
        self.item.extend_from_slice(rest);
        Ok(offset_bytes)
    }

    /// Gives away what is pending.
    ///
    /// # Panics
    /// If the taker does not put the items one behind the other, from 0 on.
    pub(crate) fn flush(&mut self) -> Result<(), E> {
        if self.item.is_empty() {
            return Ok(());
        }
        let offset_bytes = (self.write)(&self.item)?;
        assert_eq!(
            offset_bytes, self.written_bytes,
            "the items of a part lie one behind the other, from its start on"
        );
        self.written_bytes += self.item.len() as u64;
        self.item.clear();
        Ok(())
    }
}
