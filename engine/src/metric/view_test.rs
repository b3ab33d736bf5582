//! The promise: however the writes are cut into parts, and whatever was cut, deleted or dropped by
//! retention since, a snapshot's answers are those of the same writes in a plain model.
//!
//! Random batches (late, repeated, overlapping), deletes and pins, and between them freezes, seals
//! and merges of blocks, are played to a store of parts and to the model of `model_test.rs`. Every snapshot reads the view that it was opened with.
//! `PROPTEST_RNG_SEED` replays a run.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path, sync::Arc};

use proptest::prelude::*;
use rootline_index::{Labels, Symbol, Symbols};
use rootline_wal::{Lsn, PowerCutStorage, Storage, StoreId};

use super::{
    CardinalityBy, Exemplar, MetricBatch, MetricHead,
    block::{BlockOrigin, MergeOutput, MetricBlock, MetricBlockWriter, merge},
    model_test::{
        Answer, Model, Op, SERIES, check, control, control_within, labels, matchers, ops, range,
        run, select, settings, times,
    },
    view::{FrozenGeneration, MetricView},
};
use crate::{
    block::{Block, BlockId, BlockMeta},
    budget::{Budget, Holder},
    control::{QueryControl, QueryLimits},
    error::Error,
    outcome::Rejections,
    record::RecordWriter,
    time::{TimeRange, Timestamp},
    tombstone::Tombstone,
};

const STORE: StoreId = StoreId::from_bytes([7; 16]);
const DIR: &str = "/blocks";

/// A store of parts, fed as the core feeds it.
struct Parts {
    shards: usize,
    budget: Arc<Budget>,
    current: Arc<MetricHead>,
    frozen: Vec<FrozenGeneration>,
    blocks: Vec<Arc<MetricBlock>>,
    disk: Arc<PowerCutStorage>,
    storage: Arc<dyn Storage>,
    last_block: u64,
    tombstones: Vec<Tombstone>,
    floor_ns: Option<i64>,
    newest: u64,
    pins: BTreeMap<u64, MetricView>,
}

impl Parts {
    fn new(shards: usize, budget: Arc<Budget>) -> Self {
        let current = Arc::new(MetricHead::new(&settings(shards), Arc::clone(&budget)));
        let disk = Arc::new(PowerCutStorage::new());
        let storage: Arc<dyn Storage> = Arc::<PowerCutStorage>::clone(&disk);
        storage.create_dir_all(Path::new(DIR)).unwrap();
        Self {
            shards,
            budget,
            current,
            frozen: Vec::new(),
            blocks: Vec::new(),
            disk,
            storage,
            last_block: 0,
            tombstones: Vec::new(),
            floor_ns: None,
            newest: 0,
            pins: BTreeMap::new(),
        }
    }

    fn view(&self) -> MetricView {
        MetricView {
            frozen: self.frozen.clone(),
            current: Arc::clone(&self.current),
            blocks: self.blocks.clone(),
            tombstones: self.tombstones.clone().into(),
            floor_ns: self.floor_ns,
        }
    }

    fn floor(&self) -> Lsn {
        let pinned = self.pins.keys().next().copied();
        Lsn(pinned.unwrap_or(self.newest).min(self.newest))
    }

    fn write(&mut self, samples: impl Iterator<Item = (usize, i64, f64)>) -> u64 {
        let mut batch = MetricBatch::new(self.current.hash_key());
        for (series, t, v) in samples {
            let row = batch.series(&labels(series));
            batch.sample(row, Timestamp::from_nanos(t), v);
        }
        self.write_batch(&mut batch)
    }

    fn write_exemplars(&mut self, series: usize, exemplars: &[Exemplar]) -> u64 {
        let mut batch = MetricBatch::new(self.current.hash_key());
        let row = batch.series(&labels(series));
        for exemplar in exemplars {
            batch.exemplar(row, exemplar.clone());
        }
        self.write_batch(&mut batch)
    }

