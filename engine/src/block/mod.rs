//! Blocks: immutable files that hold what was sealed, of either signal, in one container.
//! Bytes: `docs/formats/block.md`.
//!
//! [`BlockWriter`] writes one from front to back, [`Block`] reads it; what the bytes of a section mean is
//! the stores' business. Files are reached by mapping (`map.rs`) or by reading (`pread.rs`).
//!
//! Invariants
//! - A block never changes once it has its name, and its number is never given out again.
//! - A section is a run of bytes in pages of at most 64 KiB, each under a checksum of its own that is
//!   verified before the page is used. What is damaged costs its page.

mod filenames;
mod format;
mod listing;
mod map;
mod pread;
mod read;
mod source;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;

use rootline_wal::Lsn;

pub(crate) use filenames::block as path;
pub(crate) use format::{decode_meta, encode_meta, signal_code, signal_of};
pub(crate) use listing::{Cleaned, existing, has_blocks, remove_unnamed, scan_headers, survivors};
pub(crate) use pread::OpenFiles;
pub(crate) use read::{Block, PageDamage, Place, Section, SectionBytes};
pub(crate) use writer::BlockWriter;

use crate::time::TimeRange;

/// Bytes of a page at most: what one damaged byte can cost.
pub(crate) const PAGE_BYTES_MAX: usize = 64 * 1024;

/// The number of a block in its store. Never given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockId(pub(crate) u64);

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Which store a block belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Signal {
    /// Samples.
    Metrics,
    /// Spans.
    Spans,
}

/// What is known of a block without opening it; stands in its footer and in the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockMeta {
    /// Its number.
    pub(crate) id: BlockId,
    /// What it holds.
    pub(crate) signal: Signal,
    /// The records it was made of lie between these two, both included.
    pub(crate) first_lsn: Lsn,
    /// See `first_lsn`.
    pub(crate) last_lsn: Lsn,
    /// Deletes up to here are applied in it; at least `last_lsn`.
    pub(crate) clean_lsn: Lsn,
    /// From the first to the last timestamp.
    pub(crate) time: TimeRange,
    /// How often its content was merged: 0 as sealed.
    pub(crate) level: u8,
    /// Series, or traces.
    pub(crate) series: u64,
    /// Samples, or spans.
    pub(crate) samples: u64,
    /// The blocks it replaced.
    pub(crate) sources: Vec<BlockId>,
    /// Wall clock when it was written, ns since the Unix epoch.
    pub(crate) created_ns: i64,
    /// It holds days that were too sparse for a block of their own.
    pub(crate) spanning: bool,
    /// Length of the file.
    pub(crate) file_bytes: u64,
}

/// The parts of a block. The number stands in the footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum SectionKind {
    /// Label names and values, sorted.
    Strings = 1,
    /// Which series there are: label columns and postings.
    SeriesIndex = 2,
    /// Timestamp columns, each once.
    Times = 3,
    /// Value columns in the order of series.
    Values = 4,
    /// Which columns belong to which series.
    Chunks = 5,
    /// Exemplars by series.
    Exemplars = 6,
    /// Type, unit and help by metric.
    Metadata = 7,
    /// Ids of traces, where each lies, and the filter over them.
    SpanTraces = 16,
    /// Resources, scopes, names and classes of spans.
    SpanOwners = 17,
    /// What rows hang together by: class, parent, subtree, start, duration.
    SpanRows = 18,
    /// Span ids in the order of rows.
    SpanIds = 19,
    /// What few spans have: messages, trace states, counts of what was dropped.
    SpanExtras = 20,
    /// Attributes of spans.
    SpanAttributes = 21,
    /// Events and their attributes.
    SpanEvents = 22,
    /// Links and their attributes.
    SpanLinks = 23,
    /// Who called whom, by time.
    SpanEdges = 24,
    /// Traces that are whole here and not to be read from older blocks.
    SpanSuperseded = 25,
    /// Where in the sections of spans everything lies.
    SpanDirectory = 26,
    /// The same again.
    SpanDirectoryCopy = 27,
    /// Ids of parents that are not here.
    SpanOrphans = 28,
}

impl SectionKind {
    /// All that this release knows.
    pub(crate) const ALL: [Self; 20] = [
        Self::Strings,
        Self::SeriesIndex,
        Self::Times,
        Self::Values,
        Self::Chunks,
        Self::Exemplars,
        Self::Metadata,
        Self::SpanTraces,
        Self::SpanOwners,
        Self::SpanRows,
        Self::SpanIds,
        Self::SpanExtras,
        Self::SpanAttributes,
        Self::SpanEvents,
        Self::SpanLinks,
        Self::SpanEdges,
        Self::SpanSuperseded,
        Self::SpanDirectory,
        Self::SpanDirectoryCopy,
        Self::SpanOrphans,
    ];

    /// The kind with this number, if it is known.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    /// As people read it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Strings => "strings",
            Self::SeriesIndex => "series-index",
            Self::Times => "times",
            Self::Values => "values",
            Self::Chunks => "chunks",
            Self::Exemplars => "exemplars",
            Self::Metadata => "metadata",
            Self::SpanTraces => "span-traces",
            Self::SpanOwners => "span-owners",
            Self::SpanRows => "span-rows",
            Self::SpanIds => "span-ids",
            Self::SpanExtras => "span-extras",
            Self::SpanAttributes => "span-attributes",
            Self::SpanEvents => "span-events",
            Self::SpanLinks => "span-links",
            Self::SpanEdges => "span-edges",
            Self::SpanSuperseded => "span-superseded",
            Self::SpanDirectory => "span-directory",
            Self::SpanDirectoryCopy => "span-directory-copy",
            Self::SpanOrphans => "span-orphans",
        }
    }
}

/// Decodes bytes as the footer of a block and as one of its ends, as opening a block does. For fuzzing.
///
/// # Errors
/// What is wrong with them as a footer.
#[doc(hidden)]
pub fn check_block_footer(bytes: &[u8]) -> Result<(), &'static str> {
    if let format::EndRead::End(end) = format::End::decode(bytes) {
        let _ = end.adds_up();
    }
    let footer = format::Footer::decode(bytes)?;
    let again = format::Footer::decode(&footer.encode());
    assert_eq!(
        again.as_ref(),
        Ok(&footer),
        "what is read is written and read"
    );
    Ok(())
}
