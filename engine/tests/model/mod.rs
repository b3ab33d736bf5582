//! A plain in-memory model of the store, and random operations to play against both.
//!
//! The model keeps every version of everything with its LSN and answers by folding; it knows nothing
//! of shards, chunks, marks or rows. Deliberately slow and obvious.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test uses its part of the model"
)]
#![allow(
    unreachable_pub,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a model for tests, shared by them as a module: a failure here is a test's failure"
)]

mod questions;
mod span_questions;
mod spans;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

pub use questions::check_questions;
use rootline_engine::{
    Engine, Exemplar, Labels, MatchOp, Matcher, Metadata, MetricKind, QueryLimits, Rejections,
    ResourceFields, ScopeFields, Snapshot, SpanFields, SpanId, SpanKind, StatusCode, TimeRange,
    Timestamp, TraceId, ValueRef, WriteBatch,
};
pub use span_questions::{check_span_questions, span_answers};
use spans::read_back;
pub use spans::{
    Condition, ModelSpan, SpanPick, expired, push_span, random_span, random_span_pick, span_id,
    trace_id,
};

/// splitmix64.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A series' exemplar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelExemplar {
    pub series: u8,
    pub time: i64,
    pub bits: u64,
    pub trace: Option<u8>,
}

/// What is said of a metric: (metric, kind, text).
pub type Described = (u8, u8, u8);

/// What one batch writes; samples are (series, time, value bits).
#[derive(Clone, Debug, Default)]
pub struct Written {
    pub samples: Vec<(u8, i64, u64)>,
    pub exemplars: Vec<ModelExemplar>,
    pub metadata: Vec<Described>,
    pub spans: Vec<ModelSpan>,
}

impl Written {
    pub fn is_empty(&self) -> bool {
        let metrics = self.samples.is_empty() && self.exemplars.is_empty();
        metrics && self.metadata.is_empty() && self.spans.is_empty()
    }
}

/// A matcher that the model understands.
#[derive(Clone, Copy, Debug)]
pub enum Pick {
    Group(u8),
    NotGroup(u8),
    Series(u8),
    LowSeries,
    NotTens,
    NoZone,
    SomeZone,
    ZoneOneOrTwo,
    ZoneOneOrNone,
}

#[derive(Clone, Debug)]
pub enum Op {
    /// Both signals in one batch.
    Write(Written),
    /// Samples and exemplars of the series that all of these pick, in a range.
    Delete {
        picks: Vec<Pick>,
        start: i64,
        end: i64,
    },
    DeleteTrace(u8),
    /// Spans, as far as they are older.
    DeleteSpans(SpanPick),
}

pub const SERIES: u64 = 12;
pub const GROUPS: u64 = 3;
pub const ZONES: u64 = 4;
pub const TRACES: u64 = 7;
pub const METRICS: u64 = 4;
pub const DAY_NS: i64 = 86_400_000_000_000;
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// An operation of a store whose clock stands at the epoch.
pub fn random_op(rng: &mut Rng) -> Op {
    random_op_at(rng, 0)
}

/// An operation on day `today`, and some before.
pub fn random_op_at(rng: &mut Rng, today: i64) -> Op {
    match rng.below(20) {
        0 | 1 => {
            let start = time(rng, today);
            let length = match rng.below(4) {
                0 => i64::try_from(rng.below(10)).unwrap() * DAY_NS,
                _ => i64::try_from(rng.below(40)).unwrap() * 1_000_000,
            };
            Op::Delete {
                picks: random_picks(rng),
                start,
                end: start.saturating_add(length),
            }
        }
        2 => Op::DeleteTrace(u8::try_from(rng.below(TRACES)).unwrap()),
        3 if rng.below(2) == 0 => {
            let mut pick = random_span_pick(rng, today);
            // Not everything too often.
            while pick.conditions.is_empty() {
                pick = random_span_pick(rng, today);
            }
            Op::DeleteSpans(pick)
        }
        _ => {
            let mut written = Written {
                samples: (0..rng.below(12))
                    .map(|_| random_sample(rng, today))
                    .collect(),
                spans: (0..rng.below(8)).map(|_| random_span(rng, today)).collect(),
                ..Written::default()
            };
            if rng.below(3) == 0 {
                let exemplars = 0..rng.below(4);
                written.exemplars = exemplars.map(|_| random_exemplar(rng, today)).collect();
            }
            if rng.below(4) == 0 {
                let mut small = |n: u64| u8::try_from(rng.below(n)).unwrap();
                written.metadata = vec![(small(METRICS), small(3), small(5))];
            }
            Op::Write(written)
        }
    }
}

