//! Spans from memory into blocks, seen from outside: when they are sealed, what the log keeps, what
//! deletes and retention leave, copies, faults and damage.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rootline_engine::{
    Engine, Error, QueryLimits, ResourceFields, ScopeFields, Settings, SpanCondition, SpanFields,
    SpanFilter, SpanId, StringMatch, TagScope, TimeRange, Timestamp, Trace, TraceId, ValueRef,
    backup, inspect, verify,
};
use rootline_wal::{Fault, FaultStorage, ManualClock, Operation, PowerCutStorage, Storage};

const DATA: &str = "/data";
const HOUR: i64 = 3600 * 1_000_000_000;

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.segment_bytes = (64 << 10, 256 << 10);
    settings.metric_shards = 1;
    settings.span_shards = 2;
    settings.maintenance_thread = false;
    settings
}

fn try_open(storage: Arc<dyn Storage>, settings: Settings) -> Result<Engine, Error> {
    Engine::builder(Path::new(DATA))
        .settings(settings)
        .storage(storage)
        .open()
}

fn open(disk: &PowerCutStorage) -> Engine {
    try_open(Arc::new(disk.clone()), settings()).unwrap()
}

fn with_clock(disk: &PowerCutStorage, clock: &Arc<ManualClock>, settings: Settings) -> Engine {
    Engine::builder(Path::new(DATA))
        .settings(settings)
        .storage(Arc::new(disk.clone()))
        .clock(Arc::clone(clock) as _)
        .open()
        .unwrap()
}

fn id(trace: u16) -> TraceId {
    let mut bytes = [7; 16];
    bytes[..2].copy_from_slice(&(trace + 1).to_be_bytes());
    TraceId::new(bytes).unwrap()
}

/// A span `span` of a trace, child of the span before it, that starts at a time; with a user's name.
fn try_write(engine: &Engine, trace: u16, span: u8, start_ns: i64) -> Result<u64, Error> {
    let mut batch = engine.batch();
    let owner = [("service.name", ValueRef::Str("shop"))];
    let owner = ResourceFields {
        attributes: &owner,
        ..ResourceFields::default()
    };
    let resource = batch.spans().resource(&owner)?;
    let scope = batch.spans().scope(&ScopeFields::default())?;
    let mut writer = batch.spans().span(resource, scope);
    let user = format!("user-{trace:05}-of-the-shop");
    writer.attribute("user", ValueRef::Str(&user));
    writer.attribute("step", ValueRef::Int(span.into()));
    let span_id = SpanId::new([span; 8]).unwrap();
    let at = Timestamp::from_nanos;
    writer.finish(&SpanFields {
        parent_span_id: SpanId::new([span - 1; 8]),
        ..SpanFields::new(
            id(trace),
            span_id,
            "step",
            at(start_ns),
            at(start_ns + 1000),
        )
    })?;
    let outcome = engine.write(&mut batch)?;
    Ok(outcome.spans)
}

fn write(engine: &Engine, trace: u16, span: u8, start_ns: i64) {
    assert_eq!(try_write(engine, trace, span, start_ns).unwrap(), 1);
}

fn trace(engine: &Engine, of: u16) -> Option<Trace> {
    let query = engine.query_control(None, QueryLimits::default());
    engine.snapshot().unwrap().trace(id(of), &query).unwrap()
}

/// How many spans a trace has, all of them in one line of callers.
fn depth(engine: &Engine, of: u16) -> usize {
    let Some(trace) = trace(engine, of) else {
        return 0;
    };
    for (place, parent) in trace.parents.iter().enumerate() {
        assert_eq!(
            *parent,
            place.checked_sub(1).map(|p| p as u32),
            "trace {of}"
        );
    }
    trace.spans.len()
}

fn count(engine: &Engine) -> u64 {
    let query = engine.query_control(None, QueryLimits::default());
    let filter = SpanFilter::in_range(TimeRange::ALL);
    let parts = engine.snapshot().unwrap().span_parts().unwrap();
    let counts = parts
        .iter()
        .map(|part| part.count(&filter, &query).unwrap());
    counts.sum()
}

