//! Labels, matchers, symbol dictionaries and postings: how both stores of Rootline find rows by
//! what they are called.
//!
//! This crate knows label names, label values and row numbers. It does not know what a row stands
//! for (a series of the metric store, a resource of the span store), it opens no file, takes no
//! time and owns no thread. Whoever owns a [`MemIndex`] owns its lock as well.
//!
//! | type | answers |
//! | --- | --- |
//! | [`Labels`], [`LabelsBuilder`], [`LabelLimits`] | what is this row called? |
//! | [`Symbols`], [`SharedSymbols`], [`Symbol`] | which number stands for this string, and back? |
//! | [`Matcher`], [`MatchOp`] | does a label value satisfy this condition? |
//! | [`Postings`] | which rows carry this label pair? |
//! | [`MemIndex`], [`SelectPlan`], [`Selection`] | which rows satisfy all these conditions? |
#![deny(unsafe_code)]

mod error;
mod label_bytes;
mod label_limits;
mod labels;
mod matcher;
mod mem_index;
mod postings;
mod re2;
mod regex_matcher;
mod select;
mod symbols;
mod varint;

pub use error::{Error, ErrorKind, LabelFault};
pub use label_limits::LabelLimits;
pub use labels::{Labels, LabelsBuilder, LabelsIter, METRIC_NAME, is_legacy_valid_name};
pub use matcher::{MatchOp, Matcher};
pub use mem_index::{LabelCardinality, MemIndex};
pub use postings::{Postings, PostingsIter};
pub use select::{SelectPlan, Selection};
pub use symbols::{SharedSymbols, Symbol, Symbols};
