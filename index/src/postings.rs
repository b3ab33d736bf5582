//! The rows that carry one label pair.
//!
//! Most label values of a large store stand on one row (an address, a user) and a few stand on
//! nearly all (a job), so the form follows the count: nothing, one row, three rows inline, a
//! sorted list, a roaring bitmap. A `Postings` is 16 bytes; up to three rows need no allocation.
//! Forms grow and never shrink back, so that a value that comes and goes does not thrash.
//!
//! Rows mostly come rising, one at a time and far apart in time, when nothing of the bitmap is in a
//! cache. So a bitmap has a short tail of its newest rows beside it, which moves into it by the
//! dozen: a push then touches two cache lines instead of walking to a container.

use roaring::RoaringBitmap;

/// Rows kept inside the enum itself.
const INLINE_ROWS_MAX: usize = 3;
/// Longest sorted list. A bitmap container costs about 60 bytes before its first row, so a list
/// wins while the rows are few; 32 keeps an insertion in the middle within two cache lines.
const LIST_ROWS_MAX: usize = 32;

/// Rows beside a bitmap: two cache lines.
const TAIL_ROWS_MAX: usize = 30;

const _: () = assert!(size_of::<Postings>() == 16);

/// A set of rows.
#[derive(Clone, Default)]
pub struct Postings {
    form: Form,
}

#[derive(Clone, Default)]
enum Form {
    #[default]
    Empty,
    One(u32),
    /// Two or three rows, rising; the rest of the array is not looked at.
    Few {
        count: u8,
        rows: [u32; INLINE_ROWS_MAX],
    },
    /// Rising rows.
    #[expect(
        clippy::box_collection,
        reason = "keeps the enum at 16 bytes; long lists are rare"
    )]
    List(Box<Vec<u32>>),
    Bitmap(Box<Bitmap>),
}

/// A bitmap and its newest rows.
///
/// Invariant: the tail's rows rise strictly, above all rows of the bitmap.
#[derive(Clone)]
struct Bitmap {
    tail_count: u8,
    tail: [u32; TAIL_ROWS_MAX],
    settled: RoaringBitmap,
}

impl Bitmap {
    fn new(settled: RoaringBitmap) -> Self {
        Self {
            tail_count: 0,
            tail: [0; TAIL_ROWS_MAX],
            settled,
        }
    }

    fn tail(&self) -> &[u32] {
        let count = usize::from(self.tail_count);
        self.tail.get(..count).unwrap_or(&self.tail)
    }

    /// Adds a row that is probably the greatest.
    fn push(&mut self, row: u32) -> bool {
        match self.tail().last() {
            // An empty tail says nothing about the bitmap's rows.
            None => {
                if self.settled.max().is_some_and(|max| max >= row) {
                    return self.settled.insert(row);
                }
            }
            Some(&last) if row > last => {}
            Some(&last) if row == last => return false,
            Some(_) => return self.insert(row),
        }
        if usize::from(self.tail_count) == TAIL_ROWS_MAX {
            self.settle();
        }
        if let Some(place) = self.tail.get_mut(usize::from(self.tail_count)) {
            *place = row;
            self.tail_count += 1;
        }
        true
    }

    fn insert(&mut self, row: u32) -> bool {
        self.settle();
        self.settled.insert(row)
    }

    fn remove(&mut self, row: u32) -> bool {
        self.settle();
        self.settled.remove(row)
    }

    /// Moves the tail into the bitmap.
    fn settle(&mut self) {
        let count = usize::from(std::mem::take(&mut self.tail_count));
        let rows = self.tail.get(..count).unwrap_or(&self.tail).iter().copied();
        if self.settled.append(rows.clone()).is_err() {
            self.settled.extend(rows);
        }
    }

    fn contains(&self, row: u32) -> bool {
        self.settled.contains(row) || self.tail().binary_search(&row).is_ok()
    }

    fn to_bitmap(&self) -> RoaringBitmap {
        let mut all = self.clone();
        all.settle();
        all.settled
    }
}

impl Postings {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row that is above all rows of the set, as new rows are; one that is not goes the way
    /// of [`insert`](Self::insert). Returns whether the row is new.
    pub fn push(&mut self, row: u32) -> bool {
        match &mut self.form {
            Form::Bitmap(bitmap) => bitmap.push(row),
            Form::List(list) if list.len() < LIST_ROWS_MAX && list.last() < Some(&row) => {
                list.push(row);
                true
            }
            _ => self.insert(row),
        }
    }

