//! Any bytes are a chunk or an error; a chunk's samples rise, and it takes further samples.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline_engine::chunk::Chunk;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut chunk) = Chunk::from_bytes(bytes) else {
        return;
    };
    let before: Vec<(i64, u64)> = chunk.iter().map(|(t, v)| (t, v.to_bits())).collect();
    assert_eq!(before.len(), usize::from(chunk.len()));
    assert!(before.is_sorted_by(|a, b| a.0 < b.0));
    assert_eq!(chunk.as_bytes(), bytes);

    let later_ns = chunk.max_time_ns().saturating_add(1_000_000);
    if chunk.append(later_ns, 1.5).is_ok() {
        let after: Vec<(i64, u64)> = chunk.iter().map(|(t, v)| (t, v.to_bits())).collect();
        assert_eq!(after.len(), before.len() + 1);
        assert_eq!(after[..before.len()], before);
        assert_eq!(after[before.len()], (later_ns, 1.5_f64.to_bits()));
    }
});
