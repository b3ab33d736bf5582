//! The promises of the container: what was written is read, whatever is damaged costs its page and is
//! named, and a file that is not the block asked for is refused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rootline_wal::{
    Fault, FaultStorage, FsStorage, Lsn, Operation, PowerCutStorage, Storage, StoreId,
};

use super::{pread::OPEN_FILES_MAX, *};
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
        if let Ok(bytes) = section.bytes(at..end) {
            assert_eq!(&*bytes, item.as_slice());
        } else {
            lost += item.len();
            assert!(end <= PAGE_BYTES_MAX as u64);
        }
        at = end;
    }
    assert!(lost > 0 && lost <= PAGE_BYTES_MAX);
}

/// A block of three sections and four pages in a storage in memory, and its file.
fn small() -> (PowerCutStorage, PathBuf, Vec<(SectionKind, Vec<u8>)>) {
    let disk = PowerCutStorage::new();
    let dir = PathBuf::from("/blocks");
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    storage.create_dir_all(&dir).unwrap();
    let sections = vec![
        (SectionKind::Strings, vec![item(90, 1)]),
        (SectionKind::Times, vec![item(65_530, 2), item(140, 3)]),
        (SectionKind::Values, vec![item(60, 4), item(33, 5)]),
    ];
    write(&storage, &dir, 5, &sections);
    let whole = |(kind, items): (SectionKind, Vec<Vec<u8>>)| (kind, items.concat());
    let sections = sections.into_iter().map(whole).collect();
    (disk, filenames::block(&dir, BlockId(5)), sections)
}

fn damage_of(block: &Block) -> Vec<PageDamage> {
    let mut found = Vec::new();
    block
        .verify(&mut |_| Ok(()), &mut |damage| found.push(damage))
        .unwrap();
    found
}

#[test]
fn a_flipped_byte_anywhere_is_reported_with_its_place_and_costs_at_most_its_page() {
    let (disk, path, sections) = small();
    let dir = path.parent().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let len = disk.len(&path).unwrap() as usize;
    let big_page = 200..65_500;
    for offset in (0..len).filter(|at| !big_page.contains(at) || at % 4_099 == 0) {
        let bits = 1 << (offset % 8);
        disk.damage(&path, offset, bits).unwrap();
        let block = open(&storage, dir, 5).unwrap_or_else(|e| panic!("{offset}: {e}"));
        let found = damage_of(&block);
        assert_eq!(found.len(), 1, "{offset}: {found:?}");
        let lost = found[0].offset_bytes..found[0].offset_bytes + found[0].len_bytes;
        assert!(lost.contains(&(offset as u64)), "{offset}: {found:?}");
        assert!(found[0].len_bytes <= PAGE_BYTES_MAX as u64);
        assert!(!found[0].place.to_string().is_empty());
        // The same again, by one who did not verify first; then everything, byte by byte.
        let fresh = open(&storage, dir, 5).unwrap();
        for (kind, bytes) in &sections {
            let (code, start) = (*kind as u8, start_of(&fresh, *kind));
            let in_page = Place::Section(code) == found[0].place;
            for block in [&block, &fresh] {
                let section = block.section(*kind).unwrap();
                for at in [0, 88, 65_530, 65_600, bytes.len() - 1] {
                    let Some(&byte) = bytes.get(at) else { continue };
                    let at = at as u64;
                    match section.bytes(at..at + 1) {
                        Ok(read) => {
                            assert!(!in_page || !lost.contains(&(start + at)), "{offset}");
                            assert_eq!(*read, [byte]);
                        }
                        Err(Error::CorruptBlock {
                            path: named,
                            offset_bytes,
                            ..
                        }) => {
                            assert!(in_page && lost.contains(&(start + at)), "{offset}");
                            assert_eq!((&named, offset_bytes), (&path, lost.start));
                        }
                        Err(other) => panic!("{offset}: {other}"),
                    }
                }
            }
        }
        let healthy_pages = found.iter().all(|d| !matches!(d.place, Place::Section(_)));
        assert_eq!(
            block.damage_at_open().is_empty(),
            !healthy_pages,
            "{offset}"
        );
        disk.damage(&path, offset, bits).unwrap();
    }
    assert_eq!(damage_of(&open(&storage, dir, 5).unwrap()), []);
}

