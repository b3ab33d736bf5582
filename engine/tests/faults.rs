//! Every write, sync, rename, preallocation and removal fails or tears once, by number; then the power
//! is cut, the store reopened, and contracts 1, 3, 5 and 6 are checked: what was acknowledged is there,
//! nothing is there by half, what was refused as transient is not there.
//!
//! `ROOTLINE_FAULT_STRIDE=1` lets each operation fail in every way, the default in one or two.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod model;

use std::{path::Path, sync::Arc, time::Duration};

use model::{Model, Op, Rng, State, apply, observe, random_op};
use rootline_engine::{Engine, Error, ErrorKind, Settings};
use rootline_wal::{Fault, FaultStorage, Operation, PowerCutStorage, Storage};

const BATCHES: usize = 12;

fn open(storage: Arc<dyn Storage>) -> Result<Engine, Error> {
    let mut settings = Settings::default();
    // Small segments: the play rotates through several.
    settings.segment_bytes = (16 << 10, 16 << 10);
    settings.metric_shards = 2;
    settings.span_shards = 2;
    // Operations are counted: all are made by the play itself.
    settings.maintenance_thread = false;
    Engine::builder(Path::new("/data"))
        .settings(settings)
        .storage(storage)
        .open()
}

/// What became of the operations of one play.
#[derive(Debug, Default)]
struct Fate {
    acknowledged: Model,
    /// Failed in a way that leaves open whether they are there: index into the order of all.
    uncertain: Vec<(usize, Op)>,
    refused: usize,
}

fn play(storage: Arc<dyn Storage>) -> Fate {
    let mut rng = Rng(7);
    let mut fate = Fate::default();
    let Ok(engine) = open(storage) else {
        return fate;
    };
    for at in 1..=BATCHES {
        if at % 4 == 0 {
            // What a flush that fails leaves behind must be as good as none.
            let _ = engine.flush();
        }
        let op = random_op(&mut rng);
        match apply(&engine, &op) {
            Ok(Some(_)) => fate.acknowledged.ops.push((at as u64, op)),
            Ok(None) => {}
            Err(e) if e.kind() == ErrorKind::Retry => fate.refused += 1,
            Err(_) => fate.uncertain.push((at, op)),
        }
    }
    let _ = engine.close_within(Duration::from_mins(1));
    fate
}

/// The states that are allowed: all acknowledged, and any prefix of the uncertain ones, whole.
fn allowed(fate: &Fate) -> Vec<State> {
    (0..=fate.uncertain.len())
        .map(|taken| {
            let mut model = fate.acknowledged.clone();
            model.ops.extend(
                fate.uncertain
                    .iter()
                    .take(taken)
                    .map(|(at, op)| (*at as u64, op.clone())),
            );
            model.ops.sort_by_key(|(at, _)| *at);
            model.at(u64::MAX)
        })
        .collect()
}

