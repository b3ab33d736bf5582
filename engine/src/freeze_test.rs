//! Freezing under concurrent writers: nothing lost, nothing twice, batches whole, snapshots unmoved.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rootline_index::{Labels, Matcher};
use rootline_wal::{Lsn, PowerCutStorage};

use crate::{
    Engine, MatchOp, QueryControl, QueryLimits, Settings, TimeRange, Timestamp,
    metric::{FrozenGeneration, FrozenReader, MetricView, Samples},
};

const WRITERS: u64 = 3;
const SERIES: u64 = 8;

fn open(disk: &PowerCutStorage) -> Engine {
    let settings = Settings {
        metric_shards: 4,
        span_shards: 1,
        maintenance_thread: false,
        ..Settings::default()
    };
    Engine::builder(Path::new("/data"))
        .settings(settings)
        .storage(Arc::new(disk.clone()))
        .open()
        .unwrap()
}

/// A batch is one time in `SERIES` series of its writer, all with the same value.
fn write(engine: &Engine, writer: u64, time: i64) -> Lsn {
    let mut batch = engine.batch();
    for i in 0..SERIES {
        let (writer, i) = (writer.to_string(), i.to_string());
        let labels = Labels::from_pairs([("writer", writer), ("i", i)]).unwrap();
        let row = batch.metrics().series(&labels);
        let value = f64::from(u32::try_from(time).unwrap());
        batch
            .metrics()
            .sample(row, Timestamp::from_nanos(time), value);
    }
    engine.write(&mut batch).unwrap().lsn.unwrap()
}

fn control(engine: &Engine) -> QueryControl {
    engine.query_control(None, QueryLimits::default())
}

