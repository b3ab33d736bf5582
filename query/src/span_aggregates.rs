//! Figures over the spans of a set, without fetching a trace: how many, how many a second, how many
//! failed, and sum, least, greatest, mean and exact quantiles of a time; grouped, and by steps of time.
//!
//! - Where conditions on single spans decide, only counts are wanted, and what classes of spans have in
//!   common is all they are grouped by, the parts' counts by class answer: no row may have to be looked at.
//! - Sums are whole numbers, so that they do not depend on the order of spans. Quantiles are by selection,
//!   with linear interpolation (`statistics.rs`): the times are held meanwhile, 8 bytes a span, booked on
//!   the budget. Without quantiles nothing is held for a span.
//! - Groups are bounded: a question that would make more ends in a typed error.

use std::collections::{HashMap, hash_map::Entry};

use rootline_engine::{
    QueryControl, RowValues, Snapshot, SpanPart, SpanRows, StatusCode, TagScope, TimeRange,
    Timestamp, Value,
};

use crate::{
    error::Error,
    memory::Memory,
    span_set::{Evaluation, SpanSet, ToSpanSet, kind_word, may_start_in, pieces, status_word},
    statistics::quantiles_into,
};

/// Groups of an answer where the question does not say.
pub const SPAN_GROUPS_DEFAULT: usize = 10_000;
/// What spans may be grouped by at once.
pub const SPAN_GROUP_KEYS_MAX: usize = 16;
/// Steps of time in one question.
pub const SPAN_STEPS_MAX: u64 = 11_000;
/// Quantiles in one question.
pub const SPAN_QUANTILES_MAX: usize = 16;
/// What a cell (a group in a step) costs, with its tables' overhead.
const CELL_BYTES: u64 = 256;
const NO_GROUP: u32 = u32::MAX;

/// What spans are grouped by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanGroupKey {
    /// The service's name.
    Service,
    /// The span's name.
    Operation,
    /// The role in a call, by its word in the text form of sets.
    Kind,
    /// How it ended, by its word.
    Status,
    /// The first value of an attribute. Values of different types are different groups.
    Attribute {
        /// Its key.
        key: String,
        /// Where it is looked for.
        of: TagScope,
    },
}

/// A time of a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpanMeasure {
    /// From its start to its end.
    #[default]
    Duration,
    /// The duration less the union of its children's intervals within it.
    OwnTime,
}

/// Which figures of a time are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WantedFigures {
    /// Of which time.
    pub measure: SpanMeasure,
    /// Each from 0 to 1, at most [`SPAN_QUANTILES_MAX`], in any order.
    pub quantiles: Vec<f64>,
}

/// What is asked of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanAggregation {
    /// One group for each combination; of nothing, one group.
    pub by: Vec<SpanGroupKey>,
    /// Each group in steps of so many ns from the start of the range on.
    pub step_ns: Option<u64>,
    /// Figures of a time; without, only counts.
    pub figures: Option<WantedFigures>,
    /// Most groups; more are an error.
    pub groups_max: usize,
}

impl Default for SpanAggregation {
    fn default() -> Self {
        Self {
            by: Vec::new(),
            step_ns: None,
            figures: None,
            groups_max: SPAN_GROUPS_DEFAULT,
        }
    }
}

/// One group.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanGroup {
    /// For each thing that was grouped by what its spans have there; `None`: no such attribute.
    pub by: Vec<Option<Value>>,
    /// One for the whole range, or the steps with spans, rising. None is empty.
    pub points: Vec<SpanPoint>,
}

/// Figures of a group in the range or in one step of it.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanPoint {
    /// When its spans start: both ends included.
    pub range: TimeRange,
    /// How many.
    pub spans: u64,
    /// Those whose status is an error.
    pub errors: u64,
    /// Spans a second, over the length of the range or step; `None` if that is open or nothing.
    pub per_s: Option<f64>,
    /// Figures of the time asked for.
    pub figures: Option<TimeFigures>,
}

/// Figures of a time, in ns.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeFigures {
    /// Sum.
    pub sum_ns: u128,
    /// Least.
    pub min_ns: u64,
    /// Greatest.
    pub max_ns: u64,
    /// Mean.
    pub mean_ns: f64,
    /// In the order they were asked for.
    pub quantiles_ns: Vec<f64>,
}

