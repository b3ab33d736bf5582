//! The metric half of the store, in memory: series, their samples, exemplars and metadata.
//!
//! | file | what |
//! | --- | --- |
//! | `batch.rs` | what a sender writes |
//! | `prepare.rs` | rows become series, the batch becomes record parts |
//! | `head.rs` | the shards: apply, delete, replay, the budget |
//! | `read.rs` | questions at a snapshot |
//! | `registry.rs`, `series_hash.rs` | which series there are, by hash and by reference |
//! | `index.rs` | which series carry which labels |
//! | `series.rs` | one series: main stream, marks, what a snapshot sees of it |
//! | `side.rs`, `tombstone.rs`, `exemplar.rs` | what few series have |
//! | `metadata.rs` | type, unit and help by metric name |
//! | `pages.rs` | a list that never moves its entries |

mod batch;
pub(crate) mod block;
mod exemplar;
#[cfg(test)]
mod golden_test;
mod head;
mod index;
mod metadata;
#[cfg(test)]
mod model_test;
mod pages;
mod prepare;
mod read;
mod registry;
mod series;
mod series_hash;
mod side;
mod tombstone;

pub use batch::{MetricBatch, ParseLabels, SeriesRow};
pub use block::check_metric_block;
pub use exemplar::{EXEMPLARS_PER_SERIES_MAX, Exemplar};
pub(crate) use head::MetricHead;
pub use head::MetricStats;
pub use metadata::{METADATA_METRICS_MAX, Metadata, MetricKind};
pub(crate) use prepare::PreparedMetrics;
pub use read::{SeriesExemplars, SeriesSamples};