/// At least one.
pub fn random_picks(rng: &mut Rng) -> Vec<Pick> {
    (0..=rng.below(2)).map(|_| random_pick(rng)).collect()
}

fn random_pick(rng: &mut Rng) -> Pick {
    let mut small = |n: u64| u8::try_from(rng.below(n)).unwrap();
    match small(10) {
        0 | 1 => Pick::Group(small(GROUPS)),
        2 => Pick::NotGroup(small(GROUPS)),
        3 => Pick::Series(small(SERIES)),
        4 => Pick::LowSeries,
        5 => Pick::NotTens,
        6 => Pick::NoZone,
        7 => Pick::SomeZone,
        8 => Pick::ZoneOneOrTwo,
        _ => Pick::ZoneOneOrNone,
    }
}

impl Pick {
    pub fn matcher(self) -> Matcher {
        let (op, name, value) = match self {
            Self::Group(group) => (MatchOp::Equal, "group", group.to_string()),
            Self::NotGroup(group) => (MatchOp::NotEqual, "group", group.to_string()),
            Self::Series(series) => (MatchOp::Equal, "series", series.to_string()),
            Self::LowSeries => (MatchOp::Regex, "series", "[0-4]".to_owned()),
            Self::NotTens => (MatchOp::NotRegex, "series", "1.+".to_owned()),
            Self::NoZone => (MatchOp::Equal, "zone", String::new()),
            Self::SomeZone => (MatchOp::NotEqual, "zone", String::new()),
            Self::ZoneOneOrTwo => (MatchOp::Regex, "zone", "z1|z2".to_owned()),
            Self::ZoneOneOrNone => (MatchOp::Regex, "zone", "(z1)?".to_owned()),
        };
        Matcher::new(op, name, &value).unwrap()
    }

    pub fn takes(self, series: u8) -> bool {
        let group = u64::from(series) % GROUPS;
        let zone = u64::from(series) % ZONES;
        match self {
            Self::Group(wanted) => group == u64::from(wanted),
            Self::NotGroup(other) => group != u64::from(other),
            Self::Series(wanted) => series == wanted,
            Self::LowSeries => series <= 4,
            Self::NotTens => series < 10,
            Self::NoZone => zone == 0,
            Self::SomeZone => zone != 0,
            Self::ZoneOneOrTwo => zone == 1 || zone == 2,
            Self::ZoneOneOrNone => zone <= 1,
        }
    }
}

pub fn matchers(picks: &[Pick]) -> Vec<Matcher> {
    picks.iter().map(|pick| pick.matcher()).collect()
}

pub fn take_all(picks: &[Pick], series: u8) -> bool {
    picks.iter().all(|pick| pick.takes(series))
}

pub fn time(rng: &mut Rng, today: i64) -> i64 {
    let days_ago = match rng.below(8) {
        0 => rng.below(4),
        1 => rng.below(20),
        _ => 0,
    };
    let day = (today - i64::try_from(days_ago).unwrap()) * DAY_NS;
    let ms = i64::try_from(rng.below(60)).unwrap() * 1_000_000;
    match rng.below(14) {
        // Off the millisecond grid: another time unit in the chunk.
        0 => day + ms + i64::try_from(rng.below(1_000_000)).unwrap(),
        1 => i64::MIN + ms,
        2 => i64::MAX - ms,
        _ => day + ms,
    }
}

