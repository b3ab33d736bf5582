//! Searching traces by a span in them: the newest first, page by page.
//!
//! The order is that of (trace start, trace id), both falling, where a trace's start is the earliest
//! start of *all* its spans, whether they match or not. Pages are exact in that order:
//!
//! 1. A scan over the spans gathers each trace with a match, the number of its matches, and the
//!    earliest start among them: the trace itself starts no later. 32 bytes a trace, booked on the budget.
//! 2. Candidates are taken by that bound, newest first. The start of each is looked up until the page
//!    is full and no bound left can beat its last entry; so about a page of traces is looked up.
//!
//! Later pages read the spans as of the first page's snapshot, from the place that the token names.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    ops::ControlFlow,
};

use rootline_engine::{QueryControl, Snapshot, TimeRange, Timestamp, TraceId, TraceSummary};

use crate::{error::Error, memory::Memory, page_token::PageToken, span_conditions::SpanConditions};

/// Most traces in one page.
pub const FOUND_TRACES_MAX: usize = 1_000;

/// What a candidate costs in the map of candidates, with the map's own overhead.
const CANDIDATE_BYTES: u64 = 64;

/// A page.
#[derive(Clone, Debug)]
pub struct FoundTraces {
    /// Newest first.
    pub traces: Vec<FoundTrace>,
    /// For the next page; `None` if this is the last.
    pub next: Option<String>,
    /// The snapshot that all pages show.
    pub lsn: rootline_engine::Lsn,
}

/// A trace found.
#[derive(Clone, Debug)]
pub struct FoundTrace {
    /// The trace in one line.
    pub summary: TraceSummary,
    /// Its spans that met all conditions.
    pub matched_spans: u64,
}

