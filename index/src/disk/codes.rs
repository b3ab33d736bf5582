//! Sets of codes of a label.

use std::ops::Range;

/// Ranges up to which a set is searched rather than kept as bits as well.
const RANGES_SEARCHED_MAX: usize = 8;

/// A bit for each code. Codes beyond the last are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CodeBits {
    words: Vec<u64>,
    last: u32,
}

impl CodeBits {
    /// For the codes 0 to `last`, whose count the caller has checked.
    pub(crate) fn new(last: u32) -> Self {
        Self {
            words: vec![0; last as usize / 64 + 1],
            last,
        }
    }

    /// Returns whether the code is new.
    #[inline]
    pub(crate) fn insert(&mut self, code: u32) -> bool {
        let bit = 1 << (code % 64);
        match self.words.get_mut(code as usize / 64) {
            Some(word) if code <= self.last => {
                let is_new = *word & bit == 0;
                *word |= bit;
                is_new
            }
            _ => false,
        }
    }

    #[inline]
    pub(crate) fn contains(&self, code: u32) -> bool {
        let word = self.words.get(code as usize / 64);
        word.is_some_and(|word| word >> (code % 64) & 1 != 0)
    }

    /// The codes of a range, rising.
    pub(crate) fn range(&self, range: Range<u32>) -> impl Iterator<Item = u32> {
        let mut next = range.start;
        std::iter::from_fn(move || {
            while next < range.end {
                let word = self.words.get(next as usize / 64)? >> (next % 64);
                if word == 0 {
                    next = (next / 64 + 1) * 64;
                    continue;
                }
                let code = next + word.trailing_zeros();
                next = code + 1;
                return (code < range.end).then_some(code);
            }
            None
        })
    }
}

/// Codes of a label, 0 for its absence: rising ranges that do not touch, ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CodeSet {
    ranges: Vec<(u32, u32)>,
    /// The same, if there are many ranges.
    bits: Option<CodeBits>,
}

impl CodeSet {
    /// Adds codes above all there are, or next to the last.
    pub(crate) fn push(&mut self, first: u32, last: u32) {
        if first > last {
            return;
        }
        match self.ranges.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => self.ranges.push((first, last)),
        }
    }

    /// Makes it fast to ask; `max` is the last code that it has. To be called when it is complete.
    pub(crate) fn settle(mut self, max: u32) -> Self {
        if self.ranges.len() > RANGES_SEARCHED_MAX {
            let mut bits = CodeBits::new(max);
            for code in self.codes() {
                bits.insert(code);
            }
            self.bits = Some(bits);
        }
        self
    }

    /// All other codes up to `max`.
    pub(crate) fn complement(&self, max: u32) -> Self {
        let mut others = Self::default();
        let mut next = Some(0);
        for (first, last) in &self.ranges {
            if let (Some(from), Some(to)) = (next, first.checked_sub(1)) {
                others.push(from, to);
            }
            next = last.checked_add(1);
        }
        if let Some(from) = next {
            others.push(from, max);
        }
        others
    }

    pub(crate) fn ranges(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    pub(crate) fn codes(&self) -> impl Iterator<Item = u32> {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// How many codes it has.
    pub(crate) fn len(&self) -> u64 {
        let lens = self.ranges.iter();
        lens.map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether all codes of a range, ends included, are in it.
    pub(crate) fn holds_range(&self, first: u32, last: u32) -> bool {
        let before = self.ranges.partition_point(|(_, end)| *end < first);
        let range = self.ranges.get(before);
        first > last || range.is_some_and(|(start, end)| *start <= first && last <= *end)
    }

    #[inline]
    pub(crate) fn contains(&self, code: u32) -> bool {
        if let Some(bits) = &self.bits {
            return bits.contains(code);
        }
        let range = |(first, last): &(u32, u32)| *first <= code && code <= *last;
        self.ranges.iter().any(range)
    }

    /// Whether one of the codes is in the range, ends included.
    pub(crate) fn touches(&self, first: u32, last: u32) -> bool {
        let before = self.ranges.partition_point(|(_, end)| *end < first);
        let range = self.ranges.get(before);
        range.is_some_and(|(start, _)| *start <= last)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sets_agree_with_plain_sets(
            codes in prop::collection::btree_set(0_u32..200, 0..80), first in 0_u32..200,
            len in 0_u32..100,
        ) {
            let mut set = CodeSet::default();
            for code in &codes {
                set.push(*code, *code);
            }
            let set = set.settle(199);
            let others: BTreeSet<u32> = (0..200).filter(|code| !codes.contains(code)).collect();
            prop_assert!(set.complement(199).codes().eq(others.iter().copied()));
            prop_assert!((0..250).all(|code| set.contains(code) == codes.contains(&code)));
            let range = first..=(first + len).min(199);
            let inside = codes.range(range.clone()).count();
            prop_assert_eq!(set.touches(first, *range.end()), inside > 0);
            prop_assert_eq!(set.holds_range(first, *range.end()), inside == range.clone().count());
            prop_assert_eq!(set.len(), codes.len() as u64);

            let mut bits = CodeBits::new(199);
            for code in &codes {
                prop_assert!(bits.insert(*code));
            }
            prop_assert!(!bits.insert(200));
            let end = *range.end() + 1;
            let expected = codes.range(first..end).copied();
            prop_assert!(bits.range(first..end).eq(expected));
        }
    }
}
