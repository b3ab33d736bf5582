//! Damage to the files of a store at rest: one bit of a byte flipped anywhere, files cut short, missing,
//! swapped or of another store. It is reported with file and offset, costs what lies on its page and
//! nothing else, and never ends in a panic, nor in a file that is removed.
//!
//! `ROOTLINE_DAMAGE_STRIDE=1` flips every byte, the default every 37th or so.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod model;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::{DAY_NS, Model, ModelExemplar, Op, Pick, State, Written, apply, labels, observe};
use rootline_engine::{
    Engine, Error, ErrorKind, MatchOp, Matcher, QueryLimits, Settings, TimeRange,
    verify::{Damage, verify},
};
use rootline_wal::{PowerCutStorage, Storage};

const DATA: &str = "/data";

fn open(disk: &PowerCutStorage) -> Result<Engine, Error> {
    let mut settings = Settings::default();
    settings.segment_bytes = (16 << 10, 16 << 10);
    settings.metric_shards = 2;
    settings.span_shards = 1;
    settings.maintenance_thread = false;
    Engine::builder(Path::new(DATA))
        .settings(settings)
        .storage(Arc::new(disk.clone()))
        .open()
}

fn write(engine: &Engine, model: &mut Model, days: &[i64], samples: i64) {
    let mut written = Written::default();
    for series in 0..8u8 {
        for &day in days {
            for n in 0..samples {
                let time = day * DAY_NS + n * 1_000_000;
                // Some columns of decimals, some of any bits.
                let value = (n as f64 + f64::from(series) / 7.0) * 0.1;
                let bits = if series < 4 {
                    (n as f64).to_bits()
                } else {
                    value.to_bits()
                };
                written.samples.push((series, time, bits));
            }
        }
        written.exemplars.push(ModelExemplar {
            series,
            time: days[0] * DAY_NS,
            bits: 0,
            trace: Some(1),
        });
    }
    let metric = u8::try_from(days.len() % 4).unwrap();
    written.metadata = vec![(metric, 1, 2)];
    let op = Op::Write(written);
    let lsn = apply(engine, &op).unwrap().unwrap();
    model.ops.push((lsn, op));
}

/// Blocks of one day, of many, merged, with a delete that is not carried out, and some log.
fn store() -> (PowerCutStorage, Model) {
    let disk = PowerCutStorage::new();
    let engine = open(&disk).unwrap();
    let mut model = Model::default();
    write(&engine, &mut model, &[1], 150);
    engine.flush().unwrap();
    write(&engine, &mut model, &[1], 40);
    engine.flush().unwrap();
    engine.compact().unwrap();
    write(&engine, &mut model, &[3, 4, 5, 6, 7, 8], 4);
    engine.flush().unwrap();
    write(&engine, &mut model, &[2, 3], 30);
    engine.flush().unwrap();
    let op = Op::Delete {
        picks: vec![Pick::Series(1)],
        start: 2 * DAY_NS,
        end: 4 * DAY_NS,
    };
    let lsn = apply(&engine, &op).unwrap().unwrap();
    model.ops.push((lsn, op));
    engine.flush().unwrap();
    write(&engine, &mut model, &[9], 5);
    engine.close_within(Duration::ZERO).unwrap();
    assert!(engine.stats().blocks >= 4, "{:?}", engine.stats());
    (disk, model)
}

fn files(disk: &PowerCutStorage, dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(DATA).join(dir);
    let names = disk.list(&dir).unwrap();
    names.into_iter().map(|name| dir.join(name)).collect()
}

fn verified(disk: &PowerCutStorage) -> Result<Vec<Damage>, Error> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let found = verify(&storage, Path::new(DATA), &mut |_, _| Ok(()))?;
    Ok(found.damage)
}

/// Samples by series.
type BySeries = BTreeMap<u8, Vec<(i64, u64)>>;

