//! How long calls took, as a histogram whose buckets grow with the duration.
//!
//! An octave, from a power of two to the next, has 64 buckets of equal width; below 128 ns each
//! duration has a bucket of its own. The middle of a bucket is at most 1/128 (0.8 %) away from what was
//! counted in it. Bucketing takes integers only, so a duration falls into the same bucket on every
//! machine and in every release: what is counted anew can be taken off exactly.
//!
//! Invariants
//! - Adding and taking off commute. Once everything that was taken off had been added, in whatever
//!   order, no count is negative.

/// Buckets of an octave.
const OCTAVE: u16 = 64;
/// Bits that tell an octave's buckets apart.
const OCTAVE_BITS: u32 = OCTAVE.trailing_zeros();
/// Octaves: the first holds the durations below 64 ns.
const OCTAVES: u16 = 59;
/// One more than the highest bucket.
pub(super) const BUCKETS: u16 = OCTAVES * OCTAVE;

const _: () = assert!(OCTAVES as u32 == u64::BITS - OCTAVE_BITS + 1);

/// A histogram of durations. See the module for its resolution.
#[derive(Clone, Debug, Default)]
pub struct DurationSketch {
    /// By octave, up to the highest that was touched.
    octaves: Vec<Option<Box<[i64; OCTAVE as usize]>>>,
}

/// The bucket of a duration.
#[inline]
pub(super) fn bucket_of(duration_ns: u64) -> u16 {
    let shift = (u64::BITS - OCTAVE_BITS)
        .saturating_sub(duration_ns.leading_zeros())
        .saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most 58 octaves above the first, and below 128 in the octave"
    )]
    let bucket = (shift as u16) * OCTAVE + (duration_ns >> shift) as u16;
    bucket
}

/// The least duration of a bucket, and how many there are in it.
fn bounds_of(bucket: u16) -> (u64, u64) {
    let shift = u32::from((bucket / OCTAVE).saturating_sub(1));
    let low = u64::from(bucket) - u64::from(OCTAVE) * u64::from(shift);
    (low << shift, 1 << shift)
}

/// What stands for the durations of a bucket, in ns.
fn middle_of(bucket: u16) -> f64 {
    let (low, width) = bounds_of(bucket);
    low as f64 + (width - 1) as f64 / 2.0
}

impl DurationSketch {
    /// Counts a duration.
    #[inline]
    pub fn add(&mut self, duration_ns: u64) {
        self.change(bucket_of(duration_ns), 1);
    }

    /// Takes a duration off that is or will be counted.
    #[inline]
    pub fn remove(&mut self, duration_ns: u64) {
        self.change(bucket_of(duration_ns), -1);
    }

    /// Adds `by` to the count of a bucket.
    #[inline]
    pub(super) fn change(&mut self, bucket: u16, by: i64) {
        let octave = usize::from(bucket / OCTAVE);
        if self.octaves.len() <= octave {
            self.octaves.resize(octave + 1, None);
        }
        if let Some(octave) = self.octaves.get_mut(octave) {
            let counts = octave.get_or_insert_with(|| Box::new([0; OCTAVE as usize]));
            if let Some(count) = counts.get_mut(usize::from(bucket % OCTAVE)) {
                *count = count.saturating_add(by);
            }
        }
    }

    /// Adds what another one counts.
    pub fn merge(&mut self, other: &Self) {
        if self.octaves.len() < other.octaves.len() {
            self.octaves.resize(other.octaves.len(), None);
        }
        for (into, from) in self.octaves.iter_mut().zip(&other.octaves) {
            let Some(from) = from else { continue };
            match into {
                Some(into) => {
                    for (into, from) in into.iter_mut().zip(from.iter()) {
                        *into = into.saturating_add(*from);
                    }
                }
                none => *none = Some(from.clone()),
            }
        }
    }

    /// Counts nothing any more; keeps its room.
    pub(super) fn clear(&mut self) {
        for octave in self.octaves.iter_mut().flatten() {
            octave.fill(0);
        }
    }

    /// How many durations are counted.
    pub fn count(&self) -> u64 {
        self.buckets().map(|(_, count)| count).sum()
    }

