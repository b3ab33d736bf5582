//! An open block: its sections, page by page verified before use.
//!
//! Invariants
//! - The footer is verified when the block is opened, a page when it is first touched; a bit for each
//!   page remembers. A page that does not verify gives [`Error::CorruptBlock`] each time, and costs
//!   nothing else.
//! - The pages of a section lie end to end, so a range of a section is one range of the file.
//! - Every range that comes in is checked: it may have been read from the block itself.
//!
//! No locks: the bits are atomic, and two threads that verify one page agree.

use std::{
    borrow::Cow,
    fmt,
    ops::{Deref, Range},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rootline_wal::{Storage, StoreId};

use super::{
    BlockId, BlockMeta, SectionKind, filenames,
    format::{END_BYTES, End, EndRead, Footer, Seed, VERSION},
    pread::OpenFiles,
    source::{self, BlockSource},
};
use crate::error::Error;

/// A part of the file that is damaged while the rest can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageDamage {
    /// What lies there.
    pub(crate) place: Place,
    /// Where it starts in the file.
    pub(crate) offset_bytes: u64,
    /// How much is lost, or for what is there twice, was damaged.
    pub(crate) len_bytes: u64,
    /// What is wrong.
    pub(crate) reason: String,
}

/// The parts of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The first or the last bytes; each can stand in for the other.
    End,
    /// One of the two footers; each can stand in for the other.
    Footer,
    /// A page of the section with this code.
    Section(u8),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("header"),
            Self::Footer => f.write_str("footer"),
            Self::Section(code) => match SectionKind::from_code(*code) {
                Some(kind) => write!(f, "section {}", kind.name()),
                None => write!(f, "section {code}"),
            },
        }
    }
}

/// A block that can be read. Shared in an `Arc`.
#[derive(Debug)]
pub(crate) struct Block {
    path: PathBuf,
    meta: BlockMeta,
    end: End,
    source: Box<dyn BlockSource>,
    seed: Seed,
    sections: Vec<Placed>,
    /// Where in the file each page ends, and its checksum.
    page_ends: Vec<u64>,
    page_checksums: Vec<u32>,
    verified: Vec<AtomicU64>,
    /// What was wrong with ends and footers when it was opened.
    damage: Vec<PageDamage>,
}

/// Where a section lies.
#[derive(Clone, Debug)]
struct Placed {
    code: u8,
    /// Of the file.
    bytes: Range<u64>,
    pages: Range<usize>,
}

const CHECKSUM: &str = "the checksum does not hold";

impl Block {
    /// Opens block `id` in `dir`: reads and verifies both ends and the footer, no page. `store` is whose
    /// block it must be, if that is known.
    ///
    /// # Errors
    /// [`Error::NotABlock`] for a file that is none, is cut short, or is not the one that was asked for.
    /// [`Error::UnsupportedBlock`]. [`Error::CorruptBlock`] if a thing and its copy are both damaged.
    /// [`Error::Storage`].
    pub(crate) fn open(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        store: Option<StoreId>,
        id: BlockId,
        sources: &Arc<OpenFiles>,
    ) -> Result<Self, Error> {
        let path = filenames::block(dir, id);
        let source = source::open(storage, &path, sources)?;
        Self::from_source(path, source, store, id)
    }

    fn from_source(
        path: PathBuf,
        source: Box<dyn BlockSource>,
        store: Option<StoreId>,
        id: BlockId,
    ) -> Result<Self, Error> {
        let mut damage = Vec::new();
        let end = read_ends(&path, &*source, &mut damage)?;
        let refuse = |reason: String| Error::NotABlock {
            path: path.clone(),
            reason,
        };
        if let Some(store) = store
            && store != end.store
        {
            let found = end.store;
            return Err(refuse(format!("it is of store {found}, not of {store}")));
        }
        if end.id != id {
            return Err(refuse(format!("it is block {}, not block {}", end.id, id)));
        }
        let seed = Seed::new(&end.store, id);
        let footer = read_footer(&path, &*source, &end, seed, &mut damage)?;
        let wrong = |reason: &str| Error::CorruptBlock {
            path: path.clone(),
            offset_bytes: end.footer_offset,
            reason: format!("the footer's checksum holds, but it is wrong: {reason}"),
        };
        let footer = Footer::decode(&footer).map_err(wrong)?;
        if footer.meta.id != id {
            return Err(wrong("it is another block's"));
        }
        let mut at = END_BYTES as u64;
        let mut sections = Vec::new();
        let mut page_ends = Vec::new();
        let mut page_checksums = Vec::new();
        for section in footer.sections {
            let (start, first) = (at, page_ends.len());
            for page in section.pages {
                at += u64::from(page.bytes);
                page_ends.push(at);
                page_checksums.push(page.checksum);
            }
            sections.push(Placed {
                code: section.code,
                bytes: start..at,
                pages: first..page_ends.len(),
            });
        }
        if at != end.footer_offset {
            return Err(wrong("its pages do not reach up to it"));
        }
        let words = page_ends.len().div_ceil(64);
        Ok(Self {
            path,
            meta: BlockMeta {
                file_bytes: end.file_bytes,
                ..footer.meta
            },
            end,
            source,
            seed,
            sections,
            page_ends,
            page_checksums,
            verified: (0..words).map(|_| AtomicU64::new(0)).collect(),
            damage,
        })
    }

