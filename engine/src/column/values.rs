//! Columns of `f64`, bit-exact, in groups of 1,024. Bytes: `docs/formats/value-column.md`.
//!
//! Every group takes the form that is smallest for it: integers over a power of ten or another scale
//! (`scale.rs`), the same with corrections of the last bits (`last_bits.rs`), ratios of two integers
//! (`rational.rs`), bit patterns as integers (`raw.rs`), or one value for all. What a form cannot give
//! back stands beside it as an exception (`exceptions.rs`).
//!
//! Choosing a form takes two steps. A sample of the group says which forms are worth a try; each of
//! them then encodes the whole group, and the shortest one stays. Decimals that all come back exactly
//! are the ordinary case and end the search at once.
//!
//! Invariants
//! - A form is used only if the encoder has computed with the reader's own function that every value
//!   which is no exception comes back bit by bit: not-a-numbers with payload, negative zeros,
//!   infinities and subnormals included.
//! - A column does not store how many values it has. Decoding takes any bytes and any count: it gives
//!   values or an error, and makes room for no more than 65,536 values at a time that no byte speaks for.

use std::ops::Range;

use super::{
    ColumnError, coded, exceptions,
    integers::{self, GROUP},
    last_bits, rational, raw,
    scale::{self, Scale},
};
use crate::varint;

/// The longest column that one value can stand for.
const CONSTANT_VALUES_MAX: usize = 65_536;

// The form of a group: the low six bits of its head.
const FORM_OVER_POWER: u8 = 0; // ..=22
const FORM_TIMES_INVERSE: u8 = 22; // + 1..=18
const FORM_TIMES: u8 = 41;
const FORM_OVER: u8 = 42;
const FORM_PAIRS: u8 = 43;
const FORM_RATIOS: u8 = 44;
const FORM_PATTERNS: u8 = 45;
const FORM_WORDS: u8 = 46;
const FORM_CONSTANT_INTEGER: u8 = 47;
const FORM_CONSTANT_BITS: u8 = 48;
const FORM_IN_STEPS: u8 = 46; // + 3..=15
const FORM_MASK: u8 = 0x3f;
/// Corrections stand behind the integers.
const FLAG_CORRECTED: u8 = 0x40;
/// Of a constant: it speaks for the whole column, not for its first group.
const FLAG_WHOLE: u8 = 0x40;
/// Exceptions stand before the integers.
const FLAG_EXCEPTIONS: u8 = 0x80;

/// Values looked at before forms are chosen.
const SAMPLE: usize = 32;

const _: () = assert!(FORM_TIMES_INVERSE + scale::INVERSE_MAX < FORM_TIMES);
const _: () = assert!(scale::POWER_OF_TEN_MAX <= FORM_TIMES_INVERSE);
const _: () = assert!(FORM_IN_STEPS + scale::STEPS_MIN > FORM_CONSTANT_BITS);
const _: () = assert!(FORM_IN_STEPS + scale::STEPS_MAX <= FORM_MASK);

/// Encodes columns of values; keeps its scratch memory, and what the last group looked like.
#[derive(Default)]
pub struct Encoder {
    /// The power of ten of the group before: neighbours are alike.
    digits: u8,
    /// Digits and tolerance of the ratios of a group before, if it was ratios that it became.
    rational: Option<(u8, f64)>,
    integers: Vec<i64>,
    denominators: Vec<i64>,
    ratios: Vec<i64>,
    corrections: Vec<i64>,
    predicted: Vec<f64>,
    places: Vec<u16>,
    sample: Vec<f64>,
    group: Vec<u8>,
    attempt: Vec<u8>,
    lengths: Vec<u8>,
    body: Vec<u8>,
}