fn user(trace: u16) -> SpanFilter {
    SpanFilter::in_range(TimeRange::ALL).and(SpanCondition::Tag {
        key: "user".to_owned(),
        of: TagScope::Span,
        matches: StringMatch::equal(&format!("user-{trace:05}-of-the-shop")),
    })
}

fn block_files(disk: &PowerCutStorage) -> Vec<PathBuf> {
    let dir = Path::new(DATA).join("blocks");
    let names = disk.list(&dir).unwrap();
    names.into_iter().map(|name| dir.join(name)).collect()
}

#[test]
fn the_log_of_spans_is_cut_once_they_are_sealed() {
    let disk = PowerCutStorage::new();
    let engine = open(&disk);
    for trace in 0..400 {
        write(&engine, trace, 1, 1000);
    }
    let before = engine.stats();
    assert_eq!(before.oldest_unsealed_lsn.unwrap().0, 1);
    engine.flush().unwrap();
    let after = engine.stats();
    assert_eq!(after.oldest_unsealed_lsn, None);
    assert!(
        after.log.disk_bytes < before.log.disk_bytes,
        "{:?}",
        after.log
    );
    assert_eq!((after.span_blocks, after.block_spans), (1, 400));
    assert_eq!(after.span_cut.0, 400);
    write(&engine, 3, 2, 2000);
    engine.close().unwrap();
    drop(engine);
    let engine = open(&disk);
    assert!(engine.stats().replayed.log.records <= 400);
    assert_eq!(depth(&engine, 3), 2);
    assert_eq!(count(&engine), 401);
    // A delete alone is a reason to seal: the log that holds it must be able to go.
    engine.flush().unwrap();
    engine.delete_trace(id(3)).unwrap();
    assert!(engine.stats().oldest_unsealed_lsn.is_some());
    engine.flush().unwrap();
    assert_eq!(engine.stats().oldest_unsealed_lsn, None);
    drop(engine);
    disk.cut(None);
    let engine = open(&disk.restarted());
    assert_eq!((depth(&engine, 3), count(&engine)), (0, 399));
}

#[test]
fn spans_at_rest_and_a_generation_that_is_full_are_sealed_by_themselves() {
    let disk = PowerCutStorage::new();
    let clock = Arc::new(ManualClock::new());
    let mut small = settings();
    small.memory_limit_bytes = 8 << 20;
    let engine = with_clock(&disk, &clock, small);
    write(&engine, 0, 1, 1000);
    engine.tick();
    assert_eq!(engine.stats().span_blocks, 0);
    clock.advance(Duration::from_secs(301));
    engine.tick();
    assert_eq!(engine.stats().span_blocks, 1);
    let mut trace = 1;
    while engine.stats().span_blocks == 1 {
        write(&engine, trace, 1, 1000);
        engine.tick();
        trace += 1;
        assert!(trace < 20_000, "full at last");
    }
    assert_eq!(count(&engine), u64::from(trace));
}

#[test]
fn a_deleted_value_is_in_no_block_after_compaction() {
    let disk = PowerCutStorage::new();
    let engine = open(&disk);
    for trace in 0..50 {
        for span in 1..=3 {
            write(&engine, trace, span, i64::from(span));
        }
    }
    engine.flush().unwrap();
    write(&engine, 7, 4, 4);
    engine.flush().unwrap();
    engine.delete_spans(&user(7)).unwrap();
    engine.delete_trace(id(9)).unwrap();
    assert_eq!((depth(&engine, 7), depth(&engine, 9)), (0, 0));
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let named = |trace: u16| {
        let value = format!("user-{trace:05}-of-the-shop");
        let found = inspect::values(&storage, Path::new(DATA), "user").unwrap();
        let values = found.iter().flat_map(|block| &block.values);
        values.filter(|(text, _)| *text == value).count()
    };
    assert!(named(7) > 0 && named(9) > 0);
    engine.compact().unwrap();
    engine.flush().unwrap();
    assert_eq!((named(7), named(9), named(8)), (0, 0, 1));
    assert_eq!(engine.stats().span_tombstones, 0);
    for path in block_files(&disk) {
        let bytes = disk.content(&path).unwrap();
        let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(
            !has(b"user-00007") && !has(b"user-00009"),
            "{}",
            path.display()
        );
    }
    assert_eq!(count(&engine), 48 * 3);
}