    /// Adds a row in any order. Returns whether the row is new.
    pub fn insert(&mut self, row: u32) -> bool {
        match &mut self.form {
            Form::Empty => self.form = Form::One(row),
            Form::One(first) => {
                let first = *first;
                if first == row {
                    return false;
                }
                self.form = Form::Few {
                    count: 2,
                    rows: [first.min(row), first.max(row), 0],
                };
            }
            Form::Few { count, rows } => {
                let held = rows.get(..usize::from(*count)).unwrap_or(rows);
                let Err(at) = held.binary_search(&row) else {
                    return false;
                };
                if held.len() < INLINE_ROWS_MAX {
                    *count += 1;
                    if let Some(tail) = rows.get_mut(at..usize::from(*count)) {
                        tail.rotate_right(1);
                        if let Some(first) = tail.first_mut() {
                            *first = row;
                        }
                    }
                } else {
                    let mut list = Vec::with_capacity(2 * INLINE_ROWS_MAX);
                    list.extend_from_slice(held);
                    list.insert(at, row);
                    self.form = Form::List(Box::new(list));
                }
            }
            Form::List(list) => {
                let Err(at) = list.binary_search(&row) else {
                    return false;
                };
                if list.len() < LIST_ROWS_MAX {
                    list.insert(at, row);
                } else {
                    let mut bitmap = sorted_bitmap(list);
                    bitmap.insert(row);
                    self.form = Form::Bitmap(Box::new(Bitmap::new(bitmap)));
                }
            }
            Form::Bitmap(bitmap) => return bitmap.insert(row),
        }
        true
    }

    /// Takes a row out. Returns whether it was there.
    pub fn remove(&mut self, row: u32) -> bool {
        match &mut self.form {
            Form::Empty => false,
            Form::One(first) => {
                let found = *first == row;
                if found {
                    self.form = Form::Empty;
                }
                found
            }
            Form::Few { count, rows } => {
                let held = rows.get(..usize::from(*count)).unwrap_or(rows);
                let Ok(at) = held.binary_search(&row) else {
                    return false;
                };
                if let Some(tail) = rows.get_mut(at..usize::from(*count)) {
                    tail.rotate_left(1);
                }
                *count -= 1;
                if *count == 1 {
                    self.form = Form::One(rows[0]);
                }
                true
            }
            Form::List(list) => match list.binary_search(&row) {
                Ok(at) => {
                    list.remove(at);
                    true
                }
                Err(_) => false,
            },
            Form::Bitmap(bitmap) => bitmap.remove(row),
        }
    }

    /// Whether the row is in the set.
    pub fn contains(&self, row: u32) -> bool {
        match &self.form {
            Form::Bitmap(bitmap) => bitmap.contains(row),
            _ => self.rows().binary_search(&row).is_ok(),
        }
    }

    /// Rows in the set.
    pub fn len(&self) -> u64 {
        match &self.form {
            Form::Bitmap(bitmap) => bitmap.settled.len() + u64::from(bitmap.tail_count),
            _ => self.rows().len() as u64,
        }
    }

    /// Whether the set has no row.
    pub fn is_empty(&self) -> bool {
        match &self.form {
            Form::Bitmap(bitmap) => bitmap.tail_count == 0 && bitmap.settled.is_empty(),
            _ => self.rows().is_empty(),
        }
    }

