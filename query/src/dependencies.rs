//! Which service calls which.
//!
//! An edge is a span whose parent span belongs to another service: one call, whose latency and outcome
//! are the child's. The child's start decides whether a call lies in the range; its parent may lie
//! outside. A parent that is not stored (yet) makes no edge. Peers seen from the client's side alone and
//! links make edges of other kinds ([`EdgeKind`]), which are left out unless asked for.
//!
//! Any past range is answered: blocks keep sums of their edges by minute, hour and day, so that a range
//! costs as many of them as it takes to cover it; what is left of minutes at both ends, and what is not in blocks, is
//! read from the spans. Spans that come late are in the answer as if they had come in time.
//!
//! Counts, sums and means are exact. Quantiles are exact, by selection, while all calls are not more
//! than [`DependencyQuery::exact_calls_max`]; past that they come from histograms and are within 1 %.
//! Each edge says which.
//!
//! | file | holds |
//! | --- | --- |
//! | `figures.rs` | the figures of an edge |
//! | `difference.rs` | two ranges compared |

mod difference;
mod figures;

use std::time::Duration;

use rootline_engine::{
    EdgeFilter, EdgeGraph, EdgeKind, EdgeKinds, QueryControl, Snapshot, SpanPart, TimeRange,
    Timestamp,
};

use crate::{error::Error, memory::Memory, statistics::Statistics};

pub use self::difference::{
    ChangeBounds, DependencyChange, DependencyDifference, EdgeFigures, dependency_difference,
};

/// Calls of a graph up to which its quantiles are exact.
pub const EXACT_CALLS_MAX_DEFAULT: u64 = 200_000;

const NS_PER_MINUTE: i64 = 60_000_000_000;

/// Which edges are asked for.
#[derive(Clone, Debug)]
pub struct DependencyQuery {
    /// When calls start.
    pub range: TimeRange,
    /// Kinds of edges: calls alone by default.
    pub kinds: EdgeKinds,
    /// Only those of this caller.
    pub caller: Option<String>,
    /// Only those of this callee.
    pub callee: Option<String>,
    /// Up to so many calls over all edges quantiles are exact, which reads their spans.
    pub exact_calls_max: u64,
}

impl DependencyQuery {
    /// All calls that start in `range`.
    pub fn calls_in(range: TimeRange) -> Self {
        Self {
            range,
            kinds: EdgeKinds::CALLS,
            caller: None,
            callee: None,
            exact_calls_max: EXACT_CALLS_MAX_DEFAULT,
        }
    }

    /// The graph as of a past minute: all calls that start in whole minutes, from `look_back` before the
    /// end of the minute that holds `moment` up to that end. `look_back` is at least a minute.
    pub fn as_of(moment: Timestamp, look_back: Duration) -> Self {
        let minutes = look_back
            .as_nanos()
            .div_ceil(NS_PER_MINUTE.unsigned_abs().into());
        let minutes = i64::try_from(minutes).unwrap_or(i64::MAX).max(1);
        let last = moment.as_nanos().div_euclid(NS_PER_MINUTE);
        let end = last.saturating_add(1).saturating_mul(NS_PER_MINUTE);
        let start = end.saturating_sub(minutes.saturating_mul(NS_PER_MINUTE));
        let end = Timestamp::from_nanos(end.saturating_sub(1));
        let range = TimeRange::new(Timestamp::from_nanos(start).min(end), end);
        Self::calls_in(range.unwrap_or(TimeRange::ALL))
    }

    /// With other kinds of edges.
    #[must_use]
    pub fn of_kinds(self, kinds: EdgeKinds) -> Self {
        Self { kinds, ..self }
    }

    fn filter(&self) -> EdgeFilter {
        EdgeFilter {
            range: self.range,
            kinds: self.kinds,
            caller: self.caller.clone(),
            callee: self.callee.clone(),
        }
    }
}

/// The dependency graph of a range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dependencies {
    /// By caller, then callee, kind and system.
    pub edges: Vec<Dependency>,
    /// Links in the range whose other end is not stored; 0 if links were not asked for.
    pub unresolved_links: u64,
}

