//! The span store: what arrives as batches, what the head holds, what is asked of it.
//!
//! | file | holds |
//! | --- | --- |
//! | `batch.rs`, `dictionary.rs`, `rest.rs` | spans on their way in, columnar |
//! | `head.rs` | the head: shards, preparing, applying, reading |
//! | `shard.rs` | rows of one shard, linked to parents, with marks and deletes |
//! | `column.rs`, `arena.rs`, `stripes.rs`, `tags.rs`, `row_list.rs` | what a shard is made of |
//! | `catalog.rs` | names, keys, resources, scopes of all shards |
//! | `parents.rs` | the parent rule |
//! | `filter.rs`, `select.rs`, `hit.rs` | searching spans |
//! | `read.rs`, `listing.rs` | whole traces; names, values, services, operations |
//! | `model.rs` | a span as it is answered |
//!
//! The log's form of a batch is `crate::record::spans`.

mod arena;
mod axis;
pub(crate) mod batch;
pub(crate) mod block;
mod catalog;
mod column;
pub(crate) mod dictionary;
mod filter;
#[cfg(test)]
mod golden_test;
pub(crate) mod hash;
pub(crate) mod head;
pub(crate) mod hidden;
mod hit;
mod listing;
pub(crate) mod model;
mod parents;
mod read;
pub(crate) mod rest;
mod row_list;
mod rows;
mod select;
mod shard;
mod stripes;
mod tags;
#[cfg(test)]
mod tests;

pub use axis::Axis;
pub use batch::{
    LinkFields, ResourceFields, ResourceRow, ScopeFields, ScopeRow, SpanBatch, SpanFields,
    SpanWriter,
};
#[doc(hidden)]
pub use block::check_attribute_column;
pub use catalog::SymbolId;
pub use filter::{SpanCondition, SpanFilter, StringMatch, TagScope};
pub use head::SpanStats;
pub(crate) use head::{PreparedSpans, SpanHead};
pub use hit::SpanHit;
pub use listing::{TagName, TagValue};
pub use model::{
    Attributes, Event, Link, Resource, SERVICE_NAME, Scope, ServiceCount, Span, SpanKind,
    StatusCode, Trace, TraceSummary,
};
pub use rows::SpanRows;
