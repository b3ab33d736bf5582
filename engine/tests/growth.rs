//! What grows and what must not: files, descriptors, memory and log of a store that is written to for
//! years, here in seconds. Real files.
//!
//! Small forms run as they stand. `ROOTLINE_GROWTH_BLOCKS=5000` opens so many blocks,
//! `ROOTLINE_GROWTH_FULL=1` plays the long form of all others.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

#[path = "growth/files.rs"]
mod files;
#[path = "growth/soak.rs"]
mod soak;

use std::{ops::ControlFlow, path::Path, sync::Arc};

use files::{Unsynced, descriptors_under, files_in};
use rootline_engine::{
    Engine, Labels, MatchOp, Matcher, QueryLimits, Settings, TimeRange, Timestamp,
};
use rootline_wal::{FsStorage, PowerCutStorage, Storage};

/// Descriptors that a store may hold, whatever the number of its blocks.
const DESCRIPTORS_MAX: usize = 256;
/// Files that sparse samples may make.
const FILES_MAX: usize = 1_000;
const WINDOW_MS: i64 = 2 * 3600 * 1000;

fn is_full() -> bool {
    std::env::var_os("ROOTLINE_GROWTH_FULL").is_some()
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.segment_bytes = (64 << 10, 1 << 20);
    settings.metric_shards = 2;
    settings.span_shards = 1;
    settings.maintenance_thread = false;
    settings
}

fn open(dir: &Path, storage: Arc<dyn Storage>) -> Engine {
    Engine::builder(dir)
        .settings(settings())
        .storage(storage)
        .open()
        .unwrap()
}

fn labels(name: &str, i: u64) -> Labels {
    Labels::from_pairs([("__name__", name), ("i", &i.to_string())]).unwrap()
}

fn write(engine: &Engine, name: &str, samples: impl IntoIterator<Item = (u64, i64, f64)>) {
    let mut batch = engine.batch();
    for (series, time_ms, value) in samples {
        let row = batch.metrics().series(&labels(name, series));
        let time = Timestamp::from_millis(time_ms).unwrap();
        batch.metrics().sample(row, time, value);
    }
    let outcome = engine.write(&mut batch).unwrap();
    assert!(outcome.rejections.is_empty(), "{:?}", outcome.rejections);
    engine.recycle(batch);
}

/// Every sample of a metric in a range: (series, ms, value).
fn read(engine: &Engine, name: &str, range: TimeRange) -> Vec<(u64, i64, f64)> {
    let query = engine.query_control(None, QueryLimits::default());
    let matcher = [Matcher::new(MatchOp::Equal, "__name__", name).unwrap()];
    let mut found = Vec::new();
    engine
        .snapshot()
        .unwrap()
        .select(&matcher, range, &query, &mut |series| {
            let number: u64 = series.labels.get("i").unwrap().parse().unwrap();
            let samples = series.timestamps.iter().zip(series.values);
            found.extend(samples.map(|(t, v)| (number, *t / 1_000_000, *v)));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    found
}

fn millis(first_ms: i64, last_ms: i64) -> TimeRange {
    let time = |ms| Timestamp::from_millis(ms).unwrap();
    TimeRange::new(time(first_ms), time(last_ms)).unwrap()
}

fn number_of_blocks() -> i64 {
    let wanted = std::env::var("ROOTLINE_GROWTH_BLOCKS").ok();
    wanted.map_or(300, |n| n.parse().unwrap())
}

/// Blocks of one sample each, a day apart so that each has a time of its own; then reads all of them.
fn many_blocks(storage: &Arc<dyn Storage>) {
    let dir = tempfile::tempdir().unwrap();
    let blocks = number_of_blocks();
    let engine = open(dir.path(), Arc::clone(storage));
    for day in 0..blocks {
        write(&engine, "m", [(0, day * 12 * WINDOW_MS, day as f64)]);
        assert_eq!(engine.flush().unwrap().blocks, 1);
        if day % 100 == 0 {
            assert!(descriptors_under(dir.path()) <= DESCRIPTORS_MAX);
        }
    }
    let check = |engine: &Engine| {
        assert_eq!(engine.stats().blocks, blocks.unsigned_abs());
        let expected: Vec<(u64, i64, f64)> = (0..blocks)
            .map(|day| (0, day * 12 * WINDOW_MS, day as f64))
            .collect();
        assert_eq!(read(engine, "m", TimeRange::ALL), expected);
        let open_files = descriptors_under(dir.path());
        assert!(open_files <= DESCRIPTORS_MAX, "{open_files} descriptors");
    };
    check(&engine);
    engine.close().unwrap();
    drop(engine);
    let engine = open(dir.path(), Arc::clone(storage));
    check(&engine);
    // What is known of an open block is small.
    assert!(
        files_in(&dir.path().join("manifest")).len() <= 16,
        "{:?}",
        files_in(&dir.path().join("manifest"))
    );
}

#[test]
fn thousands_of_mapped_blocks_need_few_descriptors() {
    many_blocks(&(Arc::new(Unsynced::mapped()) as Arc<dyn Storage>));
}

#[test]
fn thousands_of_blocks_that_are_read_need_few_descriptors() {
    many_blocks(&(Arc::new(Unsynced::read()) as Arc<dyn Storage>));
}

/// Windows in an order that looks random, each once.
fn scattered(windows: i64) -> impl Iterator<Item = i64> {
    // A step that shares no factor with the number of windows visits each once.
    (0..windows).map(move |i| i * 7_919 % windows)
}

#[test]
fn samples_in_windows_of_their_own_make_few_files() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), Arc::new(FsStorage));
    let windows = 200_000;
    for (n, chunk) in scattered(windows)
        .collect::<Vec<_>>()
        .chunks(10_000)
        .enumerate()
    {
        let samples = chunk.iter().map(|w| (0, w * WINDOW_MS, *w as f64));
        write(&engine, "sparse", samples);
        assert!(engine.stats().frozen_generations == 0, "after {n}");
    }
    let flushed = engine.flush().unwrap();
    assert_eq!(flushed.samples, windows.unsigned_abs());
    assert!(files_in(dir.path()).len() <= FILES_MAX);
    assert_eq!(files_in(&dir.path().join("blocks")).len(), 1);
    check_sparse(&engine, windows);
    drop(engine);
    check_sparse(&open(dir.path(), Arc::new(FsStorage)), windows);
}

