//! The promise: however the writes are cut into parts, and whatever was cut, deleted or dropped by
//! retention since, a snapshot's answers are those of the same writes in a plain model.
//!
//! Random batches (late, repeated, overlapping), deletes, freezes and pins are played to generations
//! and to the model of `model_test.rs`. Every snapshot reads the view that it was opened with.
//! `PROPTEST_RNG_SEED` replays a run.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use rootline_wal::Lsn;

use super::{
    MetricBatch, MetricHead,
    model_test::{
        Answer, Model, Op, check, labels, matchers, ops, range, run, select, settings, times,
    },
    view::{FrozenGeneration, MetricView},
};
use crate::{
    budget::{Budget, Holder},
    outcome::Rejections,
    record::RecordWriter,
    time::{TimeRange, Timestamp},
    tombstone::Tombstone,
};

/// A store of parts, fed as the core feeds it.
struct Parts {
    shards: usize,
    budget: Arc<Budget>,
    current: Arc<MetricHead>,
    frozen: Vec<FrozenGeneration>,
    tombstones: Vec<Tombstone>,
    floor_ns: Option<i64>,
    newest: u64,
    pins: BTreeMap<u64, MetricView>,
}

impl Parts {
    fn new(shards: usize, budget: Arc<Budget>) -> Self {
        let current = Arc::new(MetricHead::new(&settings(shards), Arc::clone(&budget)));
        Self {
            shards,
            budget,
            current,
            frozen: Vec::new(),
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
            blocks: Vec::new(),
            tombstones: self.tombstones.clone().into(),
            floor_ns: self.floor_ns,
        }
    }

    fn floor(&self) -> Lsn {
        let pinned = self.pins.keys().next().copied();
        Lsn(pinned.unwrap_or(self.newest).min(self.newest))
    }

    fn write(&mut self, samples: impl Iterator<Item = (usize, i64, f64)>) -> u64 {
        let floor = self.floor();
        self.newest += 1;
        let lsn = Lsn(self.newest);
        let mut batch = MetricBatch::new(self.current.hash_key());
        for (series, t, v) in samples {
            let row = batch.series(&labels(series));
            batch.sample(row, Timestamp::from_nanos(t), v);
        }
        let mut writer = RecordWriter::default();
        let mut rejections = Rejections::default();
        let prepared = self
            .current
            .prepare(&mut batch, Lsn(0), &mut writer, &mut rejections)
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
}

#[derive(Clone, Debug)]
enum Step {
    Op(Op),
    Freeze,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => ops().prop_map(Step::Op),
        1 => Just(Step::Freeze),
    ];
    prop::collection::vec(step, 1..50)
}

fn check_from(floor_ns: i64, want: &mut Answer) {
    want.retain(|_, samples| {
        samples.retain(|t, _| *t >= floor_ns);
        !samples.is_empty()
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

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