/// How many series of each writer have a sample, by writer and time.
fn batches(engine: &Engine, view: &MetricView, at: Lsn) -> BTreeMap<(String, i64), u64> {
    let mut found = BTreeMap::new();
    view.select(at, &[], TimeRange::ALL, &control(engine), &mut |series| {
        let writer = series.labels.get("writer").unwrap().to_owned();
        for &time in series.timestamps {
            *found.entry((writer.clone(), time)).or_default() += 1;
        }
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    found
}

fn alone(frozen: &FrozenGeneration) -> MetricView {
    MetricView::of(Arc::clone(&frozen.head))
}

#[test]
fn freezing_under_writers_loses_nothing_and_splits_no_batch() {
    let disk = PowerCutStorage::new();
    let engine = open(&disk);
    let done = AtomicBool::new(false);
    let times = 60u32;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let engine = &engine;
                scope.spawn(move || {
                    for time in 0..i64::from(times) {
                        write(engine, writer, time);
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let (pin, view) = engine.committer().pin();
                let first = batches(&engine, &view.metrics, pin.lsn());
                assert!(first.values().all(|count| *count == SERIES));
                assert_eq!(
                    first.len() as u64,
                    pin.lsn().0,
                    "every batch up to the snapshot, whichever generation it is in"
                );
                for frozen in &view.metrics.frozen {
                    assert!(frozen.cut <= pin.lsn());
                }
                std::thread::yield_now();
                assert_eq!(batches(&engine, &view.metrics, pin.lsn()), first);
            }
        });
        for _ in 0..10 {
            if let Some(frozen) = engine.committer().freeze(Lsn::ZERO).unwrap() {
                let held = batches(&engine, &alone(&frozen), frozen.cut);
                assert!(held.values().all(|count| *count == SERIES));
            }
            std::thread::yield_now();
        }
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    let view = engine.committer().store.view();
    let all = batches(&engine, &view.metrics, engine.stats().visible_lsn);
    assert_eq!(all.len() as u64, WRITERS * u64::from(times));
    assert!(all.values().all(|count| *count == SERIES));
    let cuts: Vec<Lsn> = view
        .metrics
        .frozen
        .iter()
        .map(|frozen| frozen.cut)
        .collect();
    assert!(cuts.is_sorted());

    // The log holds all generations; it comes back as one.
    drop(engine);
    disk.cut(None);
    let engine = open(&disk.restarted());
    let view = engine.committer().store.view();
    let lsn = engine.stats().visible_lsn;
    assert_eq!(batches(&engine, &view.metrics, lsn), all);
    assert_eq!(engine.stats().metrics.series, WRITERS * SERIES);
}

#[test]
fn a_generation_gives_its_memory_back_when_its_last_reader_is_gone() {
    let engine = open(&PowerCutStorage::new());
    write(&engine, 0, 1);
    let empty = {
        engine.committer().freeze(Lsn::ZERO).unwrap().unwrap();
        assert!(
            engine.committer().freeze(Lsn::ZERO).unwrap().is_none(),
            "empty"
        );
        engine
            .committer()
            .store
            .view()
            .metrics
            .current
            .charged_bytes()
    };
    let held = engine.stats().memory_metric_head_bytes;
    let (_pin, view) = engine.committer().pin();
    let frozen_bytes = view.metrics.frozen[0].head.charged_bytes();
    assert!(frozen_bytes > empty);
    engine
        .committer()
        .store
        .swap(|view| view.metrics.frozen.clear());
    assert_eq!(engine.stats().memory_metric_head_bytes, held);
    drop(view);
    assert_eq!(engine.stats().memory_metric_head_bytes, held - frozen_bytes);
}

#[test]
fn references_go_on_and_deletes_are_listed_for_frozen_generations() {
    let engine = open(&PowerCutStorage::new());
    let all = [Matcher::new(MatchOp::NotEqual, "writer", "").unwrap()];
    write(&engine, 0, 1);
    engine.delete_series(&all, TimeRange::ALL).unwrap();
    assert!(
        engine
            .committer()
            .store
            .view()
            .metrics
            .tombstones
            .is_empty()
    );
    write(&engine, 0, 2);
    let refs = engine.committer().store.view().metrics.current.next_ref();
    engine.committer().freeze(Lsn::ZERO).unwrap().unwrap();
    assert_eq!(
        engine.committer().store.view().metrics.current.next_ref(),
        refs
    );
    let lsn = engine.delete_series(&all, TimeRange::ALL).unwrap();
    let view = engine.committer().store.view();
    let listed: Vec<Lsn> = view.metrics.tombstones.iter().map(|t| t.lsn).collect();
    assert_eq!(listed, [lsn]);
}

#[test]
fn a_frozen_generation_read_whole_is_what_a_snapshot_at_its_cut_sees() {
    let engine = open(&PowerCutStorage::new());
    let mut seed = 1u64;
    let mut random = |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % n
    };
    for _ in 0..60 {
        let mut batch = engine.batch();
        for _ in 0..40 {
            let mut pairs = vec![("n".to_owned(), format!("{}", random(3)))];
            for l in (0..4).filter(|_| random(2) == 0).collect::<Vec<_>>() {
                pairs.push((format!("l{l}"), format!("v{}", random(3))));
            }
            let mut labels = rootline_index::LabelsBuilder::default();
            for (name, value) in &pairs {
                labels.set(name, value);
            }
            let row = batch.metrics().series(&labels.build().unwrap());
            for _ in 0..random(20) {
                let time = i64::try_from(random(3000)).unwrap() * 1_000_000;
                let value = f64::from(u32::try_from(random(5)).unwrap());
                batch
                    .metrics()
                    .sample(row, Timestamp::from_nanos(time), value);
            }
        }
        engine.write(&mut batch).unwrap();
        if random(5) == 0 {
            let n = format!("{}", random(3));
            let start = i64::try_from(random(3000)).unwrap() * 1_000_000;
            let range = TimeRange::new(
                Timestamp::from_nanos(start),
                Timestamp::from_nanos(start + 400_000_000),
            );
            let matcher = Matcher::new(MatchOp::Equal, "n", &n).unwrap();
            engine.delete_series(&[matcher], range.unwrap()).unwrap();
        }
    }
    let frozen = engine.committer().freeze(Lsn::ZERO).unwrap().unwrap();
    let cut = frozen.cut;
    let mut expected = Vec::new();
    let view = alone(&frozen);
    view.select(cut, &[], TimeRange::ALL, &control(&engine), &mut |series| {
        let bits: Vec<u64> = series.values.iter().map(|v| v.to_bits()).collect();
        expected.push((series.labels.clone(), series.timestamps.to_vec(), bits));
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    assert!(expected.len() > 20);

    let reader = FrozenReader::new(&frozen.head, cut);
    let (mut read, mut pairs) = (Vec::new(), Vec::new());
    let mut samples = Samples::default();
    for number in reader.by_labels(&reader.numbers()) {
        reader.pairs(number, &mut pairs);
        reader.samples(number, &mut samples);
        let mut counted = BTreeMap::new();
        reader.count_by(number, 1_000_000_000, &mut |second, count| {
            *counted.entry(second).or_insert(0) += count;
        });
        for second in samples.times.iter().map(|t| t / 1_000_000_000) {
            let count = counted.entry(second).or_insert(0);
            *count = count
                .checked_sub(1)
                .expect("the forecast leaves nothing out");
        }
        let symbols = reader.symbols();
        let texts = pairs
            .iter()
            .map(|&(name, value)| (symbols.resolve(name), symbols.resolve(value)));
        if !samples.times.is_empty() {
            let bits: Vec<u64> = samples.values.iter().map(|v| v.to_bits()).collect();
            let labels = Labels::from_pairs(texts).unwrap();
            read.push((labels, samples.times.clone(), bits));
        }
    }
    assert_eq!(read, expected);
}

#[test]
fn samples_past_retention_are_refused_one_by_one() {
    let engine = open(&PowerCutStorage::new());
    write(&engine, 0, 5);
    let view = engine.committer().store.view();
    view.metrics.current.raise_floor(10);
    engine.committer().freeze(Lsn::ZERO).unwrap().unwrap();
    let mut batch = engine.batch();
    let labels = Labels::from_pairs([("writer", "0")]).unwrap();
    let row = batch.metrics().series(&labels);
    for time in [9, 10, 8, 11] {
        batch
            .metrics()
            .sample(row, Timestamp::from_nanos(time), 1.0);
    }
    let outcome = engine.write(&mut batch).unwrap();
    assert_eq!((outcome.samples, outcome.rejections.samples), (2, 2));
    let reason = outcome.rejections.first_reason.unwrap();
    assert!(reason.contains("9ns is older than 10ns"), "{reason}");
}
