//! One suite for every `Storage`: what the log relies on holds for each of them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test may fail by panicking, and its numbers are small"
)]

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use rootline_wal::{Fault, FaultStorage, FsStorage, Operation, PowerCutStorage, Storage};

fn for_each(test: impl Fn(&dyn Storage, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    test(&FsStorage::new(), &dir.path().join("fs"));
    test(&PowerCutStorage::new(), Path::new("/disk"));
    test(
        &FaultStorage::new(Arc::new(FsStorage::new())),
        &dir.path().join("fault"),
    );
    test(
        &FaultStorage::new(Arc::new(PowerCutStorage::new())),
        Path::new("relative"),
    );
}

fn names(storage: &dyn Storage, dir: &Path) -> Vec<String> {
    let mut names = storage.list(dir).unwrap();
    names.sort();
    names
}

fn read(storage: &dyn Storage, path: &Path) -> Vec<u8> {
    let mut bytes = vec![0xee; 64];
    let read = storage.open(path).unwrap().read_at(0, &mut bytes).unwrap();
    bytes.truncate(read);
    bytes
}

#[test]
fn directories_are_made_with_their_parents_and_again() {
    for_each(|storage, root| {
        let dir = root.join("a").join("b");
        storage.create_dir_all(&dir).unwrap();
        storage.create_dir_all(&dir).unwrap();
        assert!(storage.exists(&dir).unwrap());
        assert_eq!(names(storage, &dir), Vec::<String>::new());
        storage.sync_dir(&dir).unwrap();
        assert_eq!(
            storage.list(&root.join("none")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        let lost = storage.create(&root.join("none").join("f")).unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn what_is_written_is_read_through_any_handle() {
    for_each(|storage, dir| {
        storage.create_dir_all(dir).unwrap();
        let path = dir.join("f");
        let file = storage.create(&path).unwrap();
        assert!(file.is_empty().unwrap());
        let other = storage.open(&path).unwrap();
        file.write_at(2, b"cd").unwrap();
        other.write_at(4, b"ef").unwrap();
        let mut bytes = [9; 8];
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), 6);
        assert_eq!(&bytes[..6], b"\0\0cdef");
        assert_eq!(file.read_at(4, &mut bytes[..1]).unwrap(), 1);
        assert_eq!(bytes[0], b'e');
        assert_eq!(file.read_at(6, &mut bytes).unwrap(), 0);
        assert_eq!(file.read_at(1000, &mut bytes).unwrap(), 0);
        assert_eq!((other.len().unwrap(), storage.len(&path).unwrap()), (6, 6));
        file.sync().unwrap();
    });
}

#[test]
fn names_are_taken_moved_linked_and_removed() {
    for_each(|storage, dir| {
        storage.create_dir_all(dir).unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| dir.join(name));
        let file = storage.create(&a).unwrap();
        file.write_at(0, b"one").unwrap();
        assert_eq!(
            storage.create(&a).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        assert_eq!(storage.open(&b).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(storage.len(&b).unwrap_err().kind(), ErrorKind::NotFound);
        storage.create(&b).unwrap().write_at(0, b"two").unwrap();
        storage.rename(&a, &b).unwrap();
        assert_eq!(read(storage, &b), b"one");
        assert!(!storage.exists(&a).unwrap());
        assert_eq!(
            storage.rename(&a, &b).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        storage.link(&b, &c).unwrap();
        assert_eq!(
            storage.link(&b, &c).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        assert_eq!(names(storage, dir), ["b", "c"]);
        storage.remove(&b).unwrap();
        assert_eq!(storage.remove(&b).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(read(storage, &c), b"one");
        storage.remove(&c).unwrap();
        // A removed file lives on in its handles.
        file.write_at(3, b"!").unwrap();
        assert_eq!(file.len().unwrap(), 4);
        assert_eq!(names(storage, dir), Vec::<String>::new());
    });
}

#[test]
fn allocated_space_reads_as_zeros_and_never_shrinks_a_file() {
    for_each(|storage, dir| {
        storage.create_dir_all(dir).unwrap();
        let path = dir.join("f");
        let file = storage.create(&path).unwrap();
        file.preallocate(0).unwrap();
        file.write_at(0, b"head").unwrap();
        file.preallocate(10).unwrap();
        file.preallocate(3).unwrap();
        assert_eq!(read(storage, &path), b"head\0\0\0\0\0\0");
        file.set_len(2).unwrap();
        file.set_len(4).unwrap();
        assert_eq!(read(storage, &path), b"he\0\0");
    });
}

#[test]
fn a_lock_is_held_by_one_until_dropped() {
    for_each(|storage, dir| {
        storage.create_dir_all(dir).unwrap();
        let path = dir.join("LOCK");
        let held = storage.lock(&path).unwrap();
        assert_eq!(
            storage.lock(&path).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        let _other = storage.lock(&dir.join("OTHER")).unwrap();
        drop(held);
        storage.lock(&path).unwrap();
        assert!(storage.free_bytes(dir).unwrap() > 0);
    });
}

fn disk() -> (PowerCutStorage, PathBuf, PathBuf) {
    let disk = PowerCutStorage::new();
    let dir = PathBuf::from("/disk");
    disk.create_dir_all(&dir).unwrap();
    let path = dir.join("f");
    (disk, dir, path)
}

#[test]
fn a_power_cut_takes_what_was_not_synced() {
    let (disk, dir, path) = disk();
    let file = disk.create(&path).unwrap();
    file.write_at(0, b"synced").unwrap();
    file.sync().unwrap();
    disk.cut(None);
    assert!(file.len().is_err(), "handles of before the cut are dead");
    let disk = disk.restarted();
    assert!(
        !disk.exists(&path).unwrap(),
        "a name is durable once its directory was synced"
    );

    let file = disk.create(&path).unwrap();
    file.write_at(0, b"synced").unwrap();
    file.sync().unwrap();
    disk.sync_dir(&dir).unwrap();
    file.write_at(0, b"lost").unwrap();
    file.write_at(9000, b"lost").unwrap();
    disk.rename(&path, &dir.join("g")).unwrap();
    disk.cut(None);
    let disk = disk.restarted();
    assert_eq!(names(&disk, &dir), ["f"]);
    assert_eq!(read(&disk, &path), b"synced");
}

#[test]
fn with_a_seed_each_sector_and_name_has_its_own_fate() {
    let mut fates = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let (disk, dir, path) = disk();
        let file = disk.create(&path).unwrap();
        file.preallocate(8192).unwrap();
        file.sync().unwrap();
        disk.sync_dir(&dir).unwrap();
        file.write_at(0, &[1; 8192]).unwrap();
        disk.create(&dir.join("g")).unwrap();
        disk.cut(Some(seed));
        let disk = disk.restarted();
        let bytes = disk.content(&path).unwrap();
        assert!(
            bytes[..4096].iter().all(|b| *b == bytes[0]),
            "a sector is torn nowhere"
        );
        fates.insert((bytes[0], bytes[4096], disk.exists(&dir.join("g")).unwrap()));
    }
    assert_eq!(fates.len(), 8);
}

#[test]
fn a_disk_of_limited_size_fills_and_what_is_allocated_can_be_written() {
    let (disk, dir, path) = disk();
    disk.set_capacity_bytes(Some(100));
    let file = disk.create(&path).unwrap();
    file.preallocate(60).unwrap();
    assert_eq!(
        file.preallocate(101).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    file.write_at(10, &[1; 50]).unwrap();
    assert_eq!(disk.free_bytes(&dir).unwrap(), 40);
    disk.remove(&path).unwrap();
    assert_eq!(disk.free_bytes(&dir).unwrap(), 100);
}

#[test]
fn the_armed_operation_fails_once_in_the_way_asked_for() {
    let (disk, _, path) = disk();
    let storage = FaultStorage::new(Arc::new(disk));
    let file = storage.create(&path).unwrap();
    storage.arm(&[Operation::Write], 1, Fault::Tear);
    file.write_at(0, b"first.").unwrap();
    file.write_at(0, b"second").unwrap_err();
    assert!(storage.fired());
    assert_eq!(read(&storage, &path), b"secst.");
    storage.arm(&[Operation::Sync], 0, Fault::Fail);
    file.write_at(0, b"third.").unwrap();
    file.sync().unwrap_err();
    file.sync().unwrap();
    storage.arm(&Operation::CHANGING, 0, Fault::Crash);
    file.write_at(0, b"fourth").unwrap_err();
    storage.open(&path).unwrap_err();
    storage.disarm();
    assert_eq!(read(&storage, &path), b"fourd.");
    assert_eq!(storage.count(), 2);
    storage.arm(&[Operation::Preallocate], 0, Fault::Full);
    assert_eq!(
        file.preallocate(10).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    storage.set_full(true);
    file.write_at(0, b"inside").unwrap();
    assert_eq!(
        file.write_at(6, b"x").unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    assert_eq!(
        file.preallocate(7).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    storage.set_full(false);
    file.preallocate(7).unwrap();
}
