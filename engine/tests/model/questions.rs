//! Random questions about metrics, answered by a snapshot and by the plain state.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use rootline_engine::{CardinalityBy, QueryLimits, Snapshot, TimeRange, Timestamp};

use super::{
    DAY_NS, METRICS, Pick, Rng, STALE_BITS, State, check_span_questions, exemplars, labels,
    matchers, metadata, random_picks, series_of, take_all, time,
};

/// Asks `snapshot` one of each kind of question; the answers must be those of `state`.
pub fn check_questions(
    snapshot: &Snapshot,
    state: &State,
    rng: &mut Rng,
    today: i64,
) -> Result<(), rootline_engine::Error> {
    let picks = if rng.below(4) == 0 {
        Vec::new()
    } else {
        random_picks(rng)
    };
    let range = random_range(rng, today);
    let asked = format!("{picks:?} in {range}");
    let query = snapshot
        .engine()
        .query_control(None, QueryLimits::default());
    let wanted = matchers(&picks);

    let expected = in_range(state, &picks, range);
    let mut found: BTreeMap<u8, Vec<(i64, u64)>> = BTreeMap::new();
    snapshot.select(&wanted, range, &query, &mut |series| {
        let values = series.values.iter().map(|v| v.to_bits());
        let samples = series.timestamps.iter().copied().zip(values).collect();
        let before = found.insert(series_of(series.labels), samples);
        assert!(before.is_none(), "a series is shown once");
        Ok(ControlFlow::Continue(()))
    })?;
    assert_eq!(found, expected, "select {asked}");

    let mut names: Vec<_> = expected.keys().map(|s| labels(*s)).collect();
    names.sort();
    assert_eq!(
        snapshot.series(&wanted, range, &query)?,
        names,
        "series {asked}"
    );

    check_labels(snapshot, &expected, &wanted, range, rng, &asked)?;
    check_summary(snapshot, &expected, &wanted, range, &asked)?;

    let whole = in_range(state, &picks, TimeRange::ALL);
    let times = || whole.values().flatten().map(|(time, _)| *time);
    let bounds = times().min().zip(times().max());
    let found = snapshot.metric_time_bounds(&wanted, &query)?;
    let found = found.map(|range| (range.start().as_nanos(), range.end().as_nanos()));
    assert_eq!(found, bounds, "time bounds {asked}");

    let expected = state
        .exemplars
        .iter()
        .filter(|e| take_all(&picks, e.series) && range.contains(Timestamp::from_nanos(e.time)));
    let expected: BTreeSet<_> = expected.copied().collect();
    let found = exemplars(snapshot.exemplars(&wanted, range, &query)?);
    assert_eq!(found, expected, "exemplars {asked}");

    let metric = u8::try_from(rng.below(METRICS)).unwrap();
    let expected = state.metadata.get(&metric);
    let expected: Vec<_> = expected
        .map(|(kind, text)| metadata((metric, *kind, *text)))
        .into_iter()
        .collect();
    let found = snapshot.metadata(Some(&format!("metric-{metric}")))?;
    assert_eq!(found, expected, "metadata");

    check_cardinality(snapshot, state, rng)?;
    check_span_questions(snapshot, state, rng, today)
}

fn random_range(rng: &mut Rng, today: i64) -> TimeRange {
    if rng.below(3) == 0 {
        return TimeRange::ALL;
    }
    let start = time(rng, today);
    let length = match rng.below(3) {
        0 => 0,
        1 => i64::try_from(rng.below(30)).unwrap() * 1_000_000,
        _ => i64::try_from(rng.below(20)).unwrap() * DAY_NS,
    };
    let end = start.saturating_add(length);
    TimeRange::new(Timestamp::from_nanos(start), Timestamp::from_nanos(end)).unwrap()
}

fn in_range(state: &State, picks: &[Pick], range: TimeRange) -> BTreeMap<u8, Vec<(i64, u64)>> {
    let mut by_series: BTreeMap<u8, Vec<(i64, u64)>> = BTreeMap::new();
    for (&(series, time), &bits) in &state.samples {
        if take_all(picks, series) && range.contains(Timestamp::from_nanos(time)) {
            by_series.entry(series).or_default().push((time, bits));
        }
    }
    by_series
}

