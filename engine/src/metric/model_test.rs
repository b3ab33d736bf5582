//! The promise: a snapshot sees the effect of the records up to its LSN, whatever was applied
//! since, and replay of the records ends in the same answers.
//!
//! Random batches (late, repeated, twice at one time, over several shards), deletes and pins are
//! played to a head and to a naive model that keeps every record. At every LSN that a snapshot may
//! still have, all questions must agree. `PROPTEST_RNG_SEED` replays a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use proptest::prelude::*;
use rootline_index::{Labels, MatchOp, Matcher};
use rootline_wal::Lsn;

use super::*;
use crate::{
    budget::{Budget, Holder},
    control::{QueryControl, QueryLimits},
    outcome::Rejections,
    record::{self, RecordWriter, Tag},
    settings::Settings,
    time::{TimeRange, Timestamp},
};

pub(super) const SERIES: usize = 7;

/// One series' samples: bits by time.
pub(super) type Answer = BTreeMap<Labels, BTreeMap<i64, u64>>;

#[derive(Clone, Debug)]
pub(super) enum Op {
    /// (series, time, value) in the order of the request.
    Write(Vec<(usize, i64, f64)>),
    /// Enough rising samples to fill chunks.
    Run {
        series: usize,
        start: i64,
        count: i64,
    },
    Delete {
        matcher: usize,
        range: (i64, i64),
    },
    /// Opens a snapshot at the newest LSN.
    Pin,
    /// Closes the oldest snapshot.
    Unpin,
}

pub(super) fn labels(series: usize) -> Labels {
    let even = if series.is_multiple_of(2) { "yes" } else { "" };
    let name = format!("m{}", series % 3);
    let pairs = [
        ("__name__", name.as_str()),
        ("even", even),
        ("id", &series.to_string()),
    ];
    Labels::from_pairs(pairs).unwrap()
}

pub(super) fn matchers(which: usize) -> Vec<Matcher> {
    let matcher = |op, name, value| Matcher::new(op, name, value).unwrap();
    match which {
        0 => vec![],
        1 => vec![Matcher::equal("even", "")],
        2 => vec![matcher(MatchOp::Regex, "id", "[0-3]")],
        3 => vec![
            Matcher::equal("__name__", "m1"),
            matcher(MatchOp::NotEqual, "even", "yes"),
        ],
        _ => vec![Matcher::equal("id", &(which % SERIES).to_string())],
    }
}

pub(super) fn range((a, b): (i64, i64)) -> TimeRange {
    TimeRange::new(
        Timestamp::from_nanos(a.min(b)),
        Timestamp::from_nanos(a.max(b)),
    )
    .unwrap()
}

pub(super) fn control() -> QueryControl {
    control_within(QueryLimits {
        series_max: 1 << 20,
        samples_max: 1 << 40,
        spans_max: 0,
    })
}

pub(super) fn control_within(limits: QueryLimits) -> QueryControl {
    QueryControl::new(Arc::new(rootline_wal::SystemClock::new()), None, limits)
}

pub(super) fn settings(shards: usize) -> Settings {
    Settings {
        metric_shards: shards,
        ..Settings::default()
    }
}

/// Records by rising LSN, as plain data.
#[derive(Default)]
pub(super) struct Model {
    pub(super) records: Vec<(u64, Op)>,
}