impl Encoder {
    /// Appends the column of `values`. Their number is not stored: the reader must know it.
    pub fn encode(&mut self, values: &[f64], out: &mut Vec<u8>) {
        let Some(first) = values.first() else {
            return;
        };
        if values.len() <= GROUP {
            self.encode_group(values);
            out.extend_from_slice(&self.group);
            return;
        }
        if values.len() <= CONSTANT_VALUES_MAX && all_same(values) {
            encode_constant(*first, FLAG_WHOLE, out);
            return;
        }
        // head of the first group, lengths of all groups but the last, the groups
        self.lengths.clear();
        self.body.clear();
        let mut head = None;
        let groups = values.len().div_ceil(GROUP);
        for (i, group) in values.chunks(GROUP).enumerate() {
            self.encode_group(group);
            let mut bytes = self.group.as_slice();
            if head.is_none()
                && let Some((&first, rest)) = bytes.split_first()
            {
                head = Some(first);
                bytes = rest;
            }
            self.body.extend_from_slice(bytes);
            if i + 1 < groups {
                // a group of words is the longest: 8 KiB and a head
                let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
                debug_assert!(usize::from(length) == bytes.len());
                self.lengths.extend_from_slice(&length.to_le_bytes());
            }
        }
        out.extend(head);
        out.extend_from_slice(&self.lengths);
        out.extend_from_slice(&self.body);
    }

    /// Puts the encoding of 1 to 1,024 values into `self.group`.
    fn encode_group(&mut self, values: &[f64]) {
        self.group.clear();
        if let Some(&first) = values.first()
            && all_same(values)
        {
            self.encode_constant_group(first, values.len());
            return;
        }
        self.take_sample(values);
        self.search(values);
        if self.group.len() > values.len() * 8 {
            self.group.clear();
            self.group.push(FORM_WORDS);
            for v in values {
                self.group.extend_from_slice(&v.to_bits().to_le_bytes());
            }
        }
    }

    fn encode_constant_group(&mut self, value: f64, count: usize) {
        match scale::digits_behind_point(value) {
            Some(digits @ 1..) => {
                // a decimal of few digits is shorter than its bits
                let scale = Scale::OverPower(digits);
                let n = scale.nearest(value).map_or(0, |(n, _)| n);
                self.integers.clear();
                self.integers.resize(count, n);
                self.group.push(head_of(scale));
                integers::encode_group(&self.integers, &mut self.group);
            }
            _ => encode_constant(value, 0, &mut self.group),
        }
    }

    /// Tries the forms that the sample speaks for, most promising first; the shortest stays in
    /// `self.group`.
    fn search(&mut self, values: &[f64]) {
        /// Decimals this short need no rival.
        const SHORT_BITS: usize = 16;
        /// Nor do these need the bit patterns as one.
        const MEDIUM_BITS: usize = 40;
        let mut ratio_tried = false;
        if !keeps_all(&self.sample, self.digits)
            && let Some((digits, tolerance)) = self.rational.take()
            && rational_digits(&self.sample, Some((digits, tolerance))) == Some((digits, tolerance))
        {
            // perhaps like the group before; if not exactly so, others have their chance
            let exact = self.try_rational(values, digits, tolerance);
            self.keep_shorter();
            ratio_tried = true;
            self.rational = Some((digits, tolerance));
            if exact && !self.is_longer_than(MEDIUM_BITS, values) {
                return;
            }
        }
        let digits = match exact_digits(&self.sample, self.digits) {
            ExactDigits::All(digits) => {
                self.digits = digits;
                if self.try_scale(values, Scale::OverPower(digits), false) {
                    return;
                }
                Some(digits)
            }
            ExactDigits::Most(digits) => Some(digits),
            ExactDigits::Few => near_digits(&self.sample),
        };
        if let Some(digits) = digits {
            let (scale, exact) = best_rounding(&self.sample, digits);
            if exact * 10 >= self.sample.len() * 9 && self.try_scale(values, scale, false) {
                return;
            }
            self.try_scale(values, scale, true);
        }
        if self.is_longer_than(SHORT_BITS, values)
            && let Some(divisor) = common_divisor(&self.sample)
        {
            self.try_scale(values, Scale::Over(divisor), false);
        }
        if !ratio_tried
            && self.is_longer_than(SHORT_BITS, values)
            && let Some((digits, tolerance)) = rational_digits(&self.sample, None)
        {
            self.try_rational(values, digits, tolerance);
            if self.keep_shorter() {
                self.rational = Some((digits, tolerance));
            }
        }
        if self.is_longer_than(MEDIUM_BITS, values) {
            self.begin(values);
            let zeros = raw::common_zeros(values);
            raw::integers(values, zeros, &mut self.integers);
            self.attempt.push(FORM_PATTERNS);
            self.attempt.push(zeros);
            coded::encode_group(&self.integers, &mut self.attempt);
            self.keep_shorter();
        }
    }

