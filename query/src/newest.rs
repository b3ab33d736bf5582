//! The newest traces with spans of a set, in the order of (trace start, trace id), both falling, where
//! a trace's start is the earliest start of *all* its spans, whether they match or not.
//!
//! 1. Parts are asked by their latest start, the newest first. A part all of whose spans start before
//!    the last trace of a full page has nothing for it, nor has any part after it.
//! 2. What a part's own order answers (conditions on single spans) is left to it.
//! 3. Else the set is computed for the spans that start at `since` or later, with `since` moving back as
//!    far as what was found so far lets expect it has to: at last to the beginning. A trace that starts there has all its matches there: the answer about such
//!    traces is whole, and the walk ends when they fill the page.
//! 4. Of the traces found only the earliest match is known, and the trace starts no later. They are
//!    looked up by that bound, newest first, until none left can have a place on the page.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use rootline_engine::{QueryControl, Snapshot, SpanPart, SpanRows, TimeRange, Timestamp, TraceId};

use crate::{
    error::Error,
    memory::Memory,
    span_set::{Evaluation, SpanSet, may_start_in, pieces},
};

/// Parts of fewer spans are not cut in time: it would save nothing.
const CUT_SPANS_MIN: u64 = if cfg!(test) { 3 } else { 64 * 1024 };
/// A part's time in shares: the first look is at the newest one.
const WHOLE: u64 = 64;
/// What a trace costs in the table of matches, with the table's own overhead.
const MATCHES_BYTES: u64 = 48;

/// Where a trace stands: its start, then its id.
pub(crate) type Place = (Timestamp, TraceId);

/// A trace with matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    pub(crate) place: Place,
    /// Which of [`Found::parts`].
    pub(crate) part: usize,
    /// Its number there.
    pub(crate) trace: u32,
    /// Spans of the set.
    pub(crate) matched: u64,
}

/// What was found.
pub(crate) struct Found {
    /// The parts asked, the newest first.
    pub(crate) parts: Vec<SpanPart>,
    /// Newest first.
    pub(crate) traces: Vec<Candidate>,
    /// With [`Wanted::rows`], by part: rows of the set, all of those of the traces found among them.
    pub(crate) rows: Vec<SpanRows>,
}

/// How much is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Only traces below this place; or at it, if `again`.
    pub(crate) before: Option<Place>,
    /// Whether the trace at `before` is shown again. It does not count for `enough`.
    pub(crate) again: bool,
    /// The newest traces that come to this together: each counts for one, or with `rows` for as many
    /// as it has matches.
    pub(crate) enough: u64,
    /// Whether the rows of the set are wanted as well.
    pub(crate) rows: bool,
}

impl Wanted {
    fn takes(&self, place: Place) -> bool {
        self.before
            .is_none_or(|before| place < before || (self.again && place == before))
    }

    fn weight(&self, candidate: &Candidate) -> u64 {
        match self.before {
            Some(before) if before == candidate.place => 0,
            _ if self.rows => candidate.matched,
            _ => 1,
        }
    }
}

/// The newest traces with a span of `set` that starts in `range`: as many as it takes to have enough,
/// no more. What the rows take stays booked.
pub(crate) fn newest_traces(
    snapshot: &Snapshot,
    set: &SpanSet,
    range: TimeRange,
    wanted: Wanted,
    control: &QueryControl,
    memory: &mut Memory,
) -> Result<Found, Error> {
    let mut parts = snapshot.span_parts()?;
    parts.retain(|part| may_start_in(part, range));
    let latest = |part: &SpanPart| part.start_bounds().map(TimeRange::end);
    parts.sort_by_key(|part| Reverse(latest(part)));
    let mut page = Page::new(wanted);
    let mut rows = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        control.check()?;
        if latest(part).is_none_or(|latest| page.has_no_room_at(latest)) {
            break;
        }
        let mut search = PartSearch {
            part,
            number,
            control,
            memory,
        };
        match set.filter(range) {
            Some(filter) if !wanted.rows => {
                let limit = usize::try_from(wanted.enough).unwrap_or(usize::MAX);
                for found in part.newest_traces(&filter, wanted.before, limit, control)? {
                    page.offer(Candidate {
                        place: (found.start, found.id),
                        part: number,
                        trace: found.trace,
                        matched: found.matched,
                    });
                }
            }
            _ => {
                let found = search.walk_back(set, range, &mut page)?;
                if wanted.rows {
                    rows.push(found);
                } else {
                    search.evaluation().free(found);
                }
            }
        }
    }
    Ok(Found {
        traces: page.into_traces(),
        parts,
        rows,
    })
}

