//! From memory into blocks: what a store costs once it is sealed, when it seals by itself, and what
//! damage to its files costs.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod model;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::{Model, Op, Rng, Written, apply, observe, random_op};
use rootline_engine::{
    Engine, Error, ErrorKind, Labels, Metadata, MetricKind, Settings, Timestamp,
};
use rootline_wal::{FaultStorage, ManualClock, PowerCutStorage, Storage};

const DATA: &str = "/data";

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.segment_bytes = (64 << 10, 256 << 10);
    settings.metric_shards = 4;
    settings.span_shards = 1;
    settings.maintenance_thread = false;
    settings
}

fn try_open(disk: &PowerCutStorage) -> Result<Engine, Error> {
    Engine::builder(Path::new(DATA))
        .settings(settings())
        .storage(Arc::new(disk.clone()))
        .open()
}

fn open(disk: &PowerCutStorage) -> Engine {
    try_open(disk).unwrap()
}

/// Samples of `series` series, one at each of these times.
fn write(engine: &Engine, name: &str, series: std::ops::Range<u64>, times_ms: &[i64]) {
    let mut batch = engine.batch();
    for i in series {
        let i = i.to_string();
        let labels = Labels::from_pairs([("__name__", name), ("i", &i)]).unwrap();
        let row = batch.metrics().series(&labels);
        for &time in times_ms {
            let value = (time % 1000) as f64;
            batch
                .metrics()
                .sample(row, Timestamp::from_millis(time).unwrap(), value);
        }
    }
    let outcome = engine.write(&mut batch).unwrap();
    assert!(outcome.rejections.is_empty(), "{:?}", outcome.rejections);
}

fn random_samples(rng: &mut Rng) -> Op {
    loop {
        match random_op(rng) {
            Op::Write(written) if !written.samples.is_empty() => {
                return Op::Write(Written {
                    samples: written.samples,
                    ..Written::default()
                });
            }
            op @ Op::Delete { .. } => return op,
            _ => {}
        }
    }
}

/// Plays writes and deletes, with a flush now and then.
fn play(engine: &Engine, rng: &mut Rng, steps: usize) -> Model {
    let mut model = Model::default();
    for step in 0..steps {
        let op = random_samples(rng);
        if let Some(lsn) = apply(engine, &op).unwrap() {
            model.ops.push((lsn, op));
        }
        if step % 10 == 9 {
            engine.flush().unwrap();
        }
    }
    model
}

fn files(disk: &PowerCutStorage, dir: &str) -> Vec<(PathBuf, u64)> {
    let dir = Path::new(DATA).join(dir);
    let names = disk.list(&dir).unwrap();
    let paths = names.into_iter().map(|name| dir.join(name));
    paths
        .map(|path| {
            let bytes = disk.len(&path).unwrap();
            (path, bytes)
        })
        .collect()
}

fn bytes(files: &[(PathBuf, u64)]) -> u64 {
    files.iter().map(|(_, bytes)| bytes).sum()
}

#[test]
fn once_sealed_the_log_is_small_and_memory_is_given_back() {
    let disk = PowerCutStorage::new();
    let engine = open(&disk);
    let empty = engine.stats().memory_metric_head_bytes;
    for batch in 0..20 {
        write(&engine, "m", 0..500, &[batch * 15_000, batch * 15_000 + 1]);
    }
    let before = engine.stats();
    assert!(before.memory_metric_head_bytes > empty + 100_000);
    assert!(bytes(&files(&disk, "wal")) > 64 << 10);

    let flushed = engine.flush().unwrap();
    assert_eq!((flushed.blocks, flushed.samples), (1, 20_000));
    assert_eq!(flushed.bytes, bytes(&files(&disk, "blocks")));
    let after = engine.stats();
    assert!(after.memory_metric_head_bytes < empty + 50_000, "{after:?}");
    assert_eq!(after.oldest_unsealed_lsn, None);
    assert_eq!((after.blocks, after.block_samples), (1, 20_000));
    assert_eq!((after.block_bytes, after.seals.seals), (flushed.bytes, 1));
    assert!(bytes(&files(&disk, "wal")) <= 64 << 10);
    // A segment in use, one ready, one that was just filled.
    assert!(bytes(&files(&disk, "manifest")) <= 96 << 10);
    assert_eq!(engine.flush().unwrap().blocks, 0, "nothing more to seal");

    engine.close().unwrap();
    drop(engine);
    let (log, manifest) = (files(&disk, "wal"), files(&disk, "manifest"));
    assert!(bytes(&log) <= 64 << 10, "{log:?}");
    assert!(bytes(&manifest) <= 64 << 10, "{manifest:?}");
    let engine = open(&disk);
    assert_eq!(engine.stats().metrics.samples, 0);
}

