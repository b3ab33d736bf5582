//! Encodings of whole columns, as blocks hold them: timestamps, values, integers.
//!
//! | file | what |
//! | --- | --- |
//! | `values.rs` | floats |
//! | `times.rs` | rising timestamps |
//! | `integers.rs` | any integers, in groups of 1,024: what the other two are made of |
//! | `bitpack.rs` | their bits |
//! | `kernel.rs` | loops compiled for AVX2 and AVX-512 as well, chosen at run time |
//!
//! Public so that benchmarks and fuzzers reach them; an embedder needs none of it.

pub mod bitpack;
mod coded;
mod exceptions;
pub mod integers;
pub mod kernel;
mod last_bits;
mod rational;
mod raw;
mod scale;
pub mod times;
pub mod values;

/// Why bytes are no column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ColumnError {
    /// The bytes contradict themselves or end too early.
    #[error("damaged column at byte {offset_bytes}: {reason}")]
    Damaged {
        /// Where in the column.
        offset_bytes: usize,
        /// What is wrong.
        reason: &'static str,
    },
}