fn random_sample(rng: &mut Rng, today: i64) -> (u8, i64, u64) {
    let series = u8::try_from(rng.below(SERIES)).unwrap();
    let bits = match rng.below(8) {
        0 => STALE_BITS,
        1 => (-0.0f64).to_bits(),
        2 => rng.next(),
        _ => f64::from(u8::try_from(rng.below(50)).unwrap()).to_bits(),
    };
    (series, time(rng, today), bits)
}

fn random_exemplar(rng: &mut Rng, today: i64) -> ModelExemplar {
    let trace = u8::try_from(rng.below(TRACES)).unwrap();
    ModelExemplar {
        series: u8::try_from(rng.below(SERIES)).unwrap(),
        time: time(rng, today),
        bits: f64::from(u8::try_from(rng.below(2)).unwrap()).to_bits(),
        trace: (rng.below(2) == 0).then_some(trace),
    }
}

pub fn labels(series: u8) -> Labels {
    let group = (u64::from(series) % GROUPS).to_string();
    let zone = format!("z{}", u64::from(series) % ZONES);
    let series = series.to_string();
    let mut pairs = vec![("__name__", "m"), ("series", &series), ("group", &group)];
    if zone != "z0" {
        pairs.push(("zone", &zone));
    }
    Labels::from_pairs(pairs).unwrap()
}

pub fn metadata((metric, kind, text): Described) -> Metadata {
    Metadata {
        metric: format!("metric-{metric}"),
        kind: [
            MetricKind::Counter,
            MetricKind::Gauge,
            MetricKind::Histogram,
        ][usize::from(kind)],
        unit: String::new(),
        help: format!("text-{text}"),
    }
}

pub fn fill(batch: &mut WriteBatch<'_>, samples: &[(u8, i64, u64)], spans: &[ModelSpan]) {
    for &(series, t, bits) in samples {
        let row = batch.metrics().series(&labels(series));
        batch
            .metrics()
            .sample(row, Timestamp::from_nanos(t), f64::from_bits(bits));
    }
    for span in spans {
        push_span(batch, span);
    }
}

pub fn fill_all(batch: &mut WriteBatch<'_>, written: &Written) {
    fill(batch, &written.samples, &written.spans);
    for exemplar in &written.exemplars {
        let row = batch.metrics().series(&labels(exemplar.series));
        let exemplar = Exemplar {
            time: Timestamp::from_nanos(exemplar.time),
            value: f64::from_bits(exemplar.bits),
            trace_id: exemplar.trace.map(trace_id),
            span_id: None,
            labels: Labels::empty(),
        };
        batch.metrics().exemplar(row, exemplar);
    }
    for described in &written.metadata {
        batch.metrics().metadata(metadata(*described));
    }
}

/// Everything that was ever acknowledged, by LSN.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub ops: Vec<(u64, Op)>,
}

/// What a snapshot shows: samples by (series, time), spans by trace, kind and text by metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub samples: BTreeMap<(u8, i64), u64>,
    pub exemplars: BTreeSet<ModelExemplar>,
    pub metadata: BTreeMap<u8, (u8, u8)>,
    pub spans: BTreeSet<ModelSpan>,
}

impl State {
    /// Without what retention hides.
    #[must_use]
    pub fn from(mut self, floor_ns: i64) -> Self {
        self.samples.retain(|(_, time), _| *time >= floor_ns);
        self.exemplars.retain(|e| e.time >= floor_ns);
        let expired = expired(&self.spans, floor_ns);
        self.spans.retain(|span| !expired.contains(&span.trace));
        self
    }
}

