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
//! | `part.rs`, `head_part.rs`, `head_newest.rs` | a part of the store as a snapshot sees it: what queries ask |
//! | `block_part.rs`, `block_select.rs`, `block_newest.rs`, `block_tags.rs`, `block_listing.rs` | a block as a part |
//! | `class_set.rs`, `row_set.rs` | sets of classes, sets of rows |
//! | `family.rs` | relatives, depths and own times within a trace |
//! | `edge/` | who calls whom |
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
mod block_listing;
mod block_newest;
mod block_part;
mod block_select;
mod block_tags;
mod catalog;
mod class_set;
mod column;
pub(crate) mod dictionary;
pub(crate) mod edge;
mod family;
mod filter;
#[cfg(test)]
mod golden_test;
pub(crate) mod hash;
pub(crate) mod head;
mod head_listing;
mod head_newest;
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
mod row_set;
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
    LinkFields, ResourceFields, ResourceRow, ScopeFields, ScopeRow, SpanBatch, SpanFields,
    SpanWriter, UnseenAttribute,
};
pub(crate) use block::SpanBlock;
#[doc(hidden)]
pub use block::attributes::check_attribute_table;
#[doc(hidden)]
pub use block::check_span_block;
pub use catalog::SymbolId;
#[doc(hidden)]
pub use edge::check_span_edges;
pub use edge::{DurationSketch, Edge, EdgeFilter, EdgeGraph, EdgeKind, EdgeKinds, EdgeSums};
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