/// How many spans of a set start in `range`. Exact.
///
/// # Errors
/// When the set is wrong, or the query is stopped or runs into a bound.
pub fn count_spans(
    snapshot: &Snapshot,
    spans: &impl ToSpanSet,
    range: TimeRange,
    control: &QueryControl,
    memory: &mut Memory,
) -> Result<u64, Error> {
    let set = spans.to_span_set()?;
    let mut count = 0;
    for part in snapshot.span_parts()? {
        if !may_start_in(&part, range) {
            continue;
        }
        if let Some(filter) = set.filter(range) {
            count += part.count(&filter, control)?;
        } else {
            let mut evaluation = Evaluation {
                part: &part,
                control,
                memory,
            };
            let rows = evaluation.rows(&set, range)?;
            count += rows.len();
            evaluation.free(rows);
        }
    }
    Ok(count)
}

/// Figures over the spans of a set that start in `range`. Groups are sorted by what they have, what is
/// absent first.
///
/// # Errors
/// [`Error::TooManySpanGroups`], [`Error::SpanSteps`], [`Error::Quantiles`], [`Error::SpanGroupKeys`];
/// when the set is wrong, the query is stopped, or memory or another bound runs out.
pub fn aggregate_spans(
    snapshot: &Snapshot,
    spans: &impl ToSpanSet,
    range: TimeRange,
    asked: &SpanAggregation,
    control: &QueryControl,
    memory: &mut Memory,
) -> Result<Vec<SpanGroup>, Error> {
    let set = spans.to_span_set()?;
    let steps = Steps::of(range, asked.step_ns)?;
    let quantiles = Quantiles::of(asked)?;
    let mut groups = Groups::of(&set, range, steps, asked, snapshot, control, memory)?;
    let mut points: Vec<Vec<(u64, SpanPoint)>> = vec![Vec::new(); groups.open.len()];
    for cell in &mut groups.cells {
        control.check()?;
        let point = SpanPoint {
            range: steps.range(cell.step),
            spans: cell.spans,
            errors: cell.errors,
            per_s: steps.length_s(cell.step).map(|s| cell.spans as f64 / s),
            figures: asked.figures.as_ref().map(|_| cell.figures(&quantiles)),
        };
        cell.times_ns = Vec::new();
        if let Some(points) = points.get_mut(cell.group as usize) {
            points.push((cell.step, point));
        }
    }
    let mut found: Vec<(OpenGroup, Vec<(u64, SpanPoint)>)> =
        groups.open.into_iter().zip(points).collect();
    found.sort_by(|a, b| a.0.sort_key.cmp(&b.0.sort_key));
    Ok(found
        .into_iter()
        .map(|(group, mut points)| {
            points.sort_by_key(|(step, _)| *step);
            SpanGroup {
                by: group.by,
                points: points.into_iter().map(|(_, point)| point).collect(),
            }
        })
        .collect())
}

/// The groups of a question while they take spans.
#[derive(Default)]
pub(crate) struct Groups {
    pub(crate) open: Vec<OpenGroup>,
    pub(crate) cells: Vec<Cell>,
    by_key: HashMap<Vec<u8>, u32>,
    /// The cell of a group and a step.
    by_step: HashMap<(u32, u64), usize>,
}

/// A group that still takes spans.
pub(crate) struct OpenGroup {
    pub(crate) by: Vec<Option<Value>>,
    sort_key: Vec<u8>,
}

/// A group in a step.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    pub(crate) group: u32,
    step: u64,
    spans: u64,
    pub(crate) errors: u64,
    sum_ns: u128,
    min_ns: u64,
    max_ns: u64,
    /// Empty if no quantiles are wanted.
    pub(crate) times_ns: Vec<f64>,
}

impl Cell {
    fn add_time(&mut self, time_ns: u64) {
        self.min_ns = if self.spans == 0 {
            time_ns
        } else {
            self.min_ns.min(time_ns)
        };
        self.max_ns = self.max_ns.max(time_ns);
        self.sum_ns += u128::from(time_ns);
    }