/// The traces found so far that have a place on the page.
struct Page {
    wanted: Wanted,
    /// The last one stands on top.
    kept: BinaryHeap<Reverse<Candidate>>,
    weight: u64,
}

impl Page {
    fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            kept: BinaryHeap::new(),
            weight: 0,
        }
    }

    fn offer(&mut self, candidate: Candidate) {
        if self.is_full_before(candidate.place) {
            return;
        }
        self.weight += self.wanted.weight(&candidate);
        self.kept.push(Reverse(candidate));
        while let Some(Reverse(last)) = self.kept.peek() {
            let less = self.weight - self.wanted.weight(last);
            if less < self.wanted.enough {
                break;
            }
            self.weight = less;
            self.kept.pop();
        }
    }

    fn last(&self) -> Option<Place> {
        let full = self.weight >= self.wanted.enough;
        let last = self.kept.peek().filter(|_| full);
        last.map(|Reverse(candidate)| candidate.place)
    }

    /// What the page lacks until it is full.
    fn missing(&self) -> u64 {
        self.wanted.enough.saturating_sub(self.weight)
    }

    fn is_full_before(&self, place: Place) -> bool {
        self.last().is_some_and(|last| place < last)
    }

    /// Whether no trace that starts at `start` or before it can have a place.
    fn has_no_room_at(&self, start: Timestamp) -> bool {
        self.last().is_some_and(|last| start < last.0)
    }

    fn into_traces(self) -> Vec<Candidate> {
        let mut traces: Vec<Candidate> = self.kept.into_iter().map(|Reverse(c)| c).collect();
        traces.sort_unstable_by(|a, b| b.cmp(a));
        traces
    }
}

/// The search in one part.
struct PartSearch<'a> {
    part: &'a SpanPart,
    number: usize,
    control: &'a QueryControl,
    memory: &'a mut Memory,
}

/// What is known of a trace before it is looked up.
#[derive(Clone, Copy, Debug)]
struct Matches {
    /// Earliest start among them, in ns: the trace starts no later.
    start_ns: i64,
    count: u64,
}

