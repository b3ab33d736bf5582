//! Samples of one series in two columns, put together from runs.
//!
//! A *run* is what one part gives: times rise strictly in it. Runs stand one behind the other, oldest
//! part first. As a rule each ends before the next begins, and then they are the answer as they
//! stand; else neighbours are merged in pairs until one run is left, so that each sample moves once
//! for every doubling of the number of runs. Of two samples at one time that of the later run stays.

use std::cmp::Ordering;

use crate::time::{TimeRange, Timestamp};

/// See the module's doc. Reused from series to series.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    pub(crate) times: Vec<i64>,
    pub(crate) values: Vec<f64>,
    merged_times: Vec<i64>,
    merged_values: Vec<f64>,
    /// Where each run begins.
    runs: Vec<usize>,
}

impl Samples {
    pub(crate) fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.runs.clear();
    }

    /// Appends samples to both columns.
    pub(crate) fn extend(&mut self, samples: impl Iterator<Item = (i64, f64)>) {
        for (time, value) in samples {
            self.times.push(time);
            self.values.push(value);
        }
    }

    /// From the first to the last sample of settled runs.
    pub(crate) fn bounds(&self) -> Option<TimeRange> {
        let (first, last) = (self.times.first()?, self.times.last()?);
        TimeRange::new(Timestamp::from_nanos(*first), Timestamp::from_nanos(*last)).ok()
    }

    /// Begins a run: what is pushed to both columns from here on. Returns where.
    pub(crate) fn begin_run(&mut self) -> usize {
        // An empty run leaves no trace.
        if self.runs.last() != Some(&self.times.len()) {
            self.runs.push(self.times.len());
        }
        self.times.len()
    }

    /// Takes the samples out for which `is_hidden` holds, from `start` on.
    pub(crate) fn hide(&mut self, start: usize, mut is_hidden: impl FnMut(i64) -> bool) {
        let mut kept = start;
        for index in start..self.times.len() {
            let (Some(&time), Some(&value)) = (self.times.get(index), self.values.get(index))
            else {
                break;
            };
            if is_hidden(time) {
                continue;
            }
            if let (Some(t), Some(v)) = (self.times.get_mut(kept), self.values.get_mut(kept)) {
                *t = time;
                *v = value;
            }
            kept += 1;
        }
        self.times.truncate(kept);
        self.values.truncate(kept);
    }

    /// Merges sorted samples into those from `start` on; they win over those of the same time.
    pub(crate) fn merge(&mut self, start: usize, newer: &[(i64, f64)]) {
        let Some(&(first, _)) = newer.first() else {
            return;
        };
        // What is before the first of them stays in place.
        let of_run = self.times.get(start..).unwrap_or_default();
        let kept = start + of_run.partition_point(|&time| time < first);
        self.merged_times.clear();
        self.merged_values.clear();
        let old = self.times.iter().copied().zip(self.values.iter().copied());
        let mut old = old.skip(kept).peekable();
        for &(time, value) in newer {
            while let Some((old_time, old_value)) = old.next_if(|(t, _)| *t < time) {
                self.merged_times.push(old_time);
                self.merged_values.push(old_value);
            }
            let _ = old.next_if(|(t, _)| *t == time);
            self.merged_times.push(time);
            self.merged_values.push(value);
        }
        for (time, value) in old {
            self.merged_times.push(time);
            self.merged_values.push(value);
        }
        self.times.truncate(kept);
        self.values.truncate(kept);
        self.times.extend_from_slice(&self.merged_times);
        self.values.extend_from_slice(&self.merged_values);
    }

    /// Makes one run of all.
    pub(crate) fn settle(&mut self) {
        // The last run may have been left empty.
        self.runs.retain(|&start| start < self.times.len());
        let in_order = |start: &usize| {
            let before = start.checked_sub(1).and_then(|at| self.times.get(at));
            before.is_none_or(|before| self.times.get(*start).is_some_and(|at| before < at))
        };
        if self.runs.iter().all(in_order) {
            self.runs.truncate(1);
            return;
        }
        let mut merged_runs = Vec::with_capacity(self.runs.len().div_ceil(2));
        while self.runs.len() > 1 {
            self.merged_times.clear();
            self.merged_values.clear();
            merged_runs.clear();
            let mut starts = self.runs.iter().copied();
            let all = self.times.len();
            let mut next = starts.next();
            while let Some(start) = next {
                let middle = starts.next().unwrap_or(all);
                next = starts.next();
                let end = next.unwrap_or(all);
                merged_runs.push(self.merged_times.len());
                let (times, values) = (&self.times, &self.values);
                merge_two(
                    (column(times, start, middle), column(values, start, middle)),
                    (column(times, middle, end), column(values, middle, end)),
                    &mut self.merged_times,
                    &mut self.merged_values,
                );
            }
            std::mem::swap(&mut self.times, &mut self.merged_times);
            std::mem::swap(&mut self.values, &mut self.merged_values);
            std::mem::swap(&mut self.runs, &mut merged_runs);
        }
    }
}

