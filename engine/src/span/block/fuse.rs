//! A binary fuse filter with 16-bit fingerprints: which trace ids a block may have.
//!
//! After Graf and Lemire, "Binary Fuse Filters: Fast and Smaller Than Xor Filters" (JEA 2022): a key is
//! in the filter if the fingerprints at its three places in three neighbouring segments xor to its own.
//! About 18 bits a key; a key that is not there passes with probability 2^-16.
//!
//! Bytes: seed (8) | segment length (4) | segments (4) | fingerprints (2 each).
//!
//! Invariants
//! - No false negative, whatever the keys: keys come deduplicated, and if no seed of many works, there
//!   is no filter, which means "may be there" for every key.
//! - The same keys give the same bytes.

#![expect(
    clippy::indexing_slicing,
    reason = "places are below the length of the arrays by construction, and checked when read"
)]

use super::directory::Wrong;

/// Each seed fails with probability of a few percent at most.
const SEEDS_MAX: u64 = 100;
const SEGMENT_SLOTS_MAX: u32 = 1 << 18;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct FuseFilter {
    seed: u64,
    segment_slots: u32,
    /// Segments a key's first place may lie in.
    segments: u32,
    fingerprints: Vec<u16>,
}

#[inline]
fn mix(mut h: u64) -> u64 {
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "low bits are what is meant"
)]
fn fingerprint(hash: u64) -> u16 {
    (hash ^ (hash >> 32)) as u16
}

impl FuseFilter {
    /// The filter of `keys`, which are distinct; `None` if none was found.
    pub(super) fn build(keys: &[u64]) -> Option<Self> {
        let (segment_slots, segments) = size_for(keys.len())?;
        let mut filter = Self {
            seed: 0,
            segment_slots,
            segments,
            fingerprints: Vec::new(),
        };
        (1..=SEEDS_MAX).find_map(|attempt| {
            filter.seed = mix(attempt);
            filter.fill(keys).then_some(())
        })?;
        Some(filter)
    }

    fn slots(&self) -> usize {
        self.segment_slots as usize * (self.segments as usize + 2)
    }

    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "low bits are what is meant"
    )]
    fn places(&self, hash: u64) -> [usize; 3] {
        let first_slots = u64::from(self.segments) * u64::from(self.segment_slots);
        let first = ((u128::from(hash) * u128::from(first_slots)) >> 64) as usize;
        let mask = self.segment_slots as usize - 1;
        let slots = self.segment_slots as usize;
        [
            first,
            (first + slots) ^ ((hash >> 18) as usize & mask),
            (first + 2 * slots) ^ (hash as usize & mask),
        ]
    }

    /// Peels keys that stand alone in a place, then gives each its fingerprint in reverse order.
    fn fill(&mut self, keys: &[u64]) -> bool {
        let slots = self.slots();
        let mut counts = vec![0u32; slots];
        let mut hashes = vec![0u64; slots];
        for &key in keys {
            let hash = mix(key.wrapping_add(self.seed));
            for place in self.places(hash) {
                counts[place] += 1;
                hashes[place] ^= hash;
            }
        }
        let mut alone: Vec<usize> = (0..slots).filter(|&place| counts[place] == 1).collect();
        let mut peeled: Vec<(u64, usize)> = Vec::with_capacity(keys.len());
        while let Some(place) = alone.pop() {
            if counts[place] != 1 {
                continue;
            }
            let hash = hashes[place];
            peeled.push((hash, place));
            for other in self.places(hash) {
                counts[other] -= 1;
                hashes[other] ^= hash;
                if counts[other] == 1 {
                    alone.push(other);
                }
            }
        }
        if peeled.len() != keys.len() {
            return false;
        }
        self.fingerprints.clear();
        self.fingerprints.resize(slots, 0);
        for &(hash, place) in peeled.iter().rev() {
            self.fingerprints[place] = 0;
            let others = self.places(hash).map(|place| self.fingerprints[place]);
            self.fingerprints[place] = fingerprint(hash) ^ others[0] ^ others[1] ^ others[2];
        }
        true
    }

    /// Whether the key may be there.
    #[inline]
    pub(super) fn contains(&self, key: u64) -> bool {
        if self.fingerprints.is_empty() {
            return true;
        }
        let hash = mix(key.wrapping_add(self.seed));
        let [a, b, c] = self.places(hash).map(|place| self.fingerprints[place]);
        fingerprint(hash) == a ^ b ^ c
    }

    /// Memory held.
    pub(super) fn heap_bytes(&self) -> usize {
        self.fingerprints.capacity() * size_of::<u16>()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.seed.to_le_bytes());
        out.extend_from_slice(&self.segment_slots.to_le_bytes());
        out.extend_from_slice(&self.segments.to_le_bytes());
        for fingerprint in &self.fingerprints {
            out.extend_from_slice(&fingerprint.to_le_bytes());
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Wrong> {
        const WRONG: Wrong = "a filter that contradicts itself";
        let (seed, rest) = bytes.split_first_chunk().ok_or(WRONG)?;
        let (segment_slots, rest) = rest.split_first_chunk().ok_or(WRONG)?;
        let (segments, rest) = rest.split_first_chunk().ok_or(WRONG)?;
        let segment_slots = u32::from_le_bytes(*segment_slots);
        let segments = u32::from_le_bytes(*segments);
        let slots = u64::from(segment_slots) * (u64::from(segments) + 2);
        if !segment_slots.is_power_of_two()
            || segment_slots > SEGMENT_SLOTS_MAX
            || segments == 0
            || slots.checked_mul(2) != Some(rest.len() as u64)
        {
            return Err(WRONG);
        }
        let (pairs, _) = rest.as_chunks::<2>();
        Ok(Self {
            seed: u64::from_le_bytes(*seed),
            segment_slots,
            segments,
            fingerprints: pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect(),
        })
    }
}