impl Model {
    pub(super) fn at(&self, at: u64, which: usize, within: TimeRange) -> Answer {
        let mut all = Answer::new();
        for (_, op) in self.records.iter().filter(|(lsn, _)| *lsn <= at) {
            match op {
                Op::Write(samples) => {
                    for (series, t, v) in samples {
                        all.entry(labels(*series))
                            .or_default()
                            .insert(*t, v.to_bits());
                    }
                }
                Op::Run {
                    series,
                    start,
                    count,
                } => {
                    let of_series = all.entry(labels(*series)).or_default();
                    of_series.extend(run(*start, *count).map(|(t, v)| (t, v.to_bits())));
                }
                Op::Delete { matcher, range: r } => {
                    let matchers = matchers(*matcher);
                    let hit = |l: &Labels| matchers.iter().all(|m| m.matches_labels(l));
                    for (_, samples) in all.iter_mut().filter(|(labels, _)| hit(labels)) {
                        samples.retain(|t, _| !range(*r).contains(Timestamp::from_nanos(*t)));
                    }
                }
                Op::Pin | Op::Unpin => {}
            }
        }
        let matchers = matchers(which);
        all.retain(|labels, samples| {
            samples.retain(|t, _| within.contains(Timestamp::from_nanos(*t)));
            !samples.is_empty() && matchers.iter().all(|m| m.matches_labels(labels))
        });
        all
    }
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
pub(super) fn run(start: i64, count: i64) -> impl Iterator<Item = (i64, f64)> {
    (0..count).map(move |i| (start + i, (i % 5) as f64))
}

/// A head fed as the core feeds it, with the records it would have logged.
struct Store {
    head: Arc<MetricHead>,
    next: u64,
    pins: BTreeSet<u64>,
    log: Vec<(u64, Vec<u8>, Option<Op>)>,
}

impl Store {
    fn new(shards: usize, budget: Arc<Budget>) -> Self {
        let head = Arc::new(MetricHead::new(&settings(shards), budget));
        Self {
            head,
            next: 1,
            pins: BTreeSet::new(),
            log: Vec::new(),
        }
    }

    fn floor(&self) -> u64 {
        self.pins
            .first()
            .copied()
            .unwrap_or(u64::MAX)
            .min(self.next - 1)
    }

    fn write(&mut self, samples: impl Iterator<Item = (usize, i64, f64)>, durable: u64) -> u64 {
        let mut batch = MetricBatch::new(self.head.hash_key());
        for (series, t, v) in samples {
            let row = batch.series(&labels(series));
            batch.sample(row, Timestamp::from_nanos(t), v);
        }
        let mut writer = RecordWriter::default();
        let mut rejections = Rejections::default();
        let prepared = self
            .head
            .prepare(&mut batch, Lsn(durable), &mut writer, &mut rejections)
            .unwrap();
        assert!(rejections.is_empty());
        assert_eq!(prepared.sample_count(), batch.samples_len() as u64);
        let lsn = self.next;
        self.head.logged(&prepared, Lsn(lsn));
        let floor = self.floor();
        for shard in 0..self.head.shards() {
            if prepared.touches(shard) {
                self.head.apply(shard, Lsn(lsn), &prepared, Lsn(floor));
            }
        }
        self.log.push((lsn, writer.payload().to_vec(), None));
        self.next += 1;
        lsn
    }

    fn delete(&mut self, which: usize, within: TimeRange) -> u64 {
        let (lsn, floor) = (self.next, self.floor());
        for shard in 0..self.head.shards() {
            self.head
                .delete(shard, Lsn(lsn), &matchers(which), within, Lsn(floor));
        }
        let op = Op::Delete {
            matcher: which,
            range: (within.start().as_nanos(), within.end().as_nanos()),
        };
        self.log.push((lsn, Vec::new(), Some(op)));
        self.next += 1;
        lsn
    }

