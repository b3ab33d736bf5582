//! The store against a plain model: random writes of both signals, late data, duplicates, deletes,
//! flushes, merges, retention, copies, snapshots held open, reopening and power cuts. Contracts 1 to 4
//! of the design.
//!
//! Time is a clock that the test moves. One seed in four works with the store's own threads, the others
//! tick; of these, one in two keeps some days only.
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
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::{DAY_NS, Model, Op, Rng, State, apply_above, check_questions, observe, random_op_at};
use rootline_engine::{Clock, Engine, Settings, Snapshot, Storage, backup, verify::verify};
use rootline_wal::{ManualClock, PowerCutStorage};

const KEPT: Duration = Duration::from_secs(10 * 86_400);
const STEPS: usize = 120;

/// A store and what is known about it.
struct Play {
    seed: u64,
    rng: Rng,
    clock: Arc<ManualClock>,
    storage: PowerCutStorage,
    engine: Engine,
    model: Model,
    held: Vec<(Snapshot, State)>,
    /// Copies made so far.
    copies: u32,
    /// Kinds of steps so far.
    story: Vec<u64>,
}

impl Play {
    fn new(seed: u64) -> Self {
        let clock = Arc::new(ManualClock::new());
        clock.set_wall_ns(40 * DAY_NS);
        let storage = PowerCutStorage::new();
        let engine = open(seed, &storage, &clock, Path::new("/data"));
        Self {
            seed,
            rng: Rng(seed),
            clock,
            storage,
            engine,
            model: Model::default(),
            held: Vec::new(),
            copies: 0,
            story: Vec::new(),
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.rng.below(n)
    }

    fn today(&self) -> i64 {
        self.clock.wall_ns() / DAY_NS
    }

    fn floor_ns(&self) -> i64 {
        let floor = self.engine.stats().retention_floor;
        floor.map_or(i64::MIN, |floor| floor.as_nanos())
    }

    fn reopen(&mut self) {
        self.engine = open(self.seed, &self.storage, &self.clock, Path::new("/data"));
        let stats = self.engine.stats();
        assert_eq!((stats.read_only, stats.damage), (None, Vec::new()));
    }

    fn expected(&self, snapshot: &Snapshot) -> State {
        self.model.at(snapshot.lsn().0).from(self.floor_ns())
    }

    fn check(&mut self) {
        let snapshot = self.engine.snapshot().unwrap();
        let expected = self.expected(&snapshot);
        assert_eq!(observe(&snapshot).unwrap(), expected);
        let today = self.today();
        for _ in 0..2 {
            check_questions(&snapshot, &expected, &mut self.rng, today).unwrap();
        }
    }

    fn step(&mut self) {
        let kind = self.below(30);
        self.story.push(kind);
        match kind {
            0 => {
                self.held.clear();
                let seal_for = Duration::from_secs(60 * self.below(2));
                self.engine.close_within(seal_for).unwrap();
                self.reopen();
            }
            1 => {
                self.held.clear();
                let seed = (self.below(4) > 0).then(|| self.rng.next());
                self.storage.cut(seed);
                self.storage = self.storage.restarted();
                self.reopen();
            }
            2 | 3 => {
                let snapshot = self.engine.snapshot().unwrap();
                let expected = self.expected(&snapshot);
                self.held.push((snapshot, expected));
            }
            4 | 5 if !self.held.is_empty() => {
                let at = self.below(self.held.len() as u64);
                let (snapshot, expected) = &self.held[usize::try_from(at).unwrap()];
                assert_eq!(observe(snapshot).unwrap(), *expected, "held snapshot");
                let today = self.clock.wall_ns() / DAY_NS;
                check_questions(snapshot, expected, &mut self.rng, today).unwrap();
                self.held.swap_remove(usize::try_from(at).unwrap());
            }
            6 => {
                self.engine.flush().unwrap();
                let stats = self.engine.stats();
                assert_eq!(stats.metric_cut, stats.visible_lsn);
                assert_eq!((stats.metrics.samples, stats.frozen_generations), (0, 0));
            }
            7 => {
                self.engine.flush().unwrap();
                self.engine.compact().unwrap();
                let left = self.engine.compact().unwrap();
                assert_eq!(left.merges, 0, "nothing is left to merge");
            }
            8 => {
                self.engine.compact().unwrap();
            }
            9 | 10 => {
                let passed = [1, 299, 301, 3600, 30_000, 100_000];
                let passed = passed[usize::try_from(self.below(6)).unwrap()];
                self.clock.advance(Duration::from_secs(passed));
                self.engine.tick();
                self.check_retention();
            }
            11 if self.below(3) == 0 => self.copy(),
            _ => {
                let mut op = random_op_at(&mut self.rng, self.clock.wall_ns() / DAY_NS);
                let floor_ns = self.floor_ns();
                self.leave_expired(&mut op, floor_ns);
                if let Some(lsn) = apply_above(&self.engine, &mut op, floor_ns).unwrap() {
                    assert!(self.model.ops.last().is_none_or(|(last, _)| *last < lsn));
                    self.model.ops.push((lsn, op));
                }
            }
        }
    }

    /// Takes out of `op` the spans of traces that have expired: whether the old spans of such a trace
    /// come back with a new one depends on when they are removed.
    fn leave_expired(&self, op: &mut Op, floor_ns: i64) {
        if let Op::Write(written) = op {
            let expired = model::expired(&self.model.at(u64::MAX).spans, floor_ns);
            written.spans.retain(|span| !expired.contains(&span.trace));
        }
    }

    /// After a tick the floor is where it belongs, and no block lies below it as a whole.
    fn check_retention(&self) {
        if !keeps_some_days(self.seed) {
            assert_eq!(self.floor_ns(), i64::MIN);
            return;
        }
        let stats = self.engine.stats();
        let wanted = self.clock.wall_ns() - i64::try_from(KEPT.as_nanos()).unwrap();
        assert!(self.floor_ns() <= wanted, "nothing younger is dropped");
        if !stats.compactions.retention_paused {
            assert!(self.floor_ns() > wanted - 3_600_000_000_000);
        }
    }

    /// A copy of the store, and one restored from that, answer as the store does.
    fn copy(&mut self) {
        self.copies += 1;
        let copy = PathBuf::from(format!("/copy-{}", self.copies));
        self.engine.snapshot_to(&copy).unwrap();
        let storage: Arc<dyn Storage> = Arc::new(self.storage.clone());
        let restored = PathBuf::from(format!("/restored-{}", self.copies));
        backup::restore(&storage, &copy, &restored).unwrap();
        let expected = self.model.at(u64::MAX).from(self.floor_ns());
        for dir in [restored, copy] {
            let engine = open(self.seed & 3, &self.storage, &self.clock, &dir);
            let stats = engine.stats();
            assert_eq!((stats.read_only, stats.damage), (None, Vec::new()));
            assert_eq!(observe(&engine.snapshot().unwrap()).unwrap(), expected);
            engine.flush().unwrap();
            engine.compact().unwrap();
            assert_eq!(observe(&engine.snapshot().unwrap()).unwrap(), expected);
            engine.close().unwrap();
            drop(engine);
            for part in ["blocks", "wal", "manifest"] {
                for name in storage.list(&dir.join(part)).unwrap() {
                    storage.remove(&dir.join(part).join(name)).unwrap();
                }
            }
        }
    }
}

/// With threads, retention could move between two looks.
fn has_threads(seed: u64) -> bool {
    seed % 4 == 3
}

fn keeps_some_days(seed: u64) -> bool {
    seed % 4 == 1
}

fn open(seed: u64, storage: &PowerCutStorage, clock: &Arc<ManualClock>, dir: &Path) -> Engine {
    let mut settings = Settings::default();
    settings.segment_bytes = (64 << 10, 256 << 10);
    settings.metric_shards = 3;
    settings.span_shards = 2;
    settings.snapshot_max_age = Duration::from_secs(1000 * 86_400);
    settings.maintenance_thread = has_threads(seed);
    settings.retention_age = keeps_some_days(seed).then_some(KEPT);
    Engine::builder(dir)
        .settings(settings)
        .storage(Arc::new(storage.clone()))
        .clock(Arc::clone(clock) as Arc<dyn Clock>)
        .open()
        .unwrap()
}

impl Drop for Play {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, steps {:?}", self.seed, self.story);
            for (lsn, op) in &self.model.ops {
                eprintln!("{lsn}: {op:?}");
            }
        }
    }
}

fn play(seed: u64) {
    let mut play = Play::new(seed);
    for step in 0..STEPS {
        play.step();
        if step % 7 == 0 || step == STEPS - 1 {
            play.check();
        }
    }
    for (snapshot, expected) in std::mem::take(&mut play.held) {
        assert_eq!(observe(&snapshot).unwrap(), expected, "held to the end");
    }
    play.engine.close().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(play.storage.clone());
    let verified = verify(&storage, Path::new("/data"), &mut |_, _| Ok(())).unwrap();
    assert_eq!(verified.damage, []);
}

#[test]
fn the_store_answers_as_the_model_does() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap());
    if let Some(seed) = number("ROOTLINE_SEED") {
        return play(seed);
    }
    for seed in 0..number("ROOTLINE_MODEL_ROUNDS").unwrap_or(12) {
        play(seed);
    }
}
