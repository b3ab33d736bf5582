//! How the spans of a trace hang together, and where its time went.
//!
//! Definitions, with a span's interval being `[start, end)`:
//! - **Rows** stand in depth-first preorder; roots, and the children of a span, in the trace's own order
//!   (start, span id, content). The parents are the engine's: they form a forest.
//! - **Own time of a span**: its duration less the length of the union of its children's intervals,
//!   each clipped to the span. A child that starts before its parent or ends after it (clocks differ)
//!   counts only where the parent ran.
//! - **Own time of a service**: the sum over its spans. Spans that ran side by side each count.
//! - **Inclusive time of a service**: the length of the union of its spans' intervals: for how long at
//!   least one of them ran. Calls to other services made meanwhile are inside.
//!
//! All walks are iterative: a trace may be as deep as it has spans.

use std::collections::HashMap;

use rootline_engine::{CHECK_ROWS, QueryControl, StatusCode, Timestamp, Trace};

use crate::{error::Error, memory::Memory};

/// The tree of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceTree {
    /// In depth-first preorder, one for each span.
    pub rows: Vec<TreeRow>,
    /// Earliest start.
    pub start: Timestamp,
    /// Latest end.
    pub end: Timestamp,
    /// Services by own time, the largest first, then by name.
    pub services: Vec<ServiceTime>,
}

/// A span's place in the tree and on the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeRow {
    /// Its index in [`Trace::spans`].
    pub span: usize,
    /// Row of its parent; `None` for a root.
    pub parent_row: Option<usize>,
    /// Steps to its root.
    pub depth: u32,
    /// Rows below this one that descend from it.
    pub descendants: u64,
    /// Start relative to the trace's.
    pub offset_ns: u64,
    /// End minus start.
    pub duration_ns: u64,
    /// Part of the duration during which none of its children ran.
    pub own_ns: u64,
}

/// Time that a trace spent in one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTime {
    /// The service.
    pub service: String,
    /// Its spans.
    pub spans: u64,
    /// Its spans with the status error.
    pub errors: u64,
    /// Sum of its spans' own times.
    pub own_ns: u64,
    /// Length of the union of its spans' intervals.
    pub inclusive_ns: u64,
}

impl TraceTree {
    /// The tree of `trace`.
    ///
    /// # Errors
    /// When the query is stopped or memory runs out.
    pub fn of(trace: &Trace, control: &QueryControl, memory: &mut Memory) -> Result<Self, Error> {
        let intervals = Memory::take(
            memory,
            (trace.spans.len() * (size_of::<Interval>() + size_of::<TreeRow>() + 24)) as u64,
        )
        .map(|()| {
            trace
                .spans
                .iter()
                .map(|s| Interval {
                    start: s.start.as_nanos(),
                    end: s.end.as_nanos(),
                })
                .collect::<Vec<_>>()
        })?;
        control.check()?;
        let rows = rows(&intervals, &trace.parents, control)?;
        let start = intervals.iter().map(|i| i.start).min().unwrap_or(0);
        let end = intervals
            .iter()
            .map(|i| i.end)
            .max()
            .unwrap_or(0)
            .max(start);
        let services = services(trace, &intervals, &rows);
        Ok(Self {
            rows,
            start: Timestamp::from_nanos(start),
            end: Timestamp::from_nanos(end),
            services,
        })
    }

    /// From the earliest start to the latest end.
    pub fn duration_ns(&self) -> u64 {
        self.end.as_nanos().abs_diff(self.start.as_nanos())
    }
}

/// `[start, end)` in ns; a span that ends before it starts has no length.
#[derive(Clone, Copy, Debug)]
struct Interval {
    start: i64,
    end: i64,
}

impl Interval {
    fn length(self) -> u64 {
        if self.end > self.start {
            self.end.abs_diff(self.start)
        } else {
            0
        }
    }

    fn clipped_to(self, other: Self) -> Self {
        Self {
            start: self.start.max(other.start),
            end: self.end.min(other.end),
        }
    }
}

