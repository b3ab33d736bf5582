//! Searching traces by the spans in them: the newest first, page by page.
//!
//! The order is that of (trace start, trace id), both falling, where a trace's start is the earliest
//! start of *all* its spans, whether they match or not. Pages are exact in that order (`newest.rs`).
//!
//! A page is read from the snapshot it was asked of; its token names the place of its last trace, and
//! the next page has what is below that place then. So, however blocks are sealed, merged or rebuilt
//! meanwhile, a trace that was there all the time and did not change is on exactly one page. What
//! arrives later is found by later pages if its place is below theirs. A trace whose place moves because
//! an earlier span arrives may be shown a second time, as what it is now (decision record 0015).

use rootline_engine::{Lsn, QueryControl, Snapshot, TimeRange, TraceSummary};

use crate::{
    error::Error,
    memory::Memory,
    newest::{Wanted, newest_traces},
    page_token::PageToken,
    span_set::ToSpanSet,
};

/// Most traces in one page.
pub const FOUND_TRACES_MAX: usize = 1_000;

/// A page.
#[derive(Clone, Debug)]
pub struct FoundTraces {
    /// Newest first.
    pub traces: Vec<FoundTrace>,
    /// For the next page; `None` if this is the last.
    pub next: Option<String>,
    /// The snapshot that this page shows.
    pub lsn: Lsn,
}

/// A trace found.
#[derive(Clone, Debug)]
pub struct FoundTrace {
    /// The trace in one line.
    pub summary: TraceSummary,
    /// Its spans that are in the set.
    pub matched_spans: u64,
}

/// At most `limit` (1 to [`FOUND_TRACES_MAX`]) traces with a span of a set that starts in `range`, from
/// `page_token` on (empty: from the newest).
///
/// # Errors
/// [`Error::PageToken`] for a token of something else; when the set is wrong, the query is stopped, or
/// memory or another bound runs out.
pub fn find_traces(
    snapshot: &Snapshot,
    spans: &impl ToSpanSet,
    range: TimeRange,
    limit: usize,
    page_token: &str,
    control: &QueryControl,
    memory: &mut Memory,
) -> Result<FoundTraces, Error> {
    let set = spans.to_span_set()?;
    let fingerprint = set.fingerprint(range);
    let after = PageToken::after(page_token, fingerprint.as_bytes(), snapshot.lsn())?;
    let limit = limit.clamp(1, FOUND_TRACES_MAX);
    let wanted = Wanted {
        before: after.map(|token| (token.start, token.trace_id)),
        again: false,
        enough: limit as u64 + 1,
        rows: false,
    };
    let mut found = newest_traces(snapshot, &set, range, wanted, control, memory)?;
    let more = found.traces.len() > limit;
    found.traces.truncate(limit);
    let last = found.traces.last().map(|trace| trace.place);
    let next = last.filter(|_| more).map(|(start, trace_id)| {
        let token = PageToken {
            lsn: snapshot.lsn(),
            start,
            trace_id,
            span: None,
        };
        token.encode(fingerprint.as_bytes())
    });
    let mut traces = Vec::with_capacity(found.traces.len());
    for trace in &found.traces {
        control.check()?;
        // Every place was given by a part of this list.
        let Some(part) = found.parts.get(trace.part) else {
            continue;
        };
        traces.push(FoundTrace {
            summary: part.summary(trace.trace, control)?,
            matched_spans: trace.matched,
        });
    }
    Ok(FoundTraces {
        traces,
        next,
        lsn: snapshot.lsn(),
    })
}
