//! Whatever an attribute table holds under checksums that are right: it is read or refused, without a panic
//! and without an allocation beyond what its bytes can mean.
//!
//! The input is the length of the head (one byte), the head, the section.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline_engine::check_attribute_table;

fuzz_target!(|bytes: &[u8]| {
    let _ = check_attribute_table(bytes);
});