fn column<T>(all: &[T], start: usize, end: usize) -> &[T] {
    all.get(start..end).unwrap_or_default()
}

/// Appends the merge of two runs; the newer one wins.
fn merge_two<'c>(
    mut older: Columns<'c>,
    mut newer: Columns<'c>,
    out_times: &mut Vec<i64>,
    out_values: &mut Vec<f64>,
) {
    let mut append = |(times, values): Columns<'c>| {
        out_times.extend_from_slice(times);
        out_values.extend_from_slice(values);
    };
    // By stretches: as many samples of one run as lie before the next of the other.
    while let (Some(old), Some(new)) = (older.0.first(), newer.0.first()) {
        match old.cmp(new) {
            Ordering::Less => {
                let (taken, rest) = split(older, count_before(older.0, *new));
                append(taken);
                older = rest;
            }
            Ordering::Greater => {
                let (taken, rest) = split(newer, count_before(newer.0, *old));
                append(taken);
                newer = rest;
            }
            Ordering::Equal => older = split(older, 1).1,
        }
    }
    append(older);
    append(newer);
}

type Columns<'c> = (&'c [i64], &'c [f64]);

fn split((times, values): Columns<'_>, count: usize) -> (Columns<'_>, Columns<'_>) {
    (
        (column(times, 0, count), column(values, 0, count)),
        (
            column(times, count, times.len()),
            column(values, count, values.len()),
        ),
    )
}

/// How many of the rising times lie before `end`: searched in steps that double, since a stretch is
/// either a sample or two, or the rest.
fn count_before(times: &[i64], end: i64) -> usize {
    let mut low = 0;
    let mut step = 1;
    while times.get(low + step).is_some_and(|&time| time < end) {
        low += step;
        step *= 2;
    }
    let rest = column(times, low, times.len().min(low + step));
    low + rest.partition_point(|&time| time < end)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_in_any_order_become_one_in_which_the_last_run_wins(
            runs in prop::collection::vec(
                prop::collection::btree_map(-40i64..40, any::<u32>(), 0..30), 0..9),
            shifts in prop::collection::vec(-3i64..3, 9),
        ) {
            let mut samples = Samples::default();
            let mut want = BTreeMap::new();
            for (run, shift) in runs.iter().zip(&shifts) {
                samples.begin_run();
                for (time, value) in run {
                    samples.times.push(time + shift * 60);
                    samples.values.push((*value).into());
                    want.insert(time + shift * 60, f64::from(*value));
                }
            }
            samples.begin_run();
            samples.settle();
            prop_assert_eq!(&samples.times, &want.keys().copied().collect::<Vec<_>>());
            prop_assert_eq!(&samples.values, &want.values().copied().collect::<Vec<_>>());
        }

        #[test]
        fn hidden_times_go_and_earlier_runs_stay(
            times in prop::collection::btree_set(0i64..50, 0..40), start in 0usize..40,
        ) {
            let times: Vec<i64> = times.into_iter().collect();
            let start = start.min(times.len());
            let mut samples = Samples::default();
            samples.times.extend(&times);
            samples.values.resize(times.len(), 0.0);
            samples.hide(start, |time| time % 3 == 0);
            let want = times.iter().enumerate().filter(|(i, t)| *i < start || *t % 3 != 0);
            prop_assert_eq!(&samples.times, &want.map(|(_, t)| *t).collect::<Vec<_>>());
            prop_assert_eq!(samples.times.len(), samples.values.len());
        }
    }
}
