//! Conditions on one span, as people ask: all that are set hold together.

use rootline_engine::{
    Matcher, QueryControl, Snapshot, SpanCondition, SpanFilter, SpanKind, StatusCode, StringMatch,
    TagScope, TimeRange, Timestamp,
};

use crate::{
    error::Error,
    memory::Memory,
    span_set::{Evaluation, ToSpanSet, pieces},
};

/// Which spans.
#[derive(Clone, Debug, Default)]
pub struct SpanConditions {
    /// Service, exactly.
    pub service: Option<String>,
    /// Span name, exactly.
    pub operation: Option<String>,
    /// On attributes of the span or else its resource, in their text form.
    pub tags: Vec<Matcher>,
    /// Outcome.
    pub status: Option<StatusCode>,
    /// Role.
    pub kind: Option<SpanKind>,
    /// Shortest duration.
    pub min_duration_ns: Option<u64>,
    /// Longest duration.
    pub max_duration_ns: Option<u64>,
}

impl SpanConditions {
    /// As the engine takes it, for spans that start in `range`.
    ///
    /// # Errors
    /// [`Error::EmptyDurationRange`].
    pub fn filter(&self, range: TimeRange) -> Result<SpanFilter, Error> {
        let mut conditions = Vec::new();
        if let Some(service) = &self.service {
            conditions.push(SpanCondition::Service(StringMatch::equal(service)));
        }
        if let Some(name) = &self.operation {
            conditions.push(SpanCondition::Name(StringMatch::equal(name)));
        }
        if let Some(status) = self.status {
            conditions.push(SpanCondition::Status(status));
        }
        if let Some(kind) = self.kind {
            conditions.push(SpanCondition::Kind(kind));
        }
        if self.min_duration_ns.is_some() || self.max_duration_ns.is_some() {
            let min = self.min_duration_ns.unwrap_or(0);
            let max = self.max_duration_ns.unwrap_or(u64::MAX);
            if max < min {
                return Err(Error::EmptyDurationRange {
                    min_ns: min,
                    max_ns: max,
                });
            }
            conditions.push(SpanCondition::DurationNs { min, max });
        }
        for tag in &self.tags {
            conditions.push(SpanCondition::Tag {
                key: tag.name().to_owned(),
                of: TagScope::Any,
                matches: StringMatch::from(tag.clone()),
            });
        }
        Ok(SpanFilter { range, conditions })
    }
}

/// From the earliest to the latest start of the stored spans of a set: where data lie, for answers that
/// found none. Reads all of them.
///
/// # Errors
/// When the set is wrong, or the query is stopped or runs into a bound.
pub fn span_starts(
    snapshot: &Snapshot,
    spans: &impl ToSpanSet,
    control: &QueryControl,
) -> Result<Option<TimeRange>, Error> {
    let set = spans.to_span_set()?;
    let mut memory = Memory::new(snapshot.engine().budget());
    let mut bounds: Option<TimeRange> = None;
    let mut starts = Vec::new();
    for part in snapshot.span_parts()? {
        // A part whose spans all start within what is known adds nothing.
        let known = |bounds: TimeRange, part: TimeRange| bounds.union(part) == bounds;
        if bounds
            .zip(part.start_bounds())
            .is_some_and(|(a, b)| known(a, b))
        {
            continue;
        }
        let mut evaluation = Evaluation {
            part: &part,
            control,
            memory: &mut memory,
        };
        let rows = evaluation.rows(&set, TimeRange::ALL)?;
        for piece in pieces(&rows) {
            starts.clear();
            part.starts(&piece, control, &mut starts)?;
            for &start in &starts {
                let at = Timestamp::from_nanos(start);
                let at = TimeRange::new(at, at)?;
                bounds = Some(bounds.map_or(at, |bounds| bounds.union(at)));
            }
        }
        evaluation.free(rows);
    }
    Ok(bounds)
}
