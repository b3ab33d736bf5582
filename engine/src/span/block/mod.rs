//! Blocks of spans.

pub(crate) mod column;

pub use column::check_attribute_column;
