//! A number for each occurrence: the codes of a dictionary, or the values themselves.
//!
//! | form | good for |
//! | --- | --- |
//! | `Plain` | anything |
//! | `Runs` | numbers that are the same for all occurrences of a trace |
//! | `Ranked` | numbers that the class nearly tells; few numbers far apart |
//!
//! Bytes: `docs/formats/attribute-column.md`.

use roaring::RoaringBitmap;

use super::{
    Classes,
    head::{HeadReader, put_unsigned},
    numbers::{Numbers, NumbersCursor},
    ranked::Ranked,
    sink::Sink,
    source::ColumnSource,
    wanted::{Found, Wanted, within},
};
use crate::{
    column::integers::{self, GROUP},
    error::Error,
};

const PLAIN: u8 = 0;
const RUNS: u8 = 1;
const RANKED: u8 = 2;
const RANKED_BY_CLASS: u8 = 3;

/// Runs must be so many times fewer than numbers to be worth a look.
const RUN_LENGTH_MIN: usize = 2;
/// Groups on which a form is rated.
const RATED_GROUPS: usize = 8;
/// What the directory takes for a group, about.
const ENTRY_BYTES: f64 = 6.0;
/// A form earns its place if it takes so much less than plain numbers.
const GAIN_MIN: f64 = 0.98;
/// Columns of no more numbers are plain.
const SMALL: usize = 32;
/// Numbers that are looked at to see how they are distributed.
const SAMPLE: usize = 1024;
/// With so many times fewer candidates than occurrences each candidate is looked at by itself.
pub(super) const FEW_CANDIDATES: u64 = 64;

/// Where the numbers lie.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    count: u32,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Plain(Numbers),
    /// Where runs of equal numbers start, and their numbers.
    Runs {
        starts: Numbers,
        values: Numbers,
    },
    /// The place of each number in the list of its class.
    Ranked {
        by_class: bool,
        lists: Numbers,
        ends: Numbers,
        ranks: Numbers,
    },
}

/// What was decoded last.
#[derive(Debug, Default)]
pub(super) struct SequenceCursor {
    first: NumbersCursor,
    second: NumbersCursor,
    third: NumbersCursor,
    lists: Option<Lists>,
    classes: Vec<u32>,
    /// The last run: its start, its end, its number.
    run: Option<(u32, u32, i64)>,
}

impl Sequence {
    /// Writes the numbers in the cheapest form. `classes` has one for each, or none.
    pub(super) fn write(
        values: &[i64],
        classes: &[u32],
        sink: &mut Sink<'_>,
    ) -> Result<Self, Error> {
        let count = u32::try_from(values.len()).expect("a column has at most 2^32 values");
        let numbers =
            |values: &[i64], sink: &mut Sink<'_>| Numbers::write(values.iter().copied(), sink);
        let form = match choose(values, classes) {
            Choice::Plain => Form::Plain(numbers(values, sink)?),
            Choice::Runs(starts, of_runs) => Form::Runs {
                starts: numbers(&starts, sink)?,
                values: numbers(&of_runs, sink)?,
            },
            Choice::Ranked(ranked, by_class) => Form::Ranked {
                by_class,
                lists: numbers(&ranked.lists, sink)?,
                ends: numbers(&ranked.ends, sink)?,
                ranks: numbers(&ranked.ranks, sink)?,
            },
        };
        Ok(Self { count, form })
    }

    pub(super) fn put(&self, head: &mut Vec<u8>) {
        match &self.form {
            Form::Plain(numbers) => {
                head.push(PLAIN);
                numbers.put(head);
            }
            Form::Runs { starts, values } => {
                head.push(RUNS);
                starts.put(head);
                values.put(head);
            }
            Form::Ranked {
                by_class,
                lists,
                ends,
                ranks,
            } => {
                head.push(if *by_class { RANKED_BY_CLASS } else { RANKED });
                lists.put(head);
                ends.put(head);
                ranks.put(head);
            }
        }
    }

