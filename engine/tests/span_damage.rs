//! Damage to blocks of spans at rest: one bit of a byte flipped in every section is reported with file
//! and offset by `verify`, costs the questions that need its page an error or is said when the store is
//! opened, leaves the other traces as they were, and never ends in a panic.
//!
//! `ROOTLINE_DAMAGE_STRIDE=1` flips every byte, the default every 83rd.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod model;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{ModelSpan, Rng, TRACES, fill, random_span, random_span_pick, span_answers, trace_id};
use rootline_engine::{
    Engine, Error, ErrorKind, QueryLimits, Settings, TimeRange, Trace, verify::verify,
};
use rootline_wal::{PowerCutStorage, Storage};

const DATA: &str = "/data";

fn open(disk: &PowerCutStorage) -> Result<Engine, Error> {
    let mut settings = Settings::default();
    settings.segment_bytes = (16 << 10, 16 << 10);
    settings.metric_shards = 1;
    settings.span_shards = 1;
    settings.maintenance_thread = false;
    Engine::builder(Path::new(DATA))
        .settings(settings)
        .storage(Arc::new(disk.clone()))
        .open()
}

fn write(engine: &Engine, spans: &[ModelSpan]) {
    let mut batch = engine.batch();
    fill(&mut batch, &[], spans);
    engine.write(&mut batch).unwrap();
}

/// An old block, and a newer one that supersedes two of its traces.
fn store() -> PowerCutStorage {
    let disk = PowerCutStorage::new();
    let engine = open(&disk).unwrap();
    let mut rng = Rng(5);
    let mut spans: Vec<_> = (0..150).map(|_| random_span(&mut rng, 3)).collect();
    write(&engine, &spans);
    engine.flush().unwrap();
    spans = (0..30).map(|_| random_span(&mut rng, 3)).collect();
    spans.retain(|span| span.trace < 2);
    write(&engine, &spans);
    engine.flush().unwrap();
    assert_eq!(engine.stats().span_blocks, 2);
    engine.close().unwrap();
    disk
}

fn blocks(disk: &PowerCutStorage) -> Vec<PathBuf> {
    let dir = Path::new(DATA).join("blocks");
    let names = disk.list(&dir).unwrap();
    names.into_iter().map(|name| dir.join(name)).collect()
}

/// Traces that can be read, and those that cannot.
fn traces(engine: &Engine) -> (BTreeMap<u8, Option<Trace>>, BTreeSet<u8>) {
    let snapshot = engine.snapshot().unwrap();
    let query = engine.query_control(None, QueryLimits::default());
    let (mut read, mut failed) = (BTreeMap::new(), BTreeSet::new());
    for trace in 0..u8::try_from(TRACES).unwrap() {
        match snapshot.trace(trace_id(trace), &query) {
            Ok(found) => drop(read.insert(trace, found)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
                failed.insert(trace);
            }
        }
    }
    (read, failed)
}

