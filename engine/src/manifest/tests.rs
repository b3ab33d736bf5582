//! The promises of the manifest: an edit holds whole or not at all, whatever fails under it; a damaged one
//! is read, never written; it stays small.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::time::Duration;

use rootline_index::Matcher;
use rootline_wal::{
    Fault, FaultStorage, FsStorage, ManualClock, Operation, PowerCutStorage, StoreId, SystemClock,
};

use super::*;
use crate::{
    ErrorKind,
    block::{BlockMeta, BlockWriter, SectionKind, Signal},
    time::TimeRange,
    tombstone::Tombstone,
};

const STORE: StoreId = StoreId::from_bytes([3; 16]);

fn dir() -> PathBuf {
    PathBuf::from("/data/manifest")
}

fn blocks_dir() -> PathBuf {
    PathBuf::from("/data/blocks")
}

fn meta(id: u64) -> BlockMeta {
    BlockMeta {
        id: BlockId(id),
        signal: Signal::Metrics,
        first_lsn: Lsn(id),
        last_lsn: Lsn(id + 1),
        clean_lsn: Lsn(id + 1),
        time: TimeRange::ALL,
        level: 0,
        series: 1,
        samples: 2,
        sources: Vec::new(),
        created_ns: 5,
        spanning: false,
        file_bytes: 1_000,
    }
}

fn open_at(storage: &dyn Fn() -> Arc<dyn Storage>, dir: &Path) -> (Manifest, ManifestRecovery) {
    Manifest::open(storage(), Arc::new(SystemClock::new()), dir).unwrap()
}

fn open(storage: &PowerCutStorage) -> (Manifest, ManifestRecovery) {
    let disk = storage.clone();
    open_at(&move || Arc::new(disk.clone()), &dir())
}

/// All that a version says, comparable.
fn said(version: &Version) -> Vec<u8> {
    edit::encode(0, &version.to_changes())
}

fn tombstone(lsn: u64) -> Tombstone {
    Tombstone {
        lsn: Lsn(lsn),
        matchers: vec![Matcher::equal("job", "api")],
        range: TimeRange::ALL,
    }
}

#[test]
fn what_was_committed_is_there_after_the_next_open() {
    let disk = PowerCutStorage::new();
    let (manifest, recovery) = open(&disk);
    assert!(recovery.created && recovery.damage.is_empty());
    let (one, two) = (manifest.next_block_id(), manifest.next_block_id());
    assert!(one < two);
    manifest
        .commit(vec![
            Change::AddBlock(meta(one.0)),
            Change::Cut {
                signal: Signal::Metrics,
                lsn: Lsn(9),
            },
            Change::AddTombstone(tombstone(8)),
            Change::AddTombstone(tombstone(4)),
            Change::RetentionFloor {
                signal: Signal::Spans,
                time_ns: -4,
            },
            Change::SetState {
                name: "clock".to_owned(),
                value: vec![1, 2],
            },
        ])
        .unwrap();
    let version = manifest
        .commit(vec![
            Change::DropBlock(one),
            Change::AddBlock(meta(two.0)),
            Change::DropTombstone(Lsn(8)),
            Change::Cut {
                signal: Signal::Metrics,
                lsn: Lsn(3),
            },
        ])
        .unwrap();
    assert_eq!(version.blocks.keys().collect::<Vec<_>>(), [&two]);
    assert_eq!(version.cuts.metrics, Lsn(9));
    assert_eq!(version.tombstones.len(), 1);
    assert_eq!(version.floors.spans, -4);
    let lost = manifest.next_block_id();
    drop(manifest);
    disk.cut(None);
    let (again, recovery) = open(&disk.restarted());
    assert_eq!(recovery, ManifestRecovery::default());
    assert_eq!(said(&again.version()), said(&version));
    // `lost` was told to nobody but the caller; its file, if there is one, is noted at opening.
    again.note_existing(lost);
    assert!(again.next_block_id() > lost);
    again.close().unwrap();
}

