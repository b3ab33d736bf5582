//! The demo's dice: the same seed gives the same shop.

/// `SplitMix64` (Steele, Lea, Flood 2014): enough for a demo, and the same on every machine.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`; 0 if `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// Uniform in `[0, 1)`.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether something of this probability happens.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A latency around `median` with the long tail that latencies have (log-normal).
    pub(super) fn latency(&mut self, median: f64) -> f64 {
        // Box and Muller's normal deviate; 1 - unit is never 0.
        let normal =
            (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        median * (0.35 * normal).exp()
    }

    /// Bytes of an id; not all zero.
    pub(super) fn id<const BYTES: usize>(&mut self) -> Vec<u8> {
        let mut id: Vec<u8> = std::iter::repeat_with(|| self.next_u64().to_le_bytes())
            .flatten()
            .take(BYTES)
            .collect();
        if let Some(last) = id.last_mut() {
            *last |= 1;
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_sequence_within_bounds() {
        let (mut a, mut b) = (Random::new(7), Random::new(7));
        for _ in 0..1_000 {
            let x = a.below(10);
            assert_eq!(x, b.below(10));
            assert!(x < 10);
            assert!((0.0..1.0).contains(&a.unit()) && (0.0..1.0).contains(&b.unit()));
            assert!(a.latency(5.0) > 0.0 && b.latency(5.0) > 0.0);
        }
        assert_eq!(a.id::<16>().len(), 16);
    }
}
