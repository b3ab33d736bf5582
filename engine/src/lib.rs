//! Rootline's embeddable store for metrics and traces.
//!
//! One directory, one log, one order of writes for both signals. A [`WriteBatch`] is stored whole: when
//! [`Engine::write`] returns it is durable and visible. A [`Snapshot`] is every batch acknowledged
//! before it, of both signals, and does not change while it is read.
//!
//! Samples go from memory into blocks, immutable files; spans live in memory and are rebuilt from the
//! log at start in this release.
//!
//! Start with [`Engine`]; `examples/` has programs to copy from, `docs/architecture.md` the way a
//! sample, a span and a query take through the files.
//!
//! The engine knows no protocol and no async runtime: calls block, from any thread.
#![deny(unsafe_code)]

pub mod allocator;
pub mod backup;
mod batch;
mod batch_pool;
mod block;
mod budget;
pub mod chunk;
pub mod column;
mod commit;
mod compaction;
mod control;
mod disk;
mod engine;
mod error;
mod filenames;
mod files;
#[cfg(test)]
mod freeze_test;
mod heads;
mod id;
pub mod inspect;
mod lanes;
mod maintenance;
mod manifest;
mod metric;
mod outcome;
mod record;
mod replay;
mod retention;
mod seal;
mod settings;
mod snapshot;
mod span;
mod store;
mod sync;
mod time;
mod tombstone;
mod value;
mod varint;
pub mod verify;
mod visibility;

pub use batch::WriteBatch;
#[doc(hidden)]
pub use block::check_block_footer;
pub use budget::{Budget, Holder, Reservation};
pub use compaction::{Compacted, CompactionStats};
pub use control::{CHECK_ROWS, QueryControl, QueryLimits};
pub use engine::{Builder, Engine, EngineStats};
pub use error::{Error, ErrorKind};
pub use files::FileDamage;
pub use id::{SeriesRef, SpanId, TraceId};
pub use maintenance::{Flushed, SealStats};
#[doc(hidden)]
pub use manifest::check_manifest_edit;
pub use metric::*;
pub use outcome::{Rejections, WriteOutcome};
pub use replay::{ReplayProgress, Replayed, check_record};
pub use rootline_index::{
    Error as LabelError, LabelLimits, Labels, LabelsBuilder, MatchOp, Matcher,
};
pub use rootline_wal::{Clock, Durability, FsStorage, Lsn, Storage, SystemClock};
pub use settings::Settings;
pub use snapshot::Snapshot;
pub use span::*;
pub use time::{NS_PER_MS, NS_PER_S, TimeRange, Timestamp};
pub use value::{AttributeType, TooDeep, VALUE_DEPTH_MAX, Value, ValueRef};