/// Slots of a segment, and how many segments a first place may lie in.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive and below 2^34"
)]
fn size_for(keys: usize) -> Option<(u32, u32)> {
    let count = keys.max(2) as f64;
    let power = (count.ln() / 3.33_f64.ln() + 2.25).floor() as u32;
    let segment_slots = 1u32 << power.min(SEGMENT_SLOTS_MAX.ilog2());
    let factor = (0.875 + 0.25 * 1e6_f64.ln() / count.ln()).max(1.125);
    let slots = (count * factor).round() as u64;
    let segments = slots.div_ceil(u64::from(segment_slots)).saturating_sub(2);
    Some((segment_slots, u32::try_from(segments.max(1)).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: u64) -> u64 {
        i.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn every_key_is_found_and_few_others() {
        for count in [0, 1, 2, 3, 10, 100, 1_000, 30_000] {
            let keys: Vec<u64> = (0..count).map(key).collect();
            let built = FuseFilter::build(&keys).unwrap();
            let mut bytes = Vec::new();
            built.encode(&mut bytes);
            let filter = FuseFilter::decode(&bytes).unwrap();
            assert!(keys.iter().all(|&key| filter.contains(key)), "{count} keys");
            let false_hits = (1 << 32..(1 << 32) + 200_000u64)
                .filter(|&other| filter.contains(key(other)))
                .count();
            assert!(false_hits < 30, "{false_hits} of 200,000 with {count} keys");
            assert!(bytes.len() < 3 * keys.len() + 2_000);
        }
    }

    #[test]
    fn any_bytes_are_a_filter_or_refused() {
        assert!(FuseFilter::decode(&[]).is_err());
        let keys: Vec<u64> = (0..50).map(key).collect();
        let mut bytes = Vec::new();
        FuseFilter::build(&keys).unwrap().encode(&mut bytes);
        for cut in 0..bytes.len() {
            assert!(FuseFilter::decode(&bytes[..cut]).is_err());
        }
        for at in 0..16 {
            let mut changed = bytes.clone();
            changed[at] ^= 0x55;
            if let Ok(filter) = FuseFilter::decode(&changed) {
                for &key in &keys {
                    filter.contains(key);
                }
            }
        }
    }
}