    /// A fresh head with other shards, filled from the log.
    fn replayed(&self, shards: usize) -> Arc<MetricHead> {
        let head = Arc::new(MetricHead::new(&settings(shards), Budget::new(u64::MAX)));
        for (lsn, payload, delete) in &self.log {
            let lsn = Lsn(*lsn);
            if let Some(Op::Delete { matcher, range: r }) = delete {
                for shard in 0..head.shards() {
                    head.delete(shard, lsn, &matchers(*matcher), range(*r), lsn);
                }
                continue;
            }
            let mut prepared = PreparedMetrics::default();
            for part in record::parts(lsn, payload) {
                head.decode(part.unwrap(), &mut prepared).unwrap();
            }
            for shard in 0..head.shards() {
                if prepared.touches(shard) {
                    head.apply(shard, lsn, &prepared, lsn);
                }
            }
        }
        assert_eq!(head.orphaned_samples(), 0);
        head.replayed();
        head
    }
}

/// A view of one generation.
fn alone(head: &Arc<MetricHead>) -> MetricView {
    MetricView::of(Arc::clone(head))
}

pub(super) fn select(view: &MetricView, at: u64, which: usize, within: TimeRange) -> Answer {
    let mut answer = Answer::new();
    let mut previous: Option<Labels> = None;
    view.select(
        Lsn(at),
        &matchers(which),
        within,
        &control(),
        &mut |series| {
            assert!(
                previous.as_ref().is_none_or(|p| p < series.labels),
                "in order of labels"
            );
            previous = Some(series.labels.clone());
            assert!(series.timestamps.windows(2).all(|pair| pair[0] < pair[1]));
            let bits = series.values.iter().map(|v| v.to_bits());
            answer.insert(
                series.labels.clone(),
                series.timestamps.iter().copied().zip(bits).collect(),
            );
            Ok(ControlFlow::Continue(()))
        },
    )
    .unwrap();
    answer
}

pub(super) fn check(view: &MetricView, model: &Model, at: u64, which: usize, within: TimeRange) {
    let want = model.at(at, which, within);
    assert_eq!(select(view, at, which, within), want, "at {at}");

    let ctl = control();
    let m = matchers(which);
    let series: Vec<Labels> = view.series(Lsn(at), &m, within, &ctl).unwrap();
    assert_eq!(series, want.keys().cloned().collect::<Vec<_>>());
    let names: BTreeSet<String> = want
        .keys()
        .flat_map(|l| l.iter().map(|(n, _)| n.to_owned()))
        .collect();
    let got = view
        .label_names(Lsn(at), &m, within, usize::MAX, &ctl)
        .unwrap();
    assert_eq!(got, names.into_iter().collect::<Vec<_>>());
    let ids: BTreeSet<String> = want
        .keys()
        .filter_map(|l| l.get("id"))
        .map(str::to_owned)
        .collect();
    let got = view
        .label_values(Lsn(at), "id", &m, "", within, 3, &ctl)
        .unwrap();
    assert_eq!(got, ids.into_iter().take(3).collect::<Vec<_>>());

    let names: BTreeSet<&str> = want.keys().filter_map(Labels::metric_name).collect();
    let got = view
        .label_values(Lsn(at), "__name__", &m, "m1", within, 3, &ctl)
        .unwrap();
    assert_eq!(got.len(), usize::from(names.contains("m1")));
    let got = view.label_names(Lsn(at), &m, within, 1, &ctl).unwrap();
    assert_eq!(got.len(), names.len().min(1));

    let everywhere = model.at(at, which, TimeRange::ALL);
    let times = || {
        everywhere
            .values()
            .flat_map(|samples| samples.keys().copied())
    };
    let bounds = times().min().zip(times().max()).map(range);
    assert_eq!(view.time_bounds(Lsn(at), &m, &ctl).unwrap(), bounds);
}

pub(super) fn times() -> impl Strategy<Value = i64> {
    prop_oneof![
        20 => -30i64..60,
        3 => (0i64..60).prop_map(|t| t * 1_000_000),
        1 => prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(i64::MIN + 1)],
    ]
}

pub(super) fn values() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => (0u32..5).prop_map(f64::from),
        1 => any::<u64>().prop_map(f64::from_bits),
        1 => prop_oneof![Just(-0.0), Just(f64::INFINITY), Just(f64::NAN)],
    ]
}

