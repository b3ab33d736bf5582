//! The values of a group that its encoding cannot give back: their places and their 64 bits.
//!
//! Staleness markers, infinities and negative zeros stand here without their bits: they have codes.

use crate::varint;

/// Bit patterns that need no room. The index plus two is the code.
const COMMON: [u64; 6] = [
    0x7ff0_0000_0000_0002, // Prometheus: the series has ended
    0x7ff8_0000_0000_0001, // Prometheus: not a number
    0x7ff8_0000_0000_0000, // not a number of most processors and languages
    0x8000_0000_0000_0000, // -0.0
    0x7ff0_0000_0000_0000, // +infinity
    0xfff0_0000_0000_0000, // -infinity
];
const CODE_EACH: u64 = 0;
const CODE_SAME: u64 = 1;

/// Appends the exceptions at `places` (rising) of `values`.
pub(super) fn encode(values: &[f64], places: &[u16], out: &mut Vec<u8>) {
    let mut bits = places
        .iter()
        .filter_map(|&p| values.get(usize::from(p)))
        .map(|v| v.to_bits());
    let first = bits.next().unwrap_or_default();
    let code = if bits.all(|b| b == first) {
        (2..)
            .zip(COMMON)
            .find(|&(_, common)| common == first)
            .map_or(CODE_SAME, |(code, _)| code)
    } else {
        CODE_EACH
    };
    varint::put_u64(out, (places.len() as u64) << 3 | code);
    let mut next = 0;
    for &place in places {
        varint::put_u64(out, u64::from(place - next));
        next = place + 1;
    }
    if code == CODE_SAME {
        out.extend_from_slice(&first.to_le_bytes());
    } else if code == CODE_EACH {
        for &place in places {
            let bits = values.get(usize::from(place)).map_or(0, |v| v.to_bits());
            out.extend_from_slice(&bits.to_le_bytes());
        }
    }
}

/// Exceptions found well formed.
pub(super) struct Exceptions<'a> {
    count: u64,
    code: u64,
    places: &'a [u8],
    bits: &'a [u8],
}

/// Takes the exceptions of a group of `count` values off the front of `input`.
pub(super) fn take<'a>(input: &mut &'a [u8], count: usize) -> Result<Exceptions<'a>, &'static str> {
    let head = varint::take_u64(input).ok_or("the number of exceptions is cut short")?;
    let (code, exceptions) = (head & 7, head >> 3);
    if exceptions == 0 || exceptions > count as u64 {
        return Err("more exceptions than values, or none");
    }
    let places = *input;
    let mut next = 0;
    for _ in 0..exceptions {
        let gap = varint::take_u64(input).ok_or("the place of an exception is cut short")?;
        next = gap
            .checked_add(next)
            .filter(|&place| place < count as u64)
            .ok_or("an exception beyond the last value")?
            + 1;
    }
    let len = match code {
        CODE_EACH => exceptions * 8,
        CODE_SAME => 8,
        _ => 0,
    };
    let (bits, rest) = usize::try_from(len)
        .ok()
        .and_then(|len| input.split_at_checked(len))
        .ok_or("the bits of an exception are cut short")?;
    *input = rest;
    Ok(Exceptions {
        count: exceptions,
        code,
        places,
        bits,
    })
}

impl Exceptions<'_> {
    /// Puts the exceptions in their places.
    pub(super) fn apply(&self, values: &mut [f64]) {
        let mut places = self.places;
        let mut words = self.bits.as_chunks::<8>().0.iter();
        let mut next = 0;
        let mut same = match self.code {
            CODE_SAME | CODE_EACH => 0,
            code => usize::try_from(code - 2)
                .ok()
                .and_then(|i| COMMON.get(i).copied())
                .unwrap_or_default(),
        };
        for i in 0..self.count {
            // `take` has walked them
            let Some(gap) = varint::take_u64(&mut places) else {
                return;
            };
            let place = next + gap;
            next = place + 1;
            if (self.code == CODE_EACH || (self.code == CODE_SAME && i == 0))
                && let Some(word) = words.next()
            {
                same = u64::from_le_bytes(*word);
            }
            if let Some(value) = usize::try_from(place).ok().and_then(|p| values.get_mut(p)) {
                *value = f64::from_bits(same);
            }
        }
    }
}
