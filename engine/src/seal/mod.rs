//! Sealing: a frozen generation becomes blocks.
//!
//! | file | what |
//! | --- | --- |
//! | `windows.rs` | what a generation was written to, and when it is due |
//! | `metrics.rs` | a generation of metrics as blocks |

mod metrics;
mod windows;

pub(crate) use metrics::{Sealing, ids};
pub(crate) use windows::Windows;
