//! The promise: whatever file operation fails, tears, or is the last before the power goes, and
//! whatever fails again while that is recovered from, every record whose `wait_durable` returned `Ok`
//! is replayed, in order and unaltered, and nothing that an open handed over is taken back later.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test may fail by panicking, and its numbers are small"
)]

use std::{path::Path, sync::Arc, time::Duration};

use rootline_wal::{
    Error, ErrorKind, Fault, FaultStorage, Lsn, ManualClock, Operation, PowerCutStorage, Recovery,
    Settings, Storage, Wal,
};

const DIR: &str = "/disk/log";

/// What a log has to hold: kept beside it by those who write to it.
#[derive(Clone, Debug, Default)]
struct Ledger {
    /// Record `lsn` is at `lsn - 1`: everything appended since the last open, and what that replayed.
    appended: Vec<Vec<u8>>,
    acknowledged: u64,
    cut_below: u64,
    seed: u64,
    clock: Arc<ManualClock>,
}

impl Ledger {
    fn payload(&mut self, len: usize) -> Vec<u8> {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let mut x = self.seed | 1;
        let mut payload = Vec::with_capacity(len + 8);
        while payload.len() < len {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            payload.extend_from_slice(&x.to_le_bytes());
        }
        payload.truncate(len);
        payload
    }

    fn append(&mut self, wal: &Wal, len: usize) -> Result<Lsn, Error> {
        let payload = self.payload(len);
        let (a, b) = payload.split_at(len / 3);
        let lsn = wal.append((len % 251) as u8, &[a, b])?;
        self.appended.push(payload);
        assert_eq!(lsn.0, self.appended.len() as u64);
        Ok(lsn)
    }

    fn wait(&mut self, wal: &Wal, lsn: Lsn) -> Result<(), Error> {
        wal.wait_durable(lsn)?;
        self.acknowledged = self.acknowledged.max(lsn.0);
        Ok(())
    }

    fn cut(&mut self, wal: &Wal, below: u64) -> Result<(), Error> {
        self.cut_below = self.cut_below.max(below);
        wal.cut(Lsn(below))
    }

    /// Opens, and checks what is handed over against what is known.
    fn open(&mut self, storage: &dyn Fn() -> Arc<dyn Storage>) -> Result<Arc<Wal>, Error> {
        let (wal, recovery, replayed) = open(storage(), &self.clock)?;
        assert_eq!(recovery.corrupt, [], "nothing was damaged");
        let last = recovery.last_lsn.0;
        assert!(
            last >= self.acknowledged,
            "{last} of {} replayed",
            self.acknowledged
        );
        assert!(last <= self.appended.len() as u64);
        let first = last + 1 - replayed.len() as u64;
        assert!(
            first <= self.cut_below.max(1),
            "first is {first}, cut was {}",
            self.cut_below
        );
        for (at, (lsn, kind, payload)) in replayed.iter().enumerate() {
            assert_eq!(*lsn, first + at as u64);
            let expected = &self.appended[*lsn as usize - 1];
            assert!(payload == expected, "record {lsn} is altered");
            assert_eq!(*kind, (expected.len() % 251) as u8);
        }
        // Served is served, and what was not is gone: its numbers are given out again.
        self.acknowledged = last;
        self.appended.truncate(last as usize);
        Ok(wal)
    }
}

type Replayed = Vec<(u64, u8, Vec<u8>)>;

fn open(
    storage: Arc<dyn Storage>,
    clock: &Arc<ManualClock>,
) -> Result<(Arc<Wal>, Recovery, Replayed), Error> {
    let mut replayed = Vec::new();
    let settings = Settings {
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 32 << 10,
        spare_segments_max: 1,
        ..Settings::default()
    };
    let clock = Arc::clone(clock);
    let (wal, recovery) = Wal::open(storage, clock, Path::new(DIR), settings, &mut |record| {
        replayed.push((record.lsn.0, record.kind, record.payload.to_vec()));
        Ok(())
    })?;
    Ok((wal, recovery, replayed))
}

/// Groups of one and of several, segments that fill, a record larger than one, cuts with reuse, a
/// crash, an empty log, clean closes. Stops at the first error.
fn live_a_little(ledger: &mut Ledger, storage: &dyn Fn() -> Arc<dyn Storage>) -> Result<(), Error> {
    let wal = ledger.open(storage)?;
    for round in 0..8 {
        let lsn = ledger.append(&wal, round * 700)?;
        ledger.wait(&wal, lsn)?;
        for len in [0, 5000, 300] {
            ledger.append(&wal, len)?;
        }
        ledger.wait(&wal, wal.last_lsn())?;
        if round == 5 {
            ledger.cut(&wal, 16)?;
        }
    }
    ledger.append(&wal, 40_000)?;
    ledger.append(&wal, 10)?;
    ledger.wait(&wal, wal.last_lsn())?;
    // Not acknowledged, and lost with the process.
    ledger.append(&wal, 100)?;
    drop(wal);

    let wal = ledger.open(storage)?;
    for _ in 0..5 {
        let lsn = ledger.append(&wal, 3000)?;
        ledger.wait(&wal, lsn)?;
    }
    ledger.cut(&wal, wal.last_lsn().0 + 1)?;
    let lsn = ledger.append(&wal, 20)?;
    wal.close()?;
    ledger.acknowledged = lsn.0;
    drop(wal);

    let wal = ledger.open(storage)?;
    let lsn = ledger.append(&wal, 40)?;
    ledger.wait(&wal, lsn)?;
    Ok(())
}