#[test]
fn answers_are_the_same_bit_for_bit_after_flush_reopen_and_power_cut() {
    let mut disk = PowerCutStorage::new();
    let mut rng = Rng(5);
    let engine = open(&disk);
    let model = play(&engine, &mut rng, 55);
    let held = engine.snapshot().unwrap();
    let expected = model.at(held.lsn().0);
    assert_eq!(observe(&held).unwrap(), expected);
    engine.flush().unwrap();
    assert_eq!(observe(&held).unwrap(), expected, "held over the flush");
    assert_eq!(observe(&engine.snapshot().unwrap()).unwrap(), expected);
    drop((held, engine));
    for round in 0..3 {
        disk.cut(Some(round));
        disk = disk.restarted();
        let engine = open(&disk);
        assert_eq!(engine.stats().metrics.samples, 0, "all is in blocks");
        assert_eq!(observe(&engine.snapshot().unwrap()).unwrap(), expected);
    }
}

#[test]
fn metadata_outlive_the_log() {
    let disk = PowerCutStorage::new();
    let metadata = |metric: &str, help: &str| Metadata {
        metric: metric.to_owned(),
        kind: MetricKind::Gauge,
        unit: "s".to_owned(),
        help: help.to_owned(),
    };
    let write_metadata = |engine: &Engine, entry: Metadata| {
        let mut batch = engine.batch();
        batch.metrics().metadata(entry);
        engine.write(&mut batch).unwrap();
    };
    let mut expected = vec![metadata("a", "new"), metadata("b", "x"), metadata("c", "y")];
    {
        let engine = open(&disk);
        write_metadata(&engine, metadata("a", "old"));
        write(&engine, "a", 0..1, &[1]);
        engine.flush().unwrap();
        write_metadata(&engine, metadata("b", "x"));
        write_metadata(&engine, metadata("a", "new"));
        write(&engine, "a", 0..1, &[2]);
        engine.flush().unwrap();
        // Nothing but metadata: there is no block to put them into.
        write_metadata(&engine, metadata("c", "y"));
        engine.flush().unwrap();
        assert_eq!(engine.snapshot().unwrap().metadata(None).unwrap(), expected);
    }
    for _ in 0..2 {
        let engine = open(&disk);
        assert_eq!(engine.stats().metrics.samples, 0);
        assert_eq!(engine.snapshot().unwrap().metadata(None).unwrap(), expected);
    }
    let engine = open(&disk);
    write_metadata(&engine, metadata("d", "z"));
    write(&engine, "a", 0..1, &[3]);
    engine.flush().unwrap();
    drop(engine);
    expected.push(metadata("d", "z"));
    let engine = open(&disk);
    assert_eq!(engine.snapshot().unwrap().metadata(None).unwrap(), expected);
}

