//! Any bytes are a column of values or an error, and its parts are those of the whole; what was decoded
//! comes back through the encoder bit by bit. The first two bytes say how many values are asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline_engine::column::values::{Encoder, decode, decode_range, describe};

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn round_trip(encoder: &mut Encoder, values: &[f64]) {
    let (mut encoded, mut again) = (Vec::new(), Vec::new());
    encoder.encode(values, &mut encoded);
    decode(&encoded, values.len(), &mut again).expect("what was encoded is a column");
    assert_eq!(bits(&again), bits(values));
}

fuzz_target!(|input: &[u8]| {
    let Some((count, bytes)) = input.split_first_chunk::<2>() else {
        return;
    };
    let count = usize::from(u16::from_le_bytes(*count));
    let mut encoder = Encoder::default();
    let mut values = Vec::new();
    let whole = decode(bytes, count, &mut values);
    let (from, to) = (count / 3, count - count / 5);
    let mut part = Vec::new();
    let decoded = decode_range(bytes, count, from..to, &mut part);
    if whole.is_ok() {
        assert!(decoded.is_ok());
        assert_eq!(bits(&part), bits(&values[from..to]));
        assert!(count == 0 || describe(bytes).is_ok());
        round_trip(&mut encoder, &values);
    } else {
        assert!(values.is_empty());
    }

    // The bytes as values: as bit patterns, and as decimals.
    let words = bytes.as_chunks::<8>().0;
    let patterns: Vec<f64> = words.iter().map(|word| f64::from_le_bytes(*word)).collect();
    round_trip(&mut encoder, &patterns);
    let decimals: Vec<f64> = bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|pair| f64::from(i16::from_le_bytes(*pair)) / 100.0)
        .collect();
    round_trip(&mut encoder, &decimals);
    let ratios: Vec<f64> = bytes
        .as_chunks::<3>()
        .0
        .iter()
        .map(|[a, b, c]| f64::from(u16::from_le_bytes([*a, *b])) / f64::from(*c))
        .collect();
    round_trip(&mut encoder, &ratios);
});