/// At most `limit` (1 to [`FOUND_TRACES_MAX`]) traces with a span that starts in `range` and meets
/// `conditions`, from `page_token` on (empty: from the newest).
///
/// # Errors
/// [`Error::PageToken`] for a token of something else; when a condition is wrong, the query is
/// stopped, or memory or another bound runs out.
pub fn find_traces(
    snapshot: &Snapshot,
    conditions: &SpanConditions,
    range: TimeRange,
    limit: usize,
    page_token: &str,
    control: &QueryControl,
    memory: &mut Memory,
) -> Result<FoundTraces, Error> {
    let filter = conditions.filter(range)?;
    let fingerprint = conditions.fingerprint(range);
    let after = match page_token {
        "" => None,
        text => Some(PageToken::decode(text, fingerprint.as_bytes())?),
    };
    // A token of the future came from another store or a restored one.
    if after.is_some_and(|token| token.lsn > snapshot.lsn()) {
        return Err(Error::PageToken {
            found: page_token.chars().take(80).collect(),
        });
    }
    let lsn = after.map_or_else(|| snapshot.lsn(), |token| token.lsn);
    let pages = snapshot.spans_as_of(lsn);

    let mut candidates: HashMap<TraceId, Candidate> = HashMap::new();
    let mut refused = None;
    pages.scan_spans(&filter, control, &mut |hit| {
        if let Some(known) = candidates.get_mut(&hit.trace_id) {
            known.start_bound = known.start_bound.min(hit.start);
            known.matched_spans += 1;
        } else {
            if let Err(error) = memory.take(CANDIDATE_BYTES) {
                refused = Some(error);
                return Ok(ControlFlow::Break(()));
            }
            let candidate = Candidate {
                start_bound: hit.start,
                matched_spans: 1,
            };
            candidates.insert(hit.trace_id, candidate);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(error) = refused {
        return Err(error);
    }

    let after = after.map(|token| (token.start, token.trace_id));
    let limit = limit.clamp(1, FOUND_TRACES_MAX);
    let mut page = newest(&candidates, limit + 1, after, |id| {
        control.check()?;
        Ok(pages.trace_summary(id, control)?)
    })?;
    let next = (page.len() > limit).then(|| {
        page.truncate(limit);
        page.last().map(|found| {
            let token = PageToken {
                lsn,
                start: found.summary.start,
                trace_id: found.summary.id,
            };
            token.encode(fingerprint.as_bytes())
        })
    });
    Ok(FoundTraces {
        traces: page,
        next: next.flatten(),
        lsn: pages.lsn(),
    })
}

/// What the scan learned of a trace.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// The trace starts no later.
    start_bound: Timestamp,
    matched_spans: u64,
}

/// The newest `wanted` candidates below `after`, newest first.
fn newest(
    candidates: &HashMap<TraceId, Candidate>,
    wanted: usize,
    after: Option<(Timestamp, TraceId)>,
    mut look_up: impl FnMut(TraceId) -> Result<Option<TraceSummary>, Error>,
) -> Result<Vec<FoundTrace>, Error> {
    let mut by_bound: BinaryHeap<(Timestamp, TraceId)> = candidates
        .iter()
        .map(|(id, c)| (c.start_bound, *id))
        .collect();
    // The least of the page stands on top.
    let mut page: BinaryHeap<Reverse<(Timestamp, TraceId)>> = BinaryHeap::new();
    let mut summaries: HashMap<TraceId, TraceSummary> = HashMap::new();
    while let Some((bound, id)) = by_bound.pop() {
        let full = page.len() >= wanted;
        if full && page.peek().is_some_and(|Reverse(least)| bound < least.0) {
            break;
        }
        let Some(summary) = look_up(id)? else {
            continue;
        };
        let place = (summary.start, id);
        if after.is_some_and(|after| place >= after) {
            continue;
        }
        if full {
            match page.peek() {
                Some(Reverse(least)) if place > *least => {
                    summaries.remove(&least.1);
                    page.pop();
                }
                _ => continue,
            }
        }
        page.push(Reverse(place));
        summaries.insert(id, summary);
    }
    let mut places: Vec<(Timestamp, TraceId)> = page.into_iter().map(|Reverse(p)| p).collect();
    places.sort_unstable_by(|a, b| b.cmp(a));
    Ok(places
        .into_iter()
        .filter_map(|(_, id)| {
            let matched_spans = candidates.get(&id)?.matched_spans;
            Some(FoundTrace {
                summary: summaries.remove(&id)?,
                matched_spans,
            })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn summary(id: TraceId, start: i64) -> TraceSummary {
        TraceSummary {
            id,
            root_service: "s".into(),
            root_name: "n".into(),
            root_is_orphan: false,
            start: Timestamp::from_nanos(start),
            end: Timestamp::from_nanos(start),
            spans: 1,
            errors: 0,
            services: Vec::new(),
        }
    }

    proptest! {
        /// Page after page against sorting everything; matches start up to 20 ns after their trace.
        #[test]
        fn pages_agree_with_a_sorted_list(
            traces in prop::collection::vec((0i64..30, 0i64..20), 0..40),
            size in 1usize..8,
        ) {
            let id = |i: usize| TraceId::from_slice(&(i as u128 + 1).to_be_bytes()).unwrap();
            let starts: HashMap<TraceId, i64> =
                traces.iter().enumerate().map(|(i, t)| (id(i), t.0)).collect();
            let candidates: HashMap<TraceId, Candidate> = traces
                .iter()
                .enumerate()
                .map(|(i, t)| {
                    let start_bound = Timestamp::from_nanos(t.0 + t.1);
                    (id(i), Candidate { start_bound, matched_spans: 1 })
                })
                .collect();
            let mut expected: Vec<_> =
                starts.iter().map(|(id, start)| (Timestamp::from_nanos(*start), *id)).collect();
            expected.sort_by(|a, b| b.cmp(a));

            let mut found = Vec::new();
            loop {
                let look_up = |id| Ok(Some(summary(id, starts[&id])));
                let page = newest(&candidates, size, found.last().copied(), look_up).unwrap();
                let last = page.len() < size;
                found.extend(page.into_iter().map(|t| (t.summary.start, t.summary.id)));
                if last {
                    break;
                }
            }
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn about_a_page_of_traces_is_looked_up() {
        let id = |i: i64| TraceId::from_slice(&i128::from(i + 1).to_be_bytes()).unwrap();
        let candidates: HashMap<TraceId, Candidate> = (0..10_000)
            .map(|i| {
                let start_bound = Timestamp::from_nanos(i);
                (
                    id(i),
                    Candidate {
                        start_bound,
                        matched_spans: 2,
                    },
                )
            })
            .collect();
        let mut looked_up = 0;
        let page = newest(&candidates, 20, None, |id| {
            looked_up += 1;
            let number = i64::try_from(i128::from_be_bytes(*id.as_bytes())).unwrap();
            Ok(Some(summary(id, number - 4)))
        })
        .unwrap();
        assert_eq!((page.len(), page[0].matched_spans), (20, 2));
        assert!(looked_up <= 25, "{looked_up} look-ups");
    }
}