/// Where a section starts in the file.
fn start_of(block: &Block, kind: SectionKind) -> u64 {
    let mut at = format::END_BYTES as u64;
    for (code, bytes, _) in block.sections() {
        if code == kind as u8 {
            return at;
        }
        at += bytes;
    }
    panic!("{kind:?}")
}

#[test]
fn a_file_cut_short_or_longer_is_refused() {
    let (disk, path, _) = small();
    let dir = path.parent().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let len = disk.len(&path).unwrap();
    let ends = (0..len).filter(|at| *at < 200 || *at > len - 700 || at % 997 == 0);
    for cut in ends.chain([len + 1, len + 5_000]) {
        let copy = disk.copied();
        copy.open(&path).unwrap().set_len(cut).unwrap();
        let storage: Arc<dyn Storage> = Arc::new(copy);
        let refused = open(&storage, dir, 5).unwrap_err();
        assert!(matches!(&refused, Error::NotABlock { .. }), "{refused}");
        assert!(refused.to_string().contains(&cut.to_string()), "{refused}");
    }
    open(&storage, dir, 5).unwrap();
}

#[test]
fn other_stores_other_blocks_other_files_and_newer_versions_are_refused() {
    let (disk, path, _) = small();
    let dir = path.parent().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let open_as = |store, id| {
        let files = Arc::default();
        Block::open(&storage, dir, store, BlockId(id), &files)
    };
    let other = StoreId::from_bytes([8; 16]);
    let foreign = open_as(Some(other), 5).unwrap_err();
    assert!(matches!(foreign, Error::NotABlock { .. }), "{foreign}");
    assert!(open_as(None, 5).is_ok());

    storage
        .link(&path, &filenames::block(dir, BlockId(6)))
        .unwrap();
    let misnamed = open_as(Some(STORE), 6).unwrap_err();
    assert!(matches!(misnamed, Error::NotABlock { .. }), "{misnamed}");

    let file = storage.create(&filenames::block(dir, BlockId(7))).unwrap();
    file.write_at(0, &item(500, 9)).unwrap();
    let stranger = open_as(Some(STORE), 7).unwrap_err();
    assert!(matches!(stranger, Error::NotABlock { .. }), "{stranger}");

    let mut end = [0; format::END_BYTES];
    storage.open(&path).unwrap().read_at(0, &mut end).unwrap();
    end[8] = 2;
    let (fields, checksum) = end.split_at_mut(60);
    checksum.copy_from_slice(&crc32fast::hash(fields).to_le_bytes());
    storage.open(&path).unwrap().write_at(0, &end).unwrap();
    let newer = open_as(Some(STORE), 5).unwrap_err();
    let expected = matches!(newer, Error::UnsupportedBlock { version: 2, .. });
    assert!(expected, "{newer}");
    assert_eq!(newer.kind(), crate::ErrorKind::Corrupted);
}

#[test]
fn a_page_of_another_block_or_another_place_does_not_verify() {
    let disk = PowerCutStorage::new();
    let dir = Path::new("/blocks");
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    storage.create_dir_all(dir).unwrap();
    let page = item(PAGE_BYTES_MAX, 1);
    let sections = [(SectionKind::Values, vec![page.clone(); 3])];
    write(&storage, dir, 5, &sections);
    write(&storage, dir, 6, &sections);
    // The pages are equal byte by byte; their checksums are not.
    let checksums: Vec<u32> = [5, 6]
        .iter()
        .flat_map(|&id| {
            let seed = format::Seed::new(&STORE, BlockId(id));
            (0..3).map(move |number| (seed, number))
        })
        .map(|(seed, number)| seed.page(number, &page))
        .collect();
    for (i, one) in checksums.iter().enumerate() {
        assert!(!checksums[..i].contains(one), "{checksums:?}");
    }
    // The pages of one, between the ends of the other, with everything else as it should be.
    let path = filenames::block(dir, BlockId(5));
    let other = disk.content(&filenames::block(dir, BlockId(6))).unwrap();
    let pages = format::END_BYTES..format::END_BYTES + 3 * PAGE_BYTES_MAX;
    let file = storage.open(&path).unwrap();
    file.write_at(pages.start as u64, &other[pages]).unwrap();
    assert_eq!(damage_of(&open(&storage, dir, 5).unwrap()), []);
    let footer = other.len() - format::END_BYTES;
    file.write_at(footer as u64, &other[footer..]).unwrap();
    assert_eq!(damage_of(&open(&storage, dir, 5).unwrap()).len(), 1);
}

