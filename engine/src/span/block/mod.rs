//! Blocks of spans.

pub(crate) mod attributes;
pub(crate) mod column;
