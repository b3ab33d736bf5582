//! Blocks of spans.

pub(crate) mod column;