/// Runs it again and again, failing operation 0, 1, 2, ... until there is none with that number.
fn each_operation(
    kinds: &[Operation],
    fault: Fault,
    after: impl Fn(&mut Ledger, &PowerCutStorage, u64),
) -> u64 {
    for nth in 0.. {
        let disk = PowerCutStorage::new();
        let storage = FaultStorage::new(Arc::new(disk.clone()));
        storage.arm(kinds, nth, fault);
        let mut ledger = Ledger::default();
        let outcome = live_a_little(&mut ledger, &|| {
            Arc::new(storage.clone()) as Arc<dyn Storage>
        });
        let fired = storage.fired();
        assert!(fired || outcome.is_ok(), "{outcome:?}");
        after(&mut ledger, &disk, nth);
        if !fired {
            return nth;
        }
    }
    unreachable!("the run is finite");
}

fn on(disk: &PowerCutStorage) -> impl Fn() -> Arc<dyn Storage> {
    let disk = disk.restarted();
    move || Arc::new(disk.clone()) as Arc<dyn Storage>
}

/// Opens, writes, and finds that again, too.
fn goes_on(ledger: &mut Ledger, disk: &PowerCutStorage) {
    for close in [true, false] {
        let wal = ledger.open(&on(disk)).unwrap();
        for len in [10, 6000, 0] {
            let lsn = ledger.append(&wal, len).unwrap();
            ledger.wait(&wal, lsn).unwrap();
        }
        if close {
            wal.close().unwrap();
        }
    }
    ledger.open(&on(disk)).unwrap();
}

#[test]
fn every_operation_may_fail() {
    let tried = each_operation(&Operation::ALL, Fault::Fail, |ledger, disk, _| {
        goes_on(ledger, disk);
    });
    assert!(tried > 150, "{tried}");
}

#[test]
fn every_operation_may_tear() {
    each_operation(&Operation::ALL, Fault::Tear, |ledger, disk, _| {
        goes_on(ledger, disk);
    });
}

#[test]
fn every_operation_may_find_the_disk_full() {
    each_operation(&Operation::CHANGING, Fault::Full, |ledger, disk, _| {
        goes_on(ledger, disk);
    });
}

#[test]
fn the_process_may_die_at_every_operation() {
    each_operation(&Operation::ALL, Fault::Crash, |ledger, disk, _| {
        goes_on(ledger, disk);
    });
}

#[test]
fn the_power_may_go_at_every_operation() {
    for seed in [None, Some(1), Some(2), Some(3), Some(4)] {
        each_operation(&Operation::CHANGING, Fault::Crash, |ledger, disk, nth| {
            disk.cut(seed.map(|seed: u64| seed.wrapping_mul(1 << 32) + nth));
            goes_on(ledger, disk);
        });
    }
}

#[test]
fn after_a_failed_sync_the_power_may_go_and_only_the_unacknowledged_is_lost() {
    for seed in 0..4 {
        each_operation(
            &[Operation::Sync, Operation::SyncDir, Operation::Write],
            Fault::Fail,
            |ledger, disk, nth| {
                disk.cut(Some(seed << 32 | nth));
                goes_on(ledger, disk);
            },
        );
    }
}

/// The second cut: at every operation of the recovery from the first, then at every operation of the
/// recovery from that.
#[test]
fn the_power_may_go_again_at_every_operation_of_recovery() {
    for seed in [None, Some(7), Some(8)] {
        each_operation(&Operation::CHANGING, Fault::Crash, |ledger, disk, nth| {
            // All combinations are many; each run takes every second, and the runs differ.
            let mut at = nth % 2;
            let mut again = 0;
            disk.cut(seed.map(|seed: u64| seed << 32 | nth));
            loop {
                let storage = FaultStorage::new(Arc::new(disk.restarted()));
                storage.arm(&Operation::CHANGING, at, Fault::Crash);
                let opened = ledger
                    .clone()
                    .open(&|| Arc::new(storage.clone()) as Arc<dyn Storage>);
                if !storage.fired() {
                    assert!(opened.is_ok(), "{opened:?}");
                    break;
                }
                drop(opened);
                disk.cut(seed.map(|seed| seed << 40 | nth << 8 | again));
                at += 2;
                again += 1;
            }
            goes_on(ledger, disk);
        });
    }
}