fn check_sparse(engine: &Engine, windows: i64) {
    let expected: Vec<(u64, i64, f64)> =
        (0..windows).map(|w| (0, w * WINDOW_MS, w as f64)).collect();
    assert_eq!(read(engine, "sparse", TimeRange::ALL), expected);
    for window in (0..windows).step_by(windows as usize / 50) {
        let at = window * WINDOW_MS;
        let around = millis(at - WINDOW_MS / 2, at + WINDOW_MS / 2);
        assert_eq!(read(engine, "sparse", around), [(0, at, window as f64)]);
    }
}

#[test]
fn samples_in_windows_of_their_own_over_many_flushes_make_few_files() {
    let dir = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(Unsynced::mapped());
    let engine = open(dir.path(), Arc::clone(&storage));
    let (flushes, of_flush) = if is_full() { (200, 1_000) } else { (60, 200) };
    let windows = flushes * of_flush;
    let all: Vec<i64> = scattered(windows).collect();
    let mut most = 0;
    for chunk in all.chunks(of_flush as usize) {
        let samples = chunk.iter().map(|w| (0, w * WINDOW_MS, *w as f64));
        write(&engine, "sparse", samples);
        engine.flush().unwrap();
        engine.tick();
        most = most.max(files_in(&dir.path().join("blocks")).len());
    }
    assert!(most <= 20, "{most} blocks at once");
    check_sparse(&engine, windows);
    engine.compact().unwrap();
    assert_eq!(engine.stats().blocks, 1);
    check_sparse(&engine, windows);
}

/// Every generation brings a busy day of its own among scattered samples: blocks of days and spanning
/// blocks lie across each other.
#[test]
fn late_days_among_scattered_samples_leave_few_files() {
    let dir = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(Unsynced::mapped());
    let engine = open(dir.path(), Arc::clone(&storage));
    let flushes = if is_full() { 400 } else { 80 };
    let mut most = 0;
    let mut random = soak::Random(7);
    for flush in 0..flushes {
        let busy_ms = random.below(60) as i64 * 12 * WINDOW_MS;
        write(
            &engine,
            "m",
            (0..9_000).map(|i| (i % 90, busy_ms + (i / 90) as i64 * 60_000 + flush, 1.0)),
        );
        let late = (0..50).map(|_| {
            (
                100 + random.below(90),
                random.below(60 * 86_400_000) as i64,
                2.0,
            )
        });
        write(&engine, "m", late.collect::<Vec<_>>());
        engine.flush().unwrap();
        engine.tick();
        most = most.max(engine.stats().blocks);
    }
    // Sixty days, each with a few levels.
    assert!(
        most <= 150,
        "{most} blocks at once, {} now",
        engine.stats().blocks
    );
}

