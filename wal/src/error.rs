//! The log's one error type. [`Error::kind`] says what the caller can do about it.

use std::{io, path::PathBuf};

use crate::{lsn::Lsn, store_id::StoreId};

/// Any error, as a replay callback may return it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Transient: the same call may succeed later. Nothing of it was stored.
    Retry,
    /// Permanent: the call itself is wrong and will fail again.
    InvalidRequest,
    /// Bytes on disk are damaged, or are not ours.
    Corrupted,
    /// The log takes no more writes; reopening may recover.
    Closed,
    /// Written by a newer release.
    Unsupported,
    /// An unexpected failure of the operating system or of the application's replay.
    Internal,
}

/// Everything that can go wrong in the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried: `open`, `read`, `write`, `sync`, ...
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the storage said.
        source: io::Error,
    },
    /// There is no room for a segment. Nothing was written; the log goes on by itself when there is.
    #[error("disk full: cannot allocate {wanted_bytes} bytes for {}: {source}", path.display())]
    DiskFull {
        /// The segment that could not be made.
        path: PathBuf,
        /// Its size.
        wanted_bytes: u64,
        /// What the storage said.
        source: io::Error,
    },
    /// Another process, or another instance in this one, has the directory open.
    #[error("log directory {} is in use by another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// A record beyond [`crate::RECORD_BYTES_MAX`].
    #[error("record of {bytes} bytes is larger than the largest of {max_bytes} bytes")]
    RecordTooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// Settings that cannot work.
    #[error("log setting {name} is {value}: {expected}")]
    InvalidSettings {
        /// The field.
        name: &'static str,
        /// As given.
        value: String,
        /// What would do.
        expected: String,
    },
    /// The log was closed, or poisoned by a failed write or sync. What was durable stays so.
    #[error("the log takes no more records: {reason}")]
    Closed {
        /// Why.
        reason: String,
    },
    /// A segment written by a newer release. It was left as it is.
    #[error(
        "segment {} has format version {found}; this release reads up to {newest}",
        path.display()
    )]
    UnsupportedVersion {
        /// The segment.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version this release reads.
        newest: u32,
    },
    /// A file under a segment's name that is none. It was left as it is.
    #[error("{} is not a log segment: its magic is {found:02x?}", path.display())]
    NotASegment {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        found: [u8; 8],
    },
    /// A segment of another store. It was left as it is.
    #[error("segment {} belongs to store {found}, not to store {expected}", path.display())]
    ForeignStore {
        /// The segment.
        path: PathBuf,
        /// The store the other segments belong to.
        expected: StoreId,
        /// The store this one belongs to.
        found: StoreId,
    },
    /// A segment whose header names another segment than its file name does. Left as it is.
    #[error(
        "segment {} says that it is segment {found}, its name that it is {expected}",
        path.display()
    )]
    MisnamedSegment {
        /// The segment.
        path: PathBuf,
        /// By its name.
        expected: u64,
        /// By its header.
        found: u64,
    },
    /// No segment has a readable header or copy of it, so nothing can be verified. Everything was left as it is.
    #[error(
        "segment {} has a damaged header (byte {offset_bytes}) and no other segment can stand in \
         for it",
        path.display()
    )]
    UnreadableHeader {
        /// The segment.
        path: PathBuf,
        /// Where the header is.
        offset_bytes: u64,
    },
    /// The application refused a record during replay.
    #[error("replay stopped at record {lsn}: {source}")]
    Replay {
        /// The record.
        lsn: Lsn,
        /// What the application said.
        source: BoxError,
    },
}

impl Error {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::DiskFull { .. } | Self::Locked { .. } => ErrorKind::Retry,
            Self::RecordTooLarge { .. } | Self::InvalidSettings { .. } => ErrorKind::InvalidRequest,
            Self::NotASegment { .. }
            | Self::ForeignStore { .. }
            | Self::MisnamedSegment { .. }
            | Self::UnreadableHeader { .. } => ErrorKind::Corrupted,
            Self::Closed { .. } => ErrorKind::Closed,
            Self::UnsupportedVersion { .. } => ErrorKind::Unsupported,
            Self::Io { .. } | Self::Replay { .. } => ErrorKind::Internal,
        }
    }
}
