//! The promise: damaged bytes cost the records they are in and no others, are reported with file, place
//! and what was lost, and stay as they are. No record is ever altered, and nothing panics.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test may fail by panicking, and its numbers are small"
)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use proptest::prelude::*;
use rootline_wal::{
    Error, ErrorKind, Lsn, ManualClock, PowerCutStorage, Recovery, Settings, Storage, Wal,
};

const DIR: &str = "/disk/log";
const RECORDS: u64 = 60;

/// Where a segment has the copy of its header.
const HEADER_COPY_AT: usize = 2048;

type Replayed = BTreeMap<u64, Vec<u8>>;

fn open(disk: &PowerCutStorage) -> Result<(Arc<Wal>, Recovery, Replayed), Error> {
    let mut replayed = Replayed::new();
    let settings = Settings {
        segment_bytes_min: 64 << 10,
        segment_bytes_max: 64 << 10,
        ..Settings::default()
    };
    let (wal, recovery) = Wal::open(
        Arc::new(disk.clone()),
        Arc::new(ManualClock::new()),
        Path::new(DIR),
        settings,
        &mut |record| {
            assert_eq!(replayed.insert(record.lsn.0, record.payload.to_vec()), None);
            Ok(())
        },
    )?;
    Ok((wal, recovery, replayed))
}

/// What record `lsn` holds.
fn payload(lsn: u64) -> &'static [u8] {
    static PAYLOADS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let payload = |lsn: usize| {
            (0..lsn * 709 % 7000)
                .map(|i| (lsn * 31 + i * 7 + (i >> 8)) as u8)
                .collect()
        };
        (0..=RECORDS as usize).map(payload).collect()
    });
    &PAYLOADS[lsn as usize]
}

/// A log of some segments, groups of one to four records, closed.
fn written() -> PowerCutStorage {
    let disk = PowerCutStorage::new();
    let (wal, _, _) = open(&disk).unwrap();
    for lsn in 1..=RECORDS {
        wal.append(1, &[payload(lsn)]).unwrap();
        if lsn % 7 < 3 {
            wal.wait_durable(Lsn(lsn)).unwrap();
        }
    }
    wal.close().unwrap();
    disk
}

/// The same disk with one file's content replaced.
fn copy_with(disk: &PowerCutStorage, changed: &Path, content: &[u8]) -> PowerCutStorage {
    let copy = PowerCutStorage::new();
    copy.create_dir_all(Path::new(DIR)).unwrap();
    for path in segments(disk) {
        let bytes = if path == changed {
            content.to_vec()
        } else {
            disk.content(&path).unwrap()
        };
        copy.create(&path).unwrap().write_at(0, &bytes).unwrap();
    }
    copy
}

fn segments(disk: &PowerCutStorage) -> Vec<PathBuf> {
    let mut names = disk.list(Path::new(DIR)).unwrap();
    names.sort();
    names.iter().map(|name| Path::new(DIR).join(name)).collect()
}

/// What was replayed is right, what was not is reported, and together they are everything up to the
/// end. Returns the LSNs that are reported lost.
fn check(recovery: &Recovery, replayed: &Replayed) -> Vec<u64> {
    for (lsn, bytes) in replayed {
        assert!(bytes == payload(*lsn), "record {lsn} is altered");
    }
    let ranges = recovery
        .corrupt
        .iter()
        .filter_map(|corruption| corruption.lost);
    let lost: Vec<u64> = ranges.flat_map(|(first, last)| first.0..=last.0).collect();
    let mut accounted: Vec<u64> = replayed.keys().chain(&lost).copied().collect();
    accounted.sort_unstable();
    assert_eq!(
        accounted,
        (1..=recovery.last_lsn.0).collect::<Vec<_>>(),
        "{recovery:?}"
    );
    lost
}