    /// What is known of it.
    pub(crate) fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was found damaged when it was opened and could be read all the same, from its copy.
    pub(crate) fn damage_at_open(&self) -> &[PageDamage] {
        &self.damage
    }

    /// Codes, bytes and pages of its sections, in the order of the file.
    pub(crate) fn sections(&self) -> impl Iterator<Item = (u8, u64, usize)> {
        let size = |s: &Placed| (s.code, s.bytes.end - s.bytes.start, s.pages.len());
        self.sections.iter().map(size)
    }

    /// Memory that it takes beside the mapping.
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Self>()
            + self.page_ends.capacity() * size_of::<u64>()
            + self.page_checksums.capacity() * size_of::<u32>()
            + self.verified.capacity() * size_of::<u64>()
            + self.sections.capacity() * size_of::<Placed>()
            + self.meta.sources.capacity() * size_of::<BlockId>()
    }

    /// A section; one that the block does not have is empty.
    ///
    /// # Errors
    /// None today: a later version may have sections that an older reader must refuse.
    #[inline]
    #[expect(clippy::unnecessary_wraps, reason = "callers are ready for a refusal")]
    pub(crate) fn section(&self, kind: SectionKind) -> Result<Section<'_>, Error> {
        let code = kind as u8;
        let placed = self.sections.iter().find(|section| section.code == code);
        Ok(Section {
            block: self,
            code,
            bytes: placed.map_or(0..0, |p| p.bytes.clone()),
            pages: placed.map_or(0..0, |p| p.pages.clone()),
        })
    }

    /// From now on the block stays readable when its file is removed. Call it before that.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn keep_open(&self) -> Result<(), Error> {
        self.source.keep_open()
    }

    /// Whether it is mapped, not read.
    #[cfg(test)]
    pub(crate) fn is_mapped(&self) -> bool {
        self.source.is_mapped()
    }

    /// An error about what stands at an offset of a section.
    pub(crate) fn damage(
        &self,
        section: SectionKind,
        offset_bytes: u64,
        reason: impl Into<String>,
    ) -> Error {
        let code = section as u8;
        let placed = self.sections.iter().find(|section| section.code == code);
        let (start, end) = placed.map_or((0, 0), |p| (p.bytes.start, p.bytes.end));
        Error::CorruptBlock {
            path: self.path.clone(),
            offset_bytes: start.saturating_add(offset_bytes).min(end),
            reason: format!("section {}: {}", section.name(), reason.into()),
        }
    }

    /// Reads the whole file again and checks every byte, whatever was verified before. `throttle` is told
    /// of bytes before they are read; `found` gets each damaged part, and the check goes on.
    ///
    /// What the kernel has in its cache is checked there, not on the medium.
    ///
    /// # Errors
    /// What `throttle` returned.
    pub(crate) fn verify(
        &self,
        throttle: &mut dyn FnMut(u64) -> Result<(), Error>,
        found: &mut dyn FnMut(PageDamage),
    ) -> Result<(), Error> {
        throttle(2 * (END_BYTES as u64 + u64::from(self.end.footer_bytes)))?;
        for range in end_ranges(self.meta.file_bytes) {
            let expected = self.end.encode();
            self.check(Place::End, range, found, |bytes| bytes == expected);
        }
        for range in footer_ranges(&self.end) {
            let expected = self.end.footer_checksum;
            let holds = |bytes: &[u8]| self.seed.footer(bytes) == expected;
            self.check(Place::Footer, range, found, holds);
        }
        for section in &self.sections {
            for page in section.pages.clone() {
                let range = self.page_range(page);
                throttle(range.end - range.start)?;
                self.source.will_need(range.clone());
                let place = Place::Section(section.code);
                let holds = self.check(place, range, found, |bytes| self.page_holds(page, bytes));
                self.remember(page, holds);
            }
        }
        Ok(())
    }

    fn check(
        &self,
        place: Place,
        range: Range<u64>,
        found: &mut dyn FnMut(PageDamage),
        holds: impl FnOnce(&[u8]) -> bool,
    ) -> bool {
        let reason = match self.source.read(range.clone()) {
            Ok(bytes) if holds(&bytes) => return true,
            Ok(_) => CHECKSUM.to_owned(),
            Err(error) => error.to_string(),
        };
        found(PageDamage {
            place,
            offset_bytes: range.start,
            len_bytes: range.end - range.start,
            reason,
        });
        false
    }

    /// A page of the file; an empty range past the last.
    fn page_range(&self, page: usize) -> Range<u64> {
        let start = match page.checked_sub(1) {
            None => END_BYTES as u64,
            Some(before) => self.page_ends.get(before).copied().unwrap_or_default(),
        };
        start..self.page_ends.get(page).copied().unwrap_or(start)
    }

    fn page_holds(&self, page: usize, bytes: &[u8]) -> bool {
        let number = u32::try_from(page).ok();
        let expected = self.page_checksums.get(page).copied();
        number.map(|number| self.seed.page(number, bytes)) == expected && expected.is_some()
    }

    fn is_verified(&self, page: usize) -> bool {
        // Relaxed: the bytes do not change, so there is nothing that the bit publishes.
        let word = self.verified.get(page / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (page % 64)) != 0)
    }

    fn remember(&self, page: usize, holds: bool) {
        let Some(word) = self.verified.get(page / 64) else {
            return;
        };
        let bit = 1 << (page % 64);
        if holds {
            word.fetch_or(bit, Ordering::Relaxed);
        } else {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// Bytes of the file that lie in `pages` of one section.
    fn read(&self, pages: Range<usize>, range: Range<u64>) -> Result<SectionBytes<'_>, Error> {
        let ends = self.page_ends.get(pages.clone()).unwrap_or_default();
        let first = pages.start + ends.partition_point(|&end| end <= range.start);
        let mut last = first;
        let mut all_verified = self.is_verified(first);
        while self.page_ends.get(last).is_some_and(|&end| end < range.end) {
            last += 1;
            all_verified &= self.is_verified(last);
        }
        if all_verified {
            return Ok(SectionBytes(self.source.read(range)?));
        }
        let whole = self.page_range(first).start..self.page_range(last).end;
        self.source.will_need(whole.clone());
        let bytes = self.source.read(whole.clone())?;
        let mut rest: &[u8] = &bytes;
        for page in first..=last {
            let at = self.page_range(page);
            let len = usize::try_from(at.end - at.start).unwrap_or(usize::MAX);
            let (this, behind) = rest.split_at_checked(len).unwrap_or((rest, &[]));
            rest = behind;
            if self.is_verified(page) {
                continue;
            }
            if !self.page_holds(page, this) {
                return Err(Error::CorruptBlock {
                    path: self.path.clone(),
                    offset_bytes: at.start,
                    reason: format!(
                        "{CHECKSUM} (page of {} bytes, {})",
                        at.end - at.start,
                        self.place_of(page)
                    ),
                });
            }
            self.remember(page, true);
        }
        let from = usize::try_from(range.start - whole.start).unwrap_or(usize::MAX);
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let wanted = match bytes {
            Cow::Borrowed(bytes) => bytes
                .get(from..)
                .and_then(|bytes| bytes.get(..len))
                .map(Cow::Borrowed),
            Cow::Owned(mut bytes) => {
                bytes.drain(..from.min(bytes.len()));
                bytes.truncate(len);
                (bytes.len() == len).then_some(Cow::Owned(bytes))
            }
        };
        wanted
            .map(SectionBytes)
            .ok_or_else(|| source::too_short(&self.path, range.start))
    }

    fn place_of(&self, page: usize) -> Place {
        let section = self.sections.iter().find(|s| s.pages.contains(&page));
        section.map_or(Place::Footer, |section| Place::Section(section.code))
    }
}

