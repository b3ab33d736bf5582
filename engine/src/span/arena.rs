//! Byte strings that are written once and never moved, in pages.

/// Bytes in a page; a longer string gets a page of its own.
const PAGE_BYTES: usize = 256 << 10;
/// First page's room, so that a small head stays small.
const FIRST_BYTES: usize = 4 << 10;

/// Where a byte string starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    page: u32,
    offset: u32,
}

/// The pages.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    pages: Vec<Vec<u8>>,
    /// The page being filled.
    open: usize,
    held_bytes: usize,
}

impl Arena {
    /// Stores `bytes`.
    #[inline]
    pub(crate) fn store(&mut self, bytes: &[u8]) -> Place {
        if bytes.len() > PAGE_BYTES / 4 {
            // Its own page, of just its size; the open page stays open.
            self.held_bytes += bytes.len() + size_of::<Vec<u8>>();
            self.pages.push(bytes.to_vec());
            return Self::place(self.pages.len() - 1, 0);
        }
        let fits = self
            .pages
            .get(self.open)
            .is_some_and(|page| page.capacity() - page.len() >= bytes.len());
        if !fits {
            let room = if self.pages.is_empty() {
                FIRST_BYTES
            } else {
                PAGE_BYTES
            };
            let room = room.max(bytes.len());
            self.held_bytes += room + size_of::<Vec<u8>>();
            self.open = self.pages.len();
            self.pages.push(Vec::with_capacity(room));
        }
        let open = self.open;
        match self.pages.get_mut(open) {
            Some(page) => {
                let offset = page.len();
                page.extend_from_slice(bytes);
                Self::place(open, offset)
            }
            None => Self::place(open, 0),
        }
    }

    /// The bytes from `place` to the end of what its page holds: for strings that say themselves
    /// where they end.
    #[inline]
    pub(crate) fn from(&self, place: Place) -> &[u8] {
        self.pages
            .get(place.page as usize)
            .and_then(|page| page.get(place.offset as usize..))
            .unwrap_or_default()
    }

    /// The `len` bytes at `place`.
    #[inline]
    pub(crate) fn get(&self, place: Place, len: u32) -> &[u8] {
        self.from(place).get(..len as usize).unwrap_or_default()
    }

    /// Bytes held.
    #[inline]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.held_bytes
    }

    fn place(page: usize, offset: usize) -> Place {
        // Pages of at least 64 KiB and strings below 4 GiB: neither number can pass 32 bits within
        // any memory budget.
        Place {
            page: u32::try_from(page).unwrap_or(u32::MAX),
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_all_sizes_come_back() {
        let mut arena = Arena::default();
        let sizes = [
            0,
            1,
            100,
            FIRST_BYTES,
            FIRST_BYTES + 1,
            PAGE_BYTES - 1,
            PAGE_BYTES + 1,
            7,
        ];
        let strings: Vec<Vec<u8>> = sizes
            .iter()
            .zip(0u8..)
            .map(|(&size, fill)| vec![fill; size])
            .collect();
        let places: Vec<_> = strings.iter().map(|s| arena.store(s)).collect();
        for (string, place) in strings.iter().zip(places) {
            assert_eq!(
                arena.get(place, u32::try_from(string.len()).unwrap()),
                string
            );
        }
        assert!(arena.heap_bytes() >= sizes.iter().sum());
    }
}
