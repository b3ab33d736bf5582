//! Days of a store in seconds: churn, late samples, repeats, deletes, retention, compaction and
//! reopening under a clock that is moved by hand. Nothing may creep, and answers agree with a plain
//! model.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path, sync::Arc, time::Duration};

use rootline_engine::{Clock, Engine, Labels, MatchOp, Matcher, QueryLimits, TimeRange, Timestamp};
use rootline_wal::{ManualClock, Storage};

use crate::files::{Unsynced, descriptors_under, files_in};

const STEP_MS: i64 = 30 * 60_000;
const DAY_MS: i64 = 24 * 3_600_000;
const STEPS_OF_DAY: u64 = (DAY_MS / STEP_MS) as u64;
const KEPT_DAYS: u64 = 3;
/// Days until retention has something to do and compaction is in its stride.
const WARM_UP_DAYS: usize = 6;

/// xorshift: enough to scatter.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What there should be: by series and ms.
#[derive(Default)]
struct Model {
    samples: BTreeMap<(String, i64), f64>,
}

fn open(dir: &Path, storage: &Arc<dyn Storage>, clock: &Arc<ManualClock>) -> Engine {
    let mut settings = crate::settings();
    settings.retention_age = Some(Duration::from_hours(24 * KEPT_DAYS));
    settings.log_bytes_max = 1 << 20;
    Engine::builder(dir)
        .settings(settings)
        .storage(Arc::clone(storage))
        .clock(Arc::clone(clock) as Arc<dyn Clock>)
        .open()
        .unwrap()
}

/// One step of the load: series that stay, series of the day, late samples, repeats.
fn write(engine: &Engine, model: &mut Model, random: &mut Random, now_ms: i64) {
    let mut batch = engine.batch();
    let mut add = |kind: &str, number: u64, time_ms: i64, value: f64| {
        let i = format!("{kind}-{number}");
        let name = Labels::from_pairs([("__name__", "m"), ("kind", kind), ("i", &i)]).unwrap();
        let row = batch.metrics().series(&name);
        let time = Timestamp::from_millis(time_ms).unwrap();
        batch.metrics().sample(row, time, value);
        model.samples.insert((i, time_ms), value);
    };
    for series in 0..20 {
        for minute in 0..10 {
            let time_ms = now_ms - STEP_MS + minute * 180_000;
            add("stays", series, time_ms, random.below(1000) as f64 / 10.0);
        }
    }
    let day = now_ms.div_euclid(DAY_MS).unsigned_abs();
    for series in 0..10 {
        let number = day * 1000 + random.below(200) + series * 200;
        add("churn", number, now_ms, number as f64);
    }
    for _ in 0..5 {
        let late_ms = now_ms - random.below(DAY_MS as u64) as i64;
        add("stays", random.below(20), late_ms, -1.0);
    }
    let outcome = engine.write(&mut batch).unwrap();
    assert!(outcome.rejections.is_empty(), "{:?}", outcome.rejections);
    engine.recycle(batch);
}

/// Deletes an hour of one series that stays, or all of a series of the day.
fn delete(engine: &Engine, model: &mut Model, random: &mut Random, now_ms: i64) {
    let (i, first_ms, last_ms) = if random.below(2) == 0 {
        let first_ms = now_ms - random.below(2 * DAY_MS as u64) as i64;
        (
            format!("stays-{}", random.below(20)),
            first_ms,
            first_ms + 3_600_000,
        )
    } else {
        let (i, _) = model
            .samples
            .keys()
            .find(|(i, _)| i.starts_with("churn"))
            .cloned()
            .unwrap_or_default();
        (i, i64::MIN / 1_000_000, i64::MAX / 1_000_000)
    };
    let matcher = Matcher::new(MatchOp::Equal, "i", &i).unwrap();
    let time = |ms| Timestamp::from_millis(ms).unwrap();
    let range = TimeRange::new(time(first_ms), time(last_ms)).unwrap();
    engine.delete_series(&[matcher], range).unwrap();
    model
        .samples
        .retain(|(series, ms), _| *series != i || *ms < first_ms || *ms > last_ms);
}

