//! Conditions on one span, as people ask: all that are set hold together.

use std::{fmt::Write as _, ops::ControlFlow};

use rootline_engine::{
    Matcher, QueryControl, Snapshot, SpanCondition, SpanFilter, SpanKind, StatusCode, StringMatch,
    TagScope, TimeRange, Timestamp,
};

use crate::error::Error;

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

    /// Text that is the same for the same conditions and range, for page tokens.
    pub(crate) fn fingerprint(&self, range: TimeRange) -> String {
        let mut text = format!("{range}");
        // Writing to a string does not fail; `{:?}` quotes, so fields cannot run into each other.
        let _ = write!(
            text,
            "{:?}{:?}{:?}{:?}{:?}{:?}",
            self.service,
            self.operation,
            self.status,
            self.kind,
            self.min_duration_ns,
            self.max_duration_ns
        );
        for tag in &self.tags {
            let _ = write!(text, "{tag},");
        }
        text
    }
}

/// From the earliest to the latest start of the stored spans that meet `conditions`: where data lie,
/// for answers that found none. Reads all spans.
///
/// # Errors
/// When a condition is wrong, or the query is stopped or runs into a bound.
pub fn span_starts(
    snapshot: &Snapshot,
    conditions: &SpanConditions,
    control: &QueryControl,
) -> Result<Option<TimeRange>, Error> {
    let mut bounds: Option<(Timestamp, Timestamp)> = None;
    snapshot.scan_spans(&conditions.filter(TimeRange::ALL)?, control, &mut |hit| {
        let (first, last) = bounds.unwrap_or((hit.start, hit.start));
        bounds = Some((first.min(hit.start), last.max(hit.start)));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(match bounds {
        Some((first, last)) => Some(TimeRange::new(first, last)?),
        None => None,
    })
}