/// The log goes on behind the damage, and the next open tells the same story and the new records.
fn goes_on(disk: &PowerCutStorage, wal: &Wal, recovery: &Recovery, replayed: &Replayed) {
    let lsn = wal.append(1, &[b"new"]).unwrap();
    assert_eq!(lsn, recovery.last_lsn.next());
    wal.wait_durable(lsn).unwrap();
    wal.close().unwrap();
    let (_, again, mut replayed_again) = open(disk).unwrap();
    assert_eq!(
        replayed_again.remove(&lsn.0).as_deref(),
        Some(b"new".as_slice())
    );
    assert!(
        replayed_again == *replayed,
        "{:?} then {:?}",
        recovery.corrupt,
        again.corrupt
    );
    let lost = |recovery: &Recovery| {
        let lost = recovery
            .corrupt
            .iter()
            .filter_map(|corruption| corruption.lost);
        lost.map(|(first, last)| last.0 - first.0 + 1).sum::<u64>()
    };
    assert_eq!(lost(&again), lost(recovery));
}

#[test]
fn a_flipped_bit_costs_at_most_its_record_and_is_reported() {
    let disk = written();
    let all = segments(&disk);
    assert!(all.len() >= 3, "{all:?}");
    let mut cost_one = 0;
    for (index, path) in all.iter().enumerate() {
        let intact = disk.content(path).unwrap();
        let is_last = index + 1 == all.len();
        // The first blocks, where headers are, then every 293rd byte.
        for at in (0..4200)
            .chain((4200..intact.len()).step_by(293))
            .filter(|at| at % 2048 < 150 || at % 293 == 0)
        {
            let mut bytes = intact.clone();
            bytes[at] ^= 0x10;
            let copy = copy_with(&disk, path, &bytes);
            let (wal, recovery, replayed) = open(&copy).unwrap();
            let lost = check(&recovery, &replayed);
            assert!(lost.len() <= 1, "byte {at} of {path:?} cost {lost:?}");
            cost_one += lost.len();
            // The marker at the end may be hit itself: the last record is then taken for a tear.
            assert!(is_last || recovery.last_lsn.0 == RECORDS);
            for corruption in &recovery.corrupt {
                assert_eq!(&corruption.path, path);
                assert!(
                    corruption.offset_bytes <= at as u64,
                    "{corruption:?}, byte {at}"
                );
                assert!(
                    at as u64 <= corruption.offset_bytes + 7100,
                    "{corruption:?}, byte {at}"
                );
            }
            if !recovery.corrupt.is_empty() {
                assert!(
                    copy.content(path).unwrap() == bytes,
                    "damage is left as it is"
                );
            }
            if at % 17 == 0 {
                goes_on(&copy, &wal, &recovery, &replayed);
            }
        }
    }
    assert!(cost_one > 50);
}

#[test]
fn a_lost_segment_is_reported_as_exactly_its_records() {
    let disk = written();
    let all = segments(&disk);
    let removed = &all[1];
    disk.remove(removed).unwrap();
    let (wal, recovery, replayed) = open(&disk).unwrap();
    let lost = check(&recovery, &replayed);
    assert_eq!(recovery.last_lsn.0, RECORDS);
    assert!(lost.len() > 5);
    assert_eq!(
        lost,
        (lost[0]..lost[0] + lost.len() as u64).collect::<Vec<_>>()
    );
    goes_on(&disk, &wal, &recovery, &replayed);
}

#[test]
fn an_unreadable_header_costs_nothing_while_another_segment_knows_the_store() {
    let disk = written();
    let path = &segments(&disk)[1];
    let mut bytes = disk.content(path).unwrap();
    bytes[..4096].fill(0xff);
    let copy = copy_with(&disk, path, &bytes);
    let (_, recovery, replayed) = open(&copy).unwrap();
    assert_eq!(check(&recovery, &replayed), []);
    assert_eq!(replayed.len() as u64, RECORDS);
    assert_eq!(recovery.corrupt.len(), 1);
    assert_eq!(
        (&recovery.corrupt[0].path, recovery.corrupt[0].lost),
        (path, None)
    );
}

