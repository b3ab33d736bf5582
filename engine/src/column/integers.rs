//! Columns of any `i64`, in groups of up to 1,024 values. Bytes: `docs/formats/integer-column.md`.
//!
//! A group is a *form* that predicts each value, and what the values differ from it, bit-packed:
//!
//! | form | value `i` is |
//! | --- | --- |
//! | `Zero` | slot |
//! | `Frame` | base + slot |
//! | `Delta` | value `i - 1` + base + slot |
//! | `DeltaOfDelta` | value `i - 1` + (their difference before) + base + slot |
//! | `Trend` | base + slope * i + slot |
//! | `FineTrend` | base + (slope * i) / 1,024, rounded down, + slot |
//!
//! Slots have one width for a group. A few values that would make it wider are *exceptions*: their slot
//! keeps its low bits, the rest stands in a list (patching as in Zukowski et al., "Super-Scalar
//! RAM-CPU Cache Compression", ICDE 2006).
//!
//! Invariants
//! - All arithmetic wraps in 64 bits, so that every column of `i64` has an encoding in every form.
//! - [`Plan::cost_bytes`] is exactly what [`Plan::write`] appends.
//! - A group says how long it is; it does not say how many values it has.
//! - Decoding takes any bytes: it ends with values or an error and allocates only what is asked for.

#![expect(
    clippy::indexing_slicing,
    reason = "hot loops over groups whose length is checked at every entry"
)]
#![expect(
    clippy::inline_always,
    reason = "only what is inlined into an `Op` is compiled for its vectors"
)]

mod exceptions;
mod plan;

use crate::{column::ColumnError, varint};

use self::exceptions::Exceptions;
pub use self::plan::Plan;
use super::{
    bitpack::{self, GROUP_VALUES, WIDTH_MAX},
    kernel::{Kernel, Op},
};

/// Values of a full group.
pub const GROUP: usize = GROUP_VALUES;

/// Widths that share the first byte with the form.
const SHORT_WIDTHS: u8 = 40;
/// Values from which on vectors pay.
const VECTORS_FROM: usize = 64;
/// First bytes from here on: the width has a byte of its own.
const LONG_CODES: u8 = Form::COUNT * SHORT_WIDTHS;
/// First bytes from here on are no group.
const CODES_END: u8 = LONG_CODES + 2 * Form::COUNT;
/// Bits of the fraction of a fine slope: over a group it is right to one unit.
const FINE_BITS: u32 = 10;

/// How a group predicts its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Zero,
    Frame,
    Delta,
    DeltaOfDelta,
    Trend,
    FineTrend,
}

impl Form {
    const COUNT: u8 = 6;

    fn code(self) -> u8 {
        self as u8
    }

    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Zero,
            1 => Self::Frame,
            2 => Self::Delta,
            3 => Self::DeltaOfDelta,
            4 => Self::Trend,
            5 => Self::FineTrend,
            _ => return None,
        })
    }

    /// Values at the front that stand in the header and need no slot.
    fn skipped(self) -> usize {
        match self {
            Self::Delta => 1,
            Self::DeltaOfDelta => 2,
            Self::Zero | Self::Frame | Self::Trend | Self::FineTrend => 0,
        }
    }

    /// Whether no value depends on its place.
    fn is_frame(self) -> bool {
        matches!(self, Self::Zero | Self::Frame)
    }

    /// The name of the form, for people.
    fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Frame => "frame",
            Self::Delta => "delta",
            Self::DeltaOfDelta => "delta of delta",
            Self::Trend => "trend",
            Self::FineTrend => "fine trend",
        }
    }
}

/// What the best group of `values` (1 to 1,024) costs.
pub fn group_cost_bytes(values: &[i64]) -> usize {
    Plan::new(values).cost_bytes()
}

/// Appends the best group of `values`, which are 1 to 1,024.
pub fn encode_group(values: &[i64], out: &mut Vec<u8>) {
    Plan::new(values).write(values, out);
}

