//! Columns of strictly rising timestamps. Bytes: `docs/formats/time-column.md`.
//!
//! A header says count, first and last timestamp, so that [`bounds`] decodes nothing. Timestamps are
//! counted in *steps* from the first one: a step is the greatest common divisor of their distances, so
//! that milliseconds in nanoseconds cost nothing, and a regular column is its header alone. The steps of
//! any other are a column of integers (`integers.rs`), whose trend makes jitter all that is stored.
//!
//! Invariants
//! - A column has 1 to [`COLUMN_SAMPLES_MAX`] timestamps; decoded ones rise strictly, whatever the bytes.
//! - `bounds` and `decode` agree about first, last and count.

#![expect(
    clippy::indexing_slicing,
    reason = "hot loops over slices whose length is made here"
)]
#![expect(
    clippy::inline_always,
    reason = "only what is inlined into an `Op` is compiled for its vectors"
)]

use crate::{
    column::{
        ColumnError,
        integers::{self, Finish},
        kernel::Kernel,
    },
    varint,
};

/// Timestamps of a column: raw values of that many fit a page of 64 KiB.
pub const COLUMN_SAMPLES_MAX: usize = 8_000;

/// First byte: this flag in the highest bit, the power of ten in the low ones.
const REGULAR: u8 = 0x80;
/// 10^18 is the largest power of ten in an `i64`.
const POWER_MAX: u8 = 18;

/// What a column's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Timestamps, at least 1.
    pub count: u32,
    /// The first one, in nanoseconds since the Unix epoch.
    pub first_ns: i64,
    /// The last one, equal to the first if it is alone.
    pub last_ns: i64,
}

/// A header and the bytes behind it.
struct Header<'a> {
    bounds: Bounds,
    /// Nanoseconds of a step; 0 if there is one timestamp.
    step_ns: u64,
    /// `None`: every distance is one step.
    steps: Option<&'a [u8]>,
}

/// Appends the column of `times_ns`.
///
/// # Panics
///
/// If there is none or more than [`COLUMN_SAMPLES_MAX`], or if they do not rise strictly.
pub fn encode(times_ns: &[i64], out: &mut Vec<u8>) {
    assert!(
        (1..=COLUMN_SAMPLES_MAX).contains(&times_ns.len()),
        "a column has 1 to {COLUMN_SAMPLES_MAX} timestamps"
    );
    let (first_ns, last_ns) = (times_ns[0], times_ns[times_ns.len() - 1]);
    let (mut step_ns, mut regular, mut rising) = (0, true, true);
    let first_distance = times_ns
        .get(1)
        .map_or(0, |&second| distance(first_ns, second));
    for pair in times_ns.windows(2) {
        let between = distance(pair[0], pair[1]);
        rising &= pair[0] < pair[1];
        regular &= between == first_distance;
        step_ns = common_divisor(step_ns, between);
    }
    assert!(rising, "timestamps of a column rise");

    let mut power = 0;
    let (mut first, mut step) = (first_ns, step_ns);
    while power < POWER_MAX && first % 10 == 0 && step.is_multiple_of(10) && (first, step) != (0, 0)
    {
        first /= 10;
        step /= 10;
        power += 1;
    }
    out.push(power | if regular { REGULAR } else { 0 });
    varint::put_u64(out, times_ns.len() as u64);
    varint::put_i64(out, first);
    if times_ns.len() == 1 {
        return;
    }
    varint::put_u64(out, step);
    if regular {
        return;
    }
    varint::put_u64(out, distance(first_ns, last_ns) / step_ns);
    let steps: Vec<i64> = times_ns
        .iter()
        .map(|&time_ns| (distance(first_ns, time_ns) / step_ns).cast_signed())
        .collect();
    integers::encode(&steps, out);
}

/// Reads count, first and last timestamp off the header of a column.
///
/// # Errors
///
/// If there is none.
pub fn bounds(bytes: &[u8]) -> Result<Bounds, ColumnError> {
    Ok(header(bytes)?.bounds)
}

/// Decodes a column, which is all of `bytes`, and appends its timestamps to `out`.
///
/// # Errors
///
/// If the bytes are no column; `out` is as long as before then.
pub fn decode(bytes: &[u8], out: &mut Vec<i64>) -> Result<(), ColumnError> {
    decode_with(Kernel::best(), bytes, out)
}