fn check(engine: &Engine, model: &mut Model) {
    let floor = engine.stats().retention_floor.map(Timestamp::as_nanos);
    let floor_ns = floor.unwrap_or(i64::MIN);
    model
        .samples
        .retain(|(_, ms), _| ms * 1_000_000 >= floor_ns);
    let query = engine.query_control(None, QueryLimits::default());
    let mut found = BTreeMap::new();
    let snapshot = engine.snapshot().unwrap();
    snapshot
        .select(&[], TimeRange::ALL, &query, &mut |series| {
            let i = series.labels.get("i").unwrap();
            for (time_ns, value) in series.timestamps.iter().zip(series.values) {
                found.insert((i.to_owned(), time_ns / 1_000_000), *value);
            }
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    if found != model.samples {
        let missing = model.samples.keys().find(|key| !found.contains_key(*key));
        let extra = found.keys().find(|key| !model.samples.contains_key(*key));
        panic!(
            "{} samples instead of {}; missing {missing:?}, extra {extra:?}",
            found.len(),
            model.samples.len()
        );
    }
}

/// What may not creep, at the end of each day.
#[derive(Debug)]
struct Figures {
    memory_bytes: u64,
    disk_bytes: u64,
    log_bytes: u64,
    manifest_bytes: u64,
    files: u64,
    descriptors: u64,
    tombstones: u64,
}

impl Figures {
    fn of(engine: &Engine, dir: &Path) -> Self {
        let files = files_in(dir);
        let bytes = |part: &str| -> u64 {
            let of_part = files
                .iter()
                .filter(|(path, _)| path.starts_with(dir.join(part)));
            of_part.map(|(_, bytes)| bytes).sum()
        };
        let stats = engine.stats();
        Self {
            memory_bytes: stats.memory_used_bytes,
            disk_bytes: bytes("blocks"),
            log_bytes: bytes("wal"),
            manifest_bytes: bytes("manifest"),
            files: files.len() as u64,
            descriptors: descriptors_under(dir) as u64,
            tombstones: stats.tombstones,
        }
    }
}

#[test]
fn days_of_churn_late_samples_deletes_and_retention_leave_nothing_creeping() {
    let days = if crate::is_full() { 120 } else { 20 };
    let dir = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(Unsynced::mapped());
    let clock = Arc::new(ManualClock::new());
    let start_ms = 20_000 * DAY_MS;
    clock.set_wall_ns(start_ms * 1_000_000);
    let mut engine = open(dir.path(), &storage, &clock);
    let mut model = Model::default();
    let mut random = Random(11);
    let mut figures: Vec<Figures> = Vec::new();
    for step in 1..=days * STEPS_OF_DAY {
        clock.advance(Duration::from_millis(STEP_MS as u64));
        let now_ms = start_ms + step as i64 * STEP_MS;
        write(&engine, &mut model, &mut random, now_ms);
        if step % 12 == 0 {
            delete(&engine, &mut model, &mut random, now_ms);
        }
        // The seal after the rest, as the thread would find it.
        if step % 4 == 0 {
            clock.advance(Duration::from_secs(1));
            engine.flush().unwrap();
        }
        engine.tick();
        if step % (STEPS_OF_DAY / 2) == 0 {
            check(&engine, &mut model);
        }
        if step % STEPS_OF_DAY == 0 {
            figures.push(Figures::of(&engine, dir.path()));
            if (step / STEPS_OF_DAY).is_multiple_of(3) {
                engine.close().unwrap();
                drop(engine);
                engine = open(dir.path(), &storage, &clock);
                check(&engine, &mut model);
            }
        }
    }
    assert_eq!(engine.stats().seals.failures, 0);
    assert_eq!(engine.stats().compactions.last_error, None);
    flat(&figures, "memory", 64 << 10, |f| f.memory_bytes);
    flat(&figures, "disk", 64 << 10, |f| f.disk_bytes);
    flat(&figures, "log", 256 << 10, |f| f.log_bytes);
    flat(&figures, "manifest", 64 << 10, |f| f.manifest_bytes);
    flat(&figures, "files", 8, |f| f.files);
    flat(&figures, "descriptors", 4, |f| f.descriptors);
    flat(&figures, "tombstones", 8, |f| f.tombstones);
}

/// The highest of the last days is no more than a tenth, and `slack`, above the highest of those before.
fn flat(figures: &[Figures], name: &str, slack: u64, of: fn(&Figures) -> u64) {
    let settled: Vec<u64> = figures.iter().skip(WARM_UP_DAYS).map(of).collect();
    let (first, last) = settled.split_at(settled.len() / 2);
    let highest = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    let (before, after) = (highest(first), highest(last));
    assert!(
        after <= before + before / 10 + slack,
        "{name} creeps: {before} then {after}; {settled:?}"
    );
}
