//! Compaction: fewer and larger blocks, and deletes carried out.
//!
//! | file | what |
//! | --- | --- |
//! | `planner.rs` | which blocks to merge next: a pure function of what is known of them |
//! | `worker.rs` | the thread that merges, applies retention and scrubs |

pub(crate) mod planner;
mod worker;

pub use worker::{Compacted, CompactionStats};
pub(crate) use worker::{Compaction, Compactor};