    /// The rows, rising.
    pub fn iter(&self) -> PostingsIter<'_> {
        PostingsIter {
            inner: match &self.form {
                Form::Bitmap(bitmap) => {
                    let tail = bitmap.tail().iter().copied();
                    Inner::Bitmap(Box::new(bitmap.settled.iter().chain(tail)))
                }
                _ => Inner::Rows(self.rows().iter()),
            },
        }
    }

    /// The rows as a bitmap of its own.
    pub fn to_bitmap(&self) -> RoaringBitmap {
        match &self.form {
            Form::Bitmap(bitmap) => bitmap.to_bitmap(),
            _ => sorted_bitmap(self.rows()),
        }
    }

    /// `into |= self`.
    pub fn union_into(&self, into: &mut RoaringBitmap) {
        match &self.form {
            Form::Bitmap(bitmap) => {
                *into |= &bitmap.settled;
                into.extend(bitmap.tail().iter().copied());
            }
            _ => into.extend(self.rows().iter().copied()),
        }
    }

    /// `from &= self`.
    pub fn intersect_into(&self, from: &mut RoaringBitmap) {
        match &self.form {
            Form::Bitmap(bitmap) => {
                let tail: Vec<u32> = bitmap
                    .tail()
                    .iter()
                    .copied()
                    .filter(|r| from.contains(*r))
                    .collect();
                *from &= &bitmap.settled;
                from.extend(tail);
            }
            _ => {
                *from = self
                    .rows()
                    .iter()
                    .filter(|row| from.contains(**row))
                    .collect();
            }
        }
    }

    /// `from -= self`.
    pub fn subtract_from(&self, from: &mut RoaringBitmap) {
        match &self.form {
            Form::Bitmap(bitmap) => {
                *from -= &bitmap.settled;
                for row in bitmap.tail() {
                    from.remove(*row);
                }
            }
            _ => {
                for row in self.rows() {
                    from.remove(*row);
                }
            }
        }
    }

    /// The rows of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        match (&self.form, &other.form) {
            (Form::Bitmap(a), Form::Bitmap(b)) => Self::from(a.to_bitmap() | b.to_bitmap()),
            (Form::Bitmap(_), _) => other.iter().fold(self.clone(), Self::with),
            _ => self.iter().fold(other.clone(), Self::with),
        }
    }

    /// The rows of both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        match (&self.form, &other.form) {
            (Form::Bitmap(a), Form::Bitmap(b)) => Self::from(a.to_bitmap() & b.to_bitmap()),
            (Form::Bitmap(_), _) => other.iter().filter(|row| self.contains(*row)).collect(),
            _ => self.iter().filter(|row| other.contains(*row)).collect(),
        }
    }

    /// The rows of this set that the other does not have.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        match (&self.form, &other.form) {
            (Form::Bitmap(a), Form::Bitmap(b)) => Self::from(a.to_bitmap() - b.to_bitmap()),
            _ => self.iter().filter(|row| !other.contains(*row)).collect(),
        }
    }

    /// Bytes allocated, beside the 16 of the value itself. Walks a bitmap's containers: some
    /// nanoseconds for each 65,536 rows of range.
    pub fn heap_bytes(&self) -> usize {
        match &self.form {
            Form::Empty | Form::One(_) | Form::Few { .. } => 0,
            Form::List(list) => size_of::<Vec<u32>>() + list.capacity() * size_of::<u32>(),
            Form::Bitmap(bitmap) => size_of::<Bitmap>() + bitmap_heap_bytes(&bitmap.settled),
        }
    }

    /// The rows of every form but the bitmap.
    pub(crate) fn rows(&self) -> &[u32] {
        match &self.form {
            Form::Empty | Form::Bitmap(_) => &[],
            Form::One(row) => std::slice::from_ref(row),
            Form::Few { count, rows } => rows.get(..usize::from(*count)).unwrap_or(rows),
            Form::List(list) => list,
        }
    }

    /// The bitmap and the rows beside it, if that is the form.
    pub(crate) fn as_bitmap(&self) -> Option<(&RoaringBitmap, &[u32])> {
        match &self.form {
            Form::Bitmap(bitmap) => Some((&bitmap.settled, bitmap.tail())),
            _ => None,
        }
    }

    fn with(mut self, row: u32) -> Self {
        self.insert(row);
        self
    }
}

/// Bytes that a bitmap's containers hold, and about what the container table takes.
pub(crate) fn bitmap_heap_bytes(bitmap: &RoaringBitmap) -> usize {
    /// Key, kind, length and pointer of one container, and the allocator's header of its store.
    const CONTAINER_BYTES: u64 = 56;
    const BITSET_BYTES: u64 = 8 * 1024;
    // Roaring 0.12 counts arrays in units of four bytes, though rows of one container take two,
    // and the capacity of bitsets in bits; so the one is halved and the other counted here.
    let stats = bitmap.statistics();
    let stores = stats.n_bytes_array_containers / 2
        + stats.n_bytes_run_containers
        + u64::from(stats.n_bitset_containers) * BITSET_BYTES;
    let bytes = stores + u64::from(stats.n_containers) * CONTAINER_BYTES;
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A bitmap of rows that rise strictly.
pub(crate) fn sorted_bitmap(rows: &[u32]) -> RoaringBitmap {
    let sorted = RoaringBitmap::from_sorted_iter(rows.iter().copied());
    sorted.unwrap_or_else(|_| rows.iter().collect())
}

impl From<RoaringBitmap> for Postings {
    fn from(bitmap: RoaringBitmap) -> Self {
        if bitmap.len() <= LIST_ROWS_MAX as u64 {
            return bitmap.iter().collect();
        }
        Self {
            form: Form::Bitmap(Box::new(Bitmap::new(bitmap))),
        }
    }
}

impl FromIterator<u32> for Postings {
    fn from_iter<I: IntoIterator<Item = u32>>(rows: I) -> Self {
        let mut postings = Self::new();
        for row in rows {
            postings.push(row);
        }
        postings
    }
}

impl<'p> IntoIterator for &'p Postings {
    type Item = u32;
    type IntoIter = PostingsIter<'p>;

    fn into_iter(self) -> PostingsIter<'p> {
        self.iter()
    }
}