#[test]
fn an_edit_that_does_not_fit_changes_nothing() {
    let (manifest, _) = open(&PowerCutStorage::new());
    manifest.commit(vec![Change::AddBlock(meta(4))]).unwrap();
    let before = said(&manifest.version());
    let mut wrong = meta(6);
    wrong.last_lsn = Lsn(0);
    for edit in [
        vec![Change::AddBlock(meta(5)), Change::AddBlock(meta(4))],
        vec![Change::DropBlock(BlockId(4)), Change::DropBlock(BlockId(4))],
        vec![Change::AddBlock(wrong)],
    ] {
        let refused = manifest.commit(edit).unwrap_err();
        assert!(matches!(refused, Error::InvalidEdit { .. }), "{refused}");
    }
    assert_eq!(said(&manifest.version()), before);
    assert!(manifest.next_block_id() > BlockId(5));
}

#[test]
fn thousands_of_edits_leave_a_small_directory() {
    let disk = PowerCutStorage::new();
    let (manifest, recovery) = open(&disk);
    let mut cleaned = recovery;
    manifest
        .reconcile(&disk, &blocks_dir(), &mut cleaned)
        .unwrap();
    let mut most = 0;
    for i in 1..600 {
        let mut edit = vec![Change::AddBlock(meta(i))];
        if i > 5 {
            edit.push(Change::DropBlock(BlockId(i - 5)));
        }
        manifest.commit(edit).unwrap();
        most = most.max(manifest.disk_bytes());
    }
    assert!(most <= 192 << 10, "{most}");
    let version = said(&manifest.version());
    manifest.close().unwrap();
    assert!(files_bytes(&disk) <= 48 << 10, "{}", files_bytes(&disk));
    let (again, recovery) = open(&disk);
    assert_eq!(recovery, ManifestRecovery::default());
    assert_eq!(said(&again.version()), version);
    assert!(again.disk_bytes() <= 64 << 10, "{}", again.disk_bytes());
    assert!(again.next_block_id() > BlockId(599));
}

fn files_bytes(disk: &PowerCutStorage) -> u64 {
    let names = disk.list(&dir()).unwrap();
    names
        .iter()
        .map(|n| disk.len(&dir().join(n)).unwrap())
        .sum()
}

/// One block published on top of another, one dropped: the steps that must hold together.
fn publish(storage: &Arc<dyn Storage>, manifest: &Manifest) -> Result<(), Error> {
    for _ in 0..2 {
        let id = manifest.next_block_id();
        let mut writer = BlockWriter::create(storage, &blocks_dir(), STORE, id)?;
        writer.begin(SectionKind::Values)?;
        writer.write(&[7; 5_000])?;
        let written = writer.finish(meta(id.0))?;
        let drop = manifest.version().blocks.keys().next().copied();
        let mut edit = vec![
            Change::AddBlock(written),
            Change::Cut {
                signal: Signal::Metrics,
                lsn: Lsn(100 + id.0),
            },
        ];
        edit.extend(drop.map(Change::DropBlock));
        manifest.commit(edit)?;
        if let Some(id) = drop {
            let path = block::path(&blocks_dir(), id);
            storage.remove(&path).map_err(|source| Error::Storage {
                operation: "remove",
                path,
                source,
            })?;
        }
    }
    Ok(())
}

fn open_all(storage: &Arc<dyn Storage>) -> Result<Manifest, Error> {
    storage.create_dir_all(&blocks_dir()).unwrap();
    let clock = Arc::new(ManualClock::new());
    let (manifest, mut recovery) = Manifest::open(Arc::clone(storage), clock, &dir())?;
    manifest.reconcile(&**storage, &blocks_dir(), &mut recovery)?;
    assert_eq!(recovery.damage, []);
    Ok(manifest)
}

/// Each version that `publish` goes through, from the one before it.
fn versions() -> Vec<Vec<u8>> {
    let storage: Arc<dyn Storage> = Arc::new(PowerCutStorage::new());
    let manifest = open_all(&storage).unwrap();
    let mut seen = vec![said(&manifest.version())];
    publish(&storage, &manifest).unwrap();
    let last = manifest.version();
    // In between: the first block, and its cut.
    let mut between = Version::default();
    let mut first = meta(1);
    first.file_bytes = last.blocks.values().next().unwrap().file_bytes;
    between.apply(Change::AddBlock(first)).unwrap();
    between.cuts.metrics = Lsn(101);
    seen.extend([said(&between), said(&last)]);
    seen
}