/// What can be read, series by series: samples, and which series cannot be read.
fn read_series(engine: &Engine) -> (BySeries, BTreeSet<u8>) {
    let snapshot = engine.snapshot().unwrap();
    let query = engine.query_control(None, QueryLimits::default());
    let (mut read, mut failed) = (BTreeMap::new(), BTreeSet::new());
    for series in 0..8u8 {
        let wanted = labels(series);
        let wanted = wanted.get("series").unwrap();
        let wanted = [Matcher::new(MatchOp::Equal, "series", wanted).unwrap()];
        let mut samples = Vec::new();
        let answered = snapshot.select(&wanted, TimeRange::ALL, &query, &mut |found| {
            let values = found.values.iter().map(|v| v.to_bits());
            samples.extend(found.timestamps.iter().copied().zip(values));
            Ok(ControlFlow::Continue(()))
        });
        match answered {
            Ok(()) => {
                read.insert(series, samples);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
                failed.insert(series);
            }
        }
    }
    (read, failed)
}

fn by_series(state: &State) -> BySeries {
    let mut all: BySeries = (0..8).map(|s| (s, Vec::new())).collect();
    for (&(series, time), &bits) in &state.samples {
        all.entry(series).or_default().push((time, bits));
    }
    all
}

fn stride(default: usize) -> usize {
    let given = std::env::var("ROOTLINE_DAMAGE_STRIDE");
    given.map_or(default, |stride| stride.parse().unwrap())
}

#[test]
fn a_flipped_byte_of_a_block_is_reported_and_costs_at_most_its_page() {
    let (disk, model) = store();
    assert_eq!(verified(&disk).unwrap(), []);
    let whole = by_series(&model.at(u64::MAX));
    let (mut costless, mut noted, mut replaced) = (0, 0, 0);
    for path in files(&disk, "blocks") {
        let bytes = disk.content(&path).unwrap();
        for offset in (0..bytes.len()).step_by(stride(37)) {
            let story = format!("{} at {offset}", path.display());
            let disk = disk.copied();
            disk.damage(&path, offset, 1 << (offset % 8)).unwrap();
            let found = verified(&disk).unwrap();
            assert_eq!(found.len(), 1, "{story}: {found:?}");
            assert_eq!(found[0].path, path, "{story}");
            let at = found[0].offset_bytes;
            let page = 64 << 10;
            assert!(
                at <= offset as u64 && offset as u64 - at <= page,
                "{story}: {found:?}"
            );

            let engine = open(&disk).unwrap_or_else(|e| panic!("{story}: {e}"));
            let is_noted_at_open = !engine.stats().damage.is_empty();
            let (read, failed) = read_series(&engine);
            let lost_at_open = engine.stats().damage.iter().any(|d| d.path == path);
            for (series, samples) in &read {
                if samples == &whole[series] {
                    continue;
                }
                // A block that does not open is left out, which is said.
                assert!(is_noted_at_open && lost_at_open, "{story}: silently gone");
                let of_whole: BTreeMap<_, _> = whole[series].iter().copied().collect();
                // What an older block has may show through.
                assert!(
                    samples
                        .iter()
                        .all(|(t, _)| of_whole.contains_key(t) || *series == 1),
                    "{story}"
                );
            }
            costless += u64::from(failed.is_empty());
            if !failed.is_empty() {
                let damage = engine.stats().damage;
                assert!(
                    damage.iter().any(|d| d.path == path),
                    "{story}: noted when a question met it"
                );
            }
            engine.scrub().unwrap();
            let damage = engine.stats().damage;
            assert!(
                damage.iter().any(|d| d.path == path),
                "{story}: noted once met"
            );
            noted += 1;
            // It goes on, and removes nothing of it.
            let mut model = Model::default();
            write(&engine, &mut model, &[20], 3);
            engine.flush().unwrap_or_else(|e| panic!("{story}: {e}"));
            let _ = engine.compact();
            if !disk.exists(&path).unwrap() {
                // Everything in it could be read, and was merged into another.
                assert!(failed.is_empty(), "{story}: it is left as it is");
                let (read, failed) = read_series(&engine);
                assert!(failed.is_empty());
                for (series, samples) in &read {
                    assert!(samples.starts_with(&whole[series]), "{story}");
                }
                replaced += 1;
            }
        }
    }
    assert!(noted > 20 && costless > 0 && replaced > 0);
}