impl Model {
    pub fn at(&self, lsn: u64) -> State {
        let mut state = State::default();
        for (_, op) in self.ops.iter().filter(|(l, _)| *l <= lsn) {
            match op {
                Op::Write(written) => {
                    let samples = written.samples.iter().map(|&(s, t, v)| ((s, t), v));
                    state.samples.extend(samples);
                    state.exemplars.extend(&written.exemplars);
                    let metadata = written.metadata.iter().map(|&(m, k, t)| (m, (k, t)));
                    state.metadata.extend(metadata);
                    state.spans.extend(written.spans.iter().cloned());
                }
                Op::Delete { picks, start, end } => {
                    let is_kept = |s: u8, t: i64| t < *start || t > *end || !take_all(picks, s);
                    state.samples.retain(|(s, t), _| is_kept(*s, *t));
                    state.exemplars.retain(|e| is_kept(e.series, e.time));
                }
                Op::DeleteTrace(trace) => state.spans.retain(|s| s.trace != *trace),
                Op::DeleteSpans(pick) => state.spans.retain(|s| !pick.takes(s)),
            }
        }
        state
    }
}

/// Applies `op` to the store; `None` if it stored nothing.
pub fn apply(engine: &Engine, op: &Op) -> Result<Option<u64>, rootline_engine::Error> {
    let (lsn, rejections) = apply_counting(engine, op)?;
    assert!(rejections.is_empty(), "{rejections:?}");
    Ok(lsn)
}

/// Applies `op` to a store that keeps nothing before `floor_ns`: what is too old must be refused, and
/// leaves `op`.
pub fn apply_above(
    engine: &Engine,
    op: &mut Op,
    floor_ns: i64,
) -> Result<Option<u64>, rootline_engine::Error> {
    let (lsn, refused) = apply_counting(engine, op)?;
    let (mut samples, mut exemplars, mut spans) = (0, 0, 0);
    if let Op::Write(written) = op {
        let count = |written: &Written| {
            let (samples, exemplars) = (written.samples.len(), written.exemplars.len());
            (samples, exemplars, written.spans.len())
        };
        let before = count(written);
        written.samples.retain(|(_, time, _)| *time >= floor_ns);
        written.exemplars.retain(|e| e.time >= floor_ns);
        written.spans.retain(|s| s.end() >= floor_ns);
        let after = count(written);
        (samples, exemplars) = (before.0 - after.0, before.1 - after.1);
        spans = before.2 - after.2;
        // Metadata that say nothing new are not stored.
        assert!(lsn.is_some() || written.samples.is_empty() && written.spans.is_empty());
    }
    assert_eq!(
        (refused.samples, refused.exemplars, refused.spans),
        (samples as u64, exemplars as u64, spans as u64),
        "{op:?}: {refused:?}"
    );
    assert_eq!(refused.metadata, 0);
    Ok(lsn)
}

fn apply_counting(
    engine: &Engine,
    op: &Op,
) -> Result<(Option<u64>, Rejections), rootline_engine::Error> {
    Ok(match op {
        Op::Write(written) => {
            let mut batch = engine.batch();
            fill_all(&mut batch, written);
            let outcome = engine.write(&mut batch)?;
            (outcome.lsn.map(|lsn| lsn.0), outcome.rejections)
        }
        Op::Delete { picks, start, end } => {
            let range =
                TimeRange::new(Timestamp::from_nanos(*start), Timestamp::from_nanos(*end)).unwrap();
            let lsn = engine.delete_series(&matchers(picks), range)?.0;
            (Some(lsn), Rejections::default())
        }
        Op::DeleteTrace(trace) => {
            let lsn = engine.delete_trace(trace_id(*trace))?.0;
            (Some(lsn), Rejections::default())
        }
        Op::DeleteSpans(pick) => {
            let lsn = engine.delete_spans(&pick.filter())?.0;
            (Some(lsn), Rejections::default())
        }
    })
}

fn number(text: &str) -> u8 {
    text.rsplit('-').next().unwrap().parse().unwrap()
}

