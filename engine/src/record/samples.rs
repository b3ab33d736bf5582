//! The samples part of a batch record. Bytes: `docs/formats/batch-record.md`, "Samples".
//!
//! Most samples of a request follow their neighbour by one series and share its time, and many
//! values are small integers whose low bytes are zero. So a header byte says how the series and the
//! time go on and how many value bytes follow: 5 to 9 bytes a sample where 24 come in.
//!
//! Invariants
//! - Samples stand in the order of the request; the later of two with one series and time wins.
//! - Every bit of a value and every `i64` time come back.

use super::Part;
use crate::{
    error::Error,
    id::SeriesRef,
    time::NS_PER_MS,
    varint::{put_i64, take_i64, take_slice},
};

/// Times are nanoseconds.
const UNIT_NS: u8 = 0;
/// Times are milliseconds: all of the part are whole ones.
const UNIT_MS: u8 = 1;

/// Header bits 0..=3: value bytes that follow, 0..=8.
const VALUE_BYTES_MASK: u8 = 0x0f;
/// Header bit 4: a time step follows; else the time is the previous one.
const TIME_STEP: u8 = 0x10;
/// Header bits 5..=7: how far the series reference goes on, or this.
const REF_STEP_EXPLICIT: u8 = 7;
const REF_STEP_SHIFT: u32 = 5;

/// A sample as the log holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RefSample {
    /// Its series.
    pub(crate) series: SeriesRef,
    /// Nanoseconds since the epoch.
    pub(crate) time_ns: i64,
    /// Any bits.
    pub(crate) value: f64,
}

/// Writes samples in order. `all_whole_ms` allows the shorter unit.
#[derive(Debug)]
pub(crate) struct Encoder<'o> {
    out: &'o mut Vec<u8>,
    whole_ms: bool,
    started: bool,
    previous_ref: u64,
    previous_time: i64,
}

impl<'o> Encoder<'o> {
    /// Starts a part that stays empty without a sample. `whole_ms` promises that every time is a
    /// whole millisecond.
    pub(crate) fn new(out: &'o mut Vec<u8>, whole_ms: bool) -> Self {
        Self {
            out,
            whole_ms,
            started: false,
            previous_ref: 0,
            previous_time: 0,
        }
    }

    /// Appends one sample.
    #[inline]
    pub(crate) fn push(&mut self, sample: RefSample) {
        if !self.started {
            self.started = true;
            self.out.push(if self.whole_ms { UNIT_MS } else { UNIT_NS });
        }
        let time = if self.whole_ms {
            sample.time_ns / NS_PER_MS
        } else {
            sample.time_ns
        };
        debug_assert!(!self.whole_ms || time * NS_PER_MS == sample.time_ns);
        let bits = sample.value.to_bits();
        // A value's low bytes are zero if it needs few digits: those are left out.
        let zero_bytes = bits.trailing_zeros() / 8;
        let value_bytes = 8 - zero_bytes.min(8);
        let ref_step = sample.series.0.wrapping_sub(self.previous_ref);
        let time_step = time.wrapping_sub(self.previous_time);
        self.previous_ref = sample.series.0;
        self.previous_time = time;

        #[expect(clippy::cast_possible_truncation, reason = "0..=8, and below 7")]
        let (value_code, ref_code) = (
            value_bytes as u8,
            if ref_step < u64::from(REF_STEP_EXPLICIT) {
                ref_step as u8
            } else {
                REF_STEP_EXPLICIT
            },
        );
        let time_code = if time_step == 0 { 0 } else { TIME_STEP };
        self.out
            .push(value_code | time_code | (ref_code << REF_STEP_SHIFT));
        if ref_code == REF_STEP_EXPLICIT {
            put_i64(self.out, ref_step.cast_signed());
        }
        if time_step != 0 {
            put_i64(self.out, time_step);
        }
        // Eight bytes are copied in one store, then cut back.
        self.out.extend_from_slice(&bits.to_be_bytes());
        self.out
            .truncate(self.out.len() - zero_bytes.min(8) as usize);
    }
}

/// Reads the samples of a part, in order. The first error ends the iteration.
pub(crate) fn decode(part: Part<'_>) -> Result<Decoder<'_>, Error> {
    let (unit, rest) = match part.bytes.split_first() {
        Some((&UNIT_NS, rest)) => (1, rest),
        Some((&UNIT_MS, rest)) => (NS_PER_MS, rest),
        Some((unit, _)) => {
            return Err(part.corrupt(format!("samples have the unknown time unit {unit}")));
        }
        None => return Err(part.corrupt("samples part without its time unit")),
    };
    Ok(Decoder {
        part,
        rest,
        unit,
        previous_ref: 0,
        previous_time: 0,
    })
}

/// See [`decode`].
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    part: Part<'a>,
    rest: &'a [u8],
    unit: i64,
    previous_ref: u64,
    previous_time: i64,
}

