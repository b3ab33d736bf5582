//! Two ranges compared: which edges are new, which are gone, which behave differently.

use rootline_engine::{EdgeKind, QueryControl, Snapshot, TimeRange};

use super::{Dependency, DependencyQuery, dependency_graph, key};
use crate::{error::Error, memory::Memory};

/// From where on an edge counts as changed: any one of these is enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangeBounds {
    /// Calls a second differ by more than this share of the larger.
    pub calls_share: f64,
    /// Error rates differ by more than this.
    pub error_rate: f64,
    /// 95th percentiles differ by more than this share of the larger.
    pub p95_share: f64,
}

impl Default for ChangeBounds {
    /// A quarter of the calls, one call in a hundred, a quarter of the latency.
    fn default() -> Self {
        Self {
            calls_share: 0.25,
            error_rate: 0.01,
            p95_share: 0.25,
        }
    }
}

/// The figures of an edge in one of the ranges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EdgeFigures {
    /// Calls.
    pub calls: u64,
    /// Calls a second, over the whole range.
    pub calls_per_s: f64,
    /// Calls with the status error.
    pub errors: u64,
    /// Errors by call.
    pub error_rate: f64,
    /// Mean duration, in ns.
    pub mean_ns: f64,
    /// 95th percentile of the durations, in ns.
    pub p95_ns: f64,
    /// Whether `p95_ns` is exact, not within 1 %.
    pub exact: bool,
}

/// An edge in both ranges.
#[derive(Clone, Debug, PartialEq)]
pub struct DependencyChange {
    /// What makes it.
    pub kind: EdgeKind,
    /// See [`Dependency::caller`].
    pub caller: String,
    /// See [`Dependency::callee`].
    pub callee: String,
    /// See [`Dependency::system`].
    pub system: String,
    /// In the earlier range; `None` if there was no call.
    pub before: Option<EdgeFigures>,
    /// In the later range; `None` if there was no call.
    pub after: Option<EdgeFigures>,
}

/// What became of the edges. Lists are by caller, then callee, kind and system.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DependencyDifference {
    /// Edges that only `after` has.
    pub new: Vec<DependencyChange>,
    /// Edges that only `before` has.
    pub gone: Vec<DependencyChange>,
    /// Edges of both that differ by more than the bounds.
    pub changed: Vec<DependencyChange>,
    /// How many edges of both do not.
    pub unchanged: u64,
}

/// Compares the graph of `before` with that of `after`; which edges is said by `query`, whose own range
/// plays no part.
///
/// # Errors
/// As [`dependency_graph`].
pub fn dependency_difference(
    snapshot: &Snapshot,
    before: TimeRange,
    after: TimeRange,
    query: &DependencyQuery,
    bounds: ChangeBounds,
    control: &QueryControl,
    memory: &mut Memory,
) -> Result<DependencyDifference, Error> {
    let mut graph_of = |range| {
        let query = DependencyQuery {
            range,
            ..query.clone()
        };
        dependency_graph(snapshot, &query, control, memory)
    };
    let (old, new) = (graph_of(before)?, graph_of(after)?);
    let mut difference = DependencyDifference::default();
    let mut old = old.edges.iter().peekable();
    let mut new = new.edges.iter().peekable();
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some(old), Some(new)) => key(old).cmp(&key(new)),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => break,
        };
        let was = if order.is_le() { old.next() } else { None };
        let is = if order.is_ge() { new.next() } else { None };
        let Some(name) = is.or(was) else { break };
        let change = DependencyChange {
            kind: name.kind,
            caller: name.caller.clone(),
            callee: name.callee.clone(),
            system: name.system.clone(),
            before: was.map(|edge| figures(edge, before)),
            after: is.map(|edge| figures(edge, after)),
        };
        match (&change.before, &change.after) {
            (Some(was), Some(is)) if bounds.hold(was, is) => difference.unchanged += 1,
            (Some(_), Some(_)) => difference.changed.push(change),
            (None, _) => difference.new.push(change),
            (Some(_), None) => difference.gone.push(change),
        }
    }
    Ok(difference)
}

impl ChangeBounds {
    /// Whether two figures are about the same.
    fn hold(&self, was: &EdgeFigures, is: &EdgeFigures) -> bool {
        let near = |a: f64, b: f64, share: f64| (a - b).abs() <= share * a.max(b);
        near(was.calls_per_s, is.calls_per_s, self.calls_share)
            && (was.error_rate - is.error_rate).abs() <= self.error_rate
            && near(was.p95_ns, is.p95_ns, self.p95_share)
    }
}

fn figures(edge: &Dependency, range: TimeRange) -> EdgeFigures {
    let calls = edge.duration_ns.count;
    let length_ns = range.end().as_nanos().abs_diff(range.start().as_nanos());
    let length_s = (length_ns as f64 + 1.0) / 1e9;
    EdgeFigures {
        calls,
        calls_per_s: calls as f64 / length_s,
        errors: edge.errors,
        error_rate: edge.errors as f64 / calls as f64,
        mean_ns: edge.duration_ns.mean,
        p95_ns: edge.duration_ns.p95,
        exact: edge.exact,
    }
}
