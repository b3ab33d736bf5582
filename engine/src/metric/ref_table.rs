//! From references in the log to series, while it is replayed.
//!
//! References are given out by a counter, so those of a log lie close together: they are looked up in a
//! plain list. What lies far from the rest (after damage, or a log that was pieced together) goes to a
//! hash table, so that no reference makes the list large.

use hashbrown::HashMap;

use super::registry::SeriesNumber;

/// The list may be this many times as long as it has entries, and [`SPARE_ENTRIES`] more.
const LIST_ENTRIES_PER_USED: u64 = 4;
const SPARE_ENTRIES: u64 = 1 << 16;
/// A place of the list that no series has.
const NONE: u32 = u32::MAX;

/// See the module's doc.
#[derive(Debug, Default)]
pub(crate) struct RefTable {
    /// The reference of the first entry of the list.
    base: u64,
    list: Vec<u32>,
    used: u64,
    far: HashMap<u64, SeriesNumber>,
}

impl RefTable {
    #[inline]
    pub(crate) fn get(&self, series: u64) -> Option<SeriesNumber> {
        // A reference below the base wraps to a place that no list has.
        let place = usize::try_from(series.wrapping_sub(self.base)).unwrap_or(usize::MAX);
        match self.list.get(place) {
            Some(&NONE) | None => self.far.get(&series).copied(),
            Some(&number) => Some(SeriesNumber(number)),
        }
    }

    /// Enters a reference, once.
    pub(crate) fn insert(&mut self, series: u64, number: SeriesNumber) {
        if self.list.is_empty() {
            self.base = series;
        }
        let place = series.wrapping_sub(self.base);
        let bound = self.used * LIST_ENTRIES_PER_USED + SPARE_ENTRIES;
        if place >= bound || number.0 == NONE {
            self.far.insert(series, number);
            return;
        }
        let Ok(place) = usize::try_from(place) else {
            return;
        };
        if self.list.len() <= place {
            self.list.resize(place + 1, NONE);
        }
        if let Some(entry) = self.list.get_mut(place) {
            *entry = number.0;
            self.used += 1;
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.list.capacity() * size_of::<u32>()
            + self.far.capacity() * (size_of::<(u64, SeriesNumber)>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_reference_is_found_and_no_other(
            refs in prop::collection::btree_set(prop_oneof![1000u64..3000, any::<u64>()], 0..200),
            others in prop::collection::vec(any::<u64>(), 20),
            rising in any::<bool>(),
        ) {
            let mut refs: Vec<u64> = refs.into_iter().collect();
            if !rising {
                refs.reverse();
            }
            let mut table = RefTable::default();
            for (number, &series) in (0..).zip(&refs) {
                table.insert(series, SeriesNumber(number));
            }
            for (number, &series) in (0..).zip(&refs) {
                prop_assert_eq!(table.get(series), Some(SeriesNumber(number)));
            }
            for other in others.iter().filter(|o| !refs.contains(o)) {
                prop_assert_eq!(table.get(*other), None);
            }
            prop_assert!((table.heap_bytes() as u64) < SPARE_ENTRIES * 16);
        }
    }
}
