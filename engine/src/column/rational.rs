//! Floats as ratios of two integers: averages (a sum over a count), shares, rates.
//!
//! Such a float has a full mantissa, yet holds no more than its numerator and its denominator do. The
//! continued fraction of the float finds them in lowest terms (Hardy and Wright, chapter X: whatever
//! is nearer than half of one over the denominator's square is a convergent).
//!
//! 1. `fractions`: every value as a fraction, its numerator counted in units of `10^-digits`, since
//!    sums often have a few digits behind the point.
//! 2. `expand`: counts that share a factor with their sum came out too small. Each is multiplied to
//!    come near its neighbours', so that the column of denominators is smooth again.
//! 3. Numerators are stored as they are, or (`rescale`) as the ratio itself on a scale just finer than
//!    the greatest denominator, from which denominator and rounding give the numerator back: a slow
//!    ratio is a slower column than a sum that follows its count.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "integers here are below 2^45, and the encoder checks what comes back bit by bit"
)]
#![expect(
    clippy::inline_always,
    reason = "only what is inlined into an `Op` is compiled for its vectors"
)]
#![expect(
    clippy::indexing_slicing,
    reason = "arrays of lanes, and slices no longer than those beside them"
)]

use super::{
    kernel::{Kernel, Op},
    scale::power_of_ten,
};

/// The most digits behind the point of a numerator.
pub(super) const DIGITS_MAX: u8 = 9;
const DENOMINATOR_MAX: f64 = 16_777_216.0; // 2^24
const NUMERATOR_MAX: f64 = 35_184_372_088_832.0; // 2^45
/// Integers up to here are floats: 2^53.
const EXACT_MAX: i64 = 1 << 53;
/// Values whose denominators are smoothed together.
const NEIGHBOURS: usize = 32;
const MAGIC: f64 = 6_755_399_441_055_744.0;
/// Below it, adding and taking away `MAGIC` rounds: 2^51.
const MAGIC_LIMIT: f64 = 2_251_799_813_685_248.0;

/// How far from a fraction a value may be, as a part of itself.
pub(super) const TOLERANCE_ROUNDED: f64 = 1.0 / (1u64 << 49) as f64;
/// The same for values that have been through more arithmetic.
pub(super) const TOLERANCE_COMPUTED: f64 = 1.0 / (1u64 << 44) as f64;

/// Values whose fractions are searched for side by side: one vector, or two, of floats.
const LANES: usize = 8;
/// Terms of a continued fraction. The slowest one, all ones, has a denominator of 2^24 after 36.
const TERMS_MAX: usize = 36;

/// The simplest fraction within `tolerance * |y|` of `y`.
pub(super) fn fraction(y: f64, tolerance: f64) -> Option<(i64, i64)> {
    let mut ys = [0.0; LANES];
    ys[0] = y;
    let (numerators, denominators) = fraction_lanes(&ys, tolerance);
    (denominators[0] > 0).then_some((numerators[0], denominators[0]))
}

