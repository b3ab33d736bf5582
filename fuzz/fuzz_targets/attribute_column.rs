//! Any bytes are a column of attribute values or an error, however they are read; and any bytes, taken as
//! texts or integers, come back from the column that they are written to.
//!
//! The input is the length of a head (two bytes), the head, and the section that it speaks of.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline_engine::check_attribute_column;

fuzz_target!(|bytes: &[u8]| check_attribute_column(bytes));
