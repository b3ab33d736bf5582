//! A view of both signals at one sequence number.
//!
//! Reads look at the snapshot's age after each piece they read and before they hand it on, so that a
//! snapshot whose versions may be gone ends in a typed error, never in a changed answer.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use rootline_index::{Labels, Matcher};
use rootline_wal::Lsn;

use crate::{
    block::Signal,
    control::QueryControl,
    engine::Engine,
    error::Error,
    id::TraceId,
    metric::{Cardinality, CardinalityBy, Metadata, SeriesExemplars, SeriesSamples, SeriesSummary},
    span::{SpanPart, TagName, TagScope, TagValue, Trace, TraceSummary, ViewPart, listing},
    store::View,
    time::TimeRange,
    visibility::Pin,
};

/// Every batch acknowledged before it was taken, whole, and nothing else. Cheap to clone; all clones
/// end together by age (`snapshot_max_age`), after which reads fail with [`Error::SnapshotExpired`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    engine: Engine,
    pin: Arc<Pin>,
    /// The parts of the store as of the pin.
    view: Arc<View>,
}

impl Snapshot {
    /// The view and the pin were taken together: every batch up to the pin is in the view, whole.
    pub(crate) fn new(engine: Engine, pin: Pin, view: Arc<View>) -> Self {
        Self {
            engine,
            pin: Arc::new(pin),
            view,
        }
    }

    /// Every batch up to this one is in view.
    pub fn lsn(&self) -> Lsn {
        self.pin.lsn()
    }

    /// Whether every block with samples in `range` could be opened. If not, answers about the range come
    /// from the rest; [`EngineStats::damage`](crate::EngineStats::damage) names the files. (A page that is
    /// damaged inside an open block is an error of the question that touches it.)
    pub fn is_whole(&self, range: TimeRange) -> bool {
        self.engine.is_whole(Signal::Metrics, range)
    }

    /// Whether every block with spans in `range` could be opened; see [`is_whole`](Self::is_whole).
    pub fn spans_are_whole(&self, range: TimeRange) -> bool {
        self.engine.is_whole(Signal::Spans, range)
    }

    /// Samples in `range` of every series that all `matchers` select, in order of labels, each series
    /// once and only if it has any. `visit` may end the walk early.
    ///
    /// # Errors
    /// What `visit` returns; the query's bounds; [`Error::SnapshotExpired`].
    pub fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        query: &QueryControl,
        visit: &mut dyn FnMut(SeriesSamples<'_>) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let checked = &mut |series: SeriesSamples<'_>| {
            self.pin.check_age()?;
            visit(series)
        };
        self.met(
            self.view
                .metrics
                .select(self.pin.lsn(), matchers, range, query, checked),
        )?;
        self.pin.check_age()
    }

    /// What every series that all `matchers` select amounts to in `range`, in order of labels, each
    /// series once and only if it has samples there. Reads as little as statistics allow.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn summary(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        query: &QueryControl,
        visit: &mut dyn FnMut(SeriesSummary<'_>) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let checked = &mut |series: SeriesSummary<'_>| {
            self.pin.check_age()?;
            visit(series)
        };
        self.met(
            self.view
                .metrics
                .summary(self.pin.lsn(), matchers, range, query, checked),
        )?;
        self.pin.check_age()
    }

    /// The series that `matchers` select and that have a sample in `range`, in order of labels.
    ///
    /// # Errors
    /// The query's bounds; [`Error::SnapshotExpired`].
    pub fn series(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        query: &QueryControl,
    ) -> Result<Vec<Labels>, Error> {
        let found = self.met(
            self.view
                .metrics
                .series(self.pin.lsn(), matchers, range, query),
        )?;
        self.fresh(found)
    }