    fn write_batch(&mut self, batch: &mut MetricBatch<'_>) -> u64 {
        let floor = self.floor();
        self.newest += 1;
        let lsn = Lsn(self.newest);
        let mut writer = RecordWriter::default();
        let mut rejections = Rejections::default();
        let prepared = self
            .current
            .prepare(batch, Lsn(0), &mut writer, &mut rejections)
            .unwrap();
        self.current.logged(&prepared, lsn);
        for shard in (0..self.current.shards()).filter(|shard| prepared.touches(*shard)) {
            self.current.apply(shard, lsn, &prepared, floor);
        }
        self.newest
    }

    fn delete(&mut self, which: usize, within: TimeRange) -> u64 {
        let floor = self.floor();
        self.newest += 1;
        let (lsn, matchers) = (Lsn(self.newest), matchers(which));
        for shard in 0..self.current.shards() {
            self.current.delete(shard, lsn, &matchers, within, floor);
        }
        self.tombstones.push(Tombstone {
            lsn,
            matchers,
            range: within,
        });
        self.newest
    }

    fn freeze(&mut self) {
        let next = MetricHead::new(&settings(self.shards), Arc::clone(&self.budget));
        let head = std::mem::replace(&mut self.current, Arc::new(next));
        let cut = Lsn(self.newest);
        self.frozen.push(FrozenGeneration { head, cut });
    }

    fn writer(&mut self) -> MetricBlockWriter {
        self.last_block += 1;
        let id = BlockId(self.last_block);
        MetricBlockWriter::create(&self.storage, Path::new(DIR), STORE, id).unwrap()
    }

    fn open(&self, meta: &BlockMeta) -> Arc<MetricBlock> {
        let dir = Path::new(DIR);
        let block = Block::open(&self.storage, dir, Some(STORE), meta.id, &Arc::default()).unwrap();
        Arc::new(MetricBlock::open(Arc::new(block)).unwrap())
    }

