//! The rows of one attribute or class, in order of arrival.
//!
//! Rows only ever come at the end here, so the list is built for that: up to three rows inline, then
//! distances as varints, in pages. Appending costs some nanoseconds whatever the length and density
//! (a roaring bitmap searches or walks its last container), a distance takes one or two bytes, and
//! what is held is known exactly. Searches turn lists into bitmaps as they need them.

use roaring::RoaringBitmap;

use crate::varint;

/// Rows kept in the list itself.
const INLINE_ROWS_MAX: usize = 3;
/// Bytes in a full page: the most that growth ever copies.
const PAGE_BYTES: usize = 32 << 10;
/// Bytes of the first allocation.
const FIRST_BYTES: usize = 16;
/// From here on a bitmap of its own is cheaper than adding rows one by one.
const BITMAP_ROWS_MIN: u64 = 512;
/// Longest distance.
const VARINT_BYTES_MAX: usize = 5;

const _: () = assert!(size_of::<RowList>() == 16);

/// Rising rows.
#[derive(Debug)]
pub(crate) struct RowList {
    form: Form,
}

#[derive(Debug)]
enum Form {
    Few {
        count: u8,
        rows: [u32; INLINE_ROWS_MAX],
    },
    Many(Box<Many>),
}

#[derive(Debug)]
struct Many {
    /// Pages that take no more. A distance never crosses from one page to the next.
    full: Vec<Vec<u8>>,
    open: Vec<u8>,
    last: u32,
    len: u32,
}

impl Default for RowList {
    fn default() -> Self {
        Self {
            form: Form::Few {
                count: 0,
                rows: [0; INLINE_ROWS_MAX],
            },
        }
    }
}

impl RowList {
    /// Rows in the list.
    #[inline]
    pub(crate) fn len(&self) -> u64 {
        match &self.form {
            Form::Few { count, .. } => u64::from(*count),
            Form::Many(many) => u64::from(many.len),
        }
    }

    /// Appends a row not below the last; the last one again changes nothing. Returns by how many
    /// bytes the heap grew.
    #[inline]
    pub(crate) fn push(&mut self, row: u32) -> usize {
        match &mut self.form {
            Form::Many(many) => many.push(row),
            Form::Few { count, rows } => {
                let held = usize::from(*count);
                if held > 0 && rows.get(held - 1) == Some(&row) {
                    return 0;
                }
                if let Some(free) = rows.get_mut(held) {
                    *free = row;
                    *count += 1;
                    return 0;
                }
                let mut many = Many {
                    full: Vec::new(),
                    open: Vec::with_capacity(FIRST_BYTES),
                    last: 0,
                    len: 0,
                };
                let mut grown = size_of::<Many>() + FIRST_BYTES;
                for &row in rows.iter() {
                    grown += many.append(row);
                }
                grown += many.append(row);
                self.form = Form::Many(Box::new(many));
                grown
            }
        }
    }

    /// The rows, rising.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let (few, many) = match &self.form {
            Form::Few { count, rows } => (rows.get(..usize::from(*count)), None),
            Form::Many(many) => (None, Some(many.iter())),
        };
        few.unwrap_or_default()
            .iter()
            .copied()
            .chain(many.into_iter().flatten())
    }

    /// `into |= self`.
    pub(crate) fn union_into(&self, into: &mut RoaringBitmap) {
        if self.len() < BITMAP_ROWS_MIN {
            into.extend(self.iter());
        } else if let Ok(rows) = RoaringBitmap::from_sorted_iter(self.iter()) {
            // Rows rise, so all were taken.
            *into |= rows;
        }
    }
}

impl Many {
    #[inline]
    fn push(&mut self, row: u32) -> usize {
        if row == self.last {
            0
        } else {
            self.append(row)
        }
    }

    #[inline]
    fn append(&mut self, row: u32) -> usize {
        let mut grown = 0;
        if self.open.capacity() - self.open.len() < VARINT_BYTES_MAX {
            grown = self.make_room();
        }
        varint::put_u64(&mut self.open, u64::from(row - self.last));
        self.last = row;
        self.len += 1;
        grown
    }

    #[cold]
    fn make_room(&mut self) -> usize {
        let held = self.open.capacity();
        if held < PAGE_BYTES {
            // By half: memory counts for more than copies of a few KiB.
            let more = (held / 2).clamp(FIRST_BYTES, PAGE_BYTES);
            self.open
                .reserve_exact(self.open.capacity() - self.open.len() + more);
            return self.open.capacity().saturating_sub(held);
        }
        let pages = self.full.capacity();
        self.full.push(std::mem::replace(
            &mut self.open,
            Vec::with_capacity(PAGE_BYTES),
        ));
        PAGE_BYTES + (self.full.capacity() - pages) * size_of::<Vec<u8>>()
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        let mut pages = self.full.iter().chain(std::iter::once(&self.open));
        let mut input: &[u8] = &[];
        let mut row = 0u32;
        std::iter::from_fn(move || {
            while input.is_empty() {
                input = pages.next()?;
            }
            // What was put comes back whole.
            row = row.wrapping_add(varint::take_u32(&mut input)?);
            Some(row)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(rows: impl Iterator<Item = u32>) {
        let mut list = RowList::default();
        let mut twin = Vec::new();
        for row in rows {
            list.push(row);
            list.push(row);
            twin.push(row);
        }
        assert_eq!(list.len(), twin.len() as u64);
        assert!(list.iter().eq(twin.iter().copied()));
        let mut bitmap = RoaringBitmap::new();
        list.union_into(&mut bitmap);
        assert!(bitmap.iter().eq(twin));
    }

    proptest! {
        #[test]
        fn rows_come_back_in_order(
            steps in prop::collection::vec(prop_oneof![1u32..3, 1u32..300_000], 0..100),
            first in 0u32..2,
        ) {
            check(steps.into_iter().scan(first, |row, step| {
                let own = *row;
                *row += step;
                Some(own)
            }));
        }
    }

    #[test]
    fn long_lists_go_over_pages() {
        check(0..100_000);
        check((0..60_000).map(|i| i * 300));
    }

    #[test]
    fn three_rows_take_no_heap_and_a_dense_list_about_a_byte_a_row() {
        let mut list = RowList::default();
        assert_eq!((0..3).map(|row| list.push(row)).sum::<usize>(), 0);
        let held: usize = (3..100_000).map(|row| list.push(row)).sum();
        assert!((100_000..140_000).contains(&held), "{held}");
    }
}
