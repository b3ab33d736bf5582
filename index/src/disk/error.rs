//! What can go wrong while an index on disk is read.

/// One of the two byte ranges that an index lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The dictionaries.
    Strings,
    /// Columns, postings and the directory.
    Index,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Strings => "strings",
            Self::Index => "index",
        })
    }
}

/// Why an index on disk gave no answer. `E` is the error of its [`Source`](super::Source).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error<E> {
    /// Bytes that passed their checksum do not have the shape they must have.
    #[error("malformed series index at byte {offset_bytes} of its {part} part: {reason}")]
    Damaged {
        /// Which part.
        part: Part,
        /// Where in the part the structure in question lies.
        offset_bytes: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The index was written by a newer release.
    #[error("unknown version {version} of the series index")]
    UnknownVersion {
        /// The version found.
        version: u8,
    },
    /// The caller's `keep_going` said no.
    #[error("the selection was cancelled")]
    Cancelled,
    /// The bytes could not be read.
    #[error(transparent)]
    Source(E),
}
