//! Reads columns, any bytes and any count, a group at a time.

use std::ops::Range;

use super::{
    CONSTANT_VALUES_MAX, FLAG_CORRECTED, FLAG_EXCEPTIONS, FLAG_WHOLE, FORM_CONSTANT_BITS,
    FORM_CONSTANT_INTEGER, FORM_IN_STEPS, FORM_MASK, FORM_OVER, FORM_PAIRS, FORM_PATTERNS,
    FORM_RATIOS, FORM_TIMES, FORM_TIMES_INVERSE, FORM_WORDS,
};
use crate::{
    column::{
        ColumnError, coded, exceptions,
        integers::GROUP,
        last_bits, rational, raw,
        scale::{self, Scale},
    },
    varint,
};

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
    const FIRST: u8 = FORM_IN_STEPS + scale::STEPS_MIN;
    const LAST: u8 = FORM_IN_STEPS + scale::STEPS_MAX;
    form <= FORM_OVER || (FIRST..=LAST).contains(&form)
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
    let input = GroupInput { bytes, at };
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
        _ => {}
    }
    if count < coded::COUNT_MIN {
        decode_integers(head, input, &mut [0; coded::COUNT_MIN], values)
    } else {
        decode_integers(head, input, &mut [0; GROUP], values)
    }
}

/// Decodes a group of a form that stores integers. `scratch` has room for 1,024 of them, or for all of
/// a group too short for `coded.rs`: short columns would spend more time on clearing it than on all else.
#[inline(never)]
fn decode_integers(
    head: u8,
    mut input: GroupInput<'_>,
    scratch: &mut [i64],
    values: &mut [f64],
) -> Result<(), ColumnError> {
    let form = head & FORM_MASK;
    let count = values.len();
    let exceptions;
    match form {
        FORM_PATTERNS => {
            let zeros = input.byte()?;
            if zeros > 63 {
                return Err(input.damaged("more zeros than bits"));
            }
            let integers = input.integers(scratch, count)?;
            raw::restore(integers, zeros, values);
            return input.end();
        }
        FORM_PAIRS | FORM_RATIOS => {
            exceptions = decode_rational(head, &mut input, scratch, values)?;
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
            exceptions = input.exceptions(head, count)?;
            let integers = input.integers(scratch, count)?;
            scale.restore(integers, values);
        }
    }
    if head & FLAG_CORRECTED != 0 {
        let corrections = input.integers(scratch, count)?;
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
    scratch: &mut [i64],
    values: &mut [f64],
) -> Result<Option<exceptions::Exceptions<'a>>, ColumnError> {
    let count = values.len();
    let ratios = head & FORM_MASK == FORM_RATIOS;
    let digits = input.byte()?;
    if digits > rational::DIGITS_MAX {
        return Err(input.damaged("too many digits of a numerator"));
    }
    let fine = if ratios { input.number()? } else { 1 };
    let exceptions = input.exceptions(head, count)?;
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

    fn exceptions(
        &mut self,
        head: u8,
        count: usize,
    ) -> Result<Option<exceptions::Exceptions<'a>>, ColumnError> {
        if head & FLAG_EXCEPTIONS == 0 {
            return Ok(None);
        }
        let mut rest = self.bytes;
        match exceptions::take(&mut rest, count) {
            Ok(exceptions) => {
                self.advance(rest);
                Ok(Some(exceptions))
            }
            Err(reason) => Err(self.damaged(reason)),
        }
    }

    fn integers<'s>(
        &mut self,
        scratch: &'s mut [i64],
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