/// After a restart: one of the versions, every named block whole, no file that is not named.
fn check_after_restart(disk: &PowerCutStorage, versions: &[Vec<u8>], context: &str) -> usize {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let manifest = open_all(&storage).unwrap_or_else(|e| panic!("{context}: {e}"));
    let version = manifest.version();
    let at = versions.iter().position(|v| *v == said(&version));
    let at = at.unwrap_or_else(|| panic!("{context}: {version:?}"));
    let files = storage.list(&blocks_dir()).unwrap();
    assert_eq!(files.len(), version.blocks.len(), "{context}: {files:?}");
    for (id, meta) in &version.blocks {
        let block = block::Block::open(&storage, &blocks_dir(), Some(STORE), *id, &Arc::default());
        let block = block.unwrap_or_else(|e| panic!("{context}: {e}"));
        assert_eq!(block.meta(), meta);
        let mut throttle = |_| Ok(());
        block
            .verify(&mut throttle, &mut |damage| panic!("{context}: {damage:?}"))
            .unwrap();
    }
    // It goes on from here.
    publish(&storage, &manifest).unwrap_or_else(|e| panic!("{context}: {e}"));
    at
}

#[test]
fn a_fault_or_power_cut_at_any_operation_leaves_one_version_or_the_next() {
    let versions = versions();
    for fault in [Fault::Fail, Fault::Tear, Fault::Full, Fault::Crash] {
        let mut nth = 0;
        loop {
            let disk = PowerCutStorage::new();
            let faulty = FaultStorage::new(Arc::new(disk.clone()));
            let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
            let manifest = open_all(&storage).unwrap();
            faulty.arm(&Operation::CHANGING, nth, fault);
            let outcome = publish(&storage, &manifest);
            let fired = faulty.fired();
            if let (Err(error), Fault::Full) = (&outcome, fault) {
                let kind = error.kind();
                assert!(
                    kind == ErrorKind::Retry || kind == ErrorKind::Closed,
                    "{error}"
                );
            }
            let in_memory = said(&manifest.version());
            let acknowledged = versions.iter().position(|v| *v == in_memory).unwrap();
            faulty.disarm();
            drop(manifest);
            // What the operating system had, then what the disk had, by several chances.
            for seed in [None, Some(None), Some(Some(nth)), Some(Some(nth + 1_000))] {
                let copy = disk.copied();
                if let Some(seed) = seed {
                    copy.cut(seed);
                }
                let context = format!("{fault:?} of operation {nth}, {seed:?}: {outcome:?}");
                let at = check_after_restart(&copy.restarted(), &versions, &context);
                assert!(at >= acknowledged, "{context}");
            }
            if !fired {
                outcome.unwrap();
                break;
            }
            nth += 1;
        }
        assert!(nth > 12, "{fault:?}: {nth}");
    }
}

#[test]
fn a_fault_at_any_operation_of_opening_is_an_error_and_nothing_more() {
    let (disk, version) = used();
    let mut nth = 0;
    loop {
        let copy = disk.copied();
        let faulty = FaultStorage::new(Arc::new(copy.clone()));
        let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
        faulty.arm(&Operation::ALL, nth, Fault::Fail);
        let clock = Arc::new(ManualClock::new());
        let opened =
            Manifest::open(Arc::clone(&storage), clock, &dir()).and_then(|(m, mut found)| {
                m.reconcile(&*storage, &blocks_dir(), &mut found)?;
                for id in m.version().blocks.keys() {
                    let files = Arc::default();
                    let block =
                        block::Block::open(&storage, &blocks_dir(), Some(STORE), *id, &files)?;
                    let section = block.section(SectionKind::Values)?;
                    section.bytes(0..section.len_bytes())?;
                }
                assert_eq!(found.damage, [], "{nth}");
                Ok(m)
            });
        let fired = faulty.fired();
        faulty.disarm();
        if let Err(error) = &opened {
            assert!(fired, "{error}");
        }
        drop(opened);
        let (again, recovery) = open(&copy);
        assert_eq!(recovery.damage, [], "{nth}");
        assert_eq!(said(&again.version()), version, "{nth}");
        if !fired {
            break;
        }
        nth += 1;
    }
    assert!(nth > 20, "{nth}");
}

