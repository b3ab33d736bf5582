//! A disk that gets full at any moment of a random workload: writes are refused as transient, reads go
//! on, deletes work, what retention and merging drop makes room, and with room the store goes on
//! without being opened again. Nothing acknowledged is lost.
//!
//! `ROOTLINE_MODEL_ROUNDS=N` plays more seeds.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod model;

use std::{path::Path, sync::Arc, time::Duration};

use model::{DAY_NS, Model, Op, Pick, Rng, Written, apply, observe, random_op_at};
use rootline_engine::{Clock, Engine, ErrorKind, Settings, verify::verify};
use rootline_wal::{ManualClock, PowerCutStorage, Storage};

const DATA: &str = "/data";
const TODAY: i64 = 40;
const RESERVE_BYTES: u64 = 64 << 10;

fn open(disk: &PowerCutStorage, clock: &Arc<ManualClock>, kept_days: Option<u64>) -> Engine {
    let mut settings = Settings::default();
    settings.segment_bytes = (16 << 10, 64 << 10);
    settings.metric_shards = 2;
    settings.span_shards = 1;
    settings.maintenance_thread = false;
    settings.disk_reserve_bytes = RESERVE_BYTES;
    settings.retention_age = kept_days.map(|days| Duration::from_secs(days * 86_400));
    Engine::builder(Path::new(DATA))
        .settings(settings)
        .storage(Arc::new(disk.clone()))
        .clock(Arc::clone(clock) as Arc<dyn Clock>)
        .open()
        .unwrap()
}

fn clock() -> Arc<ManualClock> {
    let clock = Arc::new(ManualClock::new());
    clock.set_wall_ns(TODAY * DAY_NS);
    clock
}

fn used_bytes(disk: &PowerCutStorage) -> u64 {
    let dirs = ["blocks", "wal", "manifest", ""];
    let dirs = dirs.map(|dir| Path::new(DATA).join(dir));
    let files = dirs.iter().flat_map(|dir| {
        let names = disk.list(dir).unwrap_or_default();
        names.into_iter().map(move |name| dir.join(name))
    });
    files.map(|file| disk.len(&file).unwrap_or(0)).sum()
}

/// As an hour goes by: what failed is tried again.
fn later(engine: &Engine, clock: &ManualClock) {
    for _ in 0..3 {
        clock.advance(Duration::from_secs(60));
        engine.tick();
    }
}

/// Random operations; those that the store refuses for now are no part of the model.
struct Play {
    rng: Rng,
    model: Model,
    refused: u64,
}

impl Play {
    fn step(&mut self, engine: &Engine) {
        match self.rng.below(12) {
            0 => transient(engine.flush()),
            1 => transient(engine.compact()),
            2 => engine.tick(),
            _ => {
                let op = random_op_at(&mut self.rng, TODAY);
                match apply(engine, &op) {
                    Ok(lsn) => self.model.ops.extend(lsn.map(|lsn| (lsn, op))),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
                        self.refused += 1;
                    }
                }
            }
        }
    }
}

fn transient<T>(done: Result<T, rootline_engine::Error>) {
    if let Err(error) = done {
        assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    }
}

#[test]
fn at_any_moment_the_disk_gets_full_and_has_room_again() {
    let rounds = std::env::var("ROOTLINE_MODEL_ROUNDS").ok();
    let rounds = rounds.map_or(20, |rounds| rounds.parse::<u64>().unwrap());
    let mut refused = 0;
    for seed in 0..rounds {
        let clock = clock();
        let disk = PowerCutStorage::new();
        let engine = open(&disk, &clock, None);
        let mut play = Play {
            rng: Rng(seed),
            model: Model::default(),
            refused: 0,
        };
        for _ in 0..2 {
            for _ in 0..play.rng.below(60) {
                play.step(&engine);
            }
            // From no byte to about as much as a block takes.
            let left = play.rng.below(3) * play.rng.below(300 << 10);
            disk.set_capacity_bytes(Some(used_bytes(&disk) + left));
            for _ in 0..60 {
                play.step(&engine);
                let seen = observe(&engine.snapshot().unwrap()).unwrap();
                assert_eq!(seen, play.model.at(u64::MAX), "seed {seed}: reads go on");
            }
            disk.set_capacity_bytes(None);
            later(&engine, &clock);
            let before = play.refused;
            for _ in 0..20 {
                play.step(&engine);
            }
            assert_eq!(play.refused, before, "seed {seed}: there is room");
            engine.flush().unwrap();
            engine.compact().unwrap();
            let expected = play.model.at(u64::MAX);
            let seen = observe(&engine.snapshot().unwrap()).unwrap();
            assert_eq!(seen, expected, "seed {seed}");
        }
        refused += play.refused;
        drop(engine);
        disk.cut(Some(seed));
        let disk = disk.restarted();
        let engine = open(&disk, &clock, None);
        let seen = observe(&engine.snapshot().unwrap()).unwrap();
        assert_eq!(seen, play.model.at(u64::MAX), "seed {seed}: reopened");
        engine.close().unwrap();
        drop(engine);
        let storage: Arc<dyn Storage> = Arc::new(disk);
        let verified = verify(&storage, Path::new(DATA), &mut |_, _| Ok(())).unwrap();
        assert_eq!(verified.damage, [], "seed {seed}");
    }
    assert!(refused > rounds, "{refused} refusals in {rounds} rounds");
}

