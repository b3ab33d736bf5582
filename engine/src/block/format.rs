//! The bytes of a block file but for what the sections hold: ends, footer, checksums. Page:
//! `docs/formats/block.md`.
//!
//! ```text
//! end | pages of section 1 | pages of section 2 | .. | footer | footer | end
//! ```
//!
//! Invariants
//! - Everything is little-endian, and every byte of the file is under a checksum.
//! - What is needed to read anything at all stands twice: the *end* at both ends of the file, and the
//!   footer. So a damaged place costs at most the page that it lies in.
//! - The checksums of pages and footer start from (store, block, page number): a page of another block,
//!   or of another place in this one, does not verify.
//! - Decoders are total: any bytes give a value or an error, and no number is used before it was checked.

use rootline_wal::{Lsn, StoreId};

use super::{BlockId, BlockMeta, PAGE_BYTES_MAX, Signal};
use crate::{
    time::{TimeRange, Timestamp},
    varint::{put_i64, put_u64, take_i64, take_u64},
};

/// First bytes of a block, and of the copy of its first bytes at its end.
pub(super) const MAGIC: [u8; 8] = *b"RTLNBLK\n";

/// The version written, and the newest one read.
pub(super) const VERSION: u32 = 1;

/// Bytes of an end.
pub(super) const END_BYTES: usize = 64;

/// Bytes of a page in the footer: its length less one, its checksum.
const PAGE_ENTRY_BYTES: usize = 6;

/// Most sections that a footer may list: each code once.
const SECTIONS_MAX: u64 = 256;

const _: () = assert!(PAGE_BYTES_MAX - 1 == u16::MAX as usize);

/// What the checksums of one block start from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed(u32);

impl Seed {
    pub(super) fn new(store: &StoreId, id: BlockId) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(store.as_bytes());
        hasher.update(&id.0.to_le_bytes());
        Self(hasher.finalize())
    }

    /// The checksum of page `number` of the file.
    pub(super) fn page(self, number: u32, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(&number.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }

    /// The footer's: it counts as the page that no file has.
    pub(super) fn footer(self, bytes: &[u8]) -> u32 {
        self.page(u32::MAX, bytes)
    }
}

/// What stands at both ends of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) store: StoreId,
    pub(super) id: BlockId,
    pub(super) footer_offset: u64,
    pub(super) footer_bytes: u32,
    pub(super) footer_checksum: u32,
    pub(super) file_bytes: u64,
}

/// What [`END_BYTES`] bytes turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndRead {
    End(End),
    /// Of another version; the checksum holds.
    Version(u32),
    /// The magic is there, the checksum does not hold.
    Damaged,
    /// Not even the magic is there.
    Foreign,
}

impl End {
    pub(super) fn encode(&self) -> [u8; END_BYTES] {
        let mut out = Vec::with_capacity(END_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(self.store.as_bytes());
        out.extend_from_slice(&self.id.0.to_le_bytes());
        out.extend_from_slice(&self.footer_offset.to_le_bytes());
        out.extend_from_slice(&self.footer_bytes.to_le_bytes());
        out.extend_from_slice(&self.footer_checksum.to_le_bytes());
        out.extend_from_slice(&self.file_bytes.to_le_bytes());
        let checksum = crc32fast::hash(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.try_into().expect("the fields add up to 64 bytes")
    }

    pub(super) fn decode(bytes: &[u8]) -> EndRead {
        let has_magic = bytes.starts_with(&MAGIC);
        Self::decode_fields(bytes).unwrap_or(if has_magic {
            EndRead::Damaged
        } else {
            EndRead::Foreign
        })
    }

    fn decode_fields(mut bytes: &[u8]) -> Option<EndRead> {
        if bytes.len() != END_BYTES {
            return None;
        }
        let (fields, checksum) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(fields) != u32::from_le_bytes(*checksum) {
            return None;
        }
        if take::<8>(&mut bytes)? != MAGIC {
            return None;
        }
        let version = u32::from_le_bytes(take(&mut bytes)?);
        if version != VERSION {
            return Some(EndRead::Version(version));
        }
        Some(EndRead::End(Self {
            store: StoreId::from_bytes(take(&mut bytes)?),
            id: BlockId(u64::from_le_bytes(take(&mut bytes)?)),
            footer_offset: u64::from_le_bytes(take(&mut bytes)?),
            footer_bytes: u32::from_le_bytes(take(&mut bytes)?),
            footer_checksum: u32::from_le_bytes(take(&mut bytes)?),
            file_bytes: u64::from_le_bytes(take(&mut bytes)?),
        }))
    }

    /// Whether footer, its copy and the last end fill the file to its length.
    pub(super) fn adds_up(&self) -> bool {
        let footers = 2 * u64::from(self.footer_bytes);
        let end = self.footer_offset.checked_add(footers + END_BYTES as u64);
        self.footer_offset >= END_BYTES as u64 && end == Some(self.file_bytes)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

/// A page as the footer lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageEntry {
    /// 1 to [`PAGE_BYTES_MAX`].
    pub(super) bytes: u32,
    pub(super) checksum: u32,
}

/// A section as the footer lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SectionEntry {
    /// A [`super::SectionKind`], or one of a newer release.
    pub(super) code: u8,
    pub(super) pages: Vec<PageEntry>,
}

/// What the pages are, and what the block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    /// Its `file_bytes` is not in the footer: the ends have it.
    pub(super) meta: BlockMeta,
    pub(super) sections: Vec<SectionEntry>,
}

impl Footer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        encode_meta(&mut out, &self.meta);
        put_u64(&mut out, self.sections.len() as u64);
        for section in &self.sections {
            out.push(section.code);
            put_u64(&mut out, section.pages.len() as u64);
            for page in &section.pages {
                let less_one = u16::try_from(page.bytes.saturating_sub(1));
                let less_one = less_one.expect("the writer ends a page at 64 KiB");
                out.extend_from_slice(&less_one.to_le_bytes());
                out.extend_from_slice(&page.checksum.to_le_bytes());
            }
        }
        out
    }

    /// `Err` says what is wrong.
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, &'static str> {
        let input = &mut bytes;
        let meta = decode_meta(input)?;
        let count = take_u64(input).ok_or(CUT)?;
        if count > SECTIONS_MAX {
            return Err("more sections than there are codes");
        }
        let mut sections: Vec<SectionEntry> = Vec::new();
        for _ in 0..count {
            let [code] = take(input).ok_or(CUT)?;
            if sections.iter().any(|section| section.code == code) {
                return Err("a section listed twice");
            }
            let pages = take_u64(input).ok_or(CUT)?;
            if pages > (input.len() / PAGE_ENTRY_BYTES) as u64 {
                return Err(CUT);
            }
            let mut section = SectionEntry {
                code,
                pages: Vec::new(),
            };
            for _ in 0..pages {
                let less_one = u16::from_le_bytes(take(input).ok_or(CUT)?);
                let checksum = u32::from_le_bytes(take(input).ok_or(CUT)?);
                section.pages.push(PageEntry {
                    bytes: u32::from(less_one) + 1,
                    checksum,
                });
            }
            sections.push(section);
        }
        if !input.is_empty() {
            return Err("bytes after the list of sections");
        }
        Ok(Self { meta, sections })
    }
}