#[test]
fn commits_and_numbers_of_many_threads_do_not_get_mixed_up() {
    let disk = PowerCutStorage::new();
    let (manifest, _) = open(&disk);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let id = manifest.next_block_id();
                    let version = manifest.commit(vec![Change::AddBlock(meta(id.0))]).unwrap();
                    assert!(version.blocks.contains_key(&id));
                    assert!(manifest.version().blocks.contains_key(&id));
                }
            });
        }
    });
    assert_eq!(manifest.version().blocks.len(), 80);
    let version = said(&manifest.version());
    drop(manifest);
    let (again, _) = open(&disk);
    assert_eq!(said(&again.version()), version);
}

#[test]
fn a_fault_while_it_compacts_itself_loses_no_commit() {
    let mut nth = 0;
    loop {
        let disk = PowerCutStorage::new();
        let faulty = FaultStorage::new(Arc::new(disk.clone()));
        let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
        let manifest = open_all(&storage).unwrap();
        faulty.arm(&Operation::CHANGING, nth, Fault::Tear);
        let mut acknowledged = said(&manifest.version());
        let mut tried = acknowledged.clone();
        for i in 1..12 {
            let mut next = Version::clone(&manifest.version());
            next.apply(Change::AddBlock(meta(i))).unwrap();
            tried = said(&next);
            match manifest.commit(vec![Change::AddBlock(meta(i))]) {
                Ok(version) => acknowledged = said(&version),
                Err(_) => break,
            }
        }
        let fired = faulty.fired();
        faulty.disarm();
        drop(manifest);
        for seed in [None, Some(nth)] {
            let copy = disk.copied();
            copy.cut(seed);
            let (again, recovery) = open(&copy.restarted());
            assert_eq!(recovery.damage, [], "{nth}");
            let found = said(&again.version());
            assert!(found == acknowledged || found == tried, "{nth}");
        }
        if !fired {
            break;
        }
        nth += 1;
    }
    assert!(nth > 40, "{nth}");
}

#[test]
fn a_full_disk_refuses_a_commit_and_takes_it_when_there_is_room() {
    let disk = PowerCutStorage::new();
    let faulty = FaultStorage::new(Arc::new(disk.clone()));
    let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
    let manifest = open_all(&storage).unwrap();
    faulty.set_full(true);
    let mut taken = 0;
    let refused = loop {
        match manifest.commit(vec![Change::AddBlock(meta(taken + 1))]) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Retry, "{refused}");
    assert_eq!(manifest.version().blocks.len() as u64, taken);
    faulty.set_full(false);
    let edit = vec![Change::AddBlock(meta(taken + 1))];
    assert_eq!(
        manifest.commit(edit).unwrap().blocks.len() as u64,
        taken + 1
    );
    let version = said(&manifest.version());
    drop(manifest);
    disk.cut(None);
    let (again, _) = open(&disk.restarted());
    assert_eq!(said(&again.version()), version);
}

#[test]
fn on_a_full_disk_room_can_still_be_made() {
    let disk = PowerCutStorage::new();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let manifest = open_all(&storage).unwrap();
    publish(&storage, &manifest).unwrap();
    let cut = |lsn: u64| Change::Cut {
        signal: Signal::Spans,
        lsn: Lsn(lsn),
    };
    let state = |i: u64| Change::SetState {
        name: "n".to_owned(),
        value: vec![i as u8 + 1; 100],
    };
    let used_bytes = || -> u64 {
        let of = |dir: &Path| -> u64 {
            let names = disk.list(dir).unwrap();
            names.iter().map(|n| disk.len(&dir.join(n)).unwrap()).sum()
        };
        of(&dir()) + of(&blocks_dir())
    };
    disk.set_capacity_bytes(Some(used_bytes()));
    let mut taken = 0;
    while manifest.commit(vec![state(taken)]).is_ok() {
        taken += 1;
    }
    assert!(taken < 50, "{taken}");
    manifest.commit(vec![cut(1)]).unwrap();
    let version = said(&manifest.version());
    disk.set_capacity_bytes(None);
    manifest.commit(vec![state(0)]).unwrap();
    assert_ne!(said(&manifest.version()), version);
    assert!(disk.exists(&dir().join("reserve")).unwrap());
    manifest.close().unwrap();
    assert!(!disk.exists(&dir().join("reserve")).unwrap());
}

