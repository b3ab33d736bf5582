//! The rows of one part that are in a set and start in a range.
//!
//! How
//! 1. Conditions on single spans that stand together (`and`, bounds on durations) are one question to
//!    the part, which knows its columns.
//! 2. `and` asks its plain side first and hands what was found to the others as candidates; so does
//!    `minus`. No candidates: nothing else is looked at. Few of them: their classes and durations are
//!    looked up, and what else is asked only where they lie.
//! 3. A relation is walked from the side that is smaller. With few candidates their relatives are
//!    found first, and the other set is asked only between the earliest and the latest start among
//!    those; else the other set is computed whole, and it is walked from whichever holds fewer rows.
//!
//! Sets of rows are booked while they are held. Recursion is as deep as the expression.

use std::collections::HashMap;

use rootline_engine::{
    Axis, QueryControl, SpanCondition, SpanFilter, SpanPart, SpanRows, TimeRange, Timestamp,
};

use super::{SpanFigure, SpanSet};
use crate::{error::Error, memory::Memory};

/// Rows whose figures are held at once.
pub(crate) const PIECE_ROWS: usize = if cfg!(test) { 7 } else { 64 * 1024 };
/// Candidates that are few: their relatives are found before the other set is asked.
const FEW_ROWS: u64 = if cfg!(test) { 5 } else { 32 * 1024 };
/// Candidates up to one in so many of all spans are looked at row by row.
const FEW_SHARE: u64 = if cfg!(test) { 3 } else { 16 };
/// Rows within one part in so many of all are close to each other.
const CLOSE_SHARE: u64 = 4;
/// Traces whose ends are looked up, so that a question can be asked of their time alone.
const FEW_TRACES: usize = if cfg!(test) { 2 } else { 64 };
/// Candidates whose starts are looked at, so that a question can be asked of their time alone.
const NARROWED_ROWS: u64 = PIECE_ROWS as u64;

/// One part, and what a question may use there.
pub(crate) struct Evaluation<'a> {
    pub(crate) part: &'a SpanPart,
    pub(crate) control: &'a QueryControl,
    pub(crate) memory: &'a mut Memory,
}