const CUT: &str = "cut short";

/// Bit of the flags byte.
const FLAG_SPANNING: u8 = 1;

pub(crate) fn signal_code(signal: Signal) -> u8 {
    match signal {
        Signal::Metrics => 0,
        Signal::Spans => 1,
    }
}

pub(crate) fn signal_of(code: u8) -> Option<Signal> {
    match code {
        0 => Some(Signal::Metrics),
        1 => Some(Signal::Spans),
        _ => None,
    }
}

/// All but `file_bytes`.
pub(crate) fn encode_meta(out: &mut Vec<u8>, meta: &BlockMeta) {
    put_u64(out, meta.id.0);
    out.push(signal_code(meta.signal));
    out.push(if meta.spanning { FLAG_SPANNING } else { 0 });
    out.push(meta.level);
    put_u64(out, meta.first_lsn.0);
    put_u64(out, meta.last_lsn.0);
    put_u64(out, meta.clean_lsn.0);
    put_i64(out, meta.time.start().as_nanos());
    put_i64(out, meta.time.end().as_nanos());
    put_u64(out, meta.series);
    put_u64(out, meta.samples);
    put_i64(out, meta.created_ns);
    put_u64(out, meta.sources.len() as u64);
    for source in &meta.sources {
        put_u64(out, source.0);
    }
}

/// Takes what [`encode_meta`] wrote off the front of `input`; `file_bytes` is 0.
pub(crate) fn decode_meta(input: &mut &[u8]) -> Result<BlockMeta, &'static str> {
    let id = BlockId(take_u64(input).ok_or(CUT)?);
    let [signal, flags, level] = take(input).ok_or(CUT)?;
    let signal = signal_of(signal).ok_or("unknown signal")?;
    if flags & !FLAG_SPANNING != 0 {
        return Err("unknown flags");
    }
    let mut lsn = || take_u64(input).map(Lsn).ok_or(CUT);
    let (first_lsn, last_lsn, clean_lsn) = (lsn()?, lsn()?, lsn()?);
    if first_lsn > last_lsn || last_lsn > clean_lsn {
        return Err("sequence numbers out of order");
    }
    let mut moment = || take_i64(input).map(Timestamp::from_nanos).ok_or(CUT);
    let (start, end) = (moment()?, moment()?);
    let time = TimeRange::new(start, end).map_err(|_| "a time range that ends before it starts")?;
    let series = take_u64(input).ok_or(CUT)?;
    let samples = take_u64(input).ok_or(CUT)?;
    let created_ns = take_i64(input).ok_or(CUT)?;
    let count = take_u64(input).ok_or(CUT)?;
    let mut sources = Vec::new();
    for _ in 0..count {
        // Ends at the latest with the input: each takes a byte.
        sources.push(BlockId(take_u64(input).ok_or(CUT)?));
    }
    Ok(BlockMeta {
        id,
        signal,
        first_lsn,
        last_lsn,
        clean_lsn,
        time,
        level,
        series,
        samples,
        sources,
        created_ns,
        spanning: flags & FLAG_SPANNING != 0,
        file_bytes: 0,
    })
}