#[test]
fn a_lone_unreadable_header_is_refused_and_left() {
    let disk = PowerCutStorage::new();
    open(&disk).unwrap().0.close().unwrap();
    let [path] = segments(&disk).try_into().unwrap();
    disk.damage(&path, 20, 1).unwrap();
    disk.damage(&path, HEADER_COPY_AT + 60, 1).unwrap();
    let before = disk.content(&path).unwrap();
    let error = open(&disk).unwrap_err();
    assert!(matches!(&error, Error::UnreadableHeader { path: named, .. } if *named == path));
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    assert!(disk.content(&path).unwrap() == before);
}

/// A log of one segment with records up to `records`, closed, and the path of the segment.
fn one_segment(records: u64) -> (PowerCutStorage, PathBuf) {
    let disk = PowerCutStorage::new();
    let (wal, _, _) = open(&disk).unwrap();
    for lsn in 1..=records {
        wal.append(1, &[payload(lsn)]).unwrap();
        wal.wait_durable(Lsn(lsn)).unwrap();
    }
    wal.close().unwrap();
    let [path] = segments(&disk).try_into().unwrap();
    (disk, path)
}

#[test]
fn a_lone_damaged_header_is_read_from_its_copy_and_costs_nothing() {
    let records = 8;
    let (disk, path) = one_segment(records);
    let intact = disk.content(&path).unwrap();
    for (at, mask) in (0..80).flat_map(|at| [(at, 0x01), (at, 0x80), (at, 0xff)]) {
        let mut bytes = intact.clone();
        bytes[at] ^= mask;
        let copy = copy_with(&disk, &path, &bytes);
        let (wal, recovery, replayed) = open(&copy).unwrap();
        assert_eq!(check(&recovery, &replayed), []);
        assert_eq!(replayed.len() as u64, records, "byte {at}");
        assert!(!recovery.created);
        assert_eq!(recovery.torn_bytes, 0);
        let [corruption] = recovery.corrupt.as_slice() else {
            panic!("byte {at}: {:?}", recovery.corrupt);
        };
        assert_eq!((corruption.segment, &corruption.path), (1, &path));
        assert_eq!((corruption.offset_bytes, corruption.lost), (0, None));
        assert_eq!(
            corruption.reason,
            "segment header is damaged, its copy was read"
        );
        goes_on(&copy, &wal, &recovery, &replayed);
        assert!(
            copy.content(&path).unwrap() == bytes,
            "damage is left as it is"
        );
    }
}

#[test]
fn a_lost_sector_at_the_start_of_a_lone_segment_costs_nothing() {
    let (disk, path) = one_segment(8);
    for fill in [0, 0xff] {
        let mut bytes = disk.content(&path).unwrap();
        bytes[..HEADER_COPY_AT].fill(fill);
        let copy = copy_with(&disk, &path, &bytes);
        let (wal, recovery, replayed) = open(&copy).unwrap();
        assert_eq!(check(&recovery, &replayed), []);
        assert_eq!((replayed.len(), recovery.corrupt.len()), (8, 1));
        goes_on(&copy, &wal, &recovery, &replayed);
    }
}

#[test]
fn a_damaged_copy_beside_a_good_header_is_not_noticed() {
    let (disk, path) = one_segment(8);
    let mut bytes = disk.content(&path).unwrap();
    bytes[HEADER_COPY_AT..][..80].fill(0xff);
    let (_, recovery, replayed) = open(&copy_with(&disk, &path, &bytes)).unwrap();
    assert_eq!(check(&recovery, &replayed), []);
    assert_eq!((replayed.len(), recovery.corrupt.len()), (8, 0));
}

#[test]
fn a_header_that_says_it_is_not_ours_or_too_new_is_damage_beside_a_good_copy() {
    let (disk, path) = one_segment(8);
    let intact = disk.content(&path).unwrap();
    for at in [0, 8] {
        let changed = with_header(&disk, &path, |bytes| bytes[at] ^= 0x40);
        let mut bytes = changed.content(&path).unwrap();
        bytes[80..4096].copy_from_slice(&intact[80..4096]);
        let (_, recovery, replayed) = open(&copy_with(&disk, &path, &bytes)).unwrap();
        assert_eq!(check(&recovery, &replayed), []);
        assert_eq!((replayed.len(), recovery.corrupt.len()), (8, 1));
    }
}

