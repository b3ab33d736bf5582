//! Statistics of span durations, grouped by service or operation. Exact: the durations are held
//! meanwhile, 8 bytes each, booked on the budget.

use std::{collections::HashMap, ops::ControlFlow};

use rootline_engine::{QueryControl, Snapshot, StatusCode, TimeRange};

use crate::{
    error::Error, memory::Memory, span_conditions::SpanConditions, statistics::Statistics,
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

/// Statistics of the spans that start in `range` and meet `conditions`.
///
/// # Errors
/// When a condition is wrong, the query is stopped, or memory or another bound runs out.
pub fn duration_stats(
    snapshot: &Snapshot,
    conditions: &SpanConditions,
    range: TimeRange,
    by: GroupSpansBy,
    control: &QueryControl,
    memory: &mut Memory,
) -> Result<DurationStats, Error> {
    let filter = conditions.filter(range)?;
    let mut groups: HashMap<(u32, u32), Spans> = HashMap::new();
    let mut refused = None;
    snapshot.scan_spans(&filter, control, &mut |hit| {
        let key = match by {
            GroupSpansBy::Nothing => (0, 0),
            GroupSpansBy::Service => (hit.service, 0),
            GroupSpansBy::Operation => (hit.service, hit.name),
        };
        let spans = groups.entry(key).or_default();
        if let Err(error) = memory.take_growth(&mut spans.durations_ns, 1) {
            refused = Some(error);
            return Ok(ControlFlow::Break(()));
        }
        spans.durations_ns.push(hit.duration_ns as f64);
        spans.errors += u64::from(hit.status == StatusCode::Error);
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(error) = refused {
        return Err(error);
    }

    let mut found = Vec::with_capacity(groups.len());
    for ((service, name), mut spans) in groups {
        control.check()?;
        let text = |wanted: bool, id| wanted.then(|| snapshot.symbol(id).to_string());
        if let Some(duration_ns) = Statistics::of(&mut spans.durations_ns) {
            found.push(DurationGroup {
                service: text(by != GroupSpansBy::Nothing, service),
                operation: text(by == GroupSpansBy::Operation, name),
                errors: spans.errors,
                duration_ns,
            });
        }
    }
    found.sort_by(|a, b| (&a.service, &a.operation).cmp(&(&b.service, &b.operation)));
    Ok(DurationStats { groups: found })
}

#[derive(Default)]
struct Spans {
    durations_ns: Vec<f64>,
    errors: u64,
}
