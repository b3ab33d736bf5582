//! Statistics of samples, grouped by labels.
//!
//! Staleness markers are left out and counted: they say that a series ended, not a value. Other NaN
//! values are left out and counted apart: they have no place in an order. Infinite values take part.
//! Quantiles are exact, by selection: the values of all open groups are held meanwhile, 8 bytes each,
//! booked on the budget. With a group for each series only one group is open at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use rootline_engine::{
    Error as EngineError, Labels, Matcher, QueryControl, SeriesSamples, Snapshot, TimeRange,
    Timestamp,
};

use crate::{error::Error, memory::Memory, statistics::Statistics};

/// The NaN by which Prometheus marks the end of a series.
pub const STALENESS_MARKER_BITS: u64 = 0x7ff0_0000_0000_0002;

/// What samples are grouped by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupSamplesBy {
    /// The values of these labels; none: all samples in one group.
    Labels(Vec<String>),
    /// Each series is a group.
    Series,
}

/// One group.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricStatsGroup {
    /// What its series share: all labels of the series, or those grouped by that are not empty.
    pub labels: Labels,
    /// Series with a sample in the range.
    pub series: u64,
    /// Time of the earliest and the latest sample counted.
    pub times: Option<(Timestamp, Timestamp)>,
    /// The figures; `None` if only NaN and staleness markers were found.
    pub statistics: Option<Statistics>,
    /// Samples left out for being NaN.
    pub nan_samples: u64,
    /// Staleness markers left out.
    pub stale_samples: u64,
}

/// What became of the question as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricStatsOutcome {
    /// Groups given.
    pub groups: u64,
    /// Samples read.
    pub samples: u64,
}

/// Gives `visit` each group, in order of labels, for the samples in `range` of the series that
/// `matchers` select. `visit` may stop the query.
///
/// # Errors
/// When `visit` fails, the query is stopped, or memory or another bound runs out.
pub fn metric_stats(
    snapshot: &Snapshot,
    matchers: &[Matcher],
    range: TimeRange,
    by: &GroupSamplesBy,
    control: &QueryControl,
    memory: &mut Memory,
    visit: &mut dyn FnMut(MetricStatsGroup) -> Result<ControlFlow<()>, Error>,
) -> Result<MetricStatsOutcome, Error> {
    let mut outcome = MetricStatsOutcome::default();
    let mut open: BTreeMap<Labels, Open> = BTreeMap::new();
    let mut failed: Option<Error> = None;
    let mut each_series = Open::default();
    let names: Vec<&str> = match by {
        GroupSamplesBy::Series => Vec::new(),
        GroupSamplesBy::Labels(names) => names
            .iter()
            .map(String::as_str)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
    };
    snapshot.select(matchers, range, control, &mut |series: SeriesSamples<
        '_,
    >| {
        outcome.samples += series.values.len() as u64;
        let step = match by {
            GroupSamplesBy::Series => each_series.add(&series, memory).and_then(|()| {
                outcome.groups += 1;
                visit(each_series.close(series.labels.clone()))
            }),
            GroupSamplesBy::Labels(_) => group_labels(series.labels, &names)
                .map_err(Error::from)
                .and_then(|labels| open.entry(labels).or_default().add(&series, memory))
                .map(|()| ControlFlow::Continue(())),
        };
        Ok(step.unwrap_or_else(|error| {
            failed = Some(error);
            ControlFlow::Break(())
        }))
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    while let Some((labels, mut group)) = open.pop_first() {
        control.check()?;
        outcome.groups += 1;
        let held_bytes = group.held_bytes();
        let flow = visit(group.close(labels))?;
        drop(group);
        memory.give_back(held_bytes);
        if flow.is_break() {
            break;
        }
    }
    Ok(outcome)
}

/// The labels of `labels` that are grouped by; `names` holds none twice.
fn group_labels(labels: &Labels, names: &[&str]) -> Result<Labels, EngineError> {
    let pairs = names
        .iter()
        .filter_map(|name| Some((*name, labels.get(name)?)));
    Labels::from_pairs(pairs).map_err(EngineError::InvalidLabels)
}

/// A group that still takes samples.
#[derive(Default)]
struct Open {
    values: Vec<f64>,
    series: u64,
    times: Option<(i64, i64)>,
    nan_samples: u64,
    stale_samples: u64,
}

impl Open {
    fn add(&mut self, series: &SeriesSamples<'_>, memory: &mut Memory) -> Result<(), Error> {
        memory.take_growth(&mut self.values, series.values.len())?;
        self.series += 1;
        for (&t, &v) in series.timestamps.iter().zip(series.values) {
            if v.to_bits() == STALENESS_MARKER_BITS {
                self.stale_samples += 1;
            } else if v.is_nan() {
                self.nan_samples += 1;
            } else {
                self.values.push(v);
                let (first, last) = self.times.unwrap_or((t, t));
                self.times = Some((first.min(t), last.max(t)));
            }
        }
        Ok(())
    }

    /// The figures; the group is empty again and keeps its room.
    fn close(&mut self, labels: Labels) -> MetricStatsGroup {
        let group = MetricStatsGroup {
            labels,
            series: self.series,
            times: self
                .times
                .map(|(a, b)| (Timestamp::from_nanos(a), Timestamp::from_nanos(b))),
            statistics: Statistics::of(&mut self.values),
            nan_samples: self.nan_samples,
            stale_samples: self.stale_samples,
        };
        self.values.clear();
        *self = Self {
            values: std::mem::take(&mut self.values),
            ..Self::default()
        };
        group
    }

    fn held_bytes(&self) -> u64 {
        (self.values.capacity() * size_of::<f64>()) as u64
    }
}