#[test]
fn generations_of_short_lived_series_leave_memory_flat() {
    let disk = PowerCutStorage::new();
    let engine = open(&disk);
    let mut after_five = 0;
    for generation in 0..100u64 {
        let series = generation * 300..generation * 300 + 300;
        write(&engine, "churn", series, &[generation as i64 * 1000]);
        engine.flush().unwrap();
        let stats = engine.stats();
        // Nothing merges them here.
        let used = stats.memory_used_bytes - stats.memory_blocks_bytes;
        if generation == 4 {
            after_five = used;
        }
        assert!(
            generation < 5 || used <= after_five + after_five / 10,
            "{used} after generation {generation}, {after_five} after five"
        );
        assert_eq!(engine.stats().metrics.series, 0);
    }
    assert!(bytes(&files(&disk, "wal")) <= 64 << 10);
}

#[test]
fn samples_scattered_over_years_make_few_files() {
    let disk = PowerCutStorage::new();
    let engine = open(&disk);
    let window_ms = 2 * 3600 * 1000;
    let times: Vec<i64> = (0..20_000).map(|i| i * window_ms).collect();
    for times in times.chunks(1000) {
        write(&engine, "sparse", 0..1, times);
    }
    let flushed = engine.flush().unwrap();
    assert_eq!((flushed.blocks, flushed.samples), (1, 20_000));
    assert_eq!(files(&disk, "blocks").len(), 1);
}

#[test]
fn days_get_blocks_of_their_own() {
    let disk = PowerCutStorage::new();
    let engine = open(&disk);
    let day_ms = 24 * 3600 * 1000;
    write(&engine, "m", 0..10, &[-1, 0, day_ms - 1, day_ms]);
    let flushed = engine.flush().unwrap();
    assert_eq!((flushed.blocks, flushed.samples), (3, 40));
}

#[test]
fn what_is_not_written_to_any_more_is_sealed_by_itself() {
    let disk = PowerCutStorage::new();
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder(Path::new(DATA))
        .settings(settings())
        .storage(Arc::new(disk.clone()))
        .clock(Arc::clone(&clock) as Arc<dyn rootline_engine::Clock>)
        .open()
        .unwrap();
    write(&engine, "m", 0..10, &[1]);
    engine.tick();
    clock.advance(Duration::from_secs(299));
    engine.tick();
    assert_eq!(engine.stats().blocks, 0);
    write(&engine, "m", 0..10, &[2]);
    clock.advance(Duration::from_secs(299));
    engine.tick();
    assert_eq!(engine.stats().blocks, 0, "it was written to");
    clock.advance(Duration::from_secs(1));
    engine.tick();
    assert_eq!(
        (engine.stats().blocks, engine.stats().metrics.series),
        (1, 0)
    );
    clock.advance(Duration::from_secs(86_400));
    engine.tick();
    assert_eq!(engine.stats().seals.seals, 1, "nothing more to do");
}

#[test]
fn a_store_that_gets_more_than_it_can_hold_seals_and_goes_on() {
    let disk = PowerCutStorage::new();
    let mut settings = settings();
    settings.memory_limit_bytes = 8 << 20;
    settings.maintenance_thread = true;
    let engine = Engine::builder(Path::new(DATA))
        .settings(settings)
        .storage(Arc::new(disk.clone()))
        .open()
        .unwrap();
    let mut samples = 0;
    for batch in 0..120u64 {
        let series = batch * 400..batch * 400 + 800;
        write(&engine, "m", series, &[batch as i64 * 1000]);
        samples += 800;
    }
    let stats = engine.stats();
    assert!(stats.seals.seals > 0, "{stats:?}");
    engine.flush().unwrap();
    assert_eq!(engine.stats().block_samples, samples);
}

#[test]
fn a_log_that_grows_is_sealed_and_cut() {
    let disk = PowerCutStorage::new();
    let mut settings = settings();
    settings.log_bytes_max = 256 << 10;
    let engine = Engine::builder(Path::new(DATA))
        .settings(settings)
        .storage(Arc::new(disk.clone()))
        .open()
        .unwrap();
    for batch in 0..200 {
        write(&engine, "m", 0..300, &[batch * 1000]);
        engine.tick();
        assert!(bytes(&files(&disk, "wal")) <= 2 << 20);
    }
    assert!(engine.stats().seals.seals >= 2);
    assert!(engine.stats().seals.seals <= 20);
}

