//! Late and split traces: the same spans in any order, over any batches, flushes, compactions and
//! reopenings, from one thread or several, with repeats, answer every question as if all had come at
//! once. Deletes take what came before them and nothing else.
//!
//! `ROOTLINE_SEED=N` plays one seed, `ROOTLINE_MODEL_ROUNDS=N` more of them.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod model;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use model::{
    Model, ModelSpan, Op, Rng, SpanPick, State, TRACES, Written, apply, check_span_questions, fill,
    observe, random_span, random_span_pick, span_answers, trace_id,
};
use rootline_engine::{Engine, Error, QueryLimits, Settings, Snapshot};
use rootline_wal::PowerCutStorage;

const TODAY: i64 = 0;

fn open(disk: &PowerCutStorage, shards: usize) -> Engine {
    let mut settings = Settings::default();
    settings.segment_bytes = (64 << 10, 256 << 10);
    settings.metric_shards = 1;
    settings.span_shards = shards;
    settings.maintenance_thread = false;
    Engine::builder(Path::new("/data"))
        .settings(settings)
        .storage(Arc::new(disk.clone()))
        .open()
        .unwrap()
}

/// One seed in sixteen has many spans, more than one group of rows of a block.
fn is_wide(seed: u64) -> bool {
    seed % 16 == 15
}

/// Spans of a few traces.
fn random_spans(rng: &mut Rng, seed: u64) -> Vec<ModelSpan> {
    if !is_wide(seed) {
        return (0..20 + rng.below(80))
            .map(|_| random_span(rng, TODAY))
            .collect();
    }
    let mut spans = Vec::new();
    for _ in 0..1500 {
        let mut span = random_span(rng, TODAY);
        span.trace %= 3;
        span.id = u8::try_from(1 + rng.below(240)).unwrap();
        // Mostly upwards, so that trees are deep.
        span.parent = match rng.below(12) {
            0 => None,
            1 => Some(u8::try_from(1 + rng.below(250)).unwrap()),
            _ => Some(span.id - u8::try_from(rng.below(4)).unwrap().min(span.id - 1)),
        };
        spans.push(span);
    }
    spans
}

/// In any order, some of them twice.
fn shuffled(rng: &mut Rng, spans: &[ModelSpan]) -> Vec<ModelSpan> {
    let mut spans = spans.to_vec();
    for _ in 0..spans.len() / 5 {
        let again = spans[usize::try_from(rng.below(spans.len() as u64)).unwrap()].clone();
        spans.push(again);
    }
    for at in (1..spans.len()).rev() {
        spans.swap(at, usize::try_from(rng.below(at as u64 + 1)).unwrap());
    }
    spans
}

fn write(engine: &Engine, spans: &[ModelSpan]) {
    let mut batch = engine.batch();
    fill(&mut batch, &[], spans);
    let outcome = engine.write(&mut batch).unwrap();
    assert!(outcome.rejections.is_empty(), "{:?}", outcome.rejections);
}

fn answers(engine: &Engine, picks: &[SpanPick]) -> Vec<String> {
    span_answers(&engine.snapshot().unwrap(), picks).unwrap()
}

#[track_caller]
fn assert_same(found: &[String], expected: &[String], story: &str) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected, "{story}");
    }
    assert_eq!(found.len(), expected.len(), "{story}");
}

/// Every trace lies in one part.
fn check_parts(snapshot: &Snapshot) -> Result<(), Error> {
    let ctl = &snapshot
        .engine()
        .query_control(None, QueryLimits::default());
    let parts = snapshot.span_parts()?;
    for trace in 0..u8::try_from(TRACES).unwrap() {
        let mut having = 0;
        for part in &parts {
            having += u32::from(part.find_trace(trace_id(trace), ctl)?.is_some());
        }
        assert!(having <= 1, "trace {trace} in {having} parts");
    }
    Ok(())
}

/// Between two deletes, or before the first.
struct Phase {
    spans: Vec<ModelSpan>,
    /// Ends it.
    delete: Option<SpanPick>,
}

fn random_phases(rng: &mut Rng, seed: u64) -> Vec<Phase> {
    let mut phases = Vec::new();
    for _ in 0..rng.below(3) {
        let mut delete = random_span_pick(rng, TODAY);
        while delete.conditions.is_empty() {
            delete = random_span_pick(rng, TODAY);
        }
        phases.push(Phase {
            spans: random_spans(rng, seed),
            delete: Some(delete),
        });
    }
    phases.push(Phase {
        spans: random_spans(rng, seed),
        delete: None,
    });
    phases
}