/// The simplest fraction of every lane; one without has the denominator 0.
#[inline(always)]
fn fraction_lanes(ys: &[f64; LANES], tolerance: f64) -> ([i64; LANES], [i64; LANES]) {
    #[inline(always)]
    fn select(mask: u64, yes: f64, no: f64) -> f64 {
        f64::from_bits((yes.to_bits() & mask) | (no.to_bits() & !mask))
    }
    let (mut found_n, mut found_d) = ([0.0; LANES], [0.0; LANES]);
    let (mut n, mut d) = ([1.0; LANES], [0.0; LANES]);
    let (mut n_before, mut d_before) = ([0.0; LANES], [1.0; LANES]);
    let mut x = [0.0; LANES];
    let mut active = [0u64; LANES];
    for i in 0..LANES {
        x[i] = ys[i].abs();
        active[i] = if x[i] < NUMERATOR_MAX { u64::MAX } else { 0 };
    }
    for _ in 0..TERMS_MAX {
        let mut left = 0;
        for i in 0..LANES {
            let whole = x[i] as i64 as f64;
            let next_n = whole * n[i] + n_before[i];
            let next_d = whole * d[i] + d_before[i];
            let near = (ys[i].abs() * next_d - next_n).abs() <= tolerance * next_n;
            let within = next_n <= NUMERATOR_MAX && next_d <= DENOMINATOR_MAX;
            let hit = if near && within { active[i] } else { 0 };
            found_n[i] = select(hit, next_n, found_n[i]);
            found_d[i] = select(hit, next_d, found_d[i]);
            active[i] &= if within && !near { u64::MAX } else { 0 };
            left |= active[i];
            (n_before[i], d_before[i]) = (n[i], d[i]);
            (n[i], d[i]) = (next_n, next_d);
            // one over nothing is beyond all limits, and ends the lane
            x[i] = 1.0 / (x[i] - whole);
        }
        if left == 0 {
            break;
        }
    }
    let (mut numerators, mut denominators) = ([0; LANES], [0; LANES]);
    for i in 0..LANES {
        let signed = found_n[i].copysign(ys[i]);
        numerators[i] = signed as i64;
        denominators[i] = found_d[i] as i64;
    }
    (numerators, denominators)
}

/// The float of a fraction whose numerator counts units of `10^-digits`.
#[inline(always)]
fn quotient(numerator: f64, digits_power: f64, denominator: f64) -> f64 {
    numerator / digits_power / denominator
}

/// Finds the fraction of every value; one without gets the denominator 0.
pub(super) fn fractions(
    values: &[f64],
    digits: u8,
    tolerance: f64,
    numerators: &mut [i64],
    denominators: &mut [i64],
) {
    Kernel::best().run(Fractions {
        values,
        power: power_of_ten(digits),
        tolerance,
        numerators,
        denominators,
    });
}

struct Fractions<'a> {
    values: &'a [f64],
    power: f64,
    tolerance: f64,
    numerators: &'a mut [i64],
    denominators: &'a mut [i64],
}

impl Op for Fractions<'_> {
    type Answer = ();

    #[inline(always)]
    fn run(self) {
        let columns = self
            .values
            .chunks(LANES)
            .zip(self.numerators.chunks_mut(LANES))
            .zip(self.denominators.chunks_mut(LANES));
        for ((values, n), d) in columns {
            let mut ys = [0.0; LANES];
            for (y, v) in ys.iter_mut().zip(values) {
                *y = v * self.power;
            }
            let (numerators, denominators) = fraction_lanes(&ys, self.tolerance);
            n.copy_from_slice(&numerators[..n.len()]);
            d.copy_from_slice(&denominators[..d.len()]);
        }
    }
}

/// How small the fractions of a sample are.
pub(super) struct Fit {
    /// Values that have one.
    pub(super) found: usize,
    /// Bits of their numerators and denominators together.
    pub(super) bits: u32,
}

/// Looks at the fractions of a short sample.
pub(super) fn fit(sample: &[f64], digits: u8, tolerance: f64) -> Fit {
    let (mut numerators, mut denominators) = ([0; NEIGHBOURS], [0; NEIGHBOURS]);
    let sample = &sample[..sample.len().min(NEIGHBOURS)];
    let n = &mut numerators[..sample.len()];
    let d = &mut denominators[..sample.len()];
    fractions(sample, digits, tolerance, n, d);
    let mut fit = Fit { found: 0, bits: 0 };
    for (n, d) in n.iter().zip(d).filter(|(_, d)| **d > 0) {
        fit.found += 1;
        fit.bits += bits_of(*n) + bits_of(*d);
    }
    fit
}

fn bits_of(n: i64) -> u32 {
    u64::BITS - n.unsigned_abs().leading_zeros()
}

