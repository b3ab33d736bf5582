//! Compaction: fewer and larger blocks, and deletes carried out.
//!
//! | file | what |
//! | --- | --- |
//! | `planner.rs` | which blocks to merge next: a pure function of what is known of them |

pub(crate) mod planner;
