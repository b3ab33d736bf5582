//! The metric half of the store, in memory: series, their samples, exemplars and metadata.
//!
//! | file | what |
//! | --- | --- |
//! | `batch.rs` | what a sender writes |
//! | `prepare.rs` | rows become series, the batch becomes record parts |
//! | `head.rs` | the shards: apply, delete, replay, the budget |
//! | `view.rs` | the parts that a snapshot reads |
//! | `read.rs` | questions at a snapshot |
//! | `part.rs`, `head_read.rs`, `block_read.rs` | what one part of the view answers |
//! | `summary.rs` | what series amount to, by statistics of chunks |
//! | `cardinality.rs` | how many series stand under what |
//! | `series_reader.rs` | one series after the other out of the parts |
//! | `registry.rs`, `series_hash.rs` | which series there are, by hash and by reference |
//! | `ref_table.rs` | which series a reference of the log is |
//! | `index.rs` | which series carry which labels |
//! | `frozen.rs`, `label_order.rs` | a frozen generation read whole, in the order of labels |
//! | `series.rs` | one series: main stream, marks, what a snapshot sees of it |
//! | `runs.rs` | samples of one series, put together from several parts |
//! | `side.rs`, `tombstone.rs`, `exemplar.rs` | what few series have |
//! | `metadata.rs` | type, unit and help by metric name |
//! | `pages.rs` | a list that never moves its entries |

mod batch;
pub(crate) mod block;
mod block_read;
mod cardinality;
mod exemplar;
mod frozen;
#[cfg(test)]
mod golden_test;
mod head;
mod head_read;
mod index;
mod label_order;
mod metadata;
#[cfg(test)]
mod model_test;
mod pages;
mod part;
mod prepare;
mod read;
mod ref_table;
mod registry;
mod runs;
mod series;
mod series_hash;
mod series_reader;
mod side;
mod summary;
mod tombstone;
mod view;
#[cfg(test)]
mod view_test;

pub use batch::{MetricBatch, ParseLabels, SeriesRow};
pub use block::check_metric_block;
pub(crate) use block::{BlockOrigin, MetricBlock, MetricBlockWriter};
pub use cardinality::{Cardinality, CardinalityBy, CardinalityItem};
pub use exemplar::{EXEMPLARS_PER_SERIES_MAX, Exemplar};
pub(crate) use frozen::FrozenReader;
pub(crate) use head::MetricHead;
pub use head::MetricStats;
pub use metadata::{METADATA_METRICS_MAX, Metadata, MetricKind};
pub(crate) use prepare::PreparedMetrics;
pub use read::{SeriesExemplars, SeriesSamples};
pub(crate) use registry::SeriesNumber;
pub(crate) use runs::Samples;
pub(crate) use series_hash::HashKey;
pub use summary::SeriesSummary;
pub(crate) use view::{FrozenGeneration, MetricView};
