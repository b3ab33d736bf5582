//! Columns of `f64`, bit-exact, in groups of 1,024. Bytes: `docs/formats/value-column.md`.
//!
//! Every group takes the form that is smallest for it: integers over a power of ten or another scale
//! (`scale.rs`), the same with corrections of the last bits (`last_bits.rs`), ratios of two integers
//! (`rational.rs`), bit patterns as integers (`raw.rs`), or one value for all. What a form cannot give
//! back stands beside it as an exception (`exceptions.rs`).
//!
//! Choosing a form takes two steps. A sample of the group says which forms are worth a try; each of
//! them then encodes the whole group, and the shortest one stays. Decimals that all come back exactly
//! are the ordinary case and end the search at once.
//!
//! Invariants
//! - A form is used only if the encoder has computed with the reader's own function that every value
//!   which is no exception comes back bit by bit: not-a-numbers with payload, negative zeros,
//!   infinities and subnormals included.
//! - A column does not store how many values it has. Decoding takes any bytes and any count: it gives
//!   values or an error, and makes room for no more than 65,536 values at a time that no byte speaks for.

mod decoder;
mod encoder;
mod sample;
#[cfg(test)]
mod tests;

pub use decoder::{decode, decode_range, describe};
pub use encoder::Encoder;

use super::scale;

/// The longest column that one value can stand for.
const CONSTANT_VALUES_MAX: usize = 65_536;

// The form of a group: the low six bits of its head.
const FORM_OVER_POWER: u8 = 0; // + digits, 0..=22
const FORM_TIMES_INVERSE: u8 = 22; // + digits, 1..=18
const FORM_TIMES: u8 = 41;
const FORM_OVER: u8 = 42;
const FORM_PAIRS: u8 = 43;
const FORM_RATIOS: u8 = 44;
const FORM_PATTERNS: u8 = 45;
const FORM_WORDS: u8 = 46;
const FORM_CONSTANT_INTEGER: u8 = 47;
const FORM_CONSTANT_BITS: u8 = 48;
const FORM_IN_STEPS: u8 = 46; // + digits, 3..=15
const FORM_MASK: u8 = 0x3f;
/// Corrections stand behind the integers.
const FLAG_CORRECTED: u8 = 0x40;
/// Of a constant: it speaks for the whole column, not for its first group.
const FLAG_WHOLE: u8 = 0x40;
/// Exceptions stand before the integers.
const FLAG_EXCEPTIONS: u8 = 0x80;

const _: () = assert!(FORM_TIMES_INVERSE + scale::INVERSE_MAX < FORM_TIMES);
const _: () = assert!(scale::POWER_OF_TEN_MAX <= FORM_TIMES_INVERSE);
const _: () = assert!(FORM_IN_STEPS + scale::STEPS_MIN > FORM_CONSTANT_BITS);
const _: () = assert!(FORM_IN_STEPS + scale::STEPS_MAX <= FORM_MASK);