#[test]
fn a_removed_block_stays_readable_for_who_holds_it() {
    for storage in storages() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        write(&storage, dir, 1, &[(SectionKind::Values, vec![item(9, 1)])]);
        let files = Arc::new(OpenFiles::default());
        let block = Block::open(&storage, dir, None, BlockId(1), &files).unwrap();
        block.keep_open().unwrap();
        block.keep_open().unwrap();
        assert_eq!(files.len(), 0);
        storage.remove(block.path()).unwrap();
        let section = block.section(SectionKind::Values).unwrap();
        assert_eq!(&*section.bytes(0..9).unwrap(), item(9, 1));
    }
}

#[test]
fn blocks_that_are_read_share_a_bounded_number_of_handles() {
    let disk = PowerCutStorage::new();
    let dir = Path::new("/blocks");
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    storage.create_dir_all(dir).unwrap();
    let files = Arc::new(OpenFiles::default());
    let blocks: Vec<Block> = (1..=2 * OPEN_FILES_MAX as u64)
        .map(|id| {
            write(
                &storage,
                dir,
                id,
                &[(SectionKind::Values, vec![item(9, id as u32)])],
            );
            Block::open(&storage, dir, Some(STORE), BlockId(id), &files).unwrap()
        })
        .collect();
    for _ in 0..2 {
        for block in &blocks {
            let section = block.section(SectionKind::Values).unwrap();
            let expected = item(9, block.meta().id.0 as u32);
            assert_eq!(&*section.bytes(0..9).unwrap(), expected);
            assert!(files.len() <= OPEN_FILES_MAX && !block.is_mapped());
        }
    }
    drop(blocks);
    assert_eq!(files.len(), 0);
}

#[test]
fn an_unfinished_or_failed_block_leaves_no_file() {
    let mut nth = 0;
    loop {
        let faulty = FaultStorage::new(Arc::new(PowerCutStorage::new()));
        let storage: Arc<dyn Storage> = Arc::new(faulty.clone());
        let dir = Path::new("/blocks");
        storage.create_dir_all(dir).unwrap();
        faulty.arm(&Operation::CHANGING, nth, Fault::Full);
        let written =
            BlockWriter::create(&storage, dir, STORE, BlockId(1)).and_then(|mut writer| {
                writer.begin(SectionKind::Values)?;
                for _ in 0..5 {
                    writer.write(&item(PAGE_BYTES_MAX, 0))?;
                }
                writer.finish(meta(1))
            });
        let fired = faulty.fired();
        faulty.disarm();
        let files = storage.list(dir).unwrap();
        match written {
            Err(error) => {
                assert_eq!(error.kind(), crate::ErrorKind::Retry, "{error}");
                assert!(error.to_string().contains("/blocks"), "{error}");
                assert_eq!(files, Vec::<String>::new());
            }
            Ok(_) => assert_eq!(files.len(), 1),
        }
        if !fired {
            break;
        }
        nth += 1;
    }
    assert!(nth >= 6, "{nth}");

    let storage: Arc<dyn Storage> = Arc::new(PowerCutStorage::new());
    let dir = Path::new("/blocks");
    storage.create_dir_all(dir).unwrap();
    let mut writer = BlockWriter::create(&storage, dir, STORE, BlockId(1)).unwrap();
    writer.begin(SectionKind::Values).unwrap();
    writer.write(&item(9 * PAGE_BYTES_MAX, 0)).unwrap();
    assert_eq!(storage.list(dir).unwrap().len(), 1);
    drop(writer);
    assert_eq!(storage.list(dir).unwrap(), Vec::<String>::new());
}

