//! Any bytes where a segment should be: opening never panics, never hands over a record that was not
//! written, and the log goes on behind the damage.
//!
//! The input either replaces a segment's content or is XORed over it, so that both the header and what
//! stands behind good checksums are reached.
#![no_main]

use std::{
    path::Path,
    sync::{Arc, LazyLock},
};

use libfuzzer_sys::fuzz_target;
use rootline_wal::{BoxError, Error, ManualClock, PowerCutStorage, Record, Settings, Storage, Wal};

const DIR: &str = "/disk/log";
const RECORDS: u64 = 12;

static WRITTEN: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let disk = PowerCutStorage::new();
    let wal = open(&disk, &mut |_| Ok(())).expect("a new log opens");
    for lsn in 1..=RECORDS {
        let lsn = wal
            .append(lsn as u8, &[&payload(lsn)])
            .expect("there is room");
        wal.wait_durable(lsn).expect("nothing fails");
    }
    wal.close().expect("nothing fails");
    let names = disk.list(Path::new(DIR)).expect("it is there");
    let content = |name: &String| {
        disk.content(&Path::new(DIR).join(name))
            .expect("it is there")
    };
    names
        .iter()
        .map(|name| (name.clone(), content(name)))
        .collect()
});

fn payload(lsn: u64) -> Vec<u8> {
    vec![lsn as u8; lsn as usize * 300]
}

fn open(
    disk: &PowerCutStorage,
    replay: &mut dyn FnMut(Record<'_>) -> Result<(), BoxError>,
) -> Result<Arc<Wal>, Error> {
    let settings = Settings {
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 16 << 10,
        ..Settings::default()
    };
    let clock = Arc::new(ManualClock::new());
    Ok(Wal::open(
        Arc::new(disk.clone()),
        clock,
        Path::new(DIR),
        settings,
        replay,
    )?
    .0)
}

fuzz_target!(|input: &[u8]| {
    let [which, replace, place @ ..] = input else {
        return;
    };
    let Some((place, bytes)) = place.split_first_chunk::<2>() else {
        return;
    };
    let disk = PowerCutStorage::new();
    disk.create_dir_all(Path::new(DIR)).expect("nothing fails");
    for (index, (name, content)) in WRITTEN.iter().enumerate() {
        let mut content = content.clone();
        if index == usize::from(*which) % WRITTEN.len() {
            if replace % 2 == 0 {
                content = bytes.to_vec();
            } else {
                let start = usize::from(u16::from_le_bytes(*place));
                for (at, byte) in bytes.iter().enumerate() {
                    if let Some(target) = content.get_mut(start + at) {
                        *target ^= byte;
                    }
                }
            }
        }
        let file = disk
            .create(&Path::new(DIR).join(name))
            .expect("nothing fails");
        file.write_at(0, &content).expect("nothing fails");
    }
    let mut last = 0;
    let opened = open(&disk, &mut |record| {
        assert!(record.lsn.0 > last && record.lsn.0 <= RECORDS);
        last = record.lsn.0;
        assert_eq!(record.payload, payload(last));
        Ok(())
    });
    if let Ok(wal) = opened {
        let lsn = wal.append(0, &[b"on"]).expect("there is room");
        wal.wait_durable(lsn).expect("nothing fails");
    }
});