pub(super) fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => prop::collection::vec((0..SERIES, times(), values()), 1..12).prop_map(Op::Write),
        1 => (0..SERIES, -50i64..3000, 1i64..1500)
            .prop_map(|(series, start, count)| Op::Run { series, start, count }),
        2 => (0usize..9, (times(), times())).prop_map(|(matcher, range)| {
            Op::Delete { matcher, range }
        }),
        1 => (0usize..9).prop_map(|matcher| {
            Op::Delete { matcher, range: (i64::MIN, i64::MAX) }
        }),
        2 => Just(Op::Pin),
        2 => Just(Op::Unpin),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn every_retained_snapshot_agrees_with_the_model(
        ops in prop::collection::vec(ops(), 1..40),
        shards in 1usize..5,
        lag in 0u64..4,
        windows in prop::collection::vec((0usize..9, (times(), times())), 4),
    ) {
        let budget = Budget::new(u64::MAX);
        let mut store = Store::new(shards, Arc::clone(&budget));
        let mut model = Model::default();
        for op in ops {
            let durable = (store.next - 1).saturating_sub(lag);
            let lsn = match &op {
                Op::Write(samples) => store.write(samples.iter().copied(), durable),
                Op::Run { series, start, count } => {
                    let series = *series;
                    store.write(run(*start, *count).map(|(t, v)| (series, t, v)), durable)
                }
                Op::Delete { matcher, range: r } => store.delete(*matcher, range(*r)),
                Op::Pin => {
                    store.pins.insert(store.next - 1);
                    continue;
                }
                Op::Unpin => {
                    store.pins.pop_first();
                    continue;
                }
            };
            model.records.push((lsn, op));
            let pinned = store.pins.iter().copied();
            for (at, (which, r)) in pinned.chain([lsn]).zip(windows.iter().cycle()) {
                prop_assert_eq!(
                    select(&alone(&store.head), at, *which, range(*r)), model.at(at, *which, range(*r)));
            }
        }
        let newest = store.next - 1;
        let other = store.replayed(3);
        for (which, r) in windows.iter().chain([&(0, (i64::MIN, i64::MAX))]) {
            for at in store.floor()..=newest {
                check(&alone(&store.head), &model, at, *which, range(*r));
            }
            check(&alone(&other), &model, newest, *which, range(*r));
        }
        let held = budget.held_bytes(Holder::MetricHead);
        prop_assert_eq!(held, store.head.stats().bytes);
        store.head.reclaim(Lsn(newest));
        check(&alone(&store.head), &model, newest, 0, TimeRange::ALL);
        drop(store);
        prop_assert_eq!(budget.held_bytes(Holder::MetricHead), 0);
    }
}

