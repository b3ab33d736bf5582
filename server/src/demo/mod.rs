//! The demo: a small shop whose last ten minutes are made up from a seed and sent to a node through the
//! public path, OTLP over gRPC. In the last three minutes one database gets slow (`shop.rs`).
//!
//! `traffic.rs` plays people's requests through the call graph, `meters.rs` measures what they cause. The
//! same seed and end give the same bytes.

mod meters;
mod random;
mod shop;
mod traffic;

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use self::{meters::Meters, random::Random};
use crate::send::{Delivery, Error};

/// How far back the shop's past goes.
pub const HISTORY: Duration = Duration::from_mins(10);
/// How long before now the fault began.
pub const FAULT: Duration = Duration::from_mins(3);
/// What one request to the node covers.
pub const STEP: Duration = Duration::from_secs(5);
/// The seed of `rootline demo`.
pub const SEED_DEFAULT: u64 = 20;

/// Requests of people in one step: about four a second.
const REQUESTS_PER_STEP: u64 = 20;
const _: () = assert!(HISTORY.as_secs().is_multiple_of(STEP.as_secs()));

/// Names that the suggested commands use.
pub mod names {
    /// A gauge on which the fault shows, as it is stored.
    pub const GAUGE: &str = super::meters::STATEMENT_GAUGE;
    /// The database with the fault.
    pub const DATABASE: &str = super::meters::STATEMENT_GAUGE_SERVICE;
    /// A service in which the fault causes errors.
    pub const CALLER: &str = "frontend";
}

/// What was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// Spans sent.
    pub spans: u64,
    /// Data points sent.
    pub points: u64,
}

/// The shop at a moment; each step moves it on.
#[derive(Debug)]
pub struct Shop {
    random: Random,
    meters: Meters,
    now_ns: u64,
    fault_ns: u64,
}

/// What a step has to say, as serialized OTLP requests.
#[derive(Debug)]
struct Step {
    traces: Vec<u8>,
    metrics: Vec<u8>,
    loaded: Loaded,
}

fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Shop {
    /// A shop that opened [`HISTORY`] before `end_ns` (nanoseconds since the epoch).
    pub fn new(seed: u64, end_ns: u64) -> Self {
        let opened_ns = end_ns.saturating_sub(duration_ns(HISTORY)).max(1);
        Self {
            random: Random::new(seed),
            meters: Meters::new(opened_ns),
            now_ns: opened_ns,
            fault_ns: end_ns.saturating_sub(duration_ns(FAULT)),
        }
    }

    fn step(&mut self) -> Step {
        let slow = self.now_ns >= self.fault_ns;
        let step_ns = duration_ns(STEP);
        let traffic = traffic::traffic(
            &mut self.random,
            self.now_ns,
            step_ns,
            REQUESTS_PER_STEP,
            slow,
        );
        self.now_ns += step_ns;
        self.meters.record(&traffic.operations);
        let (metrics, points) = self.meters.report(&mut self.random, self.now_ns, slow);
        let (traces, spans) = traffic.request();
        let loaded = Loaded { spans, points };
        Step {
            traces: traces.encode_to_vec(),
            metrics: metrics.encode_to_vec(),
            loaded,
        }
    }

    /// When the next step will be over, in nanoseconds since the epoch.
    pub fn next_end_ns(&self) -> u64 {
        self.now_ns.saturating_add(duration_ns(STEP))
    }

    /// Sends the whole of [`HISTORY`] to `node`.
    ///
    /// # Errors
    /// If the node does not take it.
    pub async fn load(&mut self, node: &Delivery) -> Result<Loaded, Error> {
        let mut loaded = Loaded::default();
        for _ in 0..HISTORY.as_secs() / STEP.as_secs() {
            let step = self.advance(node).await?;
            loaded.spans += step.spans;
            loaded.points += step.points;
        }
        Ok(loaded)
    }

    /// Sends the next [`STEP`].
    ///
    /// # Errors
    /// If the node does not take it.
    pub async fn advance(&mut self, node: &Delivery) -> Result<Loaded, Error> {
        let step = self.step();
        node.traces(Bytes::from(step.traces)).await?;
        node.metrics(Bytes::from(step.metrics)).await?;
        Ok(step.loaded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_end_give_the_same_bytes() {
        let end_ns = 1_700_000_000_000_000_000;
        let (mut a, mut b) = (Shop::new(5, end_ns), Shop::new(5, end_ns));
        for _ in 0..3 {
            let (a, b) = (a.step(), b.step());
            assert_eq!(a.traces, b.traces);
            assert_eq!(a.metrics, b.metrics);
            assert!(
                a.loaded.spans > 100 && a.loaded.points > 20,
                "{:?}",
                a.loaded
            );
        }
        assert_ne!(
            Shop::new(6, end_ns).step().traces,
            Shop::new(5, end_ns).step().traces
        );
    }

    #[test]
    fn the_past_ends_at_the_given_moment() {
        let end_ns = 1_700_000_000_000_000_000;
        let mut shop = Shop::new(5, end_ns);
        for _ in 0..HISTORY.as_secs() / STEP.as_secs() {
            shop.step();
        }
        assert_eq!(shop.now_ns, end_ns);
    }
}
