//! Which service calls which.
//!
//! An edge is a span whose parent span belongs to another service: one call, whose latency and outcome
//! are the child's. The child's start decides whether a call lies in the range; its parent may lie
//! outside. A parent that is not stored (yet) makes no edge. Quantiles are exact, by selection: the
//! durations of all calls are held meanwhile, 8 bytes each, booked on the budget.

use std::{collections::HashMap, ops::ControlFlow};

use rootline_engine::{QueryControl, Snapshot, StatusCode, TimeRange};

use crate::{
    error::Error, memory::Memory, span_conditions::SpanConditions, statistics::Statistics,
};

/// The dependency graph of a range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dependencies {
    /// By caller, then callee.
    pub edges: Vec<Dependency>,
}

/// One edge.
#[derive(Clone, Debug, PartialEq)]
pub struct Dependency {
    /// Service of the parent spans.
    pub caller: String,
    /// Service of the child spans.
    pub callee: String,
    /// Child spans with the status error.
    pub errors: u64,
    /// Of the child spans' durations, in ns; `count` is the number of calls.
    pub duration_ns: Statistics,
}

/// Calls between services whose child span starts in `range`; with `caller` or `callee` only theirs.
///
/// # Errors
/// When the query is stopped, or memory or another bound runs out.
pub fn dependencies(
    snapshot: &Snapshot,
    range: TimeRange,
    caller: Option<&str>,
    callee: Option<&str>,
    control: &QueryControl,
    memory: &mut Memory,
) -> Result<Dependencies, Error> {
    let conditions = SpanConditions {
        service: callee.map(str::to_owned),
        ..SpanConditions::default()
    };
    let filter = conditions.filter(range)?;
    let mut edges: HashMap<(u32, u32), Calls> = HashMap::new();
    let mut refused = None;
    snapshot.scan_spans(&filter, control, &mut |hit| {
        let Some(parent_service) = hit.parent_service else {
            return Ok(ControlFlow::Continue(()));
        };
        if parent_service == hit.service {
            return Ok(ControlFlow::Continue(()));
        }
        let calls = edges.entry((parent_service, hit.service)).or_default();
        if let Err(error) = memory.take_growth(&mut calls.durations_ns, 1) {
            refused = Some(error);
            return Ok(ControlFlow::Break(()));
        }
        calls.durations_ns.push(hit.duration_ns as f64);
        calls.errors += u64::from(hit.status == StatusCode::Error);
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(error) = refused {
        return Err(error);
    }

    let mut found = Vec::with_capacity(edges.len());
    for ((from, to), mut calls) in edges {
        control.check()?;
        let from = snapshot.symbol(from);
        if caller.is_some_and(|wanted| *wanted != *from) {
            continue;
        }
        if let Some(duration_ns) = Statistics::of(&mut calls.durations_ns) {
            found.push(Dependency {
                caller: from.to_string(),
                callee: snapshot.symbol(to).to_string(),
                errors: calls.errors,
                duration_ns,
            });
        }
    }
    found.sort_by(|a, b| (&a.caller, &a.callee).cmp(&(&b.caller, &b.callee)));
    Ok(Dependencies { edges: found })
}

#[derive(Default)]
struct Calls {
    durations_ns: Vec<f64>,
    errors: u64,
}