fn play(seed: u64) {
    let mut rng = Rng(seed);
    let phases = random_phases(&mut rng, seed);
    let asked = if is_wide(seed) { 1 } else { 5 };
    let picks: Vec<_> = (0..asked)
        .map(|_| random_span_pick(&mut rng, TODAY))
        .collect();
    let at_once = open(&PowerCutStorage::new(), 1);
    let disk = PowerCutStorage::new();
    let shards = usize::try_from(1 + rng.below(3)).unwrap();
    let mut engine = open(&disk, shards);
    let mut story = format!("seed {seed}:");
    let mut known: BTreeSet<ModelSpan> = BTreeSet::new();
    for phase in &phases {
        write(&at_once, &phase.spans);
        known.extend(phase.spans.iter().cloned());
        let spans = shuffled(&mut rng, &phase.spans);
        let batch_max = [3, 20, 400][usize::try_from(rng.below(3)).unwrap()];
        let pause = 1 + spans.len() as u64 / batch_max / 8;
        let mut left = &spans[..];
        while !left.is_empty() {
            let take = usize::try_from(1 + rng.below(batch_max)).unwrap();
            let (now, rest) = left.split_at(take.min(left.len()));
            write(&engine, now);
            left = rest;
            story += &format!(" {}", now.len());
            match rng.below(6 * pause) {
                0 | 1 => {
                    engine.flush().unwrap();
                    story += " flush";
                }
                2 => {
                    engine.compact().unwrap();
                    story += " compact";
                }
                3 => {
                    drop(engine);
                    engine = open(&disk, shards);
                    story += " reopen";
                }
                4 => check_parts(&engine.snapshot().unwrap()).unwrap(),
                _ => {}
            }
        }
        if let Some(delete) = &phase.delete {
            for engine in [&at_once, &engine] {
                engine.delete_spans(&delete.filter()).unwrap();
            }
            known.retain(|span| !delete.takes(span));
            story += &format!(" delete {delete:?}");
        }
    }
    let expected = answers(&at_once, &picks);
    let state = State {
        spans: known,
        ..State::default()
    };
    let ask = |engine: &Engine, story: &str| {
        assert_same(&answers(engine, &picks), &expected, story);
        let snapshot = engine.snapshot().unwrap();
        check_parts(&snapshot).unwrap();
        if !is_wide(seed) {
            check_span_questions(&snapshot, &state, &mut Rng(seed), TODAY).unwrap();
        }
    };
    ask(&engine, &story);
    engine.flush().unwrap();
    if !is_wide(seed) {
        ask(&engine, &format!("{story} flushed"));
    }
    engine.compact().unwrap();
    ask(&engine, &format!("{story} compacted"));
    drop(engine);
    disk.cut(Some(seed));
    let engine = open(&disk.restarted(), shards);
    if !is_wide(seed) {
        ask(&engine, &format!("{story} cut"));
    }
    engine.flush().unwrap();
    engine.compact().unwrap();
    ask(&engine, &format!("{story} cut, compacted"));
}

fn rounds(default: u64, each: fn(u64)) {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap());
    if let Some(seed) = number("ROOTLINE_SEED") {
        return each(seed);
    }
    for seed in 0..number("ROOTLINE_MODEL_ROUNDS").unwrap_or(default) {
        each(seed);
    }
}

#[test]
fn spans_in_any_order_over_any_boundaries_answer_as_if_they_had_come_at_once() {
    rounds(16, play);
}