    /// Reads what [`Self::put`] appended, for `count` numbers.
    pub(super) fn take(head: &mut HeadReader<'_>, count: u32) -> Result<Self, Error> {
        let form = match head.byte()? {
            PLAIN => {
                let numbers = Numbers::take(head)?;
                if numbers.len() != count {
                    return Err(head.damaged("another number of codes than of values"));
                }
                Form::Plain(numbers)
            }
            RUNS => {
                let (starts, values) = (Numbers::take(head)?, Numbers::take(head)?);
                let runs = starts.len();
                if runs != values.len() || runs > count || runs == 0 {
                    return Err(head.damaged("another number of runs than of their values"));
                }
                Form::Runs { starts, values }
            }
            code @ (RANKED | RANKED_BY_CLASS) => {
                let lists = Numbers::take(head)?;
                let (ends, ranks) = (Numbers::take(head)?, Numbers::take(head)?);
                if ranks.len() != count {
                    return Err(head.damaged("another number of ranks than of values"));
                }
                Form::Ranked {
                    by_class: code == RANKED_BY_CLASS,
                    lists,
                    ends,
                    ranks,
                }
            }
            _ => return Err(head.damaged("unknown form of codes")),
        };
        Ok(Self { count, form })
    }

    /// Appends how many there are, then as [`Self::put`].
    pub(super) fn put_counted(&self, head: &mut Vec<u8>) {
        put_unsigned(head, u64::from(self.count));
        self.put(head);
    }

    /// Reads what [`Self::put_counted`] appended.
    pub(super) fn take_counted(head: &mut HeadReader<'_>) -> Result<Self, Error> {
        let count = head.count()?;
        Self::take(head, count)
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }

    /// What plain numbers cost in bytes, by some of their groups.
    pub(super) fn rate(values: &[i64]) -> f64 {
        rate(values)
    }

    /// From the least number to the greatest.
    pub(super) fn span(&self, source: &ColumnSource) -> Result<u64, Error> {
        let numbers = match &self.form {
            Form::Plain(numbers) => numbers,
            Form::Runs { values, .. } => values,
            Form::Ranked { lists, .. } => lists,
        };
        let directory = numbers.directory(source)?;
        let (mut low, mut high) = (i64::MAX, i64::MIN);
        for group in 0..numbers.groups() {
            let entry = directory.entry(group)?;
            low = low.min(entry.low);
            high = high.max(entry.high);
        }
        Ok(if low > high { 0 } else { low.abs_diff(high) })
    }

