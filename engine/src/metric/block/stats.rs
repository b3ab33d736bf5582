//! What is known of a chunk's values without reading them. Bytes: `docs/formats/metric-block.md`,
//! "Statistics".
//!
//! Only chunks of at least [`STATS_SAMPLES_MIN`] samples have statistics: shorter ones are read as
//! quickly. They are used where one block covers a range alone, without head, tombstone or overlap.

use super::item::{Item, moved_by, put_integers};
use crate::{
    column::{ColumnError, values},
    varint::put_u64,
};

/// Samples from which on a chunk has statistics.
pub(crate) const STATS_SAMPLES_MIN: usize = 128;

/// The NaN that Prometheus writes where a series ends: an ordinary sample to the store, but none that
/// statistics count.
const STALENESS_MARKER_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Statistics of one chunk. Staleness markers take no part in any of them but `stale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ChunkStats {
    /// The least value that is a number; infinity if there is none. Zeros of either sign are one.
    pub(crate) min: f64,
    /// The greatest value that is a number; minus infinity if there is none.
    pub(crate) max: f64,
    /// Numbers added up one after the other in the order of time, from 0.
    pub(crate) sum: f64,
    /// Values that are no numbers and no staleness markers.
    pub(crate) nans: u32,
    /// Staleness markers.
    pub(crate) stale: u32,
    /// How often a number is less than the number before it in the chunk.
    pub(crate) resets: u32,
}

impl ChunkStats {
    /// The statistics of a chunk's values.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut stats = Self {
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            sum: 0.0,
            nans: 0,
            stale: 0,
            resets: 0,
        };
        // The usual chunk has no NaN; without a test for each value, all but the sum runs in lanes.
        if values.iter().fold(false, |any, v| any | v.is_nan()) {
            stats.add_with_nans(values);
        } else {
            stats.add_numbers(values);
        }
        stats
    }

    /// Bit for bit equal.
    #[cfg(test)]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let bits = |s: &Self| {
            (
                [s.min, s.max, s.sum].map(f64::to_bits),
                [s.nans, s.stale, s.resets],
            )
        };
        bits(self) == bits(other)
    }

    fn add_numbers(&mut self, values: &[f64]) {
        const LANES: usize = 8;
        let mut min = [f64::INFINITY; LANES];
        let mut max = [f64::NEG_INFINITY; LANES];
        let (groups, rest) = values.as_chunks::<LANES>();
        for group in groups {
            for ((min, max), &v) in min.iter_mut().zip(&mut max).zip(group) {
                *min = if v < *min { v } else { *min };
                *max = if v > *max { v } else { *max };
            }
            for v in group {
                self.sum += v;
            }
        }
        for &v in rest {
            self.sum += v;
        }
        for &v in min.iter().chain(rest) {
            self.min = if v < self.min { v } else { self.min };
        }
        for &v in max.iter().chain(rest) {
            self.max = if v > self.max { v } else { self.max };
        }
        let resets = values.iter().zip(values.iter().skip(1));
        self.resets = resets.map(|(before, v)| u32::from(v < before)).sum();
    }

    fn add_with_nans(&mut self, values: &[f64]) {
        let mut before = f64::NEG_INFINITY;
        for &v in values {
            if v.to_bits() == STALENESS_MARKER_BITS {
                self.stale += 1;
            } else if v.is_nan() {
                self.nans += 1;
            } else {
                self.min = if v < self.min { v } else { self.min };
                self.max = if v > self.max { v } else { self.max };
                self.sum += v;
                self.resets += u32::from(v < before);
                before = v;
            }
        }
    }
}

/// Writes and reads the statistics of the chunks of a group, as columns.
#[derive(Default)]
pub(super) struct StatsColumns {
    floats: values::Encoder,
    values: Vec<f64>,
    integers: Vec<i64>,
    scratch: Vec<u8>,
}

impl StatsColumns {
    /// Appends the statistics of a group: which chunks have some, then a column for each field.
    pub(super) fn encode(&mut self, chunks: &[Option<ChunkStats>], out: &mut Vec<u8>) {
        let have = chunks.iter().flatten();
        put_u64(out, have.clone().count() as u64);
        if have.clone().next().is_none() {
            return;
        }
        if have.clone().count() < chunks.len() {
            self.put_column(out, chunks.iter().map(|s| i64::from(s.is_some())));
        }
        self.put_values(out, have.clone().map(|s| s.min));
        self.put_values(out, have.clone().map(|s| s.max));
        self.put_values(out, have.clone().map(|s| s.sum));
        self.put_column(out, have.clone().map(|s| s.nans.into()));
        self.put_column(out, have.clone().map(|s| s.stale.into()));
        self.put_column(out, have.map(|s| s.resets.into()));
    }

    fn put_column(&mut self, out: &mut Vec<u8>, column: impl Iterator<Item = i64>) {
        self.integers.clear();
        self.integers.extend(column);
        put_integers(out, &self.integers, &mut self.scratch);
    }

    fn put_values(&mut self, out: &mut Vec<u8>, column: impl Iterator<Item = f64>) {
        self.values.clear();
        self.values.extend(column);
        self.scratch.clear();
        self.floats.encode(&self.values, &mut self.scratch);
        put_u64(out, self.scratch.len() as u64);
        out.extend_from_slice(&self.scratch);
    }
}

/// Reads the statistics of a group of `chunks` chunks, which the caller has bounded.
pub(super) fn decode(
    item: &mut Item<'_>,
    chunks: usize,
) -> Result<Vec<Option<ChunkStats>>, ColumnError> {
    let count = item.take_count(chunks, "more statistics than chunks")?;
    if count == 0 {
        return Ok(vec![None; chunks]);
    }
    let mut present = vec![1i64; chunks];
    if count < chunks {
        item.take_integers(chunks, &mut present)?;
    }
    if present.iter().filter(|p| **p == 1).count() != count {
        return Err(item.damaged("another number of statistics"));
    }
    let mut floats = [Vec::new(), Vec::new(), Vec::new()];
    for column in &mut floats {
        let bytes = item.take_bytes()?;
        let start_bytes = item.offset_bytes() - bytes.len();
        values::decode(bytes, count, column).map_err(|e| moved_by(e, start_bytes))?;
    }
    let mut counts = [Vec::new(), Vec::new(), Vec::new()];
    for column in &mut counts {
        item.take_integers(count, column)?;
    }
    let [min, max, sum] = floats;
    let [nans, stale, resets] = counts;
    let floats = min.into_iter().zip(max).zip(sum);
    let counts = nans.into_iter().zip(stale).zip(resets);
    let mut stats = floats.zip(counts);
    let mut out = Vec::with_capacity(chunks);
    for present in present {
        if present != 1 {
            out.push(None);
            continue;
        }
        let (((min, max), sum), ((nans, stale), resets)) = stats
            .next()
            .ok_or_else(|| item.damaged("a column of statistics is too short"))?;
        let count = |n: i64| u32::try_from(n).map_err(|_| item.damaged("a count is out of range"));
        out.push(Some(ChunkStats {
            min,
            max,
            sum,
            nans: count(nans)?,
            stale: count(stale)?,
            resets: count(resets)?,
        }));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            6 => -100i32..100,
            1 => Just(i32::MIN),
            1 => Just(i32::MAX),
        ]
        .prop_flat_map(|n| {
            let special = match n {
                i32::MIN => f64::from_bits(STALENESS_MARKER_BITS),
                i32::MAX => f64::NAN,
                n => f64::from(n) / 8.0,
            };
            prop_oneof![
                8 => Just(special),
                1 => any::<u64>().prop_map(f64::from_bits),
            ]
        })
    }

    proptest! {
        #[test]
        fn lanes_and_one_by_one_agree(
            values in prop::collection::vec(any::<i32>().prop_map(f64::from), 0..300),
        ) {
            let mut slow = ChunkStats::of(&[]);
            slow.add_with_nans(&values);
            prop_assert!(ChunkStats::of(&values).is_same(&slow));
        }

        #[test]
        fn statistics_come_back(
            chunks in prop::collection::vec(
                prop::option::of(prop::collection::vec(value(), 0..40)),
                0..70,
            ),
        ) {
            let stats: Vec<_> = chunks.iter().map(|c| c.as_deref().map(ChunkStats::of)).collect();
            let mut out = Vec::new();
            StatsColumns::default().encode(&stats, &mut out);
            let mut item = Item::new(&out);
            let read = decode(&mut item, stats.len()).unwrap();
            prop_assert!(item.is_at_end());
            prop_assert_eq!(read.len(), stats.len());
            for (read, given) in read.iter().zip(&stats) {
                match (read, given) {
                    (Some(read), Some(given)) => prop_assert!(read.is_same(given)),
                    (read, given) => prop_assert_eq!(read.is_some(), given.is_some()),
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, chunks in 0usize..600) {
            let _ = decode(&mut Item::new(&bytes), chunks);
        }
    }

    #[test]
    fn staleness_markers_and_nans_are_counted_apart() {
        let stale = f64::from_bits(STALENESS_MARKER_BITS);
        let stats = ChunkStats::of(&[5.0, f64::NAN, 3.0, stale, 4.0, 1.0]);
        assert_eq!((stats.min, stats.max, stats.sum), (1.0, 5.0, 13.0));
        assert_eq!((stats.nans, stats.stale, stats.resets), (1, 1, 2));
        let nothing = ChunkStats::of(&[stale]);
        assert_eq!(
            (nothing.min, nothing.max),
            (f64::INFINITY, f64::NEG_INFINITY)
        );
    }
}
