//! Floats as integers over (or times) a scale that a whole group shares, as in Afroozeh, Kuffó and
//! Boncz, "ALP: Adaptive Lossless floating-Point Compression", SIGMOD 2024.
//!
//! A decimal with few digits, as people and programs write them, is the double nearest to `n / 10^e`,
//! and division rounds correctly: dividing gives back its very bits. Some programs multiply by
//! `0.001` instead, which rounds twice; so both are tried. Fractions of a minute, of a KiB or of a
//! number of cores divide by an integer that is no power of ten; pages and other units multiply by one.
//! And fast readers of text divide by 10, 100, 10^4, 10^8 in turn.
//!
//! Invariant: `restore` computes with the same operation on the same two operands wherever it runs,
//! so what the encoder has checked is what every reader gets.
#![expect(
    clippy::inline_always,
    reason = "only what is inlined into an `Op` is compiled for its vectors"
)]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "whether a conversion was exact is what this module checks, bit by bit"
)]

use super::kernel::{Kernel, Op};

/// Powers of ten that are exact.
pub(super) const POWER_OF_TEN_MAX: u8 = 22;
/// The most digits behind the point for which multiplying by the inverse is tried.
pub(super) const INVERSE_MAX: u8 = 18;

/// Digits behind the point for which dividing in steps is tried: below, there is one step.
pub(super) const STEPS_MIN: u8 = 3;
pub(super) const STEPS_MAX: u8 = 15;

const POWERS: [f64; POWER_OF_TEN_MAX as usize + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];
const INVERSES: [f64; INVERSE_MAX as usize + 1] = [
    1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-14,
    1e-15, 1e-16, 1e-17, 1e-18,
];

/// 1.5 * 2^52: adding it moves the integer part of a small float to the low bits.
const MAGIC: f64 = 6_755_399_441_055_744.0;
/// Below it the magic number works: 2^51.
const MAGIC_LIMIT: f64 = 2_251_799_813_685_248.0;
/// Integers and units up to here are floats: 2^53.
pub(super) const EXACT_MAX: u64 = 1 << 53;

/// What an integer is divided by or multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// `n / 10^e`.
    OverPower(u8),
    /// `n * 10^-e`, the inverse rounded to a float first.
    TimesInverse(u8),
    /// `n` over each of the powers 10^1, 10^2, 10^4, 10^8 that make up `10^e`, one after the other.
    InSteps(u8),
    /// `n * unit`; `unit` in `1..=EXACT_MAX`.
    Times(u64),
    /// `n / divisor`; `divisor` in `1..=EXACT_MAX`.
    Over(u64),
}

/// The operation a scale stands for.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Multiply(f64),
    Divide(f64),
    DivideInSteps([f64; 4]),
}

impl Scale {
    pub(super) const INTEGER: Self = Self::OverPower(0);

    fn operation(self) -> Operation {
        match self {
            Self::OverPower(0) => Operation::Multiply(1.0),
            Self::OverPower(e) => Operation::Divide(power_of_ten(e)),
            Self::TimesInverse(e) => {
                Operation::Multiply(INVERSES.get(usize::from(e)).copied().unwrap_or(1.0))
            }
            Self::InSteps(e) => {
                let mut steps = [1.0; 4];
                for (bit, step) in steps.iter_mut().enumerate() {
                    if e >> bit & 1 == 1 {
                        *step = power_of_ten(1 << bit);
                    }
                }
                Operation::DivideInSteps(steps)
            }
            Self::Times(unit) => Operation::Multiply(unit as f64),
            // dividing by a power of two only moves the exponent, as multiplying does
            Self::Over(d) if d.is_power_of_two() => Operation::Multiply(1.0 / d as f64),
            Self::Over(d) => Operation::Divide(d as f64),
        }
    }

    /// What a float is multiplied with to find its integer.
    fn upwards(self) -> f64 {
        match self {
            Self::OverPower(e) | Self::TimesInverse(e) | Self::InSteps(e) => power_of_ten(e),
            Self::Times(unit) => 1.0 / unit as f64,
            Self::Over(d) => d as f64,
        }
    }

    /// The integer nearest to `value` on this scale, and what it gives back; `None` if out of range.
    pub(super) fn nearest(self, value: f64) -> Option<(i64, f64)> {
        let y = value * self.upwards();
        let n = if y.abs() < MAGIC_LIMIT {
            round_small(y)
        } else if y.abs() < 9e18 {
            y as i64
        } else {
            return None;
        };
        let back = self.operation().apply(n as f64);
        Some((n, back))
    }

    /// Whether `value` comes back bit by bit.
    pub(super) fn keeps(self, value: f64) -> bool {
        self.nearest(value)
            .is_some_and(|(_, back)| back.to_bits() == value.to_bits())
    }