#[test]
fn a_reader_at_one_lsn_gets_the_same_answer_while_writers_apply() {
    let store = Store::new(4, Budget::new(u64::MAX));
    let Store { head, .. } = store;
    let done = AtomicBool::new(false);
    let visible = AtomicU64::new(0);
    let write = |lsn: u64, pinned: u64| {
        let mut batch = MetricBatch::new(head.hash_key());
        for i in 0..60u64 {
            let row = batch.series(&labels(usize::try_from(i % SERIES as u64).unwrap()));
            // Half of them late, some twice.
            let late = if i.is_multiple_of(2) { 200 } else { 0 };
            let t = (lsn * 10 + i % 10).cast_signed() - late;
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            batch.sample(row, Timestamp::from_nanos(t), lsn as f64);
        }
        let mut writer = RecordWriter::default();
        let prepared = head
            .prepare(
                &mut batch,
                Lsn(lsn - 1),
                &mut writer,
                &mut Rejections::default(),
            )
            .unwrap();
        head.logged(&prepared, Lsn(lsn));
        for shard in 0..head.shards() {
            head.apply(shard, Lsn(lsn), &prepared, Lsn(pinned));
            if lsn.is_multiple_of(50) {
                let half = range((0, lsn.cast_signed() * 5));
                head.delete(shard, Lsn(lsn), &matchers(2), half, Lsn(pinned));
            }
        }
        visible.store(lsn, Ordering::Release);
    };
    let pinned = 120;
    for lsn in 1..=pinned {
        write(lsn, lsn - 1);
    }
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let first = select(&alone(&head), pinned, 0, TimeRange::ALL);
                assert!(!first.is_empty());
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(select(&alone(&head), pinned, 0, TimeRange::ALL), first);
                    let newest = visible.load(Ordering::Acquire);
                    let now = select(&alone(&head), newest, 0, TimeRange::ALL);
                    assert_eq!(select(&alone(&head), newest, 0, TimeRange::ALL), now);
                }
            });
        }
        for lsn in pinned + 1..pinned + 200 {
            write(lsn, pinned);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn refused_rows_cost_only_themselves() {
    let mut few = settings(2);
    few.series_max = 2;
    few.labels.value_bytes_max = 10;
    let head = MetricHead::new(&few, Budget::new(u64::MAX));
    let mut batch = MetricBatch::new(head.hash_key());
    let set = |v: &str| Labels::from_pairs([("a", v)]).unwrap();
    let mut add = |v: &str, samples: i64| {
        let row = batch.series(&set(v));
        (0..samples).for_each(|t| batch.sample(row, Timestamp::from_nanos(t), 1.0));
    };
    add("1", 2);
    add("far too long", 3);
    add("2", 1);
    add("3", 4);
    add("unused", 0);
    let no_labels = batch.series(&Labels::empty());
    batch.sample(no_labels, Timestamp::from_nanos(1), 1.0);
    let mut rejections = Rejections::default();
    let mut writer = RecordWriter::default();
    for _ in 0..2 {
        writer.clear();
        rejections = Rejections::default();
        let prepared = head
            .prepare(&mut batch, Lsn(0), &mut writer, &mut rejections)
            .unwrap();
        assert_eq!(prepared.sample_count(), 3);
    }
    assert_eq!(rejections.samples, 8);
    assert!(rejections.first_reason.unwrap().contains("at most 10"));
    assert_eq!(head.stats().series, 2);
}

#[test]
fn definitions_are_repeated_until_two_records_with_them_are_durable() {
    let head = MetricHead::new(&settings(2), Budget::new(u64::MAX));
    let write = |durable: u64, lsn: Option<u64>| {
        let mut batch = MetricBatch::new(head.hash_key());
        let row = batch.series(&labels(1));
        batch.sample(row, Timestamp::from_nanos(1), 1.0);
        let mut writer = RecordWriter::default();
        let prepared = head
            .prepare(
                &mut batch,
                Lsn(durable),
                &mut writer,
                &mut Rejections::default(),
            )
            .unwrap();
        if let Some(lsn) = lsn {
            head.logged(&prepared, Lsn(lsn));
        }
        let tags: Vec<_> = record::parts(Lsn(1), writer.payload())
            .map(|part| part.unwrap().tag)
            .collect();
        tags.contains(&Tag::Definitions)
    };
    assert!(
        write(0, None),
        "a record that the log refused defines nothing"
    );
    assert!(write(5, Some(6)));
    assert!(write(6, Some(7)), "one durable record could be damaged");
    assert!(write(6, Some(8)), "record 7 is not durable yet");
    assert!(!write(7, Some(9)));
}

#[test]
fn a_sample_of_an_undefined_series_is_counted_and_left_out() {
    let mut store = Store::new(2, Budget::new(u64::MAX));
    store.write([(1, 5, 1.0)].into_iter(), 0);
    store.write([(1, 6, 1.0)].into_iter(), 1);
    store.write([(1, 7, 1.0), (2, 7, 1.0)].into_iter(), 2);
    let head = MetricHead::new(&settings(2), Budget::new(u64::MAX));
    let (lsn, payload, _) = &store.log[2];
    let mut prepared = PreparedMetrics::default();
    for part in record::parts(Lsn(*lsn), payload) {
        head.decode(part.unwrap(), &mut prepared).unwrap();
    }
    assert_eq!((head.orphaned_samples(), prepared.sample_count()), (1, 1));
}

#[test]
fn exemplars_and_metadata_survive_replay_and_obey_snapshots() {
    let mut store = Store::new(2, Budget::new(u64::MAX));
    let exemplar = |t: i64| Exemplar {
        time: Timestamp::from_nanos(t),
        value: 0.5,
        trace_id: crate::id::TraceId::new([7; 16]),
        span_id: crate::id::SpanId::new([9; 8]),
        labels: Labels::empty(),
    };
    let metadata = |help: &str| Metadata {
        metric: "m1".into(),
        kind: MetricKind::Counter,
        unit: "s".into(),
        help: help.into(),
    };
    let head = &store.head;
    for (lsn, help) in (1..).zip(["old", "old", "new"]) {
        let mut batch = MetricBatch::new(head.hash_key());
        let row = batch.series(&labels(1));
        batch.exemplar(row, exemplar(lsn));
        batch.metadata(metadata(help));
        batch.metadata(Metadata {
            metric: String::new(),
            ..metadata(help)
        });
        let mut writer = RecordWriter::default();
        let mut rejections = Rejections::default();
        let lsn = Lsn(lsn.cast_unsigned());
        let prepared = head
            .prepare(&mut batch, Lsn(0), &mut writer, &mut rejections)
            .unwrap();
        assert_eq!(rejections.metadata, 1);
        head.logged(&prepared, lsn);
        for shard in (0..head.shards()).filter(|shard| prepared.touches(*shard)) {
            head.apply(shard, lsn, &prepared, Lsn(0));
        }
        store.log.push((lsn.0, writer.payload().to_vec(), None));
    }
    store.next = 4;
    store.delete(1, range((2, 2)));
    let replayed = store.replayed(4);
    for (head, at, want) in [
        (&store.head, 2, vec![1, 2]),
        (&store.head, 3, vec![1, 2, 3]),
        (&store.head, 4, vec![1, 3]),
        (&replayed, 4, vec![1, 3]),
    ] {
        let head = &alone(head);
        let found = head
            .exemplars(Lsn(at), &matchers(1), TimeRange::ALL, &control())
            .unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].labels, labels(1));
        let times: Vec<i64> = found[0]
            .exemplars
            .iter()
            .map(|e| e.time.as_nanos())
            .collect();
        assert_eq!(times, want);
        assert!(
            found[0]
                .exemplars
                .iter()
                .all(|e| e.is_same(&exemplar(e.time.as_nanos())))
        );
        let help = if at < 3 { "old" } else { "new" };
        assert_eq!(head.metadata(Lsn(at), Some("m1")), [metadata(help)]);
        // Exemplars alone do not make a series that has samples.
        assert!(
            head.series(Lsn(at), &[], TimeRange::ALL, &control())
                .unwrap()
                .is_empty()
        );
    }
    assert!(alone(&store.head).metadata(Lsn(0), None).is_empty());
}

#[test]
fn a_query_stops_at_its_limits() {
    let mut store = Store::new(2, Budget::new(u64::MAX));
    store.write(
        (0..SERIES).flat_map(|s| (0..10).map(move |t| (s, t, 1.0))),
        0,
    );
    let ctl = |series_max, samples_max| {
        control_within(QueryLimits {
            series_max,
            samples_max,
            spans_max: 0,
        })
    };
    let run = |ctl: &QueryControl| {
        let mut seen = 0;
        let result = alone(&store.head).select(Lsn(1), &[], TimeRange::ALL, ctl, &mut |_| {
            seen += 1;
            Ok(if seen == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        });
        (seen, result.is_ok())
    };
    assert_eq!(run(&ctl(10, 100)), (3, true));
    assert_eq!(run(&ctl(6, 100)), (0, false));
    assert_eq!(run(&ctl(10, 15)), (1, false));
    let cancelled = ctl(10, 100);
    cancelled.cancel();
    assert_eq!(run(&cancelled), (0, false));
}