    fn is_longer_than(&self, bits: usize, values: &[f64]) -> bool {
        self.group.is_empty() || self.group.len() * 8 > values.len() * bits
    }

    fn keep_shorter(&mut self) -> bool {
        let shorter = self.group.is_empty() || self.attempt.len() < self.group.len();
        if shorter {
            std::mem::swap(&mut self.group, &mut self.attempt);
        }
        shorter
    }

    fn begin(&mut self, values: &[f64]) {
        self.attempt.clear();
        self.integers.resize(values.len(), 0);
        self.predicted.resize(values.len(), 0.0);
        self.places.clear();
    }

    /// Pairs of neighbours from all over the group, without what says nothing about its digits.
    fn take_sample(&mut self, values: &[f64]) {
        self.sample.clear();
        let telling = |v: &f64| v.is_finite() && *v != 0.0;
        if values.len() <= SAMPLE {
            self.sample.extend(values.iter().copied().filter(telling));
            return;
        }
        let pairs = SAMPLE / 2;
        for i in 0..pairs {
            let at = i * (values.len() - 2) / (pairs - 1);
            if let Some(pair) = values.get(at..at + 2) {
                self.sample.extend(pair.iter().copied().filter(telling));
            }
        }
    }

    /// Tries integers on `scale`. `true`: hardly anything is left over, no need to look further.
    fn try_scale(&mut self, values: &[f64], scale: Scale, corrected: bool) -> bool {
        self.begin(values);
        let exact = scale.quantize(values, &mut self.integers);
        if !exact {
            scale.restore(&self.integers, &mut self.predicted);
            let pairs = values.iter().zip(&self.predicted);
            self.places
                .extend((0u16..).zip(pairs).filter_map(|(i, (&v, p))| {
                    let lost = if corrected {
                        scale.nearest(v).is_none()
                    } else {
                        v.to_bits() != p.to_bits()
                    };
                    lost.then_some(i)
                }));
            bridge(&mut self.integers, &self.places);
        }
        let corrected = corrected && !exact;
        let scale = with_common_unit(scale, &mut self.integers);
        if corrected {
            scale.restore(&self.integers, &mut self.predicted);
        }
        self.push_head(head_of(scale), corrected);
        match scale {
            Scale::Times(n) | Scale::Over(n) => varint::put_u64(&mut self.attempt, n),
            Scale::OverPower(_) | Scale::TimesInverse(_) | Scale::InSteps(_) => {}
        }
        self.push_exceptions(values);
        coded::encode_group(&self.integers, &mut self.attempt);
        if corrected {
            self.push_corrections(values);
        }
        self.keep_shorter();
        !corrected && self.places.len() * 256 <= values.len()
    }

