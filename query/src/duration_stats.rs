//! Statistics of span durations, grouped by service or operation. Exact: the durations are held
//! meanwhile, 8 bytes each, booked on the budget.

use rootline_engine::{QueryControl, Snapshot, TimeRange, Value};

use crate::{
    error::Error,
    memory::Memory,
    span_aggregates::{Groups, SpanAggregation, SpanGroupKey, SpanMeasure, Steps, WantedFigures},
    span_set::ToSpanSet,
    statistics::Statistics,
};

/// What spans are grouped by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupSpansBy {
    /// All in one group.
    #[default]
    Nothing,
    /// One group a service.
    Service,
    /// One group a service and span name.
    Operation,
}

/// The groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DurationStats {
    /// By service, then operation. None is empty.
    pub groups: Vec<DurationGroup>,
}

/// One group.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationGroup {
    /// Its service, if grouped by it.
    pub service: Option<String>,
    /// Its span name, if grouped by it.
    pub operation: Option<String>,
    /// Spans with the status error.
    pub errors: u64,
    /// Of the durations, in ns; `count` is the number of spans.
    pub duration_ns: Statistics,
}

/// Statistics of the spans of a set that start in `range`.
///
/// # Errors
/// When the set is wrong, the query is stopped, or memory or another bound runs out.
pub fn duration_stats(
    snapshot: &Snapshot,
    spans: &impl ToSpanSet,
    range: TimeRange,
    by: GroupSpansBy,
    control: &QueryControl,
    memory: &mut Memory,
) -> Result<DurationStats, Error> {
    let set = spans.to_span_set()?;
    let asked = SpanAggregation {
        by: match by {
            GroupSpansBy::Nothing => Vec::new(),
            GroupSpansBy::Service => vec![SpanGroupKey::Service],
            GroupSpansBy::Operation => vec![SpanGroupKey::Service, SpanGroupKey::Operation],
        },
        figures: Some(WantedFigures {
            measure: SpanMeasure::Duration,
            // Any makes the durations be held.
            quantiles: vec![0.5],
        }),
        // Services and operations are bounded by what was stored; memory is booked.
        groups_max: usize::MAX,
        ..SpanAggregation::default()
    };
    let steps = Steps::of(range, None)?;
    let groups = Groups::of(&set, range, steps, &asked, snapshot, control, memory)?;
    let mut found = Vec::with_capacity(groups.cells.len());
    for mut cell in groups.cells {
        control.check()?;
        let group = groups.open.get(cell.group as usize);
        let mut by = group.into_iter().flat_map(|group| &group.by).map(|value| {
            let text = value.as_ref().and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        });
        if let Some(duration_ns) = Statistics::of(&mut cell.times_ns) {
            found.push(DurationGroup {
                service: by.next(),
                operation: by.next(),
                errors: cell.errors,
                duration_ns,
            });
        }
    }
    found.sort_by(|a, b| (&a.service, &a.operation).cmp(&(&b.service, &b.operation)));
    Ok(DurationStats { groups: found })
}