    fn figures(&mut self, quantiles: &Quantiles) -> TimeFigures {
        TimeFigures {
            sum_ns: self.sum_ns,
            min_ns: self.min_ns,
            max_ns: self.max_ns,
            mean_ns: self.sum_ns as f64 / self.spans as f64,
            quantiles_ns: quantiles.figures(&mut self.times_ns),
        }
    }
}

impl Groups {
    /// The groups of `set`.
    pub(crate) fn of(
        set: &SpanSet,
        range: TimeRange,
        steps: Steps,
        asked: &SpanAggregation,
        snapshot: &Snapshot,
        control: &QueryControl,
        memory: &mut Memory,
    ) -> Result<Self, Error> {
        if asked.by.len() > SPAN_GROUP_KEYS_MAX {
            return Err(Error::SpanGroupKeys {
                max: SPAN_GROUP_KEYS_MAX,
            });
        }
        let mut groups = Self::default();
        let of_classes = asked.figures.is_none()
            && steps.step_ns.is_none()
            && !asked
                .by
                .iter()
                .any(|key| matches!(key, SpanGroupKey::Attribute { .. }));
        for part in snapshot.span_parts()? {
            if !may_start_in(&part, range) {
                continue;
            }
            let mut gathering = Gathering {
                part: &part,
                asked,
                steps,
                classes: Vec::new(),
                control,
                memory,
                groups: &mut groups,
            };
            match set.filter(range) {
                Some(filter) if of_classes => {
                    for (class, spans) in part.count_by_class(&filter, control)? {
                        gathering.add_class(class, spans)?;
                    }
                }
                _ => {
                    let mut evaluation = Evaluation {
                        part: &part,
                        control,
                        memory: gathering.memory,
                    };
                    let rows = evaluation.rows(set, range)?;
                    for piece in pieces(&rows) {
                        gathering.add_rows(&piece)?;
                    }
                    gathering.memory.give_back(rows.heap_bytes() as u64);
                }
            }
        }
        Ok(groups)
    }
}

/// Spans of one part on their way into groups.
struct Gathering<'a> {
    part: &'a SpanPart,
    asked: &'a SpanAggregation,
    steps: Steps,
    /// By class its group, where classes alone decide.
    classes: Vec<u32>,
    control: &'a QueryControl,
    memory: &'a mut Memory,
    groups: &'a mut Groups,
}

