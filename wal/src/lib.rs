//! A segmented, checksummed, group-committed log of opaque records, and the seams to disk and time.
//!
//! The log sees bytes, never what they mean. Its promises:
//! - a record whose [`Wal::wait_durable`] returned `Ok` is replayed by every later open, whatever crash,
//!   power cut or full disk came between;
//! - records are replayed in LSN order, whole, and as they were appended, or reported as damaged;
//! - nothing that was served can be taken back by a later power cut.
//!
//! Start at [`Wal::open`]. Bytes on disk: `docs/formats/wal.md`.
#![forbid(unsafe_code)]

mod background;
mod checksum;
mod clock;
mod cut;
mod error;
mod filenames;
mod format;
mod group;
mod log;
mod lsn;
mod recovery;
mod scan;
mod segment;
mod settings;
mod stats;
mod storage;
mod store_id;

pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{BoxError, Error, ErrorKind};
pub use format::RECORD_BYTES_MAX;
pub use log::Wal;
pub use lsn::Lsn;
pub use recovery::{Corruption, Record, Recovery};
pub use settings::{Durability, Settings};
pub use stats::Stats;
pub use storage::{
    Fault, FaultStorage, FsStorage, LockGuard, Operation, PowerCutStorage, Storage, StorageFile,
    is_disk_full,
};
pub use store_id::StoreId;
