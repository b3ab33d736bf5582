//! The spans of a set, as a stream: those of the newest trace first, page by page.
//!
//! The order is that of (trace start, trace id), both falling, and within a trace that of (start, span
//! id) rising; spans that share even those are ordered by a hash of what is shown of them. Only spans
//! that look the same in every field are not told apart, and those are always on one page.
//!
//! Pages go on at a place in that order, as those of traces do (`find_traces.rs`). The spans of a trace
//! are put in order by their starts alone, 16 bytes each, and fetched in pieces: a trace of a million
//! matches is no burden.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use rootline_engine::{
    Lsn, QueryControl, Snapshot, SpanHit, SpanId, SpanKind, SpanPart, SpanRows, StatusCode,
    TimeRange, Timestamp, TraceId,
};

use crate::{
    error::Error,
    memory::Memory,
    newest::{Candidate, Wanted, newest_traces},
    page_token::{PageToken, SpanPlace},
    span_set::{ToSpanSet, pieces},
};

/// Most spans in one page. (A few more if they look the same.)
pub const FOUND_SPANS_MAX: usize = 100_000;
/// Spans of a trace that are fetched at once.
const FETCHED_ROWS: usize = if cfg!(test) { 3 } else { 4 * 1024 };

/// A span found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSpan {
    /// Its trace.
    pub trace_id: TraceId,
    /// Earliest start of the trace.
    pub trace_start: Timestamp,
    /// Its id.
    pub span_id: SpanId,
    /// The id of the span that caused it, as sent.
    pub parent_span_id: Option<SpanId>,
    /// Its service; empty if its resource does not say it.
    pub service: Arc<str>,
    /// Name of the operation.
    pub name: Arc<str>,
    /// The service of its parent; `None` if that is not stored.
    pub parent_service: Option<Arc<str>>,
    /// When it began.
    pub start: Timestamp,
    /// How long it took.
    pub duration_ns: u64,
    /// Role in a call.
    pub kind: SpanKind,
    /// How it ended.
    pub status: StatusCode,
}

/// What became of the question as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSpans {
    /// Spans given.
    pub spans: u64,
    /// For the next page; `None` if this is the last, or if it was ended by who took the spans.
    pub next: Option<String>,
    /// The snapshot that this page shows.
    pub lsn: Lsn,
}

/// Gives `visit` the spans of a set that start in `range`: at most `limit` (1 to [`FOUND_SPANS_MAX`]),
/// from `page_token` on (empty: from the newest trace). `visit` may end the page.
///
/// # Errors
/// [`Error::PageToken`] for a token of something else; when `visit` fails, the set is wrong, the query
/// is stopped, or memory or another bound runs out.
#[expect(
    clippy::too_many_arguments,
    reason = "a question, its place, its bounds and who takes the answer"
)]
pub fn find_spans(
    snapshot: &Snapshot,
    spans: &impl ToSpanSet,
    range: TimeRange,
    limit: usize,
    page_token: &str,
    control: &QueryControl,
    memory: &mut Memory,
    visit: &mut dyn FnMut(FoundSpan) -> Result<ControlFlow<()>, Error>,
) -> Result<FoundSpans, Error> {
    let set = spans.to_span_set()?;
    let fingerprint = format!("spans {}", set.fingerprint(range));
    let after = PageToken::after(page_token, fingerprint.as_bytes(), snapshot.lsn())?;
    let limit = limit.clamp(1, FOUND_SPANS_MAX) as u64;
    let wanted = Wanted {
        before: after.map(|token| (token.start, token.trace_id)),
        again: true,
        enough: limit + 1,
        rows: true,
    };
    let found = newest_traces(snapshot, &set, range, wanted, control, memory)?;
    let rows = rows_of_traces(&found.parts, &found.rows, &found.traces, control, memory)?;
    let mut stream = Stream {
        limit,
        given: 0,
        last: None,
        visit,
    };
    let mut flow = Flow::GoOn;
    for (candidate, rows) in found.traces.iter().zip(rows) {
        let Some(part) = found.parts.get(candidate.part) else {
            continue;
        };
        let shown = after.filter(|token| (token.start, token.trace_id) == candidate.place);
        let shown = shown.and_then(|token| token.span);
        flow = stream.trace(part, candidate, &rows, shown, control, memory)?;
        if !matches!(flow, Flow::GoOn) {
            break;
        }
    }
    let last = stream.last.filter(|_| matches!(flow, Flow::Full));
    let next = last.map(|((start, trace_id), span)| {
        let token = PageToken {
            lsn: snapshot.lsn(),
            start,
            trace_id,
            span: Some(span),
        };
        token.encode(fingerprint.as_bytes())
    });
    Ok(FoundSpans {
        spans: stream.given,
        next,
        lsn: snapshot.lsn(),
    })
}

/// For each trace its rows, out of those of its part.
fn rows_of_traces(
    parts: &[SpanPart],
    rows: &[SpanRows],
    traces: &[Candidate],
    control: &QueryControl,
    memory: &mut Memory,
) -> Result<Vec<Vec<u32>>, Error> {
    let place: HashMap<(usize, u32), usize> = traces
        .iter()
        .enumerate()
        .map(|(place, trace)| ((trace.part, trace.trace), place))
        .collect();
    let mut found: Vec<Vec<u32>> = vec![Vec::new(); traces.len()];
    let mut numbers = Vec::new();
    for ((number, part), rows) in parts.iter().enumerate().zip(rows) {
        for piece in pieces(rows) {
            numbers.clear();
            part.traces(&piece, control, &mut numbers)?;
            for (row, trace) in piece.iter().zip(&numbers) {
                let place = place.get(&(number, *trace));
                if let Some(of_trace) = place.and_then(|&place| found.get_mut(place)) {
                    memory.take_growth(of_trace, 1)?;
                    of_trace.push(row);
                }
            }
        }
    }
    Ok(found)
}

