//! The log on a real file system: what was acknowledged is replayed, in order, whole.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test may fail by panicking, and its numbers are small"
)]

use std::{path::Path, sync::Arc, time::Duration};

use rootline_wal::{
    Durability, Error, ErrorKind, FsStorage, Lsn, ManualClock, RECORD_BYTES_MAX, Recovery,
    Settings, SystemClock, Wal,
};

type Replayed = Vec<(u64, u8, Vec<u8>)>;

fn open_with(dir: &Path, settings: Settings) -> (Arc<Wal>, Recovery, Replayed) {
    let mut replayed = Vec::new();
    let (wal, recovery) = Wal::open(
        Arc::new(FsStorage::new()),
        Arc::new(SystemClock::new()),
        dir,
        settings,
        &mut |record| {
            replayed.push((record.lsn.0, record.kind, record.payload.to_vec()));
            Ok(())
        },
    )
    .unwrap();
    (wal, recovery, replayed)
}

fn open(dir: &Path) -> (Arc<Wal>, Recovery, Replayed) {
    open_with(dir, Settings::default())
}

fn files(dir: &Path) -> Vec<(String, u64)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|e| {
            (
                e.file_name().into_string().unwrap(),
                e.metadata().unwrap().len(),
            )
        })
        .filter(|(name, _)| name != "LOCK")
        .collect();
    files.sort();
    files
}

/// Bytes that differ from record to record and compress to nothing.
fn payload(lsn: u64, len: usize) -> Vec<u8> {
    let mut x = lsn.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    })
    .take(len)
    .collect()
}

#[test]
fn records_come_back_after_a_clean_close_and_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 0..6_u64 {
        let (wal, recovery, replayed) = open(dir.path());
        assert_eq!(replayed, expected, "round {round}");
        assert_eq!(recovery.corrupt, []);
        assert_eq!(recovery.created, round == 0);
        assert_eq!(recovery.last_lsn, Lsn(expected.len() as u64));
        for i in 0..50_usize {
            let kind = i as u8;
            let body = payload(i as u64, i * 37);
            let (a, b) = body.split_at(i * 10);
            let lsn = wal.append(kind, &[a, b]).unwrap();
            assert_eq!(lsn.0, expected.len() as u64 + 1);
            if i % 7 == 0 {
                wal.wait_durable(lsn).unwrap();
                assert!(wal.durable_lsn() >= lsn);
            }
            expected.push((lsn.0, kind, body));
        }
        wal.wait_durable(wal.last_lsn()).unwrap();
        if round % 2 == 0 {
            wal.close().unwrap();
            assert!(matches!(wal.append(0, &[]), Err(Error::Closed { .. })));
            wal.close().unwrap();
        }
    }
    assert!(files(dir.path()).len() <= 2, "{:?}", files(dir.path()));
}

#[test]
fn a_second_instance_is_refused_and_told_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _, _) = open(dir.path());
    let second = Wal::open(
        Arc::new(FsStorage::new()),
        Arc::new(SystemClock::new()),
        dir.path(),
        Settings::default(),
        &mut |_| Ok(()),
    );
    let error = second.unwrap_err();
    assert!(matches!(&error, Error::Locked { dir: locked } if locked == dir.path()));
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(error.to_string().contains(dir.path().to_str().unwrap()));
    wal.close().unwrap();
    open(dir.path());
}

#[test]
fn segments_rotate_and_a_record_larger_than_one_gets_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        segment_bytes_min: 64 << 10,
        segment_bytes_max: 256 << 10,
        ..Settings::default()
    };
    let mut expected = Vec::new();
    {
        let (wal, _, _) = open_with(dir.path(), settings.clone());
        for i in 0..60_u64 {
            let len = if i == 30 {
                3 << 20
            } else {
                (i as usize * 997) % 40_000
            };
            let body = payload(i, len);
            let lsn = wal.append(1, &[&body]).unwrap();
            if i % 3 == 0 {
                wal.wait_durable(lsn).unwrap();
            }
            expected.push((lsn.0, 1, body));
        }
        wal.wait_durable(wal.last_lsn()).unwrap();
        assert!(wal.stats().segments > 5);
    }
    let (_, recovery, replayed) = open_with(dir.path(), settings);
    assert!(replayed == expected);
    assert_eq!(recovery.corrupt, []);
}

