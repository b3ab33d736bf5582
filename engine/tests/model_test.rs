//! The store against a plain model: random writes of both signals, late data, duplicates, deletes,
//! flushes, snapshots held open, reopening and power cuts. Contracts 1 to 4 of the design.
//!
//! `ROOTLINE_SEED=N` plays one seed, `ROOTLINE_MODEL_ROUNDS=N` more of them.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod model;

use std::{path::Path, sync::Arc};

use model::{Model, Rng, State, apply, observe, random_op};
use rootline_engine::{Engine, Settings, Snapshot};
use rootline_wal::PowerCutStorage;

fn open(storage: &PowerCutStorage) -> Engine {
    let mut settings = Settings::default();
    settings.segment_bytes = (64 << 10, 256 << 10);
    settings.metric_shards = 3;
    settings.span_shards = 2;
    Engine::builder(Path::new("/data"))
        .settings(settings)
        .storage(Arc::new(storage.clone()))
        .open()
        .unwrap()
}

fn play(seed: u64) {
    let mut rng = Rng(seed);
    let mut storage = PowerCutStorage::new();
    let mut engine = open(&storage);
    let mut model = Model::default();
    let mut held: Vec<(Snapshot, State)> = Vec::new();
    for step in 0..120 {
        let at = format!("seed {seed}, step {step}");
        match rng.below(24) {
            0 => {
                held.clear();
                let seal_for = std::time::Duration::from_secs(60 * rng.below(2));
                engine.close_within(seal_for).unwrap();
                drop(engine);
                engine = open(&storage);
            }
            1 => {
                held.clear();
                drop(engine);
                storage.cut((rng.below(4) > 0).then(|| rng.next()));
                storage = storage.restarted();
                engine = open(&storage);
            }
            2 | 3 => {
                let snapshot = engine.snapshot().unwrap();
                let expected = model.at(snapshot.lsn().0);
                held.push((snapshot, expected));
            }
            4 if !held.is_empty() => {
                let (snapshot, expected) =
                    held.swap_remove(usize::try_from(rng.below(held.len() as u64)).unwrap());
                assert_eq!(observe(&snapshot).unwrap(), expected, "held snapshot: {at}");
            }
            5 => {
                engine.flush().unwrap();
                let stats = engine.stats();
                assert_eq!(stats.metric_cut, stats.visible_lsn, "{at}");
                assert_eq!(
                    (stats.metrics.samples, stats.frozen_generations),
                    (0, 0),
                    "{at}"
                );
            }
            _ => {
                let op = random_op(&mut rng);
                if let Some(lsn) = apply(&engine, &op).unwrap() {
                    assert!(model.ops.last().is_none_or(|(last, _)| *last < lsn), "{at}");
                    model.ops.push((lsn, op));
                }
            }
        }
        if step % 7 == 0 || step == 119 {
            let snapshot = engine.snapshot().unwrap();
            assert_eq!(
                observe(&snapshot).unwrap(),
                model.at(snapshot.lsn().0),
                "{at}"
            );
        }
    }
    for (snapshot, expected) in &held {
        assert_eq!(
            observe(snapshot).unwrap(),
            *expected,
            "held to the end: seed {seed}"
        );
    }
}

#[test]
fn the_store_answers_as_the_model_does() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap());
    if let Some(seed) = number("ROOTLINE_SEED") {
        return play(seed);
    }
    for seed in 0..number("ROOTLINE_MODEL_ROUNDS").unwrap_or(25) {
        play(seed);
    }
}
