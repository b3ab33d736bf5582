//! The dependency graph over gRPC.

use std::time::Duration;

use rootline_engine::{EdgeKind, EdgeKinds, TimeRange, Timestamp};
use rootline_query::{
    ChangeBounds, Dependency, DependencyChange, DependencyQuery, EdgeFigures, SpanConditions,
    dependency_difference, dependency_graph,
};

use super::{query::Query, request, v1};
use crate::refusal::Refusal;

/// How far a past graph looks back where the request does not say.
const LOOK_BACK_DEFAULT: Duration = Duration::from_hours(1);

const EDGES_METHOD: &str = "child spans whose parent belongs to another service, and peers and links where asked \
                            for; quantiles by selection with linear interpolation, or by histogram where \
                            quantiles_exact is false";

/// Answers `GetDependencies`.
pub(super) fn graph(
    query: &mut Query,
    asked: &v1::GetDependenciesRequest,
) -> Result<v1::GetDependenciesResponse, Refusal> {
    let wanted = wanted(
        asked.range.as_ref(),
        &asked.kinds,
        [&asked.caller, &asked.callee],
        asked.exact_spans_max,
    )?;
    let wanted = match asked.as_of_ns {
        None if asked.lookback_ns > 0 => {
            return Err(Refusal::invalid("lookback_ns needs as_of_ns"));
        }
        None => wanted,
        Some(_) if asked.range.is_some() => {
            return Err(Refusal::invalid("give range or as_of_ns, not both"));
        }
        Some(as_of_ns) => {
            let look_back = match asked.lookback_ns {
                0 => LOOK_BACK_DEFAULT,
                ns => Duration::from_nanos(ns),
            };
            let as_of = DependencyQuery::as_of(Timestamp::from_nanos(as_of_ns), look_back);
            DependencyQuery {
                range: as_of.range,
                ..wanted
            }
        }
    };
    let (snapshot, control) = (&query.snapshot, &query.control);
    let graph = dependency_graph(snapshot, &wanted, control, &mut query.memory)?;
    let mut info = request::span_info(query, wanted.range, EDGES_METHOD);
    info.exact &= graph.edges.iter().all(|edge| edge.exact);
    if graph.edges.is_empty() {
        let conditions = SpanConditions {
            service: wanted.callee.or(wanted.caller),
            ..SpanConditions::default()
        };
        request::where_spans_lie(query, &conditions, &mut info)?;
    }
    Ok(v1::GetDependenciesResponse {
        dependencies: graph.edges.into_iter().map(dependency).collect(),
        info: Some(info),
        unresolved_links: graph.unresolved_links,
    })
}

/// Answers `CompareDependencies`.
pub(super) fn compare(
    query: &mut Query,
    asked: &v1::CompareDependenciesRequest,
) -> Result<v1::CompareDependenciesResponse, Refusal> {
    let bounded = |range: &Option<v1::TimeRange>, name: &str| -> Result<TimeRange, Refusal> {
        let is_bounded = range.is_some_and(|r| r.start_ns.is_some() && r.end_ns.is_some());
        if !is_bounded {
            return Err(Refusal::invalid(format!(
                "{name} needs start_ns and end_ns: calls a second are compared"
            )));
        }
        request::time_range(range.as_ref())
    };
    let (before, after) = (
        bounded(&asked.before, "before")?,
        bounded(&asked.after, "after")?,
    );
    let ends = [&asked.caller, &asked.callee];
    let wanted = wanted(None, &asked.kinds, ends, asked.exact_spans_max)?;
    let default = ChangeBounds::default();
    let share = |asked: Option<f64>, default: f64| match asked {
        None => Ok(default),
        Some(share) if share >= 0.0 => Ok(share),
        Some(share) => Err(Refusal::invalid(format!("{share} is no bound"))),
    };
    let bounds = ChangeBounds {
        calls_share: share(asked.calls_share, default.calls_share)?,
        error_rate: share(asked.error_rate, default.error_rate)?,
        p95_share: share(asked.p95_share, default.p95_share)?,
    };
    let (snapshot, control) = (&query.snapshot, &query.control);
    let memory = &mut query.memory;
    let difference =
        dependency_difference(snapshot, before, after, &wanted, bounds, control, memory)?;
    let mut info = request::span_info(query, after, EDGES_METHOD);
    let lists = [&difference.new, &difference.gone, &difference.changed];
    info.exact &= lists.iter().all(|list| {
        let mut figures = list
            .iter()
            .flat_map(|c| c.before.iter().chain(c.after.iter()));
        figures.all(|figures| figures.exact)
    });
    info.empty = lists.iter().all(|list| list.is_empty()) && difference.unchanged == 0;
    let changes = |list: Vec<DependencyChange>| list.into_iter().map(change).collect();
    Ok(v1::CompareDependenciesResponse {
        added: changes(difference.new),
        gone: changes(difference.gone),
        changed: changes(difference.changed),
        unchanged: difference.unchanged,
        info: Some(info),
    })
}

