//! What bounds a running query: a deadline, a cancel switch, limits on what it may touch.
//!
//! A query calls [`QueryControl::check`] at least once for every [`CHECK_ROWS`] rows, so that it ends
//! within a few milliseconds of being cancelled.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rootline_wal::{Clock, SystemClock};

use crate::error::Error;

/// Rows, samples or spans a query may touch between two checks.
pub const CHECK_ROWS: usize = 4096;

/// Limits of a query. Zero is not "unlimited": use `u64::MAX`.
#[derive(Clone, Debug)]
pub struct QueryLimits {
    /// Series a query may select.
    pub series_max: u64,
    /// Samples a query may read.
    pub samples_max: u64,
    /// Spans a query may read.
    pub spans_max: u64,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            series_max: 1_000_000,
            samples_max: 200_000_000,
            spans_max: 1_000_000_000,
        }
    }
}

/// Shared by the query and whoever may stop it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct QueryControl {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clock: Arc<dyn Clock>,
    deadline: Option<Duration>,
    cancelled: AtomicBool,
    limits: QueryLimits,
    series: AtomicU64,
    samples: AtomicU64,
    spans: AtomicU64,
}

impl QueryControl {
    /// A query that may run for `timeout` (no end if `None`) within `limits`.
    pub fn new(clock: Arc<dyn Clock>, timeout: Option<Duration>, limits: QueryLimits) -> Self {
        let deadline = timeout.map(|t| clock.monotonic().saturating_add(t));
        Self {
            inner: Arc::new(Inner {
                clock,
                deadline,
                cancelled: AtomicBool::new(false),
                limits,
                series: AtomicU64::new(0),
                samples: AtomicU64::new(0),
                spans: AtomicU64::new(0),
            }),
        }
    }

    /// Work of the store's own that runs to its end, whatever it touches.
    pub(crate) fn unbounded() -> Self {
        let limits = QueryLimits {
            series_max: u64::MAX,
            samples_max: u64::MAX,
            spans_max: u64::MAX,
        };
        Self::new(Arc::new(SystemClock::new()), None, limits)
    }

    /// Asks the query to stop; its next [`check`](Self::check) fails.
    pub fn cancel(&self) {
        self.inner.cancelled.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// [`Error::Cancelled`] or [`Error::DeadlineExceeded`].
    pub fn check(&self) -> Result<(), Error> {
        if self.inner.cancelled.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        match self.inner.deadline {
            Some(deadline) if self.inner.clock.monotonic() >= deadline => {
                Err(Error::DeadlineExceeded)
            }
            _ => Ok(()),
        }
    }

    /// Counts `n` more selected series.
    ///
    /// # Errors
    /// [`Error::QueryLimit`] past the bound.
    pub fn count_series(&self, n: u64) -> Result<(), Error> {
        Self::count(
            &self.inner.series,
            n,
            self.inner.limits.series_max,
            "series",
            "query-series-max",
        )
    }

    /// Counts `n` more samples read.
    ///
    /// # Errors
    /// [`Error::QueryLimit`] past the bound.
    pub fn count_samples(&self, n: u64) -> Result<(), Error> {
        let max = self.inner.limits.samples_max;
        Self::count(&self.inner.samples, n, max, "samples", "query-samples-max")
    }

    /// Counts `n` more spans read.
    ///
    /// # Errors
    /// [`Error::QueryLimit`] past the bound.
    pub fn count_spans(&self, n: u64) -> Result<(), Error> {
        Self::count(
            &self.inner.spans,
            n,
            self.inner.limits.spans_max,
            "spans",
            "query-spans-max",
        )
    }

    fn count(
        counter: &AtomicU64,
        n: u64,
        max: u64,
        what: &'static str,
        option: &'static str,
    ) -> Result<(), Error> {
        let before = counter.fetch_add(n, Ordering::Relaxed);
        if before.saturating_add(n) > max {
            return Err(Error::QueryLimit { what, max, option });
        }
        Ok(())
    }
}
