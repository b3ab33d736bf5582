//! Texts of one pattern: the same length, the same characters at some places, lower-case hexadecimal digits
//! at the others. UUIDs are such texts, and hashes, and `u-00a31f7`.
//!
//! The digits of a text, up to 32, are one number: its last sixteen stand in one column of numbers, the
//! others in a second one. Texts that rise are numbers that rise, so sorted ones need few bits more than
//! what is random in them. Bytes: `docs/formats/attribute-column.md`.

use roaring::RoaringBitmap;

use super::{
    head::{HeadReader, put_unsigned},
    numbers::{GROUP_LEN, Numbers, NumbersCursor},
    sink::Sink,
    source::ColumnSource,
    wanted::Wanted,
};
use crate::error::Error;

/// Digits that two numbers hold.
const DIGITS_MAX: usize = 32;
/// Digits of the low number.
const LOW_DIGITS: usize = 16;
/// Longer texts are not looked at.
const LENGTH_MAX: usize = 255;
/// Stands in a pattern where a digit stands in the texts.
const DIGIT: u8 = 0;

/// What the texts have in common: their characters, [`DIGIT`] where they differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    text: Vec<u8>,
    digits: usize,
}

/// Where the numbers lie.
#[derive(Clone, Debug)]
pub(super) struct Hex {
    pattern: Pattern,
    /// If there are more than sixteen digits.
    high: Option<Numbers>,
    low: Numbers,
}

/// The groups that were decoded last.
#[derive(Debug, Default)]
pub(super) struct HexCursor {
    high: NumbersCursor,
    low: NumbersCursor,
}

fn digit_of(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn byte_of(digit: u64) -> u8 {
    b"0123456789abcdef"
        .get((digit & 15) as usize)
        .copied()
        .unwrap_or(b'0')
}

/// As signed numbers that rise when the unsigned ones do.
fn signed(number: u64) -> i64 {
    (number ^ 1 << 63).cast_signed()
}

fn unsigned(number: i64) -> u64 {
    number.cast_unsigned() ^ 1 << 63
}

impl Pattern {
    /// The pattern of all `texts`, if they have one.
    pub(super) fn of<'a>(mut texts: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let first = texts.next()?;
        if first.len() > LENGTH_MAX || first.contains(&DIGIT) {
            return None;
        }
        let mut differs = vec![false; first.len()];
        for text in texts {
            if text.len() != first.len() {
                return None;
            }
            for ((&a, &b), differs) in first.iter().zip(text).zip(&mut differs) {
                if a != b {
                    if digit_of(b).is_none() || digit_of(a).is_none() {
                        return None;
                    }
                    *differs = true;
                }
            }
        }
        let digits = differs.iter().filter(|&&differs| differs).count();
        let text = first.iter().zip(differs);
        let text = text.map(|(&byte, differs)| if differs { DIGIT } else { byte });
        (1..=DIGITS_MAX).contains(&digits).then(|| Self {
            text: text.collect(),
            digits,
        })
    }

    /// The digits of a text of this pattern: the high and the low number.
    #[inline]
    fn numbers(&self, text: &[u8]) -> Option<(u64, u64)> {
        if text.len() != self.text.len() {
            return None;
        }
        let (mut high, mut low) = (0_u64, 0_u64);
        for (&byte, &pattern) in text.iter().zip(&self.text) {
            if pattern == DIGIT {
                high = high << 4 | low >> 60;
                low = low << 4 | u64::from(digit_of(byte)?);
            } else if byte != pattern {
                return None;
            }
        }
        Some((high, low))
    }

    /// Appends the text with these digits.
    #[inline]
    fn put_text(&self, high: u64, low: u64, out: &mut Vec<u8>) {
        let mut left = self.digits;
        for &byte in &self.text {
            if byte == DIGIT {
                left = left.saturating_sub(1);
                let digit = if left >= LOW_DIGITS {
                    high >> (4 * (left - LOW_DIGITS))
                } else {
                    low >> (4 * left)
                };
                out.push(byte_of(digit));
            } else {
                out.push(byte);
            }
        }
    }
}

