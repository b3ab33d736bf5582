//! Chooses the form of every group and writes it.

use super::{
    CONSTANT_VALUES_MAX, FLAG_CORRECTED, FLAG_EXCEPTIONS, FLAG_WHOLE, FORM_CONSTANT_BITS,
    FORM_CONSTANT_INTEGER, FORM_IN_STEPS, FORM_OVER, FORM_OVER_POWER, FORM_PAIRS, FORM_PATTERNS,
    FORM_RATIOS, FORM_TIMES, FORM_TIMES_INVERSE, FORM_WORDS,
    sample::{
        ExactDigits, best_rounding, common_divisor, exact_digits, gcd, keeps_all, near_digits,
        rational_digits,
    },
};
use crate::{
    column::{
        coded, exceptions,
        integers::{self, GROUP},
        last_bits, rational, raw,
        scale::{self, Scale},
    },
    varint,
};

/// Values looked at before forms are chosen.
const SAMPLE: usize = 32;

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
