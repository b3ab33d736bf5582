//! Sealing: a frozen generation becomes blocks.
//!
//! | file | what |
//! | --- | --- |
//! | `windows.rs` | what a generation was written to, and when it is due |
//! | `metrics.rs` | a generation of metrics as blocks |
//! | `spans.rs` | a generation of spans as a block |

mod metrics;
mod spans;
mod windows;

pub(crate) use metrics::{Sealing, ids};
pub(crate) use spans::SpanSealing;
pub(crate) use windows::Windows;
