//! One part of the span store as a snapshot sees it: what every question about spans is asked of.
//!
//! A part is a block, or one shard of a generation of the head. Every visible trace lies whole in
//! exactly one part, so that answers of parts are added up and never fitted together. Rows, traces,
//! classes and symbols are numbered by each part for itself.
//!
//! Answers leave out what the snapshot does not see: newer rows, deleted, superseded and expired ones.
//! A question touches no more than it must and looks at its control every few thousand rows.

use std::sync::Arc;

use rootline_wal::Lsn;

use super::{
    axis::Axis,
    block::SpanBlock,
    block_part::BlockPart,
    catalog::SymbolId,
    edge,
    filter::{SpanFilter, TagScope},
    head::SpanHead,
    head_part::HeadPart,
    hidden::Hidden,
    hit::SpanHit,
    listing::{NameCounts, ValueCounts},
    model::{SpanKind, StatusCode, Trace, TraceSummary},
    rows::SpanRows,
};
use crate::{
    control::QueryControl,
    engine::Engine,
    error::Error,
    id::TraceId,
    time::{TimeRange, Timestamp},
    value::Value,
};

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SpanPart {
    inner: Inner,
    /// Who is told of damage.
    engine: Option<Engine>,
}

#[derive(Clone, Debug)]
enum Inner {
    Block(BlockPart),
    Head(HeadPart),
}

/// What spans of one class have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct SpanClass {
    /// Its service; the empty text if its resource does not say it.
    pub service: SymbolId,
    /// Name of the operation.
    pub name: SymbolId,
    /// Role in a call.
    pub kind: SpanKind,
    /// How it ended.
    pub status: StatusCode,
    /// Number of the resource, the same for all classes of it in this part.
    pub resource: u32,
}

/// Values of an attribute of some rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowValues {
    /// For each row the place of its value in `values`; `u32::MAX` if it has none.
    pub codes: Vec<u32>,
    /// Distinct values, in no promised order.
    pub values: Vec<Value>,
}

/// A trace with spans that satisfy a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewestTrace {
    /// Its number in the part.
    pub trace: u32,
    /// Its id.
    pub id: TraceId,
    /// Earliest start of its spans.
    pub start: Timestamp,
    /// Spans that satisfy the filter.
    pub matched: u64,
}

/// Hands a question to whatever the part is.
macro_rules! ask {
    ($self:expr, $part:ident => $answer:expr) => {
        match &$self.inner {
            Inner::Block($part) => $answer,
            Inner::Head($part) => $answer,
        }
    };
}

impl SpanPart {
    /// The shards of a generation as of `at`.
    pub(crate) fn of_head(head: &Arc<SpanHead>, at: Lsn) -> impl Iterator<Item = Self> {
        (0..head.shards()).map(move |shard| Self::from(HeadPart::new(head, shard, at)))
    }

    /// A block, less what is hidden of it.
    pub(crate) fn of_block(block: Arc<SpanBlock>, hidden: Arc<Hidden>) -> Self {
        Self {
            inner: Inner::Block(BlockPart::new(block, hidden)),
            engine: None,
        }
    }

    /// The same; damage that a question runs into stands in the engine's figures from then on.
    #[must_use]
    pub(crate) fn telling(self, engine: &Engine) -> Self {
        Self {
            engine: Some(engine.clone()),
            ..self
        }
    }

