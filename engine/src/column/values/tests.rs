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
use crate::column::{
    coded,
    integers::{self, GROUP},
};

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

/// Integers whose differences are uneven: what prefix codes and sparse groups are for.
fn uneven() -> impl Strategy<Value = Vec<i64>> {
    (
        any::<i64>(),
        0..50u32,
        0..100u32,
        0..3u32,
        any::<bool>(),
        vec(any::<(u32, u32, u8)>(), 1..=GROUP),
    )
        .prop_map(|(start, scale, usual, outliers, walk, draws)| {
            let mut at = start;
            draws
                .iter()
                .map(|&(a, b, kind)| {
                    // near enough to a bell: the bits of a draw
                    let mut step = i64::from(a.count_ones()) - 16;
                    step = step
                        .wrapping_shl(scale)
                        .wrapping_add(i64::from(b) & ((1 << scale.min(31)) - 1));
                    if u32::from(kind) % 100 < usual {
                        step = 0;
                    } else if b % 1000 < outliers * 10 {
                        step = i64::from(b).wrapping_mul(0x1234_5678_9abc);
                    }
                    if walk {
                        at = at.wrapping_add(step);
                        at
                    } else {
                        start.wrapping_add(step)
                    }
                })
                .collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn uneven_groups_come_back_and_are_never_longer_than_packed_ones(values in uneven()) {
        let mut bytes = vec![7];
        coded::encode_group(&values, &mut bytes);
        let bytes = &bytes[1..];
        prop_assert!(bytes.len() <= integers::group_cost_bytes(&values));
        let mut behind = bytes.to_vec();
        behind.extend([1, 2, 3]);
        let mut back = [3; GROUP];
        prop_assert_eq!(coded::decode_group(&behind, values.len(), &mut back), Ok(bytes.len()));
        prop_assert_eq!(&back[..values.len()], &values[..]);
    }

    #[test]
    fn damaged_uneven_groups_give_values_or_an_error(
        values in uneven(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
        count in 0..1100usize,
    ) {
        let mut bytes = Vec::new();
        coded::encode_group(&values, &mut bytes);
        let mut out = [0; GROUP];
        let cut = cut.index(bytes.len());
        prop_assert!(coded::decode_group(&bytes[..cut], values.len(), &mut out).is_err());
        let at = at.index(bytes.len());
        bytes[at] ^= byte;
        let _ = coded::decode_group(&bytes, values.len(), &mut out);
        let _ = coded::decode_group(&bytes, count, &mut out);
    }
}

/// Steps that look random but are the same everywhere.
fn steps() -> impl Iterator<Item = u64> {
    let mut state = 1u64;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    })
}

#[test]
fn every_form_is_chosen_where_it_belongs() {
    let draw = |f: &dyn Fn(u64) -> f64| steps().take(1024).map(f).collect::<Vec<f64>>();
    let mut sum = 0.0;
    for (name, values) in [
        ("constant", vec![2.5; 3000]),
        ("integer", draw(&|s| (s % 1000) as f64)),
        ("multiple", draw(&|s| (s % 1000 * 4096) as f64)),
        ("decimal", draw(&|s| (s % 1000) as f64 / 100.0)),
        ("decimal", draw(&|s| (s % 1000) as f64 * 0.001)),
        ("decimal", draw(&|s| (s % 100_000) as f64 / 10.0 / 100.0)),
        ("fraction", draw(&|s| (s % 1000) as f64 / 300.0)),
        ("fraction", draw(&|s| (s % 1000) as f64 / 1024.0)),
        (
            "decimal, corrected",
            draw(&|s| moved((1 + s % 1000) as f64 / 100.0, (s % 5).cast_signed())),
        ),
        (
            "ratio",
            draw(&|s| (s % 1000) as f64 / (100 + s % 77) as f64),
        ),
        (
            "ratio, corrected",
            draw(&|s| {
                let v = (1 + s % 1000) as f64 / (100 + s % 77) as f64;
                moved(v, (s % 9).cast_signed())
            }),
        ),
        ("patterns", draw(&|s| (s as f64).sqrt())),
        (
            "words",
            draw(&|s| f64::from_bits(s.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
        ),
    ] {
        let bytes = round_trip(&values);
        assert_eq!(describe(&bytes), Ok(name));
        sum += bytes.len() as f64;
    }
    assert!(sum > 0.0);
}

/// A large value among small shares has a fraction too, but multiplying it up would leave all range.
#[test]
fn a_great_ratio_among_small_ones_comes_back() {
    let values: Vec<f64> = steps()
        .take(1024)
        .enumerate()
        .map(|(i, s)| {
            if i % 20 == 7 {
                17_592_186_044_417.0 / 3.0
            } else {
                (s % 7 + 1) as f64 / (4_000_003 + s % 50) as f64
            }
        })
        .collect();
    round_trip(&values);
}

#[test]
fn short_columns_cost_little_more_than_what_they_hold() {
    for (bytes_max, values) in [
        (2, vec![0.0; 10]),
        (9, vec![0.1 + 0.2; 10]),
        (
            8,
            vec![13.0, 11.0, 12.0, 10.0, 11.0, 13.0, 12.0, 12.0, 10.0, 13.0],
        ),
        (
            17,
            vec![
                0.044, 1.708, 0.982, 0.53, 1.434, 1.281, 0.002, 0.75, 1.999, 0.1,
            ],
        ),
    ] {
        let bytes = round_trip(&values);
        assert!(bytes.len() <= bytes_max, "{} for {values:?}", bytes.len());
    }
}

#[test]
fn staleness_markers_at_the_end_cost_a_few_bytes() {
    let mut values: Vec<f64> = steps().take(500).map(|s| (s % 64) as f64).collect();
    let without = round_trip(&values).len();
    values.push(STALE);
    assert!(round_trip(&values).len() <= without + 6);
}

/// Bytes as the format page shows them.
#[test]
fn small_columns_are_those_of_the_format_page() {
    for (values, expected) in [
        (vec![0.0], "2f 00"),
        (vec![-3.0; 2000], "6f 05"),
        (vec![0.1; 2], "01 28 02"),
        (vec![1.0, 2.0, 3.0, STALE], "80 0a 03 02 f9"),
        (vec![0.25, 0.5, 1.0, 7.75], "02 0a 19 c8 40 c6 c1"),
        (
            vec![4096.0 * 3.0, 4096.0 * 70.0, 4096.0 * 9.0],
            "29 80 20 07 03 63 02",
        ),
        (
            vec![1.0, -0.0, f64::MAX],
            "2e 00 00 00 00 00 00 f0 3f 00 00 00 00 00 00 00 80 ff ff ff ff ff ff ef 7f",
        ),
    ] {
        let hex: Vec<String> = round_trip(&values)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex.join(" "), expected, "{values:?}");
    }
}

/// Columns of every form as version 1 has written them: a length of four bytes, then the column.
#[test]
fn the_golden_columns_of_version_1_read_as_they_were_written() {
    let draw = |f: &dyn Fn(u64) -> f64| steps().take(300).map(f).collect::<Vec<f64>>();
    let mut walk = 0.0;
    let mut columns = vec![
        vec![7.0; 1500],
        vec![1e300; 1500],
        draw(&|s| (s % 1000) as f64),
        draw(&|s| (s % 1000 * 4096) as f64),
        draw(&|s| (s % 100_000) as f64 / 1000.0),
        draw(&|s| (s % 1000) as f64 * 0.001),
        draw(&|s| (s % 100_000) as f64 / 10.0 / 100.0),
        draw(&|s| (s % 1000) as f64 / 300.0),
        draw(&|s| moved((1 + s % 1000) as f64 / 100.0, (s % 5).cast_signed())),
        draw(&|s| (s % 1000) as f64 / (100 + s % 77) as f64),
        draw(&|s| (20_000 + s % 300) as f64 / 1000.0 / (300 + s % 17) as f64),
        draw(&|s| (s as f64).sqrt())[..40].to_vec(),
        draw(&|s| f64::from_bits(s.wrapping_mul(0x9e37_79b9_7f4a_7c15)))[..40].to_vec(),
    ];
    // prefix code, prefix code of pairs, sparse
    for spread in [31, 3, 0xff_f800] {
        columns.push(
            steps()
                .take(1100)
                .map(|s| {
                    let s = s & spread;
                    walk += if spread > 1000 && s < 0x80_0000 {
                        0.0
                    } else {
                        f64::from((s.wrapping_mul(s) >> 3).count_ones())
                    };
                    walk
                })
                .collect(),
        );
    }
    let mut ended = draw(&|s| (s % 50) as f64);
    ended[100] = f64::INFINITY;
    ended[290..].fill(STALE);
    columns.push(ended);

    let golden = include_bytes!("../../../tests/golden/v1/value-column.bin");
    let mut rest = &golden[..];
    for values in &columns {
        let (len, behind) = rest.split_first_chunk::<4>().unwrap();
        let (bytes, behind) = behind.split_at(u32::from_le_bytes(*len) as usize);
        let mut back = Vec::new();
        decode(bytes, values.len(), &mut back).unwrap();
        assert_eq!(bits(&back), bits(values));
        rest = behind;
    }
    assert!(rest.is_empty());
    for values in &columns {
        round_trip(values);
    }
}