/// Where the two ends of a file lie.
fn end_ranges(file_bytes: u64) -> [Range<u64>; 2] {
    let end = END_BYTES as u64;
    [0..end, file_bytes.saturating_sub(end)..file_bytes]
}

/// Where the two footers lie.
fn footer_ranges(end: &End) -> [Range<u64>; 2] {
    let (at, len) = (end.footer_offset, u64::from(end.footer_bytes));
    [at..at + len, at + len..at + 2 * len]
}

fn read_ends(
    path: &Path,
    source: &dyn BlockSource,
    damage: &mut Vec<PageDamage>,
) -> Result<End, Error> {
    let len = source.len_bytes();
    let refuse = |reason: String| Error::NotABlock {
        path: path.to_owned(),
        reason,
    };
    if len < END_BYTES as u64 {
        return Err(refuse(format!("it has {len} bytes, fewer than any block")));
    }
    let ranges = end_ranges(len);
    let [first, last] = ranges.clone();
    let first = End::decode(&source.read(first)?);
    let last = End::decode(&source.read(last)?);
    let note = |range: &Range<u64>| PageDamage {
        place: Place::End,
        offset_bytes: range.start,
        len_bytes: END_BYTES as u64,
        reason: CHECKSUM.to_owned(),
    };
    let [at_first, at_last] = &ranges;
    let end = match (first, last) {
        (EndRead::Version(version), _) | (EndRead::Foreign, EndRead::Version(version)) => {
            return Err(Error::UnsupportedBlock {
                path: path.to_owned(),
                version,
            });
        }
        (EndRead::End(end), last) => {
            if end.file_bytes != len {
                let expected = end.file_bytes;
                return Err(refuse(format!("it has {len} bytes of {expected}")));
            }
            if last != EndRead::End(end) {
                damage.push(note(at_last));
            }
            end
        }
        (EndRead::Damaged | EndRead::Foreign, EndRead::End(end)) if end.file_bytes == len => {
            damage.push(note(at_first));
            end
        }
        (EndRead::Foreign, EndRead::Foreign) => {
            return Err(refuse("it does not start like one (byte 0)".to_owned()));
        }
        _ => {
            return Err(Error::CorruptBlock {
                path: path.to_owned(),
                offset_bytes: 0,
                reason: format!("header and its copy are damaged (version read is {VERSION})"),
            });
        }
    };
    if !end.adds_up() {
        return Err(Error::CorruptBlock {
            path: path.to_owned(),
            offset_bytes: 0,
            reason: "the header's checksum holds, but its lengths do not add up".to_owned(),
        });
    }
    Ok(end)
}