impl Gathering<'_> {
    fn add_class(&mut self, class: u32, spans: u64) -> Result<(), Error> {
        let group = self.group_of_class(class)?;
        let error = self.part.class(class).status == StatusCode::Error;
        let cell = self.cell(group, 0)?;
        if let Some(cell) = self.groups.cells.get_mut(cell) {
            cell.spans += spans;
            cell.errors += if error { spans } else { 0 };
        }
        Ok(())
    }

    fn add_rows(&mut self, rows: &SpanRows) -> Result<(), Error> {
        let (part, asked, control) = (self.part, self.asked, self.control);
        let mut classes = Vec::new();
        part.classes(rows, control, &mut classes)?;
        let groups = self.groups_of_rows(rows, &classes)?;
        let mut starts = Vec::new();
        if asked.step_ns.is_some() {
            part.starts(rows, control, &mut starts)?;
        }
        let mut times = Vec::new();
        match asked.figures.as_ref().map(|figures| figures.measure) {
            Some(SpanMeasure::Duration) => part.durations(rows, control, &mut times)?,
            Some(SpanMeasure::OwnTime) => part.own_times(rows, control, &mut times)?,
            None => {}
        }
        let held = asked
            .figures
            .as_ref()
            .is_some_and(|figures| !figures.quantiles.is_empty());
        let mut failed: Vec<Option<bool>> = vec![None; part.class_count() as usize];
        // Neighbours are often of one cell.
        let mut last = ((NO_GROUP, 0), 0);
        for (i, (&group, &class)) in groups.iter().zip(&classes).enumerate() {
            let error = match failed.get_mut(class as usize) {
                Some(known) => {
                    *known.get_or_insert_with(|| part.class(class).status == StatusCode::Error)
                }
                None => false,
            };
            let step = starts.get(i).map_or(0, |&start| self.steps.step_of(start));
            if last.0 != (group, step) {
                last = ((group, step), self.cell(group, step)?);
            }
            let Some(cell) = self.groups.cells.get_mut(last.1) else {
                continue;
            };
            if let Some(&time) = times.get(i) {
                cell.add_time(time);
                if held {
                    self.memory.take_growth(&mut cell.times_ns, 1)?;
                    cell.times_ns.push(time as f64);
                }
            }
            cell.spans += 1;
            cell.errors += u64::from(error);
        }
        Ok(())
    }

    /// The group of each row.
    fn groups_of_rows(&mut self, rows: &SpanRows, classes: &[u32]) -> Result<Vec<u32>, Error> {
        let mut values: Vec<RowValues> = Vec::new();
        for key in &self.asked.by {
            if let SpanGroupKey::Attribute { key, of } = key {
                values.push(self.part.values(rows, key, *of, self.control)?);
            }
        }
        let mut groups = Vec::with_capacity(classes.len());
        if values.is_empty() {
            for &class in classes {
                groups.push(self.group_of_class(class)?);
            }
            return Ok(groups);
        }
        let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
        let mut codes: Vec<u32> = Vec::new();
        for (i, &class) in classes.iter().enumerate() {
            codes.clear();
            codes.push(class);
            codes.extend(
                values
                    .iter()
                    .map(|values| values.codes.get(i).copied().unwrap_or(u32::MAX)),
            );
            let group = if let Some(group) = known.get(&codes) {
                *group
            } else {
                let mut of_key = values
                    .iter()
                    .zip(codes.iter().skip(1))
                    .map(|(values, code)| values.values.get(*code as usize).cloned());
                let by = self.by(class, || of_key.next().flatten());
                let group = self.group(by)?;
                known.insert(codes.clone(), group);
                group
            };
            groups.push(group);
        }
        Ok(groups)
    }

    fn group_of_class(&mut self, class: u32) -> Result<u32, Error> {
        let place = class as usize;
        if let Some(&group) = self.classes.get(place)
            && group != NO_GROUP
        {
            return Ok(group);
        }
        let group = self.group(self.by(class, || None))?;
        if self.classes.len() <= place {
            let classes = (self.part.class_count() as usize).max(place + 1);
            self.classes.resize(classes, NO_GROUP);
        }
        if let Some(known) = self.classes.get_mut(place) {
            *known = group;
        }
        Ok(group)
    }

    /// What a span of a class has of everything that is grouped by; `next` gives its attributes.
    fn by(&self, class: u32, mut next: impl FnMut() -> Option<Value>) -> Vec<Option<Value>> {
        let class = self.part.class(class);
        let symbol = |id| Some(Value::Str(self.part.symbol(id).to_string()));
        let word = |word: &str| Some(Value::Str(word.to_owned()));
        self.asked
            .by
            .iter()
            .map(|key| match key {
                SpanGroupKey::Service => symbol(class.service),
                SpanGroupKey::Operation => symbol(class.name),
                SpanGroupKey::Kind => word(kind_word(class.kind)),
                SpanGroupKey::Status => word(status_word(class.status)),
                SpanGroupKey::Attribute { .. } => next(),
            })
            .collect()
    }

    fn group(&mut self, by: Vec<Option<Value>>) -> Result<u32, Error> {
        let mut key = Vec::new();
        for value in &by {
            put_key(value.as_ref(), &mut key);
        }
        if let Some(&group) = self.groups.by_key.get(&key) {
            return Ok(group);
        }
        if self.groups.open.len() >= self.asked.groups_max {
            return Err(Error::TooManySpanGroups {
                max: self.asked.groups_max,
            });
        }
        self.memory.take(CELL_BYTES + 3 * key.len() as u64)?;
        let group = u32::try_from(self.groups.open.len()).unwrap_or(NO_GROUP);
        self.groups.by_key.insert(key.clone(), group);
        self.groups.open.push(OpenGroup { by, sort_key: key });
        Ok(group)
    }

    /// The place of a cell.
    fn cell(&mut self, group: u32, step: u64) -> Result<usize, Error> {
        let cells = &mut self.groups.cells;
        match self.groups.by_step.entry((group, step)) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(new) => {
                self.memory.take(CELL_BYTES)?;
                cells.push(Cell {
                    group,
                    step,
                    ..Cell::default()
                });
                Ok(*new.insert(cells.len() - 1))
            }
        }
    }
}