fn check_labels(
    snapshot: &Snapshot,
    expected: &BTreeMap<u8, Vec<(i64, u64)>>,
    wanted: &[rootline_engine::Matcher],
    range: TimeRange,
    rng: &mut Rng,
    asked: &str,
) -> Result<(), rootline_engine::Error> {
    let query = snapshot
        .engine()
        .query_control(None, QueryLimits::default());
    let all: Vec<_> = expected.keys().map(|s| labels(*s)).collect();
    let limit = usize::try_from(1 + rng.below(5)).unwrap();
    let names: BTreeSet<String> = all
        .iter()
        .flat_map(|labels| labels.iter().map(|(name, _)| name.to_owned()))
        .collect();
    let names: Vec<String> = names.into_iter().take(limit).collect();
    let found = snapshot.label_names(wanted, range, limit, &query)?;
    assert_eq!(found, names, "label names {asked}");

    let name = ["series", "zone", "group", "none"][usize::try_from(rng.below(4)).unwrap()];
    let prefix = ["", "1", "z", "z1"][usize::try_from(rng.below(4)).unwrap()];
    let values = all.iter().filter_map(|labels| labels.get(name));
    let values = values.filter(|value| value.starts_with(prefix));
    let values: BTreeSet<String> = values.map(str::to_owned).collect();
    let values: Vec<String> = values.into_iter().take(limit).collect();
    let found = snapshot.label_values(name, wanted, prefix, range, limit, &query)?;
    assert_eq!(
        found, values,
        "values of {name}, {prefix:?}, {limit}: {asked}"
    );
    Ok(())
}

fn check_summary(
    snapshot: &Snapshot,
    expected: &BTreeMap<u8, Vec<(i64, u64)>>,
    wanted: &[rootline_engine::Matcher],
    range: TimeRange,
    asked: &str,
) -> Result<(), rootline_engine::Error> {
    let query = snapshot
        .engine()
        .query_control(None, QueryLimits::default());
    let mut found = BTreeMap::new();
    snapshot.summary(wanted, range, &query, &mut |series| {
        let ends = (series.min + 0.0, series.max + 0.0);
        let before = found.insert(
            series_of(series.labels),
            (
                series.count,
                series.nans,
                ends.0.to_bits(),
                ends.1.to_bits(),
            ),
        );
        assert!(before.is_none(), "a series is shown once");
        Ok(ControlFlow::Continue(()))
    })?;
    let expected: BTreeMap<_, _> = expected
        .iter()
        .map(|(series, samples)| {
            let values = samples.iter().filter(|(_, bits)| *bits != STALE_BITS);
            let values: Vec<f64> = values.map(|(_, bits)| f64::from_bits(*bits)).collect();
            let nans = values.iter().filter(|v| v.is_nan()).count() as u64;
            // Zeros of either sign are one; NaN is left out by `min` and `max`.
            let min = values.iter().copied().fold(f64::INFINITY, f64::min) + 0.0;
            let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max) + 0.0;
            let count = values.len() as u64;
            (*series, (count, nans, min.to_bits(), max.to_bits()))
        })
        .collect();
    assert_eq!(found, expected, "summary {asked}");
    Ok(())
}

fn check_cardinality(
    snapshot: &Snapshot,
    state: &State,
    rng: &mut Rng,
) -> Result<(), rootline_engine::Error> {
    let query = snapshot
        .engine()
        .query_control(None, QueryLimits::default());
    let by = match rng.below(3) {
        0 => CardinalityBy::Name,
        1 => CardinalityBy::Label("zone"),
        _ => CardinalityBy::Pair,
    };
    let found = snapshot.cardinality(by, 1000, &query)?;
    let series: BTreeSet<u8> = state.samples.keys().map(|(series, _)| *series).collect();
    assert!(found.exact, "so few series are counted exactly");
    assert_eq!(found.series, series.len() as u64);
    let mut counts: BTreeMap<(String, String), (u64, BTreeSet<String>)> = BTreeMap::new();
    for series in series {
        for (name, value) in &labels(series) {
            if matches!(by, CardinalityBy::Label(label) if label != name) {
                continue;
            }
            let key = match by {
                CardinalityBy::Name => String::new(),
                _ => value.to_owned(),
            };
            let count = counts.entry((name.to_owned(), key)).or_default();
            count.0 += 1;
            count.1.insert(value.to_owned());
        }
    }
    let mut expected: Vec<_> = counts
        .into_iter()
        .map(|((name, value), (series, values))| (name, value, series, values.len() as u64))
        .collect();
    expected.sort_by_key(|(_, _, series, _)| std::cmp::Reverse(*series));
    let found = found.items.into_iter();
    let found: Vec<_> = found
        .map(|item| (item.name, item.value, item.series, item.values))
        .collect();
    assert_eq!(found, expected, "cardinality by {by:?}");
    Ok(())
}
