//! Sets of numbers that are looked for, and the places where they are found.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined into an `Op` is compiled for its vectors"
)]

use roaring::RoaringBitmap;

use crate::column::{
    integers::GROUP,
    kernel::{Kernel, Op},
};

/// Between the least and the greatest number looked for may be so many for each to have a bit.
const BITS_MAX: u64 = 1 << 22;

/// Numbers that are looked for: rising ranges that do not touch, ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    ranges: Vec<(i64, i64)>,
    /// A bit for each number from the least to the greatest, if there are several ranges.
    bits: Vec<u64>,
}

impl Wanted {
    pub(super) fn one(value: i64) -> Self {
        Self {
            ranges: vec![(value, value)],
            bits: Vec::new(),
        }
    }

    /// Adds a number above all there are.
    pub(super) fn push(&mut self, value: i64) {
        match self.ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(value) => *last = value,
            _ => self.ranges.push((value, value)),
        }
    }

    /// Makes it fast to ask, when it is complete.
    pub(super) fn settle(&mut self) {
        let (Some(&(low, _)), Some(&(_, high))) = (self.ranges.first(), self.ranges.last()) else {
            return;
        };
        let span = high.abs_diff(low);
        if self.ranges.len() < 2 || span >= BITS_MAX {
            return;
        }
        let mut bits = vec![0; span as usize / 64 + 1];
        for &(first, last) in &self.ranges {
            for bit in first.abs_diff(low)..=last.abs_diff(low) {
                if let Some(word) = bits.get_mut(bit as usize / 64) {
                    *word |= 1 << (bit % 64);
                }
            }
        }
        self.bits = bits;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    #[inline]
    pub(super) fn contains(&self, value: i64) -> bool {
        match self.ranges.as_slice() {
            [] => false,
            [(low, high)] => *low <= value && value <= *high,
            [(low, _), ..] if !self.bits.is_empty() => {
                let bit = value.wrapping_sub(*low).cast_unsigned();
                let word = usize::try_from(bit / 64)
                    .ok()
                    .and_then(|at| self.bits.get(at));
                word.is_some_and(|word| word >> (bit % 64) & 1 == 1)
            }
            ranges => {
                let before = ranges.partition_point(|&(_, high)| high < value);
                ranges.get(before).is_some_and(|&(low, _)| low <= value)
            }
        }
    }

    /// A bit for each of a group's numbers that is wanted.
    pub(super) fn among(&self, group: &[i64]) -> [u64; GROUP / 64] {
        let mut words = [0; GROUP / 64];
        if let &[(low, high)] = self.ranges.as_slice() {
            Kernel::best().run(InRange {
                values: group,
                low,
                span: high.wrapping_sub(low).cast_unsigned(),
                words: &mut words,
            });
        } else {
            for (values, word) in group.chunks(64).zip(&mut words) {
                for (bit, &value) in values.iter().enumerate() {
                    *word |= u64::from(self.contains(value)) << bit;
                }
            }
        }
        words
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

/// Sets a bit for each value of a range.
struct InRange<'a> {
    values: &'a [i64],
    low: i64,
    span: u64,
    words: &'a mut [u64; GROUP / 64],
}

impl Op for InRange<'_> {
    type Answer = ();

    #[inline(always)]
    fn run(self) {
        for (values, word) in self.values.chunks(64).zip(self.words) {
            let mut mask = 0;
            for (bit, value) in values.iter().enumerate() {
                let above = value.wrapping_sub(self.low).cast_unsigned();
                mask |= u64::from(above <= self.span) << bit;
            }
            *word = mask;
        }
    }
}

/// Places of one container of a bitmap.
const CONTAINER: u32 = 1 << 16;
const CONTAINER_WORDS: usize = CONTAINER as usize / 64;

/// Collects the places found. They need not rise, but that is when it is fast.
#[derive(Debug)]
pub(super) struct Found {
    places: RoaringBitmap,
    /// The container that is being filled, and its bits.
    container: Option<u32>,
    words: Box<[u64; CONTAINER_WORDS]>,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            places: RoaringBitmap::new(),
            container: None,
            words: Box::new([0; CONTAINER_WORDS]),
        }
    }
}

impl Found {
    #[inline]
    pub(super) fn push(&mut self, place: u32) {
        self.turn_to(place / CONTAINER);
        let bit = place % CONTAINER;
        if let Some(word) = self.words.get_mut(bit as usize / 64) {
            *word |= 1 << (bit % 64);
        }
    }

    /// From `start` on, before `end`.
    pub(super) fn push_range(&mut self, start: u32, end: u32) {
        if end.saturating_sub(start) >= 64 {
            self.settle();
            self.places.insert_range(start..end);
        } else {
            (start..end).for_each(|place| self.push(place));
        }
    }

    /// The places of a group, a bit for each.
    pub(super) fn push_group(&mut self, group: u32, bits: &[u64; GROUP / 64]) {
        if bits.iter().all(|&word| word == 0) {
            return;
        }
        let first = group * GROUP as u32;
        self.turn_to(first / CONTAINER);
        let at = (first % CONTAINER) as usize / 64;
        let words = self.words.iter_mut().skip(at);
        for (word, bits) in words.zip(bits) {
            *word |= bits;
        }
    }

    #[inline]
    fn turn_to(&mut self, container: u32) {
        if self.container != Some(container) {
            self.settle();
            self.container = Some(container);
        }
    }

    fn settle(&mut self) {
        let Some(container) = self.container.take() else {
            return;
        };
        let mut bytes = Vec::with_capacity(CONTAINER as usize / 8);
        for word in self.words.iter_mut() {
            bytes.extend_from_slice(&word.to_le_bytes());
            *word = 0;
        }
        self.places |= RoaringBitmap::from_lsb0_bytes(container * CONTAINER, &bytes);
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
