//! Any bytes are a column of integers or an error, the same with every kernel; what was decoded comes back
//! through the encoder. The first two bytes say how many values are asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline_engine::column::{integers, kernel::Kernel};

fuzz_target!(|input: &[u8]| {
    let Some((count, bytes)) = input.split_first_chunk::<2>() else {
        return;
    };
    let count = usize::from(u16::from_le_bytes(*count));
    let mut values = Vec::new();
    let decoded = integers::decode_with(Kernel::Plain, bytes, count, &mut values);
    for kernel in Kernel::ALL {
        let mut others = Vec::new();
        assert_eq!(
            integers::decode_with(kernel, bytes, count, &mut others),
            decoded
        );
        assert_eq!(others, values);
    }
    if decoded.is_ok() {
        let (mut encoded, mut again) = (Vec::new(), Vec::new());
        integers::encode(&values, &mut encoded);
        integers::decode(&encoded, count, &mut again).expect("what was encoded is a column");
        assert_eq!(again, values);
    }

    // The bytes as values: the encoder takes whatever there is.
    let values: Vec<i64> = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|value| i64::from_le_bytes(*value))
        .collect();
    let (mut encoded, mut again) = (Vec::new(), Vec::new());
    integers::encode(&values, &mut encoded);
    integers::decode(&encoded, values.len(), &mut again).expect("what was encoded is a column");
    assert_eq!(again, values);
});