#[test]
fn what_an_open_served_no_power_cut_takes_back() {
    each_operation(&Operation::CHANGING, Fault::Crash, |ledger, disk, nth| {
        // The process died, its pages are in the cache: this open sees them all.
        drop(ledger.open(&on(disk)).unwrap());
        // `open` raised what counts as acknowledged to what it served.
        disk.cut(if nth % 2 == 0 { None } else { Some(nth) });
        goes_on(ledger, disk);
    });
}

#[test]
fn numbers_go_on_although_all_that_was_durable_is_cut() {
    let disk = PowerCutStorage::new();
    let mut ledger = Ledger::default();
    let wal = ledger.open(&on(&disk)).unwrap();
    for _ in 0..40 {
        let durable = ledger.append(&wal, 3000).unwrap();
        ledger.wait(&wal, durable).unwrap();
        // This one may be the first of its segment, and is lost.
        ledger.append(&wal, 3000).unwrap();
        ledger.cut(&wal, durable.0 + 1).unwrap();
        let copy = disk.copied();
        copy.cut(None);
        ledger.clone().open(&on(&copy)).unwrap();
    }
}

#[test]
fn a_full_disk_refuses_until_there_is_room_and_loses_nothing() {
    let disk = PowerCutStorage::new();
    let storage = FaultStorage::new(Arc::new(disk.clone()));
    let mut ledger = Ledger::default();
    let on_storage = || Arc::new(storage.clone()) as Arc<dyn Storage>;
    let wal = ledger.open(&on_storage).unwrap();
    for _ in 0..3 {
        storage.set_full(true);
        let refused = loop {
            match ledger.append(&wal, 2500) {
                Ok(lsn) => ledger.wait(&wal, lsn).unwrap(),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, Error::DiskFull { .. }));
        assert_eq!(refused.kind(), ErrorKind::Retry);
        let last = wal.last_lsn();
        assert_eq!(wal.durable_lsn(), last);
        assert!(ledger.append(&wal, 2500).is_err());
        assert_eq!(wal.last_lsn(), last, "a refused record has no number");
        // Emptying works while it is full, and gives room.
        ledger.cut(&wal, last.0 - 1).unwrap();
        storage.set_full(false);
        let lsn = ledger.append(&wal, 2500).unwrap();
        ledger.wait(&wal, lsn).unwrap();
    }
    assert!(wal.stats().disk_full >= 3);
    drop(wal);
    goes_on(&mut ledger, &disk);
}

#[test]
fn a_full_disk_can_be_opened_and_read_and_emptied() {
    for close in [true, false] {
        let disk = PowerCutStorage::new();
        let storage = FaultStorage::new(Arc::new(disk.clone()));
        let on_storage = || Arc::new(storage.clone()) as Arc<dyn Storage>;
        let mut ledger = Ledger::default();
        let wal = ledger.open(&on_storage).unwrap();
        for _ in 0..30 {
            let lsn = ledger.append(&wal, 3000).unwrap();
            ledger.wait(&wal, lsn).unwrap();
        }
        if close {
            wal.close().unwrap();
        } else {
            // Idle long enough for the marker, then killed.
            while wal.stats().markers == 0 {
                ledger.clock.advance(Duration::from_millis(100));
                std::thread::yield_now();
            }
        }
        drop(wal);
        disk.set_capacity_bytes(Some(0));
        let wal = ledger.open(&on_storage).unwrap();
        let refused = ledger.append(&wal, 10).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Retry);
        ledger.cut(&wal, 20).unwrap();
        disk.set_capacity_bytes(None);
        let lsn = ledger.append(&wal, 10).unwrap();
        ledger.wait(&wal, lsn).unwrap();
        drop(wal);
        goes_on(&mut ledger, &disk);
    }
}

#[test]
fn a_failed_sync_is_not_tried_again_and_what_was_durable_stays_known() {
    let disk = PowerCutStorage::new();
    let storage = FaultStorage::new(Arc::new(disk));
    let mut ledger = Ledger::default();
    let wal = ledger
        .open(&|| Arc::new(storage.clone()) as Arc<dyn Storage>)
        .unwrap();
    let first = ledger.append(&wal, 10).unwrap();
    ledger.wait(&wal, first).unwrap();
    storage.arm(&[Operation::Sync], 0, Fault::Fail);
    let second = ledger.append(&wal, 10).unwrap();
    let failed = wal.wait_durable(second).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Closed);
    assert!(failed.to_string().contains("sync"), "{failed}");
    storage.watch(&[Operation::Sync, Operation::Write]);
    assert_eq!(
        wal.wait_durable(second).unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(wal.append(0, &[]).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(wal.cut(Lsn(1)).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(wal.close().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(storage.count(), 0, "nothing is written or synced any more");
    wal.wait_durable(first).unwrap();
    assert_eq!(wal.durable_lsn(), first);
    assert!(wal.stats().poisoned);
}