#[test]
fn a_description_that_contradicts_itself_gets_no_file() {
    let storage: Arc<dyn Storage> = Arc::new(PowerCutStorage::new());
    let dir = Path::new("/blocks");
    storage.create_dir_all(dir).unwrap();
    let writer = BlockWriter::create(&storage, dir, STORE, BlockId(1)).unwrap();
    let wrong = BlockMeta {
        clean_lsn: Lsn(1),
        ..meta(1)
    };
    let refused = writer.finish(wrong).unwrap_err();
    assert!(matches!(refused, Error::NotABlock { .. }), "{refused}");
    assert_eq!(storage.list(dir).unwrap(), Vec::<String>::new());
}

#[test]
fn a_number_that_is_taken_is_not_written_over() {
    let (disk, path, _) = small();
    let dir = path.parent().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(disk);
    let taken = BlockWriter::create(&storage, dir, STORE, BlockId(5)).unwrap_err();
    assert!(matches!(taken, Error::Storage { .. }), "{taken}");
    open(&storage, dir, 5).unwrap();
}

#[test]
fn blocks_that_were_merged_into_others_are_no_survivors() {
    let with = |id: u64, sources: &[u64]| BlockMeta {
        sources: sources.iter().copied().map(BlockId).collect(),
        ..meta(id)
    };
    let metas = vec![
        with(9, &[7, 4]),
        with(1, &[]),
        with(7, &[1, 2]),
        with(4, &[]),
        with(8, &[7, 4]),
        with(3, &[]),
    ];
    let left = survivors(metas).into_iter().map(|meta| meta.id.0);
    assert_eq!(left.collect::<Vec<_>>(), [3, 8, 9]);
}

#[test]
fn footers_are_found_without_a_manifest_and_unnamed_files_removed_with_one() {
    let (disk, path, _) = small();
    let dir = path.parent().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    write(&storage, dir, 3, &[(SectionKind::Values, vec![item(9, 0)])]);
    write(&storage, dir, 4, &[(SectionKind::Values, vec![item(9, 0)])]);
    for name in ["block-0000000000000009.tmp", "x.tmp", "notes"] {
        storage.create(&dir.join(name)).unwrap();
    }
    disk.damage(&filenames::block(dir, BlockId(3)), 3, 1)
        .unwrap();
    disk.open(&filenames::block(dir, BlockId(4)))
        .unwrap()
        .set_len(70)
        .unwrap();
    let found = scan_headers(&storage, dir, Some(STORE)).unwrap();
    let ids: Vec<_> = found.iter().map(|s| (s.id.0, s.meta.is_ok())).collect();
    assert_eq!(ids, [(3, true), (4, false), (5, true)]);
    let ids: Vec<u64> = existing(&disk, dir)
        .unwrap()
        .iter()
        .map(|id| id.0)
        .collect();
    assert_eq!(ids, [3, 4, 5, 9]);

    let keep = [BlockId(5), BlockId(77)].into();
    let cleaned = remove_unnamed(&disk, dir, &keep).unwrap();
    assert_eq!(cleaned.missing, [BlockId(77)]);
    assert_eq!(cleaned.removed.len(), 2);
    let cleaned = remove_unnamed(&disk, dir, &[BlockId(5)].into()).unwrap();
    assert_eq!(cleaned.removed.len(), 2);
    let mut left = storage.list(dir).unwrap();
    left.sort();
    assert_eq!(left, ["block-0000000000000005.rlb", "notes"]);
    let none = remove_unnamed(&disk, Path::new("/none"), &[].into()).unwrap();
    assert_eq!(none, Cleaned::default());
}