/// Decodes the group of `count` values (1 to 1,024) at the front of `bytes` into the front of `out` and
/// says how many bytes it took. Behind `count`, `out` is left as it was.
///
/// # Errors
///
/// If the bytes are no group of so many values.
pub fn decode_group(
    bytes: &[u8],
    count: usize,
    out: &mut [i64; GROUP],
) -> Result<usize, ColumnError> {
    match out.get_mut(..count) {
        Some(out) if count > 0 => decode_group_into(bytes, out),
        _ => Err(damaged(0, "a group has 1 to 1,024 values")),
    }
}

/// The same for a group of as many values as `out` has room for, 1 to 1,024.
pub(super) fn decode_group_into(bytes: &[u8], out: &mut [i64]) -> Result<usize, ColumnError> {
    if out.is_empty() || out.len() > GROUP {
        return Err(damaged(0, "a group has 1 to 1,024 values"));
    }
    kernel_for(out.len()).run(DecodeGroups {
        bytes,
        out,
        behind: true,
        finish: AsTheyAre,
    })
}

/// Decodes the group at the front of `bytes`, which has as many values as `out`.
#[inline(always)]
fn decode_into(bytes: &[u8], out: &mut [i64]) -> Result<usize, ColumnError> {
    let mut input = Input { bytes, at: 0 };
    let code = input.byte()?;
    let (form, width, patched) = if code < LONG_CODES {
        (code / SHORT_WIDTHS, code % SHORT_WIDTHS, false)
    } else if code < CODES_END {
        let code = code - LONG_CODES;
        (code / 2, input.byte()?, code % 2 == 1)
    } else {
        return Err(input.damaged("unknown form of a group"));
    };
    let Some(form) = Form::from_code(form) else {
        return Err(input.damaged("unknown form of a group"));
    };
    let width = u32::from(width);
    if width > WIDTH_MAX {
        return Err(input.damaged("a width above 64 bits"));
    }
    let skipped = form.skipped();
    if out.len() < skipped {
        return Err(input.damaged("fewer values than the form needs"));
    }
    let first = if skipped > 0 { input.signed()? } else { 0 };
    let slope = match form {
        Form::DeltaOfDelta | Form::Trend | Form::FineTrend => input.signed()?,
        Form::Zero | Form::Frame | Form::Delta => 0,
    };
    let base = if form == Form::Zero {
        0
    } else {
        input.signed()?
    };

    let exceptions = if patched {
        Some(Exceptions::read(&mut input, out.len() - skipped, width)?)
    } else {
        None
    };
    let fits = if let Some(full) = out.as_mut_array() {
        let bytes = input.take(bitpack::group_bytes(width))?;
        bitpack::unpack_group(bytes, width, base, full)
    } else {
        let slots = &mut out[skipped..];
        let bytes = input.take(bitpack::run_bytes(slots.len(), width))?;
        bitpack::unpack_run(bytes, width, base, slots)
    };
    debug_assert!(fits, "the bytes were cut to length");
    if let Some(exceptions) = exceptions {
        exceptions.patch(&mut out[skipped..], width);
    }

    match form {
        Form::Zero | Form::Frame => {}
        Form::Delta => {
            out[0] = first;
            let mut value = first;
            for slot in &mut out[1..] {
                value = value.wrapping_add(*slot);
                *slot = value;
            }
        }
        Form::DeltaOfDelta => {
            let (mut value, mut delta) = (first.wrapping_add(slope), slope);
            out[0] = first;
            out[1] = value;
            for slot in &mut out[2..] {
                delta = delta.wrapping_add(*slot);
                value = value.wrapping_add(delta);
                *slot = value;
            }
        }
        Form::Trend => {
            let mut line = 0_i64;
            for slot in out {
                *slot = slot.wrapping_add(line);
                line = line.wrapping_add(slope);
            }
        }
        Form::FineTrend => {
            let mut line = 0_i64;
            for slot in out {
                *slot = slot.wrapping_add(line >> FINE_BITS);
                line = line.wrapping_add(slope);
            }
        }
    }
    Ok(input.at)
}