#[test]
fn whole_traces_expire_and_what_ends_before_the_floor_is_refused() {
    let disk = PowerCutStorage::new();
    let clock = Arc::new(ManualClock::new());
    clock.set_wall_ns(1000 * HOUR);
    let mut kept = settings();
    kept.retention_age = Some(Duration::from_secs(10 * 3600));
    kept.snapshot_max_age = Duration::from_secs(1000 * 3600);
    kept.seal_idle = Duration::from_secs(1000 * 3600);
    let engine = with_clock(&disk, &clock, kept.clone());
    write(&engine, 1, 1, 992 * HOUR);
    write(&engine, 2, 1, 992 * HOUR);
    write(&engine, 2, 2, 999 * HOUR);
    engine.flush().unwrap();
    write(&engine, 4, 1, 992 * HOUR);
    write(&engine, 5, 1, 999 * HOUR);
    let before = engine.snapshot().unwrap();
    clock.advance(Duration::from_secs(4 * 3600));
    engine.tick();
    assert!(engine.stats().retention_floor.is_some());
    assert_eq!((depth(&engine, 1), depth(&engine, 2)), (0, 2));
    assert_eq!((depth(&engine, 4), depth(&engine, 5)), (0, 1), "in memory");
    assert_eq!(try_write(&engine, 3, 1, 992 * HOUR).unwrap(), 0);
    let query = engine.query_control(None, QueryLimits::default());
    assert!(before.trace(id(1), &query).unwrap().is_some(), "as it was");
    // A trace that goes on keeps its old spans, over a crash too.
    write(&engine, 2, 3, 1003 * HOUR);
    clock.advance(Duration::from_secs(8 * 3600));
    engine.tick();
    assert_eq!(depth(&engine, 2), 3);
    drop((before, engine));
    disk.cut(None);
    let disk = disk.restarted();
    let engine = with_clock(&disk, &clock, kept);
    assert_eq!((depth(&engine, 1), depth(&engine, 2)), (0, 3));
    engine.flush().unwrap();
    clock.advance(Duration::from_secs(100 * 3600));
    for _ in 0..10 {
        engine.tick();
    }
    assert_eq!((engine.stats().span_blocks, count(&engine)), (0, 0));
    assert!(block_files(&disk).is_empty());
}

#[test]
fn a_copy_has_all_spans_and_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(rootline_wal::FsStorage::new());
    let open = |path: &Path| {
        let builder = Engine::builder(path).settings(settings());
        builder.open().unwrap()
    };
    let engine = open(&dir.path().join("a"));
    for span in 1..=5 {
        write(&engine, 1, span, i64::from(span));
        engine.flush().unwrap();
    }
    write(&engine, 1, 6, 6);
    engine.delete_trace(id(2)).unwrap();
    engine.snapshot_to(&dir.path().join("copy")).unwrap();
    write(&engine, 1, 7, 7);
    let (from, to) = (dir.path().join("copy"), dir.path().join("b"));
    let verified = verify::verify(&storage, &from, &mut |_, _| Ok(())).unwrap();
    assert_eq!(verified.damage, []);
    backup::restore(&storage, &from, &to).unwrap();
    let copy = open(&to);
    assert_eq!((depth(&copy, 1), depth(&engine, 1)), (6, 7));
    write(&copy, 1, 7, 7);
    assert_eq!((depth(&copy, 1), count(&copy)), (7, 7));
}