/// Growth: many blocks are open at once, and few descriptors.
#[test]
fn five_thousand_blocks_are_open_with_few_descriptors() {
    // In memory where that can be: thousands of names on a busy disk take their time.
    let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let temp = temp.unwrap();
    let dir = temp.path();
    let memory: Arc<dyn Storage> = Arc::new(PowerCutStorage::new());
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new());
    memory.create_dir_all(dir).unwrap();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut blocks = Vec::new();
    let files = Arc::new(OpenFiles::default());
    for id in 1..=5_000 {
        // Put together in memory: what is tested needs no sync.
        write(
            &memory,
            dir,
            id,
            &[(SectionKind::Values, vec![item(9, id as u32)])],
        );
        let path = filenames::block(dir, BlockId(id));
        let mut bytes = vec![0; memory.len(&path).unwrap() as usize];
        memory.open(&path).unwrap().read_at(0, &mut bytes).unwrap();
        std::fs::write(&path, bytes).unwrap();
        memory.remove(&path).unwrap();
        blocks.push(Block::open(&storage, dir, Some(STORE), BlockId(id), &files).unwrap());
    }
    for block in &blocks {
        assert!(block.is_mapped());
        let section = block.section(SectionKind::Values).unwrap();
        assert_eq!(
            &*section.bytes(0..9).unwrap(),
            item(9, block.meta().id.0 as u32)
        );
    }
    // Other tests of this process run beside it.
    assert!(descriptors() <= 256, "{}", descriptors());
    let memory_bytes: usize = blocks.iter().map(Block::heap_bytes).sum();
    assert!(memory_bytes < 8 << 20, "{memory_bytes}");
}

mod codec {
    use proptest::{collection::vec, prelude::*};
    use rootline_wal::Lsn;

    use super::{super::format::*, *};