    /// The form, for people.
    pub(super) fn name(&self) -> &'static str {
        match self.form {
            Form::Plain(_) => "plain",
            Form::Runs { .. } => "runs",
            Form::Ranked { by_class: true, .. } => "by class",
            Form::Ranked { .. } => "ranked",
        }
    }

    pub(super) fn section_bytes(&self) -> u64 {
        match &self.form {
            Form::Plain(numbers) => numbers.section_bytes(),
            Form::Runs { starts, values } => starts.section_bytes() + values.section_bytes(),
            Form::Ranked {
                lists, ends, ranks, ..
            } => lists.section_bytes() + ends.section_bytes() + ranks.section_bytes(),
        }
    }

    pub(super) fn needs_classes(&self) -> bool {
        matches!(self.form, Form::Ranked { by_class: true, .. })
    }

    /// The number of an occurrence.
    #[inline]
    pub(super) fn get(
        &self,
        source: &ColumnSource,
        classes: &dyn Classes,
        cursor: &mut SequenceCursor,
        index: u32,
    ) -> Result<i64, Error> {
        if index >= self.count {
            return Err(source.damaged(0, "an occurrence beyond the last of its column"));
        }
        match &self.form {
            Form::Plain(numbers) => numbers.get(source, &mut cursor.first, index),
            Form::Runs { starts, values } => {
                if let Some((start, end, value)) = cursor.run
                    && (start..end).contains(&index)
                {
                    return Ok(value);
                }
                let behind = starts.rank(source, &mut cursor.first, i64::from(index), true)?;
                let Some(run) = behind.checked_sub(1) else {
                    return Err(source.damaged(0, "the first run does not start at 0"));
                };
                let value = values.get(source, &mut cursor.second, run)?;
                let end = if behind < starts.len() {
                    let end = starts.get(source, &mut cursor.first, behind)?;
                    u32::try_from(end).unwrap_or(index)
                } else {
                    self.count
                };
                cursor.run = Some((index, end, value));
                Ok(value)
            }
            Form::Ranked {
                by_class,
                lists,
                ends,
                ranks,
            } => {
                let mut class = 0;
                if *by_class {
                    cursor.classes.clear();
                    classes.classes(index..index + 1, &mut cursor.classes)?;
                    class = cursor.classes.first().copied().unwrap_or(u32::MAX);
                }
                let wrong = || source.damaged(0, "a rank beyond the list of its class");
                let rank = ranks.get(source, &mut cursor.first, index)?;
                if class >= ends.len() {
                    return Err(wrong());
                }
                let end = ends.get(source, &mut cursor.second, class)?;
                let start = match class.checked_sub(1) {
                    Some(before) => ends.get(source, &mut cursor.second, before)?,
                    None => 0,
                };
                let place = start.checked_add(rank).filter(|&place| place < end);
                let place = place.and_then(|place| u32::try_from(place).ok());
                lists.get(source, &mut cursor.third, place.ok_or_else(wrong)?)
            }
        }
    }

    /// Appends the numbers of a group of 1,024 occurrences.
    pub(super) fn group(
        &self,
        source: &ColumnSource,
        classes: &dyn Classes,
        cursor: &mut SequenceCursor,
        group: u32,
        out: &mut Vec<i64>,
    ) -> Result<(), Error> {
        match &self.form {
            Form::Plain(numbers) => {
                out.extend_from_slice(numbers.group(source, &mut cursor.first, group)?);
            }
            Form::Runs { .. } => {
                let start = u64::from(group) * GROUP as u64;
                let end = (start + GROUP as u64).min(u64::from(self.count));
                for index in start..end {
                    let index = u32::try_from(index).unwrap_or(u32::MAX);
                    out.push(self.get(source, classes, cursor, index)?);
                }
            }
            Form::Ranked { ranks, .. } => {
                if cursor.lists.is_none() {
                    cursor.lists = Some(self.lists(source)?);
                }
                let ranks = ranks.group(source, &mut cursor.first, group)?;
                if let Some(lists) = &cursor.lists {
                    let start = group * GROUP as u32;
                    let of_group =
                        lists.places(start, ranks.len(), classes, &mut cursor.classes)?;
                    for (&class, &rank) in of_group.iter().zip(ranks) {
                        out.push(lists.value(source, class, rank)?);
                    }
                }
            }
        }
        Ok(())
    }

    /// Calls `visit` with every number, in order, in pieces: where a piece starts, and its numbers.
    pub(super) fn each_piece(
        &self,
        source: &ColumnSource,
        classes: &dyn Classes,
        mut visit: impl FnMut(u32, &[i64]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match &self.form {
            Form::Plain(numbers) => numbers.each_group(
                source,
                |_, _| Ok(true),
                |group, values| visit(group * GROUP as u32, values),
            ),
            Form::Ranked { ranks, .. } => {
                let lists = self.lists(source)?;
                let mut of_group = Vec::new();
                let mut piece = Vec::with_capacity(GROUP);
                ranks.each_group(
                    source,
                    |_, _| Ok(true),
                    |group, ranks| {
                        let start = group * GROUP as u32;
                        let places = lists.places(start, ranks.len(), classes, &mut of_group)?;
                        piece.clear();
                        for (&list, &rank) in places.iter().zip(ranks) {
                            piece.push(lists.value(source, list, rank)?);
                        }
                        visit(start, &piece)
                    },
                )
            }
            Form::Runs { .. } => {
                let mut piece = Vec::new();
                self.each_run(source, |start, end, value| {
                    let mut at = start;
                    while at < end {
                        let step = (end - at).min(4096);
                        piece.clear();
                        piece.resize(step as usize, value);
                        visit(at, &piece)?;
                        at += step;
                    }
                    Ok(())
                })
            }
        }
    }

    /// Reads the lists of ranked numbers.
    fn lists(&self, source: &ColumnSource) -> Result<Lists, Error> {
        let mut lists = Lists::default();
        if let Form::Ranked {
            by_class,
            lists: values,
            ends,
            ..
        } = &self.form
        {
            lists.by_class = *by_class;
            values.load(source, &mut lists.values)?;
            ends.load(source, &mut lists.ends)?;
        }
        Ok(lists)
    }

    /// Calls `visit` with start, end and number of every run.
    fn each_run(
        &self,
        source: &ColumnSource,
        mut visit: impl FnMut(u32, u32, i64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Form::Runs { starts, values } = &self.form else {
            return Ok(());
        };
        let mut cursor = NumbersCursor::default();
        let mut ahead = NumbersCursor::default();
        values.each_group(
            source,
            |_, _| Ok(true),
            |group, values| {
                let next = if group + 1 < starts.groups() {
                    let next = (group + 1) * GROUP as u32;
                    starts.get(source, &mut ahead, next)?
                } else {
                    i64::from(self.count)
                };
                let starts = starts.group(source, &mut cursor, group)?;
                let ends = starts.iter().skip(1).copied().chain([next]);
                for ((&start, end), &value) in starts.iter().zip(ends).zip(values) {
                    let (start, end) = self.run_range(source, start, end)?;
                    visit(start, end, value)?;
                }
                Ok(())
            },
        )
    }

    /// The occurrences of a run.
    fn run_range(&self, source: &ColumnSource, start: i64, end: i64) -> Result<(u32, u32), Error> {
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) if start < end && end <= self.count => Ok((start, end)),
            _ => Err(source.damaged(0, "runs do not follow each other")),
        }
    }

    /// Appends all of them.
    pub(super) fn load(
        &self,
        source: &ColumnSource,
        classes: &dyn Classes,
        mut push: impl FnMut(i64),
    ) -> Result<(), Error> {
        let mut next = 0;
        self.each_piece(source, classes, |start, values| {
            if start != next {
                return Err(source.damaged(0, "runs do not follow each other"));
            }
            next += u32::try_from(values.len()).unwrap_or(u32::MAX);
            values.iter().for_each(|&value| push(value));
            Ok(())
        })?;
        if next != self.count {
            return Err(source.damaged(0, "runs do not follow each other"));
        }
        Ok(())
    }

    /// The occurrences with a wanted number, of the candidates if there are any.
    pub(super) fn find(
        &self,
        source: &ColumnSource,
        classes: &dyn Classes,
        wanted: &Wanted,
        candidates: Option<&RoaringBitmap>,
        check: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<RoaringBitmap, Error> {
        let mut found = Found::default();
        if wanted.is_empty() {
            return Ok(found.finish());
        }
        if let Some(few) = candidates
            && few.len() < u64::from(self.count) / FEW_CANDIDATES
        {
            let mut cursor = SequenceCursor::default();
            for index in few {
                if index < self.count
                    && wanted.contains(self.get(source, classes, &mut cursor, index)?)
                {
                    found.push(index);
                }
            }
            return Ok(found.finish());
        }
        match &self.form {
            Form::Plain(numbers) => {
                let found = numbers.find(source, wanted, check)?;
                return Ok(within(found, candidates));
            }
            Form::Ranked {
                ranks, by_class, ..
            } => {
                let lists = self.lists(source)?;
                if !by_class {
                    let mut of_lists = Wanted::default();
                    for (rank, &value) in (0..).zip(&lists.values) {
                        if wanted.contains(value) {
                            of_lists.push(rank);
                        }
                    }
                    of_lists.settle();
                    let found = ranks.find(source, &of_lists, check)?;
                    return Ok(within(found, candidates));
                }
                let wanted = lists.wanted(wanted);
                if !wanted.is_anywhere {
                    return Ok(found.finish());
                }
                let mut of_group = Vec::new();
                ranks.each_group(
                    source,
                    |_, entry| {
                        check()?;
                        Ok(wanted.has_ranks(entry.low, entry.high))
                    },
                    |group, ranks| {
                        let start = group * GROUP as u32;
                        let places = lists.places(start, ranks.len(), classes, &mut of_group)?;
                        for ((place, &class), &rank) in (start..).zip(places).zip(ranks) {
                            if wanted.has(&lists, class, rank) {
                                found.push(place);
                            }
                        }
                        Ok(())
                    },
                )?;
            }
            Form::Runs { starts, values } => {
                let mut cursor = NumbersCursor::default();
                for run in values.find(source, wanted, check)? {
                    let start = starts.get(source, &mut cursor, run)?;
                    let end = if run + 1 < starts.len() {
                        starts.get(source, &mut cursor, run + 1)?
                    } else {
                        i64::from(self.count)
                    };
                    let (start, end) = self.run_range(source, start, end)?;
                    found.push_range(start, end);
                }
            }
        }
        Ok(within(found.finish(), candidates))
    }
}

