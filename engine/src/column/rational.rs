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

use super::scale::power_of_ten;

/// The most digits behind the point of a numerator.
pub(super) const DIGITS_MAX: u8 = 9;
const DENOMINATOR_MAX: f64 = 16_777_216.0; // 2^24
const NUMERATOR_MAX: f64 = 35_184_372_088_832.0; // 2^45
/// Values whose denominators are smoothed together.
const NEIGHBOURS: usize = 32;
const MAGIC: f64 = 6_755_399_441_055_744.0;

/// How far from a fraction a value may be, as a part of itself.
pub(super) const TOLERANCE_ROUNDED: f64 = 1.0 / (1u64 << 49) as f64;
/// The same for values that have been through more arithmetic.
pub(super) const TOLERANCE_COMPUTED: f64 = 1.0 / (1u64 << 44) as f64;

/// The simplest fraction within `tolerance * |y|` of `y`.
pub(super) fn fraction(y: f64, tolerance: f64) -> Option<(i64, i64)> {
    let target = y.abs();
    if target >= NUMERATOR_MAX || target.is_nan() {
        return None;
    }
    if target == 0.0 {
        return Some((0, 1));
    }
    let (mut numerator, mut denominator) = (1.0, 0.0);
    let (mut numerator_before, mut denominator_before) = (0.0, 1.0);
    let mut x = target;
    for _ in 0..32 {
        let whole = x as i64 as f64;
        let n = whole * numerator + numerator_before;
        let d = whole * denominator + denominator_before;
        if n > NUMERATOR_MAX || d > DENOMINATOR_MAX {
            return None;
        }
        if (target * d - n).abs() <= tolerance * n {
            let n = n as i64;
            return Some((if y < 0.0 { -n } else { n }, d as i64));
        }
        (numerator_before, denominator_before) = (numerator, denominator);
        (numerator, denominator) = (n, d);
        let rest = x - whole;
        if rest <= 0.0 {
            return None;
        }
        x = 1.0 / rest;
        if x >= NUMERATOR_MAX {
            return None;
        }
    }
    None
}

/// The float of a fraction whose numerator counts units of `10^-digits`.
#[inline]
fn quotient(numerator: f64, digits_power: f64, denominator: f64) -> f64 {
    numerator / digits_power / denominator
}

/// Finds the fraction of every value; one without gets the denominator 0. Returns how many have none.
pub(super) fn fractions(
    values: &[f64],
    digits: u8,
    tolerance: f64,
    numerators: &mut [i64],
    denominators: &mut [i64],
) -> usize {
    let power = power_of_ten(digits);
    let mut none = 0;
    for ((&v, n), d) in values.iter().zip(numerators).zip(denominators) {
        match fraction(v * power, tolerance) {
            Some(found) => (*n, *d) = found,
            None => {
                (*n, *d) = (0, 0);
                none += 1;
            }
        }
    }
    none
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
        let exact = (n as f64 * fine / d as f64).round_ties_even();
        *ratio = exact as i64;
        if exact.abs() >= 1e15 || numerator_of(exact, d as f64, fine) != n as f64 {
            return None;
        }
    }
    Some(())
}

#[inline]
fn numerator_of(ratio: f64, denominator: f64, scale: f64) -> f64 {
    (ratio * denominator / scale + MAGIC) - MAGIC
}

/// The floats of numerators and denominators.
pub(super) fn restore_pairs(numerators: &[i64], denominators: &[i64], digits: u8, out: &mut [f64]) {
    let power = power_of_ten(digits);
    for ((o, &n), &d) in out.iter_mut().zip(numerators).zip(denominators) {
        *o = quotient(n as f64, power, d as f64);
    }
}

/// The floats of ratios on `scale` and denominators.
pub(super) fn restore_ratios(
    ratios: &[i64],
    denominators: &[i64],
    scale: u64,
    digits: u8,
    out: &mut [f64],
) {
    let (power, fine) = (power_of_ten(digits), scale as f64);
    for ((o, &ratio), &d) in out.iter_mut().zip(ratios).zip(denominators) {
        let d = d as f64;
        *o = quotient(numerator_of(ratio as f64, d, fine), power, d);
    }
}
