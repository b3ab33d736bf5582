//! What was sent, stored and refused: counted by all workers, read by the progress bar and the summary.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{error::Error, wire::Counts};

/// Different reasons that are kept; later ones are counted under the last.
const REASONS_MAX: usize = 20;

/// Shared counters of a run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Read from the files, before decompression; shared with the sources.
    pub(crate) read_bytes: Arc<AtomicU64>,
    pub(crate) retries: AtomicU64,
    sent: Mutex<Sent>,
}

/// Counters of what was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    requests: u64,
    body_bytes: u64,
    counts: Counts,
    refused_items: u64,
    refused_requests: u64,
    reasons: Vec<(String, u64)>,
}

impl Tally {
    /// A request was answered, with `refused_items` of it left out.
    pub(crate) fn stored(&self, counts: Counts, body_bytes: u64, refused_items: u64, reason: &str) {
        let mut sent = self.sent.lock();
        sent.requests += 1;
        sent.body_bytes += body_bytes;
        sent.counts += counts;
        sent.refused_items += refused_items;
        if !reason.is_empty() {
            sent.explain(reason);
        }
    }

    /// A request was refused for good.
    pub(crate) fn refused(&self, body_bytes: u64, reason: &str) {
        let mut sent = self.sent.lock();
        sent.requests += 1;
        sent.body_bytes += body_bytes;
        sent.refused_requests += 1;
        sent.explain(reason);
    }

    /// Spans and samples answered so far.
    pub(crate) fn answered(&self) -> (u64, u64) {
        let sent = self.sent.lock();
        (sent.counts.spans, sent.counts.samples)
    }

    /// The end of the run.
    pub(crate) fn summary(&self, files: u64, elapsed: Duration, errors: Vec<Error>) -> Summary {
        let sent = self.sent.lock().clone();
        Summary {
            files,
            requests: sent.requests,
            spans: sent.counts.spans,
            samples: sent.counts.samples,
            exemplars: sent.counts.exemplars,
            metadata: sent.counts.metadata,
            refused_items: sent.refused_items,
            refused_requests: sent.refused_requests,
            reasons: sent.reasons,
            retries: self.retries.load(Ordering::Relaxed),
            body_bytes: sent.body_bytes,
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            elapsed,
            shift_ns: None,
            errors,
        }
    }
}

impl Sent {
    fn explain(&mut self, reason: &str) {
        if let Some((_, n)) = self.reasons.iter_mut().find(|(r, _)| r == reason) {
            *n += 1;
        } else if self.reasons.len() < REASONS_MAX {
            self.reasons.push((reason.to_owned(), 1));
        } else if let Some((_, n)) = self.reasons.last_mut() {
            *n += 1;
        }
    }
}

/// What became of a run.
#[derive(Debug)]
#[non_exhaustive]
pub struct Summary {
    /// Files named.
    pub files: u64,
    /// Requests answered, refused ones included.
    pub requests: u64,
    /// Spans in requests that were not refused as a whole; `refused_items` are not yet taken off.
    pub spans: u64,
    /// Samples, likewise.
    pub samples: u64,
    /// Exemplars, likewise.
    pub exemplars: u64,
    /// Metadata entries, likewise.
    pub metadata: u64,
    /// Spans and samples left out of requests that were stored otherwise.
    pub refused_items: u64,
    /// Requests refused for good.
    pub refused_requests: u64,
    /// Why, with the number of requests it was said for.
    pub reasons: Vec<(String, u64)>,
    /// Requests sent again after a transient refusal.
    pub retries: u64,
    /// Bytes of the requests, decompressed.
    pub body_bytes: u64,
    /// Bytes read from the files.
    pub read_bytes: u64,
    /// How long sending took.
    pub elapsed: Duration,
    /// By how much times were moved, in nanoseconds.
    pub shift_ns: Option<i64>,
    /// Files that ended early.
    pub errors: Vec<Error>,
}

impl Summary {
    /// Whether all of it was stored.
    pub fn is_complete(&self) -> bool {
        self.refused_items == 0 && self.refused_requests == 0 && self.errors.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_bounded() {
        let tally = Tally::default();
        for n in 0..100 {
            tally.refused(1, &format!("reason {n}"));
            tally.refused(1, "reason 0");
        }
        let summary = tally.summary(1, Duration::ZERO, Vec::new());
        assert_eq!(summary.reasons.len(), REASONS_MAX);
        assert_eq!(summary.reasons[0], ("reason 0".to_owned(), 101));
        assert_eq!(summary.reasons.iter().map(|(_, n)| n).sum::<u64>(), 200);
        assert!(!summary.is_complete());
    }
}