/// Incompressible samples of an hour of one day.
fn hour(rng: &mut Rng, days_ago: i64, hour: i64) -> Op {
    let mut written = Written::default();
    for second in 0..400 {
        for series in 0..6 {
            let second = hour * 3600 + second;
            let time = (TODAY - days_ago) * DAY_NS + second * 1_000_000_000;
            written.samples.push((series, time, rng.next()));
        }
    }
    Op::Write(written)
}

/// A store of 8 days whose disk is full.
fn full(kept_days: Option<u64>) -> (PowerCutStorage, Arc<ManualClock>, Engine, Model) {
    let clock = clock();
    let disk = PowerCutStorage::new();
    let engine = open(&disk, &clock, kept_days);
    let mut rng = Rng(1);
    let mut model = Model::default();
    for days_ago in (0..8).rev() {
        for hour_of_day in 0..4 {
            let op = hour(&mut rng, days_ago, hour_of_day);
            model.ops.push((apply(&engine, &op).unwrap().unwrap(), op));
        }
        engine.flush().unwrap();
    }
    disk.set_capacity_bytes(Some(used_bytes(&disk) + RESERVE_BYTES * 3 / 2));
    engine.tick();
    for _ in 0..200 {
        let op = hour(&mut rng, 0, 5);
        match apply(&engine, &op) {
            Ok(lsn) => model.ops.push((lsn.unwrap(), op)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
                return (disk, clock, engine, model);
            }
        }
        engine.tick();
    }
    panic!("the disk gets full in the end");
}

fn takes_writes(engine: &Engine, model: &mut Model) {
    let op = hour(&mut Rng(2), 0, 6);
    let lsn = apply(engine, &op).unwrap_or_else(|e| panic!("{e}: {:?}", engine.stats()));
    model.ops.push((lsn.unwrap(), op));
    let seen = observe(&engine.snapshot().unwrap()).unwrap();
    let floor = engine.stats().retention_floor;
    let floor_ns = floor.map_or(i64::MIN, |floor| floor.as_nanos());
    assert_eq!(seen, model.at(u64::MAX).from(floor_ns));
}

#[test]
fn deletes_make_room_on_a_full_disk() {
    let (_disk, clock, engine, mut model) = full(None);
    let delete = Op::Delete {
        picks: vec![Pick::Series(0), Pick::Group(0)],
        start: (TODAY - 7) * DAY_NS,
        end: (TODAY - 2) * DAY_NS - 1,
    };
    let whole = Op::Delete {
        picks: vec![Pick::NotTens],
        start: (TODAY - 7) * DAY_NS,
        end: (TODAY - 3) * DAY_NS - 1,
    };
    for op in [delete, whole] {
        let lsn = apply(&engine, &op).unwrap_or_else(|e| panic!("deletes work: {e}"));
        model.ops.push((lsn.unwrap(), op));
    }
    later(&engine, &clock);
    takes_writes(&engine, &mut model);
}

#[test]
fn retention_makes_room_on_a_full_disk() {
    let (_disk, clock, engine, mut model) = full(Some(10));
    for _ in 0..6 {
        clock.advance(Duration::from_secs(86_400));
        engine.tick();
    }
    later(&engine, &clock);
    assert!(engine.stats().compactions.retired_blocks > 0);
    takes_writes(&engine, &mut model);
}