#[test]
fn a_flipped_byte_of_the_manifest_is_reported_and_samples_are_read_all_the_same() {
    let (disk, model) = store();
    let whole = model.at(u64::MAX);
    let (mut read_only, mut unused) = (0, 0);
    for path in files(&disk, "manifest") {
        let bytes = disk.content(&path).unwrap();
        for offset in (0..bytes.len()).step_by(stride(211)) {
            let story = format!("{} at {offset}", path.display());
            let disk = disk.copied();
            disk.damage(&path, offset, 1 << (offset % 8)).unwrap();
            let found = verified(&disk).unwrap_or_else(|e| panic!("{story}: {e}"));
            let blocks = files(&disk, "blocks");
            let engine = open(&disk).unwrap_or_else(|e| panic!("{story}: {e}"));
            let stats = engine.stats();
            let seen = observe(&engine.snapshot().unwrap()).unwrap();
            if stats.read_only.is_none() {
                // Room of the log that is allocated and not used yet, and the reserve file, hold
                // nothing. What a later full edit replaced is never read again.
                assert_eq!(seen, whole, "{story}");
                unused += 1;
                continue;
            }
            read_only += 1;
            assert!(!found.is_empty(), "{story}");
            assert!(!stats.damage.is_empty(), "{story}");
            assert!(
                stats.damage.iter().any(|d| d.path == path),
                "{story}: {:?}",
                stats.damage
            );
            for (key, bits) in &whole.samples {
                assert_eq!(seen.samples.get(key), Some(bits), "{story}: {key:?}");
            }
            let op = Op::DeleteTrace(1);
            let refused = apply(&engine, &op).unwrap_err();
            assert!(
                matches!(refused, Error::ReadOnly { .. }),
                "{story}: {refused}"
            );
            drop(engine);
            assert_eq!(
                files(&disk, "blocks"),
                blocks,
                "{story}: no file is touched"
            );
        }
    }
    assert!(read_only > 0 && unused > 0, "{read_only} {unused}");
}

#[test]
fn without_manifest_all_samples_are_read_and_nothing_is_written() {
    let (disk, model) = store();
    let whole = model.at(u64::MAX);
    for path in files(&disk, "manifest") {
        disk.remove(&path).unwrap();
    }
    let blocks = files(&disk, "blocks");
    let engine = open(&disk).unwrap();
    assert!(engine.stats().read_only.is_some());
    let seen = observe(&engine.snapshot().unwrap()).unwrap();
    for (key, bits) in &whole.samples {
        assert_eq!(seen.samples.get(key), Some(bits), "{key:?}");
    }
    let refused = apply(&engine, &Op::DeleteTrace(1)).unwrap_err();
    assert!(matches!(refused, Error::ReadOnly { .. }), "{refused}");
    assert!(engine.flush().is_err() && engine.compact().is_err());
    engine.tick();
    drop(engine);
    assert_eq!(files(&disk, "blocks"), blocks, "no file is touched");
    assert!(!verified(&disk).unwrap().is_empty());
}

/// Does something to a block's file, opens the store, and expects that block alone to be refused.
/// A named file that is gone makes the store read-only: what else the manifest is wrong about is not known.
fn refused(
    story: &str,
    is_read_only: bool,
    change: impl Fn(&PowerCutStorage, &[PathBuf]) -> Vec<PathBuf>,
) {
    let (disk, model) = store();
    let whole = by_series(&model.at(u64::MAX));
    let blocks = files(&disk, "blocks");
    let changed = change(&disk, &blocks);
    let found = verified(&disk).unwrap();
    let engine = open(&disk).unwrap_or_else(|e| panic!("{story}: {e}"));
    let stats = engine.stats();
    assert_eq!(stats.read_only.is_some(), is_read_only, "{story}");
    for path in &changed {
        assert!(found.iter().any(|d| d.path == *path), "{story}: {found:?}");
        let damage = &stats.damage;
        assert!(
            damage.iter().any(|d| d.path == *path),
            "{story}: {damage:?}"
        );
    }
    let (read, failed) = read_series(&engine);
    assert!(failed.is_empty(), "{story}: the rest is served");
    let snapshot = engine.snapshot().unwrap();
    let is_whole = snapshot.is_whole(TimeRange::ALL);
    assert!(!is_whole, "{story}: and said to be the rest");
    drop(snapshot);
    let count = |all: &BySeries| all.values().map(Vec::len).sum::<usize>();
    assert!(count(&read) > 0 && count(&read) <= count(&whole), "{story}");
    assert_eq!(engine.flush().is_err(), is_read_only, "{story}");
    let _ = engine.compact();
    let existing: Vec<_> = changed.iter().map(|p| disk.exists(p).unwrap()).collect();
    drop(engine);
    let engine = open(&disk).unwrap_or_else(|e| panic!("{story}: {e}"));
    assert!(!engine.stats().damage.is_empty(), "{story}: still reported");
    for (path, existing) in changed.iter().zip(existing) {
        assert_eq!(
            disk.exists(path).unwrap(),
            existing,
            "{story}: never removed"
        );
    }
}