/// Appends `values` as a column: groups of 1,024, the last one with the rest.
pub fn encode(values: &[i64], out: &mut Vec<u8>) {
    for group in values.chunks(GROUP) {
        encode_group(group, out);
    }
}

/// Decodes a column of `count` values, which is all of `bytes`, and appends them to `out`.
///
/// # Errors
///
/// If the bytes are no column of so many values; `out` is as long as before then.
pub fn decode(bytes: &[u8], count: usize, out: &mut Vec<i64>) -> Result<(), ColumnError> {
    decode_with(kernel_for(count), bytes, count, out)
}

/// A few values are decoded before a vector is filled.
pub(super) fn kernel_for(count: usize) -> Kernel {
    if count < VECTORS_FROM {
        Kernel::Plain
    } else {
        Kernel::best()
    }
}

/// [`decode`] with chosen instructions, to compare them.
///
/// # Errors
///
/// As `decode`.
pub fn decode_with(
    kernel: Kernel,
    bytes: &[u8],
    count: usize,
    out: &mut Vec<i64>,
) -> Result<(), ColumnError> {
    decode_finished(kernel, bytes, count, out, AsTheyAre)
}

/// What is done with the values of a group while they are at hand.
pub(super) trait Finish {
    /// Changes the next group's values; implementations are `#[inline(always)]`.
    fn finish(&mut self, group: &mut [i64]);
}

/// Nothing is done.
struct AsTheyAre;

impl Finish for AsTheyAre {
    #[inline(always)]
    fn finish(&mut self, _: &mut [i64]) {}
}

/// [`decode_with`], and finishes every group.
pub(super) fn decode_finished(
    kernel: Kernel,
    bytes: &[u8],
    count: usize,
    out: &mut Vec<i64>,
    finish: impl Finish,
) -> Result<(), ColumnError> {
    // A group has a byte at least.
    if count.div_ceil(GROUP) > bytes.len() {
        return Err(damaged(bytes.len(), "the column ends inside a group"));
    }
    let start = out.len();
    out.resize(start + count, 0);
    let result = kernel.run(DecodeGroups {
        bytes,
        out: &mut out[start..],
        behind: false,
        finish,
    });
    if result.is_err() {
        out.truncate(start);
    }
    result.map(|_| ())
}

/// Decodes groups until `out` is full; gives the bytes they took.
struct DecodeGroups<'a, F> {
    bytes: &'a [u8],
    out: &'a mut [i64],
    /// Whether there may be bytes behind the last group.
    behind: bool,
    finish: F,
}

impl<F: Finish> Op for DecodeGroups<'_, F> {
    type Answer = Result<usize, ColumnError>;

    #[inline(always)]
    fn run(mut self) -> Self::Answer {
        let mut at = 0;
        for group in self.out.chunks_mut(GROUP) {
            match decode_into(&self.bytes[at..], group) {
                Ok(taken) => at += taken,
                Err(ColumnError::Damaged {
                    offset_bytes,
                    reason,
                }) => return Err(damaged(at + offset_bytes, reason)),
            }
            self.finish.finish(group);
        }
        if self.behind || at == self.bytes.len() {
            Ok(at)
        } else {
            Err(damaged(at, "bytes behind the last group"))
        }
    }
}

/// Bytes that are read from the front.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn damaged(&self, reason: &'static str) -> ColumnError {
        damaged(self.at, reason)
    }

    fn byte(&mut self) -> Result<u8, ColumnError> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        byte.ok_or_else(|| damaged(self.bytes.len(), "the group ends inside its header"))
    }

    fn unsigned(&mut self) -> Result<u64, ColumnError> {
        let mut rest = &self.bytes[self.at..];
        let value = varint::take_u64(&mut rest).ok_or_else(|| {
            self.damaged("a number of the group's header is cut short or too long")
        })?;
        self.at = self.bytes.len() - rest.len();
        Ok(value)
    }

    fn signed(&mut self) -> Result<i64, ColumnError> {
        self.unsigned().map(unzigzag)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ColumnError> {
        let taken = self.bytes[self.at..]
            .get(..count)
            .ok_or_else(|| self.damaged("the group ends inside its values"))?;
        self.at += count;
        Ok(taken)
    }
}

