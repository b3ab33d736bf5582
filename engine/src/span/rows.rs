//! A set of rows of one part of the span store.

use std::ops::RangeBounds;

use roaring::RoaringBitmap;

/// Rows of one part, by number. Numbers of different parts have nothing to do with each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpanRows(RoaringBitmap);

impl SpanRows {
    /// No row.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a row is one of them.
    pub fn contains(&self, row: u32) -> bool {
        self.0.contains(row)
    }

    /// Adds a row.
    pub fn insert(&mut self, row: u32) {
        self.0.insert(row);
    }

    /// Adds rows that follow each other.
    pub fn insert_range(&mut self, rows: impl RangeBounds<u32>) {
        self.0.insert_range(rows);
    }

    /// Rising.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.0.iter()
    }

    /// Those that are in both.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0 &= &other.0;
        self
    }

    /// Those that are in one of them at least.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        self.0 |= &other.0;
        self
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn minus(mut self, other: &Self) -> Self {
        self.0 -= &other.0;
        self
    }

    /// About how much memory it takes.
    pub fn heap_bytes(&self) -> usize {
        self.0.serialized_size()
    }

    /// As a bitmap.
    pub(crate) fn as_bitmap(&self) -> &RoaringBitmap {
        &self.0
    }

    /// Of a bitmap.
    pub(crate) fn from_bitmap(rows: RoaringBitmap) -> Self {
        Self(rows)
    }
}

impl FromIterator<u32> for SpanRows {
    fn from_iter<I: IntoIterator<Item = u32>>(rows: I) -> Self {
        Self(rows.into_iter().collect())
    }
}