fn replace(disk: &PowerCutStorage, path: &Path, bytes: &[u8]) {
    if disk.exists(path).unwrap() {
        disk.remove(path).unwrap();
    }
    let file = disk.create(path).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir(path.parent().unwrap()).unwrap();
}

#[test]
fn a_block_that_is_cut_short_is_refused_and_reported() {
    let (disk, _) = store();
    let length = disk.content(&files(&disk, "blocks")[0]).unwrap().len();
    let step = (length / 12).max(1);
    let ends = (0..length).step_by(step).chain([length - 1]);
    for end in ends {
        refused(
            &format!("cut at {end} of {length}"),
            false,
            |disk, blocks| {
                let bytes = disk.content(&blocks[0]).unwrap();
                replace(disk, &blocks[0], &bytes[..end]);
                vec![blocks[0].clone()]
            },
        );
    }
}

#[test]
fn a_missing_block_is_reported() {
    refused("missing", true, |disk, blocks| {
        disk.remove(&blocks[1]).unwrap();
        disk.sync_dir(blocks[1].parent().unwrap()).unwrap();
        vec![blocks[1].clone()]
    });
}

#[test]
fn swapped_blocks_are_refused() {
    refused("swapped", false, |disk, blocks| {
        let (a, b) = (
            disk.content(&blocks[0]).unwrap(),
            disk.content(&blocks[1]).unwrap(),
        );
        replace(disk, &blocks[0], &b);
        replace(disk, &blocks[1], &a);
        vec![blocks[0].clone(), blocks[1].clone()]
    });
}

#[test]
fn a_block_of_another_store_is_refused() {
    refused("foreign", false, |disk, blocks| {
        let (other, _) = store();
        let bytes = other.content(&blocks[0]).unwrap();
        replace(disk, &blocks[0], &bytes);
        vec![blocks[0].clone()]
    });
}