fn read_footer<'s>(
    path: &Path,
    source: &'s dyn BlockSource,
    end: &End,
    seed: Seed,
    damage: &mut Vec<PageDamage>,
) -> Result<Cow<'s, [u8]>, Error> {
    let mut intact = None;
    let mut broken = Vec::new();
    for range in footer_ranges(end) {
        let bytes = source.read(range.clone())?;
        if seed.footer(&bytes) == end.footer_checksum {
            intact.get_or_insert(bytes);
        } else {
            broken.push(PageDamage {
                place: Place::Footer,
                offset_bytes: range.start,
                len_bytes: range.end - range.start,
                reason: CHECKSUM.to_owned(),
            });
        }
    }
    damage.append(&mut broken);
    intact.ok_or_else(|| Error::CorruptBlock {
        path: path.to_owned(),
        offset_bytes: end.footer_offset,
        reason: "the footer and its copy are damaged".to_owned(),
    })
}

/// One section of a block.
#[derive(Clone, Debug)]
pub(crate) struct Section<'a> {
    block: &'a Block,
    code: u8,
    bytes: Range<u64>,
    pages: Range<usize>,
}

impl<'a> Section<'a> {
    /// Its length; 0 if the block has no such section.
    pub(crate) fn len_bytes(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }

    /// A range of it, verified, in one piece. Pages that were not touched before are verified now.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`] for a range outside of the section, and for a page that does not verify.
    /// [`Error::Storage`].
    pub(crate) fn bytes(&self, range: Range<u64>) -> Result<SectionBytes<'a>, Error> {
        if range.start > range.end || range.end > self.len_bytes() {
            let place = Place::Section(self.code);
            return Err(Error::CorruptBlock {
                path: self.block.path.clone(),
                offset_bytes: self.bytes.start + range.start.min(self.len_bytes()),
                reason: format!(
                    "bytes {}..{} are asked of {place}, which has {}",
                    range.start,
                    range.end,
                    self.len_bytes()
                ),
            });
        }
        if range.is_empty() {
            return Ok(SectionBytes(Cow::Borrowed(&[])));
        }
        let start = self.bytes.start;
        self.block
            .read(self.pages.clone(), start + range.start..start + range.end)
    }
}

/// Verified bytes of a section: borrowed from the mapping, or read.
#[derive(Clone, Debug)]
pub(crate) struct SectionBytes<'a>(Cow<'a, [u8]>);

impl<'a> SectionBytes<'a> {
    /// The same as a `Cow`.
    pub(crate) fn into_cow(self) -> Cow<'a, [u8]> {
        self.0
    }
}

impl Deref for SectionBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
