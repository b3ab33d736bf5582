//! What a few values of a group say about the forms that are worth a try.

use crate::column::{
    rational,
    scale::{self, Scale},
};

/// Whether so many digits behind the point give all of the sample back.
pub(super) fn keeps_all(sample: &[f64], digits: u8) -> bool {
    let scale = Scale::OverPower(digits);
    sample.iter().all(|&v| scale.keeps(v))
}

/// What the digits of a sample are like.
pub(super) enum ExactDigits {
    All(u8),
    Most(u8),
    Few,
}

/// How many digits behind the point give the sample back exactly. `hint` is tried first.
pub(super) fn exact_digits(sample: &[f64], hint: u8) -> ExactDigits {
    if keeps_all(sample, hint) && (hint == 0 || !keeps_all(sample, hint - 1)) {
        return ExactDigits::All(hint);
    }
    let mut by_digits = [0usize; 18];
    let mut exact = 0;
    for digits in sample.iter().filter_map(|&v| scale::digits_behind_point(v)) {
        if let Some(slot) = by_digits.get_mut(usize::from(digits)) {
            *slot += 1;
            exact += 1;
        }
    }
    if exact * 10 < sample.len() * 9 {
        return ExactDigits::Few;
    }
    // a tenth may have more digits than it is worth to give to all
    let mut below = 0;
    let (mut most, mut greatest) = (None, 0);
    for (digits, &values) in (0u8..).zip(&by_digits) {
        below += values;
        if values > 0 {
            greatest = digits;
        }
        if most.is_none() && below * 10 >= sample.len() * 9 {
            most = Some(digits);
        }
    }
    match most {
        Some(digits) if greatest > digits + 2 => ExactDigits::Most(digits),
        _ if exact == sample.len() => ExactDigits::All(greatest),
        _ => ExactDigits::Most(greatest),
    }
}

/// The digits behind the point of decimals that most of the sample misses by a few last bits only.
pub(super) fn near_digits(sample: &[f64]) -> Option<u8> {
    /// Integer and correction together: clearly less than a mantissa.
    const BITS_MAX: u32 = 46;
    let mut by_digits = [0usize; 16];
    let mut near = 0;
    for decimal in sample.iter().filter_map(|&v| scale::near_decimal(v)) {
        if decimal.bits <= BITS_MAX
            && let Some(slot) = by_digits.get_mut(usize::from(decimal.digits))
        {
            *slot += 1;
            near += 1;
        }
    }
    if near * 10 < sample.len() * 8 || near == 0 {
        return None;
    }
    let mut below = 0;
    (0u8..)
        .zip(by_digits)
        .find(|&(_, values)| {
            below += values;
            below * 10 >= near * 9
        })
        .map(|(digits, _)| digits)
}

/// The way from integers with so many digits to floats that gives most of the sample back, and how much
/// of it.
pub(super) fn best_rounding(sample: &[f64], digits: u8) -> (Scale, usize) {
    let keeps = |scale: Scale| sample.iter().filter(|&&v| scale.keeps(v)).count();
    let mut best = Scale::OverPower(digits);
    let mut most = keeps(best);
    if (scale::STEPS_MIN..=scale::STEPS_MAX).contains(&digits) {
        let steps = Scale::InSteps(digits);
        let kept = keeps(steps);
        if kept > most {
            (best, most) = (steps, kept);
        }
    }
    if (1..=scale::INVERSE_MAX).contains(&digits) {
        let times = Scale::TimesInverse(digits);
        let kept = keeps(times);
        if kept > most {
            (best, most) = (times, kept);
        }
    }
    (best, most)
}

/// A divisor that makes integers of the whole sample.
pub(super) fn common_divisor(sample: &[f64]) -> Option<u64> {
    let mut common = 1u64;
    for &v in sample {
        let (_, d) = rational::fraction(v, rational::TOLERANCE_ROUNDED)?;
        let d = d.unsigned_abs();
        common = (common / gcd(common, d)).checked_mul(d)?;
        if common > 1 << 30 {
            return None;
        }
    }
    let scale = Scale::Over(common);
    (common > 1 && sample.iter().filter(|&&v| scale.keeps(v)).count() * 10 >= sample.len() * 9)
        .then_some(common)
}

/// Digits of numerators, and a tolerance, for which the sample consists of small fractions; `hint` is
/// taken if it will do.
pub(super) fn rational_digits(sample: &[f64], hint: Option<(u8, f64)>) -> Option<(u8, f64)> {
    /// Numerator and denominator together: clearly less than a mantissa.
    const BITS_MAX: u32 = 42;
    let rate = |digits, tolerance| {
        let fit = rational::fit(sample, digits, tolerance);
        let found = u32::try_from(fit.found).unwrap_or(u32::MAX);
        let small = found > 0 && fit.found * 10 >= sample.len() * 9 && fit.bits < BITS_MAX * found;
        small.then(|| fit.bits / found)
    };
    if let Some((digits, tolerance)) = hint
        && rate(digits, tolerance).is_some()
    {
        return hint;
    }
    for tolerance in [rational::TOLERANCE_ROUNDED, rational::TOLERANCE_COMPUTED] {
        let best = [0, 1, 2, 3, 4, 6, 9]
            .into_iter()
            .filter_map(|digits| Some((rate(digits, tolerance)?, digits)))
            .min();
        if let Some((_, digits)) = best {
            return Some((digits, tolerance));
        }
    }
    None
}

pub(super) fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