fn check(disk: &PowerCutStorage, fate: &Fate, story: &str) {
    let engine = open(Arc::new(disk.clone())).unwrap_or_else(|e| panic!("{story}: reopening: {e}"));
    let seen = observe(&engine.snapshot().unwrap()).unwrap();
    assert!(
        allowed(fate).contains(&seen),
        "{story}: {fate:?}\nseen {seen:?}"
    );
    let replayed = engine.stats().replayed;
    assert!(
        replayed.log.corrupt.is_empty(),
        "{story}: {:?}",
        replayed.log.corrupt
    );
    assert_eq!(replayed.orphaned_samples, 0, "{story}");
    let stats = engine.stats();
    assert_eq!(
        (stats.read_only, stats.damage),
        (None, Vec::new()),
        "{story}"
    );
    // It goes on from there.
    engine
        .flush()
        .unwrap_or_else(|e| panic!("{story}: flushing: {e}"));
    assert_eq!(
        observe(&engine.snapshot().unwrap()).unwrap(),
        seen,
        "{story}"
    );
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_there_after_any_fault() {
    let disk = PowerCutStorage::new();
    let counted = FaultStorage::new(Arc::new(disk.clone()));
    counted.watch(&Operation::CHANGING);
    let calm = play(Arc::new(counted.clone()));
    assert_eq!((calm.refused, calm.uncertain.len()), (0, 0));
    let operations = counted.count();
    assert!(
        operations > 20,
        "the play does something to the disk: {operations}"
    );

    let stride = std::env::var("ROOTLINE_FAULT_STRIDE");
    let stride = stride.map_or(3, |stride| stride.parse::<u64>().unwrap());
    let faults = [Fault::Fail, Fault::Tear, Fault::Full, Fault::Crash];
    for nth in 0..operations {
        // By default some of them at each operation.
        let some = faults.into_iter().zip(nth..);
        for (fault, _) in some.filter(|(_, at)| at % stride == 0) {
            let disk = PowerCutStorage::new();
            let faulty = FaultStorage::new(Arc::new(disk.clone()));
            faulty.arm(&Operation::CHANGING, nth, fault);
            let fate = play(Arc::new(faulty));
            // Half of the rounds keep what was not synced by chance, the others lose all of it.
            disk.cut((nth % 2 == 0).then_some(nth));
            check(
                &disk.restarted(),
                &fate,
                &format!("{fault:?} at operation {nth}"),
            );
        }
    }
}

#[test]
fn a_second_cut_during_recovery_loses_nothing() {
    let disk = PowerCutStorage::new();
    let fate = play(Arc::new(FaultStorage::new(Arc::new(disk.clone()))));
    disk.cut(None);
    let first = disk.restarted();
    let counted = FaultStorage::new(Arc::new(first.copied()));
    counted.watch(&Operation::CHANGING);
    drop(open(Arc::new(counted.clone())).unwrap());
    let operations = counted.count();
    for nth in 0..operations {
        let disk = first.copied();
        let faulty = FaultStorage::new(Arc::new(disk.clone()));
        faulty.arm(&Operation::CHANGING, nth, Fault::Crash);
        drop(open(Arc::new(faulty)));
        disk.cut(Some(nth));
        check(
            &disk.restarted(),
            &fate,
            &format!("second cut at operation {nth} of recovery"),
        );
    }
}

#[test]
fn a_full_disk_refuses_transiently_reads_go_on_and_writes_resume_when_there_is_room() {
    let disk = PowerCutStorage::new();
    let storage = FaultStorage::new(Arc::new(disk.clone()));
    let engine = open(Arc::new(storage.clone())).unwrap();
    let mut rng = Rng(3);
    let mut model = Model::default();
    let mut write = |engine: &Engine, model: &mut Model| {
        let op = random_op(&mut rng);
        apply(engine, &op).map(|lsn| {
            if let Some(lsn) = lsn {
                model.ops.push((lsn, op));
            }
        })
    };
    for _ in 0..5 {
        write(&engine, &mut model).unwrap();
    }
    storage.set_full(true);
    let mut refused = None;
    for _ in 0..200 {
        if let Err(error) = write(&engine, &mut model) {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("a full disk refuses in the end");
    assert_eq!(refused.kind(), ErrorKind::Retry, "{refused}");
    let expected = model.at(u64::MAX);
    assert_eq!(
        observe(&engine.snapshot().unwrap()).unwrap(),
        expected,
        "reads go on"
    );
    storage.set_full(false);
    for _ in 0..20 {
        write(&engine, &mut model).unwrap();
    }
    drop(engine);
    disk.cut(None);
    let engine = open(Arc::new(disk.restarted())).unwrap();
    assert_eq!(
        observe(&engine.snapshot().unwrap()).unwrap(),
        model.at(u64::MAX)
    );
}

#[test]
fn a_damaged_record_costs_its_batch_and_is_reported_with_file_and_offset() {
    let disk = PowerCutStorage::new();
    let engine = open(Arc::new(disk.clone())).unwrap();
    let mut rng = Rng(11);
    let mut ops = Vec::new();
    for _ in 0..8 {
        let op = random_op(&mut rng);
        if let Some(lsn) = apply(&engine, &op).unwrap() {
            ops.push((lsn, op));
        }
    }
    engine.close().unwrap();
    drop(engine);
    let log = Path::new("/data/wal");
    let mut damaged_batches = 0;
    let segments: Vec<String> = disk
        .list(log)
        .unwrap()
        .into_iter()
        .filter(|n| n.ends_with(".wal"))
        .collect();
    for name in segments {
        let path = log.join(&name);
        let length = disk.content(&path).unwrap().len();
        for offset in (0..length).step_by(97) {
            disk.damage(&path, offset, 0x10).unwrap();
            let story = format!("{name} at {offset}");
            let probe = disk.copied();
            match open(Arc::new(probe)) {
                Ok(engine) => {
                    let seen = observe(&engine.snapshot().unwrap()).unwrap();
                    let corrupt = engine.stats().replayed.log.corrupt;
                    let whole = Model { ops: ops.clone() }.at(u64::MAX);
                    if seen != whole {
                        damaged_batches += 1;
                        let without_one = ops.iter().any(|(lost, _)| {
                            let kept = ops.iter().filter(|(lsn, _)| lsn != lost).cloned().collect();
                            Model { ops: kept }.at(u64::MAX) == seen
                        });
                        assert!(without_one, "{story}: more than one batch is gone");
                        assert!(!corrupt.is_empty(), "{story}: a loss is reported");
                    }
                    for found in &corrupt {
                        assert!(found.path.starts_with(log), "{story}: {found:?}");
                    }
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupted, "{story}: {error}");
                }
            }
            disk.damage(&path, offset, 0x10).unwrap();
        }
    }
    assert!(damaged_batches > 0, "some of the damage hit a batch");
}
