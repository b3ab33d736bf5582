//! The Rootline node: what speaks to the world. The only async crate of the workspace.
//!
//! [`node::NodeState`] is what all listeners share; [`body`] and [`refusal`] are the two ends of
//! every request; [`remote_write`] and the other protocol modules lie between them. [`cli`] is the
//! binary. `docs/operations.md` explains options, ports, limits and self metrics.
#![forbid(unsafe_code)]

pub mod body;
pub mod config;
pub mod demo;
mod memory_limit;
pub mod node;
pub mod refusal;
pub mod self_metrics;
pub mod send;