impl PartSearch<'_> {
    fn evaluation(&mut self) -> Evaluation<'_> {
        Evaluation {
            part: self.part,
            control: self.control,
            memory: self.memory,
        }
    }

    /// Offers the part's traces to the page; returns the rows computed, which stay booked.
    fn walk_back(
        &mut self,
        set: &SpanSet,
        range: TimeRange,
        page: &mut Page,
    ) -> Result<SpanRows, Error> {
        let Some(bounds) = self.part.start_bounds() else {
            return Ok(SpanRows::new());
        };
        let mut rows = SpanRows::new();
        // Traces that start here or later have been offered.
        let mut offered: Option<Timestamp> = None;
        let mut share = if self.part.spans() < CUT_SPANS_MIN {
            WHOLE
        } else {
            1
        };
        loop {
            let since = since(bounds, range, page.wanted.before, share);
            let mut found = 0;
            if let Ok(cut) = TimeRange::new(range.start().max(since), range.end()) {
                self.evaluation().free(rows);
                rows = self.evaluation().rows(set, cut)?;
                found = self.offer(&rows, since, offered, page)?;
            }
            if share >= WHOLE || page.has_no_room_at(since.saturating_add_ns(-1)) {
                return Ok(rows);
            }
            offered = Some(since);
            share = next_share(share, found, page.missing());
        }
    }

    /// Offers the traces of `rows` that start at `since` or later, and before `offered`; returns what
    /// they come to.
    fn offer(
        &mut self,
        rows: &SpanRows,
        since: Timestamp,
        offered: Option<Timestamp>,
        page: &mut Page,
    ) -> Result<u64, Error> {
        let before = self.memory.used_bytes();
        let matches = self.matches(rows)?;
        let mut by_bound: BinaryHeap<(i64, u32)> = matches
            .iter()
            .map(|(&trace, matches)| (matches.start_ns, trace))
            .collect();
        let mut looked_up = 0u32;
        let mut found = 0;
        while let Some((bound, trace)) = by_bound.pop() {
            let bound = Timestamp::from_nanos(bound);
            if bound < since || page.has_no_room_at(bound) {
                break;
            }
            looked_up = looked_up.wrapping_add(1);
            if looked_up.is_multiple_of(1024) {
                self.control.check()?;
            }
            let start = self.part.trace_start(trace)?;
            if start < since || offered.is_some_and(|offered| start >= offered) {
                continue;
            }
            let candidate = Candidate {
                place: (start, self.part.trace_id(trace)?),
                part: self.number,
                trace,
                matched: matches.get(&trace).map_or(0, |matches| matches.count),
            };
            if page.wanted.takes(candidate.place) {
                found += page.wanted.weight(&candidate);
                page.offer(candidate);
            }
        }
        let taken = self.memory.used_bytes() - before;
        self.memory.give_back(taken);
        Ok(found)
    }

    /// By trace, what `rows` tell of it. The table stays booked.
    fn matches(&mut self, rows: &SpanRows) -> Result<HashMap<u32, Matches>, Error> {
        let mut found: HashMap<u32, Matches> = HashMap::new();
        let (mut traces, mut starts) = (Vec::new(), Vec::new());
        for piece in pieces(rows) {
            traces.clear();
            starts.clear();
            self.part.traces(&piece, self.control, &mut traces)?;
            self.part.starts(&piece, self.control, &mut starts)?;
            let known = found.len();
            let of_rows = traces.iter().zip(&starts);
            // Rows of a trace often follow each other: they are one look at the table.
            let mut run: Option<(u32, Matches)> = None;
            let mut put = |(trace, more): (u32, Matches)| {
                let matches = found.entry(trace).or_insert(Matches { count: 0, ..more });
                matches.count += more.count;
                matches.start_ns = matches.start_ns.min(more.start_ns);
            };
            for (&trace, &start_ns) in of_rows {
                match &mut run {
                    Some((same, matches)) if *same == trace => {
                        matches.count += 1;
                        matches.start_ns = matches.start_ns.min(start_ns);
                    }
                    other => {
                        if let Some(ended) = other.replace((trace, Matches { start_ns, count: 1 }))
                        {
                            put(ended);
                        }
                    }
                }
            }
            if let Some(last) = run {
                put(last);
            }
            self.memory
                .take((found.len() - known) as u64 * MATCHES_BYTES)?;
        }
        Ok(found)
    }
}

/// From when on spans are looked at, for so many shares of a part's time; of the whole, from the
/// beginning.
fn since(bounds: TimeRange, range: TimeRange, before: Option<Place>, share: u64) -> Timestamp {
    if share >= WHOLE {
        return Timestamp::MIN;
    }
    let newest = bounds.end().min(range.end());
    let newest = before.map_or(newest, |before| newest.min(before.0));
    let oldest = bounds.start().max(range.start());
    let (newest, oldest) = (i128::from(newest.as_nanos()), i128::from(oldest.as_nanos()));
    let length = (newest - oldest).max(0);
    let ns = newest - length * i128::from(share) / i128::from(WHOLE);
    i64::try_from(ns).map_or(Timestamp::MIN, Timestamp::from_nanos)
}

/// How many shares to look at next, after `share` of them came to `found` and `missing` is wanted more:
/// twice what should do, or everything if that is much of it or nothing is known.
fn next_share(share: u64, found: u64, missing: u64) -> u64 {
    let wanted = missing
        .saturating_add(found)
        .saturating_mul(2 * share)
        .checked_div(found);
    match wanted.map(|wanted| wanted.max(2 * share)) {
        Some(wanted) if wanted <= WHOLE / 4 => wanted,
        _ => WHOLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_look_is_as_far_back_as_it_has_to_be() {
        // A quarter of what is wanted in one share: twice four shares.
        assert_eq!(next_share(1, 5, 15), 8);
        assert_eq!(next_share(1, 20, 0), 2);
        assert_eq!(next_share(1, 1, 20), WHOLE);
        assert_eq!(next_share(1, 0, 20), WHOLE);
        assert_eq!(next_share(16, 10, u64::MAX), WHOLE);
    }
}
