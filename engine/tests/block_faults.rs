//! Every file operation of a store that seals, merges, deletes, retires and copies fails once, by
//! number, in one of several ways; then the store goes on, or the power is cut, and it is opened again.
//! What was acknowledged is there once, what was refused as transient is not, no file is left that
//! nothing names, and none is missing.
//!
//! `ROOTLINE_FAULT_STRIDE=1` takes every operation, the default every fifth or so.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod model;

use std::{path::Path, sync::Arc, time::Duration};

use model::{
    Condition, DAY_NS, Model, ModelSpan, Op, Pick, SpanPick, State, Written, apply,
    check_questions, observe,
};
use rootline_engine::{Clock, Engine, Error, ErrorKind, Settings, StringMatch, verify::verify};
use rootline_wal::{Fault, FaultStorage, ManualClock, Operation, PowerCutStorage, Storage};

const DATA: &str = "/data";
const TODAY: i64 = 40;

fn clock() -> Arc<ManualClock> {
    let clock = Arc::new(ManualClock::new());
    clock.set_wall_ns(TODAY * DAY_NS);
    clock
}

fn open(storage: Arc<dyn Storage>, clock: &Arc<ManualClock>) -> Result<Engine, Error> {
    let mut settings = Settings::default();
    settings.segment_bytes = (16 << 10, 16 << 10);
    settings.metric_shards = 2;
    settings.span_shards = 1;
    settings.maintenance_thread = false;
    settings.retention_age = Some(Duration::from_secs(30 * 86_400));
    Engine::builder(Path::new(DATA))
        .settings(settings)
        .storage(storage)
        .clock(Arc::clone(clock) as Arc<dyn Clock>)
        .open()
}

/// What a full disk refuses, but for writes: log and manifest write to room that was allocated before,
/// and are closed by a write that fails. Of a disk that is full to the byte: `full_disk.rs`.
const TAKING_ROOM: [Operation; 5] = [
    Operation::CreateDir,
    Operation::Create,
    Operation::Link,
    Operation::Preallocate,
    Operation::SetLen,
];

/// One thing that the play does.
enum Act {
    Do(Op),
    Flush,
    Compact,
    /// So many days pass.
    Days(u64),
    Copy,
    Reopen,
}

/// Samples of all series on these days, so many days ago, and spans of a trace of each, late ones if it
/// is not the first time.
fn written(days_ago: &[i64], salt: u64) -> Op {
    let mut written = Written::default();
    for series in 0..6u8 {
        for &ago in days_ago {
            let time = (TODAY - ago) * DAY_NS + i64::from(series) * 1_000_000;
            written.samples.push((series, time, salt));
        }
    }
    for &ago in days_ago {
        // One says the same every time, one is new, one hangs on what comes next.
        let number = u8::try_from(salt).unwrap();
        for (id, parent) in [
            (1, None),
            (number + 1, Some(number)),
            (number + 10, Some(number + 2)),
        ] {
            written.spans.push(ModelSpan {
                trace: u8::try_from(ago % 7).unwrap(),
                id,
                parent,
                service: id % 3,
                name: id % 2,
                start: (TODAY - ago) * DAY_NS + i64::from(id) * 1000,
                duration: 500,
                error: id % 3 == 0,
                tag: id % 5,
            });
        }
    }
    written.metadata = vec![(0, 1, u8::try_from(salt % 5).unwrap())];
    Op::Write(written)
}

fn script() -> Vec<Act> {
    let delete = |pick: Pick, ago: i64| {
        Act::Do(Op::Delete {
            picks: vec![pick],
            start: (TODAY - ago) * DAY_NS,
            end: (TODAY - ago + 1) * DAY_NS - 1,
        })
    };
    let spans_of = |name: &str| {
        Act::Do(Op::DeleteSpans(SpanPick {
            start: i64::MIN,
            end: i64::MAX,
            conditions: vec![Condition::Service(StringMatch::equal(name))],
        }))
    };
    vec![
        Act::Do(written(&[0, 1, 29], 1)),
        Act::Flush,
        Act::Do(written(&[0, 1], 2)),
        delete(Pick::Group(0), 0),
        Act::Flush,
        delete(Pick::Series(1), 1),
        Act::Do(written(&[0], 3)),
        spans_of("service-1"),
        Act::Compact,
        Act::Copy,
        Act::Days(2),
        Act::Do(written(&[0, 2], 4)),
        Act::Reopen,
        delete(Pick::NotGroup(1), 0),
        Act::Do(Op::DeleteTrace(2)),
        Act::Flush,
        Act::Compact,
        Act::Do(written(&[1], 5)),
    ]
}

