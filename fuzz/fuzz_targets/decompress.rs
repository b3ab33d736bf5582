//! Any bytes in any encoding are decompressed within the limit or refused, and give back all memory.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use rootline::body::{self, BodyLimits, Encoding};
use rootline_engine::{Budget, Holder};

const DECODED_BYTES_MAX: u64 = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((&which, wire)) = input.split_first() else {
        return;
    };
    let encoding = match which % 4 {
        0 => Encoding::Identity,
        1 => Encoding::Gzip,
        2 => Encoding::Zstd,
        _ => Encoding::SnappyBlock,
    };
    let limits = BodyLimits {
        decoded_bytes_max: DECODED_BYTES_MAX,
        idle_timeout: Duration::from_secs(1),
        total_timeout: Duration::from_secs(1),
    };
    let budget = Budget::new(64 << 20);
    let reservation = budget
        .reserve(Holder::Requests, wire.len() as u64)
        .expect("there is room");
    let wire = wire.to_vec().into();
    if let Ok((decoded, reservation)) = body::decompress(encoding, wire, reservation, &limits, None) {
        assert!(decoded.len() as u64 <= DECODED_BYTES_MAX);
        assert!(reservation.bytes() >= decoded.len() as u64);
    }
    assert_eq!(budget.used_bytes(), 0);
});