/// Multiplies fractions so that denominators are near to those around them.
pub(super) fn expand(values: &[f64], digits: u8, numerators: &mut [i64], denominators: &mut [i64]) {
    let power = power_of_ten(digits);
    let mut usual = 1;
    let runs = values
        .chunks(NEIGHBOURS)
        .zip(numerators.chunks_mut(NEIGHBOURS))
        .zip(denominators.chunks_mut(NEIGHBOURS));
    for ((values, numerators), denominators) in runs {
        // a share of 6/pi^2 of all pairs has no common factor: the upper part of the denominators
        // are whole ones
        let mut sorted = [0i64; NEIGHBOURS];
        let mut found = 0;
        for (slot, &d) in sorted
            .iter_mut()
            .zip(denominators.iter().filter(|&&d| d > 1))
        {
            *slot = d;
            found += 1;
        }
        if let Some(sorted) = sorted.get_mut(..found) {
            sorted.sort_unstable();
            usual = sorted.get(found * 7 / 10).copied().unwrap_or(usual);
        }
        for ((&v, n), d) in values.iter().zip(numerators).zip(denominators) {
            if *d == 0 || *d >= usual {
                // no fraction: a neighbour's denominator costs the least
                if *d == 0 {
                    *d = usual;
                }
                continue;
            }
            let nearest = (usual + *d / 2) / *d;
            if n.abs() > EXACT_MAX / (nearest + 3) {
                // what no float holds gives no quotient back
                continue;
            }
            let mut best = nearest;
            for step in [0, -1, 1, -2, 2, -3, 3] {
                let times = nearest + step;
                if times >= 1
                    && quotient((*n * times) as f64, power, (*d * times) as f64).to_bits()
                        == v.to_bits()
                {
                    best = times;
                    break;
                }
            }
            *n *= best;
            *d *= best;
        }
    }
}

/// A scale that is finer than every denominator.
pub(super) fn fine_scale(denominators: &[i64]) -> u64 {
    denominators
        .iter()
        .copied()
        .max()
        .unwrap_or_default()
        .unsigned_abs()
        + 1
}

/// The ratios on `scale`; `None` if a numerator would not come back.
pub(super) fn rescale(
    numerators: &[i64],
    denominators: &[i64],
    scale: u64,
    ratios: &mut [i64],
) -> Option<()> {
    let fine = scale as f64;
    for ((&n, &d), ratio) in numerators.iter().zip(denominators).zip(ratios) {
        let n = n as f64;
        let near = n * fine / d as f64;
        let whole = (near + MAGIC) - MAGIC;
        *ratio = whole as i64;
        let back = numerator_of(whole, d as f64, fine);
        if near.abs() >= MAGIC_LIMIT || back.to_bits() != n.to_bits() {
            return None;
        }
    }
    Some(())
}

#[inline(always)]
fn numerator_of(ratio: f64, denominator: f64, scale: f64) -> f64 {
    (ratio * denominator / scale + MAGIC) - MAGIC
}

/// The floats of numerators and denominators.
pub(super) fn restore_pairs(numerators: &[i64], denominators: &[i64], digits: u8, out: &mut [f64]) {
    Kernel::best().run(Restore {
        numerators,
        denominators,
        fine: None,
        power: power_of_ten(digits),
        out,
    });
}

/// The floats of ratios on `scale` and denominators.
pub(super) fn restore_ratios(
    ratios: &[i64],
    denominators: &[i64],
    scale: u64,
    digits: u8,
    out: &mut [f64],
) {
    Kernel::best().run(Restore {
        numerators: ratios,
        denominators,
        fine: Some(scale as f64),
        power: power_of_ten(digits),
        out,
    });
}

struct Restore<'a> {
    /// Numerators, or ratios on the fine scale.
    numerators: &'a [i64],
    denominators: &'a [i64],
    fine: Option<f64>,
    power: f64,
    out: &'a mut [f64],
}

impl Op for Restore<'_> {
    type Answer = ();

    #[inline(always)]
    fn run(self) {
        let power = self.power;
        let columns = self
            .out
            .iter_mut()
            .zip(self.numerators)
            .zip(self.denominators);
        if let Some(fine) = self.fine {
            for ((o, &ratio), &d) in columns {
                let d = d as f64;
                *o = quotient(numerator_of(ratio as f64, d, fine), power, d);
            }
        } else {
            for ((o, &n), &d) in columns {
                *o = quotient(n as f64, power, d as f64);
            }
        }
    }
}
