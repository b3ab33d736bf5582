//! The engine's one error type. [`Error::kind`] says what the caller can do about it.

use std::path::PathBuf;

use crate::{
    id::TraceId,
    time::{TimeRange, Timestamp},
};

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Transient: the same call may succeed later. Nothing of it was stored.
    Retry,
    /// Permanent: the call itself is wrong and will fail again.
    InvalidRequest,
    /// The thing asked for does not exist.
    NotFound,
    /// The query was stopped by its caller.
    Cancelled,
    /// The query ran out of time.
    DeadlineExceeded,
    /// The query went past a configured bound.
    LimitExceeded,
    /// Bytes on disk are damaged.
    Corrupted,
    /// The store takes no more writes; reopening may recover.
    Closed,
    /// Not implemented in this release.
    Unsupported,
    /// A broken invariant or an unexpected failure of the operating system.
    Internal,
}

/// Everything that can go wrong in the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A time that signed nanoseconds cannot hold.
    #[error("timestamp {value} {unit} is outside the range of signed nanoseconds")]
    TimestampOutOfRange {
        /// As given.
        value: i128,
        /// Its unit.
        unit: &'static str,
    },
    /// A range whose end is before its start.
    #[error("time range ends at {end} before it starts at {start}")]
    EmptyTimeRange {
        /// Its start.
        start: Timestamp,
        /// Its end.
        end: Timestamp,
    },
    /// The memory budget has no room. Transient.
    #[error(
        "memory budget is full: {used_bytes} of {limit_bytes} bytes used, {wanted_bytes} more wanted \
         (option memory-limit)"
    )]
    MemoryFull {
        /// In use now.
        used_bytes: u64,
        /// The limit.
        limit_bytes: u64,
        /// Asked for.
        wanted_bytes: u64,
    },
    /// The log holds more than the memory budget can take.
    #[error(
        "replaying the log in {dir} needs more than the memory limit of {limit_bytes} bytes: raise \
         memory-limit (used {used_bytes} bytes after {records} records)"
    )]
    ReplayOverBudget {
        /// Data directory.
        dir: PathBuf,
        /// The limit.
        limit_bytes: u64,
        /// In use when it stopped.
        used_bytes: u64,
        /// Records replayed so far.
        records: u64,
    },
    /// A label set that cannot be stored.
    #[error("invalid labels: {0}")]
    InvalidLabels(#[source] rootline_index::Error),
    /// A matcher that cannot be used.
    #[error("invalid matcher: {0}")]
    InvalidMatcher(#[source] rootline_index::Error),
    /// A row that a part of the span store does not have, or that the snapshot does not see yet.
    #[error("this part of the span store has no row {row}")]
    NoSuchRow {
        /// As given.
        row: u32,
    },
    /// A trace number that a part of the span store does not have, or of which the snapshot sees no span.
    #[error("no visible trace has the number {trace} in this part of the span store")]
    NoSuchTrace {
        /// As given.
        trace: u32,
    },
    /// A delete that names nothing.
    #[error("a delete needs at least one matcher; {{__name__=~\".+\"}} selects everything")]
    NoMatchers,
    /// More active series than allowed.
    #[error("series limit of {max} active series reached (option series-max)")]
    SeriesLimit {
        /// The limit.
        max: u64,
    },
    /// More active series than allowed for one value of a label.
    #[error(
        "series limit of {max} active series with {label}={value:?} reached (option series-max-per-label)"
    )]
    SeriesLimitOfLabel {
        /// The label.
        label: String,
        /// Its value.
        value: String,
        /// The limit.
        max: u64,
    },
    /// A sample older than retention keeps.
    #[error(
        "sample at {time} is older than {floor}, up to where retention has removed samples (options retention-age and retention-bytes)"
    )]
    TooOld {
        /// Its time.
        time: Timestamp,
        /// The oldest time that is kept.
        floor: Timestamp,
    },
    /// A span older than retention keeps.
    #[error(
        "span that ends at {end} is older than {floor}, up to where retention has removed traces (options retention-age and retention-bytes)"
    )]
    SpanTooOld {
        /// When it ended.
        end: Timestamp,
        /// The oldest time that is kept.
        floor: Timestamp,
    },
    /// A trace has as many spans as one may have.
    #[error("trace {id} has {max} spans, and may have no more (option trace-spans-max)")]
    TraceTooLarge {
        /// The trace.
        id: TraceId,
        /// The limit.
        max: u64,
    },
    /// A span that cannot be stored.
    #[error("invalid span: {reason}")]
    InvalidSpan {
        /// Why.
        reason: String,
    },
    /// A batch too large for one log record.
    #[error("batch of {bytes} bytes is larger than the largest log record of {max_bytes} bytes")]
    BatchTooLarge {
        /// Encoded size.
        bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// A log record whose checksum holds but whose content does not decode.
    #[error("log record {lsn} does not decode: {reason}")]
    CorruptRecord {
        /// Its sequence number.
        lsn: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A log record of a kind or version this release does not know.
    #[error("log record {lsn} has unknown {what} {found}: written by a newer release?")]
    UnknownRecord {
        /// Its sequence number.
        lsn: u64,
        /// Kind, version or part.
        what: &'static str,
        /// As found.
        found: u32,
    },
    /// No such trace.
    #[error("trace {0} not found")]
    TraceNotFound(TraceId),
    /// The query was cancelled.
    #[error("query cancelled")]
    Cancelled,
    /// The query ran out of time.
    #[error("query exceeded its deadline")]
    DeadlineExceeded,
    /// The query went past a bound.
    #[error("query exceeds the limit of {max} {what} (option {option})")]
    QueryLimit {
        /// Series, samples or spans.
        what: &'static str,
        /// The bound.
        max: u64,
        /// The option that sets it.
        option: &'static str,
    },
    /// The snapshot was kept open longer than allowed.
    #[error("snapshot expired after {age_s} s (option snapshot-max-age)")]
    SnapshotExpired {
        /// Its age.
        age_s: u64,
    },
    /// The store is closed or poisoned by a failed sync.
    #[error("the store takes no more writes: {reason}")]
    Closed {
        /// Why.
        reason: String,
    },
    /// Not in this release.
    #[error("{0} is not supported in this release")]
    Unsupported(&'static str),
    /// The log failed.
    #[error(transparent)]
    Wal(#[from] rootline_wal::Error),
    /// Room on disk is short: new data are refused until there is more. Transient.
    #[error(
        "disk is low: {free_bytes} bytes free in {dir}, {reserve_bytes} are kept for sealing and \
         deletes (option disk-reserve)"
    )]
    DiskLow {
        /// Data directory.
        dir: PathBuf,
        /// Free now.
        free_bytes: u64,
        /// Kept free.
        reserve_bytes: u64,
    },
    /// Something is in the way.
    #[error("{path} exists already and is not empty")]
    AlreadyExists {
        /// The file or directory.
        path: PathBuf,
    },
    /// A snapshot that is not intact.
    #[error("the snapshot is damaged: {path} at byte {offset_bytes}: {reason}")]
    DamagedSnapshot {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset_bytes: u64,
        /// What is wrong.
        reason: String,
    },
    /// A directory without a store in it.
    #[error("{dir} holds no store: neither log, manifest nor blocks")]
    NotAStore {
        /// The directory.
        dir: PathBuf,
    },
    /// A file operation failed.
    #[error("{operation} {path} failed: {source}")]
    Storage {
        /// What was tried.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Bytes of a block are damaged. What does not lie on the same page can be read.
    #[error("block {path} is damaged at byte {offset_bytes}: {reason}")]
    CorruptBlock {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset_bytes: u64,
        /// What is wrong.
        reason: String,
    },
    /// A file that is no block, or cut short, or of another store.
    #[error("{path} is not a block of this store: {reason}")]
    NotABlock {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A block of a version this release does not read.
    #[error("block {path} has version {version}: written by a newer release?")]
    UnsupportedBlock {
        /// The file.
        path: PathBuf,
        /// As found.
        version: u32,
    },
    /// The manifest is damaged.
    #[error("manifest {path} is damaged at byte {offset_bytes}: {reason}")]
    CorruptManifest {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset_bytes: u64,
        /// What is wrong.
        reason: String,
    },
    /// A change of the manifest that contradicts what it says. A broken invariant of the store.
    #[error("edit of the manifest refused: {reason}")]
    InvalidEdit {
        /// What does not fit.
        reason: String,
    },
    /// The store can be read, not written.
    #[error("the store is read-only: {reason}")]
    ReadOnly {
        /// Why.
        reason: String,
    },
    /// A range that some operation does not take.
    #[error("range {0} is not usable here")]
    BadRange(TimeRange),
}

impl Error {
    /// Whether there was no room on disk.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            Self::Storage { source, .. } => rootline_wal::is_disk_full(source),
            Self::Wal(rootline_wal::Error::DiskFull { .. }) => true,
            _ => false,
        }
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TimestampOutOfRange { .. }
            | Self::EmptyTimeRange { .. }
            | Self::InvalidLabels(_)
            | Self::InvalidMatcher(_)
            | Self::SeriesLimit { .. }
            | Self::SeriesLimitOfLabel { .. }
            | Self::TooOld { .. }
            | Self::SpanTooOld { .. }
            | Self::TraceTooLarge { .. }
            | Self::InvalidSpan { .. }
            | Self::BatchTooLarge { .. }
            | Self::NoMatchers
            | Self::AlreadyExists { .. }
            | Self::BadRange(_) => ErrorKind::InvalidRequest,
            Self::MemoryFull { .. } | Self::DiskLow { .. } => ErrorKind::Retry,
            Self::Storage { source, .. } if rootline_wal::is_disk_full(source) => ErrorKind::Retry,
            Self::Storage { .. } | Self::InvalidEdit { .. } => ErrorKind::Internal,
            Self::CorruptBlock { .. }
            | Self::NotABlock { .. }
            | Self::UnsupportedBlock { .. }
            | Self::DamagedSnapshot { .. }
            | Self::CorruptManifest { .. }
            | Self::CorruptRecord { .. }
            | Self::UnknownRecord { .. } => ErrorKind::Corrupted,
            Self::ReplayOverBudget { .. } | Self::QueryLimit { .. } => ErrorKind::LimitExceeded,
            Self::TraceNotFound(_)
            | Self::NotAStore { .. }
            | Self::NoSuchRow { .. }
            | Self::NoSuchTrace { .. } => ErrorKind::NotFound,
            Self::Cancelled | Self::SnapshotExpired { .. } => ErrorKind::Cancelled,
            Self::DeadlineExceeded => ErrorKind::DeadlineExceeded,
            Self::Closed { .. } | Self::ReadOnly { .. } => ErrorKind::Closed,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Wal(e) => match e.kind() {
                rootline_wal::ErrorKind::Retry => ErrorKind::Retry,
                rootline_wal::ErrorKind::InvalidRequest => ErrorKind::InvalidRequest,
                rootline_wal::ErrorKind::Corrupted => ErrorKind::Corrupted,
                rootline_wal::ErrorKind::Closed => ErrorKind::Closed,
                _ => ErrorKind::Internal,
            },
        }
    }
}