    /// Tries ratios of integers. `true`: hardly anything is left over.
    fn try_rational(&mut self, values: &[f64], digits: u8, tolerance: f64) -> bool {
        self.begin(values);
        self.denominators.resize(values.len(), 0);
        self.ratios.resize(values.len(), 0);
        let (n, d) = (&mut self.integers, &mut self.denominators);
        rational::fractions(values, digits, tolerance, n, d);
        let mut none = std::mem::take(&mut self.places);
        none.extend(
            (0u16..)
                .zip(d.iter())
                .filter_map(|(i, &d)| (d == 0).then_some(i)),
        );
        rational::expand(values, digits, n, d);
        bridge(n, &none);
        rational::restore_pairs(n, d, digits, &mut self.predicted);
        let inexact = |(_, (v, p)): &(u16, (&f64, &f64))| v.to_bits() != p.to_bits();
        let pairs = || {
            (0u16..)
                .zip(values.iter().zip(&self.predicted))
                .filter(inexact)
        };
        // corrections are for those that have a fraction, and a sign bit if it is zero
        let near = pairs()
            .filter(|&(i, (&v, _))| v != 0.0 && none.binary_search(&i).is_err())
            .count();
        let corrected = near * 64 > values.len();
        let places: Vec<u16> = pairs()
            .filter(|&(i, (&v, _))| !corrected || v == 0.0 || none.binary_search(&i).is_ok())
            .map(|(i, _)| i)
            .collect();
        self.places = places;
        let fine = rational::fine_scale(&self.denominators);
        let ratios_cost =
            rational::rescale(&self.integers, &self.denominators, fine, &mut self.ratios)
                .map(|()| integers::group_cost_bytes(&self.ratios) + varint_bytes(fine));
        let ratios = ratios_cost.is_some_and(|c| c < integers::group_cost_bytes(&self.integers));
        self.push_head(if ratios { FORM_RATIOS } else { FORM_PAIRS }, corrected);
        self.attempt.push(digits);
        if ratios {
            varint::put_u64(&mut self.attempt, fine);
        }
        self.push_exceptions(values);
        let numerators = if ratios { &self.ratios } else { &self.integers };
        coded::encode_group(&self.denominators, &mut self.attempt);
        integers::encode_group(numerators, &mut self.attempt);
        if corrected {
            self.push_corrections(values);
        }
        !corrected && self.places.len() * 64 <= values.len()
    }

    fn push_head(&mut self, form: u8, corrected: bool) {
        let mut head = form;
        if corrected {
            head |= FLAG_CORRECTED;
        }
        if !self.places.is_empty() {
            head |= FLAG_EXCEPTIONS;
        }
        self.attempt.push(head);
    }

    fn push_exceptions(&mut self, values: &[f64]) {
        if !self.places.is_empty() {
            exceptions::encode(values, &self.places, &mut self.attempt);
        }
    }

    fn push_corrections(&mut self, values: &[f64]) {
        self.corrections.resize(values.len(), 0);
        last_bits::distances(values, &self.predicted, &mut self.corrections);
        bridge(&mut self.corrections, &self.places);
        coded::encode_group(&self.corrections, &mut self.attempt);
    }
}

fn all_same(values: &[f64]) -> bool {
    let first = values.first().map_or(0, |v| v.to_bits());
    values.iter().all(|v| v.to_bits() == first)
}