/// Many pages: what is on the others comes back bit for bit.
#[test]
fn damage_in_a_large_block_costs_few_series() {
    let disk = PowerCutStorage::new();
    let engine = open(&disk).unwrap();
    let series = 3000u64;
    let mut rng = model::Rng(3);
    let mut expected: BTreeMap<String, Vec<(i64, u64)>> = BTreeMap::new();
    for part in 0..10i64 {
        let mut batch = engine.batch();
        for i in 0..series {
            let name = format!(
                "series-{i:05}-{:016x}",
                i.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            );
            let labels = rootline_engine::Labels::from_pairs([("__name__", &*name)]).unwrap();
            let row = batch.metrics().series(&labels);
            let (time, bits) = (part * 1_000_000_000, rng.next());
            let value = f64::from_bits(bits);
            let at = rootline_engine::Timestamp::from_nanos(time);
            batch.metrics().sample(row, at, value);
            let of_series = expected.entry(name).or_default();
            of_series.push((time, value.to_bits()));
        }
        engine.write(&mut batch).unwrap();
    }
    engine.flush().unwrap();
    engine.close().unwrap();
    drop(engine);
    let path = files(&disk, "blocks").remove(0);
    let length = disk.content(&path).unwrap().len();
    assert!(length > 300 << 10, "{length}");
    let mut pages = 0;
    for offset in (0..length).step_by(stride(37) * 500) {
        let story = format!("byte {offset} of {length}");
        let disk = disk.copied();
        disk.damage(&path, offset, 4).unwrap();
        let found = verified(&disk).unwrap();
        assert_eq!(found.len(), 1, "{story}: {found:?}");
        let engine = open(&disk).unwrap_or_else(|e| panic!("{story}: {e}"));
        let snapshot = engine.snapshot().unwrap();
        let query = engine.query_control(None, QueryLimits::default());
        let mut lost = 0;
        for (name, samples) in expected.iter().step_by(7) {
            let wanted = [Matcher::new(MatchOp::Equal, "__name__", name).unwrap()];
            let mut read = Vec::new();
            let answered = snapshot.select(&wanted, TimeRange::ALL, &query, &mut |found| {
                let values = found.values.iter().map(|v| v.to_bits());
                read.extend(found.timestamps.iter().copied().zip(values));
                Ok(ControlFlow::Continue(()))
            });
            match answered {
                Ok(()) if read.is_empty() => {
                    // The block did not open, which is said.
                    assert!(!engine.stats().damage.is_empty(), "{story}: silently gone");
                    lost += 1;
                }
                Ok(()) => assert_eq!(&read, samples, "{story}: {name}"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupted, "{story}: {error}");
                    lost += 1;
                }
            }
        }
        // Labels that are damaged cost the questions that need them.
        let asked = expected.len() / 7;
        match found[0].reason.split(',').next().unwrap() {
            "header" | "footer" | "end" => assert_eq!(lost, 0, "{story}"),
            "section values" => {
                assert!(lost > 0 && lost * 3 < asked, "{story}: {lost} of {asked}");
                pages += 1;
            }
            _ => {}
        }
    }
    assert!(pages > 0);
}

#[test]
fn a_flipped_byte_of_the_log_is_reported_or_costs_nothing() {
    let (disk, model) = store();
    let whole = model.at(u64::MAX);
    let (mut lost, mut unused) = (0, 0);
    for path in files(&disk, "wal") {
        let bytes = disk.content(&path).unwrap();
        for offset in (0..bytes.len()).step_by(stride(37)) {
            let story = format!("{} at {offset}", path.display());
            let disk = disk.copied();
            disk.damage(&path, offset, 1 << (offset % 8)).unwrap();
            let found = verified(&disk).unwrap_or_else(|e| panic!("{story}: {e}"));
            let engine = open(&disk).unwrap_or_else(|e| panic!("{story}: {e}"));
            let seen = observe(&engine.snapshot().unwrap()).unwrap();
            if offset < 80 {
                // The header of a segment: the store goes on, and is opened again.
                assert_eq!(seen, whole, "{story}");
                let op = Op::DeleteTrace(1);
                apply(&engine, &op).unwrap_or_else(|e| panic!("{story}: {e}"));
                drop(engine);
                let engine = open(&disk).unwrap_or_else(|e| panic!("{story}: again: {e}"));
                let again = observe(&engine.snapshot().unwrap()).unwrap();
                assert_eq!(again, whole, "{story}: again");
                continue;
            }
            if seen == whole {
                // Allocated and not used yet, or of records that are in blocks.
                unused += 1;
                continue;
            }
            lost += 1;
            let damaged = found.iter().find(|d| d.path == path);
            let damaged = damaged.unwrap_or_else(|| panic!("{story}: {found:?}"));
            assert!(damaged.offset_bytes <= offset as u64, "{story}: {found:?}");
            assert!(!engine.stats().replayed.log.corrupt.is_empty(), "{story}");
            // What is in blocks is not touched by it.
            let sealed = whole.samples.iter().filter(|((_, t), _)| *t < 9 * DAY_NS);
            for (key, bits) in sealed {
                assert_eq!(seen.samples.get(key), Some(bits), "{story}: {key:?}");
            }
        }
    }
    assert!(lost > 0 && unused > 0, "{lost} {unused}");
}
