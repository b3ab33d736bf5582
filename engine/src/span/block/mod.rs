//! Spans in a block. Bytes: `docs/formats/span-block.md`.
//!
//! Spans are rows: traces by (start, id), inside a trace depth-first, so that what is under a span are
//! the rows right behind it. [`write_block`] makes a block of rows in memory ([`LooseRows`]), of other
//! blocks, or of both; [`SpanBlock`] reads it.
//!
//! | file | what |
//! | --- | --- |
//! | `loose.rs`, `loose_head.rs`, `loose_traces.rs` | rows in memory: of a head, of traces |
//! | `order.rs` | the order of rows inside a trace |
//! | `writer.rs`, `reader.rs` | a whole block |
//! | `merge.rs` | one block of several |
//! | `trace.rs` | a whole trace |
//! | `directory.rs` | where everything lies: read when a block is opened, stands twice |
//! | `attributes/`, `column/` | attributes of rows, events and links |
//! | `satellites.rs` | events, links, extras |
//! | `groups.rs`, `sparse.rs` | a column of integers, rows of items that few rows have |
//! | `traces.rs`, `fuse.rs` | ids of traces and the filter over them |
//! | `check.rs` | reading all of it, for fuzzers |
//! | `owners.rs` | names, resources, scopes, classes |
//! | `rows.rs`, `orphans.rs` | what rows hang together by |

pub(crate) mod attributes;
mod check;
pub(crate) mod column;
mod directory;
mod fuse;
#[cfg(test)]
mod golden_test;
mod groups;
mod loose;
mod loose_head;
mod loose_traces;
mod merge;
mod order;
mod orphans;
mod owners;
mod reader;
mod rows;
pub(crate) mod satellites;
mod sparse;
#[cfg(test)]
mod tests;
mod trace;
mod traces;
mod writer;

pub use check::check_span_block;
pub use column::check_attribute_column;
pub(crate) use groups::GROUP_ROWS;
pub(crate) use loose::LooseRows;
pub(crate) use merge::merge;
pub(crate) use reader::{RowCursor, SpanBlock};
pub(crate) use satellites::{
    MESSAGE as STATUS_MESSAGE, NAME as EVENT_NAME, SatelliteCursor, Satellites,
};
pub(crate) use trace::SpanReader;
pub(crate) use traces::TraceCursor;
pub(crate) use writer::{RowRun, RowSource, SpanBlockOrigin, write_block};