/// A manifest that was used and closed, with its version.
fn used() -> (PowerCutStorage, Vec<u8>) {
    let disk = PowerCutStorage::new();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let manifest = open_all(&storage).unwrap();
    publish(&storage, &manifest).unwrap();
    publish(&storage, &manifest).unwrap();
    let version = said(&manifest.version());
    // As after a crash: nothing is written that was not there when the last commit returned.
    drop(manifest);
    (disk, version)
}

#[test]
fn a_flipped_byte_in_a_record_is_never_an_older_version_in_silence() {
    let (disk, version) = used();
    let mut reported = 0;
    for name in disk.list(&dir()).unwrap() {
        if name == "reserve" {
            continue;
        }
        let path = dir().join(&name);
        for offset in (0..disk.len(&path).unwrap() as usize).step_by(23) {
            let copy = disk.copied();
            copy.damage(&path, offset, 0x10).unwrap();
            let storage: Arc<dyn Storage> = Arc::new(copy.clone());
            let clock = Arc::new(SystemClock::new());
            let (manifest, mut recovery) =
                Manifest::open(Arc::clone(&storage), clock, &dir()).unwrap();
            let files = copy.list(&blocks_dir()).unwrap();
            manifest
                .reconcile(&*storage, &blocks_dir(), &mut recovery)
                .unwrap();
            if recovery.damage.is_empty() {
                // Padding, or what no longer counts.
                assert_eq!(said(&manifest.version()), version, "{name} {offset}");
                continue;
            }
            reported += 1;
            let refused = manifest
                .commit(vec![Change::AddBlock(meta(99))])
                .unwrap_err();
            assert!(matches!(refused, Error::ReadOnly { .. }), "{refused}");
            assert_eq!(copy.list(&blocks_dir()).unwrap(), files);
            manifest.close().unwrap();
            drop(manifest);
            // It does not heal by being looked at.
            let (_, recovery) = open(&copy);
            assert!(!recovery.damage.is_empty(), "{name} {offset}");
        }
    }
    assert!(reported > 10, "{reported}");
}

#[test]
fn a_manifest_that_is_gone_costs_no_block() {
    let (disk, _) = used();
    for name in disk.list(&dir()).unwrap() {
        disk.remove(&dir().join(name)).unwrap();
    }
    let files = disk.list(&blocks_dir()).unwrap();
    assert!(!files.is_empty());
    // The second time, it is not new any more.
    for _ in 0..2 {
        let (manifest, mut recovery) = open(&disk);
        let cleaned = manifest
            .reconcile(&disk, &blocks_dir(), &mut recovery)
            .unwrap();
        assert_eq!(cleaned, Cleaned::default());
        assert!(!recovery.damage.is_empty());
        assert!(manifest.read_only().is_some());
        assert_eq!(disk.list(&blocks_dir()).unwrap(), files);
    }
}

#[test]
fn a_named_block_that_is_missing_is_damage_and_removes_nothing() {
    let (disk, _) = used();
    let named = disk.list(&blocks_dir()).unwrap();
    disk.remove(&blocks_dir().join(&named[0])).unwrap();
    let unnamed = blocks_dir().join("block-00000000000000ff.rlb");
    disk.create(&unnamed).unwrap();
    let (manifest, mut recovery) = open(&disk);
    manifest
        .reconcile(&disk, &blocks_dir(), &mut recovery)
        .unwrap();
    assert_eq!(recovery.damage[0].path, blocks_dir().join(&named[0]));
    assert!(disk.exists(&unnamed).unwrap());
    assert!(manifest.next_block_id() > BlockId(0xff));
}

