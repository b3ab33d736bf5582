//! What became of a batch: what was stored, and what was refused item by item.

use std::fmt::Display;

use rootline_wal::Lsn;

/// Items of a batch that were refused for good while the rest was stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejections {
    /// Samples refused.
    pub samples: u64,
    /// Spans refused.
    pub spans: u64,
    /// Exemplars refused.
    pub exemplars: u64,
    /// Metadata entries refused.
    pub metadata: u64,
    /// Why the first of them was refused.
    pub first_reason: Option<String>,
}

impl Rejections {
    /// Counts `n` refused samples.
    pub fn reject_samples(&mut self, n: u64, reason: impl Display) {
        self.samples += n;
        self.explain(n, reason);
    }

    /// Counts `n` refused spans.
    pub fn reject_spans(&mut self, n: u64, reason: impl Display) {
        self.spans += n;
        self.explain(n, reason);
    }

    /// Counts `n` refused exemplars.
    pub fn reject_exemplars(&mut self, n: u64, reason: impl Display) {
        self.exemplars += n;
        self.explain(n, reason);
    }

    /// Counts `n` refused metadata entries.
    pub fn reject_metadata(&mut self, n: u64, reason: impl Display) {
        self.metadata += n;
        self.explain(n, reason);
    }

    /// Whether nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.samples + self.spans + self.exemplars + self.metadata == 0
    }

    fn explain(&mut self, n: u64, reason: impl Display) {
        if n > 0 && self.first_reason.is_none() {
            self.first_reason = Some(reason.to_string());
        }
    }
}

/// The answer to a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOutcome {
    /// The batch's sequence number; `None` if nothing of it was left to store.
    pub lsn: Option<Lsn>,
    /// Samples stored.
    pub samples: u64,
    /// Spans stored (a repeat of a stored span counts as stored).
    pub spans: u64,
    /// What was refused.
    pub rejections: Rejections,
}
