//! How long does a writer wait until its record is durable, alone and in company?
//!
//! Each iteration is one record of 4 KiB appended and synced; with several writers, time is per record
//! over all of them, so group commit shows as less time per record. The budget is the disk's: one write
//! and sync of a block, shared by those who wait.

use std::{hint::black_box, path::Path, sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rootline_wal::{Clock, FsStorage, Settings, SystemClock, Wal};

const RECORD_BYTES: usize = 4096;

fn open(dir: &Path) -> Arc<Wal> {
    let storage = Arc::new(FsStorage::new());
    let clock = Arc::new(SystemClock::new());
    let opened = Wal::open(storage, clock, dir, Settings::default(), &mut |_| Ok(()));
    opened.expect("the log opens").0
}

/// `records` records by `writers` threads; the time from the first to the last.
fn commit(wal: &Wal, writers: u64, records: u64) -> Duration {
    let clock = SystemClock::new();
    let payload = vec![0x5a; RECORD_BYTES];
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let mine = records / writers + u64::from(writer < records % writers);
            let payload = &payload;
            scope.spawn(move || {
                for _ in 0..mine {
                    let lsn = wal.append(1, &[black_box(payload)]).expect("there is room");
                    wal.wait_durable(lsn).expect("the disk works");
                }
            });
        }
    });
    clock.monotonic()
}

fn group_commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("group_commit");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Bytes(RECORD_BYTES as u64));
    for writers in [1, 8, 64] {
        // Below `target`: a temporary directory may be in memory, where a sync costs nothing.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let wal = open(dir.path());
        group.bench_function(BenchmarkId::new("writers", writers), |bencher| {
            bencher.iter_custom(|records| commit(&wal, writers, records));
        });
        let stats = wal.stats();
        println!(
            "writers/{writers}: {:.1} records a sync, {:.0} us a sync, {:.2} bytes written a byte",
            stats.records as f64 / stats.groups as f64,
            stats.sync_total.as_micros() as f64 / stats.groups as f64,
            stats.written_bytes as f64 / stats.record_bytes as f64,
        );
    }
    group.finish();
}

/// The log's own share: a checksum and a copy under its lock, with no sync in sight.
fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(2));
    for bytes in [128, 4096] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let wal = open(dir.path());
        let payload = vec![0x5a; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("bytes", bytes), |bencher| {
            bencher.iter_custom(|records| {
                let clock = SystemClock::new();
                let mut took = Duration::ZERO;
                let mut left = records;
                while left > 0 {
                    // A stretch that waits for no sync, then a sync that is not counted.
                    let stretch = left.min(1000);
                    let start = clock.monotonic();
                    for _ in 0..stretch {
                        black_box(
                            wal.append(1, &[black_box(&payload)])
                                .expect("there is room"),
                        );
                    }
                    took += clock.monotonic().saturating_sub(start);
                    wal.wait_durable(wal.last_lsn()).expect("the disk works");
                    left -= stretch;
                }
                took
            });
        });
    }
    group.finish();
}

criterion_group!(benches, group_commit, append);
criterion_main!(benches);