fn damaged(offset_bytes: usize, reason: &'static str) -> ColumnError {
    ColumnError::Damaged {
        offset_bytes,
        reason,
    }
}

/// Bits needed for `value`.
#[inline]
fn bits_of(value: u64) -> u32 {
    WIDTH_MAX - value.leading_zeros()
}

#[inline]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[inline]
fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// Bytes of `value` as a zigzag varint.
fn signed_bytes(value: i64) -> usize {
    unsigned_bytes(zigzag(value))
}

fn unsigned_bytes(value: u64) -> usize {
    (bits_of(value).max(1)).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn round_trip(values: &[i64]) -> usize {
        let mut bytes = vec![0xaa; 3];
        encode(values, &mut bytes);
        let mut out = vec![7];
        decode(&bytes[3..], values.len(), &mut out).unwrap();
        assert_eq!(out[0], 7);
        assert!(out[1..] == *values);
        for kernel in Kernel::ALL {
            out.clear();
            decode_with(kernel, &bytes[3..], values.len(), &mut out).unwrap();
            assert!(out == *values);
        }
        bytes.len() - 3
    }

    /// Columns of the shapes that stores have, and of shapes that they never should.
    fn column() -> impl Strategy<Value = Vec<i64>> {
        let length = prop_oneof![1..40_usize, 1000..1050_usize, 1..4000_usize];
        let number = prop_oneof![
            any::<i64>(),
            -100..100_i64,
            Just(i64::MIN),
            Just(i64::MAX),
            Just(0)
        ];
        (
            length,
            number.clone(),
            number.clone(),
            0..64_u32,
            any::<u64>(),
            0..3_u8,
            proptest::collection::vec((any::<prop::sample::Index>(), number), 0..20),
        )
            .prop_map(|(length, start, step, noise_bits, seed, sums, outliers)| {
                let mut state = seed | 1;
                let mut values: Vec<i64> = (0..)
                    .take(length)
                    .map(|i| {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        let noise = (state & bitpack::mask(noise_bits)).cast_signed();
                        start.wrapping_add(step.wrapping_mul(i)).wrapping_add(noise)
                    })
                    .collect();
                for (index, outlier) in outliers {
                    let at = index.index(values.len());
                    values[at] = outlier;
                }
                for _ in 0..sums {
                    for i in 1..values.len() {
                        values[i] = values[i].wrapping_add(values[i - 1]);
                    }
                }
                values
            })
    }

    proptest! {
        #[test]
        fn columns_come_back(values in column()) {
            round_trip(&values);
        }

        #[test]
        fn a_plan_costs_what_it_writes_and_a_group_says_its_length(values in column()) {
            let values = &values[..values.len().min(GROUP)];
            let plan = Plan::new(values);
            let mut bytes = Vec::new();
            plan.write(values, &mut bytes);
            prop_assert_eq!(bytes.len(), plan.cost_bytes());
            bytes.extend_from_slice(&[0xff; 20]);
            let mut out = [0; GROUP];
            let taken = decode_group(&bytes, values.len(), &mut out).unwrap();
            prop_assert_eq!(taken, plan.cost_bytes());
            prop_assert!(out[..values.len()] == *values);
        }

        #[test]
        fn damaged_columns_are_refused_or_other_values(
            values in column(), at: prop::sample::Index, flip in 1..=255_u8, count in 0..5000_usize,
        ) {
            let mut bytes = Vec::new();
            encode(&values, &mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let mut out = Vec::new();
            let _ = decode(&bytes, values.len(), &mut out);
            let _ = decode(&bytes, count, &mut out);
            bytes.truncate(at);
            out.clear();
            prop_assert!(decode(&bytes, values.len(), &mut out).is_err());
            prop_assert!(out.is_empty());
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), count in 0..3000_usize,
        ) {
            let mut out = Vec::new();
            let _ = decode(&bytes, count, &mut out);
            prop_assert!(out.is_empty() || out.len() == count);
        }
    }

    #[test]
    fn small_columns_cost_two_bytes_beside_their_bits() {
        assert_eq!(round_trip(&[5; 10]), 2);
        assert_eq!(round_trip(&[0; 1024]), 1);
        assert_eq!(round_trip(&[1, 7, 3, 0, 2, 6, 5, 4, 1, 2]), 1 + 4);
        assert_eq!(round_trip(&[41, 47, 43, 40, 42, 46, 45, 44, 41, 42]), 2 + 4);
    }

    #[test]
    fn outliers_cost_themselves_only() {
        let mut values: Vec<i64> = (0..1024).map(|i| i * 7 % 16).collect();
        values[100] = i64::MIN;
        values[200] = i64::MAX;
        values[300] = 1_000_000;
        assert!(round_trip(&values) < 4 * 128 + 50);
    }

    #[test]
    fn a_count_without_bytes_allocates_nothing() {
        let mut out = Vec::new();
        assert!(decode(&[], usize::MAX, &mut out).is_err());
        assert!(decode(&[0, 0], usize::MAX, &mut out).is_err());
        assert_eq!(out.capacity(), 0);
        assert!(decode(&[], 0, &mut out).is_ok());
        assert!(decode(&[0], 0, &mut out).is_err());
    }

    /// A group in every form, with exceptions and without, and a rest; numbers from formulas.
    fn golden_column() -> Vec<i64> {
        let mut column = Vec::new();
        let mixed = |i: i64| {
            let mixed = i.wrapping_mul(0x1e37_79b9_7f4a_7c15);
            (mixed ^ (mixed >> 29)).wrapping_mul(0x3f58_476d_1ce4_e5b9)
        };
        let scatter = |i: i64, bound: i64| (mixed(i) >> 33).rem_euclid(bound);
        let outlier = |i: i64| if i % 100 == 50 { i << 40 } else { 0 };
        let mut group = |value: &mut dyn FnMut(i64) -> i64| column.extend((0..1024).map(value));
        group(&mut |_| -7);
        group(&mut |i| scatter(i, 50));
        group(&mut |i| -1_000_000 + scatter(i, 50) - outlier(i));
        let mut sum = 5;
        group(&mut |i| {
            sum += scatter(i, 100) + outlier(i);
            sum
        });
        let mut step = -3;
        group(&mut |i| {
            step += scatter(i, 9) - 4;
            sum += step;
            sum
        });
        group(&mut |i| i * -10_000 + scatter(i, 100));
        group(&mut |i| i * 7_003 / 10 + scatter(i, 100) + outlier(i));
        group(&mut |i| mixed(mixed(i)));
        column.extend((0..10).map(|i| 300 + scatter(i, 8)));
        column
    }

    #[test]
    fn the_golden_column_of_version_1_reads_as_it_was_written() {
        let golden = include_bytes!("../../tests/golden/v1/integer-column.bin");
        let column = golden_column();
        let forms: Vec<&str> = column
            .chunks(GROUP)
            .map(|group| Plan::new(group).name())
            .collect();
        assert_eq!(
            forms,
            [
                "constant",
                "zero",
                "frame",
                "delta",
                "delta of delta",
                "trend",
                "fine trend",
                "frame",
                "frame"
            ]
        );
        let mut out = Vec::new();
        decode(golden, column.len(), &mut out).unwrap();
        assert!(out == column);
        let mut written = Vec::new();
        encode(&column, &mut written);
        assert!(written == golden);
    }

    #[test]
    fn the_examples_of_the_format_page_are_right() {
        for (values, bytes) in [
            (&[5, 5, 5][..], &[40, 10][..]),
            (&[1, 7, 3, 0], &[3, 0b1111_1001, 0]),
            (&[1000, 1010, 1021, 1030], &[160 + 1, 20, 208, 15, 0b0100]),
        ] {
            let mut written = Vec::new();
            encode(values, &mut written);
            assert_eq!(written, bytes);
        }
    }
}
