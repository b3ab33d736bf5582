//! Showing answers to people: text that is safe for a terminal, times, durations, tables, traces.
//!
//! Everything here turns data into text and is tested on fixed data; nothing here asks the node.

mod duration;
mod moment;
mod number;
mod table;
mod terminal;
mod text;
mod trace_view;

pub(crate) use duration::{duration, parse_duration_ns};
pub(crate) use moment::{parse_moment, rfc3339, span_of_time};
pub(crate) use number::{bytes, count, number};
pub(crate) use table::{Align, Table};
pub(crate) use terminal::Terminal;
pub(crate) use text::plain;
pub(crate) use trace_view::{TraceLine, TraceView, trace_view};