/// The growing union of intervals that come in order of their start.
#[derive(Default)]
struct Union {
    length: u64,
    end: Option<i64>,
}

impl Union {
    fn add(&mut self, interval: Interval) {
        let from = self
            .end
            .map_or(interval.start, |end| end.max(interval.start));
        self.length += Interval {
            start: from,
            end: interval.end,
        }
        .length();
        self.end = Some(self.end.map_or(interval.end, |end| end.max(interval.end)));
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "every index is a span's or row's number below the length that the arrays were made with; \
              parents beyond it are taken for roots"
)]
fn rows(
    intervals: &[Interval],
    parents: &[Option<u32>],
    control: &QueryControl,
) -> Result<Vec<TreeRow>, Error> {
    let n = intervals.len();
    let parent_of = |span: usize| {
        let parent = parents.get(span).copied().flatten()?;
        usize::try_from(parent).ok().filter(|&p| p < n && p != span)
    };
    // Children side by side, in the trace's order: counted, then placed.
    let mut first_child = vec![0usize; n + 1];
    for span in 0..n {
        if let Some(parent) = parent_of(span) {
            first_child[parent + 1] += 1;
        }
    }
    for span in 0..n {
        first_child[span + 1] += first_child[span];
    }
    let mut next_place = first_child.clone();
    let mut children = vec![0usize; first_child[n]];
    for span in 0..n {
        if let Some(parent) = parent_of(span) {
            children[next_place[parent]] = span;
            next_place[parent] += 1;
        }
    }

    let trace_start = intervals.iter().map(|i| i.start).min().unwrap_or(0);
    let mut rows: Vec<TreeRow> = Vec::with_capacity(n);
    let mut stack: Vec<(usize, Option<usize>, u32)> = (0..n)
        .rev()
        .filter(|&s| parent_of(s).is_none())
        .map(|s| (s, None, 0))
        .collect();
    while let Some((span, parent_row, depth)) = stack.pop() {
        if rows.len().is_multiple_of(CHECK_ROWS) {
            control.check()?;
        }
        let interval = intervals[span];
        let below = &children[first_child[span]..first_child[span + 1]];
        // Children stand in order of their start, so their union grows in one pass.
        let mut covered = Union::default();
        for &child in below {
            covered.add(intervals[child].clipped_to(interval));
        }
        let row = rows.len();
        stack.extend(
            below
                .iter()
                .rev()
                .map(|&child| (child, Some(row), depth + 1)),
        );
        rows.push(TreeRow {
            span,
            parent_row,
            depth,
            descendants: 0,
            offset_ns: interval.start.abs_diff(trace_start),
            duration_ns: interval.length(),
            own_ns: interval.length().saturating_sub(covered.length),
        });
    }
    // In preorder a row stands after its parent: from the end, each is complete when it is added.
    for row in (0..rows.len()).rev() {
        let subtree = rows[row].descendants + 1;
        if let Some(parent) = rows[row].parent_row {
            rows[parent].descendants += subtree;
        }
    }
    Ok(rows)
}