fn encode_constant(value: f64, flags: u8, out: &mut Vec<u8>) {
    match Scale::INTEGER.nearest(value) {
        Some((n, back)) if back.to_bits() == value.to_bits() => {
            out.push(FORM_CONSTANT_INTEGER | flags);
            varint::put_i64(out, n);
        }
        _ => {
            out.push(FORM_CONSTANT_BITS | flags);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    }
}

/// Whether so many digits behind the point give all of the sample back.
fn keeps_all(sample: &[f64], digits: u8) -> bool {
    let scale = Scale::OverPower(digits);
    sample.iter().all(|&v| scale.keeps(v))
}

/// What the digits of a sample are like.
enum ExactDigits {
    All(u8),
    Most(u8),
    Few,
}

/// How many digits behind the point give the sample back exactly. `hint` is tried first.
fn exact_digits(sample: &[f64], hint: u8) -> ExactDigits {
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
fn near_digits(sample: &[f64]) -> Option<u8> {
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
fn best_rounding(sample: &[f64], digits: u8) -> (Scale, usize) {
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
fn common_divisor(sample: &[f64]) -> Option<u64> {
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
fn rational_digits(sample: &[f64], hint: Option<(u8, f64)>) -> Option<(u8, f64)> {
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

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Gives exceptions the integer before them, so that they cost nothing in their column.
fn bridge(integers: &mut [i64], places: &[u16]) {
    let Some(&first) = places.first() else {
        return;
    };
    let mut next = places.iter().map(|&p| usize::from(p)).peekable();
    // those at the front take the first integer that is one
    let mut before = 0;
    if first == 0 {
        let kept = (0..integers.len()).zip(integers.iter()).find(|(i, _)| {
            places
                .binary_search(&u16::try_from(*i).unwrap_or(u16::MAX))
                .is_err()
        });
        before = kept.map_or(0, |(_, &n)| n);
    }
    for (i, n) in integers.iter_mut().enumerate() {
        if next.next_if_eq(&i).is_some() {
            *n = before;
        } else {
            before = *n;
        }
    }
}

/// Takes a factor that all integers share out of them and puts it into the scale, if that pays.
fn with_common_unit(scale: Scale, integers: &mut [i64]) -> Scale {
    /// The unit costs a few bytes.
    const BITS_WORTH: u64 = 32;
    let Scale::OverPower(digits) = scale else {
        return scale;
    };
    let limit = if digits == 0 {
        u64::MAX
    } else {
        10u64.pow(u32::from(digits.min(19)))
    };
    let mut unit = 0;
    for n in integers.iter() {
        let n = n.unsigned_abs();
        if digits > 0 && n > scale::EXACT_MAX {
            // no float holds it: its quotient was rounded twice
            return scale;
        }
        if unit == 0 || n % unit != 0 {
            unit = gcd(n, unit);
        }
        if unit == 1 {
            return scale;
        }
    }
    if digits > 0 {
        unit = gcd(unit, limit);
    }
    let saved = u64::from(64 - unit.leading_zeros()).saturating_sub(1) * integers.len() as u64;
    let divisor_fits = digits == 0 || limit / unit.max(1) <= scale::EXACT_MAX;
    if unit <= 1 || unit > scale::EXACT_MAX || saved < BITS_WORTH || !divisor_fits {
        return scale;
    }
    let Ok(divisor) = i64::try_from(unit) else {
        return scale;
    };
    for n in integers.iter_mut() {
        *n /= divisor;
    }
    if digits == 0 {
        Scale::Times(unit)
    } else if limit == unit {
        Scale::INTEGER
    } else {
        Scale::Over(limit / unit)
    }
}

fn head_of(scale: Scale) -> u8 {
    match scale {
        Scale::OverPower(e) => FORM_OVER_POWER + e,
        Scale::TimesInverse(e) => FORM_TIMES_INVERSE + e,
        Scale::InSteps(e) => FORM_IN_STEPS + e,
        Scale::Times(_) => FORM_TIMES,
        Scale::Over(_) => FORM_OVER,
    }
}

fn varint_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends the `count` values of a column, which is all of `bytes`.
///
/// # Errors
///
/// If the bytes are no column of so many values; `out` is as long as before then.
pub fn decode(bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Result<(), ColumnError> {
    decode_range(bytes, count, 0..count, out)
}

/// Appends the `wanted` values of a column of `count` values, which is all of `bytes`; decodes only
/// the groups that hold them.
///
/// # Errors
///
/// If the bytes are no column of so many values, or `wanted` goes beyond them; `out` is as long as
/// before then. Damage in groups that are not touched is not found.
pub fn decode_range(
    bytes: &[u8],
    count: usize,
    wanted: Range<usize>,
    out: &mut Vec<f64>,
) -> Result<(), ColumnError> {
    let start = out.len();
    let result = decode_groups(bytes, count, wanted, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// The name of the form of the column's first group, for people.
///
/// # Errors
///
/// If there is no such form.
pub fn describe(bytes: &[u8]) -> Result<&'static str, ColumnError> {
    let &head = bytes
        .first()
        .ok_or_else(|| damaged(0, "an empty column has no form"))?;
    let corrected = head & FLAG_CORRECTED != 0;
    Ok(match head & FORM_MASK {
        FORM_CONSTANT_INTEGER | FORM_CONSTANT_BITS => "constant",
        FORM_WORDS => "words",
        FORM_PATTERNS => "patterns",
        FORM_PAIRS | FORM_RATIOS if corrected => "ratio, corrected",
        FORM_PAIRS | FORM_RATIOS => "ratio",
        0 if !corrected => "integer",
        FORM_TIMES if !corrected => "multiple",
        FORM_OVER if !corrected => "fraction",
        form if is_decimal(form) && corrected => "decimal, corrected",
        form if is_decimal(form) => "decimal",
        _ => return Err(damaged(0, "unknown form of values")),
    })
}

fn is_decimal(form: u8) -> bool {
    form <= FORM_OVER
        || form >= FORM_IN_STEPS + scale::STEPS_MIN && form <= FORM_IN_STEPS + scale::STEPS_MAX
}

fn damaged(offset_bytes: usize, reason: &'static str) -> ColumnError {
    ColumnError::Damaged {
        offset_bytes,
        reason,
    }
}

fn decode_groups(
    bytes: &[u8],
    count: usize,
    wanted: Range<usize>,
    out: &mut Vec<f64>,
) -> Result<(), ColumnError> {
    if wanted.start > wanted.end || wanted.end > count {
        return Err(damaged(0, "values beyond the column"));
    }
    if count == 0 {
        return if bytes.is_empty() {
            Ok(())
        } else {
            Err(damaged(0, "bytes in a column of no values"))
        };
    }
    let (&head, rest) = bytes
        .split_first()
        .ok_or_else(|| damaged(0, "a column of values without bytes"))?;
    if count <= GROUP {
        return decode_part(head, rest, count, wanted, 1, out);
    }
    if is_whole(head) {
        if count > CONSTANT_VALUES_MAX {
            return Err(damaged(0, "too many values for one constant"));
        }
        let value = decode_constant(head, rest, 1)?;
        out.resize(out.len() + wanted.len(), value);
        return Ok(());
    }

    let groups = count.div_ceil(GROUP);
    let (lengths, mut rest) = groups
        .checked_sub(1)
        .and_then(|inner| inner.checked_mul(2))
        .and_then(|len| rest.split_at_checked(len))
        .ok_or_else(|| damaged(bytes.len(), "the lengths of groups are cut short"))?;
    let mut lengths = lengths.as_chunks::<2>().0.iter();
    for group in 0..groups {
        let at = bytes.len() - rest.len();
        let len = lengths
            .next()
            .map_or(rest.len(), |len| usize::from(u16::from_le_bytes(*len)));
        let (mut group_bytes, behind) = rest
            .split_at_checked(len)
            .ok_or_else(|| damaged(at, "a group is cut short"))?;
        rest = behind;
        let first = group * GROUP;
        let values = GROUP.min(count - first);
        let from = wanted.start.clamp(first, first + values) - first;
        let to = wanted.end.clamp(first, first + values) - first;
        if from == to {
            continue;
        }
        let mut group_head = head;
        if group > 0 {
            let (&own, behind) = group_bytes
                .split_first()
                .ok_or_else(|| damaged(at, "an empty group"))?;
            (group_head, group_bytes) = (own, behind);
        }
        decode_part(group_head, group_bytes, values, from..to, at, out)?;
    }
    Ok(())
}

/// Appends the `wanted` values of a group of `count`, 1 to 1,024; `bytes` are those behind its head, `at`
/// is where they stand in the column.
fn decode_part(
    head: u8,
    bytes: &[u8],
    count: usize,
    wanted: Range<usize>,
    at: usize,
    out: &mut Vec<f64>,
) -> Result<(), ColumnError> {
    let start = out.len();
    out.resize(start + count, 0.0);
    let values = out.get_mut(start..).unwrap_or_default();
    decode_group(head, bytes, at, values)?;
    if wanted.start > 0 {
        values.copy_within(wanted.clone(), 0);
    }
    out.truncate(start + wanted.len());
    Ok(())
}

fn is_whole(head: u8) -> bool {
    matches!(
        head & !FLAG_WHOLE,
        FORM_CONSTANT_INTEGER | FORM_CONSTANT_BITS
    ) && head & FLAG_WHOLE != 0
}

fn decode_constant(head: u8, mut bytes: &[u8], at: usize) -> Result<f64, ColumnError> {
    let value = if head & FORM_MASK == FORM_CONSTANT_INTEGER {
        let n =
            varint::take_i64(&mut bytes).ok_or_else(|| damaged(at, "a constant is cut short"))?;
        let mut value = [0.0];
        Scale::INTEGER.restore(&[n], &mut value);
        value[0]
    } else {
        let (word, rest) = bytes
            .split_first_chunk::<8>()
            .ok_or_else(|| damaged(at, "a constant is cut short"))?;
        bytes = rest;
        f64::from_bits(u64::from_le_bytes(*word))
    };
    if bytes.is_empty() {
        Ok(value)
    } else {
        Err(damaged(at, "bytes behind a constant"))
    }
}

/// Decodes a group into `values`, 1 to 1,024; `bytes` are those behind its head, `at` is where they stand
/// in the column.
fn decode_group(head: u8, bytes: &[u8], at: usize, values: &mut [f64]) -> Result<(), ColumnError> {
    let form = head & FORM_MASK;
    let count = values.len();
    let mut input = GroupInput { bytes, at };
    match form {
        FORM_CONSTANT_INTEGER | FORM_CONSTANT_BITS => {
            if head & (FLAG_WHOLE | FLAG_EXCEPTIONS) != 0 {
                return Err(input.damaged("flags on a constant"));
            }
            values.fill(decode_constant(head, bytes, at)?);
            return Ok(());
        }
        FORM_PATTERNS | FORM_WORDS if head != form => {
            return Err(input.damaged("flags on bit patterns"));
        }
        FORM_WORDS => {
            if bytes.len() != count * 8 {
                return Err(input.damaged("words and values differ in number"));
            }
            for (v, word) in values.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *v = f64::from_bits(u64::from_le_bytes(*word));
            }
            return Ok(());
        }
        FORM_PATTERNS => {
            let mut scratch = [0; GROUP];
            let zeros = input.byte()?;
            if zeros > 63 {
                return Err(input.damaged("more zeros than bits"));
            }
            let integers = input.integers(&mut scratch, count)?;
            raw::restore(integers, zeros, values);
            return input.end();
        }
        _ => {}
    }

    let mut scratch = [0; GROUP];
    let mut exceptions = None;
    match form {
        FORM_PAIRS | FORM_RATIOS => {
            exceptions = decode_rational(head, &mut input, &mut scratch, values)?;
        }
        _ => {
            let scale = match form {
                FORM_TIMES => Scale::Times(input.unit()?),
                FORM_OVER => Scale::Over(input.unit()?),
                _ if form <= scale::POWER_OF_TEN_MAX => Scale::OverPower(form),
                _ if form <= FORM_TIMES_INVERSE + scale::INVERSE_MAX => {
                    Scale::TimesInverse(form - FORM_TIMES_INVERSE)
                }
                _ if is_decimal(form) && form > FORM_CONSTANT_BITS => {
                    Scale::InSteps(form - FORM_IN_STEPS)
                }
                _ => return Err(input.damaged("unknown form of values")),
            };
            if head & FLAG_EXCEPTIONS != 0 {
                exceptions = Some(input.exceptions(count)?);
            }
            let integers = input.integers(&mut scratch, count)?;
            scale.restore(integers, values);
        }
    }
    if head & FLAG_CORRECTED != 0 {
        let corrections = input.integers(&mut scratch, count)?;
        last_bits::apply(values, corrections);
    }
    if let Some(exceptions) = exceptions {
        exceptions.apply(values);
    }
    input.end()
}

/// The denominators' own scratch is made only where there are some.
#[inline(never)]
fn decode_rational<'a>(
    head: u8,
    input: &mut GroupInput<'a>,
    scratch: &mut [i64; GROUP],
    values: &mut [f64],
) -> Result<Option<exceptions::Exceptions<'a>>, ColumnError> {
    let count = values.len();
    let ratios = head & FORM_MASK == FORM_RATIOS;
    let digits = input.byte()?;
    if digits > rational::DIGITS_MAX {
        return Err(input.damaged("too many digits of a numerator"));
    }
    let fine = if ratios { input.number()? } else { 1 };
    let exceptions = if head & FLAG_EXCEPTIONS != 0 {
        Some(input.exceptions(count)?)
    } else {
        None
    };
    let mut denominators = [0; GROUP];
    let denominators = input.integers(&mut denominators, count)?;
    let numerators = input.integers(scratch, count)?;
    if ratios {
        rational::restore_ratios(numerators, denominators, fine, digits, values);
    } else {
        rational::restore_pairs(numerators, denominators, digits, values);
    }
    Ok(exceptions)
}

/// The bytes of a group, read from the front.
struct GroupInput<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> GroupInput<'a> {
    fn damaged(&self, reason: &'static str) -> ColumnError {
        damaged(self.at, reason)
    }

    fn advance(&mut self, rest: &'a [u8]) {
        self.at += self.bytes.len() - rest.len();
        self.bytes = rest;
    }

    fn byte(&mut self) -> Result<u8, ColumnError> {
        let (&byte, rest) = self
            .bytes
            .split_first()
            .ok_or_else(|| self.damaged("a group is cut short"))?;
        self.advance(rest);
        Ok(byte)
    }

    /// A number that a float holds exactly, and not zero.
    fn unit(&mut self) -> Result<u64, ColumnError> {
        let unit = self.number()?;
        if unit > scale::EXACT_MAX {
            return Err(self.damaged("a unit beyond 2^53"));
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<u64, ColumnError> {
        let mut rest = self.bytes;
        match varint::take_u64(&mut rest) {
            Some(number) if number > 0 => {
                self.advance(rest);
                Ok(number)
            }
            _ => Err(self.damaged("a scale that is none, or cut short")),
        }
    }

    fn exceptions(&mut self, count: usize) -> Result<exceptions::Exceptions<'a>, ColumnError> {
        let mut rest = self.bytes;
        match exceptions::take(&mut rest, count) {
            Ok(exceptions) => {
                self.advance(rest);
                Ok(exceptions)
            }
            Err(reason) => Err(self.damaged(reason)),
        }
    }

    fn integers<'s>(
        &mut self,
        scratch: &'s mut [i64; GROUP],
        count: usize,
    ) -> Result<&'s [i64], ColumnError> {
        match coded::decode_group(self.bytes, count, scratch) {
            Ok(taken) => {
                let rest = self.bytes.get(taken..).unwrap_or_default();
                self.advance(rest);
                Ok(scratch.get(..count).unwrap_or_default())
            }
            Err(ColumnError::Damaged {
                offset_bytes,
                reason,
            }) => Err(damaged(self.at + offset_bytes, reason)),
        }
    }

    fn end(&self) -> Result<(), ColumnError> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(self.damaged("bytes behind the last value"))
        }
    }
}

#[cfg(test)]
mod tests;
