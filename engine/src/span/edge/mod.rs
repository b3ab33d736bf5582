//! Who calls whom: edges between services, found in parts of the span store and summed up by time.
//!
//! An edge is a span whose parent, by the parent rule, belongs to another service: one call, whose
//! outcome and latency are the child's and whose minute is that of the child's start. Other kinds of
//! edges are seen from one side only ([`EdgeKind`]).
//!
//! | file | holds |
//! | --- | --- |
//! | `kind.rs` | kinds of edges |
//! | `graph.rs` | sums by edge, over all parts |
//! | `sketch.rs` | durations as a histogram that can be taken off again |
//! | `period.rs` | a range as days, hours, minutes and what is left |
//! | `part.rs`, `peers.rs` | the edges of a part, from its rows |
//! | `block.rs` | the calls of a block, from its summaries where it has them |
//! | `links.rs` | links as edges, whatever parts their ends lie in |
//! | `collect.rs`, `section.rs` | the summaries of a block, written and read |

mod block;
#[cfg(test)]
mod block_test;
mod collect;
mod graph;
mod kind;
mod links;
mod part;
mod peers;
mod period;
mod section;
mod sketch;

pub(super) use block::{each_link, each_span_of};
pub(crate) use collect::{ClassOwner, EdgeRows};
pub use graph::{Edge, EdgeGraph, EdgeSums};
pub use kind::{EdgeKind, EdgeKinds};
pub use part::EdgeFilter;
#[doc(hidden)]
pub use section::check_span_edges;
pub use sketch::DurationSketch;

/// A count as a number of a row, an edge or a text. Blocks have less than 2^32 rows.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