#[test]
fn a_full_disk_costs_a_flush_nothing_but_time() {
    let disk = PowerCutStorage::new();
    let faulty = FaultStorage::new(Arc::new(disk.clone()));
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder(Path::new(DATA))
        .settings(settings())
        .storage(Arc::new(faulty.clone()))
        .clock(Arc::clone(&clock) as Arc<dyn rootline_engine::Clock>)
        .open()
        .unwrap();
    let mut rng = Rng(21);
    let model = play(&engine, &mut rng, 25);
    let expected = model.at(u64::MAX);
    let held = engine.stats().memory_metric_head_bytes;
    faulty.set_full(true);
    for _ in 0..3 {
        let error = engine.flush().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    }
    let stats = engine.stats();
    assert_eq!((stats.frozen_generations, stats.seals.failures), (1, 3));
    assert!(stats.seals.last_error.is_some());
    assert!(
        stats.memory_metric_head_bytes >= held,
        "nothing was dropped"
    );
    assert_eq!(stats.memory_sealing_bytes, 0);
    assert_eq!(observe(&engine.snapshot().unwrap()).unwrap(), expected);
    let unfinished = |name: &(PathBuf, u64)| name.0.extension().is_some_and(|e| e == "tmp");
    assert!(!files(&disk, "blocks").iter().any(unfinished));
    faulty.set_full(false);
    engine.tick();
    assert_eq!(engine.stats().frozen_generations, 1, "not yet");
    clock.advance(Duration::from_secs(60));
    engine.tick();
    let stats = engine.stats();
    assert_eq!(
        (stats.frozen_generations, stats.seals.last_error),
        (0, None)
    );
    assert_eq!(observe(&engine.snapshot().unwrap()).unwrap(), expected);
    drop(engine);
    disk.cut(None);
    let engine = open(&disk.restarted());
    assert_eq!(observe(&engine.snapshot().unwrap()).unwrap(), expected);
}

#[test]
fn a_cut_is_never_ahead_of_a_log_that_is_synced_now_and_then() {
    let disk = PowerCutStorage::new();
    let open = |disk: &PowerCutStorage| {
        let mut settings = settings();
        settings.durability = rootline_engine::Durability::Interval(Duration::from_millis(20));
        Engine::builder(Path::new(DATA))
            .settings(settings)
            .storage(Arc::new(disk.clone()))
            .open()
            .unwrap()
    };
    let engine = open(&disk);
    write(&engine, "m", 0..10, &[1]);
    engine.flush().unwrap();
    let stats = engine.stats();
    assert!(stats.durable_lsn >= stats.metric_cut);
    drop(engine);
    disk.cut(None);
    let engine = open(&disk.restarted());
    let stats = engine.stats();
    assert_eq!((stats.read_only, stats.block_samples), (None, 10));
    write(&engine, "m", 0..10, &[2]);
    assert_eq!(engine.stats().metrics.samples, 10);
}