/// The lists of ranked numbers, in memory.
#[derive(Debug, Default)]
struct Lists {
    by_class: bool,
    values: Vec<i64>,
    ends: Vec<i64>,
}

/// Which of the listed numbers are wanted.
#[derive(Debug)]
struct WantedRanks {
    listed: Vec<bool>,
    /// By class, whether any is.
    classes: Vec<bool>,
    rank_min: i64,
    rank_max: i64,
    is_anywhere: bool,
}

impl Lists {
    /// The classes of `count` occurrences.
    fn places<'b>(
        &self,
        start: u32,
        count: usize,
        classes: &dyn Classes,
        buffer: &'b mut Vec<u32>,
    ) -> Result<&'b [u32], Error> {
        buffer.clear();
        if self.by_class {
            let end = start.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
            classes.classes(start..end, buffer)?;
        }
        buffer.resize(count, if self.by_class { u32::MAX } else { 0 });
        Ok(buffer)
    }

    /// Where the list of a class starts and ends.
    #[inline]
    fn range(&self, class: u32) -> (i64, i64) {
        let class = class as usize;
        let before = class
            .checked_sub(1)
            .and_then(|before| self.ends.get(before));
        let end = self.ends.get(class);
        (before.copied().unwrap_or(0), end.copied().unwrap_or(0))
    }

    #[inline]
    fn index(&self, class: u32, rank: i64) -> Option<usize> {
        let (start, end) = self.range(class);
        let place = start.checked_add(rank).filter(|&place| place < end)?;
        usize::try_from(place).ok()
    }

    #[inline]
    fn value(&self, source: &ColumnSource, class: u32, rank: i64) -> Result<i64, Error> {
        let index = self.index(class, rank);
        let value = index.and_then(|index| self.values.get(index)).copied();
        value.ok_or_else(|| source.damaged(0, "a rank beyond the list of its class"))
    }

    fn wanted(&self, wanted: &Wanted) -> WantedRanks {
        let listed: Vec<bool> = self.values.iter().map(|&v| wanted.contains(v)).collect();
        let mut answer = WantedRanks {
            classes: Vec::with_capacity(self.ends.len()),
            rank_min: i64::MAX,
            rank_max: -1,
            is_anywhere: false,
            listed,
        };
        let mut start = 0;
        for &end in &self.ends {
            let end = usize::try_from(end).unwrap_or(0);
            let of_class = answer.listed.get(start..end).unwrap_or_default();
            let first = of_class.iter().position(|&is_wanted| is_wanted);
            let last = of_class.iter().rposition(|&is_wanted| is_wanted);
            if let (Some(first), Some(last)) = (first, last) {
                answer.rank_min = answer.rank_min.min(first as i64);
                answer.rank_max = answer.rank_max.max(last as i64);
                answer.is_anywhere = true;
            }
            answer.classes.push(first.is_some());
            start = end;
        }
        answer
    }
}

