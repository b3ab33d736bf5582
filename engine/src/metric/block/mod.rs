//! Samples, exemplars and metadata in a block. Bytes: `docs/formats/metric-block.md`.
//!
//! Series are rows, in the order of their `Labels`. [`MetricBlockWriter`] writes a block in one pass,
//! [`MetricBlock`] reads it, [`merge`] makes new ones of several.
//!
//! | file | what |
//! | --- | --- |
//! | `writer.rs`, `reader.rs`, `merge.rs` | a whole block |
//! | `chunks.rs` | which columns belong to which series |
//! | `time_columns.rs` | each distinct time column once |
//! | `stats.rs` | what is known of a chunk without reading it |
//! | `exemplars.rs`, `metadata.rs` | what stands beside samples |
//! | `row_table.rs` | finding an item by row |
//! | `section.rs`, `item.rs` | reading one section, one item |
//! | `check.rs` | reading all of it, for fuzzers |

mod check;
mod chunks;
mod exemplars;
#[cfg(test)]
mod golden_test;
mod item;
mod merge;
mod metadata;
mod reader;
mod row_table;
mod section;
mod stats;
#[cfg(test)]
mod tests;
mod time_columns;
mod writer;

pub use check::check_metric_block;
pub(crate) use merge::{MergeOutput, merge};
pub(crate) use reader::{ChunkInfo, ColumnCache, MetricBlock, MetricBlockContents, SeriesLabels};
pub(crate) use stats::ChunkStats;
pub(crate) use writer::{BlockOrigin, MetricBlockWriter};