/// What became of the acts of one play.
#[derive(Debug, Default)]
struct Fate {
    acknowledged: Model,
    /// Failed in a way that leaves open whether they are there.
    uncertain: Vec<(usize, Op)>,
    refused: usize,
    /// Acts beside writes and deletes that failed.
    failed: Vec<(usize, Error)>,
}

/// Plays the script to its end whatever fails.
fn play(storage: &Arc<dyn Storage>, clock: &Arc<ManualClock>) -> (Fate, Option<Engine>) {
    let mut fate = Fate::default();
    let mut engine = open(Arc::clone(storage), clock).ok();
    for (at, act) in script().into_iter().enumerate() {
        let Some(running) = &engine else { break };
        let done = match act {
            Act::Do(op) => {
                match apply(running, &op) {
                    Ok(Some(_)) => fate.acknowledged.ops.push((at as u64, op)),
                    Ok(None) => {}
                    Err(e) if e.kind() == ErrorKind::Retry => fate.refused += 1,
                    Err(_) => fate.uncertain.push((at, op)),
                }
                Ok(())
            }
            Act::Flush => running.flush().map(drop),
            Act::Compact => running.compact().map(drop),
            Act::Days(days) => {
                clock.advance(Duration::from_secs(86_400 * days));
                running.tick();
                Ok(())
            }
            Act::Copy => running.snapshot_to(Path::new("/copy")).map(drop),
            Act::Reopen => {
                engine = None;
                let opened = open(Arc::clone(storage), clock);
                opened.map(|opened| engine = Some(opened))
            }
        };
        fate.failed.extend(done.err().map(|error| (at, error)));
    }
    (fate, engine)
}

/// The states that are allowed: all acknowledged, and any prefix of the uncertain ones, whole.
fn allowed(fate: &Fate, floor_ns: i64) -> Vec<State> {
    (0..=fate.uncertain.len())
        .map(|taken| {
            let mut model = fate.acknowledged.clone();
            let uncertain = fate.uncertain.iter().take(taken);
            model
                .ops
                .extend(uncertain.map(|(at, op)| (*at as u64, op.clone())));
            model.ops.sort_by_key(|(at, _)| *at);
            model.at(u64::MAX).from(floor_ns)
        })
        .collect()
}

fn floor_ns(engine: &Engine) -> i64 {
    let floor = engine.stats().retention_floor;
    floor.map_or(i64::MIN, |floor| floor.as_nanos())
}

/// Opens what is left on the disk and looks at all of it.
fn check(disk: &PowerCutStorage, clock: &Arc<ManualClock>, fate: &Fate, story: &str) {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let engine =
        open(Arc::clone(&storage), clock).unwrap_or_else(|e| panic!("{story}: reopening: {e}"));
    let seen = observe(&engine.snapshot().unwrap()).unwrap();
    assert!(
        allowed(fate, floor_ns(&engine)).contains(&seen),
        "{story}: {fate:?}\nseen {seen:?}"
    );
    let stats = engine.stats();
    assert_eq!(
        (stats.read_only, stats.damage),
        (None, Vec::new()),
        "{story}"
    );
    assert!(stats.replayed.log.corrupt.is_empty(), "{story}");
    assert_eq!(stats.replayed.orphaned_samples, 0, "{story}");
    let blocks = disk.list(&Path::new(DATA).join("blocks")).unwrap();
    assert_eq!(
        blocks.len() as u64,
        stats.blocks + stats.span_blocks,
        "{story}: every file is named, and every named one is there: {blocks:?}"
    );
    goes_on(&engine, &seen, story);
    engine.close().unwrap();
    drop(engine);
    let verified = verify(&storage, Path::new(DATA), &mut |_, _| Ok(())).unwrap();
    assert_eq!(verified.damage, [], "{story}");
}

/// Nothing fails any more: everything works, and shows the same.
fn goes_on(engine: &Engine, expected: &State, story: &str) {
    let failed = |e: Error| panic!("{story}: {e}");
    engine.flush().unwrap_or_else(|e| panic!("{story}: {e}"));
    engine.compact().unwrap_or_else(|e| panic!("{story}: {e}"));
    let snapshot = engine.snapshot().unwrap();
    let seen = observe(&snapshot).unwrap_or_else(failed);
    assert_eq!(&seen, expected, "{story}");
    let mut rng = model::Rng(7);
    check_questions(&snapshot, expected, &mut rng, TODAY).unwrap();
}