impl WantedRanks {
    fn has_ranks(&self, low: i64, high: i64) -> bool {
        low <= self.rank_max && self.rank_min <= high
    }

    #[inline]
    fn has(&self, lists: &Lists, class: u32, rank: i64) -> bool {
        self.classes.get(class as usize).copied().unwrap_or(false)
            && lists
                .index(class, rank)
                .and_then(|index| self.listed.get(index))
                .copied()
                .unwrap_or(false)
    }
}

/// How numbers are to be written.
enum Choice {
    Plain,
    /// Starts and numbers.
    Runs(Vec<i64>, Vec<i64>),
    /// Whether by class.
    Ranked(Ranked, bool),
}

/// What plain numbers cost, by some of their groups.
fn rate(values: &[i64]) -> f64 {
    let groups = values.len().div_ceil(GROUP);
    let step = groups.div_ceil(RATED_GROUPS).max(1);
    let (mut bytes, mut rated) = (0.0, 0);
    for group in values.chunks(GROUP).step_by(step) {
        bytes += integers::group_cost_bytes(group) as f64 + ENTRY_BYTES;
        rated += group.len();
    }
    bytes * values.len() as f64 / (rated.max(1)) as f64
}

/// Bits a number takes at least that does not depend on its neighbours, by a sample.
fn entropy_bits(values: &[i64]) -> f64 {
    let step = values.len().div_ceil(SAMPLE).max(1);
    let mut sample: Vec<i64> = values.iter().step_by(step).copied().collect();
    sample.sort_unstable();
    let total = sample.len() as f64;
    let of = |equal: &[i64]| equal.len() as f64 * (total / equal.len() as f64).log2();
    sample.chunk_by(|a, b| a == b).map(of).sum::<f64>() / total
}