#[test]
fn a_flipped_byte_of_a_block_of_spans_is_reported_and_never_silent() {
    let disk = store();
    let stride = std::env::var("ROOTLINE_DAMAGE_STRIDE");
    let stride = stride.map_or(83, |stride| stride.parse().unwrap());
    let engine = open(&disk).unwrap();
    let (whole, failed) = traces(&engine);
    assert!(failed.is_empty() && whole.values().flatten().count() >= 6);
    let mut rng = Rng(6);
    let picks: Vec<_> = (0..3).map(|_| random_span_pick(&mut rng, 3)).collect();
    let answers = span_answers(&engine.snapshot().unwrap(), &picks).unwrap();
    drop(engine);
    let mut sections = BTreeSet::new();
    let mut errors = 0;
    for path in blocks(&disk) {
        let length = disk.content(&path).unwrap().len();
        for offset in (0..length).step_by(stride) {
            let disk = disk.copied();
            disk.damage(&path, offset, 1 << (offset % 8)).unwrap();
            let storage: Arc<dyn Storage> = Arc::new(disk.clone());
            let found = verify(&storage, Path::new(DATA), &mut |_, _| Ok(())).unwrap();
            let story = format!("{} at {offset}: {:?}", path.display(), found.damage);
            assert_eq!(found.damage.len(), 1, "{story}");
            let damage = &found.damage[0];
            assert_eq!(damage.path, path, "{story}");
            assert!(damage.offset_bytes <= offset as u64, "{story}");
            sections.insert(damage.reason.split(',').next().unwrap().to_owned());

            let engine = open(&disk).unwrap_or_else(|e| panic!("{story}: {e}"));
            let said = !engine.stats().damage.is_empty();
            let (read, failed) = traces(&engine);
            errors += failed.len();
            let said = said || !engine.stats().damage.is_empty();
            assert!(failed.is_empty() || said, "{story}: an error is noted");
            for (trace, found) in &read {
                assert!(said || found == &whole[trace], "{story}: {trace} silently");
            }
            // Any question: the same answers, or damage.
            match span_answers(&engine.snapshot().unwrap(), &picks) {
                Ok(found) if found != answers => {
                    assert!(!engine.stats().damage.is_empty(), "{story}: silently");
                }
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupted, "{story}: {error}"),
            }
            // Late spans of every trace, sealing and merging: nothing panics and nothing new is lost.
            let spans = [random_span(&mut Rng(offset as u64), 3)];
            let mut batch = engine.batch();
            fill(&mut batch, &[], &spans);
            if engine.write(&mut batch).is_ok() {
                let _ = (engine.flush(), engine.compact());
                match traces(&engine) {
                    (read, failed) if !failed.contains(&spans[0].trace) => {
                        let found = read[&spans[0].trace].as_ref();
                        let spans = found.map_or(0, |trace| trace.spans.len());
                        assert!(spans > 0, "{story}: what came late is there");
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(sections.len() >= 8, "{sections:?}");
    assert!(errors > 0);
}

fn manifest_files(disk: &PowerCutStorage) -> Vec<PathBuf> {
    let dir = Path::new(DATA).join("manifest");
    let names = disk.list(&dir).unwrap();
    names.into_iter().map(|name| dir.join(name)).collect()
}

#[test]
fn a_damaged_manifest_costs_no_span() {
    let disk = store();
    let (whole, _) = traces(&open(&disk).unwrap());
    let (mut read_only, mut unused) = (0, 0);
    for path in manifest_files(&disk) {
        let bytes = disk.content(&path).unwrap();
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        for offset in (0..used).step_by(23) {
            let story = format!("{} at {offset} of {used}", path.display());
            let disk = disk.copied();
            disk.damage(&path, offset, 1 << (offset % 8)).unwrap();
            let engine = open(&disk).unwrap_or_else(|e| panic!("{story}: {e}"));
            let stats = engine.stats();
            let (read, failed) = traces(&engine);
            assert!(failed.is_empty(), "{story}: {failed:?}");
            for (trace, found) in &read {
                assert_eq!(found, &whole[trace], "{story}: {stats:?}");
            }
            if stats.read_only.is_some() {
                read_only += 1;
            } else {
                unused += 1;
            }
        }
    }
    assert!(read_only > 0, "{read_only} {unused}");
}

/// Whatever block is not what the manifest says: the others are read, nothing is written, the file stays.
#[test]
fn a_block_of_spans_that_is_not_the_right_one_is_refused_and_kept() {
    let disk = store();
    let (whole, _) = traces(&open(&disk).unwrap());
    let files = blocks(&disk);
    let replace = |disk: &PowerCutStorage, path: &Path, bytes: &[u8]| {
        disk.remove(path).unwrap();
        let file = disk.create(path).unwrap();
        file.write_at(0, bytes).unwrap();
        file.sync().unwrap();
        disk.sync_dir(path.parent().unwrap()).unwrap();
    };
    let other = store();
    for (nth, path) in files.iter().enumerate() {
        for wrong in 0..3 {
            let story = format!("block {nth}, {wrong}");
            let disk = disk.copied();
            let content = disk.content(path).unwrap();
            match wrong {
                0 => replace(&disk, path, &content[..content.len() / 2]),
                1 => replace(&disk, path, &other.content(path).unwrap()),
                _ => replace(&disk, path, &disk.content(&files[1 - nth]).unwrap()),
            }
            let engine = open(&disk).unwrap_or_else(|e| panic!("{story}: {e}"));
            let stats = engine.stats();
            assert!(
                stats.damage.iter().any(|d| d.path == *path),
                "{story}: {stats:?}"
            );
            assert!(!engine.snapshot().unwrap().spans_are_whole(TimeRange::ALL));
            let (read, failed) = traces(&engine);
            assert!(failed.is_empty(), "{story}");
            for (trace, found) in read {
                let lost = found != whole[&trace];
                // The newer block has traces 0 and 1, the older one the others.
                let in_newer = trace < 2 && nth == 1;
                let in_older = trace >= 2 && nth == 0;
                assert_eq!(
                    lost,
                    (in_newer || in_older) && whole[&trace].is_some(),
                    "{story}: {trace}"
                );
            }
            engine.close().unwrap();
            assert!(disk.content(path).is_ok(), "{story}: kept");
        }
    }
}