fn play_with_threads(seed: u64) {
    let mut rng = Rng(seed);
    let spans = random_spans(&mut rng, seed);
    let picks: Vec<_> = (0..4).map(|_| random_span_pick(&mut rng, TODAY)).collect();
    let at_once = open(&PowerCutStorage::new(), 1);
    write(&at_once, &spans);
    let expected = answers(&at_once, &picks);
    let disk = PowerCutStorage::new();
    let engine = open(&disk, 2);
    let writing = AtomicBool::new(true);
    std::thread::scope(|threads| {
        let parts: Vec<_> = (0..3).map(|_| shuffled(&mut rng, &spans)).collect();
        // Each writes most of them: all come, and many at once.
        let writers: Vec<_> = parts
            .into_iter()
            .enumerate()
            .map(|(nth, spans)| {
                let engine = &engine;
                let mut rng = Rng(seed * 3 + nth as u64);
                threads.spawn(move || {
                    let mut left = &spans[..];
                    while !left.is_empty() {
                        let take = usize::try_from(1 + rng.below(1 + spans.len() as u64 / 10));
                        let (now, rest) = left.split_at(take.unwrap().min(left.len()));
                        write(engine, now);
                        left = rest;
                    }
                })
            })
            .collect();
        let (engine, writing) = (&engine, &writing);
        let sealer = threads.spawn(move || {
            while writing.load(Ordering::Relaxed) {
                engine.flush().unwrap();
                check_parts(&engine.snapshot().unwrap()).unwrap();
                engine.compact().unwrap();
                check_parts(&engine.snapshot().unwrap()).unwrap();
            }
        });
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        writing.store(false, Ordering::Relaxed);
        sealer.join().unwrap();
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    let story = format!("seed {seed}");
    assert_same(&answers(&engine, &picks), &expected, &story);
    drop(engine);
    disk.cut(Some(seed));
    let engine = open(&disk.restarted(), 3);
    assert_same(
        &answers(&engine, &picks),
        &expected,
        &format!("{story} cut"),
    );
    engine.flush().unwrap();
    engine.compact().unwrap();
    assert_same(
        &answers(&engine, &picks),
        &expected,
        &format!("{story} compacted"),
    );
}

#[test]
fn spans_that_come_at_once_while_others_are_sealed_lie_in_one_part() {
    rounds(6, play_with_threads);
}

/// A trace that is deleted while it goes on is gone up to the delete, and whole after it.
#[test]
fn a_trace_deleted_between_its_spans_has_those_that_came_after() {
    let disk = PowerCutStorage::new();
    let mut engine = open(&disk, 2);
    let mut rng = Rng(1);
    for round in 0..30 {
        let before = random_spans(&mut rng, 1);
        write(&engine, &before);
        if round % 2 == 0 {
            engine.flush().unwrap();
        }
        let trace = u8::try_from(rng.below(TRACES)).unwrap();
        apply(&engine, &Op::DeleteTrace(trace)).unwrap();
        let mut after: BTreeSet<ModelSpan> = random_spans(&mut rng, 1).into_iter().collect();
        after.retain(|span| span.trace == trace);
        write(&engine, &after.iter().cloned().collect::<Vec<_>>());
        match round % 3 {
            0 => drop(engine.compact().unwrap()),
            1 => {
                drop(engine);
                engine = open(&disk, 2);
            }
            _ => {}
        }
        let ctl = engine.query_control(None, QueryLimits::default());
        let found = engine.snapshot().unwrap().trace(trace_id(trace), &ctl);
        let found = found.unwrap().map_or(0, |trace| trace.spans.len());
        assert_eq!(found, after.len(), "round {round}");
    }
}

/// Writes and deletes of several threads, with the LSNs they were given.
fn concurrent_ops(engine: &Engine, seed: u64) -> Vec<(u64, Op)> {
    let mut rng = Rng(seed);
    let mut done = Vec::new();
    for _ in 0..60 {
        let op = match rng.below(6) {
            0 => Op::DeleteTrace(u8::try_from(rng.below(3)).unwrap()),
            1 => {
                let mut pick = random_span_pick(&mut rng, TODAY);
                while pick.conditions.is_empty() {
                    pick = random_span_pick(&mut rng, TODAY);
                }
                Op::DeleteSpans(pick)
            }
            _ => {
                let mut spans: Vec<_> = (0..1 + rng.below(6))
                    .map(|_| random_span(&mut rng, TODAY))
                    .collect();
                // Few traces: threads meet in them.
                spans.iter_mut().for_each(|span| span.trace %= 3);
                Op::Write(Written {
                    spans,
                    ..Written::default()
                })
            }
        };
        let lsn = apply(engine, &op).unwrap().unwrap();
        done.push((lsn, op));
    }
    done
}

fn play_with_deletes(seed: u64) {
    let disk = PowerCutStorage::new();
    let engine = open(&disk, 2);
    let writing = AtomicBool::new(true);
    let (mut ops, seen) = std::thread::scope(|threads| {
        let (engine, writing) = (&engine, &writing);
        let writers: Vec<_> = (0..3)
            .map(|nth| threads.spawn(move || concurrent_ops(engine, seed * 3 + nth)))
            .collect();
        let sealer = threads.spawn(move || {
            while writing.load(Ordering::Relaxed) {
                engine.flush().unwrap();
                engine.compact().unwrap();
            }
        });
        let reader = threads.spawn(move || {
            let mut seen = Vec::new();
            while writing.load(Ordering::Relaxed) {
                let snapshot = engine.snapshot().unwrap();
                check_parts(&snapshot).unwrap();
                seen.push((snapshot.lsn().0, observe(&snapshot).unwrap().spans));
                if seen.len() % 8 == 0 {
                    std::thread::yield_now();
                }
            }
            seen
        });
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        writing.store(false, Ordering::Relaxed);
        sealer.join().unwrap();
        let seen = reader.join().unwrap();
        let ops: Vec<_> = ended.into_iter().flat_map(|ended| ended.unwrap()).collect();
        (ops, seen)
    });
    ops.sort_by_key(|(lsn, _)| *lsn);
    let model = Model { ops };
    let step = seen.len() / 20 + 1;
    for (lsn, spans) in seen.into_iter().step_by(step) {
        assert_eq!(spans, model.at(lsn).spans, "seed {seed}: at {lsn}");
    }
    let expected = model.at(u64::MAX);
    let ask = |engine: &Engine, story: &str| {
        let snapshot = engine.snapshot().unwrap();
        let spans = observe(&snapshot).unwrap().spans;
        assert_eq!(spans, expected.spans, "seed {seed}: {story}");
        check_parts(&snapshot).unwrap();
        check_span_questions(&snapshot, &expected, &mut Rng(seed), TODAY).unwrap();
    };
    ask(&engine, "written");
    drop(engine);
    disk.cut(Some(seed));
    let engine = open(&disk.restarted(), 3);
    ask(&engine, "cut");
    engine.flush().unwrap();
    engine.compact().unwrap();
    ask(&engine, "compacted");
}

#[test]
fn writes_and_deletes_of_many_threads_hold_in_the_order_of_their_records() {
    rounds(6, play_with_deletes);
}