    fn met<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        if let (Err(error @ Error::CorruptBlock { path, .. }), Some(engine)) =
            (&answer, &self.engine)
        {
            engine.note_damage(error, path);
        }
        answer
    }

    /// Rows of another part say nothing here.
    fn check_rows(&self, rows: &SpanRows) -> Result<(), Error> {
        match rows.as_bitmap().max() {
            Some(row) if u64::from(row) >= self.spans() => Err(Error::NoSuchRow { row }),
            _ => Ok(()),
        }
    }

    /// Spans in it, visible or not: an upper bound.
    pub fn spans(&self) -> u64 {
        ask!(self, part => part.spans())
    }

    /// All its spans start within this; `None` if there are none.
    pub fn start_bounds(&self) -> Option<TimeRange> {
        ask!(self, part => part.start_bounds())
    }

    /// The text of a symbol of this part.
    pub fn symbol(&self, id: SymbolId) -> Arc<str> {
        ask!(self, part => part.symbol(id))
    }

    /// Classes are numbered from 0 to below this.
    pub fn class_count(&self) -> u32 {
        ask!(self, part => part.class_count())
    }

    /// What spans of a class have in common. A class that does not exist has nothing.
    pub fn class(&self, class: u32) -> SpanClass {
        ask!(self, part => part.class(class))
    }

    /// The visible rows that satisfy a filter.
    ///
    /// # Errors
    /// Those of the query's control; damage.
    pub fn select(&self, filter: &SpanFilter, ctl: &QueryControl) -> Result<SpanRows, Error> {
        self.met(ask!(self, part => part.select(filter, ctl)))
    }

    /// How many visible rows satisfy a filter.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn count(&self, filter: &SpanFilter, ctl: &QueryControl) -> Result<u64, Error> {
        self.met(ask!(self, part => part.count(filter, ctl)))
    }

    /// The same by class: classes with their rows, each class once, rising, no zeros.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn count_by_class(
        &self,
        filter: &SpanFilter,
        ctl: &QueryControl,
    ) -> Result<Vec<(u32, u64)>, Error> {
        self.met(ask!(self, part => part.count_by_class(filter, ctl)))
    }

    /// The visible rows that are `axis` of one of `rows`: for [`Axis::Child`] the children of them.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn relatives(
        &self,
        rows: &SpanRows,
        axis: Axis,
        ctl: &QueryControl,
    ) -> Result<SpanRows, Error> {
        self.check_rows(rows)?;
        if rows.is_empty() {
            return Ok(SpanRows::new());
        }
        self.met(ask!(self, part => part.relatives(rows, axis, ctl)))
    }

    /// Appends how long each row took, in the order of rows.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn durations(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u64>,
    ) -> Result<(), Error> {
        self.check_rows(rows)?;
        self.met(ask!(self, part => part.durations(rows, ctl, out)))
    }

    /// Appends when each row began, in nanoseconds since the epoch.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn starts(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<i64>,
    ) -> Result<(), Error> {
        self.check_rows(rows)?;
        self.met(ask!(self, part => part.starts(rows, ctl, out)))
    }

    /// Appends the class of each row.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn classes(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        self.check_rows(rows)?;
        self.met(ask!(self, part => part.classes(rows, ctl, out)))
    }

    /// Appends the class of each row's parent; `u32::MAX` if it has none.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn parent_classes(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        self.check_rows(rows)?;
        self.met(ask!(self, part => part.parent_classes(rows, ctl, out)))
    }

    /// Appends the number of each row's trace.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn traces(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        self.check_rows(rows)?;
        self.met(ask!(self, part => part.traces(rows, ctl, out)))
    }

    /// The id of a trace.
    ///
    /// # Errors
    /// [`Error::NoSuchTrace`] if the part has no such trace; damage.
    pub fn trace_id(&self, trace: u32) -> Result<TraceId, Error> {
        self.met(ask!(self, part => part.trace_id(trace)))
    }

    /// The earliest start of a trace's visible spans.
    ///
    /// # Errors
    /// [`Error::NoSuchTrace`] if the snapshot sees no span of it here; damage.
    pub fn trace_start(&self, trace: u32) -> Result<Timestamp, Error> {
        self.met(ask!(self, part => part.trace_start(trace)))
    }

    /// Appends each row's own time in nanoseconds: its duration less the time within it during which
    /// at least one of its children ran.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn own_times(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u64>,
    ) -> Result<(), Error> {
        self.check_rows(rows)?;
        self.met(ask!(self, part => part.own_times(rows, ctl, out)))
    }

    /// Appends how many spans are above each row; a root has 0.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn depths(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        self.check_rows(rows)?;
        self.met(ask!(self, part => part.depths(rows, ctl, out)))
    }

    /// Appends how many children each row has.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn child_counts(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        self.check_rows(rows)?;
        self.met(ask!(self, part => part.child_counts(rows, ctl, out)))
    }

    /// Each row's first value of a key. Of events and links it is that of the first one that has it.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn values(
        &self,
        rows: &SpanRows,
        key: &str,
        of: TagScope,
        ctl: &QueryControl,
    ) -> Result<RowValues, Error> {
        self.check_rows(rows)?;
        self.met(ask!(self, part => part.values(rows, key, of, ctl)))
    }

    /// The rows in short, in the order of rows.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn hits(&self, rows: &SpanRows, ctl: &QueryControl) -> Result<Vec<SpanHit>, Error> {
        self.check_rows(rows)?;
        self.met(ask!(self, part => part.hits(rows, ctl)))
    }

    /// The newest traces with spans that satisfy a filter: by (start, id) falling, those below
    /// `before`, at most `limit`.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn newest_traces(
        &self,
        filter: &SpanFilter,
        before: Option<(Timestamp, TraceId)>,
        limit: usize,
        ctl: &QueryControl,
    ) -> Result<Vec<NewestTrace>, Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        self.met(ask!(self, part => part.newest_traces(filter, before, limit, ctl)))
    }

    /// The number of a trace that has visible spans here.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn find_trace(&self, id: TraceId, ctl: &QueryControl) -> Result<Option<u32>, Error> {
        self.met(ask!(self, part => part.find_trace(id, ctl)))
    }

    /// A trace with all its visible spans; `None` if there are none.
    pub(crate) fn trace(&self, trace: u32, ctl: &QueryControl) -> Result<Option<Trace>, Error> {
        self.met(ask!(self, part => part.trace(trace, ctl)))
    }

    /// Counts the keys of one scope that begin with `prefix`.
    pub(crate) fn tag_names(
        &self,
        of: TagScope,
        prefix: &str,
        ctl: &QueryControl,
        into: &mut NameCounts,
    ) -> Result<(), Error> {
        self.met(ask!(self, part => part.tag_names(of, prefix, ctl, into)))
    }

    /// Counts the values of a key.
    pub(crate) fn tag_values(
        &self,
        key: &str,
        of: TagScope,
        ctl: &QueryControl,
        into: &mut ValueCounts<'_>,
    ) -> Result<(), Error> {
        self.met(ask!(self, part => part.tag_values(key, of, ctl, into)))
    }

    /// From the earliest start to the latest end of the visible spans.
    pub(crate) fn time_bounds(&self, ctl: &QueryControl) -> Result<Option<TimeRange>, Error> {
        self.met(ask!(self, part => part.time_bounds(ctl)))
    }

    /// How many traces have a visible span here.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn trace_count(&self, ctl: &QueryControl) -> Result<u64, Error> {
        ask!(self, part => part.trace_count(ctl))
    }

    /// A trace in a line.
    ///
    /// # Errors
    /// [`Error::NoSuchTrace`] if the snapshot sees no span of it here; those of
    /// [`select`](Self::select).
    pub fn summary(&self, trace: u32, ctl: &QueryControl) -> Result<TraceSummary, Error> {
        self.met(ask!(self, part => part.summary(trace, ctl)))
    }
}

