//! What is asked of the store: statistics, traces, searches, dependencies, computed over a snapshot.
//!
//! This crate computes. It opens no file, speaks no protocol, starts no thread and reads no clock:
//! data come from a [`Snapshot`](rootline_engine::Snapshot), bounds on time and rows from a
//! [`QueryControl`](rootline_engine::QueryControl), bounds on memory from a [`Memory`].
//!
//! | call | answers |
//! | --- | --- |
//! | [`metric_stats`] | count, sum, min, max, mean, stddev, percentiles of samples, by labels |
//! | [`TraceTree::of`] | how do the spans of a trace hang together, and who spent the time? |
//! | [`SpanSet`] | which spans: conditions, relations, figures, and sets of such sets |
//! | [`find_traces`], [`find_spans`] | which traces have spans of a set, which spans are they? Newest first |
//! | [`count_spans`], [`aggregate_spans`] | how many, how often, how slow, by what, through time? |
//! | [`dependency_graph`] | which service calls which, how often, how slowly, with how many errors? |
//! | [`dependency_difference`] | which of that is new, gone or different between two ranges? |
//! | [`duration_stats`] | statistics of span durations by service or operation |
//! | [`Selector::parse`] | which series does `name{label="value"}` mean? |
#![forbid(unsafe_code)]

mod dependencies;
mod duration_stats;
mod error;
mod find_spans;
mod find_traces;
mod memory;
mod metric_stats;
mod newest;
#[cfg(test)]
mod oracle_test;
mod page_token;
mod selector;
mod span_aggregates;
mod span_conditions;
mod span_set;
mod statistics;
mod text_cursor;
mod trace_tree;

pub use dependencies::{
    ChangeBounds, Dependencies, Dependency, DependencyChange, DependencyDifference,
    DependencyQuery, EXACT_CALLS_MAX_DEFAULT, EdgeFigures, dependencies, dependency_difference,
    dependency_graph,
};
pub use duration_stats::{DurationGroup, DurationStats, GroupSpansBy, duration_stats};
pub use error::Error;
pub use find_spans::{FOUND_SPANS_MAX, FoundSpan, FoundSpans, find_spans};
pub use find_traces::{FOUND_TRACES_MAX, FoundTrace, FoundTraces, find_traces};
pub use memory::Memory;
pub use metric_stats::{
    GroupSamplesBy, MetricStatsGroup, MetricStatsOutcome, STALENESS_MARKER_BITS, metric_stats,
};
pub use page_token::{PageToken, SpanPlace};
pub use selector::{PATTERNS_MAX, Selector, SelectorError};
pub use span_aggregates::{
    SPAN_GROUP_KEYS_MAX, SPAN_GROUPS_DEFAULT, SPAN_QUANTILES_MAX, SPAN_STEPS_MAX, SpanAggregation,
    SpanGroup, SpanGroupKey, SpanMeasure, SpanPoint, TimeFigures, WantedFigures, aggregate_spans,
    count_spans,
};
pub use span_conditions::{SpanConditions, span_starts};
pub use span_set::{
    SPAN_SET_DEPTH_MAX, SPAN_SET_NODES_MAX, SpanFigure, SpanSet, SpanSetError, ToSpanSet,
};
pub use statistics::{Statistics, quantiles};
pub use trace_tree::{ServiceTime, TraceTree, TreeRow};
