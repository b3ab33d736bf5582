//! Guards: every value comes back bit by bit, ranges are parts of the whole, and damaged bytes give an
//! error or other values, never a panic or an unbounded allocation.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "tests"
)]

use proptest::{collection::vec, prelude::*};

use super::*;

const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

fn encoded(values: &[f64]) -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::default().encode(values, &mut out);
    out
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Encodes and decodes, whole and in parts; the bytes.
fn round_trip(values: &[f64]) -> Vec<u8> {
    let bytes = encoded(values);
    let mut back = vec![1.5];
    decode(&bytes, values.len(), &mut back).unwrap();
    assert_eq!(back.len(), values.len() + 1);
    for (i, (found, wanted)) in back[1..].iter().zip(values).enumerate() {
        assert_eq!(
            found.to_bits(),
            wanted.to_bits(),
            "{i} {:?}",
            describe(&bytes)
        );
    }
    for (from, to) in [
        (0, values.len() / 2),
        (values.len() / 3, values.len()),
        (values.len() / 2, values.len() / 2),
        (values.len().min(1020), values.len().min(1030)),
    ] {
        back.clear();
        decode_range(&bytes, values.len(), from..to, &mut back).unwrap();
        assert_eq!(bits(&back), bits(&values[from..to]));
    }
    bytes
}

fn any_bits() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits)
}

fn special() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(STALE),
        Just(f64::NAN),
        Just(-f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-0.0),
        Just(0.0),
        Just(f64::MIN_POSITIVE),
        Just(f64::from_bits(1)),
        Just(-f64::from_bits(0xf_ffff_ffff_ffff)),
        Just(f64::MAX),
        Just(9.007_199_254_740_993e15),
        Just(9.223_372_036_854_776e18),
        Just(-9.223_372_036_854_776e18),
        Just(1.8e19),
        any::<u64>().prop_map(|p| f64::from_bits(p | 0x7ff0_0000_0000_0000)),
    ]
}

fn moved(value: f64, by: i64) -> f64 {
    f64::from_bits(value.to_bits().wrapping_add(by.cast_unsigned()))
}

/// Values of one kind, as series have them.
fn ordinary() -> impl Strategy<Value = Vec<f64>> {
    let length = 0..3000usize;
    prop_oneof![
        // decimals, some with noise in the last bits
        (
            0..16i32,
            1..60u32,
            prop_oneof![Just(0i64), 1..100i64],
            vec(any::<(i64, i64)>(), length.clone())
        )
            .prop_map(|(digits, width, noise, draws)| {
                draws
                    .iter()
                    .map(|(n, c)| {
                        let v = (n >> (64 - width)) as f64 / 10f64.powi(digits);
                        if noise == 0 { v } else { moved(v, c % noise) }
                    })
                    .collect()
            }),
        // inverse powers
        (1..19i32, vec(-50_000..50_000i64, length.clone())).prop_map(|(digits, draws)| {
            let inverse: f64 = format!("1e-{digits}").parse().unwrap();
            draws.iter().map(|&n| n as f64 * inverse).collect()
        }),
        // walks of integers with a unit and a start
        (any::<i32>(), 1..100_000i64, vec(-9..9i64, length.clone())).prop_map(
            |(start, unit, steps)| {
                let mut at = i64::from(start);
                steps
                    .iter()
                    .map(|step| {
                        at += step;
                        (at * unit) as f64
                    })
                    .collect()
            }
        ),
        // ratios
        (
            0..4i32,
            1..5000i64,
            1..2000i64,
            vec(any::<(u16, u16)>(), length.clone())
        )
            .prop_map(|(digits, counts, spread, draws)| {
                draws
                    .iter()
                    .map(|&(n, d)| {
                        let d = counts + i64::from(d) % spread;
                        f64::from(n) / 10f64.powi(digits) / d as f64
                    })
                    .collect()
            }),
        // floats of 32 bits, subnormals
        vec(any::<f32>().prop_map(f64::from), length.clone()),
        vec((0..1u64 << 52).prop_map(f64::from_bits), length.clone()),
        (any_bits(), length.clone()).prop_map(|(v, n)| vec![v; n]),
        vec(special(), length.clone()),
        vec(any_bits(), length),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_column_comes_back_bit_by_bit(
        mut values in ordinary(),
        specials in vec((any::<prop::sample::Index>(), special()), 0..8),
        ended in 0..20usize,
    ) {
        if !values.is_empty() {
            for (at, value) in specials {
                let at = at.index(values.len());
                values[at] = value;
            }
            let end = values.len().saturating_sub(ended);
            values[end..].fill(STALE);
        }
        let bytes = round_trip(&values);
        prop_assert!(bytes.len() <= values.len() * 8 + values.len().div_ceil(GROUP) * 3);
    }

    #[test]
    fn short_columns_come_back_bit_by_bit(values in vec(prop_oneof![special(), any_bits(), (-99..99i32).prop_map(|n| f64::from(n) / 10.0)], 0..24)) {
        round_trip(&values);
    }

    #[test]
    fn damaged_columns_give_values_or_an_error(
        values in ordinary(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
        count in 0..5000usize,
    ) {
        let mut bytes = encoded(&values);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        let mut out = vec![0.5];
        for (bytes, count) in [
            (bytes.as_slice(), values.len()),
            (&bytes[..cut.index(bytes.len() + 1)], values.len()),
            (bytes.as_slice(), count),
        ] {
            let result = decode(bytes, count, &mut out);
            let _ = describe(bytes);
            prop_assert_eq!(out.len(), 1 + if result.is_ok() { count } else { 0 });
            out.truncate(1);
        }
    }

    #[test]
    fn any_bytes_give_values_or_an_error(bytes in vec(any::<u8>(), 0..300), count in 0..5000usize) {
        let mut out = Vec::new();
        let _ = decode(&bytes, count, &mut out);
        let _ = decode_range(&bytes, count, count / 2..count, &mut out);
        let _ = describe(&bytes);
    }
}

#[test]
fn counts_that_no_byte_speaks_for_are_refused() {
    let mut out = Vec::new();
    for bytes in [
        &[][..],
        &[0],
        &[FORM_CONSTANT_INTEGER | FLAG_WHOLE, 0],
        &[FORM_WORDS],
    ] {
        assert!(decode(bytes, usize::MAX, &mut out).is_err());
        assert!(decode(bytes, 1 << 40, &mut out).is_err());
    }
    assert!(out.capacity() <= CONSTANT_VALUES_MAX);
}