/// Series that live for one generation each.
#[test]
fn short_lived_series_leave_nothing_in_memory() {
    let (generations, series) = if is_full() {
        (100, 10_000)
    } else {
        (30, 1_000)
    };
    let dir = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(Unsynced::mapped());
    let engine = open(dir.path(), Arc::clone(&storage));
    let mut after_five = 0;
    for generation in 0..generations {
        let first = generation * series;
        let time = generation as i64 * 60_000;
        write(
            &engine,
            "churn",
            (first..first + series).map(|s| (s, time, s as f64)),
        );
        engine.flush().unwrap();
        engine.tick();
        let used = engine.stats().memory_used_bytes;
        if generation == 4 {
            after_five = used;
        }
        assert!(
            generation < 5 || used <= after_five + after_five / 10,
            "{used} after generation {generation}, {after_five} after five"
        );
    }
    let log = files_in(&dir.path().join("wal"));
    assert!(
        log.iter().map(|(_, bytes)| bytes).sum::<u64>() <= 128 << 10,
        "{log:?}"
    );
    let now = generations as i64 * 60_000;
    let last = read(&engine, "churn", millis(now - 60_000, now));
    assert_eq!(last.len() as u64, series);
    assert_eq!(
        read(&engine, "churn", TimeRange::ALL).len() as u64,
        generations * series
    );
}

/// A generation that was frozen by a sealing for which there was no room: a delete makes it small enough.
#[test]
fn a_delete_makes_room_for_what_could_not_be_sealed() {
    let disk = PowerCutStorage::new();
    let mut settings = settings();
    settings.segment_bytes = (64 << 10, 64 << 10);
    settings.disk_reserve_bytes = 256 << 10;
    let open = |disk: &PowerCutStorage| {
        Engine::builder(Path::new("/data"))
            .settings(settings.clone())
            .storage(Arc::new(disk.clone()))
            .open()
            .unwrap()
    };
    let engine = open(&disk);
    let mut random = soak::Random(5);
    let mut noise = || -> String {
        (0..1_000)
            .map(|_| char::from(b'!' + random.below(90) as u8))
            .collect()
    };
    let mut batch = engine.batch();
    for i in 0..2_000u64 {
        let group = if i < 100 { "kept" } else { "filler" };
        let pairs = [
            ("__name__", group),
            ("i", &i.to_string()),
            ("noise", &noise()),
        ];
        let row = batch.metrics().series(&Labels::from_pairs(pairs).unwrap());
        batch
            .metrics()
            .sample(row, Timestamp::from_millis(1).unwrap(), i as f64);
    }
    engine.write(&mut batch).unwrap();
    let held = engine.snapshot().unwrap();
    // What is kept fits, what is deleted does not.
    disk.set_capacity_bytes(Some(1 << 30));
    let used = (1 << 30) - disk.free_bytes(Path::new("/data")).unwrap();
    disk.set_capacity_bytes(Some(used + (600 << 10)));
    assert!(engine.flush().is_err());
    assert_eq!(engine.stats().frozen_generations, 1);
    let filler = Matcher::new(MatchOp::Equal, "__name__", "filler").unwrap();
    engine.delete_series(&[filler], TimeRange::ALL).unwrap();
    let flushed = engine.flush().unwrap();
    assert_eq!((flushed.blocks, flushed.samples), (1, 100));
    let count = |engine: &Engine| {
        (
            read(engine, "kept", TimeRange::ALL).len(),
            read(engine, "filler", TimeRange::ALL).len(),
        )
    };
    assert_eq!(count(&engine), (100, 0));
    // An older snapshot still reads what it began with.
    let query = engine.query_control(None, QueryLimits::default());
    let mut seen = 0;
    held.select(&[], TimeRange::ALL, &query, &mut |_| {
        seen += 1;
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    assert_eq!(seen, 2_000);
    drop(held);
    engine.tick();
    write(&engine, "kept", [(5_000, 2, 1.0)]);
    engine.close().unwrap();
    drop(engine);
    let engine = open(&disk);
    assert_eq!(count(&engine), (101, 0));
    assert_eq!(engine.stats().tombstones, 0);
}