impl Hex {
    /// Writes texts of this pattern, in the order given.
    pub(super) fn write<'a>(
        pattern: Pattern,
        texts: impl Iterator<Item = &'a [u8]>,
        sink: &mut Sink<'_>,
    ) -> Result<Self, Error> {
        let (mut highs, mut lows) = (Vec::new(), Vec::new());
        for text in texts {
            let (high, low) = pattern.numbers(text).unwrap_or_default();
            if pattern.digits > LOW_DIGITS {
                highs.push(signed(high));
            }
            lows.push(signed(low));
        }
        let high = if pattern.digits > LOW_DIGITS {
            Some(Numbers::write(highs.iter().copied(), sink)?)
        } else {
            None
        };
        Ok(Self {
            pattern,
            high,
            low: Numbers::write(lows.iter().copied(), sink)?,
        })
    }

    pub(super) fn put(&self, head: &mut Vec<u8>) {
        put_unsigned(head, self.pattern.text.len() as u64);
        head.extend_from_slice(&self.pattern.text);
        if let Some(high) = &self.high {
            high.put(head);
        }
        self.low.put(head);
    }

    pub(super) fn take(head: &mut HeadReader<'_>) -> Result<Self, Error> {
        let text = head.bytes(LENGTH_MAX)?.to_vec();
        let digits = text.iter().map(|&byte| usize::from(byte == DIGIT)).sum();
        if !(1..=DIGITS_MAX).contains(&digits) {
            return Err(head.damaged("a pattern without digits, or with too many"));
        }
        let high = if digits > LOW_DIGITS {
            Some(Numbers::take(head)?)
        } else {
            None
        };
        let low = Numbers::take(head)?;
        if high.as_ref().is_some_and(|high| high.len() != low.len()) {
            return Err(head.damaged("texts without all their digits"));
        }
        Ok(Self {
            pattern: Pattern { text, digits },
            high,
            low,
        })
    }

    pub(super) fn len(&self) -> u32 {
        self.low.len()
    }

    #[cfg(test)]
    pub(super) fn section_bytes(&self) -> u64 {
        self.low.section_bytes() + self.high.as_ref().map_or(0, Numbers::section_bytes)
    }

    /// Appends the text with this number.
    pub(super) fn get(
        &self,
        source: &ColumnSource,
        cursor: &mut HexCursor,
        number: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let low = unsigned(self.low.get(source, &mut cursor.low, number)?);
        let high = match &self.high {
            Some(high) => unsigned(high.get(source, &mut cursor.high, number)?),
            None => 0,
        };
        self.pattern.put_text(high, low, out);
        Ok(())
    }

    /// Calls `visit` with every text and its number.
    pub(super) fn each(
        &self,
        source: &ColumnSource,
        mut visit: impl FnMut(u32, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut cursor = NumbersCursor::default();
        let mut text = Vec::new();
        self.low.each_group(
            source,
            |_, _| Ok(true),
            |group, lows| {
                let highs = match &self.high {
                    Some(high) => high.group(source, &mut cursor, group)?,
                    None => &[],
                };
                for (number, (at, &low)) in (group * GROUP_LEN..).zip(lows.iter().enumerate()) {
                    let high = highs.get(at).map_or(0, |&high| unsigned(high));
                    text.clear();
                    self.pattern.put_text(high, unsigned(low), &mut text);
                    visit(number, &text)?;
                }
                Ok(())
            },
        )
    }

    /// The number of a text, of texts that rise strictly.
    pub(super) fn find_sorted(
        &self,
        source: &ColumnSource,
        text: &[u8],
    ) -> Result<Option<u32>, Error> {
        let Some((high, low)) = self.pattern.numbers(text) else {
            return Ok(None);
        };
        let mut cursor = HexCursor::default();
        let low = signed(low);
        let (mut number, end) = if let Some(highs) = &self.high {
            let high = signed(high);
            (
                highs.rank(source, &mut cursor.high, high, false)?,
                highs.rank(source, &mut cursor.high, high, true)?,
            )
        } else {
            let number = self.low.rank(source, &mut cursor.low, low, false)?;
            (number, number.saturating_add(1).min(self.len()))
        };
        while number < end {
            if self.low.get(source, &mut cursor.low, number)? == low {
                return Ok(Some(number));
            }
            number += 1;
        }
        Ok(None)
    }

    /// The numbers of a text, of texts in any order.
    pub(super) fn find(
        &self,
        source: &ColumnSource,
        text: &[u8],
        check: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<RoaringBitmap, Error> {
        let Some((high, low)) = self.pattern.numbers(text) else {
            return Ok(RoaringBitmap::new());
        };
        let mut found = self.low.find(source, &Wanted::one(signed(low)), check)?;
        if let Some(highs) = &self.high {
            let mut cursor = NumbersCursor::default();
            let mut wrong = RoaringBitmap::new();
            for number in &found {
                if highs.get(source, &mut cursor, number)? != signed(high) {
                    wrong.insert(number);
                }
            }
            found -= wrong;
        }
        Ok(found)
    }
}