#[test]
fn a_record_beyond_the_limit_is_refused_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _, _) = open(dir.path());
    let part = vec![0_u8; 64 << 20];
    let parts = vec![part.as_slice(); 17];
    let error = wal.append(0, &parts).unwrap_err();
    assert!(matches!(
        error,
        Error::RecordTooLarge {
            max_bytes: RECORD_BYTES_MAX,
            ..
        }
    ));
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert_eq!(wal.last_lsn(), Lsn::ZERO);
}

#[test]
fn threads_commit_in_groups_and_all_of_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        segment_bytes_min: 64 << 10,
        ..Settings::default()
    };
    let acknowledged = {
        let (wal, _, _) = open_with(dir.path(), settings.clone());
        let acknowledged = std::thread::scope(|s| {
            let writers: Vec<_> = (0..16_u64)
                .map(|writer| {
                    let wal = &wal;
                    s.spawn(move || {
                        let mut mine = Vec::new();
                        for i in 0..40_u64 {
                            let body = payload(writer * 1000 + i, (i as usize * 53) % 3000);
                            let lsn = wal.append(writer as u8, &[&body]).unwrap();
                            wal.wait_durable(lsn).unwrap();
                            mine.push((lsn.0, writer as u8, body));
                        }
                        mine
                    })
                })
                .collect();
            let mut all: Replayed = writers
                .into_iter()
                .flat_map(|writer| writer.join().unwrap())
                .collect();
            all.sort();
            all
        });
        let stats = wal.stats();
        assert_eq!(stats.records, 640);
        assert!(stats.groups < 640, "{stats:?}");
        acknowledged
    };
    let (_, _, replayed) = open_with(dir.path(), settings);
    assert!(replayed == acknowledged);
}

#[test]
fn when_all_is_cut_one_small_segment_is_left_and_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        segment_bytes_min: 256 << 10,
        ..Settings::default()
    };
    let (wal, _, _) = open_with(dir.path(), settings.clone());
    for i in 0..100 {
        wal.append(0, &[&payload(i, 20_000)]).unwrap();
    }
    wal.wait_durable(wal.last_lsn()).unwrap();
    wal.cut(Lsn(50)).unwrap();
    let kept = wal.stats();
    wal.cut(Lsn(101)).unwrap();
    assert!(kept.disk_bytes > wal.stats().disk_bytes);
    assert_eq!(wal.stats().segments, 1);
    assert!(wal.stats().disk_bytes <= 64 << 10);
    assert_eq!(files(dir.path()).len(), 1, "{:?}", files(dir.path()));
    wal.close().unwrap();
    let found = files(dir.path());
    assert!(found.len() == 1 && found[0].1 <= 64 << 10, "{found:?}");
    let (wal, recovery, replayed) = open_with(dir.path(), settings);
    assert_eq!(replayed, []);
    assert_eq!(recovery.corrupt, []);
    assert_eq!(wal.append(0, &[]).unwrap(), Lsn(101));
}

#[test]
fn cut_segments_are_used_again_and_their_old_records_never_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        segment_bytes_min: 64 << 10,
        segment_bytes_max: 64 << 10,
        ..Settings::default()
    };
    let mut kept = Vec::new();
    {
        let (wal, _, _) = open_with(dir.path(), settings.clone());
        for i in 0..400_u64 {
            let body = payload(i, 3000);
            let lsn = wal.append(3, &[&body]).unwrap();
            wal.wait_durable(lsn).unwrap();
            kept.push((lsn.0, 3, body));
            if i % 40 == 39 {
                wal.cut(Lsn(lsn.0 - 10)).unwrap();
            }
        }
        assert!(wal.stats().segments_recycled > 5, "{:?}", wal.stats());
    }
    let (_, recovery, replayed) = open_with(dir.path(), settings);
    assert_eq!(recovery.corrupt, []);
    assert!(replayed.len() >= 10);
    assert!(replayed == kept[kept.len() - replayed.len()..]);
}