#[test]
fn a_copy_of_another_segments_header_is_not_used() {
    let (disk, path) = one_segment(8);
    let mut bytes = disk.content(&path).unwrap();
    bytes[0] ^= 1;
    let renamed = Path::new(DIR).join("segment-0000000000000002.wal");
    let copy = PowerCutStorage::new();
    copy.create_dir_all(Path::new(DIR)).unwrap();
    let file = copy.create(&renamed).unwrap();
    file.write_at(0, &bytes).unwrap();
    let error = open(&copy).unwrap_err();
    assert!(matches!(&error, Error::UnreadableHeader { path, .. } if *path == renamed));
    assert!(copy.content(&renamed).unwrap() == bytes);
}

/// Rewrites a header, its checksum and its copy, as a newer release or another store would have it.
fn with_header(disk: &PowerCutStorage, path: &Path, change: impl Fn(&mut [u8])) -> PowerCutStorage {
    let mut bytes = disk.content(path).unwrap();
    change(&mut bytes);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..80]);
    bytes[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    bytes.copy_within(..80, HEADER_COPY_AT);
    copy_with(disk, path, &bytes)
}

#[test]
fn what_is_not_ours_or_too_new_is_refused_by_name_and_left() {
    let disk = written();
    let all = segments(&disk);
    let path = &all[1];
    let refused = |disk: &PowerCutStorage| {
        let before: Vec<_> = all.iter().map(|path| disk.content(path).unwrap()).collect();
        let error = open(disk).unwrap_err();
        let after: Vec<_> = all.iter().map(|path| disk.content(path).unwrap()).collect();
        assert!(before == after);
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
        error
    };
    let error = refused(&with_header(&disk, path, |bytes| bytes[8] = 9));
    assert!(matches!(
        error,
        Error::UnsupportedVersion {
            found: 9,
            newest: 1,
            ..
        }
    ));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = refused(&with_header(&disk, path, |bytes| {
        bytes[..4].copy_from_slice(b"ELSE");
    }));
    assert!(matches!(error, Error::NotASegment { .. }));
    let error = refused(&with_header(&disk, path, |bytes| bytes[16] ^= 1));
    assert!(matches!(error, Error::ForeignStore { .. }));
    let error = refused(&with_header(&disk, path, |bytes| bytes[32] ^= 1));
    assert!(matches!(error, Error::MisnamedSegment { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_truncated_segment_costs_its_end(which in any::<prop::sample::Index>(), part in 0.0..1.0) {
        let disk = written();
        let all = segments(&disk);
        let path = &all[which.index(all.len())];
        let bytes = disk.content(path).unwrap();
        let copy = copy_with(&disk, path, &bytes[..(bytes.len() as f64 * part) as usize]);
        let (wal, recovery, replayed) = open(&copy).unwrap();
        let lost = check(&recovery, &replayed);
        if path != all.last().unwrap() {
            prop_assert_eq!(recovery.last_lsn.0, RECORDS);
        }
        prop_assert!(lost.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        goes_on(&copy, &wal, &recovery, &replayed);
    }

    #[test]
    fn random_damage_is_accounted_for(
        hits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0.0..1.0, 1_usize..20_000, any::<u8>()), 1..6,
        ),
    ) {
        let mut disk = written();
        for (which, place, len, fill) in hits {
            let all = segments(&disk);
            let path = &all[which.index(all.len())];
            let mut bytes = disk.content(path).unwrap();
            let start = (bytes.len() as f64 * place) as usize;
            let end = (start + len).min(bytes.len());
            bytes[start..end].iter_mut().enumerate().for_each(|(i, b)| *b = fill ^ i as u8);
            disk = copy_with(&disk, path, &bytes);
        }
        match open(&disk) {
            Ok((wal, recovery, replayed)) => {
                check(&recovery, &replayed);
                goes_on(&disk, &wal, &recovery, &replayed);
            }
            // Every header may have been hit.
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::Corrupted);
            }
        }
    }
}
