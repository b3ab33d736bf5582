//! An append-only column in pages of fixed size.
//!
//! Growth never moves what is there, so that a head of any size grows without copies or doubled
//! memory. The first page grows like a vector: a head of ten spans costs ten rows.

/// Rows in a page.
pub(crate) const PAGE_ROWS: usize = 1 << PAGE_SHIFT;
const PAGE_SHIFT: u32 = 12;

/// A column of `T`.
#[derive(Debug)]
pub(crate) struct Column<T> {
    pages: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Column<T> {
    /// Rows.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Rows, as the head numbers them.
    #[inline]
    pub(crate) fn rows(&self) -> u32 {
        u32::try_from(self.len).unwrap_or(u32::MAX)
    }

    /// Appends a row.
    #[inline]
    pub(crate) fn push(&mut self, value: T) {
        if self.len & (PAGE_ROWS - 1) == 0 {
            let room = if self.pages.is_empty() { 4 } else { PAGE_ROWS };
            self.pages.push(Vec::with_capacity(room));
        }
        if let Some(page) = self.pages.last_mut() {
            page.push(value);
            self.len += 1;
        }
    }

    /// A row.
    #[inline]
    pub(crate) fn get(&self, row: u32) -> Option<&T> {
        self.pages
            .get((row >> PAGE_SHIFT) as usize)?
            .get(row as usize & (PAGE_ROWS - 1))
    }

    /// A row to change.
    #[inline]
    pub(crate) fn get_mut(&mut self, row: u32) -> Option<&mut T> {
        self.pages
            .get_mut((row >> PAGE_SHIFT) as usize)?
            .get_mut(row as usize & (PAGE_ROWS - 1))
    }

    /// Rows from `from` on, in order.
    pub(crate) fn iter_from(&self, from: u32) -> impl Iterator<Item = &T> {
        let first = (from >> PAGE_SHIFT) as usize;
        let skip = from as usize & (PAGE_ROWS - 1);
        self.pages.iter().skip(first).flatten().skip(skip)
    }

    /// First row, from 0 on, for which `before` does not hold; rows must be sorted by it.
    pub(crate) fn partition_point(&self, before: impl Fn(&T) -> bool) -> u32 {
        let (mut low, mut high) = (0u32, self.rows());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(&before) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Bytes held, not counting what the rows point to.
    #[inline]
    pub(crate) fn heap_bytes(&self) -> usize {
        let rows = match self.pages.as_slice() {
            [] => 0,
            [only] => only.capacity(),
            [first, rest @ ..] => first.capacity() + rest.len() * PAGE_ROWS,
        };
        rows * size_of::<T>() + self.pages.capacity() * size_of::<Vec<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u32 = 1 << PAGE_SHIFT;

    #[test]
    fn rows_come_back_across_pages() {
        let mut column = Column::default();
        for i in 0..3 * PAGE_ROWS as u64 + 7 {
            column.push(i);
        }
        assert_eq!(column.len(), 3 * PAGE_ROWS + 7);
        assert_eq!(column.get(2 * PAGE), Some(&(2 * PAGE_ROWS as u64)));
        assert_eq!(column.get(column.rows()), None);
        assert_eq!(
            column.iter_from(PAGE + 3).next(),
            Some(&(PAGE_ROWS as u64 + 3))
        );
        assert_eq!(column.partition_point(|&v| v < 5000), 5000);
        assert_eq!(column.partition_point(|_| true), column.rows());
    }

    #[test]
    fn a_small_column_costs_little() {
        let mut column = Column::default();
        column.push(1u64);
        assert!(column.heap_bytes() < 256);
    }
}