impl Evaluation<'_> {
    /// The visible rows of `set` that start in `range`. What they take is booked: the caller gives it
    /// back by [`Evaluation::free`].
    pub(crate) fn rows(&mut self, set: &SpanSet, range: TimeRange) -> Result<SpanRows, Error> {
        self.evaluate(set, range, None)
    }

    /// Gives back what rows took.
    pub(crate) fn free(&mut self, rows: SpanRows) {
        let bytes = rows.heap_bytes() as u64;
        drop(rows);
        self.memory.give_back(bytes);
    }

    /// Those of `set` that start in `range` and are in `within`.
    fn evaluate(
        &mut self,
        set: &SpanSet,
        range: TimeRange,
        within: Option<&SpanRows>,
    ) -> Result<SpanRows, Error> {
        self.control.check()?;
        if within.is_some_and(SpanRows::is_empty) || !may_start_in(self.part, range) {
            return Ok(SpanRows::new());
        }
        if let Some(conditions) = set.conditions() {
            return match within {
                Some(rows) if rows.len() <= self.part.spans() / FEW_SHARE => {
                    self.selected_among(conditions, range, rows)
                }
                Some(rows) => {
                    let found = self.select(conditions, range)?;
                    self.kept(found.and(rows))
                }
                None => {
                    let found = self.select(conditions, range)?;
                    self.kept(found)
                }
            };
        }
        match set {
            // Plain, and answered above.
            SpanSet::Where(_) => Ok(SpanRows::new()),
            SpanSet::And(sets) => self.all_of(sets, range, within),
            SpanSet::Or(sets) => {
                let mut found = SpanRows::new();
                for set in sets {
                    let more = self.evaluate(set, range, within)?;
                    let bytes = found.heap_bytes() + more.heap_bytes();
                    found = self.kept(found.or(&more))?;
                    self.memory.give_back(bytes as u64);
                }
                Ok(found)
            }
            SpanSet::Minus(from, what) => {
                let from = self.evaluate(from, range, within)?;
                let what = self.evaluate(what, range, Some(&from))?;
                self.minus(from, what)
            }
            SpanSet::Relative {
                among,
                axis,
                of,
                negated,
            } => {
                let among = self.evaluate(among, range, within)?;
                let related = self.related(&among, *axis, of)?;
                self.either(among, related, *negated)
            }
            SpanSet::InSameTrace { among, of, negated } => {
                let among = self.evaluate(among, range, within)?;
                let sharing = self.sharing_trace(&among, of)?;
                self.either(among, sharing, *negated)
            }
            SpanSet::Having {
                set,
                figure,
                min,
                max,
            } => {
                let rows = self.evaluate(set, range, within)?;
                let found = self.with_figure(&rows, *figure, *min..=*max)?;
                self.free(rows);
                self.kept(found)
            }
        }
    }

    fn select(&self, conditions: Vec<SpanCondition>, range: TimeRange) -> Result<SpanRows, Error> {
        let filter = SpanFilter { range, conditions };
        Ok(self.part.select(&filter, self.control)?)
    }

    /// Those of a few rows that start in `range` and meet all conditions. What classes and durations decide
    /// is looked up row by row; the part is asked for the rest of it, if any row is left.
    fn selected_among(
        &mut self,
        conditions: Vec<SpanCondition>,
        range: TimeRange,
        rows: &SpanRows,
    ) -> Result<SpanRows, Error> {
        let (of_rows, others): (Vec<_>, Vec<_>) = conditions.into_iter().partition(|condition| {
            matches!(
                condition,
                SpanCondition::Service(_)
                    | SpanCondition::Name(_)
                    | SpanCondition::Kind(_)
                    | SpanCondition::Status(_)
                    | SpanCondition::DurationNs { .. }
            )
        });
        let is_time =
            |condition: &SpanCondition| matches!(condition, SpanCondition::DurationNs { .. });
        let timed = of_rows.iter().any(is_time);
        let classed = !of_rows.iter().all(is_time);
        let mut right_classes: HashMap<u32, bool> = HashMap::new();
        let (mut starts, mut classes, mut durations) = (Vec::new(), Vec::new(), Vec::new());
        let mut left = SpanRows::new();
        for piece in pieces(rows) {
            starts.clear();
            classes.clear();
            durations.clear();
            self.part.starts(&piece, self.control, &mut starts)?;
            if classed {
                self.part.classes(&piece, self.control, &mut classes)?;
            }
            if timed {
                self.part.durations(&piece, self.control, &mut durations)?;
            }
            let right = piece
                .iter()
                .zip(&starts)
                .enumerate()
                .filter(|(i, (_, start))| {
                    let class = classes.get(*i).is_none_or(|&class| {
                        *right_classes
                            .entry(class)
                            .or_insert_with(|| class_meets(self.part, class, &of_rows))
                    });
                    class
                        && range.contains(Timestamp::from_nanos(**start))
                        && durations
                            .get(*i)
                            .is_none_or(|&duration_ns| duration_meets(duration_ns, &of_rows))
                });
            left = left.or(&right.map(|(_, (row, _))| row).collect());
        }
        if others.is_empty() || left.is_empty() {
            return self.kept(left);
        }
        let range = match self.are_close(&left) {
            true => self.narrowed(range, &left)?,
            false => Some(range),
        };
        let found = match range {
            Some(range) => self.select(others, range)?.and(&left),
            None => SpanRows::new(),
        };
        self.kept(found)
    }

    /// Those in all of `sets`: what is plain in one question first, the rest among its answer.
    fn all_of(
        &mut self,
        sets: &[SpanSet],
        range: TimeRange,
        within: Option<&SpanRows>,
    ) -> Result<SpanRows, Error> {
        let mut plain = Vec::new();
        let mut others = Vec::new();
        for set in sets {
            match set.conditions() {
                Some(conditions) => plain.extend(conditions),
                None => others.push(set),
            }
        }
        let mut others = others.into_iter();
        let mut found = match others.next() {
            Some(first) if plain.is_empty() => self.evaluate(first, range, within)?,
            first => {
                let mut found = self.evaluate(&SpanSet::Where(plain), range, within)?;
                if let Some(set) = first {
                    found = self.narrow(found, set, range)?;
                }
                found
            }
        };
        for set in others {
            found = self.narrow(found, set, range)?;
        }
        Ok(found)
    }

    fn narrow(
        &mut self,
        rows: SpanRows,
        set: &SpanSet,
        range: TimeRange,
    ) -> Result<SpanRows, Error> {
        let found = self.evaluate(set, range, Some(&rows))?;
        self.free(rows);
        Ok(found)
    }

    /// Those of `among` that have a span of `of` as their `axis`.
    fn related(&mut self, among: &SpanRows, axis: Axis, of: &SpanSet) -> Result<SpanRows, Error> {
        if among.is_empty() {
            return Ok(SpanRows::new());
        }
        // Whoever has it as a child is its parent.
        let back = axis.inverse();
        if among.len() <= FEW_ROWS {
            let relatives = self.relatives(among, axis)?;
            let found = self.evaluate(of, TimeRange::ALL, Some(&relatives))?;
            self.free(relatives);
            return self.walked(found, back, among);
        }
        let of = self.evaluate(of, TimeRange::ALL, None)?;
        if of.len() <= among.len() {
            return self.walked(of, back, among);
        }
        let relatives = self.relatives(among, axis)?;
        let bytes = relatives.heap_bytes() as u64;
        let found = self.kept(relatives.and(&of))?;
        self.memory.give_back(bytes);
        self.free(of);
        self.walked(found, back, among)
    }

    /// Those of `among` that are `axis` of one of `from`.
    fn walked(&mut self, from: SpanRows, axis: Axis, among: &SpanRows) -> Result<SpanRows, Error> {
        let reached = self.relatives(&from, axis)?;
        self.free(from);
        let bytes = reached.heap_bytes() as u64;
        let found = self.kept(reached.and(among))?;
        self.memory.give_back(bytes);
        Ok(found)
    }

    fn relatives(&mut self, rows: &SpanRows, axis: Axis) -> Result<SpanRows, Error> {
        let found = self.part.relatives(rows, axis, self.control)?;
        self.kept(found)
    }

    /// Those of `among` whose trace has a span of `of`.
    fn sharing_trace(&mut self, among: &SpanRows, of: &SpanSet) -> Result<SpanRows, Error> {
        if among.is_empty() {
            return Ok(SpanRows::new());
        }
        let range = self.time_of_traces(among)?;
        let of = self.evaluate(of, range, None)?;
        let mut traces: Vec<u32> = Vec::new();
        let mut piece_traces = Vec::new();
        for piece in pieces(&of) {
            piece_traces.clear();
            self.part.traces(&piece, self.control, &mut piece_traces)?;
            piece_traces.sort_unstable();
            piece_traces.dedup();
            self.memory.take_growth(&mut traces, piece_traces.len())?;
            traces.append(&mut piece_traces);
        }
        self.free(of);
        traces.sort_unstable();
        traces.dedup();
        let mut found = SpanRows::new();
        for piece in pieces(among) {
            piece_traces.clear();
            self.part.traces(&piece, self.control, &mut piece_traces)?;
            let rows = piece.iter().zip(&piece_traces);
            let shared = rows.filter(|(_, trace)| traces.binary_search(trace).is_ok());
            found = found.or(&shared.map(|(row, _)| row).collect());
        }
        self.memory
            .give_back((traces.capacity() * size_of::<u32>()) as u64);
        self.kept(found)
    }

    /// Within which all spans of the traces of `rows` start: everything, if finding out more would cost
    /// more than it saves.
    fn time_of_traces(&mut self, rows: &SpanRows) -> Result<TimeRange, Error> {
        if rows.len() > FEW_ROWS {
            return Ok(TimeRange::ALL);
        }
        let mut traces = Vec::new();
        self.part.traces(rows, self.control, &mut traces)?;
        traces.sort_unstable();
        traces.dedup();
        if traces.len() > FEW_TRACES {
            return Ok(TimeRange::ALL);
        }
        let mut range: Option<TimeRange> = None;
        for trace in traces {
            let Some(of_trace) = self.part.summary(trace, self.control)?.range() else {
                return Ok(TimeRange::ALL);
            };
            range = Some(range.map_or(of_trace, |range| range.union(of_trace)));
        }
        Ok(range.unwrap_or(TimeRange::ALL))
    }

    /// Those of `rows` whose figure is within `bounds`. Not booked yet.
    fn with_figure(
        &mut self,
        rows: &SpanRows,
        figure: SpanFigure,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Result<SpanRows, Error> {
        let mut found = SpanRows::new();
        let mut times = Vec::new();
        let mut counts = Vec::new();
        for piece in pieces(rows) {
            times.clear();
            counts.clear();
            match figure {
                SpanFigure::Duration => self.part.durations(&piece, self.control, &mut times)?,
                SpanFigure::Own => self.part.own_times(&piece, self.control, &mut times)?,
                SpanFigure::Depth => self.part.depths(&piece, self.control, &mut counts)?,
                SpanFigure::Children => {
                    self.part.child_counts(&piece, self.control, &mut counts)?;
                }
            }
            times.extend(counts.iter().map(|&count| u64::from(count)));
            let kept = piece.iter().zip(&times);
            let kept = kept.filter(|(_, number)| bounds.contains(number));
            found = found.or(&kept.map(|(row, _)| row).collect());
        }
        Ok(found)
    }

    /// Whether rows are few and near each other. Rows follow time, roughly: what lies all over the part
    /// starts all over its time.
    fn are_close(&self, rows: &SpanRows) -> bool {
        let mut ends = rows.iter();
        let (first, last) = (ends.next(), ends.next_back());
        let spread = last.zip(first).map_or(0, |(last, first)| last - first);
        rows.len() <= NARROWED_ROWS && u64::from(spread) <= self.part.spans() / CLOSE_SHARE
    }

    /// `range`, cut to where `rows` start; `None` if none starts in it.
    fn narrowed(&self, range: TimeRange, rows: &SpanRows) -> Result<Option<TimeRange>, Error> {
        let mut starts = Vec::new();
        self.part.starts(rows, self.control, &mut starts)?;
        let inside = starts
            .into_iter()
            .map(Timestamp::from_nanos)
            .filter(|&start| range.contains(start));
        let bounds = inside.fold(None, |bounds: Option<TimeRange>, start| {
            let at = TimeRange::new(start, start).ok();
            match (bounds, at) {
                (Some(bounds), Some(at)) => Some(bounds.union(at)),
                (bounds, at) => bounds.or(at),
            }
        });
        Ok(bounds)
    }

    /// Those of `among` that were found, or the others.
    fn either(
        &mut self,
        among: SpanRows,
        found: SpanRows,
        negated: bool,
    ) -> Result<SpanRows, Error> {
        if negated {
            self.minus(among, found)
        } else {
            self.free(among);
            Ok(found)
        }
    }

    fn minus(&mut self, from: SpanRows, what: SpanRows) -> Result<SpanRows, Error> {
        let bytes = from.heap_bytes() as u64;
        let left = self.kept(from.minus(&what))?;
        self.memory.give_back(bytes);
        self.free(what);
        Ok(left)
    }

    /// Books what rows take.
    fn kept(&mut self, rows: SpanRows) -> Result<SpanRows, Error> {
        self.memory.take(rows.heap_bytes() as u64)?;
        Ok(rows)
    }
}

