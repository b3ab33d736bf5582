//! The promise: what a released version wrote, every later one reads, with nothing lost and nothing added.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test may fail by panicking, and its numbers are small"
)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rootline_wal::{Error, FsStorage, Lsn, ManualClock, Recovery, Settings, Wal};

type Replayed = Vec<(u64, u8, Vec<u8>)>;

fn open(dir: &Path) -> (Arc<Wal>, Recovery, Replayed) {
    let mut replayed = Vec::new();
    let (wal, recovery) = Wal::open(
        Arc::new(FsStorage::new()),
        Arc::new(ManualClock::new()),
        dir,
        Settings::default(),
        &mut |record| {
            replayed.push((record.lsn.0, record.kind, record.payload.to_vec()));
            Ok(())
        },
    )
    .unwrap();
    (wal, recovery, replayed)
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/v1")
        .join(name)
}

/// Opening writes, so a copy is opened.
fn copy_of(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn expected() -> Replayed {
    vec![
        (1, 1, b"one".to_vec()),
        (2, 2, b"two".to_vec()),
        (3, 255, vec![0xab; 600]),
        (4, 4, Vec::new()),
        (5, 5, (0..5000).map(|i| i as u8).collect()),
    ]
}

/// One group of three records, then a group each.
fn write(wal: &Wal) {
    for (lsn, kind, payload) in expected() {
        let (a, b) = payload.split_at(payload.len().min(2));
        assert_eq!(wal.append(kind, &[a, b]).unwrap(), Lsn(lsn));
        if lsn >= 3 {
            wal.wait_durable(Lsn(lsn)).unwrap();
        }
    }
}

#[test]
fn a_closed_log_of_version_1_reads() {
    let dir = copy_of("closed");
    let (wal, recovery, replayed) = open(dir.path());
    assert_eq!(replayed, expected());
    assert_eq!((recovery.corrupt.len(), recovery.torn_bytes), (0, 0));
    assert_eq!(wal.append(0, &[]).unwrap(), Lsn(6));
}

/// Before the header had a copy, the rest of its block was zero.
#[test]
fn a_closed_log_of_version_1_without_a_copy_of_the_header_reads() {
    let dir = copy_of("closed_without_header_copy");
    let path = dir.path().join("segment-0000000000000001.wal");
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes[80..4096].iter().all(|byte| *byte == 0));
    let (wal, recovery, replayed) = open(dir.path());
    assert_eq!(replayed, expected());
    assert_eq!((recovery.corrupt.len(), recovery.torn_bytes), (0, 0));
    assert_eq!(wal.append(0, &[]).unwrap(), Lsn(6));
}

#[test]
fn a_log_of_version_1_with_a_damaged_header_reads_by_the_copy_if_there_is_one() {
    let damaged = |name| {
        let dir = copy_of(name);
        let path = dir.path().join("segment-0000000000000001.wal");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[3] ^= 0x20;
        std::fs::write(&path, &bytes).unwrap();
        dir
    };
    let dir = damaged("closed");
    let (wal, recovery, replayed) = open(dir.path());
    assert_eq!(replayed, expected());
    let [corruption] = recovery.corrupt.try_into().unwrap();
    assert_eq!((corruption.offset_bytes, corruption.lost), (0, None));
    assert_eq!(wal.append(0, &[]).unwrap(), Lsn(6));

    let dir = damaged("closed_without_header_copy");
    let opened = Wal::open(
        Arc::new(FsStorage::new()),
        Arc::new(ManualClock::new()),
        dir.path(),
        Settings::default(),
        &mut |_| Ok(()),
    );
    assert!(matches!(opened, Err(Error::UnreadableHeader { .. })));
}

#[test]
fn a_log_of_version_1_whose_last_group_is_torn_reads_up_to_there() {
    let dir = copy_of("torn");
    let (wal, recovery, replayed) = open(dir.path());
    assert_eq!(replayed, expected()[..4]);
    assert_eq!(recovery.corrupt, []);
    assert_eq!(recovery.torn_bytes, 5021);
    assert_eq!(wal.append(0, &[]).unwrap(), Lsn(5));
}

#[test]
fn a_log_of_version_1_with_a_damaged_record_reads_around_it() {
    let dir = copy_of("damaged");
    let (wal, recovery, replayed) = open(dir.path());
    let mut rest = expected();
    rest.remove(1);
    assert_eq!(replayed, rest);
    let [corruption] = recovery.corrupt.try_into().unwrap();
    assert_eq!(corruption.segment, 1);
    assert!(corruption.path.ends_with("segment-0000000000000001.wal"));
    // Behind the segment's header, a marker, the group's header and the first frame of 21 + 3 bytes.
    assert_eq!(corruption.offset_bytes, 4096 + 4096 + 40 + 24);
    assert_eq!(corruption.lost, Some((Lsn(2), Lsn(2))));
    assert_eq!(wal.append(0, &[]).unwrap(), Lsn(6));
}

/// A writer of version 1 may not change what it writes without a new version, but for bytes that no
/// reader of version 1 looks at. Only the store's id and the checksums that depend on it differ from
/// log to log: 20 bytes of the segment's header and of its copy, 4 of each of its 5 groups and 4 of
/// each of its 5 records.
///
/// With `ROOTLINE_WRITE_GOLDEN=1` the files are written anew first, but for those of before the copy:
/// for a new version.
#[test]
fn what_is_written_now_is_the_golden_log_but_for_store_id_and_checksums() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _, _) = open(dir.path());
    write(&wal);
    wal.close().unwrap();
    let name = "segment-0000000000000001.wal";
    let closed = std::fs::read(dir.path().join(name)).unwrap();
    if std::env::var_os("ROOTLINE_WRITE_GOLDEN").is_some() {
        write_golden_files(name, &closed);
    }
    let golden = std::fs::read(golden("closed").join(name)).unwrap();
    assert_eq!(closed.len(), golden.len());
    let differing = closed.iter().zip(&golden).filter(|(a, b)| a != b).count();
    assert!(
        differing <= 2 * 20 + 4 * (5 + 5),
        "{differing} bytes differ"
    );
}

fn write_golden_files(name: &str, closed: &[u8]) {
    // Without the closing marker, and with half of the last group.
    let mut torn = closed[..closed.len() - 4096].to_vec();
    let half = torn.len() - 4096;
    torn[half..].fill(0);
    let mut damaged = closed.to_vec();
    damaged[4096 + 4096 + 40 + 24 + 21] ^= 0xff;
    for (case, bytes) in [("closed", closed), ("torn", &torn), ("damaged", &damaged)] {
        std::fs::create_dir_all(golden(case)).unwrap();
        std::fs::write(golden(case).join(name), bytes).unwrap();
    }
}