impl Decoder<'_> {
    fn take(&mut self) -> Option<RefSample> {
        let (&header, rest) = self.rest.split_first()?;
        self.rest = rest;
        let ref_step = match header >> REF_STEP_SHIFT {
            REF_STEP_EXPLICIT => take_i64(&mut self.rest)?.cast_unsigned(),
            step => u64::from(step),
        };
        let time_step = if header & TIME_STEP == 0 {
            0
        } else {
            take_i64(&mut self.rest)?
        };
        self.previous_ref = self.previous_ref.wrapping_add(ref_step);
        self.previous_time = self.previous_time.wrapping_add(time_step);
        let taken = take_slice(&mut self.rest, usize::from(header & VALUE_BYTES_MASK))?;
        let mut bits = [0u8; 8];
        bits.get_mut(..taken.len())?.copy_from_slice(taken);
        Some(RefSample {
            series: SeriesRef(self.previous_ref),
            time_ns: self.previous_time.checked_mul(self.unit)?,
            value: f64::from_bits(u64::from_be_bytes(bits)),
        })
    }
}

impl Iterator for Decoder<'_> {
    type Item = Result<RefSample, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let at = self.part.bytes.len() - self.rest.len();
        if let Some(sample) = self.take() {
            return Some(Ok(sample));
        }
        self.rest = &[];
        Some(Err(self.part.corrupt(format!(
            "sample at byte {at} of its part does not decode"
        ))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rootline_wal::Lsn;

    use super::*;
    use crate::record::Tag;

    fn part(bytes: &[u8]) -> Part<'_> {
        Part {
            tag: Tag::Samples,
            bytes,
            lsn: Lsn(1),
        }
    }

    fn encode(samples: &[RefSample], whole_ms: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out, whole_ms);
        for sample in samples {
            encoder.push(*sample);
        }
        out
    }

    fn sample(series: u64, time_ns: i64, value: f64) -> RefSample {
        RefSample {
            series: SeriesRef(series),
            time_ns,
            value,
        }
    }

    fn key(s: &RefSample) -> (u64, i64, u64) {
        (s.series.0, s.time_ns, s.value.to_bits())
    }

    #[test]
    fn a_scrape_of_small_counters_costs_few_bytes() {
        let t = 1_700_000_000_000 * NS_PER_MS;
        let samples: Vec<_> = (0..1000u32)
            .map(|i| sample(i.into(), t, f64::from(i)))
            .collect();
        let bytes = encode(&samples, true);
        assert!(bytes.len() < 4 * samples.len(), "{} bytes", bytes.len());
    }

    #[test]
    fn an_unknown_unit_and_a_cut_sample_are_refused() {
        assert!(decode(part(&[9])).is_err());
        assert!(decode(part(&[])).is_err());
        let bytes = encode(&[sample(1, 2, 3.5)], false);
        let cut = decode(part(&bytes[..bytes.len() - 1]))
            .unwrap()
            .next()
            .unwrap();
        assert!(cut.unwrap_err().to_string().contains("byte 1"));
    }

    #[test]
    fn a_millisecond_time_past_the_range_is_refused() {
        let mut bytes = vec![UNIT_MS, TIME_STEP];
        put_i64(&mut bytes, i64::MAX);
        assert!(decode(part(&bytes)).unwrap().next().unwrap().is_err());
    }

    proptest! {
        #[test]
        fn samples_come_back_bit_by_bit(
            raw in prop::collection::vec((any::<u64>(), any::<i64>(), any::<u64>()), 0..50),
            small in prop::collection::vec((0u64..9, -3i64..4, 0u32..300), 0..50),
            ms in any::<bool>(),
        ) {
            let mut samples: Vec<_> =
                raw.iter().map(|&(s, t, v)| sample(s, t, f64::from_bits(v))).collect();
            samples.extend(small.iter().map(|&(s, t, v)| sample(s, t, v.into())));
            if ms {
                for s in &mut samples {
                    s.time_ns = s.time_ns / NS_PER_MS * NS_PER_MS;
                }
            }
            let bytes = encode(&samples, ms);
            if samples.is_empty() {
                prop_assert!(bytes.is_empty());
            } else {
                let read: Vec<_> =
                    decode(part(&bytes)).unwrap().map(|s| key(&s.unwrap())).collect();
                prop_assert_eq!(read, samples.iter().map(key).collect::<Vec<_>>());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(decoder) = decode(part(&bytes)) {
                prop_assert!(decoder.filter(Result::is_err).count() <= 1);
            }
        }
    }
}