/// Whether a class meets those of the conditions that are about what classes hold.
fn class_meets(part: &SpanPart, class: u32, conditions: &[SpanCondition]) -> bool {
    let class = part.class(class);
    conditions.iter().all(|condition| match condition {
        SpanCondition::Service(text) => text.matches(&part.symbol(class.service)),
        SpanCondition::Name(text) => text.matches(&part.symbol(class.name)),
        SpanCondition::Kind(kind) => class.kind == *kind,
        SpanCondition::Status(status) => class.status == *status,
        _ => true,
    })
}

/// Whether a duration is within all bounds among the conditions.
fn duration_meets(duration_ns: u64, conditions: &[SpanCondition]) -> bool {
    conditions.iter().all(|condition| match condition {
        SpanCondition::DurationNs { min, max } => (*min..=*max).contains(&duration_ns),
        _ => true,
    })
}

/// Whether a span of the part may start in `range`.
pub(crate) fn may_start_in(part: &SpanPart, range: TimeRange) -> bool {
    part.start_bounds()
        .is_some_and(|bounds| bounds.overlaps(range))
}

/// The rows in pieces of at most [`PIECE_ROWS`], rising.
pub(crate) fn pieces(rows: &SpanRows) -> impl Iterator<Item = SpanRows> + '_ {
    let mut left = rows.iter();
    std::iter::from_fn(move || {
        let piece: SpanRows = left.by_ref().take(PIECE_ROWS).collect();
        (!piece.is_empty()).then_some(piece)
    })
}