/// Appends bytes that are the same for the same value, differ for others, are no other value's
/// beginning, and sort texts and whole numbers as people do; what is absent comes first.
fn put_key(value: Option<&Value>, out: &mut Vec<u8>) {
    let text = |out: &mut Vec<u8>, kind: u8, text: &[u8]| {
        out.push(kind);
        for &byte in text {
            // A zero is written as two bytes, so that 0 0 ends the text.
            out.push(byte);
            if byte == 0 {
                out.push(1);
            }
        }
        out.extend_from_slice(&[0, 0]);
    };
    match value {
        None => out.push(0),
        Some(Value::Empty) => out.push(1),
        Some(Value::Bool(v)) => out.extend_from_slice(&[2, u8::from(*v)]),
        Some(Value::Int(v)) => {
            out.push(3);
            // With the sign turned, whole numbers sort as their bytes.
            out.extend_from_slice(&(v.cast_unsigned() ^ (1 << 63)).to_be_bytes());
        }
        Some(Value::Double(v)) => {
            out.push(4);
            let bits = v.to_bits();
            let negative = bits >> 63 == 1;
            let ordered = if negative { !bits } else { bits | (1 << 63) };
            out.extend_from_slice(&ordered.to_be_bytes());
        }
        Some(Value::Str(v)) => text(out, 5, v.as_bytes()),
        Some(Value::Bytes(v)) => text(out, 6, v),
        Some(Value::Array(values)) => {
            out.push(7);
            for value in values {
                put_key(Some(value), out);
            }
            out.push(0);
        }
        Some(Value::KeyValues(pairs)) => {
            out.push(8);
            for (key, value) in pairs {
                text(out, 5, key.as_bytes());
                put_key(Some(value), out);
            }
            out.push(0);
        }
    }
}

/// How a range is cut into steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    range: TimeRange,
    step_ns: Option<u64>,
    last: u64,
}

impl Steps {
    /// The whole range, or steps of `step_ns`.
    pub(crate) fn of(range: TimeRange, step_ns: Option<u64>) -> Result<Self, Error> {
        let whole = Self {
            range,
            step_ns: None,
            last: 0,
        };
        let Some(step_ns) = step_ns else {
            return Ok(whole);
        };
        let refused = Error::SpanSteps {
            step_ns,
            max: SPAN_STEPS_MAX,
        };
        if step_ns == 0 || is_open(range) {
            return Err(refused);
        }
        let steps = length_ns(range).div_ceil(step_ns).max(1);
        if steps > SPAN_STEPS_MAX {
            return Err(refused);
        }
        Ok(Self {
            step_ns: Some(step_ns),
            last: steps - 1,
            ..whole
        })
    }

    /// The end of the range belongs to the last step.
    fn step_of(self, start_ns: i64) -> u64 {
        let since = start_ns.wrapping_sub(self.range.start().as_nanos());
        let step = since.cast_unsigned() / self.step_ns.unwrap_or(u64::MAX);
        step.min(self.last)
    }

    fn range(self, step: u64) -> TimeRange {
        let Some(step_ns) = self.step_ns else {
            return self.range;
        };
        let at = |step: u64| {
            let ns = self
                .range
                .start()
                .as_nanos()
                .saturating_add_unsigned(step.saturating_mul(step_ns));
            Timestamp::from_nanos(ns)
        };
        let end = if step >= self.last {
            self.range.end()
        } else {
            at(step + 1).saturating_add_ns(-1)
        };
        TimeRange::new(at(step), end).unwrap_or(self.range)
    }

    /// How long a step is; the range if there are none.
    fn length_s(self, step: u64) -> Option<f64> {
        if is_open(self.range) {
            return None;
        }
        let whole = length_ns(self.range);
        let ns = match self.step_ns {
            Some(step_ns) => step_ns.min(whole.saturating_sub(step.saturating_mul(step_ns))),
            None => whole,
        };
        (ns > 0).then(|| ns as f64 / 1e9)
    }
}

fn is_open(range: TimeRange) -> bool {
    range.start() == Timestamp::MIN || range.end() == Timestamp::MAX
}

fn length_ns(range: TimeRange) -> u64 {
    let (start, end) = (range.start().as_nanos(), range.end().as_nanos());
    end.wrapping_sub(start).cast_unsigned()
}

