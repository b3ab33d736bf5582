//! The Rootline node: what speaks to the world. The only async crate of the workspace.
//!
//! [`run::RunningNode`] is a node from start to stop, [`node::NodeState`] what all its listeners
//! share; [`body`] and [`refusal`] are the two ends of every request; [`remote_write`] and the other
//! protocol modules lie between them. [`cli`] is the binary. `docs/operations.md` explains options,
//! ports, limits and self metrics.
#![forbid(unsafe_code)]

pub mod api;
pub mod body;
pub mod buffer_pool;
pub mod cli;
pub mod client;
pub mod config;
pub mod demo;
mod grpc;
mod http;
mod listen;
mod logging;
mod memory_limit;
pub mod node;
pub mod otlp;
pub mod proto;
pub mod refusal;
pub mod remote_write;
pub mod run;
pub mod self_metrics;
pub mod send;
mod watch;