#[test]
fn in_interval_mode_the_background_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new());
    let settings = Settings {
        durability: Durability::Interval(Duration::from_secs(5)),
        ..Settings::default()
    };
    let (wal, _) = Wal::open(
        Arc::new(FsStorage::new()),
        Arc::clone(&clock) as _,
        dir.path(),
        settings,
        &mut |_| Ok(()),
    )
    .unwrap();
    let lsn = wal.append(0, &[b"x"]).unwrap();
    wal.wait_durable(lsn).unwrap();
    assert_eq!((wal.durable_lsn(), wal.last_lsn()), (Lsn::ZERO, lsn));
    clock.advance(Duration::from_secs(5));
    while wal.durable_lsn() < lsn {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_idle_log_writes_one_marker_and_then_rests() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new());
    let (wal, _) = Wal::open(
        Arc::new(FsStorage::new()),
        Arc::clone(&clock) as _,
        dir.path(),
        Settings::default(),
        &mut |_| Ok(()),
    )
    .unwrap();
    for round in 1..4 {
        let lsn = wal.append(0, &[b"x"]).unwrap();
        wal.wait_durable(lsn).unwrap();
        while wal.stats().markers < round {
            clock.advance(Duration::from_millis(100));
            std::thread::sleep(Duration::from_millis(1));
        }
        let after = wal.stats();
        clock.advance(Duration::from_hours(1));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(wal.stats(), after);
    }
}

#[test]
fn an_error_of_the_application_ends_replay() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _, _) = open(dir.path());
    for _ in 0..3 {
        wal.append(0, &[b"x"]).unwrap();
    }
    wal.close().unwrap();
    let opened = Wal::open(
        Arc::new(FsStorage::new()),
        Arc::new(SystemClock::new()),
        dir.path(),
        Settings::default(),
        &mut |record| {
            if record.lsn == Lsn(2) {
                Err("no".into())
            } else {
                Ok(())
            }
        },
    );
    let error = opened.unwrap_err();
    assert!(matches!(&error, Error::Replay { lsn: Lsn(2), .. }));
    assert_eq!(error.to_string(), "replay stopped at record 2: no");
    assert_eq!(open(dir.path()).2.len(), 3);
}

#[test]
fn reading_a_log_shows_what_opening_would_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let storage: Arc<dyn rootline_wal::Storage> = Arc::new(FsStorage::new());
    let read = || {
        let mut records = Vec::new();
        let (store, recovery) = Wal::read(&storage, dir.path(), &mut |record| {
            records.push((record.lsn.0, record.kind, record.payload.to_vec()));
            Ok(())
        })
        .unwrap();
        (store, recovery, records)
    };
    let (store, recovery, records) = read();
    assert_eq!((store, recovery.created, records.len()), (None, true, 0));
    let (wal, ..) = open(dir.path());
    for i in 0..20 {
        wal.append(1, &[&payload(i, 100)]).unwrap();
    }
    wal.wait_durable(wal.last_lsn()).unwrap();
    let before = files(dir.path());
    // Beside the running log: what is synced is there.
    let (store, recovery, records) = read();
    assert_eq!(store, Some(wal.store_id()));
    assert_eq!((recovery.corrupt.len(), records.len()), (0, 20));
    assert_eq!(files(dir.path()), before);
    wal.close().unwrap();
    drop(wal);
    let (_, recovery, records) = read();
    let (_, opened, replayed) = open(dir.path());
    assert_eq!(records, replayed);
    assert_eq!(recovery.last_lsn, opened.last_lsn);
}

#[test]
fn a_log_that_syncs_now_and_then_syncs_at_once_when_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        durability: Durability::Interval(Duration::from_hours(1)),
        ..Settings::default()
    };
    let (wal, ..) = open_with(dir.path(), settings);
    let lsn = wal.append(1, &[b"record"]).unwrap();
    wal.wait_durable(lsn).unwrap();
    assert!(wal.durable_lsn() < lsn);
    wal.sync_to(lsn).unwrap();
    assert_eq!(wal.durable_lsn(), lsn);
}
