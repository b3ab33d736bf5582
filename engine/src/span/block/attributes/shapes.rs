//! The table of shapes: each distinct list of fields once, by number.
//!
//! Fields are numbers: [`REST`], [`ALL_REST`], then the columns, then the fixed pairs. Invariant: a shape
//! with [`ALL_REST`] has no other field.

#![expect(
    clippy::indexing_slicing,
    reason = "numbers of shapes come from the table itself; ends rise and are within the fields"
)]

use hashbrown::HashTable;

use super::Limits;

/// The next entry of the rest.
pub(super) const REST: u32 = 0;
/// All entries of the rest that the item has, and nothing else.
pub(super) const ALL_REST: u32 = 1;
/// The field of column 0.
pub(super) const FIRST_COLUMN: u32 = 2;

/// Shapes while a table is written, with how many items have each.
#[derive(Debug, Default)]
pub(super) struct ShapeSet {
    fields: Vec<u32>,
    ends: Vec<usize>,
    items: Vec<u64>,
    numbers: HashTable<u32>,
}

impl ShapeSet {
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    #[inline]
    pub(super) fn fields(&self, shape: u32) -> &[u32] {
        let shape = shape as usize;
        let start = shape.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.fields[start..self.ends[shape]]
    }

    /// How many items have a shape.
    pub(super) fn items(&self, shape: u32) -> u64 {
        self.items[shape as usize]
    }

    /// Counts `items` more items of a shape.
    #[inline]
    pub(super) fn count(&mut self, shape: u32, items: u64) {
        self.items[shape as usize] += items;
    }

    /// The number of a shape, new or known; `None` if it is one too many.
    #[inline]
    pub(super) fn intern(&mut self, fields: &[u32], limits: &Limits) -> Option<u32> {
        let hash = hash_of(fields);
        let Self { ends, numbers, .. } = self;
        let all = &self.fields;
        let same = |&shape: &u32| {
            let start = (shape as usize)
                .checked_sub(1)
                .map_or(0, |before| ends[before]);
            all[start..ends[shape as usize]] == *fields
        };
        if let Some(&shape) = numbers.find(hash, same) {
            return Some(shape);
        }
        if fields.len() > limits.shape_fields_max
            || self.ends.len() >= limits.shapes_max
            || self.fields.len() + fields.len() > limits.fields_max
        {
            return None;
        }
        Some(self.add(hash, fields))
    }

    /// The shape of items whose attributes are all in the rest. It has a place whatever the limits say.
    pub(super) fn intern_all_rest(&mut self) -> u32 {
        let hash = hash_of(&[ALL_REST]);
        let is_it = |&shape: &u32| self.fields(shape) == [ALL_REST];
        let known = self.numbers.find(hash, is_it);
        match known {
            Some(&shape) => shape,
            None => self.add(hash, &[ALL_REST]),
        }
    }

    fn add(&mut self, hash: u64, fields: &[u32]) -> u32 {
        let shape = self.len();
        self.fields.extend_from_slice(fields);
        self.ends.push(self.fields.len());
        self.items.push(0);
        let Self {
            fields: all,
            ends,
            numbers,
            ..
        } = self;
        numbers.insert_unique(hash, shape, |&shape| {
            let start = (shape as usize)
                .checked_sub(1)
                .map_or(0, |before| ends[before]);
            hash_of(&all[start..ends[shape as usize]])
        });
        shape
    }

    /// Gives fields other numbers.
    pub(super) fn renumber(&mut self, number_of: impl Fn(u32) -> u32) {
        for field in &mut self.fields {
            *field = number_of(*field);
        }
        self.numbers.clear();
    }
}

/// Spreads well enough for a table in memory; a collision costs a comparison.
#[inline]
fn hash_of(fields: &[u32]) -> u64 {
    let mut hash = fields.len() as u64;
    for &field in fields {
        hash = (hash.rotate_left(5) ^ u64::from(field)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    hash ^ (hash >> 29)
}

/// Shapes as they are read: fields end to end.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    pub(super) fields: Vec<u32>,
    pub(super) ends: Vec<u32>,
    /// How many items have each.
    pub(super) items: Vec<u32>,
}

impl Shapes {
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// The fields of a shape; none for a shape that there is not.
    #[inline]
    pub(super) fn fields(&self, shape: u32) -> &[u32] {
        let shape = shape as usize;
        let Some(&end) = self.ends.get(shape) else {
            return &[];
        };
        let before = shape
            .checked_sub(1)
            .and_then(|before| self.ends.get(before));
        let start = before.map_or(0, |&start| start as usize);
        self.fields.get(start..end as usize).unwrap_or_default()
    }

    /// How many items have a shape.
    pub(super) fn items(&self, shape: u32) -> u32 {
        self.items.get(shape as usize).copied().unwrap_or_default()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        (self.fields.capacity() + self.ends.capacity() + self.items.capacity()) * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_too_many_is_refused_and_the_known_ones_stay() {
        let limits = Limits {
            shapes_max: 2,
            ..Limits::STANDARD
        };
        let mut shapes = ShapeSet::default();
        assert_eq!(shapes.intern(&[2, 3], &limits), Some(0));
        assert_eq!(shapes.intern(&[], &limits), Some(1));
        assert_eq!(shapes.intern(&[3, 2], &limits), None);
        assert_eq!(shapes.intern(&[2, 3], &limits), Some(0));
        assert_eq!(shapes.intern_all_rest(), 2);
        assert_eq!(shapes.intern(&[], &Limits::STANDARD), Some(1));
        assert_eq!(shapes.intern_all_rest(), 2);
        assert_eq!(shapes.fields(0), [2, 3]);
        assert!(shapes.fields(1).is_empty());
    }
}