#[test]
fn a_missing_block_of_spans_costs_its_spans_and_says_so() {
    let disk = PowerCutStorage::new();
    let engine = open(&disk);
    write(&engine, 1, 1, 1);
    engine.flush().unwrap();
    let first = block_files(&disk);
    write(&engine, 2, 1, 2);
    engine.flush().unwrap();
    engine.close().unwrap();
    drop(engine);
    disk.remove(&first[0]).unwrap();
    let engine = open(&disk);
    assert!(engine.stats().read_only.is_some());
    let snapshot = engine.snapshot().unwrap();
    assert!(!snapshot.spans_are_whole(TimeRange::ALL));
    assert!(
        snapshot.is_whole(
            TimeRange::new(
                Timestamp::from_nanos(i64::MAX),
                Timestamp::from_nanos(i64::MAX)
            )
            .unwrap()
        )
    );
    // What the log still has is shown again.
    assert_eq!(depth(&engine, 2), 1);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let verified = verify::verify(&storage, Path::new(DATA), &mut |_, _| Ok(())).unwrap();
    assert_eq!(verified.damage.len(), 1);
    assert!(
        verified.damage[0].cost.contains("1 spans of 1 traces"),
        "{verified:?}"
    );
}

#[test]
fn without_a_manifest_blocks_and_log_still_show_every_span_once() {
    let disk = PowerCutStorage::new();
    let engine = open(&disk);
    for span in 1..=4 {
        write(&engine, 1, span, i64::from(span));
        engine.flush().unwrap();
    }
    write(&engine, 1, 5, 5);
    engine.close().unwrap();
    drop(engine);
    let dir = Path::new(DATA).join("manifest");
    for name in disk.list(&dir).unwrap() {
        disk.remove(&dir.join(name)).unwrap();
    }
    let engine = open(&disk);
    assert!(engine.stats().read_only.is_some());
    assert_eq!((depth(&engine, 1), count(&engine)), (5, 5));
}

/// One late span after another, with everything in between that moves a trace.
fn play(engine: &Engine) -> Vec<u8> {
    let mut stored = Vec::new();
    for span in 1..=8u8 {
        if try_write(engine, 1, span, span.into()).is_ok() {
            stored.push(span);
        }
        match span % 4 {
            0 => drop(engine.compact()),
            1 | 3 => drop(engine.flush()),
            _ => {}
        }
    }
    stored
}

#[test]
fn after_any_fault_every_acknowledged_span_is_there_once() {
    let disk = PowerCutStorage::new();
    let counted = FaultStorage::new(Arc::new(disk.clone()));
    counted.watch(&Operation::CHANGING);
    let engine = try_open(Arc::new(counted.clone()), settings()).unwrap();
    assert_eq!(play(&engine).len(), 8);
    drop(engine);
    let operations = counted.count();
    let faults = [Fault::Fail, Fault::Tear, Fault::Full, Fault::Crash];
    for nth in (0..operations).step_by(2) {
        let fault = faults[(nth / 2 % 4) as usize];
        let disk = PowerCutStorage::new();
        let faulty = FaultStorage::new(Arc::new(disk.clone()));
        faulty.arm(&Operation::CHANGING, nth, fault);
        let stored = match try_open(Arc::new(faulty), settings()) {
            Ok(engine) => play(&engine),
            Err(_) => Vec::new(),
        };
        disk.cut(None);
        let engine = open(&disk.restarted());
        let found = trace(&engine, 1).map_or_else(Vec::new, |trace| {
            let numbers = trace.spans.iter().map(|span| span.span_id.as_bytes()[0]);
            numbers.collect::<Vec<u8>>()
        });
        let story = format!("{fault:?} at {nth}: stored {stored:?}, found {found:?}");
        assert!(stored.iter().all(|span| found.contains(span)), "{story}");
        assert!(found.len() <= stored.len() + 1, "{story}");
        assert_eq!(count(&engine), found.len() as u64, "{story}");
        assert_eq!(engine.stats().damage, [], "{story}");
    }
}
