//! What became of a request that was sent once.

use std::time::Duration;

/// The other side's answer, whatever the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// All of it was stored.
    Stored,
    /// All but `rejected` items were stored.
    Partial { rejected: u64, reason: String },
    /// Refused for good; with remote write the valid rest is stored.
    Refused { reason: String },
    /// This side takes no requests of this kind.
    NotTaken { reason: String },
    /// Refused for now, or not reached.
    Later {
        reason: String,
        wait: Option<Duration>,
    },
}