#[test]
fn a_record_of_a_newer_release_is_refused() {
    let storage: Arc<dyn Storage> = Arc::new(PowerCutStorage::new());
    for (kind, payload) in [
        (9, vec![]),
        (KIND_EDIT, vec![2, 1]),
        (KIND_EDIT, vec![1, 1, 50]),
    ] {
        let settings = Settings {
            segment_bytes_min: SEGMENT_BYTES,
            segment_bytes_max: SEGMENT_BYTES,
            idle_marker: Duration::from_mins(1),
            ..Settings::default()
        };
        let clock = Arc::new(SystemClock::new());
        let sub = dir().join(format!("{kind}-{}", payload.len()));
        let (wal, _) = Wal::open(
            Arc::clone(&storage),
            Arc::clone(&clock) as Arc<dyn Clock>,
            &sub,
            settings,
            &mut |_| Ok(()),
        )
        .unwrap();
        let lsn = wal.append(kind, &[&payload]).unwrap();
        wal.wait_durable(lsn).unwrap();
        wal.close().unwrap();
        drop(wal);
        let refused = Manifest::open(Arc::clone(&storage), clock, &sub).unwrap_err();
        assert!(matches!(refused, Error::UnknownRecord { .. }), "{refused}");
    }
}

#[test]
fn reading_without_opening_says_the_same_and_changes_nothing() {
    let (disk, version) = used();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let before = disk.list(&dir()).unwrap();
    let (read, recovery) = Manifest::read(&storage, &dir()).unwrap();
    assert_eq!(said(&read), version);
    assert_eq!(recovery, ManifestRecovery::default());
    assert_eq!(disk.list(&dir()).unwrap(), before);
    let segment = before
        .iter()
        .find(|name| *name != "reserve" && *name != "LOCK");
    let segment = dir().join(segment.unwrap());
    for at in 0..200 {
        disk.damage(&segment, 4096 + at, 1).unwrap();
    }
    let (_, recovery) = Manifest::read(&storage, &dir()).unwrap();
    assert!(!recovery.damage.is_empty());
}

#[test]
fn it_works_on_the_file_system() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("manifest");
    let fs = || -> Arc<dyn Storage> { Arc::new(FsStorage::new()) };
    let (manifest, _) = open_at(&fs, &dir);
    manifest.commit(vec![Change::AddBlock(meta(1))]).unwrap();
    let busy = Manifest::open(fs(), Arc::new(SystemClock::new()), &dir).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Retry);
    manifest.close().unwrap();
    let (again, recovery) = open_at(&fs, &dir);
    assert_eq!(recovery, ManifestRecovery::default());
    assert_eq!(again.version().blocks.len(), 1);
}

#[test]
fn a_manifest_whose_first_segments_are_gone_is_read_only() {
    let state = |n: u8| Change::SetState {
        name: "state".to_owned(),
        value: vec![n; 3000],
    };
    let mut cut_short = 0;
    for commits in (1..20).step_by(3) {
        let dir = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(FsStorage::new());
        let manifest_dir = dir.path().join("manifest");
        let open = || {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
            Manifest::open(Arc::clone(&storage), clock, &manifest_dir).unwrap()
        };
        let (manifest, _) = open();
        for n in 1..=commits {
            manifest.commit(vec![state(n)]).unwrap();
        }
        drop(manifest);
        let mut segments: Vec<_> = std::fs::read_dir(&manifest_dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "wal"))
            .collect();
        segments.sort();
        for gone in &segments[..segments.len() - 1] {
            std::fs::remove_file(gone).unwrap();
        }
        let is_whole = |version: &Version| version.state.get("state") == Some(&vec![commits; 3000]);
        let (read, recovery) = Manifest::read(&storage, &manifest_dir).unwrap();
        let was_damaged = !recovery.damage.is_empty();
        assert!(is_whole(&read) || was_damaged, "{commits}: {recovery:?}");
        let (manifest, _) = open();
        assert_eq!(manifest.read_only().is_some(), was_damaged, "{commits}");
        cut_short += u32::from(was_damaged);
    }
    assert!(cut_short > 0, "some of them had more than one segment");
}