    /// The buckets that count something, rising, with their counts.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        (0..OCTAVES).zip(&self.octaves).flat_map(|(i, octave)| {
            let counts = octave.as_deref().into_iter().flatten();
            (i * OCTAVE..).zip(counts).filter_map(|(bucket, &count)| {
                let count = u64::try_from(count).ok().filter(|count| *count > 0)?;
                Some((bucket, count))
            })
        })
    }

    /// What is counted, lowest first: the duration that stands for a bucket, in ns, and its count.
    pub fn durations(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.buckets()
            .map(|(bucket, count)| (middle_of(bucket), count))
    }

    /// The quantiles `qs`, each from 0 to 1 and in rising order, in ns, by linear interpolation between
    /// the two nearest ranks; `None` if nothing is counted. Each rank is at most 0.8 % off.
    pub fn quantiles<const N: usize>(&self, qs: [f64; N]) -> Option<[f64; N]> {
        let count = self.count();
        let last = count.checked_sub(1)?;
        let mut found = [0.0; N];
        for (found, q) in found.iter_mut().zip(qs) {
            let rank = last as f64 * q.clamp(0.0, 1.0);
            let (low, high) = self.around(rank.floor(), rank.ceil());
            *found = low + (high - low) * (rank - rank.floor());
        }
        Some(found)
    }

    /// The durations at two ranks.
    fn around(&self, low_rank: f64, high_rank: f64) -> (f64, f64) {
        let (mut seen, mut low, mut last) = (0u64, None, 0.0);
        for (middle, count) in self.durations() {
            seen += count;
            last = middle;
            if low.is_none() && seen as f64 > low_rank {
                low = Some(middle);
            }
            if seen as f64 > high_rank {
                break;
            }
        }
        (low.unwrap_or(last), last)
    }

    /// About how much memory it takes.
    pub fn heap_bytes(&self) -> usize {
        let octaves = self.octaves.iter().flatten().count();
        self.octaves.capacity() * size_of::<usize>() + octaves * size_of::<[i64; OCTAVE as usize]>()
    }
}

impl PartialEq for DurationSketch {
    fn eq(&self, other: &Self) -> bool {
        self.buckets().eq(other.buckets())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn buckets_rise_without_gaps_and_meet_at_their_bounds() {
        let mut next = 0u64;
        for bucket in 0..BUCKETS {
            let (low, width) = bounds_of(bucket);
            assert_eq!((low, bucket_of(low)), (next, bucket));
            assert_eq!(bucket_of(low + (width - 1)), bucket);
            next = low.wrapping_add(width);
        }
        assert_eq!(next, 0, "the last bucket ends where u64 does");
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn nothing_counted_has_no_quantile() {
        assert_eq!(DurationSketch::default().quantiles([0.5]), None);
        let mut sketch = DurationSketch::default();
        sketch.add(1_000_000);
        sketch.remove(1_000_000);
        assert_eq!(sketch.quantiles([0.5]), None);
        assert_eq!(sketch, DurationSketch::default());
    }

    proptest! {
        #[test]
        fn quantiles_are_within_one_percent(
            mut durations in vec(prop_oneof![0u64..300, 0u64..10_000_000, any::<u64>()], 1..300),
            q in 0.0f64..=1.0,
        ) {
            let mut sketch = DurationSketch::default();
            for &duration in &durations {
                sketch.add(duration);
            }
            durations.sort_unstable();
            let rank = (durations.len() - 1) as f64 * q;
            let at = |rank: f64| durations[rank as usize] as f64;
            let exact = at(rank.floor()) + (at(rank.ceil()) - at(rank.floor())) * rank.fract();
            let [found] = sketch.quantiles([q]).unwrap();
            prop_assert!((found - exact).abs() <= exact * 0.01, "{found} instead of {exact}");
        }

        #[test]
        fn what_is_taken_off_leaves_no_trace(
            kept in vec(any::<u64>(), 0..50), gone in vec(any::<u64>(), 0..50),
        ) {
            let of = |durations: &[u64]| {
                let mut sketch = DurationSketch::default();
                durations.iter().for_each(|&d| sketch.add(d));
                sketch
            };
            let mut all = DurationSketch::default();
            gone.iter().for_each(|&d| all.remove(d));
            all.merge(&of(&kept));
            all.merge(&of(&gone));
            prop_assert_eq!(&all, &of(&kept));
            prop_assert_eq!(all.count(), kept.len() as u64);
        }
    }
}