/// [`decode`] with chosen instructions, to compare them.
///
/// # Errors
///
/// As `decode`.
pub fn decode_with(kernel: Kernel, bytes: &[u8], out: &mut Vec<i64>) -> Result<(), ColumnError> {
    let Header {
        bounds,
        step_ns,
        steps,
    } = header(bytes)?;
    let count = bounds.count as usize;
    let start = out.len();
    let Some(steps) = steps else {
        out.extend((0..u64::from(bounds.count)).map(|i| {
            bounds
                .first_ns
                .wrapping_add(i.wrapping_mul(step_ns).cast_signed())
        }));
        return Ok(());
    };
    let steps_at = bytes.len() - steps.len();
    let mut rising = Rising {
        first_ns: bounds.first_ns,
        step_ns: step_ns.cast_signed(),
        before_ns: None,
        holds: true,
    };
    integers::decode_finished(kernel, steps, count, out, &mut rising).map_err(
        |ColumnError::Damaged {
             offset_bytes,
             reason,
         }| damaged(steps_at + offset_bytes, reason),
    )?;
    if rising.holds && out[start] == bounds.first_ns && rising.before_ns == Some(bounds.last_ns) {
        Ok(())
    } else {
        out.truncate(start);
        Err(damaged(
            steps_at,
            "timestamps do not rise from the first to the last one",
        ))
    }
}

/// Makes timestamps of steps and sees to it that they rise.
struct Rising {
    first_ns: i64,
    step_ns: i64,
    /// The last timestamp of the group before.
    before_ns: Option<i64>,
    holds: bool,
}

impl Finish for &mut Rising {
    #[inline(always)]
    fn finish(&mut self, group: &mut [i64]) {
        let (first_ns, step_ns) = (self.first_ns, self.step_ns);
        for value in &mut *group {
            *value = first_ns.wrapping_add(value.wrapping_mul(step_ns));
        }
        let (Some(&first), Some(&last)) = (group.first(), group.last()) else {
            return;
        };
        let mut falls = 0_u64;
        for (earlier, later) in group.iter().zip(&group[1..]) {
            falls |= u64::from(earlier >= later);
        }
        self.holds &= falls == 0 && self.before_ns.is_none_or(|before_ns| before_ns < first);
        self.before_ns = Some(last);
    }
}

fn header(bytes: &[u8]) -> Result<Header<'_>, ColumnError> {
    let mut rest = bytes;
    let cut = |rest: &[u8]| damaged(bytes.len() - rest.len(), "the header is cut short");

    let (&code, behind) = rest.split_first().ok_or_else(|| cut(rest))?;
    rest = behind;
    let regular = code & REGULAR != 0;
    let power = code & !REGULAR;
    if power > POWER_MAX {
        return Err(damaged(0, "a power of ten beyond 64 bits"));
    }
    let unit = 10_i64.pow(u32::from(power));

    let count = varint::take_u32(&mut rest).ok_or_else(|| cut(rest))?;
    if count == 0 || count as usize > COLUMN_SAMPLES_MAX {
        return Err(damaged(1, "no or too many timestamps"));
    }
    let first_ns = varint::take_i64(&mut rest)
        .ok_or_else(|| cut(rest))?
        .checked_mul(unit)
        .ok_or_else(|| damaged(1, "the first timestamp is out of range"))?;

    let (mut step_ns, mut last_ns) = (0, first_ns);
    if count > 1 {
        let at = bytes.len() - rest.len();
        let out_of_range = || damaged(at, "the last timestamp is out of range");
        step_ns = varint::take_u64(&mut rest)
            .ok_or_else(|| cut(rest))?
            .checked_mul(unit.cast_unsigned())
            .filter(|&step_ns| step_ns > 0)
            .ok_or_else(out_of_range)?;
        let steps = if regular {
            u64::from(count) - 1
        } else {
            varint::take_u64(&mut rest).ok_or_else(|| cut(rest))?
        };
        last_ns = steps
            .checked_mul(step_ns)
            .and_then(|distance| first_ns.checked_add_unsigned(distance))
            .filter(|&last_ns| last_ns > first_ns)
            .ok_or_else(out_of_range)?;
    }
    let alone = count == 1 || regular;
    if alone && !rest.is_empty() || count == 1 && !regular {
        return Err(damaged(
            bytes.len() - rest.len(),
            "bytes behind a regular column",
        ));
    }
    Ok(Header {
        bounds: Bounds {
            count,
            first_ns,
            last_ns,
        },
        step_ns,
        steps: (!alone).then_some(rest),
    })
}

fn damaged(offset_bytes: usize, reason: &'static str) -> ColumnError {
    ColumnError::Damaged {
        offset_bytes,
        reason,
    }
}

/// From `earlier` to `later`, which may be further than an `i64` holds.
fn distance(earlier: i64, later: i64) -> u64 {
    later.wrapping_sub(earlier).cast_unsigned()
}

