//! Sets of numbers that are looked for, and the places where they are found.

use roaring::RoaringBitmap;

/// Numbers that are looked for: rising ranges that do not touch, ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    ranges: Vec<(i64, i64)>,
}

impl Wanted {
    pub(super) fn one(value: i64) -> Self {
        Self {
            ranges: vec![(value, value)],
        }
    }

    /// Adds a number above all there are.
    pub(super) fn push(&mut self, value: i64) {
        match self.ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(value) => *last = value,
            _ => self.ranges.push((value, value)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    #[inline]
    pub(super) fn contains(&self, value: i64) -> bool {
        match self.ranges.as_slice() {
            [] => false,
            [(low, high)] => *low <= value && value <= *high,
            ranges => {
                let before = ranges.partition_point(|&(_, high)| high < value);
                ranges.get(before).is_some_and(|&(low, _)| low <= value)
            }
        }
    }

    /// Whether one of them lies between two, both included.
    pub(super) fn touches(&self, low: i64, high: i64) -> bool {
        let before = self.ranges.partition_point(|range| range.1 < low);
        self.ranges.get(before).is_some_and(|range| range.0 <= high)
    }

    /// Whether all numbers between two, both included, are wanted.
    pub(super) fn covers(&self, low: i64, high: i64) -> bool {
        let before = self.ranges.partition_point(|range| range.1 < low);
        let range = self.ranges.get(before);
        range.is_some_and(|range| range.0 <= low && high <= range.1)
    }
}

/// Places found in rising order.
#[derive(Debug, Default)]
pub(super) struct Found {
    places: RoaringBitmap,
    /// The last range, which may still grow.
    start: u32,
    end: u32,
}

impl Found {
    #[inline]
    pub(super) fn push(&mut self, place: u32) {
        self.push_range(place, place.saturating_add(1));
    }

    /// From `start` on, before `end`.
    #[inline]
    pub(super) fn push_range(&mut self, start: u32, end: u32) {
        if start == self.end {
            self.end = end;
            return;
        }
        self.settle();
        (self.start, self.end) = (start, end);
    }

    #[inline]
    fn settle(&mut self) {
        if self.end.wrapping_sub(self.start) == 1 {
            // Damaged columns may give places that do not rise.
            if self.places.try_push(self.start).is_err() {
                self.places.insert(self.start);
            }
        } else if self.start < self.end {
            self.places.insert_range(self.start..self.end);
        }
    }

    pub(super) fn finish(mut self) -> RoaringBitmap {
        self.settle();
        self.places
    }
}

/// What is found among the candidates, if there are any.
pub(super) fn within(
    mut found: RoaringBitmap,
    candidates: Option<&RoaringBitmap>,
) -> RoaringBitmap {
    if let Some(candidates) = candidates {
        found &= candidates;
    }
    found
}