fn choose(values: &[i64], classes: &[u32]) -> Choice {
    if values.len() <= SMALL {
        return Choice::Plain;
    }
    let mut runs = 1_usize;
    for pair in values.windows(2) {
        runs += usize::from(matches!(pair, [a, b] if a != b));
    }
    if runs == 1 {
        return Choice::Plain;
    }
    let plain = rate(values);
    let mut best = Choice::Plain;
    let mut best_bytes = plain * GAIN_MIN;
    if runs * RUN_LENGTH_MIN <= values.len() {
        let (mut starts, mut of_runs) = (Vec::with_capacity(runs), Vec::with_capacity(runs));
        let mut last = None;
        for (at, &value) in (0_i64..).zip(values) {
            if last != Some(value) {
                starts.push(at);
                of_runs.push(value);
                last = Some(value);
            }
        }
        let bytes = rate(&starts) + rate(&of_runs);
        if bytes < best_bytes {
            (best, best_bytes) = (Choice::Runs(starts, of_runs), bytes);
        }
    }
    let bytes_of = |ranked: &Ranked| rate(&ranked.ranks) + rate(&ranked.lists) + rate(&ranked.ends);
    if !classes.is_empty()
        && let Some(ranked) = Ranked::new(values, classes)
    {
        let bytes = bytes_of(&ranked);
        if bytes < best_bytes {
            (best, best_bytes) = (Choice::Ranked(ranked, true), bytes);
        }
    }
    if entropy_bits(values) * values.len() as f64 / 8.0 < best_bytes * GAIN_MIN
        && let Some(ranked) = Ranked::new(values, &[])
        && bytes_of(&ranked) < best_bytes * GAIN_MIN
    {
        best = Choice::Ranked(ranked, false);
    }
    best
}