/// The quantiles asked for, sorted, and where each stood.
struct Quantiles {
    sorted: Vec<f64>,
    places: Vec<usize>,
}

impl Quantiles {
    fn of(asked: &SpanAggregation) -> Result<Self, Error> {
        let asked = asked.figures.as_ref();
        let asked = asked.map_or(&[][..], |figures| figures.quantiles.as_slice());
        let wrong = asked.iter().any(|q| !(0.0..=1.0).contains(q));
        if wrong || asked.len() > SPAN_QUANTILES_MAX {
            return Err(Error::Quantiles {
                max: SPAN_QUANTILES_MAX,
            });
        }
        let mut order: Vec<(f64, usize)> = asked.iter().copied().zip(0..).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(Self {
            sorted: order.iter().map(|&(q, _)| q).collect(),
            places: order.iter().map(|&(_, place)| place).collect(),
        })
    }

    fn figures(&self, times_ns: &mut [f64]) -> Vec<f64> {
        let mut found = vec![0.0; self.sorted.len()];
        quantiles_into(times_ns, &self.sorted, &mut found);
        let mut as_asked = vec![0.0; found.len()];
        for (&place, figure) in self.places.iter().zip(found) {
            if let Some(asked) = as_asked.get_mut(place) {
                *asked = figure;
            }
        }
        as_asked
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ns: i64) -> Timestamp {
        Timestamp::from_nanos(ns)
    }

    #[test]
    fn steps_cover_the_range_and_its_end_belongs_to_the_last() {
        let range = TimeRange::new(at(100), at(125)).unwrap();
        let steps = Steps::of(range, Some(10)).unwrap();
        let of: Vec<u64> = [100, 109, 110, 120, 125].map(|ns| steps.step_of(ns)).into();
        assert_eq!(of, [0, 0, 1, 2, 2]);
        let ends = |step| {
            (
                steps.range(step).start().as_nanos(),
                steps.range(step).end().as_nanos(),
            )
        };
        assert_eq!(
            [ends(0), ends(1), ends(2)],
            [(100, 109), (110, 119), (120, 125)]
        );
        assert_eq!(steps.length_s(0), Some(10.0 / 1e9));
        assert_eq!(steps.length_s(2), Some(5.0 / 1e9));
        let even = Steps::of(TimeRange::new(at(0), at(20)).unwrap(), Some(10)).unwrap();
        assert_eq!((even.step_of(20), even.last), (1, 1));
    }

    #[test]
    fn steps_without_end_or_number_are_refused() {
        let range = TimeRange::new(at(0), at(1_000_000)).unwrap();
        for (range, step_ns) in [(TimeRange::ALL, 10), (range, 0), (range, 1)] {
            let refused = Steps::of(range, Some(step_ns)).unwrap_err();
            assert!(matches!(refused, Error::SpanSteps { .. }));
        }
        assert_eq!(Steps::of(TimeRange::ALL, None).unwrap().length_s(0), None);
    }

    fn any_value() -> impl Strategy<Value = Option<Value>> {
        let text = prop_oneof![Just(String::new()), "[\u{0}\u{1}a]{0,3}"];
        prop_oneof![
            Just(None),
            Just(Some(Value::Empty)),
            any::<bool>().prop_map(|v| Some(Value::Bool(v))),
            (-3i64..3).prop_map(|v| Some(Value::Int(v))),
            prop::sample::select(vec![-1.5, -0.0, 0.0, 2.0, f64::NAN])
                .prop_map(|v| Some(Value::Double(v))),
            text.prop_map(|v| Some(Value::Str(v))),
            prop::collection::vec(0u8..2, 0..3).prop_map(|v| Some(Value::Bytes(v))),
            prop::collection::vec((-1i64..1).prop_map(Value::Int), 0..3)
                .prop_map(|v| Some(Value::Array(v))),
        ]
    }

    proptest! {
        #[test]
        fn values_are_one_group_exactly_if_they_are_equal(
            a in prop::collection::vec(any_value(), 2),
            b in prop::collection::vec(any_value(), 2),
        ) {
            let key = |values: &[Option<Value>]| {
                let mut key = Vec::new();
                for value in values {
                    put_key(value.as_ref(), &mut key);
                }
                key
            };
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }
    }
}