fn services(trace: &Trace, intervals: &[Interval], rows: &[TreeRow]) -> Vec<ServiceTime> {
    let mut found: HashMap<&str, (ServiceTime, Union)> = HashMap::new();
    let mut own_of_span = vec![0u64; intervals.len()];
    for row in rows {
        if let Some(own) = own_of_span.get_mut(row.span) {
            *own = row.own_ns;
        }
    }
    // In the trace's order: spans come by start, as the unions ask.
    for ((span, interval), own_ns) in trace.spans.iter().zip(intervals).zip(own_of_span) {
        let (time, union) = found.entry(span.service()).or_insert_with(|| {
            let time = ServiceTime {
                service: span.service().to_owned(),
                spans: 0,
                errors: 0,
                own_ns: 0,
                inclusive_ns: 0,
            };
            (time, Union::default())
        });
        time.spans += 1;
        time.errors += u64::from(span.status == StatusCode::Error);
        time.own_ns = time.own_ns.saturating_add(own_ns);
        union.add(*interval);
    }
    let mut services: Vec<ServiceTime> = found
        .into_values()
        .map(|(time, union)| ServiceTime {
            inclusive_ns: union.length,
            ..time
        })
        .collect();
    services.sort_by(|a, b| {
        b.own_ns
            .cmp(&a.own_ns)
            .then_with(|| a.service.cmp(&b.service))
    });
    services
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rootline_engine::{
        Budget, QueryLimits, Resource, Scope, Span, SpanId, SpanKind, SystemClock, TraceId, Value,
    };

    use super::*;

    /// `(service, start ms, end ms, parent)`
    fn trace(spans: &[(&str, i64, i64, Option<u32>)]) -> Trace {
        let id = TraceId::from_slice(&[1; 16]).unwrap();
        let scope = Arc::new(Scope::default());
        let span = |at: usize, service: &str, start: i64, end: i64| Span {
            trace_id: id,
            span_id: SpanId::new((at as u64 + 1).to_be_bytes()).unwrap(),
            parent_span_id: None,
            trace_state: String::new(),
            flags: 0,
            name: "op".into(),
            kind: SpanKind::Internal,
            start: Timestamp::from_nanos(start),
            end: Timestamp::from_nanos(end),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: Vec::new(),
            dropped_events_count: 0,
            links: Vec::new(),
            dropped_links_count: 0,
            status: StatusCode::Unset,
            status_message: String::new(),
            resource: Arc::new(Resource {
                attributes: vec![("service.name".into(), Value::Str(service.to_owned()))],
                ..Resource::default()
            }),
            scope: Arc::clone(&scope),
        };
        Trace {
            id,
            spans: spans
                .iter()
                .enumerate()
                .map(|(i, s)| span(i, s.0, s.1, s.2))
                .collect(),
            parents: spans.iter().map(|s| s.3).collect(),
        }
    }

    fn tree(trace: &Trace) -> TraceTree {
        let clock = Arc::new(SystemClock::new());
        let control = QueryControl::new(clock, None, QueryLimits::default());
        let mut memory = Memory::new(&Budget::new(1 << 30));
        TraceTree::of(trace, &control, &mut memory).unwrap()
    }

    fn times(tree: &TraceTree, service: &str) -> (u64, u64) {
        let time = tree.services.iter().find(|s| s.service == service).unwrap();
        (time.own_ns, time.inclusive_ns)
    }

    #[test]
    fn time_by_service_of_a_request_through_six_services() {
        let tree = tree(&trace(&[
            ("api-gateway", 0, 350, None),
            ("game-service", 20, 220, Some(0)),
            ("matchmaking", 230, 310, Some(0)),
            ("rating-service", 240, 260, Some(2)),
            ("postgres", 270, 290, Some(2)),
            ("notification", 320, 340, Some(0)),
        ]));
        assert_eq!(tree.duration_ns(), 350);
        assert_eq!(times(&tree, "api-gateway"), (50, 350));
        assert_eq!(times(&tree, "game-service"), (200, 200));
        assert_eq!(times(&tree, "matchmaking"), (40, 80));
        assert_eq!(times(&tree, "rating-service"), (20, 20));
        assert_eq!(times(&tree, "postgres"), (20, 20));
        assert_eq!(times(&tree, "notification"), (20, 20));
        assert_eq!(tree.services[0].service, "game-service");
        let depths: Vec<u32> = tree.rows.iter().map(|row| row.depth).collect();
        assert_eq!(depths, [0, 1, 1, 2, 2, 1]);
        assert_eq!(tree.rows[0].descendants, 5);
        assert_eq!(tree.rows[2].descendants, 2);
        assert_eq!(tree.rows[3].parent_row, Some(2));
        assert_eq!(tree.rows[5].offset_ns, 320);
    }

    #[test]
    fn children_side_by_side_and_beyond_their_parent_count_once_and_clipped() {
        let tree = tree(&trace(&[
            ("a", 0, 100, None),
            ("b", 0, 60, Some(0)),
            ("b", 10, 80, Some(0)),
            ("c", 90, 150, Some(0)),
        ]));
        assert_eq!(tree.rows[0].own_ns, 10, "covered: 0..80 and 90..100");
        assert_eq!(times(&tree, "b"), (130, 80));
        assert_eq!(times(&tree, "c"), (60, 60));
        assert_eq!(tree.duration_ns(), 150);
    }

    #[test]
    fn a_child_before_its_parent_covers_what_it_shares_with_it() {
        let tree = tree(&trace(&[("b", 0, 30, Some(1)), ("a", 20, 100, None)]));
        let spans: Vec<usize> = tree.rows.iter().map(|row| row.span).collect();
        assert_eq!(spans, [1, 0]);
        assert_eq!(tree.rows[0].own_ns, 70);
        assert_eq!(tree.rows[0].offset_ns, 20);
    }

    #[test]
    fn a_chain_as_deep_as_the_trace_has_spans_is_walked() {
        let spans: Vec<_> = (0..50_000u32)
            .map(|i| ("a", i64::from(i), 100_000 - i64::from(i), i.checked_sub(1)))
            .collect();
        let tree = tree(&trace(&spans));
        assert_eq!(tree.rows.last().unwrap().depth, 49_999);
        assert_eq!(tree.rows[0].descendants, 49_999);
    }

    fn covered_at(
        spans: &[(&str, i64, i64, Option<u32>)],
        t: i64,
        keep: impl Fn(usize) -> bool,
    ) -> bool {
        spans
            .iter()
            .enumerate()
            .any(|(i, s)| keep(i) && s.1 <= t && t < s.2)
    }

    proptest! {
        /// Against counting every nanosecond.
        #[test]
        fn times_agree_with_a_naive_twin(
            spans in prop::collection::vec((0..3usize, 0i64..60, 0i64..40, any::<u32>()), 1..12),
        ) {
            let names = ["a", "b", "c"];
            let mut spans: Vec<_> = spans
                .into_iter()
                .map(|(service, start, length, parent)| (names[service], start, start + length, parent))
                .collect();
            spans.sort_by_key(|s| s.1);
            // A forest: a parent has a lower number in a shuffled order; here simply a lower index or none.
            let spans: Vec<_> = spans
                .iter()
                .enumerate()
                .map(|(i, s)| {
                    let choice = s.3 as usize % (i + 1);
                    (s.0, s.1, s.2, (choice < i).then(|| u32::try_from(choice).unwrap()))
                })
                .collect();
            let tree = tree(&trace(&spans));

            prop_assert_eq!(tree.rows.len(), spans.len());
            let mut own_of = vec![0u64; spans.len()];
            for (at, row) in tree.rows.iter().enumerate() {
                let (_, start, end, parent) = spans[row.span];
                let child = |i: usize| spans[i].3 == Some(u32::try_from(row.span).unwrap());
                let own = (start..end).filter(|&t| !covered_at(&spans, t, child)).count() as u64;
                prop_assert_eq!(row.own_ns, own);
                own_of[row.span] = own;
                prop_assert_eq!(row.parent_row.map(|p| u32::try_from(tree.rows[p].span).unwrap()), parent);
                prop_assert_eq!(row.depth, row.parent_row.map_or(0, |p| tree.rows[p].depth + 1));
                let below = tree.rows[at + 1..].iter().take_while(|r| r.depth > row.depth).count();
                prop_assert_eq!(row.descendants, below as u64);
            }
            for time in &tree.services {
                let mine = |i: usize| spans[i].0 == time.service;
                let inclusive = (0..100).filter(|&t| covered_at(&spans, t, mine)).count() as u64;
                let own: u64 = own_of.iter().enumerate().filter(|(i, _)| mine(*i)).map(|(_, o)| o).sum();
                prop_assert_eq!((time.own_ns, time.inclusive_ns), (own, inclusive));
            }
        }
    }
}