impl PartialEq for Postings {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other)
    }
}

impl Eq for Postings {}

impl std::fmt::Debug for Postings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self).finish()
    }
}

/// The rows of a [`Postings`], rising.
pub struct PostingsIter<'p> {
    inner: Inner<'p>,
}

enum Inner<'p> {
    Rows(std::slice::Iter<'p, u32>),
    Bitmap(Box<BitmapIter<'p>>),
}

type BitmapIter<'p> =
    std::iter::Chain<roaring::bitmap::Iter<'p>, std::iter::Copied<std::slice::Iter<'p, u32>>>;

impl std::fmt::Debug for PostingsIter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostingsIter").finish_non_exhaustive()
    }
}

impl Iterator for PostingsIter<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match &mut self.inner {
            Inner::Rows(rows) => rows.next().copied(),
            Inner::Bitmap(rows) => rows.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.inner {
            Inner::Rows(rows) => rows.size_hint(),
            Inner::Bitmap(rows) => rows.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Few rows and many, close together and far apart, so that every form comes up.
    fn row_sets() -> impl Strategy<Value = Vec<u32>> {
        prop_oneof![
            prop::collection::vec(0_u32..12, 0..8),
            prop::collection::vec(0_u32..100, 0..80),
            prop::collection::vec(0_u32..500_000, 0..80),
        ]
    }

    #[test]
    fn three_rows_need_no_allocation() {
        let mut postings = Postings::new();
        for row in [9, 1, 5] {
            assert!(postings.insert(row));
            assert!(!postings.insert(row));
        }
        assert_eq!(postings.heap_bytes(), 0);
        assert_eq!(postings.iter().collect::<Vec<_>>(), [1, 5, 9]);
    }

    #[test]
    fn a_dense_bitmap_is_counted_at_a_bit_a_row() {
        let postings: Postings = (0..1_000_000).collect();
        assert!(
            (125_000..140_000).contains(&postings.heap_bytes()),
            "{}",
            postings.heap_bytes()
        );
    }

    #[test]
    fn the_bounds_of_every_form_are_kept() {
        for count in [0, 1, 2, 3, 4, 31, 32, 33, 34, 5000] {
            let postings: Postings = (0..count).rev().collect();
            assert_eq!(postings.len(), u64::from(count));
            assert!(postings.iter().eq(0..count));
            assert_eq!(postings.is_empty(), count == 0);
        }
    }

    proptest! {
        #[test]
        fn postings_are_a_set(rows in row_sets(), removed in row_sets(), push: bool) {
            let mut postings = Postings::new();
            let mut twin = BTreeSet::new();
            for row in rows {
                let new = if push { postings.push(row) } else { postings.insert(row) };
                prop_assert_eq!(new, twin.insert(row));
            }
            prop_assert!(postings.iter().eq(twin.iter().copied()));
            for row in removed {
                prop_assert_eq!(postings.contains(row), twin.contains(&row));
                prop_assert_eq!(postings.remove(row), twin.remove(&row));
                prop_assert_eq!(postings.len(), twin.len() as u64);
            }
            prop_assert!(postings.iter().eq(twin.iter().copied()));
            prop_assert!(postings.to_bitmap().iter().eq(twin.iter().copied()));
        }

        #[test]
        fn set_operations_agree_with_plain_sets(a in row_sets(), b in row_sets()) {
            let (pa, pb): (Postings, Postings) =
                (a.iter().copied().collect(), b.iter().copied().collect());
            let (a, b): (BTreeSet<u32>, BTreeSet<u32>) =
                (a.into_iter().collect(), b.into_iter().collect());
            prop_assert!(pa.union(&pb).iter().eq(a.union(&b).copied()));
            prop_assert!(pa.intersection(&pb).iter().eq(a.intersection(&b).copied()));
            prop_assert!(pa.difference(&pb).iter().eq(a.difference(&b).copied()));
            let mut bitmap = pa.to_bitmap();
            pb.union_into(&mut bitmap);
            prop_assert!(bitmap.iter().eq(a.union(&b).copied()));
            let mut bitmap = pa.to_bitmap();
            pb.intersect_into(&mut bitmap);
            prop_assert!(bitmap.iter().eq(a.intersection(&b).copied()));
            let mut bitmap = pa.to_bitmap();
            pb.subtract_from(&mut bitmap);
            prop_assert!(bitmap.iter().eq(a.difference(&b).copied()));
        }
    }
}