/// All a snapshot shows, through the public API.
pub fn observe(snapshot: &Snapshot) -> Result<State, rootline_engine::Error> {
    let query = snapshot
        .engine()
        .query_control(None, QueryLimits::default());
    let mut state = State::default();
    let all = [Matcher::new(MatchOp::Equal, "__name__", "m").unwrap()];
    snapshot.select(&all, TimeRange::ALL, &query, &mut |series| {
        let id = series.labels.get("series").unwrap().parse().unwrap();
        assert!(
            series.timestamps.is_sorted_by(|a, b| a < b),
            "{:?}",
            series.timestamps
        );
        for (t, v) in series.timestamps.iter().zip(series.values) {
            assert!(state.samples.insert((id, *t), v.to_bits()).is_none());
        }
        Ok(ControlFlow::Continue(()))
    })?;
    state.exemplars = exemplars(snapshot.exemplars(&all, TimeRange::ALL, &query)?);
    for entry in snapshot.metadata(None)? {
        let metric = number(&entry.metric);
        let described = (0..3u8)
            .map(|kind| (metric, kind, number(&entry.help)))
            .find(|described| metadata(*described) == entry)
            .unwrap();
        let added = state.metadata.insert(metric, (described.1, described.2));
        assert!(added.is_none());
    }
    for trace in 0..u8::try_from(TRACES).unwrap() {
        let Some(found) = snapshot.trace(trace_id(trace), &query)? else {
            continue;
        };
        check_parents(&found);
        for span in &found.spans {
            let added = state.spans.insert(read_back(span));
            assert!(added, "a span is shown once");
        }
    }
    Ok(state)
}

pub fn series_of(labels: &Labels) -> u8 {
    labels.get("series").unwrap().parse().unwrap()
}

fn exemplars(found: Vec<rootline_engine::SeriesExemplars>) -> BTreeSet<ModelExemplar> {
    let mut all = BTreeSet::new();
    for of_series in found {
        let series = series_of(&of_series.labels);
        assert!(of_series.exemplars.is_sorted_by_key(|e| e.time));
        for exemplar in of_series.exemplars {
            let added = all.insert(ModelExemplar {
                series,
                time: exemplar.time.as_nanos(),
                bits: exemplar.value.to_bits(),
                trace: exemplar.trace_id.map(|id| id.as_bytes()[15]),
            });
            assert!(added, "an exemplar is shown once");
        }
    }
    all
}

/// The parents by the rule of the store's documentation, found the slow way.
fn check_parents(trace: &rootline_engine::Trace) {
    let spans = &trace.spans;
    let order = |row: usize| {
        (
            spans[row].start,
            spans[row].span_id,
            spans[row].content_hash(),
        )
    };
    let rows: Vec<usize> = (0..spans.len()).collect();
    assert!(rows.is_sorted_by(|a, b| order(*a) < order(*b)));
    let mut parents: Vec<Option<usize>> = Vec::new();
    for span in spans {
        let same = |row: &usize| std::ptr::eq(&raw const spans[*row], span);
        let of_id = |row: &usize| Some(spans[*row].span_id) == span.parent_span_id;
        let candidates = rows.iter().copied().filter(|row| of_id(row) && !same(row));
        parents.push(candidates.min_by_key(|row| {
            let other = &spans[*row];
            let called = matches!(other.kind, SpanKind::Server | SpanKind::Consumer);
            let preferred = called && other.service() == span.service();
            (!preferred, other.start, other.content_hash())
        }));
    }
    for row in 0..spans.len() {
        // As many steps as there are spans end in a cycle, if at all.
        let up = |from: Option<usize>| from.and_then(|row| parents[row]);
        let mut end = Some(row);
        for _ in 0..spans.len() {
            end = up(end);
        }
        let Some(end) = end else {
            continue;
        };
        let mut cycle = vec![end];
        while let Some(next) = up(cycle.last().copied()).filter(|next| *next != end) {
            cycle.push(next);
        }
        let least = cycle.into_iter().min_by_key(|row| order(*row)).unwrap();
        parents[least] = None;
    }
    let found = trace.parents.iter().map(|p| p.map(|row| row as usize));
    assert!(found.eq(parents.iter().copied()), "{parents:?} {trace:?}");
}
