//! A number for each occurrence: the codes of a dictionary, or the values themselves.
//!
//! | form | good for |
//! | --- | --- |
//! | `Plain` | anything |
//! | `Runs` | numbers that are the same for all occurrences of a trace |
//!
//! Bytes: `docs/formats/attribute-column.md`.

use roaring::RoaringBitmap;

use super::{
    Classes,
    head::HeadReader,
    numbers::{Numbers, NumbersCursor},
    sink::Sink,
    source::ColumnSource,
    wanted::{Found, Wanted},
};
use crate::error::Error;

const PLAIN: u8 = 0;
const RUNS: u8 = 1;

/// Runs must be so many times fewer than numbers to be worth a look.
const RUN_LENGTH_MIN: usize = 2;
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
}

/// What was decoded last.
#[derive(Debug, Default)]
pub(super) struct SequenceCursor {
    first: NumbersCursor,
    second: NumbersCursor,
    /// The last run: its start, its end, its number.
    run: Option<(u32, u32, i64)>,
}

impl Sequence {
    /// Writes the numbers in the cheapest form.
    pub(super) fn write(
        values: impl ExactSizeIterator<Item = i64> + Clone,
        sink: &mut Sink<'_>,
    ) -> Result<Self, Error> {
        let count = u32::try_from(values.len()).expect("a column has at most 2^32 values");
        let mut runs = 0_usize;
        let mut last = None;
        for value in values.clone() {
            runs += usize::from(last != Some(value));
            last = Some(value);
        }
        let form = if runs > 1 && runs * RUN_LENGTH_MIN <= values.len() {
            let (mut starts, mut of_runs) = (Vec::with_capacity(runs), Vec::with_capacity(runs));
            let mut last = None;
            for (at, value) in values.enumerate() {
                if last != Some(value) {
                    starts.push(at as i64);
                    of_runs.push(value);
                    last = Some(value);
                }
            }
            Form::Runs {
                starts: Numbers::write(starts.into_iter(), sink)?,
                values: Numbers::write(of_runs.into_iter(), sink)?,
            }
        } else {
            Form::Plain(Numbers::write(values, sink)?)
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
            _ => return Err(head.damaged("unknown form of codes")),
        };
        Ok(Self { count, form })
    }

    /// The form, for people.
    pub(super) fn name(&self) -> &'static str {
        match self.form {
            Form::Plain(_) => "plain",
            Form::Runs { .. } => "runs",
        }
    }

    pub(super) fn section_bytes(&self) -> u64 {
        match &self.form {
            Form::Plain(numbers) => numbers.section_bytes(),
            Form::Runs { starts, values } => starts.section_bytes() + values.section_bytes(),
        }
    }

    pub(super) fn needs_classes(&self) -> bool {
        false
    }

    /// The number of an occurrence.
    #[inline]
    pub(super) fn get(
        &self,
        source: &ColumnSource,
        _classes: &dyn Classes,
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
        }
    }

    /// Calls `visit` with every number, in order, in pieces: where a piece starts, and its numbers.
    pub(super) fn each_piece(
        &self,
        source: &ColumnSource,
        _classes: &dyn Classes,
        mut visit: impl FnMut(u32, &[i64]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match &self.form {
            Form::Plain(numbers) => numbers.each_group(
                source,
                |_, _| Ok(true),
                |group, values| visit(group * crate::column::integers::GROUP as u32, values),
            ),
            Form::Runs { .. } => {
                let mut piece = Vec::new();
                self.each_run(
                    source,
                    |_, _| true,
                    |start, end, value| {
                        let mut at = start;
                        while at < end {
                            let step = (end - at).min(4096);
                            piece.clear();
                            piece.resize(step as usize, value);
                            visit(at, &piece)?;
                            at += step;
                        }
                        Ok(())
                    },
                )
            }
        }
    }

    /// Calls `visit` with start, end and number of every run in groups that `wanted` says yes to.
    fn each_run(
        &self,
        source: &ColumnSource,
        mut wanted: impl FnMut(i64, i64) -> bool,
        mut visit: impl FnMut(u32, u32, i64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Form::Runs { starts, values } = &self.form else {
            return Ok(());
        };
        let mut cursor = NumbersCursor::default();
        let mut ahead = NumbersCursor::default();
        let wrong = || source.damaged(0, "runs do not follow each other");
        values.each_group(
            source,
            |_, entry| Ok(wanted(entry.low, entry.high)),
            |group, values| {
                let next = if group + 1 < starts.groups() {
                    let next = (group + 1) * crate::column::integers::GROUP as u32;
                    starts.get(source, &mut ahead, next)?
                } else {
                    i64::from(self.count)
                };
                let starts = starts.group(source, &mut cursor, group)?;
                let ends = starts.iter().skip(1).copied().chain([next]);
                for ((&start, end), &value) in starts.iter().zip(ends).zip(values) {
                    let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(end)) else {
                        return Err(wrong());
                    };
                    if start >= end || end > self.count {
                        return Err(wrong());
                    }
                    visit(start, end, value)?;
                }
                Ok(())
            },
        )
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
                let group_len = crate::column::integers::GROUP as u32;
                // Groups found whole are told before those behind them are looked at.
                let found = std::cell::RefCell::new(&mut found);
                numbers.each_group(
                    source,
                    |group, entry| {
                        check()?;
                        let start = group * group_len;
                        if wanted.covers(entry.low, entry.high) {
                            let len = u32::try_from(numbers.group_len(group)).unwrap_or(0);
                            found.borrow_mut().push_range(start, start + len);
                            return Ok(false);
                        }
                        Ok(wanted.touches(entry.low, entry.high))
                    },
                    |group, values| {
                        let start = group * group_len;
                        let mut found = found.borrow_mut();
                        for (place, &value) in (start..).zip(values) {
                            if wanted.contains(value) {
                                found.push(place);
                            }
                        }
                        Ok(())
                    },
                )?;
            }
            Form::Runs { .. } => {
                check()?;
                self.each_run(
                    source,
                    |low, high| wanted.touches(low, high),
                    |start, end, value| {
                        if wanted.contains(value) {
                            found.push_range(start, end);
                        }
                        Ok(())
                    },
                )?;
            }
        }
        let mut found = found.finish();
        if let Some(candidates) = candidates {
            found &= candidates;
        }
        Ok(found)
    }
}