    /// Makes blocks of the oldest frozen generation: what is before `split_ns`, and the rest.
    fn seal(&mut self, split_ns: i64) {
        if self.frozen.is_empty() {
            return;
        }
        let sealed = self.frozen.remove(0);
        let view = MetricView::of(Arc::clone(&sealed.head));
        let mut symbols = Symbols::new();
        let mut writers = [self.writer(), self.writer()];
        let (ctl, cut) = (control(), sealed.cut);
        view.select(cut, &[], TimeRange::ALL, &ctl, &mut |series| {
            let at = series.timestamps.partition_point(|t| *t < split_ns);
            let (times, values) = (series.timestamps, series.values);
            let halves = [(&times[..at], &values[..at]), (&times[at..], &values[at..])];
            for (writer, (times, values)) in writers.iter_mut().zip(halves) {
                writer.start_series(&symbols_of(series.labels, &mut symbols));
                writer.samples(times, values).unwrap();
            }
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        for of_series in view.exemplars(cut, &[], TimeRange::ALL, &ctl).unwrap() {
            // Series with exemplars alone come in a block of their own.
            let mut writer = self.writer();
            writer.start_series(&symbols_of(&of_series.labels, &mut symbols));
            for exemplar in &of_series.exemplars {
                writer.exemplar(exemplar).unwrap();
            }
            let meta = writer.finish(&symbols, origin(cut, cut)).unwrap().unwrap();
            let block = self.open(&meta);
            self.blocks.push(block);
        }
        for writer in writers {
            if let Some(meta) = writer.finish(&symbols, origin(cut, cut)).unwrap() {
                let block = self.open(&meta);
                self.blocks.push(block);
            }
        }
    }

    /// Merges the two oldest blocks, and applies all deletes to what comes of it.
    fn merge(&mut self) {
        if self.blocks.len() < 2 {
            return;
        }
        let sources: Vec<_> = self.blocks.drain(..2).collect();
        let mut symbols = Symbols::new();
        let range = TimeRange::ALL;
        let mut outputs = [MergeOutput {
            range,
            writer: self.writer(),
        }];
        let tombstones = &self.tombstones;
        let each = &mut || Ok(());
        merge(&sources, tombstones, None, &mut outputs, &mut symbols, each).unwrap();
        let [output] = outputs;
        let origin = origin(sources[1].meta().last_lsn, Lsn(self.newest));
        if let Some(meta) = output.writer.finish(&symbols, origin).unwrap() {
            let block = self.open(&meta);
            self.blocks.insert(0, block);
        }
    }
}

fn origin(last_lsn: Lsn, clean_lsn: Lsn) -> BlockOrigin {
    BlockOrigin {
        first_lsn: Lsn(0),
        last_lsn,
        clean_lsn,
        level: 0,
        sources: Vec::new(),
        created_ns: 0,
        spanning: false,
    }
}

fn symbols_of(labels: &Labels, symbols: &mut Symbols) -> Vec<(Symbol, Symbol)> {
    let pairs = labels.iter();
    let pairs = pairs.map(|(name, value)| (symbols.intern(name), symbols.intern(value)));
    pairs.collect()
}

#[derive(Clone, Debug)]
enum Step {
    Op(Op),
    Freeze,
    /// Of the oldest frozen generation, at this time.
    Seal(i64),
    /// Of the two oldest blocks.
    Merge,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => ops().prop_map(Step::Op),
        2 => Just(Step::Freeze),
        2 => times().prop_map(Step::Seal),
        1 => Just(Step::Merge),
    ];
    prop::collection::vec(step, 1..50)
}

fn check_from(floor_ns: i64, want: &mut Answer) {
    want.retain(|_, samples| {
        samples.retain(|t, _| *t >= floor_ns);
        !samples.is_empty()
    });
}

/// What series amount to is what reading them gives. Returns for how many statistics served.
fn check_summary(view: &MetricView, at: u64, which: usize, within: TimeRange) -> usize {
    const STALE: u64 = 0x7ff0_0000_0000_0002;
    let mut read = select(view, at, which, within).into_iter();
    let mut by_stats = 0;
    let (m, ctl) = (matchers(which), control());
    view.summary(Lsn(at), &m, within, &ctl, &mut |found| {
        let (labels, samples) = read.next().expect("no more series than are read");
        assert_eq!(*found.labels, labels);
        let values = samples.values().filter(|bits| **bits != STALE);
        let values: Vec<f64> = values.map(|bits| f64::from_bits(*bits)).collect();
        let numbers: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
        assert_eq!(found.count, values.len() as u64);
        assert_eq!(found.nans, (values.len() - numbers.len()) as u64);
        let min = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let max = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert_eq!((found.min, found.max), (min, max));
        if numbers.iter().all(|v| v.abs() < 1e6) {
            let sum = numbers.iter().sum::<f64>();
            assert!((found.sum - sum).abs() < 1e-3);
        }
        by_stats += usize::from(found.from_stats);
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    assert!(read.next().is_none());
    by_stats
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn answers_do_not_depend_on_how_writes_are_cut_into_parts(
        steps in steps(),
        shards in 1usize..4,
        windows in prop::collection::vec((0usize..9, (times(), times())), 4),
        floor_ns in times(),
    ) {
        let budget = Budget::new(u64::MAX);
        let mut store = Parts::new(shards, Arc::clone(&budget));
        let mut model = Model::default();
        for step in steps {
            let op = match step {
                Step::Op(op) => op,
                Step::Freeze => {
                    store.freeze();
                    continue;
                }
                Step::Seal(split_ns) => {
                    store.seal(split_ns);
                    continue;
                }
                Step::Merge => {
                    store.merge();
                    continue;
                }
            };
            let lsn = match &op {
                Op::Write(samples) => store.write(samples.iter().copied()),
                Op::Run { series, start, count } => {
                    let series = *series;
                    store.write(run(*start, *count).map(|(t, v)| (series, t, v)))
                }
                Op::Delete { matcher, range: r } => store.delete(*matcher, range(*r)),
                Op::Pin => {
                    store.pins.insert(store.newest, store.view());
                    continue;
                }
                Op::Unpin => {
                    store.pins.pop_first();
                    continue;
                }
            };
            model.records.push((lsn, op));
        }
        let newest = store.newest;
        store.pins.insert(newest, store.view());
        for (which, r) in windows.iter().chain([&(0, (i64::MIN, i64::MAX))]) {
            for (at, view) in &store.pins {
                check(view, &model, *at, *which, range(*r));
                check_summary(view, *at, *which, range(*r));
            }
        }
        // Retention cuts every answer off.
        store.floor_ns = Some(floor_ns);
        for (which, r) in &windows {
            let mut want = model.at(newest, *which, range(*r));
            check_from(floor_ns, &mut want);
            prop_assert_eq!(select(&store.view(), newest, *which, range(*r)), want);
        }
        prop_assert_eq!(budget.held_bytes(Holder::Queries), 0);
        drop(store);
        prop_assert_eq!(budget.held_bytes(Holder::MetricHead), 0);
    }
}

fn exemplar(time_ns: i64, value: f64) -> Exemplar {
    Exemplar {
        time: Timestamp::from_nanos(time_ns),
        value,
        trace_id: None,
        span_id: None,
        labels: Labels::empty(),
    }
}

/// Times and values of the exemplars of all series in order.
fn exemplars(view: &MetricView, at: u64, within: TimeRange) -> Vec<Vec<(i64, f64)>> {
    let found = view.exemplars(Lsn(at), &[], within, &control()).unwrap();
    let of_series = found.iter().map(|series| {
        let exemplars = series.exemplars.iter();
        exemplars.map(|e| (e.time.as_nanos(), e.value)).collect()
    });
    of_series.collect()
}

#[test]
fn exemplars_of_all_parts_come_once_without_the_deleted_ones() {
    let mut store = Parts::new(2, Budget::new(u64::MAX));
    store.write_exemplars(1, &[exemplar(5, 1.0), exemplar(3, 1.0)]);
    store.write_exemplars(2, &[exemplar(4, 2.0)]);
    store.freeze();
    store.seal(0);
    store.write_exemplars(1, &[exemplar(5, 1.0), exemplar(5, 9.0), exemplar(7, 1.0)]);
    store.freeze();
    let before = store.newest;
    let old = store.view();
    store.delete(0, range((3, 4)));
    store.write_exemplars(1, &[exemplar(3, 3.0), exemplar(7, 1.0)]);
    let want = [vec![(3, 1.0), (5, 1.0), (5, 9.0), (7, 1.0)], vec![(4, 2.0)]];
    assert_eq!(exemplars(&old, before, TimeRange::ALL), want);
    let view = store.view();
    let want = [vec![(3, 3.0), (5, 1.0), (5, 9.0), (7, 1.0)]];
    assert_eq!(exemplars(&view, store.newest, TimeRange::ALL), want);
    let want = [vec![(5, 1.0), (5, 9.0)]];
    assert_eq!(exemplars(&view, store.newest, range((4, 6))), want);
    // Exemplars alone make no series that has samples, wherever they lie.
    let ctl = control();
    for within in [TimeRange::ALL, range((0, 100))] {
        let at = Lsn(store.newest);
        assert!(view.series(at, &[], within, &ctl).unwrap().is_empty());
        let names = view.label_names(at, &[], within, 9, &ctl).unwrap();
        assert!(names.is_empty());
        let values = view.label_values(at, "id", &[], "", within, 9, &ctl);
        assert!(values.unwrap().is_empty());
    }
    assert_eq!(
        view.time_bounds(Lsn(store.newest), &[], &ctl).unwrap(),
        None
    );
    store.floor_ns = Some(6);
    let want = [vec![(7, 1.0)]];
    assert_eq!(exemplars(&store.view(), store.newest, TimeRange::ALL), want);
}

#[test]
fn a_query_over_blocks_stops_at_its_limits_and_gives_its_memory_back() {
    let budget = Budget::new(u64::MAX);
    let mut store = Parts::new(2, Arc::clone(&budget));
    for part in 0..3 {
        let times = part * 10..part * 10 + 10;
        store.write(times.flat_map(|t| (0..SERIES).map(move |s| (s, t, 1.0))));
        store.freeze();
        store.seal(5);
    }
    assert_eq!(store.view().blocks.len(), 4);
    let limits = |series_max, samples_max| {
        control_within(QueryLimits {
            series_max,
            samples_max,
            spans_max: 0,
        })
    };
    let run = |ctl: &QueryControl| {
        let mut seen = 0;
        let view = store.view();
        let result = view.select(Lsn(store.newest), &[], TimeRange::ALL, ctl, &mut |_| {
            seen += 1;
            assert!(budget.held_bytes(Holder::Queries) > 0);
            Ok(ControlFlow::Continue(()))
        });
        (seen, result.is_ok())
    };
    assert_eq!(run(&limits(7, 210)), (7, true));
    assert_eq!(run(&limits(6, 210)), (6, false));
    assert_eq!(run(&limits(7, 60)), (2, false));
    let cancelled = limits(7, 210);
    cancelled.cancel();
    assert_eq!(run(&cancelled), (0, false));
    assert_eq!(budget.held_bytes(Holder::Queries), 0);
}

#[test]
fn statistics_serve_where_blocks_alone_cover_the_range() {
    let mut store = Parts::new(2, Budget::new(u64::MAX));
    store.write(run(0, 1000).map(|(t, v)| (1, t, v)));
    store.freeze();
    store.seal(500);
    assert_eq!(store.view().blocks.len(), 2);
    let by_stats = |store: &Parts, r| check_summary(&store.view(), store.newest, 0, range(r));
    assert_eq!(by_stats(&store, (0, 999)), 1);
    assert_eq!(
        by_stats(&store, (100, 2000)),
        1,
        "the second block as a whole"
    );
    assert_eq!(by_stats(&store, (100, 900)), 0);
    store.delete(0, range((700, 700)));
    assert_eq!(by_stats(&store, (0, 999)), 0, "deletes take reading");
    assert_eq!(by_stats(&store, (0, 600)), 1, "where they hide something");
    store.write([(1, 600, 7.0)].into_iter());
    assert_eq!(by_stats(&store, (0, 999)), 0, "so does the head");
    store.freeze();
    store.seal(0);
    assert_eq!(by_stats(&store, (0, 650)), 0, "so do blocks that overlap");
    assert_eq!(by_stats(&store, (0, 550)), 1);
}

#[test]
fn a_damaged_block_gives_the_right_answer_or_an_error_that_names_it() {
    let budget = Budget::new(u64::MAX);
    let mut store = Parts::new(2, Arc::clone(&budget));
    store.write((0..SERIES).flat_map(|s| run(0, 40).map(move |(t, v)| (s, t, v))));
    store.write_exemplars(1, &[exemplar(5, 1.0)]);
    store.freeze();
    store.seal(0);
    let sound = store.view();
    let (at, within) = (Lsn(store.newest), range((10, 30)));
    let ask = |view: &MetricView| -> Result<_, Error> {
        let (m, ctl) = (matchers(2), control());
        let mut samples = Vec::new();
        view.select(at, &m, within, &ctl, &mut |series| {
            let values = series.values.iter().map(|v| v.to_bits());
            let columns = (series.timestamps.to_vec(), values.collect::<Vec<_>>());
            samples.push((series.labels.clone(), columns));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((
            samples,
            view.series(at, &m, within, &ctl)?,
            view.label_names(at, &m, within, 9, &ctl)?,
            view.label_values(at, "id", &[], "", TimeRange::ALL, 9, &ctl)?,
            view.time_bounds(at, &m, &ctl)?,
            view.exemplars(at, &m, TimeRange::ALL, &ctl)?.len(),
            view.cardinality(at, CardinalityBy::Pair, 9, &ctl)?,
        ))
    };
    let want = ask(&sound).unwrap();
    let mut refused = 0;
    for index in 0..sound.blocks.len() {
        let meta = sound.blocks[index].meta().clone();
        let path = sound.blocks[index].block().path().to_owned();
        for offset in (0..usize::try_from(meta.file_bytes).unwrap()).step_by(11) {
            store.disk.damage(&path, offset, 0x04).unwrap();
            let dir = Path::new(DIR);
            let opened = Block::open(&store.storage, dir, Some(STORE), meta.id, &Arc::default());
            if let Ok(block) = opened.and_then(|block| MetricBlock::open(Arc::new(block))) {
                let mut view = sound.clone();
                view.blocks[index] = Arc::new(block);
                match ask(&view) {
                    Ok(found) => assert_eq!(found, want),
                    Err(Error::CorruptBlock { path: named, .. }) if named == path => refused += 1,
                    Err(other) => panic!("byte {offset}: {other}"),
                }
            }
            store.disk.damage(&path, offset, 0x04).unwrap();
        }
    }
    assert!(refused > 10, "most damage is found on reading: {refused}");
    assert_eq!(budget.held_bytes(Holder::Queries), 0);
}
