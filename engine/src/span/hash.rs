//! Hashes of what senders choose (texts, tags, ids), seeded per process so that nobody can choose
//! ones that collide. Nothing on disk depends on them.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::LazyLock,
};

use xxhash_rust::xxh3;

static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0u8));

/// This process's seed.
#[inline]
pub(crate) fn seed() -> u64 {
    *SEED
}

/// Hash of bytes.
#[inline]
pub(crate) fn of_bytes(seed: u64, bytes: &[u8]) -> u64 {
    xxh3::xxh3_64_with_seed(bytes, seed)
}

/// 128-bit hash of bytes: two inputs that differ share it with probability 2^-128.
#[inline]
pub(crate) fn wide(seed: u64, bytes: &[u8]) -> u128 {
    xxh3::xxh3_128_with_seed(bytes, seed)
}

/// Hash of two numbers, by a folded multiplication.
#[inline]
pub(crate) fn of_pair(seed: u64, a: u64, b: u64) -> u64 {
    let product =
        u128::from(a ^ seed) * u128::from(b ^ 0x9E37_79B9_7F4A_7C15 ^ seed.rotate_left(32));
    #[expect(clippy::cast_possible_truncation, reason = "folding keeps both halves")]
    let folded = (product as u64) ^ ((product >> 64) as u64);
    // A second round: span ids of a bad generator may differ in few bits.
    let product = u128::from(folded ^ b) * 0xD6E8_FEB8_6659_FD93;
    #[expect(clippy::cast_possible_truncation, reason = "folding keeps both halves")]
    let folded = (product as u64) ^ ((product >> 64) as u64);
    folded ^ a.rotate_left(17).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