    prop_compose! {
        fn footer()(
            sections in proptest::collection::btree_map(any::<u8>(), vec((1..=65_536u32, any::<u32>()), 0..6), 0..5),
            lsns in any::<[u32; 3]>(),
            numbers in any::<[u64; 3]>(),
            sources in vec(any::<u64>(), 0..4),
            (start, more, created_ns, level, spanning) in any::<(i64, u32, i64, u8, bool)>(),
        ) -> Footer {
            let [first, more_lsn, clean] = lsns.map(u64::from);
            let start = start.min(i64::MAX - i64::from(more));
            let at = Timestamp::from_nanos;
            Footer {
                meta: BlockMeta {
                    id: BlockId(numbers[0]),
                    signal: if spanning { Signal::Spans } else { Signal::Metrics },
                    first_lsn: Lsn(first),
                    last_lsn: Lsn(first + more_lsn),
                    clean_lsn: Lsn(first + more_lsn + clean),
                    time: TimeRange::new(at(start), at(start + i64::from(more))).unwrap(),
                    level,
                    series: numbers[1],
                    samples: numbers[2],
                    sources: sources.into_iter().map(BlockId).collect(),
                    created_ns,
                    spanning,
                    file_bytes: 0,
                },
                sections: sections
                    .into_iter()
                    .map(|(code, pages)| SectionEntry {
                        code,
                        pages: pages
                            .into_iter()
                            .map(|(bytes, checksum)| PageEntry { bytes, checksum })
                            .collect(),
                    })
                    .collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn a_footer_comes_back_and_cut_short_does_not(footer in footer(), at: prop::sample::Index) {
            let bytes = footer.encode();
            prop_assert_eq!(Footer::decode(&bytes), Ok(footer));
            prop_assert!(Footer::decode(&bytes[..at.index(bytes.len())]).is_err());
        }

        #[test]
        fn an_end_comes_back(numbers: [u64; 3], sizes: [u32; 2], store: [u8; 16]) {
            let end = End {
                store: StoreId::from_bytes(store),
                id: BlockId(numbers[0]),
                footer_offset: numbers[1],
                footer_bytes: sizes[0],
                footer_checksum: sizes[1],
                file_bytes: numbers[2],
            };
            let _ = end.adds_up();
            prop_assert_eq!(End::decode(&end.encode()), EndRead::End(end));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let _ = check_block_footer(&bytes);
        }

        #[test]
        fn a_changed_footer_is_decoded_or_refused(
            footer in footer(),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = footer.encode();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = check_block_footer(&bytes);
        }
    }
}

/// Version 1 reads the same for ever, and is still what is written.
mod golden {
    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/v1/block.rlb");

    fn sections() -> Vec<(SectionKind, Vec<Vec<u8>>)> {
        vec![
            (SectionKind::Strings, vec![b"__name__".to_vec()]),
            (SectionKind::Metadata, Vec::new()),
            (SectionKind::Values, vec![b"one".to_vec(), b"two".to_vec()]),
        ]
    }

    #[test]
    fn the_writer_still_writes_the_golden_block() {
        let disk = PowerCutStorage::new();
        let dir = Path::new("/blocks");
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        storage.create_dir_all(dir).unwrap();
        write(&storage, dir, 42, &sections());
        let written = disk.content(&filenames::block(dir, BlockId(42))).unwrap();
        assert_eq!(written, GOLDEN, "{}", written.escape_ascii());
    }

    #[test]
    fn the_golden_block_reads_as_what_it_was_made_of() {
        let temp = tempfile::tempdir().unwrap();
        let path = filenames::block(temp.path(), BlockId(42));
        std::fs::write(path, GOLDEN).unwrap();
        for storage in storages() {
            let block = open(&storage, temp.path(), 42).unwrap();
            let expected = BlockMeta {
                file_bytes: GOLDEN.len() as u64,
                ..meta(42)
            };
            assert_eq!(block.meta(), &expected);
            for (kind, items) in sections() {
                let section = block.section(kind).unwrap();
                let bytes = section.bytes(0..section.len_bytes()).unwrap();
                assert_eq!(bytes.into_cow(), items.concat());
            }
        }
    }
}

/// The file with another footer, under checksums that hold.
fn with_footer(disk: &PowerCutStorage, path: &Path, change: impl FnOnce(&mut format::Footer)) {
    let mut bytes = disk.content(path).unwrap();
    let format::EndRead::End(mut end) = format::End::decode(&bytes[..format::END_BYTES]) else {
        panic!("a block")
    };
    let at = end.footer_offset as usize;
    let mut footer = format::Footer::decode(&bytes[at..at + end.footer_bytes as usize]).unwrap();
    change(&mut footer);
    let footer = footer.encode();
    end.footer_bytes = footer.len() as u32;
    end.footer_checksum = format::Seed::new(&end.store, end.id).footer(&footer);
    end.file_bytes = (at + 2 * footer.len() + format::END_BYTES) as u64;
    bytes.truncate(at);
    bytes.extend([footer.as_slice(), &footer, &end.encode()].concat());
    bytes[..format::END_BYTES].copy_from_slice(&end.encode());
    let file = disk.open(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file.write_at(0, &bytes).unwrap();
}

#[test]
fn a_section_that_is_not_known_is_checked_and_not_read() {
    let (disk, path, sections) = small();
    let dir = path.parent().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    with_footer(&disk, &path, |footer| footer.sections[0].code = 200);
    let block = open(&storage, dir, 5).unwrap();
    assert_eq!(block.section(SectionKind::Strings).unwrap().len_bytes(), 0);
    let values = block.section(SectionKind::Values).unwrap();
    assert_eq!(&*values.bytes(0..93).unwrap(), sections[2].1);
    assert_eq!(damage_of(&block), []);
    disk.damage(&path, format::END_BYTES + 1, 1).unwrap();
    let found = damage_of(&block);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].place, Place::Section(200));
    assert_eq!(found[0].place.to_string(), "section 200");
}

#[test]
fn a_footer_that_contradicts_the_file_is_refused_though_its_checksum_holds() {
    let changes: [fn(&mut format::Footer); 4] = [
        |footer| footer.meta.id = BlockId(6),
        |footer| footer.meta.last_lsn = Lsn(1),
        |footer| footer.sections[1].pages[0].bytes -= 1,
        |footer| footer.sections[2].code = footer.sections[0].code,
    ];
    for change in changes {
        let (disk, path, _) = small();
        with_footer(&disk, &path, change);
        let storage: Arc<dyn Storage> = Arc::new(disk);
        let refused = open(&storage, path.parent().unwrap(), 5).unwrap_err();
        assert!(matches!(refused, Error::CorruptBlock { .. }), "{refused}");
    }
}

#[test]
fn a_page_that_was_read_before_it_was_damaged_fails_once_that_was_found() {
    let (disk, path, _) = small();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let block = open(&storage, path.parent().unwrap(), 5).unwrap();
    let section = block.section(SectionKind::Strings).unwrap();
    section.bytes(0..1).unwrap();
    disk.damage(&path, format::END_BYTES, 1).unwrap();
    assert_eq!(damage_of(&block).len(), 1);
    assert!(section.bytes(0..1).is_err());
    disk.damage(&path, format::END_BYTES, 1).unwrap();
    section.bytes(0..1).unwrap();
}