fn stride(default: u64) -> u64 {
    let given = std::env::var("ROOTLINE_FAULT_STRIDE");
    given.map_or(default, |stride| stride.parse().unwrap())
}

/// Operations of these kinds in a play without faults.
fn operations(kinds: &[Operation]) -> u64 {
    let disk = PowerCutStorage::new();
    let counted = FaultStorage::new(Arc::new(disk));
    counted.watch(kinds);
    let storage: Arc<dyn Storage> = Arc::new(counted.clone());
    let (fate, engine) = play(&storage, &clock());
    assert_eq!((fate.refused, fate.uncertain.len()), (0, 0));
    assert!(fate.failed.is_empty(), "{:?}", fate.failed);
    let stats = engine.unwrap().stats();
    assert!(stats.retention_floor.is_some());
    counted.count()
}

/// Plays with a fault at every so many operations; `between` them is chosen so that the rounds of all
/// faults together reach most.
fn with_every(fault: Fault, first: u64, default_stride: u64) {
    let stride = stride(default_stride);
    let kinds = match fault {
        // Of these, what takes room. A sync that fails for whatever reason closes the log.
        Fault::Full => &TAKING_ROOM[..],
        _ => &Operation::CHANGING[..],
    };
    let operations = operations(kinds);
    assert!(operations > 30, "{operations}");
    for nth in (first % stride..operations).step_by(stride as usize) {
        let story = format!("{fault:?} at operation {nth} of {operations}");
        let clock = clock();
        let disk = PowerCutStorage::new();
        let faulty = FaultStorage::new(Arc::new(disk.clone()));
        faulty.arm(kinds, nth, fault);
        let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
        let (fate, engine) = play(&storage, &clock);
        if !faulty.fired() {
            // Some of them are made by the log's own thread, so that their number varies a little.
            continue;
        }
        // It is over: the store goes on without reopening, unless log or manifest did not get to disk
        // what they had to. Want of room is never such a case.
        if let Some(engine) = engine.filter(|engine| {
            let flushed = engine.flush();
            let closed = flushed.is_err_and(|e| e.kind() == ErrorKind::Closed);
            let is_open = !closed && fault != Fault::Crash && fate.uncertain.is_empty();
            is_open || fault == Fault::Full
        }) {
            assert!(fate.uncertain.is_empty(), "{story}: {fate:?}");
            engine.tick();
            let seen = observe(&engine.snapshot().unwrap()).unwrap();
            let expected = fate.acknowledged.at(u64::MAX).from(floor_ns(&engine));
            assert_eq!(seen, expected, "{story}");
            clock.advance(Duration::from_secs(60));
            goes_on(&engine, &expected, &story);
        }
        // Half of the rounds keep what was not synced by chance, the others lose all of it.
        disk.cut((nth % 2 == 0).then_some(nth));
        check(&disk.restarted(), &clock, &fate, &story);
    }
}

#[test]
fn an_operation_that_fails_loses_nothing() {
    with_every(Fault::Fail, 0, 6);
}

#[test]
fn an_operation_that_is_half_done_loses_nothing() {
    with_every(Fault::Tear, 1, 6);
}

#[test]
fn a_crash_loses_nothing() {
    with_every(Fault::Crash, 2, 3);
}

#[test]
fn a_disk_that_is_full_once_loses_nothing_and_is_recovered_from() {
    with_every(Fault::Full, 0, 1);
}

#[test]
fn a_read_that_fails_once_costs_that_operation_alone() {
    let kinds = [
        Operation::Read,
        Operation::Open,
        Operation::List,
        Operation::Measure,
    ];
    let stride = stride(7);
    let operations = operations(&kinds);
    for nth in (0..operations).step_by(stride as usize) {
        let story = format!("reading operation {nth} of {operations}");
        let clock = clock();
        let disk = PowerCutStorage::new();
        let faulty = FaultStorage::new(Arc::new(disk.clone()));
        faulty.arm(&kinds, nth, Fault::Fail);
        let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
        let (fate, engine) = play(&storage, &clock);
        faulty.disarm();
        assert!(
            fate.failed.len() <= 1,
            "{story}: it fails once: {:?}",
            fate.failed
        );
        if let Some(engine) = engine {
            let seen = observe(&engine.snapshot().unwrap()).unwrap();
            let allowed = allowed(&fate, floor_ns(&engine));
            assert!(allowed.contains(&seen), "{story}: {fate:?}\nseen {seen:?}");
        }
        disk.cut(None);
        check(&disk.restarted(), &clock, &fate, &story);
    }
}