    /// Finds the integer of every value; whether all of them come back exactly. Integers of values that
    /// are out of range are anything.
    pub(super) fn quantize(self, values: &[f64], integers: &mut [i64]) -> bool {
        let up = self.upwards();
        let found = Kernel::best().run(Quantize {
            operation: self.operation(),
            up,
            values,
            integers,
        });
        if found.far == 0 {
            return found.inexact == 0;
        }
        // integers too large for the magic number
        let mut exact = true;
        for (n, &value) in integers.iter_mut().zip(values) {
            let found = self.nearest(value);
            exact &= found.is_some_and(|(_, back)| back.to_bits() == value.to_bits());
            *n = found.map_or(0, |(n, _)| n);
        }
        exact
    }

    /// The floats of integers; `out` is as long as `integers`.
    pub(super) fn restore(self, integers: &[i64], out: &mut [f64]) {
        Kernel::best().run(Restore {
            operation: self.operation(),
            integers,
            out,
        });
    }
}

struct Restore<'a> {
    operation: Operation,
    integers: &'a [i64],
    out: &'a mut [f64],
}

impl Op for Restore<'_> {
    type Answer = ();

    #[inline(always)]
    fn run(self) {
        match self.operation {
            Operation::Multiply(s) => {
                for (o, &n) in self.out.iter_mut().zip(self.integers) {
                    *o = n as f64 * s;
                }
            }
            Operation::Divide(s) => {
                for (o, &n) in self.out.iter_mut().zip(self.integers) {
                    *o = n as f64 / s;
                }
            }
            steps @ Operation::DivideInSteps(_) => {
                for (o, &n) in self.out.iter_mut().zip(self.integers) {
                    *o = steps.apply(n as f64);
                }
            }
        }
    }
}

impl Operation {
    #[inline(always)]
    fn apply(self, n: f64) -> f64 {
        match self {
            Self::Multiply(s) => n * s,
            Self::Divide(s) => n / s,
            Self::DivideInSteps(steps) => steps.iter().fold(n, |n, step| n / step),
        }
    }
}

/// 10^e; `e` above 22 counts as 22.
pub(super) fn power_of_ten(e: u8) -> f64 {
    POWERS.get(usize::from(e)).copied().unwrap_or(1e22)
}

/// The nearest integer of a float below 2^51.
#[inline]
pub(super) fn round_small(y: f64) -> i64 {
    (y + MAGIC)
        .to_bits()
        .cast_signed()
        .wrapping_sub(MAGIC.to_bits().cast_signed())
}

/// How a pass over a group went.
struct Quantized {
    /// Values that do not come back.
    inexact: u64,
    /// Values that the magic number does not reach.
    far: u64,
}

struct Quantize<'a> {
    operation: Operation,
    up: f64,
    values: &'a [f64],
    integers: &'a mut [i64],
}

impl Op for Quantize<'_> {
    type Answer = Quantized;

    #[inline(always)]
    fn run(self) -> Quantized {
        let (values, integers, up) = (self.values, self.integers, self.up);
        match self.operation {
            Operation::Multiply(s) => quantize(values, integers, up, |n| n * s),
            Operation::Divide(s) => quantize(values, integers, up, |n| n / s),
            steps @ Operation::DivideInSteps(_) => {
                quantize(values, integers, up, |n| steps.apply(n))
            }
        }
    }
}

#[inline(always)]
fn quantize(
    values: &[f64],
    integers: &mut [i64],
    up: f64,
    restore: impl Fn(f64) -> f64,
) -> Quantized {
    let (mut inexact, mut far) = (0, 0);
    for (n, &value) in integers.iter_mut().zip(values) {
        let y = value * up;
        let t = y + MAGIC;
        *n = t
            .to_bits()
            .cast_signed()
            .wrapping_sub(MAGIC.to_bits().cast_signed());
        inexact += u64::from(restore(t - MAGIC).to_bits() != value.to_bits());
        let near = y.abs() < MAGIC_LIMIT;
        far += u64::from(!near);
    }
    Quantized { inexact, far }
}

/// The fewest digits behind the point that give `value` back, at most 17.
pub(super) fn digits_behind_point(value: f64) -> Option<u8> {
    if !value.is_finite() {
        return None;
    }
    for e in 0..=17 {
        let y = value * power_of_ten(e);
        if y.abs() >= MAGIC_LIMIT && e > 0 {
            return None;
        }
        if Scale::OverPower(e).keeps(value) {
            return Some(e);
        }
    }
    None
}

/// A short decimal that `value` misses by a few last bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct NearDecimal {
    pub(super) digits: u8,
    /// Bits of its integer and of the correction together.
    pub(super) bits: u32,
}

/// The decimal near `value` that costs the fewest bits with its correction.
pub(super) fn near_decimal(value: f64) -> Option<NearDecimal> {
    let mut best: Option<NearDecimal> = None;
    for e in 0..=15 {
        let (n, back) = Scale::OverPower(e).nearest(value)?;
        if n.unsigned_abs() >= 1 << 51 {
            break;
        }
        let correction = value.to_bits().abs_diff(back.to_bits());
        let bits = (64 - n.unsigned_abs().leading_zeros()) + (65 - correction.leading_zeros());
        if best.is_none_or(|b| bits < b.bits) {
            best = Some(NearDecimal { digits: e, bits });
        }
    }
    best
}
