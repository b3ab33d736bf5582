//! Compaction: fewer and larger blocks, and deletes carried out.
//!
//! | file | what |
//! | --- | --- |
//! | `planner.rs` | which blocks to merge next: a pure function of what is known of them |
//! | `span_planner.rs`, `spans.rs` | the same for blocks of spans, and how they are merged |
//! | `worker.rs` | the thread that merges, applies retention and scrubs |

pub(crate) mod planner;
mod span_planner;
mod spans;
mod worker;

pub use worker::{Compacted, CompactionStats};
pub(crate) use worker::{Compaction, Compactor};