/// One edge.
#[derive(Clone, Debug, PartialEq)]
pub struct Dependency {
    /// What makes it.
    pub kind: EdgeKind,
    /// Service of the parent spans; of the client; of the span that a link points to.
    pub caller: String,
    /// Service of the child spans; the peer that the client names; the service whose span has the link.
    pub callee: String,
    /// Of databases and messaging which system it is, like `postgresql`; else empty.
    pub system: String,
    /// Spans with the status error.
    pub errors: u64,
    /// Of the spans' durations, in ns; `count` is the number of calls. Count, sum and mean are exact.
    pub duration_ns: Statistics,
    /// Whether the other figures of `duration_ns` are exact as well; else they are within 1 %.
    pub exact: bool,
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
    let query = DependencyQuery {
        caller: caller.map(str::to_owned),
        callee: callee.map(str::to_owned),
        ..DependencyQuery::calls_in(range)
    };
    dependency_graph(snapshot, &query, control, memory)
}

/// The edges that a query asks for.
///
/// # Errors
/// When the query is stopped, or memory or another bound runs out.
pub fn dependency_graph(
    snapshot: &Snapshot,
    query: &DependencyQuery,
    control: &QueryControl,
    memory: &mut Memory,
) -> Result<Dependencies, Error> {
    let parts = snapshot.span_parts()?;
    let filter = query.filter();
    let mut booked = Booked::default();
    let mut graphs = Vec::with_capacity(parts.len() + 1);
    let mut calls = 0u64;
    for part in &parts {
        let mut graph = EdgeGraph::new(query.exact_calls_max);
        part.add_edges(&filter, control, &mut graph)?;
        booked.take(&graph, memory)?;
        calls = calls.saturating_add(graph.calls());
        graphs.push(graph);
    }
    if query.kinds.contains(EdgeKind::Link) {
        let mut graph = EdgeGraph::new(query.exact_calls_max);
        graph.add_links(&parts, &filter, control)?;
        booked.take(&graph, memory)?;
        calls = calls.saturating_add(graph.calls());
        graphs.push(graph);
    }
    if calls <= query.exact_calls_max {
        for (part, graph) in parts.iter().zip(&mut graphs) {
            if !graph.has_all_durations() {
                *graph = of_rows(part, &filter, query, control)?;
                booked.take(graph, memory)?;
            }
        }
    }
    let mut whole = EdgeGraph::new(query.exact_calls_max);
    for graph in graphs {
        control.check()?;
        whole.merge(graph);
    }
    let unresolved_links = whole.unresolved_links();
    let exact = whole.has_all_durations();
    let mut edges = Vec::with_capacity(whole.len());
    for edge in whole.into_edges() {
        control.check()?;
        if let Some(duration_ns) = figures::of(&edge, exact) {
            edges.push(Dependency {
                kind: edge.kind,
                caller: edge.caller.to_string(),
                callee: edge.callee.to_string(),
                system: edge.system.to_string(),
                errors: edge.sums.errors(),
                duration_ns,
                exact,
            });
        }
    }
    edges.sort_by(|a, b| key(a).cmp(&key(b)));
    memory.give_back(booked.bytes);
    Ok(Dependencies {
        edges,
        unresolved_links,
    })
}

fn key(edge: &Dependency) -> (&str, &str, EdgeKind, &str) {
    (&edge.caller, &edge.callee, edge.kind, &edge.system)
}

fn of_rows(
    part: &SpanPart,
    filter: &EdgeFilter,
    query: &DependencyQuery,
    control: &QueryControl,
) -> Result<EdgeGraph, Error> {
    let mut graph = EdgeGraph::new(query.exact_calls_max);
    part.add_edges_of_rows(filter, control, &mut graph)?;
    Ok(graph)
}

/// What the graphs of one question take.
#[derive(Default)]
struct Booked {
    bytes: u64,
}

impl Booked {
    fn take(&mut self, graph: &EdgeGraph, memory: &mut Memory) -> Result<(), Error> {
        let bytes = graph.heap_bytes() as u64;
        memory.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_of_a_minute_ends_with_it_and_holds_whole_minutes() {
        let at = |ns| Timestamp::from_nanos(ns);
        let query = DependencyQuery::as_of(at(10 * NS_PER_MINUTE + 5), Duration::from_secs(90));
        assert_eq!(query.range.start(), at(9 * NS_PER_MINUTE));
        assert_eq!(query.range.end(), at(11 * NS_PER_MINUTE - 1));
        let query = DependencyQuery::as_of(Timestamp::MAX, Duration::MAX);
        assert!(query.range.start() < query.range.end());
        let query = DependencyQuery::as_of(Timestamp::MIN, Duration::ZERO);
        assert!(query.range.start() <= query.range.end());
    }
}
