//! How a series is recognised: 128 bits of hash over its label bytes, keyed per process.
//!
//! Why 128 bits without comparing the bytes, why keyed and why never written to disk:
//! `docs/decisions/0003-series-identity-by-128-bit-hash.md`.

use std::{
    fmt,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
};

use xxhash_rust::xxh3::xxh3_128_with_secret;

/// Length of the hash function's secret: its own default, above its minimum of 136.
const SECRET_BYTES: usize = 192;
/// Forms of series bytes that can be told apart: the range of a `u8`.
const DOMAINS: usize = 256;

/// The form of canonical label bytes.
pub(crate) const DOMAIN_CANONICAL: u8 = 0;

/// The process's secret key for series hashes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct HashKey {
    inner: Arc<Inner>,
}

struct Inner {
    secret: [u8; SECRET_BYTES],
    /// Added to the hashes of each form, so that equal bytes of two forms are two series keys.
    domains: [u128; DOMAINS],
}

impl HashKey {
    /// A key that nobody outside can know: the standard library seeds its hash maps from the
    /// system's randomness, and we draw from there.
    pub(crate) fn random() -> Self {
        let mut secret = [0u8; SECRET_BYTES];
        // Each eight bytes come from a hasher with its own keys.
        for (i, eight) in (0u64..).zip(secret.chunks_exact_mut(8)) {
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_u64(i);
            eight.copy_from_slice(&hasher.finish().to_le_bytes());
        }
        let mut domains = [0u128; DOMAINS];
        for (domain, mask) in (0..=u8::MAX).zip(domains.iter_mut()).skip(1) {
            *mask = xxh3_128_with_secret(&[domain], &secret);
        }
        Self {
            inner: Arc::new(Inner { secret, domains }),
        }
    }

    /// The hash of a series' bytes in the form `domain`.
    #[inline]
    pub(crate) fn hash(&self, domain: u8, bytes: &[u8]) -> u128 {
        let mask = self
            .inner
            .domains
            .get(usize::from(domain))
            .copied()
            .unwrap_or_default();
        xxh3_128_with_secret(bytes, &self.inner.secret) ^ mask
    }
}

/// Does not show the secret.
impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_between_processes_and_forms() {
        let (a, b) = (HashKey::random(), HashKey::random());
        assert_ne!(a.hash(0, b"series"), b.hash(0, b"series"));
        assert_ne!(a.hash(0, b"series"), a.hash(1, b"series"));
        assert_ne!(a.hash(1, b"series"), a.hash(2, b"series"));
        assert_eq!(a.hash(2, b"series"), a.clone().hash(2, b"series"));
        assert!(!format!("{a:?}").contains('['));
    }
}