fn wanted(
    range: Option<&v1::TimeRange>,
    kinds: &[i32],
    [caller, callee]: [&String; 2],
    exact_spans_max: u64,
) -> Result<DependencyQuery, Refusal> {
    let mut wanted = DependencyQuery::calls_in(request::time_range(range)?);
    let named = |name: &String| (!name.is_empty()).then(|| name.clone());
    (wanted.caller, wanted.callee) = (named(caller), named(callee));
    if exact_spans_max > 0 {
        wanted.exact_calls_max = exact_spans_max;
    }
    if kinds.is_empty() {
        return Ok(wanted);
    }
    let kinds = kinds.iter().map(|&kind| {
        Ok(match v1::DependencyKind::try_from(kind) {
            Ok(v1::DependencyKind::Call) => EdgeKind::Call,
            Ok(v1::DependencyKind::Database) => EdgeKind::Database,
            Ok(v1::DependencyKind::Messaging) => EdgeKind::Messaging,
            Ok(v1::DependencyKind::External) => EdgeKind::External,
            Ok(v1::DependencyKind::Link) => EdgeKind::Link,
            Err(_) => {
                return Err(Refusal::invalid(format!(
                    "kind {kind} of dependencies is unknown here"
                )));
            }
        })
    });
    Ok(wanted.of_kinds(kinds.collect::<Result<EdgeKinds, _>>()?))
}

fn kind_number(kind: EdgeKind) -> i32 {
    i32::from(match kind {
        EdgeKind::Call => v1::DependencyKind::Call,
        EdgeKind::Database => v1::DependencyKind::Database,
        EdgeKind::Messaging => v1::DependencyKind::Messaging,
        EdgeKind::External => v1::DependencyKind::External,
        EdgeKind::Link => v1::DependencyKind::Link,
    })
}

fn dependency(edge: Dependency) -> v1::Dependency {
    v1::Dependency {
        caller: edge.caller,
        callee: edge.callee,
        calls: edge.duration_ns.count,
        errors: edge.errors,
        mean_ns: edge.duration_ns.mean,
        p50_ns: edge.duration_ns.p50,
        p95_ns: edge.duration_ns.p95,
        p99_ns: edge.duration_ns.p99,
        kind: kind_number(edge.kind),
        peer_system: edge.system,
        quantiles_exact: edge.exact,
    }
}

fn change(change: DependencyChange) -> v1::DependencyChange {
    v1::DependencyChange {
        kind: kind_number(change.kind),
        caller: change.caller,
        callee: change.callee,
        peer_system: change.system,
        before: change.before.as_ref().map(figures),
        after: change.after.as_ref().map(figures),
    }
}

fn figures(figures: &EdgeFigures) -> v1::EdgeFigures {
    v1::EdgeFigures {
        calls: figures.calls,
        calls_per_s: figures.calls_per_s,
        errors: figures.errors,
        error_rate: figures.error_rate,
        mean_ns: figures.mean_ns,
        p95_ns: figures.p95_ns,
        quantiles_exact: figures.exact,
    }
}