#[test]
fn closing_seals_within_its_time_and_leaves_the_rest_to_replay() {
    let disk = PowerCutStorage::new();
    let engine = open(&disk);
    write(&engine, "m", 0..10, &[1, 2, 3]);
    engine.close_within(Duration::from_secs(60)).unwrap();
    assert_eq!(engine.stats().blocks, 1);
    let refused = apply(&engine, &random_samples(&mut Rng(1))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    drop(engine);

    let engine = open(&disk);
    assert_eq!(engine.stats().metrics.samples, 0);
    write(&engine, "m", 0..10, &[4]);
    engine.close_within(Duration::ZERO).unwrap();
    assert_eq!(engine.stats().blocks, 1);
    drop(engine);
    let engine = open(&disk);
    assert_eq!(engine.stats().metrics.samples, 10);
}

#[test]
fn a_damaged_manifest_opens_read_only_and_answers_as_before() {
    let disk = PowerCutStorage::new();
    let engine = open(&disk);
    let model = play(&engine, &mut Rng(9), 45);
    let expected = observe(&engine.snapshot().unwrap()).unwrap();
    assert_eq!(expected, model.at(u64::MAX));
    engine.close().unwrap();
    drop(engine);
    let blocks = files(&disk, "blocks");
    let manifest = files(&disk, "manifest");
    let (path, _) = manifest.iter().max_by_key(|(_, bytes)| *bytes).unwrap();
    let length = disk.content(path).unwrap().len();
    let mut read_only = 0;
    for offset in (0..length).step_by(257) {
        let disk = disk.copied();
        disk.damage(path, offset, 0x40).unwrap();
        let engine = match try_open(&disk) {
            Ok(engine) => engine,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupted, "at {offset}: {error}");
                continue;
            }
        };
        let stats = engine.stats();
        if stats.read_only.is_none() {
            continue;
        }
        read_only += 1;
        assert!(!stats.damage.is_empty());
        let op = random_samples(&mut Rng(1));
        let refused = apply(&engine, &op).unwrap_err();
        assert!(matches!(refused, Error::ReadOnly { .. }), "{refused}");
        assert!(engine.flush().is_err());
        let seen = observe(&engine.snapshot().unwrap()).unwrap();
        // Deletes that stood in the manifest alone may be gone; nothing else is.
        for (key, value) in &expected.samples {
            assert_eq!(seen.samples.get(key), Some(value), "at {offset}");
        }
        drop(engine);
        assert_eq!(files(&disk, "blocks"), blocks, "no file is touched");
    }
    assert!(read_only > 0);
}

#[test]
fn a_block_that_does_not_open_is_reported_and_costs_only_itself() {
    let disk = PowerCutStorage::new();
    let engine = open(&disk);
    write(&engine, "m", 0..10, &[1]);
    engine.flush().unwrap();
    write(&engine, "m", 0..10, &[2]);
    engine.flush().unwrap();
    engine.close().unwrap();
    drop(engine);
    let mut blocks = files(&disk, "blocks");
    blocks.sort();
    let (path, length) = &blocks[0];
    let file = disk.open(path).unwrap();
    file.set_len(length / 2).unwrap();
    file.sync().unwrap();
    drop(file);

    let engine = open(&disk);
    let stats = engine.stats();
    assert_eq!(stats.damage.len(), 1, "{:?}", stats.damage);
    assert_eq!(&stats.damage[0].path, path);
    assert_eq!(stats.read_only, None);
    assert_eq!(stats.blocks, 2, "the manifest names it as before");
    let count = |engine: &Engine| {
        let snapshot = engine.snapshot().unwrap();
        let query = engine.query_control(None, rootline_engine::QueryLimits::default());
        let mut count = 0;
        snapshot
            .select(
                &[],
                rootline_engine::TimeRange::ALL,
                &query,
                &mut |series| {
                    count += series.timestamps.len();
                    Ok(std::ops::ControlFlow::Continue(()))
                },
            )
            .unwrap();
        count
    };
    assert_eq!(count(&engine), 10);
    write(&engine, "m", 0..10, &[3]);
    engine.flush().unwrap();
    assert_eq!(count(&engine), 20);
    drop(engine);
    assert!(disk.exists(path).unwrap());
}

#[test]
fn a_store_whose_log_is_gone_takes_nothing() {
    let disk = PowerCutStorage::new();
    let engine = open(&disk);
    write(&engine, "m", 0..10, &[1]);
    engine.flush().unwrap();
    engine.close().unwrap();
    drop(engine);
    for (path, _) in files(&disk, "wal") {
        disk.remove(&path).unwrap();
    }
    let engine = open(&disk);
    assert!(engine.stats().read_only.is_some());
    let refused = apply(&engine, &random_samples(&mut Rng(1))).unwrap_err();
    assert!(matches!(refused, Error::ReadOnly { .. }), "{refused}");
    assert_eq!(engine.stats().block_samples, 10);
}
