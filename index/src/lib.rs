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
//! | [`disk`] | the same of a block on disk |
//!
//! ```
//! use rootline_index::{Labels, MatchOp, Matcher, MemIndex, Symbols};
//!
//! let mut symbols = Symbols::new();
//! let mut index = MemIndex::new();
//! for (row, job) in (0..).zip(["api", "db", "api-canary"]) {
//!     let labels = Labels::from_pairs([("__name__", "up"), ("job", job)])?;
//!     let pairs: Vec<_> =
//!         labels.iter().map(|(name, value)| (symbols.intern(name), symbols.intern(value))).collect();
//!     index.insert(row, &pairs);
//! }
//! let matchers = [Matcher::equal("__name__", "up"), Matcher::new(MatchOp::Regex, "job", "api.*")?];
//! assert!(index.select(&matchers, &symbols).iter().eq([0, 2]));
//! # Ok::<(), rootline_index::Error>(())
//! ```
#![deny(unsafe_code)]

pub mod disk;
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
