//! The promises of the container: what was written is read, whatever is damaged costs its page and is
//! named, and a file that is not the block asked for is refused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::{path::Path, sync::Arc};

use rootline_wal::{FaultStorage, FsStorage, Lsn, Storage, StoreId};

use super::*;
use crate::{
    error::Error,
    time::{TimeRange, Timestamp},
};

pub(super) const STORE: StoreId = StoreId::from_bytes([7; 16]);

pub(crate) fn meta(id: u64) -> BlockMeta {
    BlockMeta {
        id: BlockId(id),
        signal: Signal::Metrics,
        first_lsn: Lsn(3),
        last_lsn: Lsn(9),
        clean_lsn: Lsn(10),
        time: TimeRange::new(Timestamp::from_nanos(-5), Timestamp::from_nanos(1 << 60)).unwrap(),
        level: 2,
        series: 11,
        samples: 1_000_000,
        sources: vec![BlockId(1), BlockId(2)],
        created_ns: 1_700_000_000_000_000_000,
        spanning: true,
        file_bytes: 0,
    }
}

/// The file system twice: mapped, and read through a storage that has no local paths.
fn storages() -> [Arc<dyn Storage>; 2] {
    let fs: Arc<dyn Storage> = Arc::new(FsStorage::new());
    [Arc::clone(&fs), Arc::new(FaultStorage::new(fs))]
}

fn write(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    id: u64,
    sections: &[(SectionKind, Vec<Vec<u8>>)],
) -> BlockMeta {
    let mut writer = BlockWriter::create(storage, dir, STORE, BlockId(id)).unwrap();
    for (kind, items) in sections {
        writer.begin(*kind).unwrap();
        let mut offset = 0;
        for item in items {
            assert_eq!(writer.write(item).unwrap(), offset);
            offset += item.len() as u64;
        }
    }
    writer.finish(meta(id)).unwrap()
}

fn open(storage: &Arc<dyn Storage>, dir: &Path, id: u64) -> Result<Block, Error> {
    Block::open(storage, dir, Some(STORE), BlockId(id), &Arc::default())
}

/// Bytes that differ from place to place.
fn item(len: usize, salt: u32) -> Vec<u8> {
    let mixed = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) ^ salt.wrapping_mul(97)) >> 13;
    (0..len).map(|i| mixed(i) as u8).collect()
}

#[test]
fn what_was_written_is_read_mapped_and_not() {
    for storage in storages() {
        let dir = tempfile::tempdir().unwrap();
        let items = [
            vec![item(10, 1), item(PAGE_BYTES_MAX, 2), Vec::new(), item(1, 3)],
            vec![item(3 * PAGE_BYTES_MAX + 5, 4), item(100, 5)],
            Vec::new(),
            (0..40).map(|i| item(30_000 + i, i as u32)).collect(),
        ];
        let kinds = [
            SectionKind::Values,
            SectionKind::Strings,
            SectionKind::Exemplars,
            SectionKind::Times,
        ];
        let sections: Vec<_> = kinds.into_iter().zip(items).collect();
        let written = write(&storage, dir.path(), 5, &sections);
        let block = open(&storage, dir.path(), 5).unwrap();
        assert_eq!(block.meta(), &written);
        assert_eq!(written.file_bytes, storage.len(block.path()).unwrap());
        assert_eq!(block.store(), STORE);
        assert!(block.damage_at_open().is_empty());
        assert!(block.heap_bytes() > 0);
        for (kind, items) in &sections {
            let section = block.section(*kind).unwrap();
            let all = items.concat();
            assert_eq!(section.len_bytes(), all.len() as u64);
            let mut at = 0;
            for item in items {
                let end = at + item.len() as u64;
                assert_eq!(&*section.bytes(at..end).unwrap(), item.as_slice());
                at = end;
            }
            let len = section.len_bytes();
            assert_eq!(&*section.bytes(0..len).unwrap(), all.as_slice());
            assert!(section.bytes(len..len).unwrap().is_empty());
            let outside = section.bytes(1..len + 1).unwrap_err();
            assert!(matches!(outside, Error::CorruptBlock { .. }), "{outside}");
        }
        let missing = block.section(SectionKind::Metadata).unwrap();
        assert_eq!(missing.len_bytes(), 0);
        let mut bytes = 0;
        let mut throttle = |more: u64| {
            bytes += more;
            Ok(())
        };
        block
            .verify(&mut throttle, &mut |damage| panic!("{damage:?}"))
            .unwrap();
        assert_eq!(bytes, written.file_bytes);
    }
}

#[test]
fn an_item_of_a_page_or_less_lies_on_one_page() {
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new());
    let dir = tempfile::tempdir().unwrap();
    let items: Vec<_> = (0..200).map(|i| item(1 + i * 331 % 65_536, 0)).collect();
    write(
        &storage,
        dir.path(),
        1,
        &[(SectionKind::Values, items.clone())],
    );
    let path = filenames::block(dir.path(), BlockId(1));
    let mut broken = std::fs::read(&path).unwrap();
    broken[format::END_BYTES + items[0].len()] ^= 1;
    std::fs::write(&path, broken).unwrap();
    let block = open(&storage, dir.path(), 1).unwrap();
    let section = block.section(SectionKind::Values).unwrap();
    let mut at = 0;
    let mut lost = 0;
    for item in &items {
        let end = at + item.len() as u64;
        match section.bytes(at..end) {
            Ok(bytes) => assert_eq!(&*bytes, item.as_slice()),
            Err(_) => {
                lost += item.len();
                assert!(end <= PAGE_BYTES_MAX as u64);
            }
        }
        at = end;
    }
    assert!(lost > 0 && lost <= PAGE_BYTES_MAX);
}
