//! What a snapshot reads metrics from: the parts of the store as they were when it was taken.
//!
//! A *part* is the current generation, a frozen one or a block. Parts have disjoint ranges of LSNs
//! wherever they share time, so of the samples of one series at one time that of the part with the
//! higher LSNs holds. A view never changes: freezing, sealing, compaction and deletes put another
//! in its place, and snapshots keep the one they were taken with.
//!
//! Every question is asked at the LSN of a snapshot that was taken together with the view.
//!
//! Invariants
//! - `frozen` rises by cut, and every block is older than the oldest frozen generation in the times
//!   that they share; `blocks` rise by their last LSN.
//! - A delete that is visible is applied in `current`, and listed in `tombstones` as long as a part
//!   whose `clean_lsn` is below it overlaps it in time.
//! - Metadata are those of `current`, which inherits them.

use std::{ops::ControlFlow, sync::Arc};

use rootline_index::{Labels, Matcher};
use rootline_wal::Lsn;

use super::{Metadata, MetricHead, SeriesExemplars, SeriesSamples};
use crate::{control::QueryControl, error::Error, time::TimeRange, tombstone::Tombstone};

/// A sealed block of samples.
#[derive(Debug)]
pub(crate) enum MetricBlock {}

/// A generation that takes no writes any more.
#[derive(Clone, Debug)]
pub(crate) struct FrozenGeneration {
    /// Its data; read as of `cut` or before.
    pub(crate) head: Arc<MetricHead>,
    /// The last record before it was frozen. Deletes up to here are applied in it.
    pub(crate) cut: Lsn,
}

/// See the module's doc.
#[derive(Clone, Debug)]
pub(crate) struct MetricView {
    /// Oldest first.
    pub(crate) frozen: Vec<FrozenGeneration>,
    /// The generation that takes writes.
    pub(crate) current: Arc<MetricHead>,
    /// By rising last LSN.
    pub(crate) blocks: Vec<Arc<MetricBlock>>,
    /// Deletes that some block or frozen generation does not have applied.
    pub(crate) tombstones: Arc<[Tombstone]>,
    /// Retention: nothing before this time is shown.
    pub(crate) floor_ns: Option<i64>,
}

impl MetricView {
    /// A view of one generation alone.
    pub(crate) fn of(current: Arc<MetricHead>) -> Self {
        Self {
            frozen: Vec::new(),
            current,
            blocks: Vec::new(),
            tombstones: Arc::from([]),
            floor_ns: None,
        }
    }

    /// Shows `visit` every series that satisfies the matchers and has samples in `range`, in the
    /// order of labels. No lock is held meanwhile.
    ///
    /// # Errors
    /// What `ctl` or `visit` says, [`Error::MemoryFull`], damage in a block.
    pub(crate) fn select(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        range: TimeRange,
        ctl: &QueryControl,
        visit: &mut dyn FnMut(SeriesSamples<'_>) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        self.current.select(at, matchers, range, ctl, visit)
    }

    /// The series that satisfy the matchers and have a sample in `range`, in the order of labels.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub(crate) fn series(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        range: TimeRange,
        ctl: &QueryControl,
    ) -> Result<Vec<Labels>, Error> {
        self.current.series(at, matchers, range, ctl)
    }

    /// The first `limit` label names of these series, sorted.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub(crate) fn label_names(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        ctl: &QueryControl,
    ) -> Result<Vec<String>, Error> {
        self.current.label_names(at, matchers, range, limit, ctl)
    }

    /// The first `limit` values, sorted, that begin with `prefix` and that the label `name` has in
    /// these series.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    #[expect(clippy::too_many_arguments, reason = "a question and its bounds")]
    pub(crate) fn label_values(
        &self,
        at: Lsn,
        name: &str,
        matchers: &[Matcher],
        prefix: &str,
        range: TimeRange,
        limit: usize,
        ctl: &QueryControl,
    ) -> Result<Vec<String>, Error> {
        self.current
            .label_values(at, name, matchers, prefix, range, limit, ctl)
    }

    /// The exemplars in `range` of the series that satisfy the matchers, in the order of labels.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub(crate) fn exemplars(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        range: TimeRange,
        ctl: &QueryControl,
    ) -> Result<Vec<SeriesExemplars>, Error> {
        self.current.exemplars(at, matchers, range, ctl)
    }

    /// What is known of one metric or of all, by rising name.
    pub(crate) fn metadata(&self, at: Lsn, metric: Option<&str>) -> Vec<Metadata> {
        self.current.metadata(at, metric)
    }

    /// Where the samples of the series that satisfy the matchers lie; `None` if there are none.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub(crate) fn time_bounds(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        ctl: &QueryControl,
    ) -> Result<Option<TimeRange>, Error> {
        self.current.time_bounds(at, matchers, ctl)
    }
}
