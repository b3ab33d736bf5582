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
//! | `part.rs`, `head_part.rs` | a part of the store as a snapshot sees it: what queries ask |
//! | `family.rs` | relatives, depths and own times within a trace |
//! | `view.rs`, `recall.rs`, `hidden.rs` | the parts of the store, and how a trace stays whole in one of them |
//! | `filter.rs`, `select.rs`, `hit.rs` | searching spans |
//! | `read.rs` | whole traces of the head |
//! | `listing.rs`, `head_listing.rs` | names, values, services, operations |
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
mod family;
mod filter;
#[cfg(test)]
mod golden_test;
pub(crate) mod hash;
pub(crate) mod head;
mod head_listing;
mod head_part;
pub(crate) mod hidden;
mod hit;
pub(crate) mod listing;
pub(crate) mod model;
mod parents;
mod part;
#[cfg(test)]
mod part_test;
mod read;
pub(crate) mod recall;
pub(crate) mod rest;
mod row_list;
mod rows;
mod select;
mod shard;
mod stripes;
mod tags;
#[cfg(test)]
mod tests;
mod view;
#[cfg(test)]
mod view_test;

pub use axis::Axis;
pub use batch::{
    AttributeRow, LinkFields, ResourceFields, ResourceRow, ScopeFields, ScopeRow, SpanBatch, SpanFields,
    SpanWriter,
};
pub(crate) use block::SpanBlock;
pub use catalog::SymbolId;
pub use filter::{SpanCondition, SpanFilter, StringMatch, TagScope};
pub use head::SpanStats;
pub(crate) use head::{PreparedSpans, SpanHead};
pub(crate) use hidden::Hidden;
pub use hit::SpanHit;
pub use listing::{TagName, TagValue};
pub use model::{
    Attributes, Event, Link, Resource, SERVICE_NAME, Scope, ServiceCount, Span, SpanKind,
    StatusCode, Trace, TraceSummary,
};
pub use part::{NewestTrace, RowValues, SpanClass, SpanPart};
pub use rows::SpanRows;
pub(crate) use view::{FrozenSpans, SpanBlockPart, SpanView, ViewPart};