/// What edges need.
impl SpanPart {
    /// The calls among the rows that satisfy a filter, if parents are at hand: the classes of parent and
    /// row, and the row's duration, where they were sent by different resources. Returns the rows of
    /// which that is not known.
    pub(crate) fn calls_between_resources(
        &self,
        filter: &SpanFilter,
        ctl: &QueryControl,
        found: &mut Vec<(u32, u32, u64)>,
    ) -> Result<SpanRows, Error> {
        match &self.inner {
            Inner::Head(part) => part.calls_between_resources(filter, ctl, found),
            Inner::Block(part) => part.select(filter, ctl),
        }
    }

    /// Calls `each` with every link of rows: the row, the trace and the span pointed to, zeros for what
    /// was not sent.
    pub(crate) fn each_link(
        &self,
        rows: &SpanRows,
        ctl: &QueryControl,
        each: &mut dyn FnMut(u32, [u8; 16], [u8; 8]),
    ) -> Result<(), Error> {
        match &self.inner {
            Inner::Head(part) => part.each_link(rows, ctl, each),
            Inner::Block(part) => edge::each_link(&part.block, rows, ctl, each),
        }
    }

    /// Calls `each` with every visible span of a trace: its id, its start and its class. No call if the
    /// part does not have the trace.
    pub(crate) fn each_span_of(
        &self,
        id: TraceId,
        ctl: &QueryControl,
        each: &mut dyn FnMut([u8; 8], i64, u32),
    ) -> Result<(), Error> {
        match &self.inner {
            Inner::Head(part) => part.each_span_of(id, ctl, each),
            Inner::Block(part) => edge::each_span_of(&part.block, &part.hidden, id, ctl, each),
        }
    }

    /// The block and what is hidden of it, if the part is one.
    pub(crate) fn block(&self) -> Option<(&SpanBlock, &Hidden)> {
        match &self.inner {
            Inner::Head(_) => None,
            Inner::Block(part) => Some((&part.block, &part.hidden)),
        }
    }
}

impl From<HeadPart> for SpanPart {
    fn from(part: HeadPart) -> Self {
        Self {
            inner: Inner::Head(part),
            engine: None,
        }
    }
}

/// What is left of `traces` below `before`: by (start, id) falling, at most `limit`.
pub(crate) fn newest_of(
    mut traces: Vec<NewestTrace>,
    before: Option<(Timestamp, TraceId)>,
    limit: usize,
) -> Vec<NewestTrace> {
    if let Some(before) = before {
        traces.retain(|trace| (trace.start, trace.id) < before);
    }
    let key = |trace: &NewestTrace| std::cmp::Reverse((trace.start, trace.id));
    if traces.len() > limit {
        traces.select_nth_unstable_by_key(limit, key);
        traces.truncate(limit);
    }
    traces.sort_unstable_by_key(key);
    traces
}