    /// The first `limit` label names of those series, sorted.
    ///
    /// # Errors
    /// The query's bounds; [`Error::SnapshotExpired`].
    pub fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        query: &QueryControl,
    ) -> Result<Vec<String>, Error> {
        let found =
            self.met(
                self.view
                    .metrics
                    .label_names(self.pin.lsn(), matchers, range, limit, query),
            )?;
        self.fresh(found)
    }

    /// The first `limit` values of label `name` that begin with `prefix` among those series, sorted.
    ///
    /// # Errors
    /// The query's bounds; [`Error::SnapshotExpired`].
    pub fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        prefix: &str,
        range: TimeRange,
        limit: usize,
        query: &QueryControl,
    ) -> Result<Vec<String>, Error> {
        let at = self.pin.lsn();
        let found = self.met(
            self.view
                .metrics
                .label_values(at, name, matchers, prefix, range, limit, query),
        )?;
        self.fresh(found)
    }

    /// Exemplars in `range` of the series that `matchers` select, oldest first in each.
    ///
    /// # Errors
    /// The query's bounds; [`Error::SnapshotExpired`].
    pub fn exemplars(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        query: &QueryControl,
    ) -> Result<Vec<SeriesExemplars>, Error> {
        let found = self.met(self.view.metrics.exemplars(
            self.pin.lsn(),
            matchers,
            range,
            query,
        ))?;
        self.fresh(found)
    }

    /// Metadata of one metric or of all, sorted by name.
    ///
    /// # Errors
    /// [`Error::SnapshotExpired`].
    pub fn metadata(&self, metric: Option<&str>) -> Result<Vec<Metadata>, Error> {
        self.fresh(self.view.metrics.metadata(self.pin.lsn(), metric))
    }

    /// From the first to the last sample of the series that `matchers` select.
    ///
    /// # Errors
    /// The query's bounds; [`Error::SnapshotExpired`].
    pub fn metric_time_bounds(
        &self,
        matchers: &[Matcher],
        query: &QueryControl,
    ) -> Result<Option<TimeRange>, Error> {
        let found = self.met(
            self.view
                .metrics
                .time_bounds(self.pin.lsn(), matchers, query),
        )?;
        self.fresh(found)
    }

    /// The `limit` label names, values of a label or label pairs with most series, over all time.
    ///
    /// # Errors
    /// The query's bounds; [`Error::SnapshotExpired`].
    pub fn cardinality(
        &self,
        by: CardinalityBy<'_>,
        limit: usize,
        query: &QueryControl,
    ) -> Result<Cardinality, Error> {
        let found = self.met(
            self.view
                .metrics
                .cardinality(self.pin.lsn(), by, limit, query),
        )?;
        self.fresh(found)
    }

    /// A trace with all its spans and who called whom.
    ///
    /// # Errors
    /// The query's bounds; [`Error::SnapshotExpired`].
    pub fn trace(&self, id: TraceId, query: &QueryControl) -> Result<Option<Trace>, Error> {
        let found = self.in_parts(|part| match part.find_trace(id, query)? {
            Some(trace) => part.trace(trace, query),
            None => Ok(None),
        });
        self.fresh(found?)
    }

    /// A trace in a line: root, times, counts.
    ///
    /// # Errors
    /// The query's bounds; [`Error::SnapshotExpired`].
    pub fn trace_summary(
        &self,
        id: TraceId,
        query: &QueryControl,
    ) -> Result<Option<TraceSummary>, Error> {
        let found = self.in_parts(|part| match part.find_trace(id, query)? {
            Some(trace) => part.summary(trace, query).map(Some),
            None => Ok(None),
        });
        self.fresh(found?)
    }

    /// What the first part that answers says, newest first: what is asked for most is new.
    fn in_parts<T>(
        &self,
        ask: impl Fn(&SpanPart) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        for part in self.span_parts()?.iter().rev() {
            if let Some(answer) = ask(part)? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// The parts of the span store, oldest first. Every trace lies whole in exactly one of them.
    ///
    /// # Errors
    /// [`Error::SnapshotExpired`].
    pub fn span_parts(&self) -> Result<Vec<SpanPart>, Error> {
        let damaged = &mut |error: Error| self.engine.note_damage(&error, Path::new(""));
        let parts = self.view.spans.parts(self.pin.lsn(), damaged)?;
        let mut opened = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                ViewPart::Block(block, hidden) => opened.push(SpanPart::of_block(block, hidden)),
                ViewPart::Head(head) => opened.extend(SpanPart::of_head(&head, self.pin.lsn())),
            }
        }
        let told = opened.into_iter().map(|part| part.telling(&self.engine));
        self.fresh(told.collect())
    }

    /// Services that have spans in `range`, sorted.
    ///
    /// # Errors
    /// The query's bounds; [`Error::SnapshotExpired`].
    pub fn services(&self, range: TimeRange, query: &QueryControl) -> Result<Vec<String>, Error> {
        let found = listing::services(&self.span_parts()?, range, query);
        self.fresh(found?)
    }

    /// Span names of a service (of all if `None`) in `range`, sorted.
    ///
    /// # Errors
    /// The query's bounds; [`Error::SnapshotExpired`].
    pub fn operations(
        &self,
        service: Option<&str>,
        range: TimeRange,
        query: &QueryControl,
    ) -> Result<Vec<String>, Error> {
        let found = listing::operations(&self.span_parts()?, service, range, query);
        self.fresh(found?)
    }

    /// The first `limit` attribute keys that begin with `prefix` and stand in a scope (in any of them
    /// for [`TagScope::Any`]), sorted by key, then scope, each with its types and the spans that have it.
    ///
    /// # Errors
    /// The query's bounds; [`Error::SnapshotExpired`].
    pub fn tag_names(
        &self,
        of: TagScope,
        prefix: &str,
        limit: usize,
        query: &QueryControl,
    ) -> Result<Vec<TagName>, Error> {
        let found = listing::tag_names(&self.span_parts()?, of, prefix, limit, query);
        self.fresh(found?)
    }

    /// The first `limit` values of an attribute that begin with `prefix`, sorted by their display form,
    /// each with its type and the spans that have it. For [`TagScope::Any`] a resource's value counts
    /// for the spans that do not have the key themselves.
    ///
    /// # Errors
    /// The query's bounds; [`Error::SnapshotExpired`].
    pub fn tag_values(
        &self,
        key: &str,
        of: TagScope,
        prefix: &str,
        limit: usize,
        query: &QueryControl,
    ) -> Result<Vec<TagValue>, Error> {
        let found = listing::tag_values(&self.span_parts()?, key, of, prefix, limit, query);
        self.fresh(found?)
    }

    /// From the first start to the last end of all spans.
    ///
    /// # Errors
    /// The query's bounds; [`Error::SnapshotExpired`].
    pub fn span_time_bounds(&self, query: &QueryControl) -> Result<Option<TimeRange>, Error> {
        let mut bounds: Option<TimeRange> = None;
        for part in self.span_parts()? {
            let own = part.time_bounds(query)?;
            bounds = match (bounds, own) {
                (Some(all), Some(own)) => Some(all.union(own)),
                (all, own) => all.or(own),
            };
        }
        self.fresh(bounds)
    }

    /// The engine this is a snapshot of.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Damage that a question ran into stands in the store's figures from then on.
    fn met<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        if let Err(error @ Error::CorruptBlock { path, .. }) = &answer {
            self.engine.note_damage(error, path);
        }
        answer
    }

    fn fresh<T>(&self, answer: T) -> Result<T, Error> {
        self.pin.check_age()?;
        Ok(answer)
    }
}