/// Euclid's; the divisor hardly ever changes from one timestamp to the next, which costs one division.
fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while a != 0 {
        (a, b) = (b % a, a);
    }
    b
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const START_NS: i64 = 1_700_000_000_000_000_000;
    const MS_NS: i64 = 1_000_000;

    fn round_trip(times_ns: &[i64]) -> usize {
        let mut bytes = Vec::new();
        encode(times_ns, &mut bytes);
        let mut out = vec![7];
        decode(&bytes, &mut out).unwrap();
        assert_eq!(out[0], 7);
        assert!(out[1..] == *times_ns);
        for kernel in Kernel::ALL {
            out.clear();
            decode_with(kernel, &bytes, &mut out).unwrap();
            assert!(out == *times_ns);
        }
        let bounds = bounds(&bytes).unwrap();
        assert_eq!(bounds.count as usize, times_ns.len());
        assert_eq!(bounds.first_ns, times_ns[0]);
        assert_eq!(bounds.last_ns, *times_ns.last().unwrap());
        bytes.len()
    }

    /// Timestamps as scrapes, pushes and strangers make them.
    fn column() -> impl Strategy<Value = Vec<i64>> {
        let unit = prop_oneof![
            Just(1),
            Just(1_000),
            Just(MS_NS),
            Just(1_000 * MS_NS),
            1..100_i64
        ];
        (
            1..3000_usize,
            unit,
            1..100_000_i64,
            0..2000_i64,
            any::<u64>(),
            any::<i64>(),
        )
            .prop_map(|(count, unit, interval, jitter, seed, start)| {
                let mut state = seed | 1;
                let mut times_ns: Vec<i64> = (0..)
                    .take(count)
                    .map(|i| {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        let jitter = (state >> 1).cast_signed() % (jitter + 1);
                        (start / 2).saturating_add((i * interval + jitter).saturating_mul(unit))
                    })
                    .collect();
                times_ns.sort_unstable();
                times_ns.dedup();
                times_ns
            })
    }

    proptest! {
        #[test]
        fn columns_come_back(times_ns in column()) {
            round_trip(&times_ns);
        }

        #[test]
        fn any_rising_timestamps_come_back(times_ns: std::collections::BTreeSet<i64>, ends: bool) {
            let mut times_ns = times_ns;
            if ends || times_ns.is_empty() {
                times_ns.extend([i64::MIN, i64::MAX]);
            }
            round_trip(&Vec::from_iter(times_ns));
        }

        #[test]
        fn damaged_columns_are_refused_or_other_rising_timestamps(
            times_ns in column(), at: prop::sample::Index, flip in 1..=255_u8,
        ) {
            let mut bytes = Vec::new();
            encode(&times_ns, &mut bytes);
            let at = at.index(bytes.len());
            let mut out = Vec::new();
            prop_assert!(decode(&bytes[..at], &mut out).is_err());
            prop_assert!(out.is_empty());
            bytes[at] ^= flip;
            if decode(&bytes, &mut out).is_ok() {
                prop_assert!(out.is_sorted_by(|a, b| a < b));
                let bounds = bounds(&bytes).unwrap();
                prop_assert_eq!(bounds.count as usize, out.len());
                prop_assert_eq!(bounds.first_ns, out[0]);
                prop_assert_eq!(bounds.last_ns, out[out.len() - 1]);
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes, &mut Vec::new());
        }
    }

    #[test]
    fn a_regular_column_is_its_header_alone() {
        let seconds: Vec<i64> = (0..8000).map(|i| START_NS + i * 10_000 * MS_NS).collect();
        assert_eq!(round_trip(&seconds), 1 + 2 + 5 + 1);
        let phase: Vec<i64> = seconds
            .iter()
            .map(|time_ns| time_ns + 123 * MS_NS)
            .collect();
        assert_eq!(round_trip(&phase), 1 + 2 + 6 + 2);
        assert_eq!(round_trip(&phase[..1]), 1 + 1 + 6);
    }

    #[test]
    fn the_ends_of_time_fit_one_column() {
        round_trip(&[i64::MIN, i64::MAX]);
        round_trip(&[i64::MIN, 0, i64::MAX]);
        round_trip(&[i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX]);
        round_trip(&[0]);
    }

    #[test]
    fn the_golden_column_of_version_1_reads_as_it_was_written() {
        let golden = include_bytes!("../../tests/golden/v1/time-column.bin");
        let times_ns: Vec<i64> = (0..1500)
            .filter(|i| i % 200 != 77)
            .map(|i| START_NS + (i * 10_000 + i * i * 7919 % 10_007 % 101) * MS_NS)
            .collect();
        let mut out = Vec::new();
        decode(golden, &mut out).unwrap();
        assert!(out == times_ns);
        let mut written = Vec::new();
        encode(&times_ns, &mut written);
        assert!(written == golden);
    }

    #[test]
    fn the_examples_of_the_format_page_are_right() {
        for (times_ns, bytes) in [
            (&[1_500_000_000][..], &[0x80 + 8, 1, 30][..]),
            (
                &[60_000_000_000, 75_000_000_000, 90_000_000_000],
                &[0x80 + 9, 3, 120, 15],
            ),
            (&[0, 1_000_000, 3_000_000], &[6, 3, 0, 1, 3, 2, 0b11_01_00]),
        ] {
            let mut written = Vec::new();
            encode(times_ns, &mut written);
            assert_eq!(written, bytes);
        }
    }
}
