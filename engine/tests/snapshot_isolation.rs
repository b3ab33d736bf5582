//! Readers beside writers, deletes, duplicates and sealing: contract 2, a read is a snapshot of whole batches.
//!
//! Every batch writes the same number to every series and to one span of a trace of its own number, so
//! a batch seen by half, or an answer that changes under an open snapshot, shows as a difference.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod model;

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
};

use model::{ModelSpan, fill};
use rootline_engine::{Engine, MatchOp, Matcher, QueryLimits, Snapshot, TimeRange, Timestamp};

/// The newest value of every series, and how many spans there are.
fn look(snapshot: &Snapshot) -> (Vec<u64>, u64) {
    let query = snapshot
        .engine()
        .query_control(None, QueryLimits::default());
    let all = [Matcher::new(MatchOp::Equal, "__name__", "m").unwrap()];
    let mut newest = Vec::new();
    snapshot
        .select(&all, TimeRange::ALL, &query, &mut |series| {
            newest.push(series.values.last().unwrap().to_bits());
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    let mut spans = 0;
    for trace in 0..u8::try_from(model::TRACES).unwrap() {
        if let Some(trace) = snapshot.trace(model::trace_id(trace), &query).unwrap() {
            spans += trace.spans.len() as u64;
        }
    }
    (newest, spans)
}

#[test]
fn readers_never_see_half_a_batch_or_a_changing_answer() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::builder(dir.path()).open().unwrap();
    let stop = AtomicBool::new(false);
    let series: Vec<u8> = (0..u8::try_from(model::SERIES).unwrap()).collect();
    std::thread::scope(|scope| {
        let mut readers = Vec::new();
        for _ in 0..2 {
            readers.push(scope.spawn(|| {
                let mut looks = 0u32;
                while !stop.load(Ordering::Relaxed) {
                    let snapshot = engine.snapshot().unwrap();
                    let (newest, spans) = look(&snapshot);
                    assert!(
                        newest.windows(2).all(|w| w[0] == w[1]),
                        "half a batch: {newest:?}"
                    );
                    let written = newest
                        .first()
                        .map_or(0, |bits| f64::from_bits(*bits) as u64);
                    assert_eq!(spans, written, "samples and spans of a batch come together");
                    std::thread::yield_now();
                    assert_eq!(look(&snapshot), (newest, spans), "an open snapshot changed");
                    looks += 1;
                }
                looks
            }));
        }
        for n in 1..=400u32 {
            let mut batch = engine.batch();
            // The same second again and again: duplicates, then late ones.
            let t = i64::from(n % 7) * 1_000_000_000 + 10_000_000_000 * i64::from(n / 50);
            let newest = 1_000_000_000_000_000_000;
            let samples: Vec<_> = series
                .iter()
                .flat_map(|s| {
                    [
                        (*s, t, f64::from(n).to_bits()),
                        (*s, newest, f64::from(n).to_bits()),
                    ]
                })
                .collect();
            let spans = [ModelSpan {
                trace: u8::try_from(n % 6).unwrap(),
                id: u8::try_from(1 + n / 6 % 250).unwrap(),
                parent: None,
                service: 0,
                name: 0,
                start: i64::from(n),
                duration: 1,
                error: false,
                tag: 0,
            }];
            fill(&mut batch, &samples, &spans);
            engine.write(&mut batch).unwrap();
            if n % 20 == 0 {
                // Hides old samples of some series, never the newest.
                let matcher = Matcher::new(MatchOp::Equal, "group", "1").unwrap();
                let range = TimeRange::new(
                    Timestamp::from_nanos(0),
                    Timestamp::from_nanos(100_000_000_000),
                );
                engine.delete_series(&[matcher], range.unwrap()).unwrap();
            }
            if n % 45 == 0 {
                // What snapshots read from moves into blocks, late data and deletes included.
                engine.flush().unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(
                reader.join().unwrap() > 0,
                "the reader looked at least once"
            );
        }
    });
}