/// How a page goes on after a trace.
enum Flow {
    GoOn,
    /// The page is full and there is more.
    Full,
    /// Whoever takes the spans has enough.
    Ended,
}

struct Stream<'v> {
    limit: u64,
    given: u64,
    /// Place of the last span given.
    last: Option<((Timestamp, TraceId), SpanPlace)>,
    visit: &'v mut dyn FnMut(FoundSpan) -> Result<ControlFlow<()>, Error>,
}

impl Stream<'_> {
    /// Gives the spans of a trace that come after `shown`.
    fn trace(
        &mut self,
        part: &SpanPart,
        trace: &Candidate,
        rows: &[u32],
        shown: Option<SpanPlace>,
        control: &QueryControl,
        memory: &mut Memory,
    ) -> Result<Flow, Error> {
        let before = memory.used_bytes();
        let mut by_start: Vec<(i64, u32)> = Vec::new();
        memory.take_growth(&mut by_start, rows.len())?;
        let mut starts = Vec::new();
        for piece in rows.chunks(FETCHED_ROWS) {
            starts.clear();
            let piece: SpanRows = piece.iter().copied().collect();
            part.starts(&piece, control, &mut starts)?;
            by_start.extend(starts.iter().copied().zip(piece.iter()));
        }
        by_start.sort_unstable();
        if let Some(shown) = shown {
            let start = shown.start.as_nanos();
            let skipped = by_start.partition_point(|&(at, _)| at < start);
            by_start.drain(..skipped);
        }
        let mut left = by_start.as_slice();
        while !left.is_empty() {
            control.check()?;
            let (piece, rest) = left.split_at(whole_starts(left, FETCHED_ROWS));
            left = rest;
            let flow = self.piece(part, trace, piece, shown, control)?;
            if !matches!(flow, Flow::GoOn) {
                return Ok(flow);
            }
        }
        drop(by_start);
        memory.give_back(memory.used_bytes() - before);
        Ok(Flow::GoOn)
    }

    fn piece(
        &mut self,
        part: &SpanPart,
        trace: &Candidate,
        rows: &[(i64, u32)],
        shown: Option<SpanPlace>,
        control: &QueryControl,
    ) -> Result<Flow, Error> {
        let rows: SpanRows = rows.iter().map(|&(_, row)| row).collect();
        let mut spans: Vec<(SpanPlace, FoundSpan)> = part
            .hits(&rows, control)?
            .into_iter()
            .map(|hit| {
                let span = found_span(part, trace, &hit);
                (place_of(&span), span)
            })
            .filter(|(place, _)| shown.is_none_or(|shown| *place > shown))
            .collect();
        spans.sort_unstable_by_key(|(place, _)| *place);
        for (place, span) in spans {
            let at = Some((trace.place, place));
            // What looks the same as the last one belongs to its page.
            if self.given >= self.limit && self.last != at {
                return Ok(Flow::Full);
            }
            self.given += 1;
            self.last = at;
            if (self.visit)(span)?.is_break() {
                return Ok(Flow::Ended);
            }
        }
        Ok(Flow::GoOn)
    }
}

/// How many of `rows`, sorted by start, to take for about `wanted`, so that no start is torn apart.
fn whole_starts(rows: &[(i64, u32)], wanted: usize) -> usize {
    match rows.get(wanted) {
        Some(&(start, _)) => {
            let below = rows.partition_point(|&(at, _)| at < start);
            if below > 0 {
                below
            } else {
                rows.partition_point(|&(at, _)| at <= start)
            }
        }
        None => rows.len(),
    }
}

fn found_span(part: &SpanPart, trace: &Candidate, hit: &SpanHit) -> FoundSpan {
    FoundSpan {
        trace_id: hit.trace_id,
        trace_start: trace.place.0,
        span_id: hit.span_id,
        parent_span_id: hit.parent_span_id,
        service: part.symbol(hit.service),
        name: part.symbol(hit.name),
        parent_service: hit.parent_service.map(|service| part.symbol(service)),
        start: hit.start,
        duration_ns: hit.duration_ns,
        kind: hit.kind,
        status: hit.status,
    }
}

fn place_of(span: &FoundSpan) -> SpanPlace {
    let parent = span.parent_span_id.map_or([0; 8], |id| *id.as_bytes());
    let parent_service = span.parent_service.as_deref();
    let codes = [
        u8::try_from(span.kind.number()).unwrap_or_default(),
        u8::try_from(span.status.number()).unwrap_or_default(),
        u8::from(parent_service.is_some()),
    ];
    // What ends a text is in no other text, so that texts do not run into each other.
    let shown = [
        parent.as_slice(),
        &span.duration_ns.to_be_bytes(),
        &codes,
        span.service.as_bytes(),
        &[0xff],
        span.name.as_bytes(),
        &[0xff],
        parent_service.unwrap_or_default().as_bytes(),
    ];
    SpanPlace {
        start: span.start,
        span_id: span.span_id,
        hash: crate::page_token::hash(shown.into_iter().flatten()),
    }
}
